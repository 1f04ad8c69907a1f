"""Argosy's own runtime: the asyncio side of the launcher process, which it starts, restarts and reconnects to.

Containers belong to the launcher and to its records on disk, never to this object: `close` (or a kill -9 of the
agent) leaves all of them running, and the next `open` finds them again. While the launcher is being restarted, calls
wait for it for a short time; calls that were under way when it died fail as RuntimeTransient.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from argosy.agent.launcher import wire

from .client import LauncherClient
from .errors import ContainerMissing, RuntimeRejected, RuntimeTransient
from .handover import HandedOver
from .interface import ContainerState, Created, ExecResult, Exit, LogTarget, Rootfs, Take, Usage, Wire
from .seccomp import compile_profile
from .spawn import launcher_command, spawn_launcher
from .witness import Witness, reap_strays

#: How long a call waits for a launcher that is being (re)started.
CONNECT_TIMEOUT_S: Final = 60.0
_CONNECT_POLL_S: Final = 0.005
_RESTART_PAUSE_S: Final = 0.5
_REAP_PERIOD_S: Final = 0.5
_LAST_WORDS_S: Final = 1.0


def leave_words(socket_path: str, words: str) -> None:
    """Have the host's launcher tell the controllers why this agent ends, until one has a session again.

    Where there is no launcher, nobody is told: the host does not beat either.
    """
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(_LAST_WORDS_S)
        client.connect(socket_path)
        client.sendall(wire.pack({"seq": 1, "op": "last_words", "words": words}))
        client.recv(wire.HEADER_BYTES)  # they are taken


class NativeRuntime:
    """Implements `interface.Runtime`. One per agent process; used from one event loop.

    `state_dir` holds the writable layers (its file system must take overlay uppers); `run_dir`, by default the
    socket's directory, holds records and pipes and should be on a tmpfs; `cgroup_parent` is a path such as
    `/argosy/<cluster>/<node>`, from the root of each hierarchy. A visitor that leaves exits to others does not
    `subscribe`.
    """

    def __init__(
        self,
        socket_path: str,
        state_dir: str,
        cgroup_parent: str,
        *,
        run_dir: str | None = None,
        subscribe: bool = True,
    ) -> None:
        self._socket_path = str(socket_path)
        self._run_dir = str(run_dir if run_dir is not None else Path(socket_path).parent)
        self._state_dir = str(state_dir)
        self._cgroup_parent = cgroup_parent
        self._subscribe = subscribe
        self._exits: asyncio.Queue[Exit] = asyncio.Queue()
        self._delivered: dict[str, Exit] = {}  # until the container is deleted: another may have its id then
        self._acknowledged: set[str] = set()
        self._client: LauncherClient | None = None
        self._ready = asyncio.Event()
        self._failure = ""
        self._supervisor: asyncio.Task[None] | None = None
        self._errands: set[asyncio.Task[None]] = set()
        self._witness: Witness | None = None
        #: Pids of launchers that this agent has started, while they live and afterwards.
        self._launchers: set[int] = set()
        self._dead: set[int] = set()
        self.launcher_pid = 0
        self.on_launcher: Callable[[], None] = lambda: None
        """Called on the loop with each launcher that is connected to, which knows nothing of those before it."""

    # --- life of the connection -----------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect to the host's launcher, or start one; RuntimeRejected when this host cannot run one."""
        os.makedirs(self._run_dir, mode=0o700, exist_ok=True)
        self._witness = Witness(self._run_dir, self._on_status)
        self._supervisor = asyncio.create_task(self._supervise())
        self._run(self._reap_forever())
        await self._ready.wait()
        if self._client is None and self._failure:
            raise RuntimeRejected(self._failure)

    async def close(self) -> None:
        """Disconnect; the launcher and all containers go on."""
        for task in (self._supervisor, *self._errands):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        if self._client is not None:
            await self._client.close()
        if self._witness is not None:
            self._witness.close()

    async def stop_launcher(self) -> None:
        """End the launcher process too, for hosts that are taken down. Containers that still run go on without it."""
        client = await self._connected()
        if self._supervisor is not None:
            self._supervisor.cancel()
        with contextlib.suppress(RuntimeTransient):
            await client.request("shutdown")
        await client.closed.wait()
        while self._launchers:
            self._reap_launchers()
            await asyncio.sleep(_CONNECT_POLL_S)

    async def _supervise(self) -> None:
        """Keep one connection to one launcher for ever; a launcher that cannot start is retried with a pause."""
        while True:
            try:
                client = await self._connect_or_spawn()
                await self._introduce(client)
            except (RuntimeTransient, OSError):
                # The socket of a launcher that is just dying still takes connections.
                await asyncio.sleep(_CONNECT_POLL_S)
                continue
            except RuntimeRejected as error:
                self._failure = f"the launcher does not start: {error}"
                self._ready.set()
                await asyncio.sleep(_RESTART_PAUSE_S)
                continue
            self._client, self._failure = client, ""
            self._ready.set()
            self.on_launcher()
            await client.closed.wait()
            self._ready.clear()
            self._client = None

    async def _connect_or_spawn(self) -> LauncherClient:
        with contextlib.suppress(OSError):
            return await LauncherClient.connect(self._socket_path, self._on_event)
        command = launcher_command(self._socket_path, self._run_dir, self._state_dir, self._cgroup_parent)
        log_path = f"{self._run_dir}/launcher.log"
        spawned = spawn_launcher(command, log_path)
        self._launchers.add(spawned)
        self._dead.discard(spawned)
        deadline = asyncio.get_running_loop().time() + CONNECT_TIMEOUT_S
        while asyncio.get_running_loop().time() < deadline:
            with contextlib.suppress(OSError):
                return await LauncherClient.connect(self._socket_path, self._on_event)
            self._reap_launchers()
            if spawned in self._dead:
                break
            await asyncio.sleep(_CONNECT_POLL_S)
        raise RuntimeRejected(f"{_last_line(log_path) or 'no answer'} (see {log_path})")

    async def _reap_forever(self) -> None:
        """Reap launchers that ended, and what they had orphaned: some of that ends only a while after them."""
        assert self._witness is not None
        while True:
            self._reap_launchers()
            if self._dead:
                reap_strays(self._dead, self._witness.pids())
            await asyncio.sleep(_REAP_PERIOD_S)

    def _reap_launchers(self) -> None:
        for pid in list(self._launchers):
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0] == 0:
                    continue
            self._launchers.discard(pid)
            self._dead.add(pid)

    async def _introduce(self, client: LauncherClient) -> None:
        """Subscribe to exits, tell what was witnessed while no launcher lived, and hold all that lives."""
        assert self._witness is not None
        answer = await client.request("hello", subscribe=self._subscribe, witnessed=self._witness.statuses())
        if answer["protocol"] != wire.PROTOCOL:
            # Left by an agent of another version. Its containers run on, and are adopted by a launcher of ours.
            with contextlib.suppress(RuntimeTransient):
                await client.request("shutdown")
            await client.closed.wait()
            raise RuntimeTransient("a launcher of another version is being replaced")
        self.launcher_pid = answer["pid"]
        for entry in (await client.request("list"))["containers"]:
            self._witness.hold(entry["id"], entry["pid"], entry["start_ticks"])

    async def _connected(self) -> LauncherClient:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._ready.wait()
        except TimeoutError:
            raise RuntimeTransient("the launcher is restarting") from None
        if self._client is None:
            raise RuntimeTransient(self._failure or "the launcher is restarting")
        return self._client

    async def _request(self, op: str, **arguments: Any) -> dict[str, Any]:
        return await (await self._connected()).request(op, **arguments)

    async def beat(self, settings: Mapping[str, Any]) -> None:
        """Have the launcher tell the controllers that this host lives; see `launcher.beat.Beat.set` for the settings.

        The launcher goes on with it without this agent, and a launcher started anew does too.
        """
        await self._request("beat", settings=dict(settings))

    # --- operations -----------------------------------------------------------------------------------------------

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
        """Set a container up, and wire it meanwhile; its init waits for `start`."""
        wiring: asyncio.Future[None] | None = None

        def cloned(progress: dict[str, Any]) -> None:
            nonlocal wiring
            if wire is not None:
                wiring = asyncio.ensure_future(wire(_created(progress["pid"])))

        try:
            answer = await self._create(id, config, rootfs, log, labels, cloned, feed)
        except BaseException:
            if wiring is not None:
                wiring.cancel()
                await asyncio.gather(wiring, return_exceptions=True)
            raise
        assert self._witness is not None
        self._witness.hold(id, answer["pid"], answer["start_ticks"])
        if wiring is not None:
            try:
                await wiring
            except BaseException:
                await self.delete(id)
                raise
        return _created(answer["pid"])

    async def _create(
        self,
        id: str,
        config: Mapping[str, Any],
        rootfs: Rootfs,
        log: LogTarget,
        labels: Mapping[str, str],
        cloned: Callable[[dict[str, Any]], None],
        feed: Take | None,
    ) -> dict[str, Any]:
        linux = dict(config.get("linux", {}))
        profile = linux.pop("seccomp", None)
        root = {**config.get("root", {})}
        root["readonly"] = bool(root.get("readonly")) or rootfs.read_only
        client = await self._connected()
        with contextlib.ExitStack() as stack:
            handed = stack.enter_context(HandedOver(self._run_dir)) if feed is not None else None
            answer = await client.request(
                "create",
                on_progress=cloned,
                id=id,
                config={**config, "linux": linux, "root": root},
                seccomp=base64.b64encode(compile_profile(profile)).decode() if profile else "",
                layers_root=rootfs.layers_root,
                layers=list(rootfs.layers),
                log={"path": log.path, "max_bytes": log.max_bytes, "max_files": log.max_files},
                labels=dict(labels),
                console=handed.path if handed is not None else "",
            )
            if feed is not None and handed is not None:
                feed(handed.receive())
            return answer

    async def start(self, id: str) -> None:
        """Execute the user's program."""
        await self._request("start", id=id)

    async def kill(self, id: str, signal: int, *, everything: bool = False) -> None:
        """Send a signal to pid 1, or kill everything."""
        await self._request("kill", id=id, signal=int(signal), everything=everything)

    async def delete(self, id: str) -> None:
        """Kill what runs and remove every trace."""
        await self._request("delete", id=id)
        self._delivered.pop(id, None)
        self._acknowledged.discard(id)
        if self._witness is not None:
            self._witness.release(id)

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
        """Run a program inside a running container, killed at the time-out."""
        answer = await self._request(
            "exec", id=id, argv=list(argv), timeout_s=timeout_s, user=user, env=list(env), cwd=cwd
        )
        return ExecResult(answer["code"], base64.b64decode(answer["output"]), answer["timed_out"])

    def pidfd(self, id: str) -> int:
        """Return a descriptor of a living container's pid 1."""
        found = self._witness.pidfd(id) if self._witness is not None else None
        if found is None:
            raise ContainerMissing(f"container {id} does not run")
        return found

    async def list(self) -> list[ContainerState]:
        """Return every container of this host."""
        return [_state(entry) for entry in (await self._request("list"))["containers"]]

    async def usage(self, id: str) -> Usage:
        """Return what a container uses."""
        return Usage(**await self._request("usage", id=id))

    # --- exits ----------------------------------------------------------------------------------------------------

    async def exits(self) -> AsyncIterator[Exit]:
        """Yield every exit once; asking for the next one acknowledges the one before."""
        while True:
            exit = await self._exits.get()
            if self._delivered.get(exit.id) is not exit:
                continue  # the container was deleted meanwhile
            yield exit
            if self._delivered.get(exit.id) is not exit:
                continue  # it was deleted upon that
            self._acknowledged.add(exit.id)
            with contextlib.suppress(RuntimeTransient):
                # Lost with the launcher, the acknowledgement is sent again when its successor repeats the exit.
                await self._request("ack", id=exit.id)

    def _on_event(self, message: wire.Message) -> None:
        if message["event"] != "exit":
            return
        exit = _exit(message["id"], message)
        if exit.id in self._acknowledged:
            self._run_errand("ack", id=exit.id)
        elif exit.id not in self._delivered:
            self._delivered[exit.id] = exit
            self._exits.put_nowait(exit)
        if self._witness is not None:
            self._witness.release(exit.id)

    def _on_status(self, container_id: str, status: int) -> None:
        """An orphan of a dead launcher ended as our child: its successor, if it is up already, cannot see how."""
        if self._client is not None:
            self._run_errand("witness", id=container_id, status=status)

    def _run_errand(self, op: str, **arguments: Any) -> None:
        """Send a request whose failure repairs itself: the launcher or its successor asks again."""

        async def errand() -> None:
            with contextlib.suppress(RuntimeTransient):
                await self._request(op, **arguments)

        self._run(errand())

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)


def _created(pid: int) -> Created:
    return Created(pid=pid, netns=f"/proc/{pid}/ns/net")


def _last_line(path: str) -> str:
    lines = Path(path).read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def _exit(container_id: str, message: Mapping[str, Any]) -> Exit:
    return Exit(
        id=container_id,
        code=message["code"],
        signal=message["signal"],
        oom_killed=message["oom_killed"],
        finished_at=message["finished_at"],
    )


def _state(entry: Mapping[str, Any]) -> ContainerState:
    return ContainerState(
        id=entry["id"],
        status=entry["status"],
        pid=entry["pid"],
        started_at=entry["started_at"],
        exit=_exit(entry["id"], entry["exit"]) if entry["exit"] else None,
        labels=entry["labels"],
    )
