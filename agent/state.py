"""What the agent keeps on disk so that its own restart changes nothing.

    identity.json         node id and beat key, made at the first start and kept for good
    assignments.journal   the last full set applied and the increments since: the agent goes on without a controller
    tasks.journal         records of tasks: id range and the last status that matters

A kill -9 leaves whole records. Nothing is synced to the disk: after a crash of the *host* no container runs any more,
and what an older record says is corrected by what the kernel shows.
"""

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from argosy.agent.journal import Journal
from argosy.agent.logic.assignments import Assignments, BrokenChainError, Update, advance
from argosy.core.assignment import LeaderEpoch, Succession, UnreadableAssignment
from argosy.core.errors import RejectedError
from argosy.core.ids import new_id
from argosy.core.task import TaskStatus
from argosy.core.task_state import TaskState
from argosy.core.wire import put_piece, read_piece
from argosy.proto.argosy.v1 import dispatcher_pb2 as pb

MAX_INCREMENTS = 200
"""Increments kept behind a full set before they are merged into it."""
PIECES_AN_INCREMENT = 20
"""So many pieces of a set allow for one more: to merge takes 10 ms for each thousand of them."""
_STATUS_FIELDS = tuple(f.name for f in fields(TaskStatus))


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this node is; `beat_key` signs the host's own heart beat."""

    node_id: str
    beat_key: bytes


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """What must be known of a task after the agent's restart: above all that it must not run a second time."""

    id: str
    status: TaskStatus
    id_range: int
    stop_at: float | None = None
    signalled: bool = False
    running_since: float = 0.0
    confirmed: bool = False  # the controller has stored its end
    succession: Succession | None = None  # of a task that this node made and no controller has assigned yet


class StateDir:
    """The agent's files. One agent at a time: the lock is held until the process ends."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        os.chmod(root, 0o700)
        self._lock = _lock(root / "lock")
        self._assignments = Journal(root / "assignments.journal")
        self._tasks = Journal(root / "tasks.journal")
        self._records: dict[str, TaskRecord] = {}

    def release(self) -> None:
        """Let another agent have the files."""
        os.close(self._lock)

    def identity(self) -> Identity:
        """Return this node's identity, made on the first call ever."""
        path = self.root / "identity.json"
        if path.exists():
            try:
                data = json.loads(path.read_text())
                return Identity(data["node_id"], bytes.fromhex(data["beat_key"]))
            except (ValueError, KeyError) as e:
                raise RejectedError(
                    f"{path} is damaged ({e}): restore it, or remove it to join as a new node "
                    "(`argosy node rm` then removes the old one)"
                ) from None
        identity = Identity(new_id(), secrets.token_bytes(32))
        _replace(path, json.dumps({"node_id": identity.node_id, "beat_key": identity.beat_key.hex()}).encode())
        return identity

    def save_assignments(self, message: pb.ControllerMessage, after: Assignments) -> None:
        """Persist an assignment message before it is acted on; `after` is what it makes of the set."""
        kept = MAX_INCREMENTS + len(after.pieces) // PIECES_AN_INCREMENT
        if message.assignments.full or self._assignments.records > kept:
            self._assignments.rewrite([_whole(after).SerializeToString()])
        else:
            self._assignments.append(message.SerializeToString())

    def load_assignments(self) -> Assignments:
        """Return the last set that was applied; an empty, unsynced one on a new or damaged state."""
        assignments = Assignments()
        for record in self._assignments.read():
            try:
                assignments = advance(assignments, read_update(pb.ControllerMessage.FromString(record)))
            except (DecodeError, BrokenChainError):
                return Assignments()
        return assignments

    def save_task(self, record: TaskRecord) -> None:
        """Persist one task's record."""
        self._records[record.id] = record
        self._tasks.append(_record_bytes(record))
        if self._tasks.records > 8 * len(self._records) + 1000:
            self._tasks.rewrite(map(_record_bytes, self._records.values()))

    def load_tasks(self) -> list[TaskRecord]:
        """Return the records of all tasks; a damaged one is dropped (its container, if any, is found by itself)."""
        for line in self._tasks.read():
            try:
                data = json.loads(line)
                status = data.pop("status")
                if status is None:
                    self._records.pop(data["id"], None)
                else:
                    status["state"] = TaskState(status["state"])
                    if data.get("succession"):
                        data["succession"] = Succession(**_known(Succession, data["succession"]))
                    status = TaskStatus(**_known(TaskStatus, status))
                    record = TaskRecord(status=status, **_known(TaskRecord, data))
                    self._records[record.id] = record
            except (ValueError, KeyError, TypeError):
                continue
        self._tasks.rewrite(map(_record_bytes, self._records.values()))
        return list(self._records.values())

    def forget_task(self, task_id: str) -> None:
        """Drop a record; idempotent."""
        if self._records.pop(task_id, None):
            self._tasks.append(json.dumps({"id": task_id, "status": None}).encode())


def _known(cls: type[Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what this version knows of a record: a newer agent wrote it, and was replaced by this one."""
    return {f.name: data[f.name] for f in fields(cls) if f.name in data}


def _record_bytes(record: TaskRecord) -> bytes:
    status = record.status
    return json.dumps(
        {
            "id": record.id,
            "status": {name: getattr(status, name) for name in _STATUS_FIELDS},
            "id_range": record.id_range,
            "stop_at": record.stop_at,
            "signalled": record.signalled,
            "running_since": record.running_since,
            "confirmed": record.confirmed,
            "succession": asdict(record.succession) if record.succession else None,
        }
    ).encode()


def _whole(assignments: Assignments) -> pb.ControllerMessage:
    """Return a set as one full message; without what could not be read, which the next session brings again."""
    message = pb.ControllerMessage()
    message.leader.epoch, message.leader.revision = assignments.leader.epoch, assignments.leader.revision
    message.assignments.full = True
    message.assignments.version = assignments.version
    for piece in assignments.pieces.values():
        if not isinstance(piece, UnreadableAssignment):
            put_piece(piece, message.assignments.put.add())
    return message


def read_update(message: pb.ControllerMessage) -> Update:
    """Return an assignment message in the domain's terms; pieces of a kind unknown to this version are left out."""
    body = message.assignments
    pieces = (read_piece(m) for m in body.put)
    return Update(
        leader=LeaderEpoch(message.leader.epoch, message.leader.revision),
        full=body.full,
        version=body.version,
        base_version=body.base_version,
        put=tuple(p for p in pieces if p is not None),
        remove=tuple(body.remove),
    )


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".new")
    temporary.write_bytes(data)
    os.chmod(temporary, 0o600)
    temporary.replace(path)


def _lock(path: Path) -> int:
    import fcntl

    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise RejectedError(
            f"another agent uses {path.parent}: stop it, or give this one its own --state-dir"
        ) from None
    return fd
