"""Which tasks answer on which network, and under which names: kept by change, read by every node's assignment."""

from collections.abc import Iterable, Mapping
from typing import Final

from argosy.controller.logic.assign import endpoint_of, names_of
from argosy.controller.store import Change, Snapshot
from argosy.core.assignment import EndpointAssignment, NamesAssignment
from argosy.core.node import Node, NodeState
from argosy.core.service import Revision, Service, revision_id
from argosy.core.task import Task

_NONE: Final[Mapping[str, EndpointAssignment]] = {}
_NO_NAMES: Final[Mapping[str, NamesAssignment]] = {}


class EndpointIndex:
    """Endpoints and names by network. One owner (the dispatcher) feeds it every change in order.

    The tasks of a node that is down have no endpoints: whatever they do, nobody reaches them.
    """

    def __init__(self) -> None:
        self._endpoints: dict[str, dict[str, EndpointAssignment]] = {}
        self._names: dict[str, dict[str, NamesAssignment]] = {}

    def rebuild(self, snap: Snapshot) -> None:
        """Take everything anew."""
        self._endpoints.clear()
        self._names.clear()
        for task in snap.all(Task):
            self._task(None, task, snap)
        for service in snap.all(Service):
            self._service(None, service)

    def apply(self, changes: Iterable[Change], snap: Snapshot) -> set[str]:
        """Follow changes up to `snap`; return the networks on which something differs now."""
        touched: set[str] = set()
        for change in changes:
            match change.old, change.new:
                case (Task() | None as old, Task() as new) | (Task() as old, None as new):
                    touched |= self._task(old, new, snap)
                case (Service() | None as old, Service() as new) | (Service() as old, None as new):
                    touched |= self._service(old, new)
                case (Node() | None as was, Node() | None as now) if _is_down(was) != _is_down(now):
                    node = now or was
                    assert node is not None
                    for task in snap.tasks_on_node(node.meta.id):
                        touched |= self._task(task, task, snap)
                case _:
                    pass
        return touched

    def endpoints(self, network_id: str) -> Mapping[str, EndpointAssignment]:
        """Return the endpoints of a network by task."""
        return self._endpoints.get(network_id, _NONE)

    def names(self, network_id: str) -> Iterable[NamesAssignment]:
        """Return the services' names on a network."""
        return self._names.get(network_id, _NO_NAMES).values()

    def _task(self, old: Task | None, new: Task | None, snap: Snapshot) -> set[str]:
        touched = set()
        task = new or old
        assert task is not None
        reachable = new is not None and not _is_down(snap.get(Node, new.node_id))
        networks = {a.network_id for t in (old, new) if t for a in t.attachments}
        for network_id in networks:
            here = self._endpoints.setdefault(network_id, {})
            endpoint = endpoint_of(new, network_id, _weight(new, snap)) if new and reachable else None
            if here.get(task.meta.id) == endpoint:
                continue
            touched.add(network_id)
            if endpoint:
                here[task.meta.id] = endpoint
            else:
                del here[task.meta.id]
        return touched

    def _service(self, old: Service | None, new: Service | None) -> set[str]:
        touched = set()
        service = new or old
        assert service is not None
        networks = {a.target for s in (old, new) if s for a in s.spec.task.networks}
        for network_id in networks:
            here = self._names.setdefault(network_id, {})
            names = names_of(new, network_id) if new and not new.removing else None
            if here.get(service.meta.id) == names:
                continue
            touched.add(network_id)
            if names:
                here[service.meta.id] = names
            else:
                del here[service.meta.id]
        return touched


def _is_down(node: Node | None) -> bool:
    return node is not None and node.status.state is NodeState.DOWN


def _weight(task: Task, snap: Snapshot) -> int:
    revision = snap.get(Revision, revision_id(task.service_id, task.revision))
    return revision.spec.task.weight if revision else 0
