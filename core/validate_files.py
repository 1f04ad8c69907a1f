"""Validation of the configs and secrets that a container gets as files."""

import posixpath
from collections.abc import Iterable
from typing import Final

from argosy.core.files import MAX_FILES, file_name_problem, kind_name, path_of
from argosy.core.problem import Problems, between, said, when
from argosy.core.service import FileRef, Tmpfs

HIGHEST_ID: Final = 65535
"""Each task has a range of 65,536 user and group ids."""
HIGHEST_MODE: Final = 0o7777
_KERNEL: Final = ("/proc", "/sys", "/dev")


def file_problems(files: tuple[FileRef, ...], tmpfs: Iterable[Tmpfs], where: str) -> Problems:
    """Yield what is wrong with a container's files; `where` is the path of their field."""
    yield from when(
        len(files) > MAX_FILES,
        where,
        f"{len(files)} configs and secrets are too many: a container gets at most {MAX_FILES}",
    )
    taken: dict[str, str] = {posixpath.normpath(m.target): "a tmpfs" for m in tmpfs if m.target}
    for i, ref in enumerate(files):
        path, what = f"{where}[{i}]", f"{kind_name(secret=ref.secret)} {ref.name}"
        yield from said(f"{path}.name", file_name_problem(ref.name))
        yield from between(f"{path}.uid", ref.uid, 0, HIGHEST_ID, "the uid")
        yield from between(f"{path}.gid", ref.gid, 0, HIGHEST_ID, "the gid")
        yield from when(not 0 <= ref.mode <= HIGHEST_MODE, f"{path}.mode", "the mode has to be from 0 to 7777 in octal")
        problem = _target(ref)
        yield from said(f"{path}.target", problem)
        if problem is None:
            target = posixpath.normpath(path_of(ref))
            yield from when(
                target in taken,
                f"{path}.target",
                f"{target} is given to {what} and to {taken.get(target)}: choose another target for one",
            )
            for other, holder in taken.items():
                yield from when(
                    holder != "a tmpfs" and (_is_below(target, other) or _is_below(other, target)),
                    f"{path}.target",
                    f"{target} cannot be beside {other}: one of the two would have to be a directory",
                )
            taken.setdefault(target, what)


def _target(ref: FileRef) -> str | None:
    target = ref.target
    if any(c in target for c in "\n\0"):
        return "the target cannot hold line ends or zero bytes"
    if ".." in target.split("/"):
        return f'the target "{target}" cannot hold "..": write the path from the root'
    normal = posixpath.normpath(path_of(ref))
    if target.endswith("/") or normal in ("/", "//", "/run/secrets"):
        return f'the target "{target}" is a directory: add the file\'s name, such as "{target.rstrip("/")}/{ref.name}"'
    if any(normal == own or _is_below(normal, own) for own in _KERNEL):
        return f'the target "{target}" lies in a file system of the kernel: choose another place'
    return None


def _is_below(path: str, directory: str) -> bool:
    return path.startswith(directory + "/")
