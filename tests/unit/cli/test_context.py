"""Which cluster is talked to."""

from pathlib import Path

import pytest

from argosy.cli import context as contexts
from argosy.cli.context import Context, Target, parse_hosts, resolve
from argosy.cli.errors import InvalidInputError


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("unix:///a/b", ("unix:///a/b",)),
        ("/a/b", ("unix:///a/b",)),
        ("h:7070", ("h:7070",)),
        ("tcp://10.0.0.1:7070", ("10.0.0.1:7070",)),
        ("[::1]:7070", ("[::1]:7070",)),
        ("h1:1, h2:2,", ("h1:1", "h2:2")),
    ],
)
def test_hosts(text: str, hosts: tuple[str, ...]) -> None:
    assert parse_hosts(text) == hosts


@pytest.mark.parametrize("text", ["", "h", "h:", ":1", "h:x", "h:70000", "unix://", "http://h:1", ","])
def test_what_is_no_host(text: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_hosts(text)


def test_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contexts, "DEV_ROOT", tmp_path / "dev")
    env = {"ARGOSY_CONFIG": str(tmp_path)}
    assert resolve("", "", "", env) == Target((contexts.SYSTEM_HOST,), "default")
    (tmp_path / "dev" / "default").mkdir(parents=True)
    socket = tmp_path / "dev" / "default" / "controller.sock"
    socket.touch()
    assert resolve("", "", "", env).hosts == (f"unix://{socket}",)
    (socket.parent / "controller-2.sock").touch()
    assert resolve("", "", "", env).hosts == (f"unix://{socket}", f"unix://{socket.parent}/controller-2.sock")
    contexts.save(tmp_path, Context("used", "used:1", "p1"))
    contexts.save(tmp_path, Context("named", "named:1"))
    contexts.use(tmp_path, "used")
    assert resolve("", "", "", env) == Target(("used:1",), "p1")
    assert resolve("", "", "p2", env) == Target(("used:1",), "p2")
    assert resolve("", "", "", {**env, "ARGOSY_CONTEXT": "named"}).hosts == ("named:1",)
    both = {**env, "ARGOSY_CONTEXT": "named", "ARGOSY_HOST": "env:1", "ARGOSY_PROJECT": "p3"}
    assert resolve("", "", "", both) == Target(("env:1",), "p3")
    assert resolve("", "used", "", both).hosts == ("used:1",)
    assert resolve("opt:1", "used", "", both).hosts == ("opt:1",)
    assert resolve("", "dev/x", "", env).hosts == (f"unix://{tmp_path}/dev/x/controller.sock",)


def test_an_unknown_or_broken_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contexts, "DEV_ROOT", tmp_path / "dev")
    (tmp_path / "dev" / "mine").mkdir(parents=True)
    (tmp_path / "dev" / "mine" / "controller.sock").touch()
    contexts.save(tmp_path, Context("one", "h:1"))
    with pytest.raises(InvalidInputError, match="no context 'two' \\(known: one, dev/mine\\)"):
        contexts.load(tmp_path, "two")
    with pytest.raises(InvalidInputError, match="cannot be a context's name"):
        contexts.load(tmp_path, "../x")
    (tmp_path / "contexts" / "one.json").write_text("{")
    with pytest.raises(InvalidInputError, match="is broken"):
        contexts.load(tmp_path, "one")
    assert contexts.load_all(tmp_path) == []


def test_removing_the_one_in_use(tmp_path: Path) -> None:
    contexts.save(tmp_path, Context("one", "h:1"))
    contexts.use(tmp_path, "one")
    contexts.remove(tmp_path, "one")
    assert contexts.current(tmp_path) == ""


def test_the_dev_cluster_that_is_meant(tmp_path: Path) -> None:
    environ = {"ARGOSY_CONFIG": str(tmp_path)}
    assert contexts.dev_name("", environ) == "default"
    assert contexts.dev_name("dev/other", environ) == "other"
    assert contexts.dev_name("", environ | {"ARGOSY_CONTEXT": "dev/other"}) == "other"
    assert contexts.dev_name("", environ | {"ARGOSY_CONTEXT": "far"}) == "default"
    with pytest.raises(InvalidInputError, match="no dev cluster"):
        contexts.dev_name("far", environ)
