"""New endpoints, and whether every node that carries their network sends connections to them yet.

The updater asks before it stops more old tasks (controller/logic/view.py, `has_arrived`), and is told when the answer
changes. Who asks no more, after some seconds, is not told; nothing is kept of tasks that nobody asked about.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from argosy.controller.sparing import Sparing
from argosy.core.task import Task

SHARE: Final = 0.1
"""Of the time in which answers are looked at again, at most: thousands of nodes confirm every change."""
KEPT_S: Final = 5.0
"""How long a question is remembered: longer than anybody waits for its answer."""

InForce = Callable[[str, str], bool]
"""Whether the endpoint with a key is in force on all nodes that carry the network of an id."""


@dataclass(frozen=True, slots=True)
class _Question:
    task: Task
    forgotten_at: float


class Arrivals:
    """Used by one dispatcher, which tells it when a node has confirmed something; `run` must be running."""

    def __init__(self, in_force: InForce, clock: Callable[[], float], processor: Callable[[], float]) -> None:
        """`clock` counts seconds, `processor` those that are worked."""
        self._in_force = in_force
        self._clock = clock
        self._processor = processor
        self._asked: dict[str, _Question] = {}
        self._heard = asyncio.Event()
        self.on_arrival: Callable[[str], None] = lambda service_id: None
        """Told the service of a task that was asked about in vain before, and has arrived."""

    def has_arrived(self, task: Task) -> bool:
        """Whether every node that carries a network of the task has its endpoint there in force."""
        if all(self._in_force(a.network_id, f"endpoint/{a.network_id}/{task.meta.id}") for a in task.attachments):
            self._asked.pop(task.meta.id, None)
            return True
        self._asked.setdefault(task.meta.id, _Question(task, self._clock() + KEPT_S))
        return False

    def heard(self) -> None:
        """Note that a node has confirmed something, or left."""
        if self._asked:
            self._heard.set()

    async def run(self) -> None:
        """Tell of arrivals until cancelled."""
        sparing = Sparing(self._processor, SHARE)
        while True:
            await self._heard.wait()
            self._heard.clear()
            with sparing.working():
                self._look_again()
            await sparing.rest()

    def _look_again(self) -> None:
        now = self._clock()
        for task_id, question in list(self._asked.items()):
            if question.forgotten_at <= now:
                del self._asked[task_id]
            elif self.has_arrived(question.task):
                self.on_arrival(question.task.service_id)
