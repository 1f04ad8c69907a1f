"""What a caller asks of the store: small descriptions of writes and checks, applied together by `Store.commit`.

`expect` is the version (etcd's mod_revision) that the object must have for the write to happen: 0 means that it must
not exist, None that it does not matter.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

from argosy.core.kinds import StoredObject


@dataclass(frozen=True, slots=True)
class Put:
    """Store an object. Its `meta.version` is not stored and not compared: `expect` is."""

    obj: StoredObject
    expect: int | None


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove an object. With `expect` None it need not be there. `project` is "" for kinds without."""

    kind: type[Any]
    project: str
    id: str
    expect: int | None


@dataclass(frozen=True, slots=True)
class Check:
    """Write nothing, but let the other operations happen only while this object is at this version (0: absent)."""

    kind: type[Any]
    project: str
    id: str
    expect: int


@dataclass(frozen=True, slots=True)
class Claim:
    """Take a name for the object `id`. ExistsError when anyone holds it, even the same object."""

    kind: type[Any]
    project: str
    name: str
    id: str


@dataclass(frozen=True, slots=True)
class Release:
    """Give a name back. ConflictError when the object `id` does not hold it."""

    kind: type[Any]
    project: str
    name: str
    id: str


Op: TypeAlias = Put | Delete | Check | Claim | Release


@dataclass(frozen=True, slots=True)
class Fence:
    """The leader's key and its create_revision. A commit with it happens only while that very key exists.

    The key goes with the leader's lease, and a later leader's has a higher create_revision: so a leader that was
    paused past its lease cannot write.
    """

    key: bytes
    create_revision: int


def create(obj: StoredObject) -> Put:
    """Store an object that must not exist yet."""
    return Put(obj, expect=0)


def update(obj: StoredObject) -> Put:
    """Store a changed copy of an object that was read; conflicts when it changed since."""
    if not obj.meta.version:
        raise ValueError(f"{type(obj).__name__} {obj.meta.id} was not read from the store: create it")
    return Put(obj, expect=obj.meta.version)


def delete(obj: StoredObject) -> Delete:
    """Remove an object that was read; conflicts when it changed since."""
    return Delete(type(obj), obj.meta.project, obj.meta.id, expect=obj.meta.version)


def check(obj: StoredObject) -> Check:
    """Let the other operations happen only while this object is as it was read."""
    return Check(type(obj), obj.meta.project, obj.meta.id, expect=obj.meta.version)
