"""Which of the nodes that can take a task gets it.

In this order, as Docker Swarm has it (but for the first, which in Swarm is weaker, and the next two, which are ours):

    1. nodes that rejected a task of the service of late, or on which it failed repeatedly, come last
    2. nodes that are known to have the addresses which its ports in host mode name come first
    3. preferred affinities, one after the other: nodes that meet it come first
    4. placement preferences: at each level the label value with the fewest tasks of the service, so that tasks are
       spread evenly over the values, however many nodes each has; nodes without the label are one value more
    5. the fewest tasks of the service
    6. the fewest tasks at all
    7. the lowest node id, so that the same input always gives the same answer

In a cluster that is to be packed, 5 and 6 are the node of which the most is reserved, then the most tasks at all.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from argosy.controller.logic.ask import Ask
from argosy.controller.logic.cluster_view import ClusterView
from argosy.controller.logic.filters import COMPANY, FIXED, VARYING, passing
from argosy.controller.logic.node_set import NodeSet, first, from_positions
from argosy.core.constraints import Attribute
from argosy.core.meta import Scheduling


@dataclass(slots=True)
class _Value:
    """The nodes with one value of a label, with their tasks of the service; `below` is the next level, if used."""

    nodes: NodeSet
    tasks: int = 0
    below: "_Level | None" = None


class _Level:
    """One level of preferences within `nodes`: counts tasks by the values of the first of `attributes`."""

    def __init__(self, view: ClusterView, attributes: tuple[Attribute, ...], nodes: NodeSet, service: str) -> None:
        self._view = view
        self._attribute, self._rest = attributes[0], attributes[1:]
        self._service = service
        self._values: dict[str, _Value] = {}
        for label, members in view.values(self._attribute).items():
            if nodes & members:  # no label and an empty one are the same value
                self._values.setdefault(label or "", _Value(0)).nodes |= nodes & members
        for position, count in view.replicas(service).items():
            info = view.infos[position]
            if info.bit & nodes:
                self._values[self._value_at(position)].tasks += count
        self._by_tasks: dict[int, NodeSet] = {}
        for value in self._values.values():
            self._by_tasks[value.tasks] = self._by_tasks.get(value.tasks, 0) | value.nodes

    def _value_at(self, position: int) -> str:
        return self._attribute.of(self._view.infos[position].node) or ""

    def narrow(self, candidates: NodeSet, best: Callable[[NodeSet], int]) -> NodeSet:
        """Return those of the candidates (not none) that have the value with the fewest tasks, at all levels.

        Of several such values it is the one with the best node.
        """
        for tasks in sorted(self._by_tasks):
            found = candidates & self._by_tasks[tasks]
            if found:
                break
        value = self._values[self._value_at(best(found))]
        found &= value.nodes
        if not self._rest:
            return found
        return self._below(value).narrow(found, best)

    def path_of(self, position: int) -> tuple[int, ...]:
        """Return the numbers of tasks of the values that a node has, level by level."""
        value = self._values[self._value_at(position)]
        if not self._rest:
            return (value.tasks,)
        return (value.tasks, *self._below(value).path_of(position))

    def _below(self, value: _Value) -> "_Level":
        if value.below is None:
            value.below = _Level(self._view, self._rest, value.nodes, self._service)
        return value.below

    def moved(self, position: int, change: int) -> None:
        """Note that the service has so many tasks more at a position."""
        value = self._values[self._value_at(position)]
        left = self._by_tasks[value.tasks] & ~value.nodes
        if left:
            self._by_tasks[value.tasks] = left
        else:
            del self._by_tasks[value.tasks]
        value.tasks += change
        self._by_tasks[value.tasks] = self._by_tasks.get(value.tasks, 0) | value.nodes
        if value.below is not None:
            value.below.moved(position, change)


class Candidates:
    """The nodes that can take tasks of one ask now, best first. Lives for one batch of one revision."""

    def __init__(self, view: ClusterView, ask: Ask) -> None:
        self._view, self._ask = view, ask
        self._allowed = passing(FIXED, ask, view)
        self.nodes = self._allowed & passing(VARYING, ask, view)
        self._shunned = view.shunned(ask.service)
        self._addressed = _addressed(ask, view)
        self._counts = dict(view.replicas(ask.service))
        self._by_count: list[NodeSet] = _by_count(view, self._counts)
        self._level = _Level(view, ask.spread, view.all, ask.service) if ask.spread and view.all else None

    def best(self, last: NodeSet = 0) -> int | None:
        """Return the position of the node that the next task should go to; None when no node can take it.

        `last`: nodes that are only taken where there is no other.
        """
        found = self.nodes & passing(COMPANY, self._ask, self._view)
        if not found:
            return None
        found = found & ~last or found
        found = found & ~self._shunned or found
        found = found & self._addressed or found
        for near in self._ask.affinities:
            if near.preferred:
                there = self._view.near(near)
                found = found & (~there if near.anti else there) or found
        choose = self._fullest if self._view.scheduling is Scheduling.BINPACK else self._emptiest
        if self._level is not None:
            found = self._level.narrow(found, choose)
        return choose(found)

    def takes(self, position: int) -> bool:
        """Whether a node can take a task now."""
        return bool(self.nodes & passing(COMPANY, self._ask, self._view) & self._view.infos[position].bit)

    def prefers(self, position: int, other: int) -> bool:
        """Whether a node is not behind another in what comes before spread (1 to 3 above)."""
        one, two = self._view.infos[position].bit, self._view.infos[other].bit
        ranks = [
            (bool(one & self._shunned), bool(two & self._shunned)),
            (not one & self._addressed, not two & self._addressed),
        ]
        for near in self._ask.affinities:
            if near.preferred:
                there = self._view.near(near)
                ranks.append((bool(one & there) == near.anti, bool(two & there) == near.anti))
        return [mine for mine, _ in ranks] <= [its for _, its in ranks]

    def spread_of(self, position: int) -> tuple[int, ...]:
        """Return how many tasks of the service each label value that a node has, and the node itself, have."""
        levels = self._level.path_of(position) if self._level is not None else ()
        return (*levels, self._counts.get(position, 0))

    def _fullest(self, candidates: NodeSet) -> int:
        for nodes in reversed(self._view.by_load):
            found = candidates & nodes
            if found:
                break
        for nodes in reversed(self._view.by_tasks):
            if found & nodes:
                return first(found & nodes)
        raise AssertionError("a node that is in no count of tasks")

    def _emptiest(self, candidates: NodeSet) -> int:
        for nodes in self._by_count:
            found = candidates & nodes
            if found:
                break
        for nodes in self._view.by_tasks:
            if found & nodes:
                return first(found & nodes)
        raise AssertionError("a node that is in no count of tasks")

    def refresh(self, position: int) -> None:
        """Look again at a node after what is on it changed."""
        info = self._view.infos[position]
        if info.bit & self._allowed and all(f.check(self._ask, self._view, info) for f in VARYING):
            self.nodes |= info.bit
        else:
            self.nodes &= ~info.bit
        before, now = self._counts.get(position, 0), info.services.get(self._ask.service, 0)
        if before == now:
            return
        self._counts[position] = now
        self._by_count[before] &= ~info.bit
        while now >= len(self._by_count):
            self._by_count.append(0)
        self._by_count[now] |= info.bit
        if self._level is not None:
            self._level.moved(position, now - before)


def _addressed(ask: Ask, view: ClusterView) -> NodeSet:
    """Return the nodes that said that they have all addresses which ports in host mode name.

    It is no filter: a host may have got an address just now, and 127.0.0.1 is told by none.
    """
    wanted = {port.host_ip for port in ask.needs.ports if port.host_ip}
    if not wanted:
        return view.all
    return from_positions(i for i, info in enumerate(view.infos) if wanted <= set(info.node.description.addresses))


def _by_count(view: ClusterView, counts: Mapping[int, int]) -> list[NodeSet]:
    """Return, for each number of tasks of a service, the nodes with so many."""
    result = [0] * (max(counts.values(), default=0) + 1)
    result[0] = view.all
    for position, count in counts.items():
        result[0] &= ~view.infos[position].bit
        result[count] |= view.infos[position].bit
    return result
