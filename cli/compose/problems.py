"""What is wrong in a file set, and what is worth saying about it: collected, and shown together.

A user mends a file once, not line by line: every reader here adds to one `Findings` and goes on with a stand-in value.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in a file, counted from 1 as editors do; line 0 means the file as a whole."""

    file: str = ""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend, or (as a notice) to know: `path` is the key's ("services.web.image"), "" for a whole file."""

    position: Position
    path: str
    what: str
    instead: str = ""

    def __str__(self) -> str:
        where = f"{self.position}: {self.path}" if self.path else str(self.position)
        return f"{where}: {self.what}" + (f"; {self.instead}" if self.instead else "")


@dataclass(slots=True)
class Findings:
    """Collects problems and notices while a file set is read; each is kept once."""

    problems: list[Problem] = field(default_factory=list)
    notices: list[Problem] = field(default_factory=list)

    def problem(self, position: Position, path: str, what: str, instead: str = "") -> None:
        """Add something that has to be mended."""
        found = Problem(position, path, what, instead)
        if found not in self.problems:
            self.problems.append(found)

    def notice(self, position: Position, path: str, what: str, instead: str = "") -> None:
        """Add something that the user should know."""
        found = Problem(position, path, what, instead)
        if found not in self.notices:
            self.notices.append(found)


class ComposeError(Exception):
    """A file set cannot be used; `problems` in the order of files and lines."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda p: p.position))
        super().__init__("\n".join(map(str, self.problems)))
