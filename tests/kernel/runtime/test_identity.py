"""Users of an image, from its own files and from hostile ones. Pure."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.agent.launcher.identity import Identity, UnknownUser, resolve

PASSWD = b"""root:x:0:0:root:/root:/bin/sh
# a comment:x:1:1::/:
broken line
short:x:5
bad:x:five:5::/bad:/bin/sh
ann:x:1001:1002:Ann:/home/ann:/bin/sh
1003:x:2000:2000::/numeric-name:/bin/sh
empty:x:7:7:::
"""
GROUP = b"root:x:0:\nann:x:1002:\nstaff:x:50:bob,ann\nwheel:x:10:root,ann\nbad:x:x:ann\n"


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", Identity(0, 0, (0, 10), "/root")),
        ("root", Identity(0, 0, (0, 10), "/root")),
        ("ann", Identity(1001, 1002, (10, 50, 1002), "/home/ann")),
        ("1001", Identity(1001, 1002, (10, 50, 1002), "/home/ann")),
        ("ann:staff", Identity(1001, 50, (50,), "/home/ann")),
        ("ann:77", Identity(1001, 77, (77,), "/home/ann")),
        ("5555", Identity(5555, 0, (0,), "/")),
        ("5555:6666", Identity(5555, 6666, (6666,), "/")),
        (":staff", Identity(0, 50, (50,), "/root")),
        ("1003", Identity(2000, 2000, (2000,), "/numeric-name")),
        ("empty", Identity(7, 7, (7,), "/")),
    ],
)
def test_who(user: str, expected: Identity) -> None:
    assert resolve(user, PASSWD, GROUP) == expected


def test_extra_groups_are_added() -> None:
    assert resolve("ann", PASSWD, GROUP, (9,)).groups == (9, 10, 50, 1002)


@pytest.mark.parametrize("user", ["bob", "bad", "short", "ann:nobody", "65536", "ann:70000"])
def test_who_is_nobody(user: str) -> None:
    with pytest.raises(UnknownUser, match=r"is not in the image's|outside the container's ids"):
        resolve(user, PASSWD, GROUP)


@given(st.text(max_size=20).filter(lambda text: "\0" not in text), st.binary(max_size=200), st.binary(max_size=200))
def test_hostile_files_give_ids_in_range_or_a_reason(user: str, passwd: bytes, group: bytes) -> None:
    try:
        found = resolve(user, passwd, group)
    except UnknownUser:
        return
    assert all(0 <= number <= 65_535 for number in (found.uid, found.gid, *found.groups))
