"""Which tasks answer on which network, and under which names: kept by change, read by every node's assignment."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from argosy.controller.logic.assign import endpoint_of, names_of, published_of
from argosy.controller.store import Change, Snapshot
from argosy.core.assignment import EndpointAssignment, NamesAssignment, Piece, PublishedAssignment, key_of
from argosy.core.network import Network
from argosy.core.node import Node, NodeState
from argosy.core.service import Revision, Service, revision_id
from argosy.core.task import Task

TASKS_A_TURN: Final = 1000
_NONE: Final[Mapping[str, EndpointAssignment]] = {}
_NO_NAMES: Final[Mapping[str, NamesAssignment]] = {}
_NO_PORTS: Final[Mapping[str, PublishedAssignment]] = {}
_NO_WAY_IN: Final[dict[str, PublishedAssignment]] = {}
_NOBODY: Final[Mapping[str, int]] = {}


@dataclass(frozen=True, slots=True)
class Told:
    """What the nodes that carry a network are to be told of a key now; `piece` None: it is gone."""

    network_id: str
    key: str
    piece: Piece | None


class EndpointIndex:
    """Endpoints and names by network. One owner (the dispatcher) feeds it every change in order.

    The tasks of a node that is down have no endpoints: whatever they do, nobody reaches them.
    """

    def __init__(self) -> None:
        self._endpoints: dict[str, dict[str, EndpointAssignment]] = {}
        self._names: dict[str, dict[str, NamesAssignment]] = {}
        self._published: dict[str, dict[str, PublishedAssignment]] = {}
        self._ways_in: dict[str, dict[str, PublishedAssignment]] = {}  # the same by service
        self._there: dict[str, Counter[str]] = {}  # by service and network: how many endpoints there are
        self._serving: dict[str, Counter[str]] = {}  # of these, how many take requests

    def fill(self, snap: Snapshot) -> Iterator[None]:
        """Take everything in, while there is nothing yet; yields now and then, so that others get a turn."""
        for number, task in enumerate(snap.all(Task), 1):
            for _ in self._task(None, task, snap):
                pass
            if number % TASKS_A_TURN == 0:
                yield
        for service in snap.all(Service):
            for _ in self._service(None, service, snap):
                pass

    def apply(self, changes: Iterable[Change], snap: Snapshot) -> Iterator[Told]:
        """Follow changes up to `snap`; yield what differs now. To be read to its end."""
        for change in changes:
            match change.old, change.new:
                case (Task() | None as old, Task() as new) | (Task() as old, None as new):
                    yield from self._task(old, new, snap)
                case (Service() | None as old, Service() as new) | (Service() as old, None as new):
                    yield from self._service(old, new, snap)
                case (Node() | None as was, Node() | None as now) if _is_down(was) != _is_down(now):
                    node = now or was
                    assert node is not None
                    for task in snap.tasks_on_node(node.meta.id):
                        yield from self._task(task, task, snap)
                case _:
                    pass

    def endpoints(self, network_id: str) -> Mapping[str, EndpointAssignment]:
        """Return the endpoints of a network by task."""
        return self._endpoints.get(network_id, _NONE)

    def names(self, network_id: str) -> Iterable[NamesAssignment]:
        """Return the services' names on a network."""
        return self._names.get(network_id, _NO_NAMES).values()

    def published(self, network_id: str) -> Iterable[PublishedAssignment]:
        """Return the ports of every node that lead into a network."""
        return self._published.get(network_id, _NO_PORTS).values()

    @property
    def ingress_networks(self) -> Collection[str]:
        """The networks that ports of every node lead into."""
        return self._published.keys()

    def _task(self, old: Task | None, new: Task | None, snap: Snapshot) -> Iterator[Told]:
        task = new or old
        assert task is not None
        reachable = new is not None and not _is_down(snap.get(Node, new.node_id))
        recount = False
        for network_id in dict.fromkeys(a.network_id for t in (old, new) if t for a in t.attachments):
            here = self._endpoints.setdefault(network_id, {})
            endpoint = endpoint_of(new, network_id, _weight(new, snap)) if new and reachable else None
            before = here.get(task.meta.id)
            if before == endpoint:
                continue
            if endpoint:
                here[task.meta.id] = endpoint
            else:
                del here[task.meta.id]
            some = endpoint or before
            assert some is not None
            recount |= self._count(before, endpoint)
            yield Told(network_id, key_of(some), endpoint)
        if recount and task.service_id in self._ways_in:
            yield from self._ports(task.service_id, snap.get(Service, task.service_id), snap)

    def _count(self, before: EndpointAssignment | None, endpoint: EndpointAssignment | None) -> bool:
        """Take note of an endpoint that comes, goes or changes; tell whether others take requests now, or are there."""
        some = endpoint or before
        assert some is not None
        there = bool(endpoint) - bool(before)
        serving = _takes_requests(endpoint) - _takes_requests(before)
        for counts, more in ((self._there, there), (self._serving, serving)):
            if not more:
                continue
            of_service = counts.setdefault(some.service_id, Counter())
            of_service[some.network_id] += more
            if not of_service[some.network_id]:
                del of_service[some.network_id]
            if not of_service:
                del counts[some.service_id]
        return bool(there or serving)

    def _service(self, old: Service | None, new: Service | None, snap: Snapshot) -> Iterator[Told]:
        service = new or old
        assert service is not None
        for network_id in dict.fromkeys(a.target for s in (old, new) if s for a in s.spec.task.networks):
            here = self._names.setdefault(network_id, {})
            names = names_of(new, network_id) if new and not new.removing else None
            before = here.get(service.meta.id)
            if before == names:
                continue
            if names:
                here[service.meta.id] = names
            else:
                del here[service.meta.id]
            some = names or before
            assert some is not None
            yield Told(network_id, key_of(some), names)
        yield from self._ports(service.meta.id, new, snap)

    def _ports(self, service_id: str, new: Service | None, snap: Snapshot) -> Iterator[Told]:
        was = self._ways_in.pop(service_id, _NO_WAY_IN)
        there = self._there.get(service_id, _NOBODY)
        joined = (*(n.target for n in new.spec.task.networks), *there) if new else ()
        networks = {i: network for i in joined if (network := snap.get(Network, i)) and not network.spec.internal}
        serving, led = self._serving.get(service_id, _NOBODY), was.keys() & there.keys()
        now = published_of(new, networks, serving, led) if new else {}
        if now:
            self._ways_in[service_id] = now
        for network_id in sorted(was.keys() | now.keys()):
            before, piece = was.get(network_id), now.get(network_id)
            some = piece or before
            if before == piece or some is None:
                continue
            here = self._published.setdefault(network_id, {})
            if piece:
                here[service_id] = piece
            else:
                del here[service_id]
            if not here:
                del self._published[network_id]
            yield Told(network_id, key_of(some), piece)


def _takes_requests(endpoint: EndpointAssignment | None) -> bool:
    return endpoint is not None and not endpoint.withdrawn


def _is_down(node: Node | None) -> bool:
    return node is not None and node.status.state is NodeState.DOWN


def _weight(task: Task, snap: Snapshot) -> int:
    revision = snap.get(Revision, revision_id(task.service_id, task.revision))
    return revision.spec.task.weight if revision else 0
