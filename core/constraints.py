"""Placement constraints: which nodes may run a task, in the language of Docker Swarm.

    node.role == manager        node.labels.zone != eu        node.platform.arch == amd64

`parse_attribute` names something about a node (spread preferences use it too), `parse_constraint` compares one with
a value. Values are compared without regard to case, as Swarm does; the key of a label is not. A node without the
label equals no value. Another operator is one more row of `_OPERATORS`: what it accepts of a value, which is None
where the node has none.
"""

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from argosy.core.errors import InvalidError
from argosy.core.names import label_key_problem
from argosy.core.node import Node

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
    "node.role": lambda node: node.spec.role,
    "node.platform.os": lambda node: node.description.platform.os.lower(),
    "node.platform.arch": lambda node: architecture_name(node.description.platform.architecture),
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


@dataclass(frozen=True, slots=True)
class Constraint:
    """A node's attribute compared with a value."""

    attribute: Attribute
    operator: str
    value: str

    def accepts(self, value: str | None) -> bool:
        """Whether an attribute of that value (None: the node lacks it) meets the constraint."""
        return _OPERATORS[self.operator](value, self.value)

    def matches(self, node: Node) -> bool:
        """Whether `node` meets the constraint."""
        return self.accepts(self.attribute.of(node))

    def explain(self, node: Node) -> str:
        """Say how `node` fails to meet it: "node.labels.zone is us, not eu"."""
        value = self.attribute.of(node)
        if value is None:
            return f"has no {self.attribute}, and {self} is asked for"
        return f"has {self.attribute} = {value}, and {self} is asked for"

    def __str__(self) -> str:
        return f"{self.attribute} {self.operator} {self.value}"


def _equal(have: str | None, want: str) -> bool:
    return have is not None and have.casefold() == want.casefold()


_OPERATORS: Final[Mapping[str, Callable[[str | None, str], bool]]] = {
    "==": _equal,
    "!=": lambda have, want: not _equal(have, want),
}
_EXPRESSION: Final = re.compile(r"\s*([^\s=!<>]+)\s*([=!<>]+)\s*(.*?)\s*", re.DOTALL)
_VALUE: Final = re.compile(r"[A-Za-z0-9._:+/@~-]+(?: [A-Za-z0-9._:+/@~-]+)*")


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
    """Return the constraint that `text` writes; InvalidError says what is wrong and what would be right."""
    match = _EXPRESSION.fullmatch(text)
    if match is None:
        raise InvalidError(f'"{text}" is not a constraint: write it like node.labels.zone == eu')
    attribute, operator, value = parse_attribute(match[1]), match[2], match[3]
    if operator not in _OPERATORS:
        meant = "!=" if "!" in operator else "=="
        raise InvalidError(f'in "{text}": there is no operator "{operator}": did you mean {attribute} {meant} {value}?')
    if not value:
        raise InvalidError(f'in "{text}" the value is missing: write it like {attribute} {operator} VALUE')
    if not _VALUE.fullmatch(value):
        raise InvalidError(
            f'in "{text}": "{value}" is no value: use letters, digits and . _ : + / @ ~ -, without quotes or patterns'
        )
    if attribute.name == "node.platform.arch":
        value = architecture_name(value)
    return Constraint(attribute, operator, value)


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
