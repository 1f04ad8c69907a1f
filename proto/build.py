"""Generate the Python modules of the `.proto` files beside this one.

Runs as hatchling's build hook (`pip install`, `pip install -e`), as `python proto/build.py`, and with `--check`
in `make check`, which writes nothing and fails when the modules there are not what the `.proto` files say. The
modules are generated, never committed: they always match the installed protobuf runtime.
"""

import contextlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

PROTO_DIR = Path(__file__).resolve().parent
GENERATED = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi")


def generate(root: Path) -> None:
    """Run protoc with the Python, gRPC and type-stub plug-ins over every `.proto` file, into `root/argosy/proto`.

    Raises SystemExit when protoc fails, after its own message.
    """
    from grpc_tools import protoc

    sources = sorted(p.relative_to(PROTO_DIR) for p in PROTO_DIR.rglob("*.proto"))
    if not sources:
        return
    well_known = str(Path(protoc.__file__).parent / "_proto")
    args = [
        "protoc",
        f"-Iargosy/proto={PROTO_DIR}",
        f"-I{well_known}",
        f"--python_out={root}",
        f"--grpc_python_out={root}",
        f"--mypy_out=quiet:{root}",
        f"--mypy_grpc_out=quiet:{root}",
        *(f"argosy/proto/{s}" for s in sources),
    ]
    # protoc finds its plug-ins on PATH: those beside the running interpreter come first.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    if protoc.main(args) != 0:
        raise SystemExit("proto/build.py: protoc failed; its message is above")


def modules_in(folder: Path) -> dict[Path, bytes]:
    """Return the generated modules beneath `folder`: path relative to it to content."""
    return {p.relative_to(folder): p.read_bytes() for pattern in GENERATED for p in folder.rglob(pattern)}


def differences() -> tuple[dict[Path, bytes], set[Path]]:
    """Return what must be written (missing or out of date) and what must go (has no `.proto` file any more)."""
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        wanted = modules_in(Path(scratch, "argosy", "proto"))
    present = modules_in(PROTO_DIR)
    return {p: text for p, text in wanted.items() if present.get(p) != text}, present.keys() - wanted.keys()


def update() -> None:
    """Bring the generated modules up to date; a module is replaced whole, and only when it differs."""
    changed, orphans = differences()
    for path, text in changed.items():
        fresh = PROTO_DIR / path.with_suffix(f"{path.suffix}.new")
        fresh.write_bytes(text)
        fresh.replace(PROTO_DIR / path)
    for path in orphans:
        (PROTO_DIR / path).unlink()


def check() -> None:
    """Exit with a list of what is stale, if anything is."""
    changed, orphans = differences()
    lines = sorted([f"{p}: missing or out of date" for p in changed] + [f"{p}: has no .proto file" for p in orphans])
    if lines:
        raise SystemExit("generated code is stale; `python proto/build.py` makes it anew:\n" + "\n".join(lines))


with contextlib.suppress(ImportError):
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface

    class ProtoBuildHook(BuildHookInterface):  # type: ignore[type-arg]
        """Hatchling's entry: generate before the files of the wheel are collected."""

        PLUGIN_NAME = "custom"

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            """Generate; `version` and `build_data` are hatchling's and not needed."""
            update()


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        check()
    else:
        update()
