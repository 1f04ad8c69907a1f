"""Configs and secrets on a node: keeps what tasks need of them, and makes the files that containers get.

    RUN/files/TASK/config-N   a task's configs, owned by the container's users
    RUN/secrets/all/VERSION   what the controller sent of secrets, in memory only (agent/runtime/memory.py)
    RUN/secrets/tasks/TASK/N  a task's secrets, likewise

A controller's message is relieved of secrets before anybody else sees it, so they are neither in the journal nor among
the assignments: an agent that is started anew finds them here, also while no controller is there. After the host was
booted they have to come from a controller once more.

Each task has files of its own, with the owner and mode that were asked for, bound into the container read-only: the
file systems in memory know no id maps.
"""

import os
import posixpath
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import structlog

from argosy.agent.logic.assignments import Assignments
from argosy.agent.runtime.memory import ensure_memory_directory
from argosy.agent.runtime.oci_config import Bind
from argosy.core.assignment import ConfigAssignment, SecretAssignment, UnreadableAssignment
from argosy.core.errors import RejectedError, TransientError
from argosy.core.files import DEFAULT_FILE_MODE, kind_name, path_of
from argosy.core.service import FileRef
from argosy.proto.argosy.v1 import dispatcher_pb2 as pb

log = structlog.get_logger(__name__)

_SECRETS = "secrets"


def hold_secrets(run_dir: Path) -> None:
    """Make the directory in memory. Where that cannot be, tasks with secrets say so, and others run."""
    try:
        ensure_memory_directory(run_dir / _SECRETS)
    except RejectedError as e:
        log.warning("no secrets on this host", why=str(e))


def take_secrets(message: pb.ControllerMessage) -> dict[str, bytes]:
    """Take what secrets hold out of an assignment message; return it by version."""
    found = {}
    for piece in message.assignments.put:
        if piece.WhichOneof("body") == "secret" and not piece.secret.problem:
            found[piece.secret.id] = piece.secret.data
            piece.secret.ClearField("data")
    return found


class TaskFiles:
    """The files of all tasks of a node, below its run directory. `ensure_memory` makes a directory in memory."""

    def __init__(self, run_dir: Path, ensure_memory: Callable[[Path], None] = ensure_memory_directory) -> None:
        self._ensure_memory = ensure_memory
        self._configs = run_dir / "files"
        self._memory = run_dir / _SECRETS
        self._trouble = ""

    def keep(self, secrets: Mapping[str, bytes]) -> None:
        """Keep what a controller sent of secrets; what keeps it from doing so is told by the tasks that need them."""
        if not secrets:
            return
        try:
            self._ensure_memory(self._memory)
            for version, data in secrets.items():
                _write(self._memory / "all" / version, data, 0o600)
        except (RejectedError, OSError) as e:
            self._trouble = str(e) if isinstance(e, RejectedError) else f"secrets cannot be kept: {e.strerror}"
            log.warning("secrets not kept", why=self._trouble)
        else:
            self._trouble = ""

    def retain(self, assignments: Assignments) -> None:
        """Forget the secrets that no task of this node needs any more; none on an unsynced view."""
        directory = self._memory / "all"
        if assignments.synced and directory.is_dir():
            needed = {s.id for s in assignments.of(SecretAssignment)}
            for name in os.listdir(directory):
                if name not in needed:
                    (directory / name).unlink(missing_ok=True)

    def prepare(
        self, task_id: str, refs: Iterable[FileRef], assignments: Assignments, id_base: int
    ) -> tuple[Bind, ...]:
        """Write a task's files; return where they go in its container. `id_base`: the host's id of its user 0.

        TransientError while one has not come; RejectedError where this host cannot have secrets.
        """
        binds = []
        for number, ref in enumerate(refs):
            data = self._data(ref, assignments)
            path = self._directory(task_id, secret=ref.secret) / f"{kind_name(secret=ref.secret)}-{number}"
            _write(path, data, ref.mode or DEFAULT_FILE_MODE, (id_base + ref.uid, id_base + ref.gid))
            target = posixpath.normpath(path_of(ref))
            binds.append(Bind(str(path), target, read_only=True, idmap=False, recursive=False))
        return tuple(binds)

    def remove(self, task_id: str) -> None:
        """Remove a task's files; idempotent."""
        for secret in (False, True):
            shutil.rmtree(self._directory(task_id, secret=secret), ignore_errors=True)

    def directory(self, task_id: str) -> Path:
        """Return where the files are that the node gives a task, secrets apart."""
        return self._directory(task_id, secret=False)

    def _directory(self, task_id: str, *, secret: bool) -> Path:
        return self._memory / "tasks" / task_id if secret else self._configs / task_id

    def _data(self, ref: FileRef, assignments: Assignments) -> bytes:
        what = kind_name(secret=ref.secret)
        piece = assignments.pieces.get(f"{what}/{ref.id}")
        if isinstance(piece, UnreadableAssignment):
            raise RejectedError(f"this node's agent is too old for the {what} {ref.name} ({piece.problem}): upgrade it")
        if not isinstance(piece, ConfigAssignment | SecretAssignment):
            raise TransientError(f"waiting for the {what} {ref.name}")
        if piece.problem:
            raise TransientError(f"the {what} {ref.name}: {piece.problem}")
        if isinstance(piece, ConfigAssignment):
            return piece.data
        if self._trouble:
            raise RejectedError(self._trouble)
        try:
            return (self._memory / "all" / ref.id).read_bytes()
        except OSError:
            raise TransientError(
                f"waiting for the secret {ref.name}: it is kept in memory only, and comes with a controller"
            ) from None


def _write(path: Path, data: bytes, mode: int, owner: tuple[int, int] | None = None) -> None:
    """Write a whole file, never seen half or with another mode; what was there is replaced."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
        if owner is not None:
            os.fchown(fd, *owner)
        os.fchmod(fd, mode)  # after the owner: changing that takes the set-id bits away
    finally:
        os.close(fd)
    os.replace(fresh, path)
