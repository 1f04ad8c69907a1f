"""A picture's tasks as lines for a person, and what is worth saying when they change. Pure."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from argosy.cli.progress.goals import Goal
from argosy.cli.progress.picture import Picture
from argosy.core.task import Task
from argosy.core.task_state import TaskState, is_terminal

REASON_AFTER_S: Final = 3.0
"""What a task waits for before it runs is mentioned only when it has waited this long: most wait for an instant."""
MOST_ALIKE: Final = 5
"""Of more tasks than this of which the same is said at the same time, only the number is told."""


@dataclass(frozen=True, slots=True)
class TaskLine:
    """A task as it is shown."""

    name: str
    node: str
    state: TaskState
    desired: TaskState
    reason: str
    exit_code: int | None
    ran: bool


def task_lines(goal: Goal, picture: Picture) -> dict[str, TaskLine]:
    """Return the lines of the tasks that a goal is about, by task id."""
    return {task.meta.id: _line(task, picture) for task in picture.tasks.values() if goal.concerns(task)}


def _line(task: Task, picture: Picture) -> TaskLine:
    return TaskLine(
        picture.task_name(task),
        picture.node_name(task.node_id),
        task.status.state,
        task.desired_state,
        (task.status.state < TaskState.RUNNING and picture.trouble_of(task.node_id)) or task.status.reason,
        task.status.exit_code,
        bool(task.running_since),
    )


def describe(line: TaskLine) -> str:
    """Return a task's state in words: "failed on node-2, exit code 3: out of memory"."""
    text = line.state.name.lower()
    if line.state is TaskState.SHUTDOWN:
        text = "stopped"
    if line.node:
        text += f" on {line.node}"
    code = f"exit code {line.exit_code}"
    if line.exit_code is not None and line.state is TaskState.FAILED and code not in line.reason:
        text += f", {code}"
    if line.reason and line.state is not TaskState.SHUTDOWN:
        text += f": {line.reason}"
    return text


@dataclass(slots=True)
class Narrator:
    """Turns changing lines into sentences, one a change; used where there is no terminal to draw on."""

    _said: dict[str, str] = field(default_factory=dict)
    _waits_since: dict[tuple[str, TaskState], float] = field(default_factory=dict)

    def start(self, lines: Mapping[str, TaskLine]) -> None:
        """Take the lines that are there from the start as known."""
        for task_id, line in lines.items():
            if line.state >= TaskState.RUNNING:
                self._said[task_id] = describe(line)

    def tell(self, lines: Mapping[str, TaskLine], now: float) -> list[str]:
        """Return what is new since the last call."""
        news: list[tuple[str, str]] = []
        for task_id, line in lines.items():
            if self._came_to_nothing(task_id, line) or not self._is_due(task_id, line, now):
                continue
            text = describe(line)
            if self._said.get(task_id) != text:
                self._said[task_id] = text
                news.append((line.name, text))
        return _condensed(news)

    def _came_to_nothing(self, task_id: str, line: TaskLine) -> bool:
        """Whether a task was taken back before it ran: nobody was told of it, and its name is another one's, too."""
        return line.state is TaskState.SHUTDOWN and not line.ran and task_id not in self._said

    def _is_due(self, task_id: str, line: TaskLine, now: float) -> bool:
        if line.state >= TaskState.RUNNING:
            return True
        if not line.reason:
            return False
        return now - self._waits_since.setdefault((task_id, line.state), now) >= REASON_AFTER_S


def _condensed(news: list[tuple[str, str]]) -> list[str]:
    """Return one line a task, but one for all tasks of a service of which the same is said when they are many."""
    alike = Counter((name.rpartition(".")[0], text) for name, text in news)
    lines = dict.fromkeys(
        f"{service}: {alike[service, text]} tasks {text}" if alike[service, text] > MOST_ALIKE else f"{name}: {text}"
        for name, text in news
        for service in (name.rpartition(".")[0],)
    )
    return list(lines)


def by_urgency(lines: Mapping[str, TaskLine], room: int) -> tuple[list[TaskLine], int]:
    """Return the `room` most interesting lines in order of their names, and how many more there are.

    What runs as wanted, and what has ended long ago, is the least interesting.
    """
    latest: dict[str, TaskLine] = {}
    for line in lines.values():
        current = latest.get(line.name)
        if current is None or (is_terminal(current.state), -current.state) >= (is_terminal(line.state), -line.state):
            latest[line.name] = line
    ranked = sorted(
        latest.values(), key=lambda x: (x.state is TaskState.RUNNING, is_terminal(x.state), _natural(x.name))
    )
    shown = sorted(ranked[:room], key=lambda x: _natural(x.name))
    return shown, len(ranked) - len(shown)


def _natural(name: str) -> tuple[str, int, str]:
    head, _, tail = name.rpartition(".")
    return head, int(tail) if tail.isdecimal() else 0, tail
