"""What the agent keeps on disk so that its own restart changes nothing.

    identity.json         node id and beat key, made at the first start and kept for good
    assignments.pb        the last set applied, with its leader epoch: the agent goes on from it without a controller
    tasks/ID.json         one record a task: its id range and the last status that matters

Files are replaced by rename, so a kill -9 leaves the old or the new one. They are not synced to the disk: after a
crash of the *host* no container runs any more, and what an older file says is corrected by what the kernel shows.
"""

import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from argosy.agent.logic.assignments import Assignments, Update, advance
from argosy.core.assignment import LeaderEpoch
from argosy.core.errors import RejectedError
from argosy.core.ids import new_id
from argosy.core.task import TaskStatus
from argosy.core.task_state import TaskState
from argosy.core.wire import put_piece, read_piece
from argosy.proto.argosy.v1 import dispatcher_pb2 as pb


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
    stop_sent_at: float | None = None


class StateDir:
    """The agent's files. One agent at a time: the lock is held until the process ends."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._tasks = root / "tasks"
        self._tasks.mkdir(parents=True, exist_ok=True)
        os.chmod(root, 0o700)
        self._lock = _lock(root / "lock")

    def identity(self) -> Identity:
        """Return this node's identity, made on the first call ever."""
        path = self._root / "identity.json"
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

    def save_assignments(self, assignments: Assignments) -> None:
        """Persist a set before it is acted on."""
        message = pb.ControllerMessage()
        message.leader.epoch = assignments.leader.epoch
        message.leader.revision = assignments.leader.revision
        body = message.assignments
        body.full = True
        body.version = assignments.version
        for piece in assignments.pieces.values():
            put_piece(piece, body.put.add())
        _replace(self._root / "assignments.pb", message.SerializeToString())

    def load_assignments(self) -> Assignments:
        """Return the last set that was applied; an empty, unsynced one on a new or damaged state."""
        try:
            message = pb.ControllerMessage.FromString((self._root / "assignments.pb").read_bytes())
        except (OSError, ValueError):
            return Assignments()
        except Exception as e:  # protobuf's DecodeError has no common base over its implementations
            if type(e).__name__ != "DecodeError":
                raise
            return Assignments()
        pieces = (read_piece(m) for m in message.assignments.put)
        leader = LeaderEpoch(message.leader.epoch, message.leader.revision)
        return advance(
            Assignments(),
            Update(leader, True, message.assignments.version, 0, tuple(p for p in pieces if p), ()),
        )

    def save_task(self, record: TaskRecord) -> None:
        """Persist one task's record."""
        _replace(self._tasks / f"{record.id}.json", json.dumps(asdict(record)).encode())

    def load_tasks(self) -> Iterator[TaskRecord]:
        """Yield the records of all tasks; a damaged one is dropped (its container, if any, is found by itself)."""
        for path in sorted(self._tasks.glob("*.json")):
            try:
                data = json.loads(path.read_text())
                status = data.pop("status")
                status["state"] = TaskState(status["state"])
                yield TaskRecord(status=TaskStatus(**status), **data)
            except (ValueError, KeyError, TypeError):
                path.unlink(missing_ok=True)

    def forget_task(self, task_id: str) -> None:
        """Drop a record; idempotent."""
        (self._tasks / f"{task_id}.json").unlink(missing_ok=True)


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
