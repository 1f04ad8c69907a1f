"""A YAML document as a tree that remembers where everything stands.

Scalars keep the text as it was written: whether `yes` is a word or a truth, and `0755` a text or a number, is for the
key that reads it to say (cursor.py), not for YAML. Trees are never changed; every step returns a new one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from argosy.cli.compose.problems import Position

RESET = "!reset"
OVERRIDE = "!override"
"""Tags of the specification's merge rules; the only ones a file may use beside YAML's own."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value; `text` None is YAML's null. `plain`: written without quotes."""

    position: Position
    text: str | None
    plain: bool = True
    tag: str = ""


@dataclass(frozen=True, slots=True)
class Seq:
    """A list."""

    position: Position
    items: tuple["Node", ...] = ()
    tag: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """A key with its value; the position is the key's."""

    position: Position
    value: "Node"


@dataclass(frozen=True, slots=True)
class Map:
    """A mapping, in the order of the file."""

    position: Position
    entries: Mapping[str, Entry] = field(default_factory=dict)
    tag: str = ""

    def get(self, key: str) -> "Node | None":
        """Return the value of `key`, if there is one."""
        entry = self.entries.get(key)
        return entry.value if entry is not None else None


Node: TypeAlias = Scalar | Seq | Map


def kind_of(node: Node) -> str:
    """Return what a node is, in words for a message."""
    match node:
        case Map():
            return "a mapping"
        case Seq():
            return "a list"
        case Scalar(text=None):
            return "nothing"
        case Scalar(text=str(text)):
            return f"'{text if len(text) <= 40 else text[:39] + '…'}'"
    raise AssertionError(node)
