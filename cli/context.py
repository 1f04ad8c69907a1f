"""Which cluster a command talks to.

First of: --host, --context, ARGOSY_HOST, ARGOSY_CONTEXT, the context chosen with `argosy context use`, the default
dev cluster's socket if there is one, the system's socket. Contexts are files `contexts/NAME.json` with "host" and
"project" in $ARGOSY_CONFIG, $XDG_CONFIG_HOME/argosy or ~/.config/argosy; `current` there names the chosen one.
`dev/NAME` is a context without a file: the dev cluster of that name on this machine.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from argosy.cli.errors import CliError, InvalidInputError

SYSTEM_HOST: Final = "unix:///run/argosy/controller.sock"
DEV_ROOT: Final = Path("/run/argosy/dev")
DEV_PREFIX: Final = "dev/"
DEFAULT_PROJECT: Final = "default"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Context:
    """A cluster by name; `host` may be a comma list of controllers of one cluster."""

    name: str
    host: str
    project: str = DEFAULT_PROJECT


@dataclass(frozen=True, slots=True)
class Target:
    """What to talk to: endpoints in gRPC's notation, and the project."""

    hosts: tuple[str, ...]
    project: str


def config_dir(environ: Mapping[str, str]) -> Path:
    """Return where contexts are kept."""
    if environ.get("ARGOSY_CONFIG"):
        return Path(environ["ARGOSY_CONFIG"])
    if environ.get("XDG_CONFIG_HOME"):
        return Path(environ["XDG_CONFIG_HOME"]) / "argosy"
    return Path(environ.get("HOME") or "/root") / ".config" / "argosy"


def resolve(host: str, context: str, project: str, environ: Mapping[str, str]) -> Target:
    """Return the target that options ("" when not given), environment and files choose."""
    project = project or environ.get("ARGOSY_PROJECT", "")
    if not host and not context:
        host = environ.get("ARGOSY_HOST", "")
    if host:
        return Target(parse_hosts(host), project or DEFAULT_PROJECT)
    directory = config_dir(environ)
    name = context or environ.get("ARGOSY_CONTEXT", "") or current(directory)
    if name.startswith(DEV_PREFIX):
        return Target(dev_hosts(name.removeprefix(DEV_PREFIX)), project or DEFAULT_PROJECT)
    if name:
        chosen = load(directory, name)
        return Target(parse_hosts(chosen.host), project or chosen.project)
    return Target(default_hosts(), project or DEFAULT_PROJECT)


def dev_name(context: str, environ: Mapping[str, str]) -> str:
    """Return the dev cluster that `argosy dev` means when it is not named: the one that other commands talk to.

    "default" where they talk to none. Raises InvalidInputError when `context`, the option, is none of a dev cluster.
    """
    if context and not context.startswith(DEV_PREFIX):
        raise InvalidInputError(f"the context '{context}' is no dev cluster", "name one: --name NAME")
    name = context or environ.get("ARGOSY_CONTEXT", "") or current(config_dir(environ))
    return name.removeprefix(DEV_PREFIX) if name.startswith(DEV_PREFIX) else "default"


def default_hosts() -> tuple[str, ...]:
    """Return the default dev cluster's sockets if it is up, else the system's."""
    if (DEV_ROOT / "default" / "controller.sock").exists():
        return dev_hosts("default")
    return (SYSTEM_HOST,)


def dev_hosts(name: str) -> tuple[str, ...]:
    """Return the controllers' sockets of the dev cluster `name`; its first one's place when it is not up."""
    directory = DEV_ROOT / name
    found = sorted(directory.glob("controller*.sock"), key=lambda p: (len(p.name), p.name))
    return tuple(f"unix://{path}" for path in found) or (f"unix://{directory / 'controller.sock'}",)


def dev_contexts() -> list[str]:
    """Return the contexts of the dev clusters on this machine."""
    return [DEV_PREFIX + path.parent.name for path in sorted(DEV_ROOT.glob("*/controller.sock"))]


def parse_hosts(text: str) -> tuple[str, ...]:
    """Return the endpoints in a comma list of unix:///path, /path, host:port or tcp://host:port.

    Raises InvalidInputError for anything else.
    """
    hosts = tuple(_parse_host(part.strip()) for part in text.split(",") if part.strip())
    if not hosts:
        raise InvalidInputError("the host is empty", "write unix:///path/to/controller.sock or host:port")
    return hosts


def _parse_host(text: str) -> str:
    if text.startswith("unix://") and len(text) > len("unix://"):
        return "unix://" + os.path.abspath(text.removeprefix("unix://"))
    if text.startswith("/"):
        return f"unix://{text}"
    address, colon, port = text.removeprefix("tcp://").rpartition(":")
    if not colon or not address or "/" in address or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InvalidInputError(
            f"'{text}' is no address of a controller", "write unix:///path/to/controller.sock or host:port"
        )
    return f"{address}:{port}"


def current(directory: Path) -> str:
    """Return the name of the chosen context; "" when none is."""
    try:
        return (directory / "current").read_text().strip()
    except FileNotFoundError:
        return ""


def load(directory: Path, name: str) -> Context:
    """Read a context. Raises InvalidInputError when there is none or its file is broken."""
    import json

    path = directory / "contexts" / f"{_checked(name)}.json"
    try:
        data = json.loads(path.read_text())
        return Context(name, str(data["host"]), str(data.get("project") or DEFAULT_PROJECT))
    except FileNotFoundError:
        known = ", ".join([*(c.name for c in load_all(directory)), *dev_contexts()]) or "none"
        raise InvalidInputError(
            f"there is no context '{name}' (known: {known})", f"make it: argosy context create {name} HOST"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInputError(f"{path} is broken: {error}", f"remove it: argosy context rm {name}") from None


def load_all(directory: Path) -> list[Context]:
    """Read all contexts that can be read, by name."""
    found = []
    for path in sorted((directory / "contexts").glob("*.json")):
        try:
            found.append(load(directory, path.stem))
        except InvalidInputError:
            continue
    return found


def save(directory: Path, context: Context) -> None:
    """Write a context. Raises InvalidInputError for a name or host that cannot be."""
    import json

    parse_hosts(context.host)
    path = directory / "contexts" / f"{_checked(context.name)}.json"
    _write(path, json.dumps({"host": context.host, "project": context.project}, indent=2) + "\n")


def use(directory: Path, name: str) -> None:
    """Make `name` the chosen context; "" for none."""
    if name and not name.startswith(DEV_PREFIX):
        load(directory, name)
    _write(directory / "current", name + "\n")


def remove(directory: Path, name: str) -> None:
    """Delete a context. Raises InvalidInputError when there is none."""
    path = directory / "contexts" / f"{_checked(name)}.json"
    if not path.exists():
        load(directory, name)
    path.unlink()
    if current(directory) == name:
        use(directory, "")


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise InvalidInputError(f"'{name}' cannot be a context's name", "use letters, digits, '-', '_' and '.'")
    return name


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise CliError(f"cannot write {path}: {error.strerror}") from None
