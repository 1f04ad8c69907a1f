"""Puts the entries of one layer on disk, in the form in which overlayfs shows them.

What differs from a plain tar: OCI's whiteouts (image-spec, layer.md) become overlayfs's (character device 0/0, and an
xattr that makes a directory opaque); device nodes are left out, since a container in a user namespace cannot use them
and the runtime makes its own /dev; owners are kept as they are, since containers see layers through idmapped mounts.
"""

import errno
import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from argosy.agent.images.tree import Tree, UnsafeError, open_in_root, split
from argosy.core.errors import ExhaustedError, RejectedError
from argosy.core.oci.tar_format import Entry, EntryKind
from argosy.core.units import human_bytes

WHITEOUT_PREFIX: Final = ".wh."
OPAQUE_MARKER: Final = ".wh..wh..opq"
_AUFS_PREFIX: Final = ".wh..wh."
OPAQUE_XATTRS: Final = ("user.overlay.opaque", "trusted.overlay.opaque")
"""The first counts for overlays that a user namespace mounts (mount option userxattr), the second for all others."""
MAX_ID: Final = 65535
"""Containers have 65,536 ids; an owner above them could be nobody's, so files of such owners become NOBODY's."""
NOBODY: Final = 65534


@dataclass(frozen=True, slots=True)
class Limits:
    """What one layer may take. Bytes are those of the unpacked tar."""

    max_unpacked_bytes: int = 32 * 2**30
    max_entries: int = 2_000_000
    min_free_bytes: int = 256 * 2**20


class TooBigError(RejectedError):
    """A layer is above a limit of this host."""


class LayerWriter:
    """Applies entries in the order of the archive; `finish` must be called after the last."""

    def __init__(self, tree: Tree, limits: Limits) -> None:
        self._tree = tree
        self._limits = limits
        self._directory_times: dict[str, int] = {}
        self._opaque_later: set[str] = set()
        self.entries = 0
        self._left_out: Counter[str] = Counter()
        self._first_left_out: dict[str, str] = {}

    def apply(self, entry: Entry, chunks: Iterator[bytes]) -> None:
        """Put one entry on disk. UnsafeError, TooBigError and ExhaustedError name it."""
        self.entries += 1
        if self.entries > self._limits.max_entries:
            raise TooBigError(f"it has more than {self._limits.max_entries} entries")
        try:
            self._apply(entry, chunks)
        except OSError as error:
            raise _explained(entry, error) from error

    def finish(self) -> None:
        """Set the times of directories, which writing into them has changed."""
        for path, mtime_ns in self._directory_times.items():
            try:
                fd = open_in_root(self._tree.root, path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    continue  # a later entry of the archive replaced it
                raise
            try:
                os.utime(fd, ns=(mtime_ns, mtime_ns))
            finally:
                os.close(fd)

    def notes(self) -> tuple[str, ...]:
        """Return what was left out or changed, a line for each reason, with an example and how often."""
        return tuple(
            f"{reason}: {self._first_left_out[reason]}" + (f" and {count - 1} more" if count > 1 else "")
            for reason, count in sorted(self._left_out.items())
        )

    def _apply(self, entry: Entry, chunks: Iterator[bytes]) -> None:
        above, name = split(entry.name)
        if not name:
            if entry.kind is EntryKind.DIRECTORY:
                self._attributes(self._tree.root, entry, entry.name)
                self._directory_times[""] = entry.mtime_ns
            return
        if entry.kind in (EntryKind.CHAR, EntryKind.BLOCK):
            self._leave_out("device nodes are left out", entry.name)
            return
        if f"/{_AUFS_PREFIX}" in f"/{above}":
            return  # bookkeeping of an old Docker storage driver
        parent = self._tree.parent(above)
        if name.startswith(WHITEOUT_PREFIX):
            self._whiteout(parent, name, above)
            return
        match entry.kind:
            case EntryKind.DIRECTORY:
                self._directory(parent, name, entry, f"{above}/{name}" if above else name)
            case EntryKind.FILE:
                self._file(parent, name, entry, chunks)
            case EntryKind.SYMLINK:
                self._symlink(parent, name, entry)
            case EntryKind.HARDLINK:
                self._hardlink(parent, name, entry)
            case _:
                self._tree.clear(parent, name)
                os.mkfifo(name, 0o600, dir_fd=parent)
                self._attributes_of_name(parent, name, entry)

    def _directory(self, parent: int, name: str, entry: Entry, path: str) -> None:
        hidden = False
        try:
            there = os.stat(name, dir_fd=parent, follow_symlinks=False)
            hidden = stat.S_ISCHR(there.st_mode)
            is_directory = stat.S_ISDIR(there.st_mode)
        except FileNotFoundError:
            is_directory = False
        if not is_directory:
            self._tree.clear(parent, name)
            os.mkdir(name, 0o700, dir_fd=parent)
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            if hidden:  # deleted and made anew in one layer: nothing of the lower ones may shine through
                _make_opaque(fd)
            self._attributes(fd, entry, path)
        finally:
            os.close(fd)
        self._directory_times[path] = entry.mtime_ns
        self._tree.implied.discard(path)

    def _file(self, parent: int, name: str, entry: Entry, chunks: Iterator[bytes]) -> None:
        self._check_room(entry)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, 0o600, dir_fd=parent)
        except FileExistsError:
            self._tree.clear(parent, name)
            fd = os.open(name, flags, 0o600, dir_fd=parent)
        try:
            if entry.segments is None:
                for chunk in chunks:
                    _write_all(fd, chunk)
            else:
                _write_sparse(fd, entry, chunks)
            self._attributes(fd, entry, entry.name)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)

    def _symlink(self, parent: int, name: str, entry: Entry) -> None:
        if not entry.target:
            raise UnsafeError(f"the link {entry.name!r} leads nowhere")
        self._tree.clear(parent, name)
        os.symlink(entry.target, name, dir_fd=parent)
        self._attributes_of_name(parent, name, entry)

    def _hardlink(self, parent: int, name: str, entry: Entry) -> None:
        above, target = split(entry.target)
        try:
            source = self._tree.existing(above)
        except FileNotFoundError:
            raise UnsafeError(f"{entry.name!r} is a link to {entry.target!r}, which the layer has not") from None
        try:
            there = os.stat(target or ".", dir_fd=source, follow_symlinks=False)
            if stat.S_ISDIR(there.st_mode) or stat.S_ISCHR(there.st_mode):
                raise UnsafeError(f"{entry.name!r} is a link to {entry.target!r}, which is no file")
            if _is_same(parent, name, there):
                return
            self._tree.clear(parent, name)
            os.link(target, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            raise UnsafeError(f"{entry.name!r} is a link to {entry.target!r}, which the layer has not") from None
        finally:
            os.close(source)

    def _whiteout(self, parent: int, name: str, above: str) -> None:
        if name == OPAQUE_MARKER:
            _make_opaque(parent)
            return
        if name.startswith(_AUFS_PREFIX):
            return
        hidden = name.removeprefix(WHITEOUT_PREFIX)
        if hidden in ("", ".", ".."):
            raise UnsafeError(f"{name!r} in {above!r} hides no name")
        try:
            os.mknod(hidden, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)
        except FileExistsError:
            # The layer itself has the name too: its file hides the lower one already, its directory must not merge.
            if stat.S_ISDIR(os.stat(hidden, dir_fd=parent, follow_symlinks=False).st_mode):
                fd = os.open(hidden, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
                try:
                    _make_opaque(fd)
                finally:
                    os.close(fd)

    def _attributes(self, fd: int, entry: Entry, name: str) -> None:
        """Set owner, xattrs and mode, in this order: chown takes away setuid bits and file capabilities."""
        os.chown(fd, self._owner(entry.uid, name), self._owner(entry.gid, name))
        for key, value in self._allowed(entry.xattrs, name):
            os.setxattr(fd, key, value)
        os.chmod(fd, entry.mode)

    def _attributes_of_name(self, parent: int, name: str, entry: Entry) -> None:
        """The same for what must not be opened: links and fifos, which have no xattrs that matter."""
        owner, group = self._owner(entry.uid, entry.name), self._owner(entry.gid, entry.name)
        os.chown(name, owner, group, dir_fd=parent, follow_symlinks=False)
        if entry.kind is EntryKind.FIFO:
            os.chmod(name, entry.mode, dir_fd=parent)
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)

    def _owner(self, number: int, name: str) -> int:
        if 0 <= number <= MAX_ID:
            return number
        self._leave_out(f"owners above {MAX_ID} become {NOBODY} (nobody)", name)
        return NOBODY

    def _allowed(self, xattrs: Mapping[str, bytes], name: str) -> Iterator[tuple[str, bytes]]:
        """Yield the xattrs that a layer may set: trusted.overlay.redirect, for one, would let it show other layers."""
        for key, value in xattrs.items():
            if key == "security.capability" or (key.startswith("user.") and not key.startswith("user.overlay.")):
                yield key, value
            else:
                self._leave_out(f"extended attributes {key.split('.')[0]}.* are left out", name)

    def _leave_out(self, reason: str, name: str) -> None:
        self._left_out[reason] += 1
        self._first_left_out.setdefault(reason, name)

    def _check_room(self, entry: Entry) -> None:
        if entry.stored > self._limits.max_unpacked_bytes:
            raise TooBigError(f"its file {entry.name!r} alone has {human_bytes(entry.stored)}")
        if entry.stored < 2**20 and self.entries % 512:
            return
        room = os.fstatvfs(self._tree.root)
        free = room.f_bavail * room.f_frsize
        if free - entry.stored < self._limits.min_free_bytes:
            kept = self._limits.min_free_bytes
            raise ExhaustedError(f"the disk has {human_bytes(free)} free, of which {human_bytes(kept)} are kept")


def _make_opaque(directory: int) -> None:
    for key in OPAQUE_XATTRS:
        os.setxattr(directory, key, b"y")


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _write_sparse(fd: int, entry: Entry, chunks: Iterator[bytes]) -> None:
    """Write the stored bytes where they belong; the rest stays a hole."""
    os.ftruncate(fd, entry.size)
    pending = memoryview(b"")
    for offset, length in entry.segments or ():
        os.lseek(fd, offset, os.SEEK_SET)
        while length:
            pending = pending or memoryview(next(chunks))
            piece, pending = pending[:length], pending[length:]
            _write_all(fd, bytes(piece))
            length -= len(piece)


def _is_same(parent: int, name: str, there: os.stat_result) -> bool:
    try:
        here = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def _explained(entry: Entry, error: OSError) -> Exception:
    """Say what an entry met on disk."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ExhaustedError(f"the disk is full ({error.strerror})")
    if error.errno in (errno.ENAMETOOLONG, errno.EINVAL, errno.EFBIG, errno.ERANGE, errno.E2BIG, errno.EMLINK):
        return UnsafeError(f"the entry {entry.name[:100]!r} cannot be put on disk: {error.strerror}")
    if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP):
        return UnsafeError(f"the entry {entry.name[:100]!r} does not fit the ones before it: {error.strerror}")
    if error.errno == errno.EOPNOTSUPP:
        return RejectedError(f"the file system of the layers cannot keep what {entry.name[:100]!r} has (xattrs?)")
    return error
