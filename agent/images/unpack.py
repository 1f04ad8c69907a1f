"""The unpacking worker: `python -I -m argosy.agent.images.unpack` unpacks one layer and ends.

A process of its own, since the agent's must neither fork nor stall: unpacking is thousands of small system calls with
Python between them, which in a thread hold the interpreter's lock (docs/images.md has the figures). It also bounds what
a hostile layer can cost: memory by RLIMIT_AS, life by the agent's (PR_SET_PDEATHSIG).

One JSON object on stdin says what to do (`Request`), one on stdout how it went (`Reply`). Digests are of what was
really read: of the blob, and of the tar inside it, including what follows the tar's end.
"""

import ctypes
import errno
import hashlib
import json
import os
import resource
import signal
import sys
from dataclasses import asdict, dataclass
from typing import Final

from argosy.agent.images.apply import LayerWriter, Limits, TooBigError
from argosy.agent.images.tree import Tree, flush_file_system
from argosy.core.errors import ExhaustedError, RejectedError
from argosy.core.oci.compression import CHUNK, Decompressed, Readable, detect
from argosy.core.oci.tar import TarReader

MEMORY_LIMIT_BYTES: Final = 2 * 2**30
_PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True, slots=True)
class Request:
    """`staging` is an empty directory: the worker makes `root` (the layer) and `trash` in it."""

    blob: str
    staging: str
    digest: str
    diff_id: str
    limits: Limits = Limits()
    parent_pid: int = 0

    def to_json(self) -> bytes:
        """Return it as the worker reads it."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> "Request":
        """Return what `to_json` wrote."""
        values = json.loads(data)
        return cls(**{**values, "limits": Limits(**values["limits"])})


@dataclass(frozen=True, slots=True)
class Reply:
    """`problem` is "" when all is well; `kind` then says nothing. Kinds: "rejected", "digest" (the blob is not what its
    digest says: fetching again may help), "exhausted", "bug"."""

    problem: str = ""
    kind: str = ""
    notes: tuple[str, ...] = ()
    implied: tuple[str, ...] = ()
    entries: int = 0
    unpacked_bytes: int = 0

    @classmethod
    def from_json(cls, data: bytes) -> "Reply":
        """Return what the worker printed."""
        values = json.loads(data)
        return cls(**{**values, "notes": tuple(values["notes"]), "implied": tuple(values["implied"])})


class Hashing:
    """Passes a stream on, with its sha256 and length; reads ahead in large pieces whatever is asked for."""

    def __init__(self, source: Readable, limit: int | None = None) -> None:
        self._source = source
        self._limit = limit
        self._sha = hashlib.sha256()
        self._ahead = b""
        self._at = 0
        self.size = 0

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes. TooBigError when the stream has more than the limit."""
        if self._at >= len(self._ahead):
            self._ahead, self._at = self._source.read(CHUNK), 0
            self._sha.update(self._ahead)
            self.size += len(self._ahead)
            if self._limit is not None and self.size > self._limit:
                raise TooBigError(f"it unpacks to more than {self._limit} bytes")
        data = self._ahead[self._at : self._at + size]
        self._at += len(data)
        return data

    def drain(self) -> None:
        """Read to the end."""
        while self.read(CHUNK):
            pass

    @property
    def digest(self) -> str:
        """Of what has been read from the source so far."""
        return f"sha256:{self._sha.hexdigest()}"


def unpack(request: Request) -> Reply:
    """Unpack a layer into `staging/root` and flush it to disk."""
    root, trash = (os.path.join(request.staging, name) for name in ("root", "trash"))
    os.mkdir(root, 0o755)
    os.mkdir(trash, 0o700)
    with open(request.blob, "rb", buffering=0) as file:
        blob = Hashing(file)
        try:
            return _unpack(request, blob, _open_directory(root), _open_directory(trash))
        except RejectedError as error:
            blob.drain()  # a blob that was damaged on its way is another matter than an image that was made so
            return Reply(str(error), "rejected") if blob.digest == request.digest else _wrong_digest(request, blob)
        except ExhaustedError as error:
            return Reply(str(error), "exhausted")
        except MemoryError:
            return Reply(f"it takes more than {MEMORY_LIMIT_BYTES} bytes of memory to unpack", "rejected")
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                return Reply(f"the disk is full ({error.strerror})", "exhausted")
            raise


def _unpack(request: Request, blob: Hashing, root: int, trash: int) -> Reply:
    head = blob.read(6)
    content = Hashing(Decompressed(_Rewound(head, blob), detect(head)), limit=request.limits.max_unpacked_bytes)
    tree = Tree(root, trash)
    writer = LayerWriter(tree, request.limits)
    archive = TarReader(content)
    for entry in archive:
        writer.apply(entry, archive.chunks())
    writer.finish()
    content.drain()
    blob.drain()
    if blob.digest != request.digest:
        return _wrong_digest(request, blob)
    if content.digest != request.diff_id:
        return Reply(f"its content has the digest {content.digest}, its image says {request.diff_id}", "rejected")
    # The layer counts as complete for ever once it is renamed into place.
    flush_file_system(os.path.join(request.staging, "root"))
    return Reply("", "", writer.notes(), tuple(sorted(tree.implied)), writer.entries, content.size)


class _Rewound:
    """A stream of which the first bytes were looked at."""

    def __init__(self, head: bytes, rest: Readable) -> None:
        self._head, self._rest = head, rest

    def read(self, size: int, /) -> bytes:
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
            return data
        return self._rest.read(size)


def _wrong_digest(request: Request, blob: Hashing) -> Reply:
    return Reply(f"what was received has the digest {blob.digest}, not {request.digest}", "digest")


def _open_directory(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def main() -> None:
    """Run one request."""
    request = Request.from_json(sys.stdin.buffer.read())
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if request.parent_pid and os.getppid() != request.parent_pid:
        return  # the agent died before it could be noticed
    os.umask(0)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    try:
        reply = unpack(request)
    except Exception as error:  # reported as it is: the agent raises it as the bug that it is
        where = error.__traceback__
        while where is not None and where.tb_next is not None:
            where = where.tb_next
        line = f" at {where.tb_frame.f_code.co_filename}:{where.tb_lineno}" if where is not None else ""
        reply = Reply(f"{type(error).__name__}: {error}{line}", "bug")
    sys.stdout.write(json.dumps(asdict(reply)))


if __name__ == "__main__":
    main()
