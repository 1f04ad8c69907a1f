"""Configs and secrets in themselves: names, sizes, targets."""

import pytest

from argosy.core.files import (
    CONFIG_LIMIT_BYTES,
    SECRET_LIMIT_BYTES,
    NewFile,
    file_name_problem,
    path_of,
    size_problem,
)
from argosy.core.service import FileRef, Tmpfs
from argosy.core.validate_files import file_problems


@pytest.mark.parametrize("name", ["a", "app.conf", "shop_app.conf", "A-1", "x" * 128])
def test_names(name):
    assert file_name_problem(name) is None


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-a", "a ", "é", "a\n", "x" * 129, ".hidden"])
def test_no_names(name):
    assert file_name_problem(name)


@pytest.mark.parametrize(
    ("size", "secret", "good"),
    [
        (0, False, True),
        (CONFIG_LIMIT_BYTES, False, True),
        (CONFIG_LIMIT_BYTES + 1, False, False),
        (0, True, False),
        (1, True, True),
        (SECRET_LIMIT_BYTES, True, True),
        (SECRET_LIMIT_BYTES + 1, True, False),
    ],
)
def test_sizes(size, secret, good):
    assert (size_problem(size, secret=secret) is None) == good


def test_a_refused_size_is_said_with_the_limit():
    assert "1,024,001 bytes, and a config at most 1,024,000" in (size_problem(1_024_001, secret=False) or "")


def test_what_a_new_file_holds_is_not_shown():
    assert "hidden" not in repr(NewFile("a", {}, b"hidden"))


@pytest.mark.parametrize(
    ("ref", "path"),
    [
        (FileRef(name="c"), "/c"),
        (FileRef(name="c", target="etc/c"), "/etc/c"),
        (FileRef(name="c", target="/etc/c"), "/etc/c"),
        (FileRef(secret=True, name="s"), "/run/secrets/s"),
        (FileRef(secret=True, name="s", target="t"), "/run/secrets/t"),
        (FileRef(secret=True, name="s", target="/t"), "/t"),
    ],
)
def test_where_files_stand(ref, path):
    assert path_of(ref) == path
    assert not list(file_problems((ref,), (), "files"))


def _said(*refs, tmpfs=()):
    return [f"{p.where}: {p.what}" for p in file_problems(refs, tmpfs, "files")]


@pytest.mark.parametrize(
    ("refs", "what"),
    [
        ((FileRef(name="a", target="/x"), FileRef(name="b", target="/x")), "files[1].target: /x is given to config b"),
        ((FileRef(name="a", target="/x"), FileRef(name="b", target="//x/")), "files[1].target"),
        ((FileRef(name="a", target="/x"), FileRef(True, "b", "", "/x")), "secret b and to config a"),
        ((FileRef(name="a", target="/x"), FileRef(name="b", target="/x/y")), "one of the two would have to be"),
        ((FileRef(name="a", target="../x"),), 'cannot hold ".."'),
        ((FileRef(name="a", target="/a/../../x"),), 'cannot hold ".."'),
        ((FileRef(name="a", target="/etc/"),), "is a directory"),
        ((FileRef(name="a", target="/"),), "is a directory"),
        ((FileRef(name="a", target="/proc/x"),), "file system of the kernel"),
        ((FileRef(name="a", target="/x\0y"),), "zero bytes"),
        ((FileRef(name="a b"),), "files[0].name"),
        ((FileRef(name="a", uid=65536),), "files[0].uid"),
        ((FileRef(name="a", gid=-1),), "files[0].gid"),
        ((FileRef(name="a", mode=0o10000),), "files[0].mode"),
        (tuple(FileRef(name=f"f{i}") for i in range(65)), "65 configs and secrets are too many"),
    ],
)
def test_what_is_wrong_with_files(refs, what):
    said = _said(*refs)
    assert len(said) == 1
    assert what in said[0]


def test_a_file_may_lie_in_a_tmpfs_but_not_stand_for_it():
    assert not _said(FileRef(name="a", target="/run/a"), tmpfs=(Tmpfs("/run"),))
    assert _said(FileRef(name="a", target="/run"), tmpfs=(Tmpfs("/run"),))
