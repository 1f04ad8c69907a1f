"""A directory tree that is written by strangers' instructions: every path is resolved beneath its root by the kernel.

A layer may say "make `a` a link to /, then write `a/etc/passwd`". Nothing here ever walks a path in user space: parent
directories are opened with openat2(2) and RESOLVE_IN_ROOT, as if the process were chrooted, so that links lead nowhere
outside, and the last component is created, replaced or removed relative to that descriptor without following it.
Used by the unpacking worker only (one thread).
"""

import ctypes
import errno
import os
from pathlib import Path
from typing import Final

from argosy.core.errors import RejectedError

_SYS_OPENAT2: Final = 437
"""The same on all architectures that were added or renumbered since 5.6 (asm-generic and x86)."""
_RESOLVE_NO_MAGICLINKS: Final = 0x02
_RESOLVE_IN_ROOT: Final = 0x10
_O_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
DEFAULT_DIRECTORY_MODE: Final = 0o755


class _OpenHow(ctypes.Structure):
    """struct open_how of openat2(2)."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_libc = ctypes.CDLL(None, use_errno=True)


def open_in_root(root: int, path: str, flags: int) -> int:
    """Open `path` with the directory `root` as its file system's root; OSError as open(2)."""
    how = _OpenHow(flags | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    while True:
        fd: int = _libc.syscall(
            _SYS_OPENAT2, root, ctypes.c_char_p(os.fsencode(path)), ctypes.byref(how), ctypes.c_size_t(24)
        )
        if fd >= 0:
            return fd
        code = ctypes.get_errno()
        # The kernel asks for another try when a rename or mount elsewhere raced with resolving "..".
        if code not in (errno.EAGAIN, errno.EINTR):
            raise OSError(code, os.strerror(code), path)


class UnsafeError(RejectedError):
    """An entry of a layer wants what no layer may have."""


def split(name: str) -> tuple[str, str]:
    """Return the parent path and last component of an archive member's name; ("", "") for the root itself.

    A leading "/" means the root of the image, as every other tool has it. UnsafeError for "..".
    """
    if name.startswith(("./", "/")) or name.endswith("/") or "//" in name or "/." in name or name in (".", ".."):
        parts = [p for p in name.split("/") if p not in ("", ".")]
        if ".." in parts:
            raise UnsafeError(f"the entry {name!r} leads out of its directory with '..'")
        return "/".join(parts[:-1]), parts[-1] if parts else ""
    if name.startswith("../"):
        raise UnsafeError(f"the entry {name!r} leads out of its directory with '..'")
    parent, _, last = name.rpartition("/")
    return parent, last


class Tree:
    """Writes below the directory `root`. Directories that no entry named are made 0755 root and kept in `implied`.

    A directory that is replaced is moved to the directory `trash` whole: layers can nest so deep that walking into
    them costs more than a process has (names of 4 KiB, and links to go on from).
    """

    def __init__(self, root: int, trash: int) -> None:
        self.root = root
        self.implied: set[str] = set()
        self._trash = trash
        self._thrown_away = 0
        self._parent_path: str | None = None
        self._parent_fd = -1

    def close(self) -> None:
        """Let go of the directory that was used last."""
        if self._parent_fd >= 0:
            os.close(self._parent_fd)
        self._parent_path, self._parent_fd = None, -1

    def parent(self, path: str) -> int:
        """Return a descriptor of a directory, made with its parents when missing; valid until the next call here.

        UnsafeError when something else than a directory is in the way.
        """
        if path == self._parent_path:
            return self._parent_fd
        try:
            fd = open_in_root(self.root, path or ".", _O_DIRECTORY)
        except FileNotFoundError:
            fd = self._make(path)
        except OSError as error:
            raise _in_the_way(path, error) from error
        self.close()
        self._parent_path, self._parent_fd = path, fd
        return fd

    def existing(self, path: str) -> int:
        """Return a new descriptor of a directory that is there; FileNotFoundError or UnsafeError otherwise."""
        try:
            return open_in_root(self.root, path or ".", _O_DIRECTORY)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _in_the_way(path, error) from error

    def clear(self, parent: int, name: str) -> None:
        """Remove what is at `name`, whatever it is, or nothing."""
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            return
        except IsADirectoryError:
            self._thrown_away += 1
            os.rename(name, str(self._thrown_away), src_dir_fd=parent, dst_dir_fd=self._trash)
        # The directory used last stays open for the caller, but may be reached by another way, or none, from now on.
        self._parent_path = None

    def _make(self, path: str) -> int:
        """Make a directory and what is missing above it; return its descriptor."""
        parts = path.split("/")
        there, missing = 0, len(parts)
        fd = self.existing("")
        while missing - there > 1:  # by halves: a path may have 2,000 parts
            middle = (there + missing) // 2
            try:
                deeper = self.existing("/".join(parts[:middle]))
            except FileNotFoundError:
                missing = middle
            else:
                os.close(fd)
                fd, there = deeper, middle
        for count in range(there, len(parts)):
            above, name = fd, parts[count]
            try:
                os.mkdir(name, DEFAULT_DIRECTORY_MODE, dir_fd=above)
                os.chmod(name, DEFAULT_DIRECTORY_MODE, dir_fd=above)
                fd = os.open(name, _O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
            except OSError as error:
                raise _in_the_way("/".join(parts[: count + 1]), error) from error
            finally:
                os.close(above)
            self.implied.add("/".join(parts[: count + 1]))
        return fd


def _in_the_way(path: str, error: OSError) -> Exception:
    if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG):
        return UnsafeError(f"the directory {path!r} cannot be made: {error.strerror}")
    return error


def remove_tree(directory: Path, name: str) -> None:
    """Delete `directory/name`, however deep it nests: directories found inside are first moved up, next to it.

    Takes as many descriptors and as much stack for 100,000 levels as for one. What a crash leaves is still in
    `directory`, which must hold nothing else that matters.
    """
    top = os.open(directory, _O_DIRECTORY)
    try:
        waiting, moved = [name], 0
        while waiting:
            current = waiting.pop()
            try:
                fd = os.open(current, _O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
            except NotADirectoryError:
                os.unlink(current, dir_fd=top)
                continue
            except FileNotFoundError:
                continue
            try:
                with os.scandir(fd) as entries:
                    inside = [(e.name, e.is_dir(follow_symlinks=False)) for e in entries]
                for entry, is_directory in inside:
                    if is_directory:
                        moved += 1
                        up = f"{name}.{moved}"
                        os.rename(entry, up, src_dir_fd=fd, dst_dir_fd=top)
                        waiting.append(up)
                    else:
                        os.unlink(entry, dir_fd=fd)
            finally:
                os.close(fd)
            os.rmdir(current, dir_fd=top)
    finally:
        os.close(top)


def flush_file_system(path: Path | str) -> None:
    """Bring all that was written below `path` to disk. See syncfs(2)."""
    fd = os.open(path, _O_DIRECTORY)
    try:
        if _libc.syncfs(fd) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(path))
    finally:
        os.close(fd)
