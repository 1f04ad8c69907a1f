"""Configs and secrets of a Compose file: definitions, references, binds, and what is wrong with them."""

from pathlib import Path

import pytest

from argosy.cli.compose.problems import ComposeError
from argosy.cli.compose.stack import Input, load_stack
from argosy.core.meta import STACK_LABEL
from argosy.core.service import FileRef
from tests.unit.compose.files import Files

FILE = """
services:
  web:
    image: web
    configs: [conf, {source: other, target: /etc/x, uid: "7", gid: "8", mode: 0640}]
    secrets: [pass, {source: token, target: t}]
configs:
  conf: {file: conf.txt, labels: [a=b]}
  other: {content: "v=${V}", name: plain}
  unused: {content: x}
secrets:
  pass: {environment: PASS}
  token: {external: true}
"""


def test_a_file_with_all_forms(files: Files) -> None:
    files.write("conf.txt", "text\n")
    stack = files.load(FILE, env={"V": "1", "PASS": "hidden"})
    assert stack.services[0].task.container.files == (
        FileRef(name="shop_conf", target="conf"),
        FileRef(name="plain", target="/etc/x", uid=7, gid=8, mode=0o640),
        FileRef(secret=True, name="shop_pass", target="pass"),
        FileRef(secret=True, name="token", target="t"),
    )
    assert [(c.name, c.data, dict(c.labels)) for c in stack.configs] == [
        ("shop_conf", b"text\n", {"a": "b", STACK_LABEL: "shop"}),
        ("plain", b"v=1", {STACK_LABEL: "shop"}),
    ]
    assert [(s.name, s.data) for s in stack.secrets] == [("shop_pass", b"hidden")]
    assert [(f.secret, f.name) for f in stack.external_files] == [(True, "token")]
    assert "configs.unused: no service uses it" in "\n".join(map(str, stack.notices))
    assert "hidden" not in repr(stack)


def test_a_file_may_be_no_text(files: Files) -> None:
    (files.directory / "b").write_bytes(b"\xff\0")
    stack = files.load("services: {w: {image: i, configs: [b]}}\nconfigs: {b: {file: ./b}}")
    assert stack.configs[0].data == b"\xff\0"


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ("{}", "the config does not say what it holds; write one of file, environment, content, or 'external: true'"),
        ("{content: a, environment: B}", "says where from more than once"),
        ("{file: missing.txt}", "cannot read"),
        ("{environment: NOT_SET}", "the variable NOT_SET is not set here"),
        ("{external: true, file: x}", "'file' has no effect on what is external"),
        ("{content: a, name: 'a b'}", '"a b" is not a name'),
        ("{content: a, template_driver: golang}", "what a file holds is not filled in"),
        ("{file: big}", "1,024,001 bytes, and a config at most"),
    ],
)
def test_a_config_that_cannot_be(files: Files, config: str, what: str) -> None:
    (files.directory / "big").write_bytes(b"x" * 1_024_001)
    said = files.problems(f"services: {{w: {{image: i, configs: [c]}}}}\nconfigs: {{c: {config}}}")
    assert len(said) == 1
    assert what in said[0]


@pytest.mark.parametrize(
    ("reference", "what"),
    [
        ("[d]", "there is no config 'd' in the file; define it at the top level: 'configs: {d: …}'"),
        ("[{target: x}]", "the entry names no config; write 'source: NAME'"),
        ("[{source: c, mode: rw}]", "'rw' is no mode; write it in octal, like 0440"),
        ("[{source: c, mode: '0'}]", "'0' is no mode"),
        ("[{source: c, uid: root}]", "uid"),
        ("[{source: c, colour: red}]", "colour"),
        ("[c, {source: c, target: /c}]", "/c is given to"),
        ("[{source: c, target: ../c}]", 'cannot hold ".."'),
    ],
)
def test_a_reference_that_cannot_be(files: Files, reference: str, what: str) -> None:
    said = files.problems(f"services: {{w: {{image: i, configs: {reference}}}}}\nconfigs: {{c: {{content: a}}}}")
    assert any(what in one for one in said), said


def test_an_empty_secret_is_refused(files: Files) -> None:
    text = "services: {w: {image: i, secrets: [s]}}\nsecrets: {s: {environment: S}}"
    with pytest.raises(ComposeError, match="it is empty"):
        files.load(text, env={"S": ""})


# ---------------------------------------------------------------- binds


def shipped(files: Files, volumes: str):
    path = files.write("compose.yaml", f"services: {{web: {{image: i, volumes: {volumes}}}}}")
    return load_stack(Input([path], "shop", ship_files=True), {})


@pytest.mark.parametrize("form", ["./a.conf:/etc/a.conf:ro", "{type: bind, source: a.conf, target: /etc/a.conf}"])
def test_a_bind_of_a_file_is_refused_with_an_offer_and_shipped_when_asked(files: Files, form: str) -> None:
    files.write("a.conf", "text")
    said = files.service_problems(f"volumes: [{form if form[0] == '{' else repr(form)}]")
    assert len(said) == 1
    assert "--ship-files" in said[0]
    stack = shipped(files, f"[{form if form[0] == '{' else repr(form)}]")
    (ref,) = stack.services[0].task.container.files
    assert (ref.name, ref.target, stack.configs[0].data) == ("shop_web-etc-a.conf", "/etc/a.conf", b"text")
    assert bool(stack.notices) == (form[0] == "{")  # not said to be read-only


def test_a_file_beside_a_compose_file_that_is_named_without_a_directory(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write("a.conf", "text")
    files.write("compose.yaml", "services: {web: {image: i, volumes: ['./a.conf:/a.conf']}}")
    monkeypatch.chdir(files.directory)
    with pytest.raises(ComposeError, match="--ship-files"):
        load_stack(Input([Path("compose.yaml")], "shop"), {})
    stack = load_stack(Input([Path("compose.yaml")], "shop", ship_files=True), {})
    assert stack.configs[0].data == b"text"


@pytest.mark.parametrize(
    ("source", "what"), [("./dir", "is a directory"), ("./missing", "is not there"), ("/dev/null", "is no file")]
)
def test_only_files_are_shipped(files: Files, source: str, what: str) -> None:
    (files.directory / "dir").mkdir()
    with pytest.raises(ComposeError, match=what):
        shipped(files, f"['{source}:/x']")
