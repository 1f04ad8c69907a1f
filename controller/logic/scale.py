"""Which slots a service has: how many of a replicated one, on which nodes of a global one.

Scaling up takes the lowest free numbers. Scaling down takes away what is least useful first: slots without a live task
(failed, finished, given up), then those whose task does not run yet or runs on a node that does not answer, then those
on the nodes with the most tasks of the service, so that the spread stays even; among equals the highest number. An
update that tries canaries has slots for them beside the wanted ones.

A service that is stopped has no slots: it starts again with a clean sheet.
"""

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice

from argosy.controller.logic.canary import canaries_wanted
from argosy.controller.logic.departures import Departures
from argosy.controller.logic.slots import Key, Slot
from argosy.controller.logic.view import View
from argosy.core.node import Availability, Node, NodeState
from argosy.core.task_state import TaskState


@dataclass(frozen=True, slots=True)
class Choice:
    """The slots that the service is to have, in order of their keys, and those to forget."""

    keep: tuple[Slot, ...]
    forget: tuple[Slot, ...]


def choose_replicas(view: View, slots: dict[Key, Slot]) -> Choice:
    """Choose the slots of a replicated service."""
    existing = [slot for slot in slots.values() if slot.exists]
    if view.service.spec.stopped:
        return Choice((), tuple(existing))
    regular = [slot for slot in existing if not slot.canary]
    canaries = [slot for slot in existing if slot.canary]
    wanted, tries = view.service.spec.replicas, canaries_wanted(view, regular, canaries)
    victims = {*_victims(view, regular, len(regular) - wanted), *_victims(view, canaries, len(canaries) - tries)}
    keep = [slot for slot in existing if slot.key not in victims]
    free = _free_slots(slots)
    keep += islice(free, max(0, wanted - len(regular)))
    for slot in islice(free, max(0, tries - len(canaries))):
        slot.canary = True
        keep.append(slot)
    keep.sort(key=lambda slot: slot.key)
    return Choice(tuple(keep), tuple(slot for slot in existing if slot.key in victims))


def choose_nodes(view: View, slots: dict[Key, Slot], departures: Departures) -> Choice:
    """Choose the slots of a global service: the nodes that meet its placement and are not drained.

    On a node that is away, does not answer or is paused the slot stays as it is, but gets no new task. On a drained one
    it stays until the tasks of other services are gone, or the drain's deadline has come.
    """
    keep, keys = [], set()
    for node_id in () if view.service.spec.stopped else sorted(view.nodes):
        node = view.nodes[node_id]
        key = (0, node_id)
        slot = slots.get(key) or Slot(key)
        if not view.node_fits(node_id) or (_is_drained(node) and not _leaves_later(view, slot, departures)):
            continue
        slot.may_create = slot.may_create and _is_open(node)
        keep.append(slot)
        keys.add(key)
    return Choice(tuple(keep), tuple(slot for key, slot in slots.items() if key not in keys))


def _is_drained(node: Node) -> bool:
    return node.spec.availability is Availability.DRAIN


def _leaves_later(view: View, slot: Slot, departures: Departures) -> bool:
    return departures.is_occupied(slot.key[1]) and any(not view.is_overdue(task) for task in slot.live)


def _is_open(node: Node) -> bool:
    answers = node.status.state in (NodeState.READY, NodeState.UNKNOWN)
    return answers and node.spec.availability is Availability.ACTIVE


def _free_slots(slots: dict[Key, Slot]) -> Iterator[Slot]:
    """Yield the slots that do not exist (but may have tasks of a former life ending), the lowest numbers first."""
    for number in count(1):
        slot = slots.get((number, ""))
        if slot is None or not slot.exists:
            yield slot or Slot((number, ""))


def _victims(view: View, slots: list[Slot], count: int) -> Iterable[Key]:
    """Yield the keys of the `count` slots that are missed least."""
    if count <= 0:
        return
    by_use: dict[int, list[Slot]] = {0: [], 1: [], 2: []}
    for slot in slots:
        by_use[_use(view, slot)].append(slot)
    for keys in _highest_first(by_use[0]), _highest_first(by_use[1]), _fullest_first(by_use[2]):
        for key in keys:
            yield key
            count -= 1
            if not count:
                return


def _use(view: View, slot: Slot) -> int:
    """Return 0 for a slot without a live task, 1 for one that does not run, as far as is known, 2 for one that does."""
    if not slot.live:
        return 0
    for task in slot.live:
        if task.status.state is TaskState.RUNNING:
            node = view.nodes.get(task.node_id)
            if node is not None and node.status.state is NodeState.READY:
                return 2
    return 1


def _highest_first(slots: list[Slot]) -> Iterable[Key]:
    return sorted((slot.key for slot in slots), reverse=True)


def _fullest_first(slots: list[Slot]) -> Iterable[Key]:
    """Yield keys, each from the node that then has the most slots left."""
    on_node: dict[str, list[int]] = {}
    for slot in slots:
        on_node.setdefault(_node_of(slot), []).append(slot.key[0])
    heap = []
    for node_id, numbers in on_node.items():
        numbers.sort()
        heap.append((-len(numbers), -numbers[-1], node_id))
    heapq.heapify(heap)
    while heap:
        _, highest, node_id = heapq.heappop(heap)
        yield -highest, ""
        numbers = on_node[node_id]
        numbers.pop()
        if numbers:
            heapq.heappush(heap, (-len(numbers), -numbers[-1], node_id))


def _node_of(slot: Slot) -> str:
    running = next((t for t in slot.live if t.status.state is TaskState.RUNNING), slot.live[0])
    return running.node_id
