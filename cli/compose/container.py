"""A service's mapping to the core's ContainerSpec: everything that is about one container, apart from its resources."""

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

from argosy.cli.compose.cursor import Cursor
from argosy.cli.compose.document import Seq
from argosy.cli.compose.envfile import parse_env_file
from argosy.cli.compose.health import liveness, readiness
from argosy.cli.compose.mounted import bind_of
from argosy.core.errors import InvalidError
from argosy.core.service import ContainerSpec, DnsConfig, Tmpfs, Ulimit
from argosy.core.units import parse_bytes

ReadText = Callable[[Path, str, Cursor], str | None]
"""(path, name to show, where it is named) -> the file's text; None, with a problem added, when it cannot be read."""


def container_spec(service: Cursor, env: Mapping[str, str], read: ReadText) -> ContainerSpec:
    """Return what runs in a task of `service`; `env` is what variables in its env_file are taken from."""
    entrypoint = _command(service.get("entrypoint"))
    command = _command(service.get("command"))
    if entrypoint is not None and command is None:
        command = ()  # the specification: with an entrypoint of its own the image's command is not used
    grace = service.get("stop_grace_period")
    return ContainerSpec(
        image=_image(service),
        entrypoint=entrypoint or (),
        entrypoint_set=entrypoint is not None,
        command=command or (),
        command_set=command is not None,
        env=_environment(service, env, read),
        user=_text(service, "user"),
        working_dir=_text(service, "working_dir"),
        hostname=_text(service, "hostname"),
        labels=_labels(service, read),
        stop_signal=_text(service, "stop_signal"),
        stop_grace_period=grace.duration() if grace is not None else None,
        ulimits=_ulimits(service.get("ulimits")),
        read_only=bool(_boolean(service, "read_only")),
        tmpfs=_tmpfs(service),
        cap_add=_texts(service, "cap_add"),
        cap_drop=_texts(service, "cap_drop"),
        init=_boolean(service, "init"),
        healthcheck=liveness(service),
        readiness=readiness(service),
        extra_hosts=_extra_hosts(service.get("extra_hosts")),
        dns=DnsConfig(_texts(service, "dns"), _texts(service, "dns_search"), _texts(service, "dns_opt")),
        sysctls=found.text_map() if (found := service.get("sysctls")) is not None else {},
    )


def _text(service: Cursor, key: str) -> str:
    found = service.get(key)
    return (found.text() or "") if found is not None else ""


def _texts(service: Cursor, key: str) -> tuple[str, ...]:
    found = service.get(key)
    return found.texts() if found is not None else ()


def _boolean(service: Cursor, key: str) -> bool | None:
    found = service.get(key)
    return found.boolean() if found is not None else None


def _image(service: Cursor) -> str:
    image = service.get("image")
    if image is not None:
        return image.text() or ""
    build = service.find("build")
    if build is not None:
        build.problem(
            "nothing is built in the cluster, and there is no 'image'",
            "build it elsewhere, import it (argosy image import NAME FILE) and name it in 'image'",
        )
    elif not any("did you mean 'image'" in problem.instead for problem in service.problems_below()):
        service.problem("the service has no 'image'", "name one that 'argosy image ls' shows")
    return ""


def _command(at: Cursor | None) -> tuple[str, ...] | None:
    """Return the words of a command; None when the image's is to be used."""
    if at is None:
        return None
    if isinstance(at.node, Seq):
        return at.texts()
    text = at.text()
    if text is None:
        return None
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        at.problem(f"the command cannot be split into words: {error}", "write it as a list")
        return None


# ---------------------------------------------------------------- variables and labels


def _environment(service: Cursor, env: Mapping[str, str], read: ReadText) -> tuple[str, ...]:
    """Return NAME=value for all variables, those of `environment` over those of `env_file`; unset ones are left out."""
    values: dict[str, str | None] = {}
    files = service.get("env_file")
    for item in files.items() if files is not None else ():
        values |= _env_file(item, env, read)
    own = service.get("environment")
    if own is not None and own.mapping():
        for name, value in own.own_entries():
            if "=" in name:
                value.problem(f"'{name}' cannot be the name of a variable")
            values[name] = None if value.is_null else value.text()
    return tuple(f"{name}={value}" for name, value in values.items() if value is not None)


def _env_file(item: Cursor, env: Mapping[str, str], read: ReadText) -> dict[str, str | None]:
    raw, required, where = False, True, item
    if not item.is_text:
        found = item.get("path")
        if found is None:
            item.problem("the entry names no file", "write 'path: FILE'")
            return {}
        where = found
        kind = item.get("format")
        raw = kind is not None and bool(kind.choice({"raw": True}))
        needed = item.get("required")
        required = needed is None or needed.boolean() is not False
    name = where.text()
    if name is None or (not required and not Path(name).exists()):
        return {}
    text = read(Path(name), name, where)
    if text is None:
        return {}
    found_values = parse_env_file(text, name, env, item.findings, raw=raw)
    return {key: env.get(key) if value is None else value for key, value in found_values.items()}


def _labels(service: Cursor, read: ReadText) -> dict[str, str]:
    found: dict[str, str] = {}
    files = service.get("label_file")
    for item in files.items() if files is not None else ():
        name = item.text()
        text = read(Path(name), name, item) if name else None
        if name and text is not None:
            values = parse_env_file(text, name, {}, item.findings, raw=True)
            found |= {key: value or "" for key, value in values.items()}
    own = service.get("labels")
    return found | (own.text_map() if own is not None else {})


# ---------------------------------------------------------------- limits and mounts


def _ulimits(at: Cursor | None) -> tuple[Ulimit, ...]:
    found = []
    for name, value in at.entries() if at is not None else ():
        if value.is_text:
            both = _limit(value)
            soft, hard = both, both
        else:
            value.mapping()
            first, second = value.get("soft"), value.get("hard")
            if first is None or second is None:
                value.problem("a limit needs 'soft' and 'hard', or is one number for both")
                continue
            soft, hard = _limit(first), _limit(second)
        if soft is not None and hard is not None:
            found.append(Ulimit(name, soft, hard))
    return tuple(found)


def _limit(at: Cursor) -> int | None:
    return -1 if at.is_text and at.text() == "unlimited" else at.integer(least=-1)


def _tmpfs(service: Cursor) -> tuple[Tmpfs, ...]:
    found = []
    short = service.get("tmpfs")
    for item in short.items() if short is not None else ():
        one = _short_tmpfs(item)
        if one is not None:
            found.append(one)
    shm = service.get("shm_size")
    if shm is not None:
        found.append(Tmpfs("/dev/shm", shm.size() or 0))
    volumes = service.get("volumes")
    for item in volumes.items() if volumes is not None else ():
        one = _mount(item) if bind_of(item) is None else None  # those are mounted.py's
        if one is not None:
            found.append(one)
    return tuple(found)


def _short_tmpfs(item: Cursor) -> Tmpfs | None:
    """Read "/run:size=64m,mode=1777,noexec"."""
    text = item.text()
    if text is None:
        return None
    target, _, options = text.partition(":")
    size, mode, others = 0, 0, []
    for option in filter(None, options.split(",")):
        name, _, value = option.partition("=")
        if name == "size":
            size = _size(item, value)
        elif name == "mode":
            mode = _mode(item, value)
        else:
            others.append(option)
    return Tmpfs(target, size, mode, ",".join(others))


def _mount(item: Cursor) -> Tmpfs | None:
    """Read an entry of `volumes`: a tmpfs in its long form; anything else is refused."""
    kind = item.get("type") if not item.is_text else None
    if kind is None or kind.text() != "tmpfs":
        item.problem("volumes are not there yet", "keep the data in the image, or use 'tmpfs' for what may be lost")
        return None
    target, options = item.get("target"), item.get("tmpfs")
    path = (target.text() or "") if target is not None else ""
    if not path:
        item.problem("the tmpfs has no 'target'", "name the directory in the container")
        return None
    size = options.get("size") if options is not None else None
    mode = options.get("mode") if options is not None else None
    return Tmpfs(
        path,
        (size.size() or 0) if size is not None else 0,
        _mode(mode, mode.text() or "") if mode is not None else 0,
        "ro" if _boolean(item, "read_only") else "",
    )


def _size(at: Cursor, text: str) -> int:
    try:
        return parse_bytes(text)
    except InvalidError as error:
        at.problem(str(error))
        return 0


def _mode(at: Cursor, text: str) -> int:
    try:
        return int(text, 8)
    except ValueError:
        at.problem(f"'{text}' is no mode", "write it in octal, like 1777")
        return 0


# ---------------------------------------------------------------- names


def _extra_hosts(at: Cursor | None) -> tuple[str, ...]:
    found = []
    for name, addresses in at.own_entries() if at is not None and at.mapping() else ():
        for item in addresses.items():
            address = (item.text() or "").removeprefix("[").removesuffix("]")
            if not name or not address:
                item.problem("an extra host needs a name and an address", "write NAME=ADDRESS")
            elif address == "host-gateway":
                item.problem("there is no gateway to the host here", "name the host's own address")
            else:
                found.append(f"{name}:{address}")
    return tuple(found)
