"""Variables in values: `$NAME`, `${NAME}` and the specification's six forms with a default, an error or a replacement.

https://github.com/compose-spec/compose-spec/blob/main/12-interpolation.md; `$$` is a dollar sign. Pure: the
environment is an argument.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final

from argosy.cli.compose.document import Entry, Map, Node, Scalar, Seq
from argosy.cli.compose.problems import Findings, Position

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATOR: Final = re.compile(r":?[-?+]")
_DEEPEST: Final = 32


class InterpolationError(Exception):
    """A value's variables are written wrongly, or a required one is missing; the text is for the user."""


def interpolate(text: str, env: Mapping[str, str], unset: Callable[[str], None] = lambda name: None) -> str:
    """Return `text` with its variables replaced from `env`.

    `unset` is told of each variable that has no value and no default: it becomes "". Raises InterpolationError.
    """
    if "$" not in text:
        return text
    return _Parser(text, env, unset).until_end()


class _Parser:
    def __init__(self, text: str, env: Mapping[str, str], unset: Callable[[str], None]) -> None:
        self._text = text
        self._env = env
        self._unset = unset
        self._at = 0
        self._depth = 0

    def until_end(self) -> str:
        return self._parts(closing=False, quiet=False)

    def _parts(self, *, closing: bool, quiet: bool) -> str:
        """Read up to the end, or with `closing` up to the brace that ends the expression around."""
        parts: list[str] = []
        while self._at < len(self._text):
            char = self._text[self._at]
            if char == "}" and closing:
                return "".join(parts)
            if char == "$":
                parts.append(self._variable(quiet))
            else:
                parts.append(char)
                self._at += 1
        if closing:
            raise InterpolationError(f"'${{' without its '}}' in '{self._text}'")
        return "".join(parts)

    def _variable(self, quiet: bool) -> str:
        rest = self._text[self._at + 1 : self._at + 2]
        if rest == "$":
            self._at += 2
            return "$"
        if rest == "{":
            self._at += 2
            return self._braced(quiet)
        found = _NAME.match(self._text, self._at + 1)
        if found is None:
            raise InterpolationError(f"'$' begins no variable in '{self._text}': write '$$' for a dollar sign")
        self._at = found.end()
        return self._value(found[0], quiet)

    def _value(self, name: str, quiet: bool) -> str:
        if name not in self._env and not quiet:
            self._unset(name)
        return self._env.get(name, "")

    def _braced(self, quiet: bool) -> str:
        found = _NAME.match(self._text, self._at)
        if found is None:
            raise InterpolationError(f"'${{' is not followed by a variable's name in '{self._text}'")
        name = found[0]
        self._at = found.end()
        if self._text[self._at : self._at + 1] == "}":
            self._at += 1
            return self._value(name, quiet)
        operator = _OPERATOR.match(self._text, self._at)
        if self._at == len(self._text):
            raise InterpolationError(f"'${{' without its '}}' in '{self._text}'")
        if operator is None:
            raise InterpolationError(
                f"'{self._text[self._at : self._at + 1]}' after '${{{name}' is not known in '{self._text}': "
                "of the shell's forms there are :- - :? ? :+ and +"
            )
        self._at = operator.end()
        self._depth += 1
        if self._depth > _DEEPEST:
            raise InterpolationError(f"variables are nested over {_DEEPEST} deep")
        has = bool(self._env.get(name)) if operator[0].startswith(":") else name in self._env
        uses_word = has if operator[0].endswith("+") else not has
        word = self._parts(closing=True, quiet=quiet or not uses_word)
        self._at += 1
        self._depth -= 1
        return self._apply(name, operator[0], has, word, quiet)

    def _apply(self, name: str, operator: str, has: bool, word: str, quiet: bool) -> str:
        if operator.endswith("+"):
            return word if has else ""
        if has:
            return self._env[name]
        if operator.endswith("-"):
            return word
        if quiet:
            return ""
        state = "empty or not set" if operator.startswith(":") else "not set"
        raise InterpolationError(f"the variable {name} is {state}" + (f": {word}" if word else ""))


def interpolate_tree(node: Node, env: Mapping[str, str], findings: Findings) -> Node:
    """Return the tree with all values (never keys) interpolated; what fails is added to `findings`."""

    def walk(node: Node, path: str) -> Node:
        match node:
            case Map():
                entries = {
                    key: Entry(entry.position, walk(entry.value, f"{path}.{key}" if path else key))
                    for key, entry in node.entries.items()
                }
                return Map(node.position, entries, node.tag)
            case Seq():
                return Seq(node.position, tuple(walk(item, path) for item in node.items), node.tag)
            case Scalar(text=str(text)) if "$" in text:
                return Scalar(node.position, _one(text, node.position, path), False, node.tag)
        return node

    def _one(text: str, position: Position, path: str) -> str:
        def unset(name: str) -> None:
            findings.notice(
                position,
                path,
                f"the variable {name} is not set and becomes empty",
                f"give it a value, or ${{{name}:-}}",
            )

        try:
            return interpolate(text, env, unset)
        except InterpolationError as error:
            findings.problem(position, path, str(error))
            return ""

    return walk(node, "")
