"""One container's life in the launcher: creating → created → (starting →) running → stopped, then disposed of.

A container is only touched from the event loop. Its record on disk is written before anybody is told (`rundir`), so
that a new launcher continues from it: see `adopt`.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from . import child, credentials, exits, rights, rootfs, rundir
from . import syscalls as sc
from .cgroup import Cgroup
from .errors import LaunchError, from_os_error, rejected
from .host import Host
from .joined import JoinDone, JoinedProcess, Target, namespaces_of, process_of
from .kept import Kept
from .logs import ContainerLog, LogPolicy
from .loop import Loop
from .spec import LaunchSpec, Mount, parse, parse_process

#: Called once with the error, or None for success.
Done = Callable[[LaunchError | None], None]

_REMOVE_RETRY_S: Final = 0.002
#: A tree with at most this many entries is removed at once; a larger one by a child process, to not stall the others.
_INLINE_REMOVAL: Final = 64
#: How long the end of an adopted container may wait for whoever reaps it, before its code counts as unknown.
_WITNESS_S: Final = 2.0
_WITNESS_POLL_S: Final = 0.02


class Container:
    """State of one container; the attributes that are not private are read by `server`."""

    def __init__(self, host: Host, loop: Loop, container_id: str, on_exit: Callable[[Container], None]) -> None:
        self.id = container_id
        self.status = "creating"
        self.pid = 0
        self.pidfd = -1
        self.start_ticks = 0
        self.started_at: float | None = None
        self.exit: exits.Exit | None = None
        self.acknowledged = False
        self.labels: dict[str, str] = {}
        self.cgroup: Cgroup = host.cgroups.group(f"{host.cgroup_parent}/{container_id}")
        self.record = rundir.Record(host.container_dir(container_id))
        self._host = host
        self._loop = loop
        self._on_exit = on_exit
        self._log: ContainerLog | None = None
        self._control: socket.socket | None = None
        self._done: Done | None = None
        self._disposal: list[Done] = []
        self._adopted = False
        self._deadline = 0.0
        self._witnessed: int | None = None
        self._broken: LaunchError | None = None
        self._console = ""

    # --- create ---------------------------------------------------------------------------------------------------

    def create(self, spec: LaunchSpec, request: dict[str, Any], cloned: Callable[[], None], done: Done) -> None:
        """Make all that belongs to the container and clone its init.

        `cloned` is called as soon as its namespaces exist, so that it can be wired up while its init sets up the rest;
        `done` when that waits for the start.
        """
        self.labels = dict(request.get("labels", {}))
        fds: list[int] = []
        step = "prepare the container"
        try:
            credentials.check_rlimits(spec.process.rlimits)
            directory = self._host.container_dir(self.id)
            try:
                os.mkdir(directory, 0o700)
            except FileExistsError:
                raise rejected(f"a container with the id {self.id!r} exists already", step=step) from None
            policy = LogPolicy(**request["log"])
            step = "open the output pipes"
            outputs = ContainerLog.make_pipes(directory, spec.root_uid, spec.root_gid)
            fds += outputs
            self._open_log(policy)
            step = "connect its standard input"
            stdin_fd = -1
            self._console = str(request.get("console", ""))
            if spec.process.terminal and not self._console:
                raise rejected("config.json: process.terminal: nobody is there to hold its other end", step=step)
            if self._console and not spec.process.terminal:
                stdin_fd, feed = os.pipe2(os.O_CLOEXEC)
                fds += (stdin_fd, feed)
                os.fchown(stdin_fd, spec.root_uid, spec.root_gid)
                self._hand_over(feed)
            step = "make the writable layer"
            overlay, scratch_fd = self._make_scratch(spec, request["layers"])
            fds.append(scratch_fd)
            step = "open the bind mounts"
            binds = tuple(number for number, mount in enumerate(spec.mounts) if mount.fstype == "bind")
            trees = [_open_bind(spec.mounts[number]) for number in binds]
            fds += trees
            step = "limit resources"
            self.cgroup.create(spec.resources)
            step = "clone the container's init"
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                setup = child.Setup(
                    spec=spec,
                    hostname=spec.hostname or self.id,
                    control=theirs,
                    overlay=overlay,
                    scratch_fd=scratch_fd,
                    stdin_fd=stdin_fd,
                    stdout_fd=outputs[0],
                    stderr_fd=outputs[1],
                    entry_fds=self.cgroup.entry_fds(),
                    kept=self._host.kept,
                    cgroups=self._host.cgroups.mounts(),
                    seccomp=filter_of(request),
                    last_capability=self._host.last_capability,
                    binds=binds,
                )
                self._clone(spec, setup, ours)
            self.cgroup.close_fds()
            step = "map the ids"
            self._send_trees(spec, request["layers_root"], binds, trees)
            self.start_ticks = rundir.start_ticks(self.pid)
            cloned()
            # While the child is at work. A directory without a record is a creation that was not finished.
            step = "record the container"
            rundir.write_request(directory, request)
        except (OSError, LaunchError) as error:
            failure = error if isinstance(error, LaunchError) else from_os_error(error, step)
            self._fail(self._said_by_child() or failure, done)
            return
        finally:
            for fd in fds:
                os.close(fd)
        self._done = done

    def _fail(self, failure: LaunchError, done: Done) -> None:
        """Take back what was made, then report. An id that is taken belongs to somebody else and is left alone."""
        if self._log is None and self.pid == 0:
            done(failure)
        else:
            self.dispose(lambda _: done(failure))

    def _open_log(self, policy: LogPolicy) -> None:
        self._log = ContainerLog(self._host.container_dir(self.id), policy, self._host.scratch)
        self._log.open()
        for pipe in self._log.pipes:
            self._loop.watch(pipe, partial(self._log.pump, pipe))

    def _make_scratch(self, spec: LaunchSpec, layers: list[str]) -> tuple[str, int]:
        """Make the directory in which the child makes the overlay's upper and work; return options and its tree."""
        for layer in layers:
            rootfs.check_layer_name(layer)
        path = self._host.scratch_dir(self.id)
        options, links = rootfs.overlay_options(layers)
        os.mkdir(path, 0o755)
        os.chown(path, spec.root_uid, spec.root_gid)
        for number, target in enumerate(links):
            os.symlink(target, f"{path}/{number}")
        return options, sc.open_tree(path.encode())

    def _clone(self, spec: LaunchSpec, setup: child.Setup, ours: socket.socket) -> None:
        """Clone the init from the stage, having joined whatever existing namespaces the config names."""
        homes = []
        try:
            for kind, path in spec.join:
                homes.append((kind, os.open(f"/proc/self/ns/{_NS_FILES[kind]}", os.O_RDONLY | os.O_CLOEXEC)))
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    sc.setns(fd, kind)
                finally:
                    os.close(fd)
            self._host.stage.enter()
            try:
                # The cgroup namespace is made by the child, once it is in its group.
                flags = spec.clone_flags & ~sc.CLONE_NEWCGROUP
                self.pid, self.pidfd = sc.clone3(flags, self.cgroup.clone_fd())
                if self.pid == 0:
                    ours.close()
                    child.run(setup)
            finally:
                self._host.stage.go_home()
        finally:
            for kind, fd in homes:
                sc.setns(fd, kind)
                os.close(fd)
        self._control = ours
        self._loop.watch(ours.fileno(), self._on_control)
        self._loop.watch(self.pidfd, self._on_pidfd)

    def _send_trees(self, spec: LaunchSpec, layers_root: str, binds: tuple[int, ...], trees: list[int]) -> None:
        """Give the child its ids, and the layers and volumes as seen through them."""
        _write(f"/proc/{self.pid}/uid_map", spec.uid_map)
        _write(f"/proc/{self.pid}/gid_map", spec.gid_map)
        userns = os.open(f"/proc/{self.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        layers = -1
        try:
            layers = sc.open_tree(layers_root.encode())
            _idmap(layers, userns, layers_root, recursive=False)
            for number, tree in zip(binds, trees, strict=True):
                mount = spec.mounts[number]
                if mount.idmap:
                    _idmap(tree, userns, str(mount.source), recursive=mount.recursive)
            assert self._control is not None
            socket.send_fds(self._control, [child.MAPPED], [layers, *trees])
        finally:
            os.close(userns)
            if layers >= 0:
                os.close(layers)

    def _on_control(self) -> None:
        """Hear from the child: ready, an error, or the end of file that is its exec (or its end)."""
        assert self._control is not None
        message = self._receive()
        if message == child.TERMINAL:
            return
        if message == child.READY:
            self._on_ready()
            return
        creating = self.status == "creating"
        self._close_control()
        if message:
            # One that has been told to be created keeps it for its start.
            self._broken = failure = LaunchError(**json.loads(message))
        elif creating:
            killed = " (killed by its memory limit)" if self.cgroup.oom_kills() else ""
            failure = LaunchError("rejected", f"the container's init ended during its set-up{killed}", step="set up")
        elif self.status == "starting":
            self.status = "running"
            self._finish_request(None)
            return
        else:
            return
        if creating:
            self._fail_creation(failure)
        else:
            self._finish_request(failure)

    def _on_ready(self) -> None:
        made = {"pid": self.pid, "start_ticks": self.start_ticks, "boot_id": self._host.boot_id}
        try:
            self.record.append({"status": "created", **made})
        except OSError as error:
            self._fail_creation(from_os_error(error, "record the container"))
            return
        self.status = "created"
        self._finish_request(None)

    def _fail_creation(self, failure: LaunchError) -> None:
        if self._done is not None:
            done, self._done = self._done, None
            self._fail(failure, done)

    def _receive(self) -> bytes:
        """Return the child's next message; nothing when it has ended, also when it left ours unread."""
        assert self._control is not None
        try:
            message, fds = rights.receive(self._control, 65536, 1, socket.MSG_DONTWAIT)
        except (ConnectionResetError, BlockingIOError):
            return b""
        for fd in fds:
            with contextlib.suppress(OSError):  # who asked for a terminal has gone, and its session with it
                self._hand_over(fd)
            os.close(fd)
        return message

    def _hand_over(self, fd: int) -> None:
        """Give our end of the container's standard input to whoever asked for the container, who listens for it.

        Nobody else keeps it: with its last holder a terminal hangs up, and a pipe ends. (As runc's --console-socket.)
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asker:
            asker.connect(self._console)
            socket.send_fds(asker, [b"c"], [fd])

    def _said_by_child(self) -> LaunchError | None:
        """Return the error that the child ended with, which explains why we could not go on."""
        message = self._receive() if self._control is not None else b""
        if message == child.TERMINAL:
            message = self._receive()
        return LaunchError(**json.loads(message)) if message.startswith(b"{") else None

    def _close_control(self) -> None:
        if self._control is not None:
            self._loop.forget(self._control.fileno())
            self._control.close()
            self._control = None

    def _finish_request(self, failure: LaunchError | None) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(failure)

    # --- start, kill ----------------------------------------------------------------------------------------------

    def start(self, done: Done) -> None:
        """Let the init execute the user's program; `done` is called when it has, or could not."""
        if self.status == "running":
            done(None)
            return
        if self._broken is not None:
            done(self._broken)
            return
        if self.status == "starting":
            self._done = done  # asked again by an agent that was restarted: the one before has gone
            return
        if self.started_at is not None:
            done(rejected(f"container {self.id} is {self.status}, only a created one can be started"))
            return
        if self.status != "created" or self._control is None:  # its init ends with the launcher that made it
            done(self._unstarted())
            return
        # Recorded before it happens: after a crash in between it counts as started, and never runs twice.
        self.status, self.started_at = "starting", time.time()
        self.record.append({"status": "running", "started_at": self.started_at})
        try:
            self._control.send(child.GO)
        except OSError:
            self.status, self.started_at = "created", None
            self.record.append({"status": "created", "started_at": None})
            done(self._unstarted())
        else:
            self._done = done

    def _unstarted(self) -> LaunchError:
        return LaunchError("ended", f"container {self.id} ended before it was started")

    def kill(self, number: int, *, everything: bool) -> None:
        """Send a signal to the init, or SIGKILL to all; without effect on a container that has ended."""
        if self.pidfd < 0 or self.exit is not None:
            return
        if everything:
            self.cgroup.kill()
        try:
            # The init's death makes the kernel kill the rest of the pid namespace.
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL if everything else number)
        except ProcessLookupError:
            return

    def join(self, request: dict[str, Any], done: JoinDone) -> None:
        """Run a process inside; `done` is called with its result."""
        if self.status != "running" or self.pidfd < 0:
            raise rejected(f"container {self.id} is {self.status}: a process can only join a running one")
        made_by = rundir.read_request(self._host.container_dir(self.id))
        target = Target(
            pidfd=self.pidfd,
            namespaces=namespaces_of(parse(made_by["config"])),
            process=parse_process(process_of(made_by["config"], request)),
            cgroup=self._host.cgroups.group(self.cgroup.path),
            seccomp=filter_of(made_by),
            last_capability=self._host.last_capability,
        )
        try:
            JoinedProcess(self._loop, target, float(request["timeout_s"]), done)
        except OSError as error:
            raise from_os_error(error, "join the container") from None

    # --- output and end -------------------------------------------------------------------------------------------

    def _on_pidfd(self) -> None:
        """The init has ended, and with it every process of its pid namespace: nothing writes any more."""
        self._loop.forget(self.pidfd)
        if self._control is not None:
            # An error that the child sent before it ended comes first; a start that was answered by the end as well.
            self._on_control()
            self._close_control()
        status = exits.child_status(self.pidfd, reap=False)
        if status is None:
            self._adopted = True
            self._deadline = time.monotonic() + _WITNESS_S
            self._await_foreign_status()
        else:
            self._record_exit(status)
            exits.child_status(self.pidfd, reap=True)
            self._after_exit()

    def _await_foreign_status(self) -> None:
        """The parent is somebody else: learn the code from the kernel after the reaping, or from the agent."""
        if self.exit is not None:
            return
        status = self._witnessed if self._witnessed is not None else exits.foreign_status(self.pidfd)
        if status is None and time.monotonic() < self._deadline:
            self._loop.after(_WITNESS_POLL_S, self._await_foreign_status)
            return
        self._record_exit(status)
        self._after_exit()

    def witness(self, status: int) -> None:
        """Take the wait status that the agent saw, as the container's parent after the last launcher's death."""
        self._witnessed = status
        if self.status == "lost":
            self.conclude_lost()

    def conclude_lost(self) -> None:
        """End a container that was gone when this launcher started, with the code that is known by now."""
        if self.status == "lost":
            self._record_exit(self._witnessed)
            self._after_exit()

    def _record_exit(self, status: int | None) -> None:
        if self._log is not None:
            for pipe in self._log.pipes:
                self._loop.forget(pipe)
            self._log.finish()
        self.exit = exits.from_status(status, oom_killed=self.cgroup.oom_kills() > 0, now=time.time())
        announced = self.status not in ("creating", "disposing")
        self.status = "stopped" if announced else self.status
        if announced:
            self.record.append({"status": "stopped", "exit": self.exit.as_message()})

    def _after_exit(self) -> None:
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
        if self._disposal:
            self._dispose_now()
        if self.status == "stopped":
            self._on_exit(self)

    def acknowledge(self) -> None:
        """The agent has dealt with the exit: do not tell it again."""
        if self.exit is not None and not self.acknowledged:
            self.acknowledged = True
            self.record.append({"acknowledged": True})

    # --- dispose --------------------------------------------------------------------------------------------------

    def dispose(self, done: Done) -> None:
        """Kill what still runs and remove every trace; `done` is called when nothing is left. May be repeated."""
        self._disposal.append(done)
        if len(self._disposal) > 1:
            return
        if self.pidfd >= 0 and self.exit is None:
            self.kill(signal.SIGKILL, everything=True)
            return
        self._dispose_now()

    def _dispose_now(self) -> None:
        self.status = "disposing"
        if self._log is not None:
            for pipe in self._log.pipes:
                self._loop.forget(pipe)
            self._log.close()
        if not self.cgroup.remove():
            self.cgroup.kill()
            self._loop.after(_REMOVE_RETRY_S, self._dispose_now)
            return
        path = self._host.scratch_dir(self.id)
        if rundir.remove_known(path, rundir.OVERLAY_LEFTOVERS) or rundir.remove_tree(path, _INLINE_REMOVAL):
            self._disposed()
            return
        pid, pidfd = sc.clone3(0)
        if pid == 0:
            _remove_and_exit(path, self._host.kept)
        self._loop.watch(pidfd, lambda: self._on_removed(pidfd))

    def _on_removed(self, pidfd: int) -> None:
        self._loop.forget(pidfd)
        exits.child_status(pidfd, reap=True)
        os.close(pidfd)
        self._disposed()

    def _disposed(self) -> None:
        # Last, since without a record a new launcher would not know what is left to remove.
        directory = self._host.container_dir(self.id)
        if not rundir.remove_known(directory, rundir.RECORD_FILES):
            rundir.remove_tree(directory)
        self.status = "disposed"
        waiting, self._disposal = self._disposal, []
        for done in waiting:
            done(None)

    # --- recovery -------------------------------------------------------------------------------------------------

    def adopt(self) -> None:
        """Continue from the record of a launcher that is gone; what it had not finished creating ends as "creating"."""
        state = self.record.read()
        self.status = state.get("status", "creating")
        self.started_at = state.get("started_at")
        self.acknowledged = bool(state.get("acknowledged"))
        if self.status == "creating":
            return
        made_by = rundir.read_request(self._host.container_dir(self.id))
        self.labels = made_by["labels"]
        self.pid, self.start_ticks = state["pid"], state["start_ticks"]
        if "exit" in state:
            self.exit = exits.Exit(**state["exit"])
            return
        self._adopted = True
        alive = state["boot_id"] == self._host.boot_id and self._reopen_pidfd()
        self._open_log(LogPolicy(**made_by["log"]))
        if alive:
            self._loop.watch(self.pidfd, self._on_pidfd)
        else:
            self.status = "lost"

    def _reopen_pidfd(self) -> bool:
        """Open the init's pidfd again, unless its pid is gone or somebody else's by now."""
        try:
            self.pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        if rundir.start_ticks(self.pid) != self.start_ticks:
            os.close(self.pidfd)
            self.pidfd = -1
            return False
        return True

    def as_message(self) -> dict[str, Any]:
        """Return the form in which the agent sees a container."""
        shown = {"starting": "created", "lost": "stopped"}
        return {
            "id": self.id,
            "status": shown.get(self.status, self.status),
            "pid": self.pid if self.exit is None else 0,
            "start_ticks": self.start_ticks,
            "started_at": self.started_at,
            "exit": self.exit.as_message() if self.exit else None,
            "labels": self.labels,
        }


_NS_FILES: Final = {
    sc.CLONE_NEWNET: "net",
    sc.CLONE_NEWIPC: "ipc",
    sc.CLONE_NEWUTS: "uts",
    sc.CLONE_NEWCGROUP: "cgroup",
}


def filter_of(request: dict[str, Any]) -> bytes:
    """Return the compiled system call filter of a create request, empty for none."""
    return base64.b64decode(request.get("seccomp", ""))


def _write(path: str, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, content)
    finally:
        os.close(fd)


def _open_bind(mount: Mount) -> int:
    return sc.open_tree(os.fsencode(mount.source or ""), recursive=mount.recursive)


def _idmap(tree: int, userns: int, source: str, *, recursive: bool) -> None:
    try:
        sc.mount_setattr(tree, add=sc.MOUNT_ATTR_IDMAP, userns_fd=userns, recursive=recursive)
    except OSError as error:
        raise rejected(
            f"map the ids: {source}: its file system cannot be mounted with mapped ids ({error.strerror}); "
            "use ext4, xfs or btrfs, or for a volume opt out with `x-argosy: {idmap: false}`",
            step="map the ids",
        ) from None


def _remove_and_exit(path: str, kept: Kept) -> None:
    status = 1
    try:
        kept.close()
        rundir.remove_tree(path)
        status = 0
    finally:
        os._exit(status)
