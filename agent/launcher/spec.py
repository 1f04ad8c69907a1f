"""The OCI runtime-spec config, read once into what the launcher acts on. Pure: a dictionary in, frozen values out.

Everything that can be refused without touching the kernel is refused here, with the config's own key in the reason:
what the launcher does not do is an error, never ignored. Source: opencontainers/runtime-spec, config.md and
config-linux.md. Beyond the standard: `process.user.username` (`name[:group]`, resolved inside the image; the standard
has the field for Windows only), and the standard's `idmap` mount option for binds and volumes.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from . import syscalls as sc
from .capability import mask_of
from .errors import rejected

_NAMESPACE_FLAGS: Final = {
    "pid": sc.CLONE_NEWPID,
    "network": sc.CLONE_NEWNET,
    "mount": sc.CLONE_NEWNS,
    "ipc": sc.CLONE_NEWIPC,
    "uts": sc.CLONE_NEWUTS,
    "user": sc.CLONE_NEWUSER,
    "cgroup": sc.CLONE_NEWCGROUP,
}
#: Without these a container would not be one: its root would be the host's, or its processes and users.
_REQUIRED: Final = ("mount", "pid", "user")

_OPTION_FLAGS: Final = {
    "ro": sc.MS_RDONLY,
    "nosuid": sc.MS_NOSUID,
    "nodev": sc.MS_NODEV,
    "noexec": sc.MS_NOEXEC,
    "sync": sc.MS_SYNCHRONOUS,
    "dirsync": sc.MS_DIRSYNC,
    "noatime": sc.MS_NOATIME,
    "nodiratime": sc.MS_NODIRATIME,
    "relatime": sc.MS_RELATIME,
    "strictatime": sc.MS_STRICTATIME,
    "bind": sc.MS_BIND,
    "rbind": sc.MS_BIND | sc.MS_REC,
}
#: Options that say what is so anyway: nothing propagates into or out of a container, and these are the defaults.
_OPTIONS_WITHOUT_EFFECT: Final = frozenset(
    ("rw", "async", "suid", "dev", "exec", "private", "rprivate", "slave", "rslave", "defaults")
)
_FILESYSTEMS: Final = frozenset(["proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "bind"])

#: Kernel parameters that are per namespace, hence a container's own (namespaces(7), mq_overview(7)).
_IPC_SYSCTLS: Final = frozenset(["kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem"])
_IPC_SYSCTL_PREFIXES: Final = ("kernel.shm", "fs.mqueue.")


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount inside the container; `source` is a host path for binds and None otherwise."""

    target: str
    fstype: str
    source: str | None
    flags: int
    data: str
    idmap: bool

    @property
    def recursive(self) -> bool:
        """Whether a bind takes the mounts below its source along."""
        return bool(self.flags & sc.MS_REC)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The five capability sets as bit masks."""

    bounding: int
    effective: int
    permitted: int
    inheritable: int
    ambient: int


@dataclass(frozen=True, slots=True)
class Rlimit:
    """One resource limit: its name for a person, its number, soft and hard value (UNLIMITED for none)."""

    name: str
    resource: int
    soft: int
    hard: int


@dataclass(frozen=True, slots=True)
class Process:
    """The user's program and the credentials that it gets. `username` wins over uid and gid when it is set."""

    argv: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    username: str
    capabilities: Capabilities
    no_new_privileges: bool
    rlimits: tuple[Rlimit, ...]
    oom_score_adj: int | None
    terminal: bool


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """A whole container as the launcher needs it."""

    process: Process
    hostname: str
    read_only: bool
    mounts: tuple[Mount, ...]
    masked_paths: tuple[str, ...]
    read_only_paths: tuple[str, ...]
    sysctls: tuple[tuple[str, str], ...]
    clone_flags: int
    join: tuple[tuple[int, str], ...]
    uid_map: bytes
    gid_map: bytes
    root_uid: int
    root_gid: int
    cgroup_path: str
    resources: Mapping[str, Any]

    @property
    def own_network(self) -> bool:
        """Whether the container has a new network namespace."""
        return bool(self.clone_flags & sc.CLONE_NEWNET)


def parse(config: Mapping[str, Any]) -> LaunchSpec:
    """Return the launch spec of an OCI config; raise LaunchError "rejected" naming the key that is wrong."""
    try:
        return _parse(config)
    except KeyError as error:
        raise rejected(f"config.json: {error.args[0]!r} is missing or unknown", step="read the config") from None
    except (TypeError, AttributeError, ValueError) as error:
        raise rejected(f"config.json: {error}", step="read the config") from None


#: Features of the standard that this runtime does not have: where they stand, and what to do without them.
_UNSUPPORTED: Final = (
    ("hooks", "run what they do before or after the container"),
    ("domainname", "leave it out"),
    ("process.apparmorProfile", "leave it out"),
    ("process.selinuxLabel", "leave it out"),
    ("linux.devices", "bind the device into the container as a mount"),
    ("linux.intelRdt", "leave it out"),
    ("linux.personality", "leave it out"),
    ("linux.timeOffsets", "leave it out"),
)


def _refuse_unsupported(config: Mapping[str, Any]) -> None:
    for path, instead in _UNSUPPORTED:
        value: Any = config
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        if value:
            raise rejected(f"config.json: {path} is not supported: {instead}")


def _parse(config: Mapping[str, Any]) -> LaunchSpec:
    _refuse_unsupported(config)
    linux = config["linux"]
    flags, join = _namespaces(linux.get("namespaces", ()))
    uid_map, root_uid = _id_map(linux, "uidMappings")
    gid_map, root_gid = _id_map(linux, "gidMappings")
    hostname = str(config.get("hostname", ""))
    if hostname and not flags & sc.CLONE_NEWUTS:
        raise rejected("config.json: a hostname needs a uts namespace of the container's own")
    return LaunchSpec(
        process=parse_process(config["process"]),
        hostname=hostname,
        read_only=bool(config.get("root", {}).get("readonly", False)),
        mounts=tuple(_mount(entry) for entry in config.get("mounts", ())),
        masked_paths=tuple(linux.get("maskedPaths", ())),
        read_only_paths=tuple(linux.get("readonlyPaths", ())),
        sysctls=_sysctls(linux.get("sysctl", {}), flags),
        clone_flags=flags,
        join=join,
        uid_map=uid_map,
        gid_map=gid_map,
        root_uid=root_uid,
        root_gid=root_gid,
        cgroup_path=str(linux.get("cgroupsPath", "")),
        resources=linux.get("resources", {}),
    )


def _namespaces(entries: Any) -> tuple[int, tuple[tuple[int, str], ...]]:
    flags = 0
    join = []
    for entry in entries:
        flag = _NAMESPACE_FLAGS[entry["type"]]
        if path := entry.get("path"):
            if entry["type"] in _REQUIRED:
                raise rejected(f"config.json: joining an existing {entry['type']} namespace is not supported")
            join.append((flag, path))
        else:
            flags |= flag
    for name in _REQUIRED:
        if not flags & _NAMESPACE_FLAGS[name]:
            raise rejected(f"config.json: linux.namespaces must contain a new {name} namespace")
    return flags, tuple(join)


def _id_map(linux: Mapping[str, Any], key: str) -> tuple[bytes, int]:
    """Return the text for /proc/PID/uid_map, and the host id of the container's id 0."""
    lines = []
    root = None
    for entry in linux[key]:
        inside, outside, size = int(entry["containerID"]), int(entry["hostID"]), int(entry["size"])
        if inside == 0:
            root = outside
        lines.append(f"{inside} {outside} {size}\n")
    if not root:
        raise rejected(f"config.json: linux.{key} must map the container's id 0, and not to the host's id 0")
    return "".join(lines).encode(), root


def _mount(entry: Mapping[str, Any]) -> Mount:
    flags, data, idmap = 0, [], False
    for option in entry.get("options", ()):
        if option in ("idmap", "ridmap"):
            idmap = True
        elif option in _OPTION_FLAGS:
            flags |= _OPTION_FLAGS[option]
        elif option not in _OPTIONS_WITHOUT_EFFECT:
            data.append(option)
    fstype = "bind" if flags & sc.MS_BIND else str(entry.get("type", ""))
    target = str(entry["destination"])
    if not target.startswith("/") or "\0" in target:
        raise rejected(f"config.json: mount destination {target!r} must be an absolute path")
    if fstype not in _FILESYSTEMS:
        raise rejected(f"config.json: mount at {target}: file system type {fstype!r} is not supported in a container")
    if fstype == "bind" and data:
        raise rejected(f"config.json: bind mount at {target}: unknown option {data[0]!r}")
    source = str(entry["source"]) if fstype == "bind" else None
    return Mount(target, fstype, source, flags, ",".join(data), idmap)


def _sysctls(entries: Mapping[str, str], flags: int) -> tuple[tuple[str, str], ...]:
    for name in entries:
        if "/" in name or ".." in name:
            raise rejected(f"sysctl {name!r}: write the name with dots, for example net.core.somaxconn")
        if name.startswith("net."):
            if not flags & sc.CLONE_NEWNET:
                raise rejected(f"sysctl {name}: needs a network namespace of the container's own, not the host's")
        elif name in _IPC_SYSCTLS or name.startswith(_IPC_SYSCTL_PREFIXES):
            if not flags & sc.CLONE_NEWIPC:
                raise rejected(f"sysctl {name}: needs an ipc namespace of the container's own, not the host's")
        else:
            raise rejected(
                f"sysctl {name}: belongs to the whole host, a container may set only net.*, fs.mqueue.*, "
                "kernel.shm*, kernel.msg* and kernel.sem; set it on the host instead"
            )
    return tuple((name, str(value)) for name, value in entries.items())


def parse_process(process: Mapping[str, Any]) -> Process:
    """Return a `process` object of an OCI config; also the form of a process that joins a running container."""
    user = process.get("user", {})
    argv = tuple(str(arg) for arg in process["args"])
    if not argv:
        raise rejected("config.json: process.args is empty: the image has no command and none was given")
    cwd = str(process.get("cwd", "/"))
    if not cwd.startswith("/"):
        raise rejected(f"config.json: process.cwd {cwd!r} must be an absolute path")
    for text in (*argv, *process.get("env", ()), cwd):
        if "\0" in text:
            raise rejected("config.json: an argument, variable or directory of the process contains a NUL byte")
    caps = process.get("capabilities", {})
    adjust = process.get("oomScoreAdj")
    return Process(
        argv=argv,
        env=tuple(process.get("env", ())),
        cwd=cwd,
        uid=int(user.get("uid", 0)),
        gid=int(user.get("gid", 0)),
        groups=tuple(int(gid) for gid in user.get("additionalGids", ())),
        username=str(user.get("username", "")),
        capabilities=Capabilities(
            **{
                kind: mask_of(caps.get(kind, ()))
                for kind in ("bounding", "effective", "permitted", "inheritable", "ambient")
            }
        ),
        no_new_privileges=bool(process.get("noNewPrivileges", False)),
        rlimits=tuple(_rlimit(entry) for entry in process.get("rlimits", ())),
        oom_score_adj=None if adjust is None else int(adjust),
        terminal=bool(process.get("terminal", False)),
    )


#: RLIM_INFINITY as Python's resource module has it.
UNLIMITED: Final = -1
#: setrlimit(2); the same numbers on x86-64 and arm64.
_RLIMIT_TABLE: Final = """
CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME
"""
_RLIMITS: Final = {name: number for number, name in enumerate(_RLIMIT_TABLE.split())}


def _rlimit(entry: Mapping[str, Any]) -> Rlimit:
    name = str(entry["type"])
    number = _RLIMITS[name.upper().removeprefix("RLIMIT_")]
    soft, hard = (UNLIMITED if int(entry[key]) in (-1, 2**64 - 1) else int(entry[key]) for key in ("soft", "hard"))
    return Rlimit(name.lower().removeprefix("rlimit_"), number, soft, hard)


def signal_name(number: int) -> str:
    """Return a signal's name for a person."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
