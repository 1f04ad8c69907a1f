"""Typed reading of a document: a node together with its path and where to report what is wrong with it.

Every reader reports a value of the wrong kind and returns None, so that reading goes on and all problems show at once.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeVar

from argosy.cli.compose.document import Map, Node, Scalar, Seq, kind_of
from argosy.cli.compose.problems import Findings, Position, Problem
from argosy.core.errors import InvalidError
from argosy.core.units import parse_bytes, parse_cpus, parse_duration

T = TypeVar("T")

_TRUE: Final = frozenset({"true", "yes", "on", "y"})
_FALSE: Final = frozenset({"false", "no", "off", "n"})
_INTEGER: Final = re.compile(r"[+-]?(0x[0-9a-fA-F]+|0o?[0-7]*|[1-9][0-9_]*)")
_MOST_DIGITS: Final = 100


class Cursor:
    """A place in a document."""

    __slots__ = ("findings", "key_position", "node", "path")

    def __init__(self, node: Node, path: str, findings: Findings, key_position: Position | None = None) -> None:
        self.node = node
        self.path = path
        self.findings = findings
        self.key_position = key_position or node.position

    @property
    def position(self) -> Position:
        """Where the value stands; where the key does, for a value that is not there."""
        return self.key_position if isinstance(self.node, Scalar) and self.node.text is None else self.node.position

    @property
    def key(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]

    @property
    def is_null(self) -> bool:
        """Whether there is a key without a value."""
        return isinstance(self.node, Scalar) and self.node.text is None

    @property
    def is_text(self) -> bool:
        """Whether it is a single value."""
        return isinstance(self.node, Scalar) and self.node.text is not None

    def problem(self, what: str, instead: str = "") -> None:
        """Report something to mend here."""
        self.findings.problem(self.position, self.path, what, instead)

    def notice(self, what: str, instead: str = "") -> None:
        """Report something to know about this."""
        self.findings.notice(self.position, self.path, what, instead)

    def _wrong(self, wanted: str) -> None:
        self.problem(f"this is {kind_of(self.node)}", f"write {wanted}")

    def problems_below(self) -> list[Problem]:
        """Return what was reported so far here and below."""
        return [p for p in self.findings.problems if p.path == self.path or p.path.startswith(f"{self.path}.")]

    # ------------------------------------------------------------------ structure

    def get(self, key: str) -> "Cursor | None":
        """Return the value of a key of this mapping; None when it is missing or null."""
        found = self.find(key)
        return None if found is None or found.is_null else found

    def find(self, key: str) -> "Cursor | None":
        """Return the value of a key of this mapping, null or not; None when it is missing."""
        if not isinstance(self.node, Map):
            return None
        entry = self.node.entries.get(key)
        if entry is None:
            return None
        return Cursor(entry.value, f"{self.path}.{key}" if self.path else key, self.findings, entry.position)

    def mapping(self, *, names: bool = False) -> bool:
        """Whether this is a mapping (or null, an empty one); anything else is reported.

        `names`: a list of names would have done as well, and was made a mapping (shapes.py).
        """
        if isinstance(self.node, Map) or self.is_null:
            return True
        self._wrong("a list of names, or a mapping (key: value)" if names else "a mapping (key: value)")
        return False

    def entries(self) -> Iterator[tuple[str, "Cursor"]]:
        """Yield the keys and values of a mapping, extensions (x-…) left out."""
        if self.mapping() and isinstance(self.node, Map):
            for key in self.node.entries:
                found = self.find(key)
                if found is not None and not key.startswith("x-"):
                    yield key, found

    def items(self) -> Iterator["Cursor"]:
        """Yield the items of a list; a null is an empty one."""
        if isinstance(self.node, Seq):
            for item in self.node.items:
                yield Cursor(item, self.path, self.findings)
        elif not self.is_null:
            self._wrong("a list")

    # ------------------------------------------------------------------ values

    def text(self) -> str | None:
        """Return the value as it is written."""
        if isinstance(self.node, Scalar) and self.node.text is not None:
            return self.node.text
        self._wrong("a text")
        return None

    def texts(self) -> tuple[str, ...]:
        """Return a list of texts."""
        return tuple(text for item in self.items() if (text := item.text()) is not None)

    def boolean(self) -> bool | None:
        """Return a truth value."""
        word = self.node.text.lower() if isinstance(self.node, Scalar) and self.node.text is not None else ""
        if word in _TRUE:
            return True
        if word in _FALSE:
            return False
        self._wrong("true or false")
        return None

    def integer(self, *, least: int | None = None, most: int | None = None) -> int | None:
        """Return a whole number within limits."""
        text = self.node.text.strip() if isinstance(self.node, Scalar) and self.node.text is not None else ""
        if not _INTEGER.fullmatch(text) or len(text) > _MOST_DIGITS:
            self._wrong("a whole number")
            return None
        digits = text.replace("_", "")
        base = 8 if re.fullmatch(r"[+-]?0[0-7]+", digits) else 0
        value = int(digits, base)
        if least is not None and value < least:
            self.problem(f"{value} is less than {least}", f"write a number from {least} up")
            return None
        if most is not None and value > most:
            self.problem(f"{value} is more than {most}", f"write a number up to {most}")
            return None
        return value

    def number(self, *, least: float | None = None) -> float | None:
        """Return a number, whole or not."""
        text = self.node.text.strip() if isinstance(self.node, Scalar) and self.node.text is not None else ""
        if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)", text):
            self._wrong("a number")
            return None
        value = float(text)
        if least is not None and value < least:
            self.problem(f"{text} is less than {least:g}", f"write a number from {least:g} up")
            return None
        return value

    def choice(self, choices: Mapping[str, T]) -> T | None:
        """Return what one of some words stands for."""
        word = self.node.text if isinstance(self.node, Scalar) else None
        if word is not None and word in choices:
            return choices[word]
        names = [f"'{name}'" for name in choices]
        self._wrong(", ".join(names[:-1]) + f" or {names[-1]}" if len(names) > 1 else names[0])
        return None

    def text_map(self) -> dict[str, str]:
        """Return a mapping of texts; null values are empty texts."""
        found: dict[str, str] = {}
        if not self.mapping() or not isinstance(self.node, Map):
            return found
        for key in self.node.entries:
            value = self.find(key)
            if value is None:
                continue
            text = "" if value.is_null else value.text()
            if text is not None:
                found[key] = text
        return found

    def duration(self) -> float | None:
        """Return the seconds of a duration ("1m30s")."""
        return self._parsed(parse_duration)

    def size(self) -> int | None:
        """Return the bytes of a size ("512m")."""
        return self._parsed(parse_bytes)

    def cpus(self) -> float | None:
        """Return a number of CPUs ("0.5")."""
        return self._parsed(parse_cpus)

    def _parsed(self, parse: Callable[[str], T]) -> T | None:
        text = self.text()
        if text is None:
            return None
        try:
            return parse(text)
        except InvalidError as error:
            self.problem(str(error))
            return None

    def own_entries(self) -> "Iterator[tuple[str, Cursor]]":
        """Yield all keys and values of a mapping whose keys are the user's own."""
        for key in self.node.entries if isinstance(self.node, Map) else ():
            found = self.find(key)
            if found is not None:
                yield key, found
