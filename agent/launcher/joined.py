"""A process that joins a running container: `exec`, for health checks. See `child` for the rules its own side obeys.

The launcher switches its `pid_for_children` to the container's pid namespace for the instant of the clone, so that the
joining process is born inside it and is the launcher's own child: no helper process in between. Everything
else the child joins itself. It is visible in the container from its birth, as a copy of the launcher: hence the
launcher is never dumpable, which no capability inside a user namespace overrides.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from . import credentials, exits
from . import syscalls as sc
from .cgroup import Cgroup
from .errors import LaunchError, from_os_error
from .loop import Loop
from .spec import LaunchSpec, Process

#: What is kept of a process's output: its end, as for a person who wants to know why a check failed.
OUTPUT_TAIL_BYTES: Final = 4096
_READ_BYTES: Final = 65536


@dataclass(frozen=True, slots=True)
class JoinResult:
    """How the process ended; `code` None means that it was killed at its time-out."""

    code: int | None
    output: bytes
    timed_out: bool


#: Called once, with an error if the process could not be run at all.
JoinDone = Callable[[LaunchError | None, JoinResult | None], None]


@dataclass(frozen=True, slots=True)
class Target:
    """The container to join, and as what."""

    pidfd: int
    namespaces: int
    process: Process
    cgroup: Cgroup
    seccomp: bytes
    last_capability: int


class JoinedProcess:
    """One process inside a container, from its clone to its result."""

    def __init__(self, loop: Loop, target: Target, timeout_s: float, done: JoinDone) -> None:
        self._loop = loop
        self._done = done
        self._tail = b""
        self._timed_out = False
        self._ended = False
        self._output, output = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._failure, failure = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            target.cgroup.open_entry()
            self._pid, self._pidfd = _clone_into(target, output, failure)
        except OSError:
            os.close(self._output)
            os.close(self._failure)
            raise
        finally:
            target.cgroup.close_fds()
            os.close(output)
            os.close(failure)
        loop.watch(self._output, self._read)
        loop.watch(self._pidfd, self._end)
        loop.after(timeout_s, self._time_out)

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._output, _READ_BYTES)
            self._tail = (self._tail + data)[-OUTPUT_TAIL_BYTES:]
            if not data:
                self._loop.forget(self._output)

    def _time_out(self) -> None:
        if not self._ended:
            self._timed_out = True
            # Its session, to which what it started belongs too.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._pid, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _end(self) -> None:
        self._ended = True
        for _ in range(16):  # the pipe's capacity: what is left of the output, and not what others still write
            self._read()
        ended = exits.from_status(exits.child_status(self._pidfd, reap=True), oom_killed=False, now=0.0)
        failure = b""
        with contextlib.suppress(BlockingIOError):
            failure = os.read(self._failure, _READ_BYTES)
        for fd in (self._output, self._pidfd, self._failure):
            self._loop.forget(fd)
            os.close(fd)
        if failure:
            error = LaunchError(**json.loads(failure))
            if error.code is None:
                self._done(error, None)
            else:
                self._done(None, JoinResult(error.code, error.reason.encode(), False))
        else:
            self._done(None, JoinResult(None if self._timed_out else ended.code, self._tail, self._timed_out))


def namespaces_of(spec: LaunchSpec) -> int:
    """Return the kinds of namespaces that a container does not share with the host, less the one of pids."""
    joined = sum(kind for kind, _ in spec.join)
    return (spec.clone_flags | joined) & ~sc.CLONE_NEWPID


def _clone_into(target: Target, output: int, failure: int) -> tuple[int, int]:
    home = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        sc.setns(target.pidfd, sc.CLONE_NEWPID)
        try:
            pid, pidfd = sc.clone3(0, target.cgroup.clone_fd())
            if pid == 0:
                _run(target, output, failure)
        finally:
            sc.setns(home, sc.CLONE_NEWPID)
    finally:
        os.close(home)
    return pid, pidfd


def _run(target: Target, output: int, failure: int) -> None:
    """Join, become the user and execute. Never returns."""
    step = "enter the cgroup"
    try:
        for fd in target.cgroup.entry_fds():
            os.write(fd, b"0")
        step = "join the container"
        sc.setns(target.pidfd, target.namespaces)
        os.setgroups(())
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        os.setsid()
        step = "resolve the user"
        identity = credentials.identify(target.process)
        env = credentials.environment(target.process, identity)
        step = "connect the output"
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.set_blocking(1, True)
        sc.close_on_exec_from(3)
        step = "drop privileges"
        credentials.become(target.process, identity, target.seccomp, target.last_capability)
        # After the change of credentials, which clears it: without a launcher nobody would end this process in time.
        sc.prctl(sc.PR_SET_PDEATHSIG, signal.SIGKILL)
        _end_if_abandoned(failure)
        step = "exec"
        credentials.reset_inherited()
        credentials.limit(target.process.rlimits)
        _report(failure, credentials.execute(target.process.argv, env))
    except LaunchError as error:
        _report(failure, error)
    except OSError as error:
        _report(failure, from_os_error(error, step))
    except BaseException as error:
        _report(failure, LaunchError("bug", f"{step}: {type(error).__name__}: {error}", step=step))
    finally:
        os._exit(1)


def _end_if_abandoned(failure: int) -> None:
    """End when the launcher died before the kernel knew to signal that: its end of the pipe is closed then."""
    poll = select.poll()
    poll.register(failure, 0)
    if poll.poll(0):
        os._exit(1)


def _report(failure: int, error: LaunchError) -> None:
    with contextlib.suppress(OSError):
        os.write(failure, json.dumps(error.as_message()).encode())


def process_of(config: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    """Return the `process` object of a joining process: the container's own, with what the request changes."""
    process = {**config["process"], "args": request["argv"]}
    process["env"] = [*process.get("env", ()), *request.get("env", ())]
    if request.get("user"):
        process["user"] = {"username": request["user"]}
    if request.get("cwd"):
        process["cwd"] = request["cwd"]
    return process
