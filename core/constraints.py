"""Placement constraints: which nodes may run a task, in the language of Docker Swarm and a little more.

    node.role == manager                  node.labels.zone != eu            node.ip == 10.1.0.0/16
    node.labels.zone in (eu, us)          node.labels.zone not in (eu, us)
    node.labels.ssd exists                node.labels.ssd not exists
    node.kernel >= 6.1                    node.labels.driver < 550.40

`parse_attribute` names something about a node (spread preferences and affinities use it too), `parse_constraint`
compares one with values. Values are compared without regard to case, as Swarm does; the key of a label is not. A node
without the label equals no value, is in no set, and has no version: it meets `!=` and `not in` only. Versions are
compared as such (core/versions.py); a value that is none meets no comparison. Another operator is one more row of
`_OPERATORS`.
"""

import difflib
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any, Final, TypeAlias

from argosy.core.errors import InvalidError
from argosy.core.names import label_key_problem
from argosy.core.node import Node
from argosy.core.versions import parse_version

_ARCHITECTURES: Final[Mapping[str, str]] = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "armhf": "arm",
    "armel": "arm",
    "i386": "386",
    "i686": "386",
}


def architecture_name(text: str) -> str:
    """Return OCI's name of an architecture that may be written as uname(1) does: x86_64 is amd64."""
    lower = text.lower()
    return _ARCHITECTURES.get(lower, lower)


_READERS: Final[Mapping[str, Callable[[Node], str]]] = {
    "node.id": lambda node: node.meta.id,
    "node.hostname": lambda node: node.description.hostname or node.spec.name,
    "node.ip": lambda node: node.description.underlay_address,
    "node.role": lambda node: node.spec.role,
    "node.platform.os": lambda node: node.description.platform.os.lower(),
    "node.platform.arch": lambda node: architecture_name(node.description.platform.architecture),
    "node.kernel": lambda node: node.description.kernel,
    "node.agent.version": lambda node: node.description.agent_version,
}
_LABEL_PREFIXES: Final = ("node.labels.", "engine.labels.")


@dataclass(frozen=True, slots=True)
class Attribute:
    """Something about a node: one of the fixed names, or "node.labels.KEY" with the label's key in `label`."""

    name: str
    label: str = ""

    def of(self, node: Node) -> str | None:
        """Return its value on `node`; None when the node has no such label."""
        if self.label:
            return node.spec.labels.get(self.label)
        return _READERS[self.name](node)

    def __str__(self) -> str:
        return self.name


Have: TypeAlias = str | None
"""What a node has of an attribute; None: nothing."""
Test: TypeAlias = Callable[[Have, tuple[str, ...]], bool]


def _is_one_of(have: Have, wanted: tuple[str, ...]) -> bool:
    return have is not None and any(have.casefold() == want.casefold() or _is_in_net(have, want) for want in wanted)


def _is_in_net(have: str, want: str) -> bool:
    """Whether an address is in a subnet; only an address can be, so that no label need be told apart."""
    if "/" not in want or have.count(".") != 3:
        return False
    try:
        return ip_network(want, strict=False).overlaps(ip_network(have))
    except ValueError:
        return False


def _compared(holds: Callable[[Any, Any], bool]) -> Test:
    def test(have: Have, wanted: tuple[str, ...]) -> bool:
        version = parse_version(have or "")
        return version is not None and holds(version, parse_version(wanted[0]))

    return test


_OPERATORS: Final[Mapping[str, Test]] = {
    "==": _is_one_of,
    "!=": lambda have, wanted: not _is_one_of(have, wanted),
    "in": _is_one_of,
    "not in": lambda have, wanted: not _is_one_of(have, wanted),
    "exists": lambda have, wanted: have is not None,
    "not exists": lambda have, wanted: have is None,
    ">=": _compared(operator.ge),
    "<=": _compared(operator.le),
    ">": _compared(operator.gt),
    "<": _compared(operator.lt),
}
_SETS: Final = frozenset({"in", "not in"})
_PRESENCE: Final = frozenset({"exists", "not exists"})
_VERSIONS: Final = frozenset({">=", "<=", ">", "<"})


@dataclass(frozen=True, slots=True)
class Constraint:
    """A node's attribute compared with values: one for most operators, none for presence, several for sets."""

    attribute: Attribute
    operator: str
    values: tuple[str, ...]

    def accepts(self, value: str | None) -> bool:
        """Whether an attribute of that value (None: the node lacks it) meets the constraint."""
        return _OPERATORS[self.operator](value, self.values)

    def matches(self, node: Node) -> bool:
        """Whether `node` meets the constraint."""
        return self.accepts(self.attribute.of(node))

    def explain(self, node: Node) -> str:
        """Say how `node` fails to meet it: "has node.labels.zone = us, and … is asked for"."""
        value = self.attribute.of(node)
        if value is None:
            return f"has no {self.attribute}, and {self} is asked for"
        return f"has {self.attribute} = {value}, and {self} is asked for"

    def __str__(self) -> str:
        if self.operator in _SETS:
            return f"{self.attribute} {self.operator} ({', '.join(self.values)})"
        return " ".join((str(self.attribute), self.operator, *self.values))


_NAME: Final = re.compile(r"\s*([^\s=!<>()]+)\s*")
_SYMBOL: Final = re.compile(r"([=!<>~]+)\s*")
_WORD: Final = re.compile(r"(not\s+)?([A-Za-z]+)\s*", re.IGNORECASE)
_VALUE: Final = re.compile(r"[A-Za-z0-9._:+/@~-]+(?: [A-Za-z0-9._:+/@~-]+)*")
_EXAMPLE: Final = "write it like node.labels.zone == eu"


def parse_attribute(text: str) -> Attribute:
    """Return the attribute that `text` names; InvalidError suggests the nearest one there is."""
    lower = text.lower()
    for prefix in _LABEL_PREFIXES:
        if lower.startswith(prefix):
            key = text[len(prefix) :]
            problem = label_key_problem(key)
            if problem:
                raise InvalidError(f'in "{text}": {problem}')
            return Attribute(f"node.labels.{key}", key)
    if lower in _READERS:
        return Attribute(lower)
    raise InvalidError(f'nodes have no attribute "{text}": {_nearest(lower)}')


def _nearest(text: str) -> str:
    first, dot, rest = text.rpartition(".")
    stem = f"{first}." if dot else ""
    if stem != "node." and difflib.get_close_matches(stem, _LABEL_PREFIXES, 1, 0.7) and rest:
        return f'did you mean "node.labels.{rest}"?'
    # The last part tells what is meant: "node.arch" is nearer to "node.role" only by its letters.
    tails = {name.rpartition(".")[2]: name for name in _READERS}
    near = difflib.get_close_matches(rest, tails, 1, 0.6)
    if near:
        return f'did you mean "{tails[near[0]]}"?'
    return f"there are {', '.join(_READERS)} and node.labels.KEY"


def parse_constraint(text: str) -> Constraint:
    """Return the constraint that `text` writes; InvalidError says what is wrong, where, and what would be right."""
    if text.lstrip().startswith("!"):
        name = text.lstrip(" !").strip() or "node.labels.KEY"
        raise _wrong(text, text.index("!"), f'a constraint begins with an attribute: write "{name} not exists"')
    match = _NAME.match(text)
    if match is None:
        raise InvalidError(f'"{text}" is not a constraint: {_EXAMPLE}')
    try:
        attribute = parse_attribute(match[1])
    except InvalidError as error:
        raise _wrong(text, match.start(1), str(error)) from None
    name, at = _operator(text, match.end(), attribute)
    return Constraint(attribute, name, tuple(_values(text, at, attribute, name)))


def _wrong(text: str, at: int, what: str) -> InvalidError:
    """Return the error that something is wrong from character `at` (counted from 0) on."""
    return InvalidError(f'in "{text}", at character {at + 1}: {what}')


def _operator(text: str, at: int, attribute: Attribute) -> tuple[str, int]:
    """Return the operator that stands at a position, and where it ends."""
    symbol, word = _SYMBOL.match(text, at), _WORD.match(text, at)
    if symbol is not None:
        if symbol[1] in _OPERATORS:
            return symbol[1], symbol.end()
        found, rest = symbol[1], text[symbol.end() :].strip()
        meant = "!=" if "!" in found else ">=" if ">" in found else "<=" if "<" in found else "=="
        raise _wrong(
            text, at, f'there is no operator "{found}": did you mean {attribute} {meant} {rest}?'.replace(" ?", "?")
        )
    if word is not None:
        found = f"not {word[2].lower()}" if word[1] else word[2].lower()
        if found in _OPERATORS:
            return found, word.end()
        near = difflib.get_close_matches(found, _OPERATORS, 1, 0.5)
        hint = f'did you mean "{near[0]}"?' if near else f"there are {', '.join(_OPERATORS)}"
        raise _wrong(text, at, f'there is no operator "{found}": {hint}')
    raise _wrong(text, at, f"the operator is missing: write it like {attribute} == VALUE, or {attribute} exists")


def _values(text: str, at: int, attribute: Attribute, name: str) -> Iterator[str]:
    """Yield what the attribute is compared with, read from a position on."""
    rest = text[at:].rstrip()
    if name in _PRESENCE:
        if rest:
            raise _wrong(text, at, f'"{name}" stands alone: write {attribute} {name}, or {attribute} == {rest}')
    elif name in _SETS:
        yield from _set(text, at, attribute, name)
    elif not rest:
        raise _wrong(text, at, f"the value is missing: write it like {attribute} {name} VALUE")
    elif name in _VERSIONS and parse_version(rest) is None:
        raise _wrong(text, at, f'"{rest}" is no version: "{name}" compares versions, such as {attribute} {name} 6.1')
    else:
        yield _value(text, at, attribute, rest)


def _set(text: str, at: int, attribute: Attribute, name: str) -> Iterator[str]:
    rest = text[at:].rstrip()
    if not rest.startswith("(") or not rest.endswith(")") or len(rest) < 2:
        where = at + len(rest) if rest.startswith("(") else at
        raise _wrong(text, where, f"the values stand in parentheses: {attribute} {name} ({rest.strip('()') or 'a, b'})")
    at += 1
    for part in rest[1:-1].split(","):
        if not part.strip():
            raise _wrong(text, at, f"a value is missing: write it like {attribute} {name} (a, b)")
        yield _value(text, at + len(part) - len(part.lstrip()), attribute, part.strip())
        at += len(part) + 1


def _value(text: str, at: int, attribute: Attribute, value: str) -> str:
    if not _VALUE.fullmatch(value):
        raise _wrong(
            text, at, f'"{value}" is no value: use letters, digits and . _ : + / @ ~ -, without quotes or patterns'
        )
    if attribute.name == "node.ip":
        try:
            ip_network(value, strict=False)
        except ValueError:
            raise _wrong(
                text, at, f'"{value}" is no address: write 10.1.2.3, or a subnet such as 10.1.0.0/16'
            ) from None
    return architecture_name(value) if attribute.name == "node.platform.arch" else value


def parse_constraints(texts: tuple[str, ...]) -> tuple[Constraint, ...]:
    """Return the constraints of a placement; all of them must hold."""
    return tuple(parse_constraint(text) for text in texts)


def parse_spread(text: str) -> Attribute:
    """Return the label over whose values a spread preference spreads; InvalidError for any other attribute.

    As in Swarm only labels can be spread over: tasks spread over the nodes themselves without being asked.
    """
    attribute = parse_attribute(text)
    if not attribute.label:
        raise InvalidError(
            f'"{text}" cannot be spread over: name a label, such as node.labels.zone '
            "(tasks are spread over the nodes in any case)"
        )
    return attribute
