"""Builds the OCI runtime-spec config of a container from what a task wants. Pure: no I/O, no clock.

The defaults are Docker's where Docker has one, since images are written for them: paths masked, capabilities, /dev,
sysctls. Where we differ it says why. Source: opencontainers/runtime-spec config.md and config-linux.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from argosy.agent.launcher.capability import NAMES, plain_name

from .errors import RuntimeRejected
from .seccomp_profile import default_profile

#: Ids per container: what /etc/passwd of an image may use, "nobody" at 65534 included.
ID_RANGE_SIZE: Final = 65_536
#: A fork bomb must end alone; no sane service has more threads, and those that do can say so.
DEFAULT_PIDS_LIMIT: Final = 4096
#: Memory for /dev/shm unless asked otherwise.
DEFAULT_SHM_BYTES: Final = 64 * 2**20
INIT_PATH: Final = "/run/argosy-init"

#: Docker's default set without MKNOD (impossible in a user namespace) and AUDIT_WRITE (the audit system answers the
#: initial user namespace only).
DEFAULT_CAPABILITIES: Final = (
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
)

#: Files of /proc and /sys that tell about or act on the host as a whole.
MASKED_PATHS: Final = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READ_ONLY_PATHS: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

#: Any user may bind port 80 and send pings in its own network namespace; both need no capability then.
DEFAULT_SYSCTLS: Final = {
    "net.ipv4.ip_unprivileged_port_start": "0",
    "net.ipv4.ping_group_range": f"0 {ID_RANGE_SIZE - 1}",
}
DEFAULT_PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Bind:
    """A host file or directory inside the container. `idmap`: owned inside by the ids it has on the host's disk."""

    source: str
    target: str
    read_only: bool = False
    idmap: bool = True
    recursive: bool = True


@dataclass(frozen=True, slots=True)
class Tmpfs:
    """A file system in memory, gone with the container. `options` as of mount(8), such as `exec` or `uid=1000`."""

    target: str
    size_bytes: int | None = None
    mode: int = 0o1777
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ulimit:
    """One resource limit, by the name that setrlimit(2) has for it, such as `nofile`; -1 means unlimited."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True)
class Limits:
    """Resource limits; None means none. `cpus` is CPU time per time, `cpu_shares` a weight (1024 is one share)."""

    cpus: float | None = None
    cpu_shares: int | None = None
    cpuset: str = ""
    memory_bytes: int | None = None
    memory_high_bytes: int | None = None
    memory_swap_bytes: int | None = None
    pids: int = DEFAULT_PIDS_LIMIT


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """What a task wants of its container, resolved: image defaults are in it, names that only the image knows are not.

    `user` is empty (root), a name, an id, `name:group` or `uid:gid`. `id_base` is the first host id of the container's
    own range. The three `*_path` are host files (world readable) shown at /etc/…; "" leaves the image's own.
    """

    argv: tuple[str, ...]
    id_base: int
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: str = ""
    groups: tuple[int, ...] = ()
    hostname: str = ""
    binds: tuple[Bind, ...] = ()
    tmpfs: tuple[Tmpfs, ...] = ()
    ulimits: tuple[Ulimit, ...] = ()
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict)
    read_only: bool = False
    init: str = ""
    limits: Limits = Limits()
    shm_bytes: int = DEFAULT_SHM_BYTES
    hosts_path: str = ""
    resolv_conf_path: str = ""
    hostname_path: str = ""
    host_network: bool = False
    no_new_privileges: bool = True
    seccomp: bool = True
    terminal: bool = False


def build(spec: ContainerSpec) -> dict[str, Any]:
    """Return the OCI config for a spec; raise RuntimeRejected for what cannot be expressed.

    `spec.init` is the host path of a static init program (tini); it becomes pid 1 and the user's program its child.
    """
    if not spec.argv:
        raise RuntimeRejected("the container has no command: the image has none and the service gives none")
    if spec.id_base < ID_RANGE_SIZE:
        raise RuntimeRejected(f"id range at {spec.id_base}: must start above the host's own ids ({ID_RANGE_SIZE})")
    mapping = [{"containerID": 0, "hostID": spec.id_base, "size": ID_RANGE_SIZE}]
    namespaces = ["pid", "mount", "ipc", "uts", "user", "cgroup", *([] if spec.host_network else ["network"])]
    return {
        "ociVersion": "1.2.0",
        "process": _process(spec),
        "root": {"path": "rootfs", "readonly": spec.read_only},
        "hostname": spec.hostname,
        "mounts": _mounts(spec),
        "linux": {
            "namespaces": [{"type": name} for name in namespaces],
            "uidMappings": mapping,
            "gidMappings": mapping,
            "resources": resources(spec.limits),
            "maskedPaths": list(MASKED_PATHS),
            "readonlyPaths": list(READ_ONLY_PATHS),
            "sysctl": {**({} if spec.host_network else DEFAULT_SYSCTLS), **spec.sysctls},
            **({"seccomp": default_profile(capabilities(spec.cap_add, spec.cap_drop))} if spec.seccomp else {}),
        },
    }


def _process(spec: ContainerSpec) -> dict[str, Any]:
    argv = [INIT_PATH, "--", *spec.argv] if spec.init else list(spec.argv)
    env = list(spec.env)
    if not any(entry.startswith("PATH=") for entry in env):
        env.append(DEFAULT_PATH)
    if spec.hostname and not any(entry.startswith("HOSTNAME=") for entry in env):
        env.append(f"HOSTNAME={spec.hostname}")
    caps = sorted(capabilities(spec.cap_add, spec.cap_drop))
    return {
        "terminal": spec.terminal,
        "user": {"uid": 0, "gid": 0, "username": spec.user or "0", "additionalGids": list(spec.groups)},
        "args": argv,
        "env": env,
        "cwd": spec.cwd,
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), caps),
        "rlimits": [{"type": ulimit.name, "soft": ulimit.soft, "hard": ulimit.hard} for ulimit in spec.ulimits],
        "noNewPrivileges": spec.no_new_privileges,
    }


def capabilities(add: tuple[str, ...], drop: tuple[str, ...]) -> set[str]:
    """Return the capabilities that remain of the default set after `drop` and `add`, either of which may be ALL.

    As in Docker: `drop: [ALL], add: [X]` leaves X alone, `add: [ALL], drop: [X]` all but X.
    """
    added, dropped = {plain_name(name) for name in add}, {plain_name(name) for name in drop}
    for name in (added | dropped) - {"ALL"}:
        if name not in NAMES:
            raise RuntimeRejected(f"capability {name!r} does not exist; see capabilities(7)")
    kept: set[str] = set() if "ALL" in dropped else set(NAMES if "ALL" in added else DEFAULT_CAPABILITIES)
    return {f"CAP_{name}" for name in (kept - dropped) | (added - {"ALL"})}


def _mounts(spec: ContainerSpec) -> list[dict[str, Any]]:
    quiet = ["nosuid", "noexec", "nodev"]
    mounts: list[dict[str, Any]] = [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": quiet},
        _tmpfs("/dev", ["nosuid", "noexec", "strictatime", "mode=755", "size=65536k"]),
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        },
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*quiet, "ro"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": [*quiet, "ro"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": quiet},
        _tmpfs("/dev/shm", [*quiet, "mode=1777", f"size={spec.shm_bytes}"]),
    ]
    mounts += [_tmpfs_mount(entry) for entry in spec.tmpfs]
    files = (
        (spec.hosts_path, "/etc/hosts"),
        (spec.resolv_conf_path, "/etc/resolv.conf"),
        (spec.hostname_path, "/etc/hostname"),
    )
    # Files of ours are world readable and not volumes: no id map, which not every file system has.
    mounts += [_bind(Bind(source, target, idmap=False, recursive=False)) for source, target in files if source]
    if spec.init:
        mounts.append(_bind(Bind(spec.init, INIT_PATH, read_only=True, idmap=False, recursive=False)))
    # A volume below another one must come after it, whatever the order in which they were declared.
    mounts += [_bind(entry) for entry in sorted(spec.binds, key=lambda bind: bind.target.count("/"))]
    return mounts


def _tmpfs(target: str, options: list[str]) -> dict[str, Any]:
    return {"destination": target, "type": "tmpfs", "source": "tmpfs", "options": options}


def _tmpfs_mount(entry: Tmpfs) -> dict[str, Any]:
    size = [f"size={entry.size_bytes}"] if entry.size_bytes is not None else []
    flags = [flag for flag in ("nosuid", "nodev", "noexec") if flag.removeprefix("no") not in entry.options]
    return _tmpfs(entry.target, [*flags, f"mode={entry.mode:o}", *size, *entry.options])


def _bind(entry: Bind) -> dict[str, Any]:
    options = ["rbind" if entry.recursive else "bind", "nosuid", "nodev"]
    if entry.read_only:
        options.append("ro")
    if entry.idmap:
        options.append("idmap")
    return {"destination": entry.target, "type": "bind", "source": entry.source, "options": options}


def resources(limits: Limits) -> dict[str, Any]:
    """Return the OCI `resources` object; only what is limited is in it."""
    cpu: dict[str, Any] = {}
    if limits.cpus is not None:
        cpu |= {"quota": int(limits.cpus * 100_000), "period": 100_000}
    if limits.cpu_shares is not None:
        cpu["shares"] = limits.cpu_shares
    if limits.cpuset:
        cpu["cpus"] = limits.cpuset
    memory: dict[str, Any] = {}
    if limits.memory_bytes is not None:
        memory["limit"] = limits.memory_bytes
    if limits.memory_swap_bytes is not None:
        memory["swap"] = limits.memory_swap_bytes
    result: dict[str, Any] = {"pids": {"limit": limits.pids}}
    if cpu:
        result["cpu"] = cpu
    if memory:
        result["memory"] = memory
    if limits.memory_high_bytes is not None:
        result["unified"] = {"memory.high": str(limits.memory_high_bytes)}
    return result
