"""`argosy-oci`: the native runtime as an OCI runtime on the command line (runtime-spec, runtime.md "Operations").

    argosy-oci [--root DIR] create --bundle DIR [--pid-file FILE] ID
    argosy-oci [--root DIR] start|state|delete ID
    argosy-oci [--root DIR] kill ID [SIGNAL]

Under `--root` lives a launcher of its own; it ends with its last container. Two things differ from other runtimes: a
container always gets a user namespace (a range of ids is added when the config maps none; the bundle's files keep
their owners as seen from inside), and its output goes to `DIR/logs/ID.log`, not to this command's own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import zlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from .errors import ContainerError, ContainerMissing, RuntimeRejected
from .interface import ContainerState, LogTarget, Rootfs
from .native import NativeRuntime
from .oci_config import ID_RANGE_SIZE

OCI_VERSION: Final = "1.2.0"
_DEFAULT_ROOT: Final = "/run/argosy-oci"
_FIRST_ID: Final = 1 << 28
_ID_RANGES: Final = 16_384
_BUNDLE: Final = "argosy.bundle"


def with_user_namespace(config: Mapping[str, Any], container_id: str) -> dict[str, Any]:
    """Return the config with a user namespace and id range of the container's own, unless it has one."""
    linux = dict(config.get("linux", {}))
    namespaces = list(linux.get("namespaces", ()))
    if any(entry["type"] == "user" for entry in namespaces):
        return dict(config)
    base = _FIRST_ID + zlib.crc32(container_id.encode()) % _ID_RANGES * ID_RANGE_SIZE
    mapping = [{"containerID": 0, "hostID": base, "size": ID_RANGE_SIZE}]
    linux |= {"namespaces": [*namespaces, {"type": "user"}], "uidMappings": mapping, "gidMappings": mapping}
    return {**config, "linux": linux}


def signal_number(text: str) -> int:
    """Return the number of a signal given as number, `TERM` or `SIGTERM`; raise RuntimeRejected for anything else."""
    if text.isdecimal():
        return int(text)
    name = text.upper()
    try:
        return signal.Signals[name if name.startswith("SIG") else f"SIG{name}"]
    except KeyError:
        raise RuntimeRejected(f"signal {text!r} does not exist") from None


def state_object(state: ContainerState) -> dict[str, Any]:
    """Return the standard's `state` of a container."""
    shown: dict[str, Any] = {"ociVersion": OCI_VERSION, "id": state.id, "status": state.status}
    if state.pid:
        shown["pid"] = state.pid
    annotations = {name: value for name, value in state.labels.items() if name != _BUNDLE}
    return {**shown, "bundle": state.labels.get(_BUNDLE, ""), "annotations": annotations}


def read_bundle(directory: str) -> dict[str, Any]:
    """Return a bundle's config; raise RuntimeRejected when there is none or it is not JSON."""
    path = Path(directory) / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RuntimeRejected(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise RuntimeRejected(f"{path}: not JSON: {error}") from None
    return config


async def _create(runtime: NativeRuntime, options: argparse.Namespace) -> None:
    config = await asyncio.to_thread(read_bundle, options.bundle)
    bundle = options.bundle
    rootfs = Rootfs(os.path.join(bundle, config.get("root", {}).get("path", "rootfs")), ())
    log = LogTarget(f"{options.root}/logs/{options.id}.log")
    labels = {**config.get("annotations", {}), _BUNDLE: bundle}
    created = await runtime.create(options.id, with_user_namespace(config, options.id), rootfs, log, labels)
    if options.pid_file:
        await asyncio.to_thread(Path(options.pid_file).write_text, str(created.pid))


async def _find(runtime: NativeRuntime, container_id: str) -> ContainerState:
    for state in await runtime.list():
        if state.id == container_id:
            return state
    raise ContainerMissing(f"there is no container {container_id!r}")


async def _start(runtime: NativeRuntime, options: argparse.Namespace) -> None:
    await runtime.start(options.id)


async def _state(runtime: NativeRuntime, options: argparse.Namespace) -> None:
    print(json.dumps(state_object(await _find(runtime, options.id)), indent=2))


async def _kill(runtime: NativeRuntime, options: argparse.Namespace) -> None:
    state = await _find(runtime, options.id)
    if state.status == "stopped":
        raise RuntimeRejected(f"container {options.id} is stopped: there is nothing to signal")
    await runtime.kill(options.id, signal_number(options.signal))


async def _delete(runtime: NativeRuntime, options: argparse.Namespace) -> None:
    state = await _find(runtime, options.id)
    if state.status != "stopped" and not options.force:
        raise RuntimeRejected(f"container {options.id} is {state.status}: kill it first, or delete it with --force")
    await runtime.delete(options.id)


_OPERATIONS: Final[dict[str, Callable[[NativeRuntime, argparse.Namespace], Awaitable[None]]]] = {
    "create": _create,
    "start": _start,
    "state": _state,
    "kill": _kill,
    "delete": _delete,
}


async def run(options: argparse.Namespace) -> None:
    """Carry out one operation; the launcher is started when needed and ended when nothing is left for it."""
    root = options.root
    # The group's name tells roots apart: a launcher removes groups below its own that it does not know.
    parent = f"/argosy-oci-{zlib.crc32(root.encode()):08x}"
    runtime = NativeRuntime(f"{root}/launcher.sock", f"{root}/state", parent, subscribe=False)
    await runtime.open()
    try:
        await _OPERATIONS[options.operation](runtime, options)
    finally:
        if not await runtime.list():
            await runtime.stop_launcher()
        await runtime.close()


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    top = argparse.ArgumentParser(prog="argosy-oci", description="An OCI runtime with Argosy's native runtime inside.")
    top.add_argument("--root", default=_DEFAULT_ROOT, help="where state is kept (default: %(default)s)")
    operations = top.add_subparsers(dest="operation", required=True)
    create = operations.add_parser("create", help="set a container up; its program waits for `start`")
    create.add_argument("--bundle", "-b", default=".", help="directory with config.json and the root file system")
    create.add_argument("--pid-file", help="write the pid of the container's init here")
    create.add_argument("id")
    for name, text in (("start", "execute the program"), ("state", "print the state as JSON")):
        operations.add_parser(name, help=text).add_argument("id")
    kill = operations.add_parser("kill", help="send a signal to the container's init")
    kill.add_argument("id")
    kill.add_argument("signal", nargs="?", default="SIGTERM")
    delete = operations.add_parser("delete", help="remove a stopped container")
    delete.add_argument("--force", action="store_true", help="also one that still runs")
    delete.add_argument("id")
    return top


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = parser().parse_args(argv)
    options.root = os.path.abspath(options.root)
    if "bundle" in options:
        options.bundle = os.path.abspath(options.bundle)
    try:
        asyncio.run(run(options))
    except ContainerError as error:
        print(f"argosy-oci: {error.reason}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
