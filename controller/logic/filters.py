"""The scheduler's filters: each knows which nodes can take a task, and can say why the others cannot.

A filter answers twice: `nodes` for the whole cluster at once, as a set, and `check` for one node. Tests hold the two
together. `explain` puts nodes that it refused into words. Order matters for explanations only: a node is counted
under the first filter that refuses it, so what an operator can see at a glance comes first.

FIXED filters depend on the node alone, or on what stays while a batch is placed, VARYING ones also on what has been
placed on it, COMPANY on what has been placed on any node of the same place.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol, TypeVar

from argosy.controller.logic.ask import Ask, Near, makes_tunnels, oci_platform, platform_of
from argosy.controller.logic.cluster_view import ClusterView, NodeInfo
from argosy.controller.logic.node_set import NodeSet, positions
from argosy.controller.logic.refusals import Refusal, count_nodes, every_node, sentence, state_refusal
from argosy.core.constraints import parse_constraints
from argosy.core.errors import InvalidError
from argosy.core.node import Availability, Node, NodeState, Platform
from argosy.core.ports import said
from argosy.core.service import Placement
from argosy.core.units import format_cpus, from_nano_cpus, human_bytes


class Filter(Protocol):
    """One reason for which a node may not be able to take a task."""

    def nodes(self, ask: Ask, view: ClusterView) -> NodeSet:
        """Return the nodes that pass."""

    def check(self, ask: Ask, view: ClusterView, info: NodeInfo) -> bool:
        """Whether one node passes."""

    def explain(self, ask: Ask, view: ClusterView, refused: NodeSet) -> list[Refusal]:
        """Say why nodes that did not pass (at least one) did not; each is counted once."""


Key = TypeVar("Key")


def _by_word(words: Mapping[Key, str], groups: Mapping[Key, NodeSet], refused: NodeSet) -> list[Refusal]:
    counts = [(word, (groups.get(key, 0) & refused).bit_count()) for key, word in words.items()]
    return [state_refusal(count, word) for word, count in counts if count]


class NodeIsReady:
    """The leader hears from the node's agent."""

    _WORDS: Final = {
        NodeState.UNKNOWN: "not heard from yet",
        NodeState.AGENT_LOST: "without an agent",
        NodeState.DOWN: "down",
    }

    def nodes(self, ask: Ask, view: ClusterView) -> NodeSet:
        return view.by_state.get(NodeState.READY, 0)

    def check(self, ask: Ask, view: ClusterView, info: NodeInfo) -> bool:
        return info.node.status.state is NodeState.READY

    def explain(self, ask: Ask, view: ClusterView, refused: NodeSet) -> list[Refusal]:
        return _by_word(self._WORDS, view.by_state, refused)


class NodeIsActive:
    """The operator lets the scheduler use the node."""

    _WORDS: Final = {Availability.PAUSE: "paused", Availability.DRAIN: "drained"}

    def nodes(self, ask: Ask, view: ClusterView) -> NodeSet:
        return view.by_availability.get(Availability.ACTIVE, 0)

    def check(self, ask: Ask, view: ClusterView, info: NodeInfo) -> bool:
        return info.node.spec.availability is Availability.ACTIVE

    def explain(self, ask: Ask, view: ClusterView, refused: NodeSet) -> list[Refusal]:
        return _by_word(self._WORDS, view.by_availability, refused)


def _covered(wanted: Sequence[Platform], have: Platform) -> bool:
    """Whether a node's platform is among the wanted ones; what a wanted one leaves empty may be anything."""
    return not wanted or any(p.os in ("", have.os) and p.architecture in ("", have.architecture) for p in wanted)


def _platform_name(platform: Platform) -> str:
    return f"{platform.os or 'any'}/{platform.architecture or 'any'}"


class PlatformFits:
    """The image is made for the node's operating system and architecture."""

    def nodes(self, ask: Ask, view: ClusterView) -> NodeSet:
        result = 0
        for platform, nodes in view.by_platform.items():
            if _covered(ask.platforms, platform):
                result |= nodes
        return result

    def check(self, ask: Ask, view: ClusterView, info: NodeInfo) -> bool:
        return _covered(ask.platforms, platform_of(info.node))

    def explain(self, ask: Ask, view: ClusterView, refused: NodeSet) -> list[Refusal]:
        wanted = " or ".join(map(_platform_name, ask.platforms))
        there = ", ".join(sorted(_platform_name(p) for p, nodes in view.by_platform.items() if nodes & refused))
        number = refused.bit_count()
        return [
            Refusal(
                number,
                f"is {there}, and the image is for {wanted}",
                f"are {there}, and the image is for {wanted}",
                f"no node has the image's platform {wanted} (0 of {number:,}; there is {there})",
            )
        ]


class MeetsConstraints:
    """All placement constraints hold."""

    def nodes(self, ask: Ask, view: ClusterView) -> NodeSet:
        result = view.all
        for constraint in ask.constraints:
            result &= view.meeting(constraint)
        return result

    def check(self, ask: Ask, view: ClusterView, info: NodeInfo) -> bool:
        return all(constraint.matches(info.node) for constraint in ask.constraints)

    def explain(self, ask: Ask, view: ClusterView, refused: NodeSet) -> list[Refusal]:
        refusals = []
        for constraint in ask.constraints:
            broken = refused & ~view.meeting(constraint)
            count = broken.bit_count()
            if count:
                words = f"meet {constraint}"
                every = f"no node meets {constraint} (0 of {count:,})"
                refusals.append(Refusal(count, f"does not {words}", f"do not {words}", every))
                refused &= ~broken
        return refusals


class MakesTunnels:
    """The node can carry the encrypted networks among the task's."""

    def nodes(self, ask: Ask, view: ClusterView) -> NodeSet:
        return view.all if ask.networks.isdisjoint(view.encrypted) else view.by_tunnels.get(True, 0)

    def check(self, ask: Ask, view: ClusterView, info: NodeInfo) -> bool:
        return ask.networks.isdisjoint(view.encrypted) or makes_tunnels(info.node)

    def explain(self, ask: Ask, view: ClusterView, refused: NodeSet) -> list[Refusal]:
        about = (view.infos[position].node.description for position in positions(refused))
        reasons = sorted({a.no_tunnels or "its agent is too old for it" for a in about})
        words = f"carry the encrypted network: {'; '.join(reasons)}"
        return [Refusal(refused.bit_count(), f"cannot {words}", f"cannot {words}", f"no node can {words}")]


class HasAddresses:
    """The node can have an address on each network: one is left in its slices, or it can lease one more."""

    def nodes(self, ask: Ask, view: ClusterView) -> NodeSet:
        result = view.all
        for network_id in ask.leasing:
            result &= view.shortage(network_id)[0]
        return result

    def check(self, ask: Ask, view: ClusterView, info: NodeInfo) -> bool:
        return all(info.bit & view.shortage(network_id)[0] for network_id in ask.leasing)

    def explain(self, ask: Ask, view: ClusterView, refused: NodeSet) -> list[Refusal]:
        refusals = []
        for network_id in sorted(ask.leasing):
            there, reason = view.shortage(network_id)
            without = refused & ~there
            if without:
                words = f"no address ({reason})"
                refusals.append(Refusal(without.bit_count(), f"can have {words}", f"can have {words}", reason))
                refused &= ~without
        return refusals


class HasCompany:
    """Required affinities and anti-affinities hold: the task's own, and those of tasks that are there already.

    A service that wants to be near itself may begin anywhere.
    """

    def nodes(self, ask: Ask, view: ClusterView) -> NodeSet:
        result = view.all & ~view.repelled(ask.service)
        for near in ask.affinities:
            if not near.preferred and not _is_first(near, ask, view):
                result &= ~view.near(near) if near.anti else view.near(near)
        return result

    def check(self, ask: Ask, view: ClusterView, info: NodeInfo) -> bool:
        return bool(self.nodes(ask, view) & info.bit)

    def explain(self, ask: Ask, view: ClusterView, refused: NodeSet) -> list[Refusal]:
        refusals = []
        for near in ask.affinities:
            if near.preferred or _is_first(near, ask, view):
                continue
            there = view.near(near)
            wrong = refused & (there if near.anti else ~there)
            if wrong:
                refusals.append(_company(wrong.bit_count(), near))
                refused &= ~wrong
        if refused:
            words = "a task that keeps this service away"
            refusals.append(_having(refused.bit_count(), words))
        return refusals


def _is_first(near: Near, ask: Ask, view: ClusterView) -> bool:
    return not near.anti and near.service == ask.service and not view.is_there(near.service)


def _company(number: int, near: Near) -> Refusal:
    name = near.service.rpartition("/")[2]
    beside = f" in its {near.within}" if near.within is not None else ""
    if near.anti:
        return _having(number, f"a task of {name}{beside}, which this service keeps away from")
    words = f"no task of {name}{beside}, which this service runs beside"
    return Refusal(number, f"has {words}", f"have {words}", f"no node has a task of {name}{beside} to run beside")


def _having(number: int, words: str) -> Refusal:
    have = "has" if number == 1 else "have"
    return Refusal(number, f"has {words}", f"have {words}", f"{every_node(number)} {have} {words}")


class BelowMaximum:
    """The node has fewer tasks of the service than max_replicas_per_node."""

    def nodes(self, ask: Ask, view: ClusterView) -> NodeSet:
        result = view.all
        if ask.max_per_node:
            for position, count in view.replicas(ask.service).items():
                if count >= ask.max_per_node:
                    result &= ~view.infos[position].bit
        return result

    def check(self, ask: Ask, view: ClusterView, info: NodeInfo) -> bool:
        return not ask.max_per_node or info.services.get(ask.service, 0) < ask.max_per_node

    def explain(self, ask: Ask, view: ClusterView, refused: NodeSet) -> list[Refusal]:
        tasks = f"{ask.max_per_node} task{'s' if ask.max_per_node > 1 else ''} of this service"
        limit = f"max_replicas_per_node is {ask.max_per_node}"
        number = refused.bit_count()
        return [
            Refusal(
                number,
                f"already has {tasks} ({limit})",
                f"already have {tasks} ({limit})",
                f"{every_node(number)} already {'has' if number == 1 else 'have'} {tasks} ({limit})",
            )
        ]


class PortsAreFree:
    """No other task on the node has one of the host ports."""

    def nodes(self, ask: Ask, view: ClusterView) -> NodeSet:
        result = view.all
        for port in ask.needs.ports:
            result &= ~view.with_port(port)
        return result

    def check(self, ask: Ask, view: ClusterView, info: NodeInfo) -> bool:
        return not any(info.ports.get(mark) for port in ask.needs.ports for mark in port.obstacles())

    def explain(self, ask: Ask, view: ClusterView, refused: NodeSet) -> list[Refusal]:
        refusals = []
        for port in ask.needs.ports:
            taken = refused & view.with_port(port)
            count = taken.bit_count()
            if count:
                name, every = said(port.protocol, port.number, port.host_ip), every_node(count)
                words = f"no port {name} left"
                refusals.append(Refusal(count, f"has {words}", f"have {words}", f"port {name} is taken on {every}"))
                refused &= ~taken
        return refusals


class RoomIsLeft:
    """What the task reserves is not reserved by others."""

    def nodes(self, ask: Ask, view: ClusterView) -> NodeSet:
        return view.roomy(ask.needs.room)

    def check(self, ask: Ask, view: ClusterView, info: NodeInfo) -> bool:
        return info.has_room(ask.needs.room)

    def explain(self, ask: Ask, view: ClusterView, refused: NodeSet) -> list[Refusal]:
        cpus, memory, pids = ask.needs.room
        infos = [view.infos[position] for position in positions(refused)]
        no_cpu = [i.cpus for i in infos if cpus and i.cpus < cpus]
        rest = [i for i in infos if not (cpus and i.cpus < cpus)]
        no_memory = [i.memory for i in rest if memory and i.memory < memory]
        no_pids = [i.pids for i in rest if not (memory and i.memory < memory)]
        unit = "CPU" if cpus == 1_000_000_000 else "CPUs"
        refusals = [
            (no_cpu, f"{_cpus(cpus)} {unit}", _cpus),
            (no_memory, f"{human_bytes(memory)} of memory", human_bytes),
            (no_pids, f"{pids:,} processes (pids)", lambda n: f"{n:,}"),
        ]
        return [_lack(free, what, write) for free, what, write in refusals if free]


def _cpus(nano: int) -> str:
    return format_cpus(from_nano_cpus(nano))


def _lack(free: list[int], what: str, write: Callable[[int], str]) -> Refusal:
    # Overdrawn (a task that replaces another is counted beside it) reads as nothing left.
    most = write(max(0, *free))
    return Refusal(
        len(free),
        f"lacks {what} ({most} free)",
        f"lack {what} (most free {most})",
        f"no node has {what} free: {count_nodes(len(free))}, most free {most}",
    )


FIXED: Final[tuple[Filter, ...]] = (
    NodeIsReady(),
    NodeIsActive(),
    PlatformFits(),
    MeetsConstraints(),
    MakesTunnels(),
    HasAddresses(),
)
COMPANY: Final[tuple[Filter, ...]] = (HasCompany(),)
VARYING: Final[tuple[Filter, ...]] = (BelowMaximum(), PortsAreFree(), RoomIsLeft())
FILTERS: Final = FIXED + COMPANY + VARYING


def passing(filters: Sequence[Filter], ask: Ask, view: ClusterView) -> NodeSet:
    """Return the nodes that pass all of `filters`."""
    result = view.all
    for one in filters:
        result &= one.nodes(ask, view)
    return result


def explain(ask: Ask, view: ClusterView) -> str:
    """Say why no node can take a task of `ask`."""
    remaining, refusals = view.all, list[Refusal]()
    for one in FILTERS:
        refused = remaining & ~one.nodes(ask, view)
        if refused:
            refusals += one.explain(ask, view, refused)
            remaining &= ~refused
    return sentence(refusals, len(view.infos))


def refusal_of(ask: Ask, view: ClusterView, position: int) -> Refusal | None:
    """Return why one node cannot take a task of `ask`, or None when it can."""
    info = view.infos[position]
    for one in FILTERS:
        if not one.check(ask, view, info):
            return one.explain(ask, view, info.bit)[0]
    return None


def fits_placement(placement: Placement) -> Callable[[Node], bool]:
    """Return the test whether a node meets constraints and platforms, whatever its state and what is free on it."""
    try:
        constraints = parse_constraints(placement.constraints)
    except InvalidError:
        return lambda node: False
    platforms = [oci_platform(platform) for platform in placement.platforms]
    return lambda node: all(c.matches(node) for c in constraints) and _covered(platforms, platform_of(node))
