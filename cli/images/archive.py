"""What was given to import: opened, its packing found out, its members listed.

Everything that reads an image reads from `Files`: a directory, or a plain tar with random access. A packed tar is
unpacked to a temporary file for that; stdin is written to one first, since what it is can be told only at its end.
"""

import io
import json
import os
import stat
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

from argosy.cli.errors import CliError, InvalidInputError
from argosy.core.errors import RejectedError
from argosy.core.oci.compression import CHUNK, Compression, CorruptError, Decompressed, Readable, detect, foreign
from argosy.core.oci.media import MAX_DOCUMENT_BYTES
from argosy.core.oci.tar import TarReader
from argosy.core.oci.tar_format import EntryKind, TarError

STDIN: Final = "-"
ACCEPTED: Final = (
    "accepted are a tar of a root filesystem, a `docker save` archive and an OCI layout (tar or directory), "
    "plain, gzip or zstd"
)
MAX_ARCHIVE_MEMBERS: Final = 20_000
"""A tar with more members is a root filesystem: archives of images have a few for each layer."""
_MAX_LINKS: Final = 8


class BrokenArchiveError(InvalidInputError):
    """What was given is no image, or a damaged one: names it and says what is wrong with it."""

    def __init__(self, source: str, problem: str) -> None:
        super().__init__(f"cannot import {_shown(source)}: {problem}", ACCEPTED)


def _shown(source: str) -> str:
    return "what came from stdin" if source == STDIN else f"'{source}'"


class Files(Protocol):
    """Named files of an archive or directory; names are relative, with "/"."""

    source: str

    def has(self, name: str) -> bool:
        """Whether there is such a file."""

    def open(self, name: str) -> BinaryIO:
        """Return a reader of a file; BrokenArchiveError when it is not there."""

    def size(self, name: str) -> int:
        """Return a file's bytes; BrokenArchiveError when it is not there."""


def read_document(files: Files, name: str) -> bytes:
    """Return a small file; BrokenArchiveError when it is missing or too long."""
    if files.size(name) > MAX_DOCUMENT_BYTES:
        raise BrokenArchiveError(files.source, f"its {name} has more than {MAX_DOCUMENT_BYTES} bytes")
    with files.open(name) as file:
        return file.read()


def parse_json(source: str, data: bytes, what: str) -> Any:
    """Return what a document says; BrokenArchiveError when it is no JSON."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise BrokenArchiveError(source, f"its {what} is no JSON document") from None


class Slice(io.RawIOBase):
    """A part of a file, read by position: any number of them may be in use at once."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        super().__init__()
        self._fd, self._at, self._left = file.fileno(), offset, size
        self._file = file  # keeps the descriptor open

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Read at most as much as is left of the part."""
        data = os.pread(self._fd, min(len(buffer), self._left), self._at)
        buffer[: len(data)] = data
        self._at += len(data)
        self._left -= len(data)
        return len(data)


class DirectoryFiles:
    """The files of a directory. Links out of it lead nowhere."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._root = Path(source).resolve()

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return self._path(name) is not None

    def open(self, name: str) -> BinaryIO:
        """Return a reader of a file."""
        return open(self._there(name), "rb")

    def size(self, name: str) -> int:
        """Return a file's bytes."""
        return self._there(name).stat().st_size

    def _there(self, name: str) -> Path:
        path = self._path(name)
        if path is None:
            raise BrokenArchiveError(self.source, f"it has no {name}")
        return path

    def _path(self, name: str) -> Path | None:
        path = (self._root / name).resolve()
        return path if path.is_relative_to(self._root) and path.is_file() else None


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a tar by its place, or a link to another."""

    offset: int
    size: int
    link: str = ""


class TarFiles:
    """The files of a plain tar."""

    def __init__(self, source: str, file: BinaryIO, members: Mapping[str, Member]) -> None:
        self.source = source
        self._file = file
        self._members = members

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return self._find(name) is not None

    def open(self, name: str) -> BinaryIO:
        """Return a reader of a file."""
        member = self._there(name)
        return io.BufferedReader(Slice(self._file, member.offset, member.size), CHUNK)

    def size(self, name: str) -> int:
        """Return a file's bytes."""
        return self._there(name).size

    def _there(self, name: str) -> Member:
        member = self._find(name)
        if member is None:
            raise BrokenArchiveError(self.source, f"it has no {name}")
        return member

    def _find(self, name: str) -> Member | None:
        for _ in range(_MAX_LINKS):
            member = self._members.get(name)
            if member is None or not member.link:
                return member
            name = member.link
        return None


class Workspace(ExitStack):
    """What lives as long as an import: a directory for temporary files, and the files that are open."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(self.enter_context(tempfile.TemporaryDirectory(prefix="argosy-import-")))

    def spool(self, stream: Readable) -> BinaryIO:
        """Return a temporary file with what a stream gives."""
        file: BinaryIO = self.enter_context(tempfile.TemporaryFile(dir=self.directory))  # noqa: SIM115
        try:
            while data := stream.read(CHUNK):
                file.write(data)
            file.flush()
        except OSError as error:
            raise no_room(self.directory, error) from None
        return file

    def open(self, source: str) -> BinaryIO:
        """Open a file to import; what cannot be read twice (a pipe) is spooled."""
        try:
            file = self.enter_context(open(source, "rb"))  # noqa: SIM115
        except FileNotFoundError:
            raise InvalidInputError(f"there is no file '{source}'", ACCEPTED) from None
        except OSError as error:
            raise InvalidInputError(f"cannot read '{source}': {error.strerror}") from None
        return file if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else self.spool(file)


class Given:
    """A file to import, or stdin kept in a temporary file."""

    def __init__(self, source: str, workspace: Workspace) -> None:
        self.source = source
        self._workspace = workspace
        self.file = workspace.spool(sys.stdin.buffer) if source == STDIN else workspace.open(source)
        self.size = os.fstat(self.file.fileno()).st_size
        head = os.pread(self.file.fileno(), 16, 0)
        if not head:
            raise BrokenArchiveError(source, "it is empty")
        self.compression = detect(head)
        if self.compression is Compression.NONE and (what := foreign(head)) is not None:
            raise BrokenArchiveError(source, f"it is {what}")

    def reader(self) -> BinaryIO:
        """Return a new reader of the bytes as given."""
        return io.BufferedReader(Slice(self.file, 0, self.size), CHUNK)

    def files(self) -> TarFiles | None:
        """Return the members when this may be an archive of an image; None when it has too many for one."""
        members = self._scan()
        if members is None or not {"index.json", "manifest.json"} & members.keys():
            return None
        file = self.file
        if self.compression is not Compression.NONE:
            file = self._workspace.spool(Decompressed(self.reader(), self.compression))
        return TarFiles(self.source, file, members)

    def _scan(self) -> dict[str, Member] | None:
        members: dict[str, Member] = {}
        content = Decompressed(self.reader(), self.compression)
        if self.compression is Compression.NONE:
            archive = self._seeking_reader()
        else:
            archive = TarReader(io.BufferedReader(_AsFile(content), CHUNK))
        try:
            for entry in archive:
                name = _normal(entry.name)
                if entry.kind is EntryKind.FILE:
                    members[name] = Member(archive.position, entry.stored)
                elif entry.kind is EntryKind.HARDLINK:
                    members[name] = Member(0, 0, _normal(entry.target))
                elif entry.kind is EntryKind.SYMLINK:
                    members[name] = Member(0, 0, _normal(f"{os.path.dirname(name)}/{entry.target}"))
                if len(members) > MAX_ARCHIVE_MEMBERS:
                    return None
        except RejectedError as error:
            raise BrokenArchiveError(self.source, str(root_cause(error, content))) from None
        return members

    def _seeking_reader(self) -> TarReader:
        """Return a reader of a plain tar that jumps over the members' data."""
        file = open(self.file.fileno(), "rb", buffering=CHUNK, closefd=False)  # noqa: SIM115  # borrows the descriptor
        file.seek(0)

        length = os.fstat(file.fileno()).st_size

        def skip(size: int) -> None:
            if size > length:  # the kernel refuses some of those
                raise TarError("the archive ends in the middle of a file: it is truncated")
            file.seek(size, os.SEEK_CUR)

        return TarReader(file, skip)


class _AsFile(io.RawIOBase):
    """Lets a decompressed stream be read through a buffer."""

    def __init__(self, source: Readable) -> None:
        super().__init__()
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        data = self._source.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def root_cause(error: RejectedError, content: Readable) -> RejectedError:
    """Return why a tar in a stream could not be read: damaged packing shows its checksum only at the end, and until
    then looks like a strange tar."""
    try:
        while content.read(CHUNK):
            pass
    except CorruptError as cause:
        return cause
    return error


def _normal(name: str) -> str:
    return os.path.normpath(f"/{name}").lstrip("/")


def no_room(temporary: Path, error: OSError) -> CliError:
    """Return what to say when a temporary file cannot be written."""
    return CliError(
        f"cannot write a temporary file in {temporary.parent}: {error.strerror}",
        "set TMPDIR to a directory with room for the image",
    )
