"""A cluster at one revision: all objects and the indexes over them, immutable.

Built on persistent hash maps (immutables.Map): a snapshot with a few changes shares all the rest with the one before
it, so that taking one costs nothing, making the next costs O(changes) whatever the size of the cluster, and a holder
may keep one as long as it likes. Only the cache makes them.

The order in which objects come is no particular one; sort where it matters.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from immutables import Map

from argosy.controller.store.records import K
from argosy.core.files import Config, FileVersion, Secret
from argosy.core.image import Image
from argosy.core.kinds import KINDS, StoredObject
from argosy.core.network import Network, Slice
from argosy.core.node import Node
from argosy.core.service import Revision, Service
from argosy.core.task import Task

IndexKey = str | tuple[str, str]


@dataclass(frozen=True, slots=True)
class Change:
    """An object that changed: `old` None means that it is new, `new` None that it is gone."""

    kind: type[Any]
    id: str
    old: StoredObject | None
    new: StoredObject | None

    @property
    def project(self) -> str:
        """The project of the object."""
        some = self.new or self.old
        return some.meta.project if some is not None else ""


@dataclass(frozen=True, slots=True)
class _Index:
    name: str
    kind: type[Any]
    keys: Callable[[Any], Collection[IndexKey]]
    """Under what an object is to be found; nothing: it is not in this index."""


def _static_on(task: Task) -> Collection[IndexKey]:
    held = task.node_id and task.attachments and not task.status.released
    return {a.network_id for a in task.attachments if a.fixed} if held else ()


_INDEXES: Final = (
    _Index("tasks by service", Task, lambda t: (t.service_id,)),
    _Index("tasks by node", Task, lambda t: (t.node_id,)),
    _Index("tasks by network", Task, lambda t: {a.network_id for a in t.attachments} if t.attachments else ()),
    _Index("holders of static addresses by network", Task, _static_on),
    _Index("service by name", Service, lambda s: () if s.removing else ((s.meta.project, s.spec.name),)),
    _Index("network by name", Network, lambda n: () if n.removing else ((n.meta.project, n.spec.name),)),
    _Index("image by name", Image, lambda i: ((i.meta.project, i.name),)),
    _Index("node by name", Node, lambda n: ((n.meta.project, n.spec.name),)),
    _Index("slices by network", Slice, lambda s: (s.network_id,)),
    _Index("slices by node", Slice, lambda s: (s.node_id,)),
    _Index("revisions by service", Revision, lambda r: (r.service_id,)),
    _Index("config by name", Config, lambda c: () if c.removing else ((c.meta.project, c.name),)),
    _Index("secret by name", Secret, lambda s: () if s.removing else ((s.meta.project, s.name),)),
    _Index("versions by file", FileVersion, lambda v: (v.file_id,)),
)
_INDEXES_OF: Final[Mapping[type[Any], tuple[_Index, ...]]] = {
    k.domain: tuple(i for i in _INDEXES if i.kind is k.domain) for k in KINDS
}
_NAME_INDEX: Final[Mapping[type[Any], str]] = {
    i.kind: i.name for i in _INDEXES if i.name.endswith("by name") and isinstance(i.name, str)
}
_EMPTY: Final[Map[str, Any]] = Map()


def slot_of(kind: type[Any], project: str, id: str) -> str:
    """Return the key of an object among its kind. Ids are unique in the cluster, but those made of content are not."""
    return f"{project}/{id}" if kind is Image else id


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All objects at `revision`."""

    revision: int = 0
    _tables: Mapping[type[Any], Map[str, Any]] = field(default_factory=lambda: {k.domain: _EMPTY for k in KINDS})
    _indexes: Mapping[str, Map[IndexKey, Map[str, Any]]] = field(
        default_factory=lambda: {i.name: cast("Map[IndexKey, Map[str, Any]]", Map()) for i in _INDEXES}
    )

    # ---- reading

    def get(self, kind: type[K], id: str, project: str = "") -> K | None:
        """Return an object. Of images (ids made of their content) the project must be given."""
        found: K | None = self._tables[kind].get(slot_of(kind, project, id))
        return found

    def all(self, kind: type[K], project: str | None = None) -> tuple[K, ...]:
        """Return all objects of a kind; with `project` only those in it. O(objects)."""
        values = self._tables[kind].values()
        if project is None:
            return tuple(values)
        return tuple(o for o in values if o.meta.project == project)

    def count(self, kind: type[Any]) -> int:
        """Return how many objects of a kind there are. O(1)."""
        return len(self._tables[kind])

    def by_name(self, kind: type[K], project: str, name: str) -> K | None:
        """Return the object of a kind that has a name (nodes: project ""), but not one that is being removed.

        Should there be several (images without a name), the newest.
        """
        bucket = self._indexes[_NAME_INDEX[kind]].get((project, name))
        if not bucket:
            return None
        found: K = max(bucket.values(), key=lambda o: o.meta.version)
        return found

    def tasks_of_service(self, service_id: str) -> tuple[Task, ...]:
        """Return the tasks of a service, ended ones as well."""
        return self._bucket("tasks by service", service_id)

    def tasks_on_node(self, node_id: str) -> tuple[Task, ...]:
        """Return the tasks of a node, ended ones as well; of "" those that have no node yet."""
        return self._bucket("tasks by node", node_id)

    def tasks_on_network(self, network_id: str) -> tuple[Task, ...]:
        """Return the tasks that have an address on a network, ended ones as well."""
        return self._bucket("tasks by network", network_id)

    def static_holders(self, network_id: str) -> tuple[Task, ...]:
        """Return the tasks that were given a static address on a network, and have not given it back."""
        return self._bucket("holders of static addresses by network", network_id)

    def slices_of_network(self, network_id: str) -> tuple[Slice, ...]:
        """Return the slices of a network that are leased."""
        return self._bucket("slices by network", network_id)

    def slices_on_node(self, node_id: str) -> tuple[Slice, ...]:
        """Return the slices that a node leases."""
        return self._bucket("slices by node", node_id)

    def revisions_of_service(self, service_id: str) -> tuple[Revision, ...]:
        """Return the stored revisions of a service."""
        return self._bucket("revisions by service", service_id)

    def versions_of_file(self, file_id: str) -> tuple[FileVersion, ...]:
        """Return the versions of a config or secret that are kept."""
        return self._bucket("versions by file", file_id)

    def total(self) -> int:
        """Return how many objects there are of all kinds. O(1)."""
        return sum(map(len, self._tables.values()))

    def removals(self, seen: Collection[tuple[type[Any], str]]) -> list[Change]:
        """Return the changes that remove all objects but those at these (kind, slot). O(objects)."""
        objects = [(kind, slot, o) for kind, table in self._tables.items() for slot, o in table.items()]
        return [Change(kind, o.meta.id, o, None) for kind, slot, o in objects if (kind, slot) not in seen]

    def _bucket(self, index: str, key: IndexKey) -> tuple[Any, ...]:
        bucket = self._indexes[index].get(key)
        return tuple(bucket.values()) if bucket else ()

    # ---- making the next

    def apply(self, revision: int, changes: Iterable[Change]) -> "Snapshot":
        """Return the snapshot after these changes. O(changes)."""
        tables = dict(self._tables)
        indexes = dict(self._indexes)
        for change in changes:
            kind, old, new = change.kind, change.old, change.new
            slot = slot_of(kind, change.project, change.id)
            table = tables[kind]
            if new is not None:
                tables[kind] = table.set(slot, new)
            elif slot in table:
                tables[kind] = table.delete(slot)
            for index in _INDEXES_OF[kind]:
                indexes[index.name] = _reindex(indexes[index.name], index, slot, old, new)
        return Snapshot(revision, tables, indexes)


def _reindex(
    buckets: Map[IndexKey, Map[str, Any]], index: _Index, slot: str, old: Any, new: Any
) -> Map[IndexKey, Map[str, Any]]:
    after = index.keys(new) if new is not None else ()
    for key in index.keys(old) if old is not None else ():
        if key not in after:
            left = buckets[key].delete(slot)
            buckets = buckets.set(key, left) if left else buckets.delete(key)
    for key in after:
        buckets = buckets.set(key, buckets.get(key, _EMPTY).set(slot, new))
    return buckets
