"""What the agent expects of a container runtime, whichever it is. Immutable values; all calls are safe in parallel."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

ContainerStatus = Literal["created", "running", "stopped"]


@dataclass(frozen=True, slots=True)
class Rootfs:
    """A root file system: unpacked layer directories, base first, all beneath `layers_root` (which is mounted as one).

    Layers are read-only, owned by ids 0 to 65,535 on disk, shared by any number of containers. `layers` are paths
    relative to `layers_root`; without any, `layers_root` itself is the root and is written to. Whiteouts are 0/0
    character devices, opaque directories carry `user.overlay.opaque=y`.
    """

    layers_root: str
    layers: tuple[str, ...]
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class LogTarget:
    """Where output goes; rotated at `max_bytes`, `max_files` (at least two) in all."""

    path: str
    max_bytes: int = 10 * 2**20
    max_files: int = 3


@dataclass(frozen=True, slots=True)
class Created:
    """A container whose init waits for `start`; `netns` is the path of its network namespace."""

    pid: int
    netns: str


@dataclass(frozen=True, slots=True)
class Exit:
    """The end of a container. A death by signal N has code 128+N too; code None: nobody could learn it."""

    id: str
    code: int | None
    signal: int | None
    oom_killed: bool
    finished_at: float


@dataclass(frozen=True, slots=True)
class ContainerState:
    """What the runtime knows about a container; `pid` is 0 once it has stopped, times are Unix seconds."""

    id: str
    status: ContainerStatus
    pid: int
    started_at: float | None
    exit: Exit | None
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ExecResult:
    """How a process inside a container ended; `code` None means that it was killed at the time-out."""

    code: int | None
    output: bytes
    timed_out: bool


@dataclass(frozen=True, slots=True)
class Usage:
    """What a container uses: CPU seconds since its start; bytes and processes now; kills by its memory limit."""

    cpu_s: float
    memory_bytes: int
    memory_peak_bytes: int
    pids: int
    oom_kills: int


#: Attaches a container to its networks.
Wire = Callable[[Created], Awaitable[None]]
#: Takes a descriptor, which is the taker's from then on.
Take = Callable[[int], None]


class Runtime(Protocol):
    """Creates, starts, ends and removes containers. Raises the errors of `errors`; nothing else by intent."""

    async def create(
        self,
        id: str,
        config: Mapping[str, Any],
        rootfs: Rootfs,
        log: LogTarget,
        labels: Mapping[str, str],
        *,
        wire: Wire | None = None,
        feed: Take | None = None,
    ) -> Created:
        """Set a container up from an OCI config; its init waits. Nothing is left behind if this fails.

        `feed` is given the only other end of the program's standard input: of a pipe, or of the terminal that the
        config asks for (process.terminal), which is its output too. Without it the input is empty.

        `wire` is called once its network namespace exists and runs beside the rest of the set-up: the quick way to
        attach networks. If it raises, so does this.
        """
        ...

    async def start(self, id: str) -> None:
        """Execute the user's program.

        RuntimeRejected with `exit_code` 127 or 126 when it cannot be executed; ContainerUnstarted when its container
        has ended before.
        """
        ...

    async def kill(self, id: str, signal: int, *, everything: bool = False) -> None:
        """Send a signal to the container's pid 1, or kill all of it at once; nothing happens once it has ended."""
        ...

    async def delete(self, id: str) -> None:
        """Kill what still runs and remove every trace. Idempotent, also for ids that never were."""
        ...

    async def list(self) -> list[ContainerState]:
        """Return every container that exists, also those of an earlier agent."""
        ...

    async def exec(
        self,
        id: str,
        argv: Sequence[str],
        *,
        timeout_s: float,
        user: str = "",
        env: Sequence[str] = (),
        cwd: str = "",
    ) -> ExecResult:
        """Run a program inside a running container; return its code and the last 4 KiB of its output."""
        ...

    def pidfd(self, id: str) -> int:
        """Return a descriptor of a living container's pid 1, for the caller to close; ContainerMissing when it ended.

        It names the process beyond doubt, and its namespaces can be entered by it (setns(2)).
        """
        ...

    async def usage(self, id: str) -> Usage:
        """Return what a container uses."""
        ...

    def exits(self) -> AsyncIterator[Exit]:
        """Yield every exit once, also those from before; one is acknowledged when the next is asked for."""
        ...
