"""The node's current assignments, and the rules by which a controller's message may change them.

Pure: the session decodes a message, calls `advance`, persists the result, and only then acts on it. A message of an
older leader, or of the same leader from before what was applied, is refused: a leader that was paused or cut off
cannot command (design: leader epoch).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from argosy.agent.logic.pieces import Pieces
from argosy.core.assignment import (
    LeaderEpoch,
    Piece,
    RevisionAssignment,
    TaskAssignment,
    UnreadableAssignment,
    key_of,
)
from argosy.core.errors import RejectedError
from argosy.core.files import kind_name
from argosy.core.image import Image
from argosy.core.service import revision_id

_OF_NETWORKS: Final = frozenset({"network", "peer", "names", "endpoint", "mesh"})
"""The kinds of pieces whose keys have a network's id after the kind."""


class StaleLeaderError(RejectedError):
    """The message comes from a leader that has been replaced, or from before what was applied."""


class BrokenChainError(RejectedError):
    """An increment does not fit on what this node has: a full set is needed."""


P = TypeVar("P", bound=Piece)


@dataclass(frozen=True, slots=True)
class Assignments:
    """A full set as of `version`, which `leader` sent."""

    pieces: Pieces = field(default_factory=Pieces)
    version: int = 0
    leader: LeaderEpoch = LeaderEpoch()
    synced: bool = False
    """False until a full set was applied: nothing may be removed on an unsynced view."""
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Why a piece that came last under a key cannot be read here, also where `pieces` still has what came before."""

    def of(self, kind: type[P]) -> Sequence[P]:
        """Return all pieces of one kind."""
        return self.pieces.of(kind)

    def tasks(self) -> dict[str, TaskAssignment]:
        """Return the assigned tasks by id."""
        return {t.id: t for t in self.of(TaskAssignment)}

    def unreadable_tasks(self) -> dict[str, str]:
        """Return the tasks of which nothing but the id can be read here, with why not."""
        unreadable = (p for p in self.of(UnreadableAssignment) if p.key.startswith("task/"))
        return {p.key.removeprefix("task/"): p.problem for p in unreadable}

    def revision_of(self, task: TaskAssignment) -> RevisionAssignment | None:
        """Return the spec that a task runs, if it has come."""
        piece = self.pieces.get(f"revision/{revision_id(task.service_id, task.revision)}")
        return piece if isinstance(piece, RevisionAssignment) else None

    def why_unreadable(self, task: TaskAssignment) -> str:
        """Say why the spec that a task runs cannot be read here, though it has come; "" where that is not so."""
        piece = self.pieces.get(f"revision/{revision_id(task.service_id, task.revision)}")
        return piece.problem if isinstance(piece, UnreadableAssignment) else ""

    def trouble_of(self, task: TaskAssignment) -> str:
        """Say which piece that concerns a task cannot be read here as it is now; "" if all can."""
        if not self.unreadable:
            return ""
        for key, what in self._pieces_of(task):
            if key in self.unreadable:
                return (
                    f"this node's agent is too old for {what} ({self.unreadable[key]}) and goes on with what it had: "
                    "upgrade it"
                )
        networks = {a.network_id for a in task.attachments}
        for key, problem in self.unreadable.items():
            kind, _, rest = key.partition("/")
            if kind in _OF_NETWORKS and rest.partition("/")[0] in networks:
                return f"this node's agent is too old for a network of the task ({problem}): upgrade it"
        return ""

    def _pieces_of(self, task: TaskAssignment) -> Iterator[tuple[str, str]]:
        yield f"task/{task.id}", "what is to be changed of the task"
        yield f"revision/{revision_id(task.service_id, task.revision)}", "the service's spec"
        revision = self.revision_of(task)
        if revision is not None:
            container = revision.spec.container
            yield f"image/{container.image_digest}", "its image"
            for ref in container.files:
                kind = kind_name(secret=ref.secret)
                yield f"{kind}/{ref.id}", f"the {kind} {ref.name}"

    def image(self, digest: str) -> Image | None:
        """Return an assigned image by its manifest's digest."""
        piece = self.pieces.get(f"image/{digest}")
        return piece if isinstance(piece, Image) else None


@dataclass(frozen=True, slots=True)
class Update:
    """A controller's assignment message, decoded."""

    leader: LeaderEpoch
    full: bool
    version: int
    base_version: int
    put: tuple[Piece, ...]
    remove: tuple[str, ...]


def check_leader(highest: LeaderEpoch, leader: LeaderEpoch) -> None:
    """Refuse what is below the highest (epoch, revision) that this node applied; StaleLeaderError."""
    if (leader.epoch, leader.revision) < (highest.epoch, highest.revision):
        raise StaleLeaderError(
            f"a message of leader epoch {leader.epoch} at revision {leader.revision} came after "
            f"epoch {highest.epoch} at revision {highest.revision} was applied"
        )


def advance(current: Assignments, update: Update) -> Assignments:
    """Return the set after `update`; StaleLeaderError or BrokenChainError when it may not be applied."""
    check_leader(current.leader, update.leader)
    unreadable = {p.key: p.problem for p in update.put if isinstance(p, UnreadableAssignment)}
    if update.full:
        pieces = Pieces(_readable(update.put, current.pieces))
        return Assignments(pieces, update.version, update.leader, synced=True, unreadable=unreadable)
    if update.base_version != current.version or not current.synced:
        raise BrokenChainError(f"an increment on version {update.base_version} came, this node has {current.version}")
    put = {key_of(piece): piece for piece in _readable(update.put, current.pieces)}
    pieces = current.pieces.changed(put, update.remove)
    still = {k: v for k, v in current.unreadable.items() if k not in put and k in pieces}
    unreadable = {**still, **unreadable}
    return Assignments(pieces, update.version, update.leader, synced=True, unreadable=unreadable)


def _readable(pieces: Iterable[Piece], before: Mapping[str, Piece]) -> Iterator[Piece]:
    """Yield what can be read, else what there was before, if there was: a task that runs is not to end by it."""
    for piece in pieces:
        yield before.get(piece.key, piece) if isinstance(piece, UnreadableAssignment) else piece
