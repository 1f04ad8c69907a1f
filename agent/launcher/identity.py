"""Who a process in a container is: `name`, `uid`, `name:group` or `uid:gid` against the image's own files.

Pure functions over the bytes of /etc/passwd and /etc/group, because the image is not trusted: nothing of the C
library's name services may run on its files, and a malformed line is skipped, as the C library does.
Source: passwd(5), group(5); the rules for names and numbers are those of the OCI image-spec's `User`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: Ids above this do not fit the 65,536 ids of a container.
MAX_ID: Final = 65_535


class UnknownUser(Exception):
    """The image has no such user or group; the text says which."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Numeric ids inside the container, and the home directory ("/" when the image does not say)."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def resolve(user: str, passwd: bytes, group: bytes, extra_groups: tuple[int, ...] = ()) -> Identity:
    """Return who `user` is; raise UnknownUser when a name is not in the image's files or an id is out of range.

    A group given by the caller (`user:group`) replaces the user's supplementary groups, as in Docker.
    """
    user_part, _, group_part = user.partition(":")
    name, uid, gid, home = _user(user_part or "0", passwd)
    groups: tuple[int, ...] = ()
    if group_part:
        gid = _group(group_part, group)
    elif name is not None:
        groups = _memberships(name, group)
    return Identity(uid, gid, tuple(sorted({gid, *groups, *extra_groups})), home)


def _user(wanted: str, passwd: bytes) -> tuple[bytes | None, int, int, str]:
    for fields in _records(passwd, 6):
        if fields[0] == wanted.encode() or (wanted.isdecimal() and fields[2] == wanted.encode()):
            if not (fields[2].isdigit() and fields[3].isdigit()):
                continue
            home = fields[5].decode(errors="replace") or "/"
            return fields[0], _in_range(int(fields[2])), _in_range(int(fields[3])), home
    if wanted.isdecimal():
        return None, _in_range(int(wanted)), 0, "/"
    raise UnknownUser(f"user {wanted!r} is not in the image's /etc/passwd")


def _group(wanted: str, group: bytes) -> int:
    for fields in _records(group, 3):
        if fields[0] == wanted.encode() and fields[2].isdigit():
            return _in_range(int(fields[2]))
    if wanted.isdecimal():
        return _in_range(int(wanted))
    raise UnknownUser(f"group {wanted!r} is not in the image's /etc/group")


def _memberships(name: bytes, group: bytes) -> tuple[int, ...]:
    return tuple(
        _in_range(int(fields[2]))
        for fields in _records(group, 4)
        if fields[2].isdigit() and name in fields[3].split(b",")
    )


def _records(text: bytes, at_least: int) -> list[list[bytes]]:
    lines = (line.split(b":") for line in text.split(b"\n") if line and not line.startswith(b"#"))
    return [fields for fields in lines if len(fields) >= at_least]


def _in_range(number: int) -> int:
    if number > MAX_ID:
        raise UnknownUser(f"id {number} is outside the container's ids 0 to {MAX_ID}")
    return number
