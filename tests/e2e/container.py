"""A container as it is: looked at from inside its namespaces, and in what the kernel says of its processes."""

import subprocess
import time
from pathlib import Path

from tests.e2e import host_view

_CGROUPS = Path("/sys/fs/cgroup")
IS_V2 = (_CGROUPS / "cgroup.controllers").exists()


class Container:
    """Of a task that runs: a row of `ps`. `pid` is its first process as the machine counts."""

    def __init__(self, cluster, task):
        self.task = task
        self.pid = task["pid"]
        self._cluster = cluster

    # ---------------------------------------------------------------- from inside

    def try_inside(self, *command, timeout=30):
        """Run a command with all namespaces and the root of the container, as its root user."""
        flags = ["--user", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd=/"]
        return subprocess.run(
            ["nsenter", f"--target={self.pid}", *flags, "--setuid=0", "--setgid=0", "--", *command],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def inside(self, *command, timeout=30):
        """Run a command inside, which must succeed; return what it printed."""
        done = self.try_inside(*command, timeout=timeout)
        assert done.returncode == 0, f"{command}: exit {done.returncode}: {done.stderr or done.stdout}"
        return done.stdout

    def call(self, host, port=7000):
        """Connect to a TCP port by name or address; return what was answered, "" when nobody did."""
        return self.try_inside("/bin/nc", "-w", "2", host, str(port)).stdout.strip()

    # ---------------------------------------------------------------- from outside

    @property
    def program(self):
        """The user's program: the only child of the init, where there is one."""
        if self.arguments(self.pid)[0] != "/run/argosy-init":
            return self.pid
        return int(Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()[0])

    def arguments(self, pid=None):
        """Return the argument vector of the program, or another process."""
        return Path(f"/proc/{pid or self.program}/cmdline").read_bytes().rstrip(b"\0").decode().split("\0")

    def environment(self):
        """Return the variables that the program was started with."""
        entries = Path(f"/proc/{self.program}/environ").read_bytes().rstrip(b"\0").decode().split("\0")
        return dict(entry.split("=", 1) for entry in entries)

    def status(self, name):
        """Return the words of a line of the program's /proc/PID/status."""
        lines = Path(f"/proc/{self.program}/status").read_text().splitlines()
        return next(line.split()[1:] for line in lines if line.startswith(f"{name}:"))

    def capabilities(self):
        """Return the numbers of the program's effective capabilities."""
        effective = int(self.status("CapEff")[0], 16)
        return {number for number in range(64) if effective >> number & 1}

    def own_id(self, kind):
        """Return the program's effective user id (`kind` "uid") or group id ("gid") as the container counts."""
        inside, outside, size = map(int, Path(f"/proc/{self.pid}/{kind}_map").read_text().split())
        number = int(self.status(kind.capitalize())[1]) - outside + inside
        assert 0 <= number < size
        return number

    def path(self, path):
        """Return where a file of the container is found from outside."""
        return Path(f"/proc/{self.pid}/root{path}")

    def mount_options(self, target):
        """Return the options of the topmost mount at a path: those of the mount and of the file system."""
        found = None
        for line in Path(f"/proc/{self.pid}/mountinfo").read_text().splitlines():
            words = line.split()
            if words[4] == target:
                found = {*words[5].split(","), *words[-1].split(",")}
        return found

    def cgroup(self, controller, v1, v2):
        """Return the content of a control file: `v1` of a controller's own hierarchy, or `v2`."""
        group = f"argosy/dev-{self._cluster.name}/{self.task['node']}/{self.task['id']}"
        path = _CGROUPS / group / v2 if IS_V2 else _CGROUPS / controller / group / v1
        return path.read_text().strip()

    def cpus(self):
        """Return the limit of CPU time per time; None where there is none."""
        if IS_V2:
            quota, period = self.cgroup("cpu", "", "cpu.max").split()
        else:
            quota, period = (self.cgroup("cpu", f"cpu.cfs_{what}_us", "") for what in ("quota", "period"))
        return None if quota in ("max", "-1") else int(quota) / int(period)

    def started_at(self):
        """Return when the program was started, in seconds since the epoch, to a hundredth."""
        since_boot = host_view.started(self.program) / 100
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + since_boot
