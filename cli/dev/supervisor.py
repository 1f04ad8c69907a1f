"""Keeps a dev cluster's processes running, as systemd would on real hosts. Standard library only.

    python supervisor.py SPEC.json        (started by `argosy dev up`, already in the cluster's cgroup)

Makes the spaces (a holder process each, whose namespaces the others join), links them to the bridge, starts the
processes and starts any that ends anew, after a pause that grows. SIGTERM: ends all of them, then itself. What it
runs is written to `processes.json`, for `argosy dev status` and for tests.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWNET = 0x00020000, 0x04000000, 0x40000000
PR_SET_CHILD_SUBREAPER = 36
FIRST_PAUSE_S, LONGEST_PAUSE_S, STABLE_S = 0.2, 5.0, 10.0


class Supervisor:
    """Runs one plan. `children` are Popen objects by process name."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.run_dir = Path(spec["run_dir"])
        self.holders: dict[str, int] = {}
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self.by_name = {p["name"]: p for p in spec["processes"]}
        self.started: dict[str, float] = {}
        self.pause: dict[str, float] = {}
        self.due: dict[str, float] = {}
        self.stopping = False

    def run(self) -> None:
        """Make the cluster and keep it until told to stop."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        for space in self.spec["spaces"]:
            self.holders[space["name"]] = _hold(space)
        self._link()
        for name in self.by_name:
            self._start(name)
        self._write_status()
        while not self.stopping:
            timeout = min((t - time.monotonic() for t in self.due.values()), default=None)
            if select.select([reader], [], [], None if timeout is None else max(0.0, timeout))[0]:
                os.read(reader, 4096)
            self._tend()
        self._end_all()

    def _stop(self, *_: object) -> None:
        self.stopping = True

    def _link(self) -> None:
        switch = self.holders["switch"]
        for space, end, address in self.spec["links"]:
            host = self.holders[space]
            _inside(
                switch,
                f"ip link add {end} type veth peer name eth0 netns {host} && ip link set {end} master br0 up",
            )
            _inside(host, f"ip address add {address} dev eth0 && ip link set eth0 up")

    def _start(self, name: str) -> None:
        process = self.by_name[name]
        holder = self.holders[process["space"]]
        log = open(self.run_dir / "logs" / f"{name}.log", "ab")  # noqa: SIM115  # closed below, once the child has it
        join = ["nsenter", f"--target={holder}", "--net", "--uts", "--mount", "--"]
        # Not --fork: the process itself is our child, so its end is seen and its id is the one that we tell.
        self.children[name] = subprocess.Popen(
            [*join, *process["argv"]],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **process["env"]},
            start_new_session=True,
        )
        log.close()
        self.started[name] = time.monotonic()

    def _tend(self) -> None:
        now = time.monotonic()
        changed = False
        for name, child in list(self.children.items()):
            if child.poll() is not None:
                del self.children[name]
                stable = now - self.started[name] > STABLE_S
                pause = FIRST_PAUSE_S if stable else self.pause.get(name, FIRST_PAUSE_S)
                self.pause[name] = min(LONGEST_PAUSE_S, pause * 2)
                self.due[name] = now + pause
                changed = True
        for name, when in list(self.due.items()):
            if when <= now and not (self.run_dir / "stopped" / name).exists():
                del self.due[name]
                self._start(name)
                changed = True
            elif when <= now:
                self.due[name] = now + FIRST_PAUSE_S  # held down by hand: look again soon
        with contextlib.suppress(ChildProcessError):
            known = {c.pid for c in self.children.values()}
            while (
                strays := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            ) and strays.si_pid not in known:
                os.waitpid(strays.si_pid, 0)
        if changed:
            self._write_status()

    def _write_status(self) -> None:
        status = {
            "supervisor": os.getpid(),
            "holders": self.holders,
            "processes": {
                name: {"pid": self.children[name].pid if name in self.children else 0, "space": p["space"]}
                for name, p in self.by_name.items()
            },
        }
        path = self.run_dir / "processes.json"
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(status, indent=1))
        temporary.replace(path)

    def _end_all(self) -> None:
        for child in self.children.values():
            child.terminate()
        for child in self.children.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=2)


def _hold(space: dict[str, Any]) -> int:
    """Make a process that holds the namespaces of a space; return its id when the space is set up."""
    libc = ctypes.CDLL(None, use_errno=True)
    ready, done = os.pipe()
    pid = os.fork()
    if pid:
        os.close(done)
        with os.fdopen(ready, "rb") as answer:
            problem = answer.read()
        if problem:
            raise SystemExit(f"{space['name']}: {problem.decode(errors='replace')}")
        return pid
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        flags = CLONE_NEWNET | CLONE_NEWUTS | (CLONE_NEWNS if space["mounts"] else 0)
        if libc.unshare(flags) != 0:
            raise OSError(ctypes.get_errno(), "unshare: " + os.strerror(ctypes.get_errno()))
        commands = list(space["setup"])
        if space["mounts"]:
            commands.insert(0, "mount --make-rprivate /")
        _shell(" && ".join(commands))
        os.close(done)
    except BaseException as e:
        os.write(done, str(e).encode() or b"failed")
        os._exit(1)
    return os.execvp("sleep", ["argosy-dev-host", "infinity"])


def _shell(line: str, prefix: tuple[str, ...] = ()) -> None:
    result = subprocess.run([*prefix, "sh", "-c", line], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RuntimeError(f"{line}: {result.stderr.strip()}")


def _inside(holder: int, line: str) -> None:
    _shell(line, ("nsenter", f"--target={holder}", "--net", "--"))


def main() -> None:
    """Run the plan in the file that is named on the command line."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    Supervisor(json.loads(Path(sys.argv[1]).read_text())).run()


if __name__ == "__main__":
    main()
