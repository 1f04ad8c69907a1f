"""What every task owner of a node shares."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from argosy.agent.images.store import ImageStore
from argosy.agent.logic.assignments import Assignments
from argosy.agent.runtime.interface import Runtime
from argosy.agent.runtime.memory import ensure_memory_directory
from argosy.agent.session.reporter import Reporter
from argosy.agent.settings import AgentSettings
from argosy.agent.state import StateDir
from argosy.agent.tasks.console import Consoles
from argosy.agent.tasks.fence import Fence
from argosy.agent.tasks.files import TaskFiles
from argosy.agent.tasks.id_ranges import IdRanges
from argosy.agent.tasks.probe import Prober
from argosy.agent.tasks.wiring import Wiring
from argosy.core.ambient import SYSTEM, Ambient
from argosy.core.assignment import RevisionAssignment, Succession
from argosy.core.image import Image


class Kin(Protocol):
    """The node's tasks, as each of them knows the others."""

    def is_under_way(self, task_id: str) -> bool:
        """Whether there is such a task and it has not ended."""

    def wake_followers(self, task_id: str) -> None:
        """Tell those that wait for a task that it has ended."""


@dataclass(slots=True)
class Host:
    """The node's parts, and the assignments in force (replaced as a whole by the agent)."""

    settings: AgentSettings
    state: StateDir
    runtime: Runtime
    network: Wiring
    images: ImageStore
    reporter: Reporter
    prober: Prober
    fence: Fence
    id_ranges: IdRanges
    node_id: str
    node_name: str
    hostname: str
    ambient: Ambient = SYSTEM
    assignments: Assignments = field(default_factory=Assignments)
    assigned: Assignments = field(default_factory=Assignments)
    """What the controller sent. `assignments` are these with the successors that this node made."""
    successions: dict[str, Succession] = field(default_factory=dict)
    """Tasks that this node made while there was no controller, and that none has assigned yet; oldest first."""
    layers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Image layers that containers are mounted on, by task: they must stay while the container does."""
    tunnel_problems: Mapping[str, str] = field(default_factory=dict)
    """What is wrong with the tunnels of encrypted networks, by network."""
    host_problems: Mapping[str, str] = field(default_factory=dict)
    """Why networks do not fit this host any more, by network."""
    consoles: Consoles = field(default_factory=Consoles)
    preparing: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(8))
    ensure_memory: Callable[[Path], None] = ensure_memory_directory
    kin: Kin = field(init=False)
    """Set by it (agent/tasks/tasks.py)."""
    files: TaskFiles = field(init=False)
    """What the node gives to containers: it goes when the task is released."""

    def __post_init__(self) -> None:
        self.files = TaskFiles(self.settings.run_dir, self.ensure_memory)

    def image_of(self, revision: RevisionAssignment | None) -> Image | None:
        """Return the image that a revision runs, if it was assigned."""
        return self.assignments.image(revision.spec.container.image_digest) if revision else None

    def log_path(self, task_id: str) -> Path:
        """Return where the output of a task is kept; it stays until the task is forgotten."""
        return self.settings.state_dir / "logs" / task_id / "log"
