import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from argosy.cli.main import run
from argosy.cli.progress import goals
from tests.unit.cli.fake_cluster import FakeCluster, serving


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def host(cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of the served cluster, which the commands use."""
    monkeypatch.setenv("ARGOSY_CONFIG", str(tmp_path / "config"))
    for name in ("ARGOSY_CONTEXT", "ARGOSY_PROJECT", "COMPOSE_FILE", "COMPOSE_PROJECT_NAME", "COMPOSE_PROFILES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(goals, "STEADY_S", 0.2)
    with serving(cluster, tmp_path / "s") as address:
        monkeypatch.setenv("ARGOSY_HOST", address)
        yield address


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command did."""

    status: int
    out: str
    err: str


@pytest.fixture
def argosy(host: str, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run a command against the cluster."""

    def call(*arguments: str) -> Ran:
        capsys.readouterr()
        status = run(list(arguments))
        out, err = capsys.readouterr()
        return Ran(status, out, err)

    return call


@pytest.fixture
def compose(tmp_path: Path) -> Callable[[str], str]:
    """Write a Compose file; return its path."""

    def write(text: str) -> str:
        path = tmp_path / "compose.yaml"
        path.write_text(textwrap.dedent(text))
        return str(path)

    return write
