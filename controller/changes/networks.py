"""Changes of networks: turns a request into store operations.

Creating one takes a VNI and a subnet that no other network has. Two controllers may do that at once, so the operation
also rewrites the Cluster object under its version: of two creations one conflicts and is decided anew.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from argosy.controller.logic.address_pool import AddressPool
from argosy.controller.logic.allocate import choose_subnet, choose_vni
from argosy.controller.logic.mesh_keys import rotated
from argosy.controller.logic.network_mtu import too_large
from argosy.controller.logic.update import rollback_target
from argosy.controller.logic.virtual_addresses import RESERVED
from argosy.controller.store import Claim, Op, Put, Release, Snapshot, create, update
from argosy.core.errors import InvalidError, PreconditionError, about
from argosy.core.meta import Cluster, Meta
from argosy.core.network import SLICE_SIZE, Network, NetworkSpec
from argosy.core.node import Node
from argosy.core.service import Service, TaskSpec, UpdateState
from argosy.core.validate import validate_network

CLUSTER_ID = "cluster"


def check(spec: NetworkSpec) -> None:
    """Refuse a spec that cannot be; all its problems at once."""
    problems = validate_network(spec)
    if problems:
        raise InvalidError(
            f"network {spec.name or '(without a name)'} cannot be accepted",
            tuple((p.where, p.what) for p in problems),
        )


def named_again(network: Network, spec: NetworkSpec, now: float) -> tuple[list[Op], Network, str]:
    """Make a stack's network that exists what its file says now; return also what it stays instead, "" for nothing.

    Labels and the like change, what hosts have built does not. PreconditionError where the file promises that traffic
    is kept in, and the network does not keep it.
    """
    with about("network", spec.name, "encrypted"):
        if spec.encrypted and not network.spec.encrypted:
            raise PreconditionError(_lasting(spec.name, "is not encrypted"))
    with about("network", spec.name, "internal"):
        if spec.internal and not network.spec.internal:
            raise PreconditionError(_lasting(spec.name, "has a way out of the cluster"))
    lasting: list[tuple[str, str | int | bool, str | int | bool]] = [
        ("subnet", network.subnet, spec.subnet or network.subnet),
        ("ip_range", network.spec.ip_range, spec.ip_range),
        ("MTU", network.spec.mtu, spec.mtu),
        ("internal", network.spec.internal, spec.internal),
        ("encrypted", network.spec.encrypted, spec.encrypted),
    ]
    other = [
        f"{what} {_shown(there)} (the file: {_shown(wanted)})" for what, there, wanted in lasting if there != wanted
    ]
    notice = ""
    if other:
        notice = (
            f"network {spec.name} keeps for life what it was made with: {', '.join(other)}; remove the stack and "
            "deploy it again to change that"
        )
    changed = replace(network.spec, labels=spec.labels, attachable=spec.attachable)
    if changed == network.spec:
        return [], network, notice
    network = replace(network, spec=changed, meta=replace(network.meta, updated_at=now))
    return [update(network)], network, notice


def _lasting(name: str, what: str) -> str:
    return (
        f"network {name} exists and {what}, which it keeps for life: remove the stack and deploy it again, or give the "
        "network another key in the file"
    )


def _shown(value: str | int | bool) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value or "none")


def created(
    snap: Snapshot, project: str, specs: Sequence[tuple[str, NetworkSpec]], now: float
) -> tuple[list[Op], list[Network]]:
    """Create networks, given as (id, spec), with VNIs and subnets that are free."""
    if not specs:
        return [], []
    _check_tunnels(snap, (spec for _, spec in specs))
    existing = list(snap.all(Network))
    nodes = list(snap.all(Node))
    underlay = [f"{n.description.underlay_address}/32" for n in nodes if n.description.underlay_address]
    routes = {cidr: f"node {n.spec.name} reaches it by itself" for n in nodes for cidr in n.description.routes}
    cluster = snap.get(Cluster, CLUSTER_ID) or Cluster(Meta(CLUSTER_ID, created_at=now, updated_at=now))
    next_vni = cluster.next_vni
    ops: list[Op] = []
    networks = []
    for network_id, spec in specs:
        with about("network", spec.name):
            _check_mtu(nodes, spec)
        vni = choose_vni((n.vni for n in existing), next_vni)
        next_vni = vni + 1
        with about("network", spec.name, "subnet"):
            try:
                subnet = choose_subnet(spec.subnet, (n.subnet for n in existing), underlay, routes.items())
            except InvalidError as error:
                raise InvalidError(f"network {spec.name} cannot be accepted", error.problems) from None
        network = Network(Meta(network_id, project, created_at=now, updated_at=now), spec, vni, subnet)
        existing.append(network)
        networks.append(network)
        ops += [Claim(Network, project, spec.name, network_id), create(network)]
    changed = replace(cluster, next_vni=next_vni, meta=replace(cluster.meta, updated_at=now))
    if not cluster.mesh.epoch and any(spec.encrypted for _, spec in specs):
        changed = replace(changed, mesh=rotated(cluster.mesh, now))
    return [*ops, Put(changed, expect=cluster.meta.version)], networks


def _check_mtu(nodes: Iterable[Node], spec: NetworkSpec) -> None:
    """Refuse an MTU that a node's link is too narrow for: its packets would never be that large; InvalidError."""
    problem = too_large(spec, nodes)
    if problem:
        raise InvalidError(f"network {spec.name} cannot be accepted", (("mtu", problem),))


def _check_tunnels(snap: Snapshot, specs: Iterable[NetworkSpec]) -> None:
    """Refuse an encrypted network where no node could carry it; PreconditionError."""
    wanted = next((spec for spec in specs if spec.encrypted), None)
    nodes = snap.all(Node)
    if wanted is None or not nodes or any(n.description.tunnels_by for n in nodes):
        return
    reasons = sorted({n.description.no_tunnels or "its agent is too old for it" for n in nodes})
    with about("network", wanted.name, "encrypted"):
        raise PreconditionError(
            f"network {wanted.name} cannot be encrypted: no node can make tunnels: {'; '.join(reasons)}: mend that on "
            "the nodes that are to carry it, and start their agents anew; or create it without encryption"
        )


@dataclass(frozen=True, slots=True)
class Usage:
    """How many of a network's addresses tasks and services hold, of how many; how many slices nodes may yet lease."""

    used: int
    total: int
    slices_free: int


def usage(snap: Snapshot, network: Network) -> Usage:
    """Return how much of a network's address space is used."""
    pool = AddressPool.build(network, snap.slices_of_network(network.meta.id), snap.tasks_on_network(network.meta.id))
    services = sum(a.network_id == network.meta.id for s in snap.all(Service) for a in s.virtual_addresses)
    return Usage(pool.used + services, pool.capacity + SLICE_SIZE - RESERVED, pool.slices_free)


def removed(
    snap: Snapshot, network: Network, now: float, leaving: frozenset[str] = frozenset()
) -> tuple[list[Op], Network]:
    """Begin to remove a network; its name is free at once. PreconditionError while services use it, or may again.

    `leaving`: services that the same request removes.
    """
    if network.removing:
        return [], network
    services = [
        s for s in snap.all(Service, project=network.meta.project) if not s.removing and s.meta.id not in leaving
    ]
    users = sorted(s.spec.name for s in services if _joins(s.spec.task, network))
    if users:
        raise PreconditionError(
            f"network {network.spec.name} is used by {', '.join(users)}: remove these services, or take the network "
            "out of them, first"
        )
    returning = sorted(s.spec.name for s in services if _may_return_to(snap, s, network))
    if returning:
        raise PreconditionError(
            f"network {network.spec.name} is what {', '.join(returning)} may be rolled back to: wait until the update "
            "is over"
        )
    gone = replace(network, removing=True, meta=replace(network.meta, updated_at=now))
    return [update(gone), Release(Network, network.meta.project, network.spec.name, network.meta.id)], gone


def _joins(task: TaskSpec, network: Network) -> bool:
    return any(n.target == network.meta.id for n in task.networks)


def _may_return_to(snap: Snapshot, service: Service, network: Network) -> bool:
    """Whether an update goes on that fails over to a revision which joins the network."""
    if service.update.state not in (UpdateState.UPDATING, UpdateState.PAUSED):
        return False
    target = rollback_target(service, {r.number: r for r in snap.revisions_of_service(service.meta.id)})
    return target is not None and _joins(target.spec.task, network)
