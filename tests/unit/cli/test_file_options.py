"""Options that give services configs and secrets."""

import click
import pytest

from argosy.cli.commands.file_options import add_files, parse_file, remove_files
from argosy.core.service import FileRef
from argosy.proto.argosy.v1 import types_pb2 as types


@pytest.mark.parametrize(
    ("text", "secret", "reference"),
    [
        ("web.conf", False, FileRef(name="web.conf", target="web.conf")),
        ("key", True, FileRef(secret=True, name="key", target="key")),
        ("source=web,target=/x,uid=33,gid=34,mode=0440", False, FileRef(False, "web", "", "/x", 33, 34, 0o440)),
        ("src=key,mode=400", True, FileRef(True, "key", "", "key", mode=0o400)),
    ],
)  # fmt: skip
def test_files_are_named_as_docker_names_them(text: str, secret: bool, reference: FileRef) -> None:
    assert parse_file(text, secret=secret) == reference


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("source=web,where=/etc", "'where=/etc' in --config: write NAME, or source=…,target=…"),
        ("target=/etc/web", "--config target=/etc/web: source=NAME is missing"),
        ("source=web,mode=9", "'9' in --config: mode is an octal number such as 0440"),
        ("source=web,uid=www-data", "'www-data' in --config: uid is a number"),
    ],
)
def test_what_cannot_be_read_is_said(text: str, said: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        parse_file(text, secret=False)
    assert caught.value.message.startswith(said)


def test_adding_replaces_and_removing_is_exact() -> None:
    """What is added takes the place of what has its target; a file may be at several."""
    container = types.ContainerSpec()
    add_files(container, ["web", "source=web,target=/etc/web", "source=new,target=/etc/web", "web"], secret=False)
    add_files(container, ["web"], secret=True)
    found = [(f.secret, f.name, f.target) for f in container.files]
    assert found == [(False, "new", "/etc/web"), (False, "web", "web"), (True, "web", "web")]
    remove_files(container, ["new"], secret=False)
    remove_files(container, ["web"], secret=False)
    assert [f.secret for f in container.files] == [True]
    with pytest.raises(click.UsageError, match="the service has no config 'web' to remove"):
        remove_files(container, ["web"], secret=False)
