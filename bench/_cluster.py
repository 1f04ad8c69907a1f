"""The dev cluster that a benchmark measures: brought up for it, with the demo's image, and gone afterwards."""

import compileall
import json
import subprocess
from pathlib import Path
from types import TracebackType

PROJECT = Path(__file__).resolve().parent.parent
ARGOSY = str(PROJECT / ".venv/bin/argosy")
IMAGE = "bench:1"


class DevCluster:
    """A context: a fresh dev cluster with `IMAGE`.

    Argosy is byte-compiled first, as pip does when it installs: a checkout where Python may not write
    (PYTHONDONTWRITEBYTECODE) would be measured compiling itself in every command.
    """

    def __init__(self, name: str, hosts: int = 3, *, keep: bool = False) -> None:
        self._name = name
        self._hosts = hosts
        self._keep = keep

    def __enter__(self) -> "DevCluster":
        compileall.compile_dir(PROJECT / "src/argosy", quiet=2)
        self.argosy("dev", "down", "--name", self._name)
        try:
            print(self.argosy("dev", "up", "--name", self._name, "--nodes", str(self._hosts)).splitlines()[0])
            tar = subprocess.run([PROJECT / "deploy/demo/image.sh", "1"], stdout=subprocess.PIPE, check=True).stdout
            self.argosy("image", "import", IMAGE, "-", data=tar)
        except BaseException:
            self._down()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._down()

    def _down(self) -> None:
        if not self._keep:
            self.argosy("dev", "down", "--name", self._name)

    def command(self, *args: str) -> list[str]:
        """Return the command line of a command against the cluster."""
        return [ARGOSY, "--context", f"dev/{self._name}", *args]

    def argosy(self, *args: str, data: bytes = b"") -> str:
        """Run a command, with `data` as its input; return its output."""
        done = subprocess.run(self.command(*args), input=data, capture_output=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"argosy {' '.join(args)}: {(done.stderr + done.stdout).decode()}")
        return done.stdout.decode()

    def spawn(self, *args: str) -> "subprocess.Popen[bytes]":
        """Start a command without waiting for it."""
        return subprocess.Popen(self.command(*args), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def holders(self) -> dict[str, int]:
        """Return the process that holds each host's namespaces."""
        status = json.loads(Path("/run/argosy/dev", self._name, "processes.json").read_text())
        return {name: pid for name, pid in status["holders"].items() if name != "switch"}
