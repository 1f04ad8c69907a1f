"""The layout of the keys in etcd: `/argosy/<cluster>/<kind>/[<project>/]<id>`, and a few beside the objects.

    /argosy/demo/task/default/kx0q...       an object (core/kinds.py says which kinds have a project)
    /argosy/demo/name/service/default/web   the id that holds a unique name ("//" in the place of a missing project)
    /argosy/demo/leader                     the leading controller; lives as long as its lease

Ids hold no "/"; a name may, since it stands last.
"""

from dataclasses import dataclass
from typing import Any

from argosy.core.kinds import BY_NAME, BY_TYPE, Kind

ROOT = "/argosy"
LEADER = "leader"
NAME = "name"


@dataclass(frozen=True, slots=True)
class ObjectKey:
    """Which object a key is of; `project` is "" for kinds without one."""

    kind: Kind
    project: str
    id: str


@dataclass(frozen=True, slots=True)
class Keyspace:
    """The keys of one cluster."""

    cluster: str

    @property
    def prefix(self) -> bytes:
        """What all keys of the cluster begin with."""
        return f"{ROOT}/{self.cluster}/".encode()

    @property
    def leader(self) -> bytes:
        """The key that the leading controller holds."""
        return f"{ROOT}/{self.cluster}/{LEADER}".encode()

    def object(self, kind: type[Any], project: str, id: str) -> bytes:
        """Return the key of an object. ValueError for what would not come out of `parse` again."""
        row = BY_TYPE[kind]
        if not id or "/" in id or "/" in project or row.scoped != bool(project):
            raise ValueError(f"no key for a {row.name} with project {project!r} and id {id!r}")
        middle = f"{project}/" if row.scoped else ""
        return f"{ROOT}/{self.cluster}/{row.name}/{middle}{id}".encode()

    def name(self, kind: type[Any], project: str, name: str) -> bytes:
        """Return the key that makes a name unique among a kind within a project."""
        if not name or "/" in project:
            raise ValueError(f"no key for the name {name!r} in project {project!r}")
        return f"{ROOT}/{self.cluster}/{NAME}/{BY_TYPE[kind].name}/{project}/{name}".encode()

    def parse(self, key: bytes) -> ObjectKey | None:
        """Return which object a key under `prefix` is of; None for the keys that are not objects."""
        parts = key.decode().split("/")[3:]
        kind = BY_NAME.get(parts[0])
        if kind is None or len(parts) != (3 if kind.scoped else 2):
            return None
        return ObjectKey(kind, parts[1] if kind.scoped else "", parts[-1])


def end_of_prefix(prefix: bytes) -> bytes:
    """Return the `range_end` that makes a range of all keys with this prefix (etcd: the last byte plus one)."""
    stripped = prefix.rstrip(b"\xff")
    if not stripped:
        return b"\0"
    return stripped[:-1] + bytes([stripped[-1] + 1])
