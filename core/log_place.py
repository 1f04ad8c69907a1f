"""How far the output of tasks was read, so that who was cut off from it goes on behind the last line. Pure."""

from collections.abc import Iterable
from typing import Final

MARGIN_S: Final = 60.0
"""A line counts from when it was begun: one of the other stream may be younger and be read before."""


class LogPlace:
    """Of each stream of each task the time of its last line, and how many lines have that time.

    Lines of one stream come in order of their times, whenever they are read.
    """

    def __init__(self) -> None:
        self._last: dict[tuple[str, bool], tuple[float, int]] = {}
        self._read_before: dict[tuple[str, bool], tuple[float, int]] = {}
        self._grown = False

    def begin_again(self) -> bool:
        """Expect to be told lines that were told before; return whether there were new ones since the last time."""
        grown, self._grown = self._grown, False
        self._read_before = dict(self._last)
        return grown

    def is_new(self, task_id: str, stderr: bool, at: float) -> bool:
        """Take a line, which was written at `at`; return whether it was not told before."""
        key = task_id, stderr
        read_to, left = self._read_before.get(key, (0.0, 0))
        if at < read_to:
            return False
        if at == read_to and left:
            self._read_before[key] = (read_to, left - 1)
            return False
        last_at, count = self._last.get(key, (0.0, 0))
        self._last[key] = (at, count + 1 if at == last_at else 1)
        self._grown = True
        return True

    def since(self, task_ids: Iterable[str] = ()) -> float:
        """Return from when on everything has to be read that may be new; 0 while nothing has been read of a task.

        Of the tasks that were ever heard of, or of the given ones.
        """
        reached: dict[str, float] = {}
        for (task_id, _), (at, _) in self._last.items():
            reached[task_id] = max(at, reached.get(task_id, 0.0))
        asked = list(task_ids) or list(reached)
        return max(0.0, min((reached.get(task_id, 0.0) for task_id in asked), default=0.0) - MARGIN_S)
