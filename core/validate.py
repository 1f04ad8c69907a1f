"""Validation of specs: everything that can be judged without a cluster, all of it at once.

Called by the API before the first write (and by whoever wants to know earlier). Each problem tells where, what is
wrong and what would be right. What needs the cluster (that an image exists, a name is free) the API checks.
"""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Final

from argosy.core.addresses import parse_ipv4, range_problem, subnet_problem
from argosy.core.codec import encode
from argosy.core.constraints import parse_attribute, parse_constraint, parse_spread
from argosy.core.names import alias_problem, host_name_problem, label_key_problem, service_name_problem
from argosy.core.network import LEAST_MTU, MOST_MTU, NetworkSpec
from argosy.core.node import Availability, NodeSpec, Resources
from argosy.core.problem import Problem, Problems, between, check, duration, readable, said, when
from argosy.core.service import (
    Affinity,
    NetworkAttachmentSpec,
    Placement,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateOrder,
)
from argosy.core.units import format_cpus, human_bytes
from argosy.core.validate_availability import availability_problems
from argosy.core.validate_container import container_problems
from argosy.core.validate_job import dependency_problems, job_problems
from argosy.core.validate_ports import ports_problems
from argosy.core.validate_update import leaving_problems, update_problems
from argosy.proto.argosy.v1 import types_pb2

MOST_REPLICAS: Final = 100_000
MOST_SPEC_BYTES: Final = 256 * 1024
"""A rollback joins two specs' parts and stores the result twice, as service and revision, in one transaction of
1.5 MiB: it is the leader's own doing, and must never be too large."""
MOST_AFFINITIES: Final = 32
"""Each costs every placement of the service a look at where the other is."""
MOST_CONSTRAINTS: Final = 100
MOST_PREFERENCES: Final = 8
"""Levels: each divides the nodes of the one before it."""
MOST_CPUS: Final = 8192
LEAST_CPUS: Final = 0.01
"""The kernel's shortest quota, 1 ms in 100 ms (sched-bwc)."""
LEAST_MEMORY: Final = 4 << 20
"""Less than this no program starts in; a smaller number was meant in another unit."""
MOST_PIDS: Final = 1 << 22
"""PID_MAX_LIMIT of 64-bit kernels."""
ROLES: Final = ("worker", "manager")

__all__ = ["Problem", "check", "validate_network", "validate_node_spec", "validate_service"]


def validate_service(spec: ServiceSpec) -> list[Problem]:
    """Return all that is wrong with a service's spec."""
    return list(_service(spec)) or list(_size(spec))


def validate_network(spec: NetworkSpec, avoid: tuple[tuple[str, str], ...] = ()) -> list[Problem]:
    """Return all that is wrong with a network's spec; `avoid`: more (subnet, whose) it must keep clear of."""
    problems = [*said("name", service_name_problem(spec.name)), *_labels(spec.labels, "labels")]
    if spec.subnet:
        problems += said("subnet", subnet_problem(spec.subnet, avoid))
    if spec.ip_range:
        problems += said("ip_range", range_problem(spec.ip_range, spec.subnet))
    if spec.mtu:
        problems += between("mtu", spec.mtu, LEAST_MTU, MOST_MTU, "the MTU")
    return problems


def validate_node_spec(spec: NodeSpec) -> list[Problem]:
    """Return all that is wrong with a node's spec."""
    problems = [*said("name", host_name_problem(spec.name))]
    if spec.role not in ROLES:
        problems.append(Problem("role", f'there is no role "{spec.role}": use {" or ".join(ROLES)}'))
    if spec.availability not in tuple(Availability):
        problems.append(Problem("availability", "use ACTIVE, PAUSE or DRAIN"))
    problems += between("drain.pace", spec.drain.pace, 0, MOST_REPLICAS, "the pace")
    if not math.isfinite(spec.drain.deadline) or spec.drain.deadline < 0:
        problems.append(Problem("drain.deadline", "the deadline is a moment, in seconds since 1970, or 0 for none"))
    for key in spec.labels:
        problems += said(f"labels[{key}]", label_key_problem(key))
    return problems


def _service(spec: ServiceSpec) -> Problems:
    yield from said("name", service_name_problem(spec.name))
    yield from _labels(spec.labels, "labels")
    yield from between("replicas", spec.replicas, 0, MOST_REPLICAS, "the number of replicas")
    yield from when(
        spec.mode is ServiceMode.GLOBAL and spec.replicas > 1,
        "replicas",
        "a global service has one task on every node and no number of replicas: leave it out, or use mode replicated",
    )
    yield from _task(spec.task, "task")
    yield from ports_problems(spec)
    yield from _static_addresses(spec, "task.networks")
    yield from job_problems(spec)
    yield from dependency_problems(spec)
    yield from update_problems(spec)
    yield from availability_problems(spec)


def _size(spec: ServiceSpec) -> Problems:
    size = encode(spec, types_pb2.ServiceSpec).ByteSize()
    yield from when(
        size > MOST_SPEC_BYTES,
        "",
        f"all that is said of it takes {size:,} bytes, and at most {MOST_SPEC_BYTES:,} can be kept: put long values "
        "into configs",
    )


def _labels(labels: Mapping[str, str], where: str) -> Problems:
    yield from when("" in labels, where, "a label needs a key")


def _task(task: TaskSpec, where: str) -> Problems:
    yield from container_problems(task.container, f"{where}.container")
    yield from _resources(task.limits, f"{where}.limits", "limit")
    yield from _resources(task.reservations, f"{where}.reservations", "reservation")
    yield from _reserved_within_limits(task, where)
    yield from _restart(task.restart, f"{where}.restart")
    yield from _placement(task.placement, f"{where}.placement")
    yield from _networks(task.networks, f"{where}.networks")
    yield from leaving_problems(task, where)
    yield from when(task.force_update < 0, f"{where}.force_update", "this counter cannot be negative")


def _resources(resources: Resources, where: str, what: str) -> Problems:
    cpus, memory, pids = resources.cpus, resources.memory_bytes, resources.pids
    if not math.isfinite(cpus) or cpus < 0 or cpus > MOST_CPUS:
        yield Problem(f"{where}.cpus", f"the CPU {what} is {cpus}: use a number from {LEAST_CPUS} to {MOST_CPUS:,}")
    elif 0 < cpus < LEAST_CPUS:
        yield Problem(f"{where}.cpus", f"the CPU {what} is {cpus}: the least that can be had is {LEAST_CPUS}")
    if memory < 0:
        yield Problem(f"{where}.memory_bytes", f"the memory {what} is negative: write it like 512m")
    elif 0 < memory < LEAST_MEMORY:
        yield Problem(
            f"{where}.memory_bytes",
            f"the memory {what} is {human_bytes(memory)}, and nothing runs in less than {human_bytes(LEAST_MEMORY)}: "
            "was another unit meant, such as 512m?",
        )
    yield from between(f"{where}.pids", pids, 0, MOST_PIDS, f"the {what} of processes")


def _reserved_within_limits(task: TaskSpec, where: str) -> Problems:
    limits, reserved = task.limits, task.reservations
    for field, limit, reservation, write in (
        ("cpus", limits.cpus, reserved.cpus, format_cpus),
        ("memory_bytes", float(limits.memory_bytes), float(reserved.memory_bytes), lambda n: human_bytes(int(n))),
        ("pids", float(limits.pids), float(reserved.pids), lambda n: f"{n:,.0f}"),
    ):
        yield from when(
            0 < limit < reservation,
            f"{where}.reservations.{field}",
            f"{write(reservation)} are reserved, but the limit is {write(limit)}: lower the one or raise the other",
        )


def _restart(policy: RestartPolicy, where: str) -> Problems:
    yield from duration(f"{where}.delay", policy.delay, "the restart delay")
    yield from duration(f"{where}.window", policy.window, "the restart window")
    yield from between(f"{where}.max_attempts", policy.max_attempts, 0, 1_000_000, "the number of attempts")


def _placement(placement: Placement, where: str) -> Problems:
    yield from between(
        f"{where}.constraints", len(placement.constraints), 0, MOST_CONSTRAINTS, "the number of constraints"
    )
    yield from between(f"{where}.preferences", len(placement.preferences), 0, MOST_PREFERENCES, "the number of levels")
    for i, text in enumerate(placement.constraints):
        yield from readable(f"{where}.constraints[{i}]", parse_constraint, text)
    for i, preference in enumerate(placement.preferences):
        yield from readable(f"{where}.preferences[{i}]", parse_spread, preference.spread)
    yield from between(
        f"{where}.max_replicas_per_node", placement.max_replicas_per_node, 0, MOST_REPLICAS, "max_replicas_per_node"
    )
    yield from _affinities(placement.affinities, f"{where}.affinities")
    for i, platform in enumerate(placement.platforms):
        yield from when(
            not platform.os and not platform.architecture,
            f"{where}.platforms[{i}]",
            "a platform needs an operating system or an architecture, such as linux/amd64",
        )


def _affinities(affinities: tuple[Affinity, ...], where: str) -> Problems:
    yield from between(where, len(affinities), 0, MOST_AFFINITIES, "the number of affinities")
    for i, affinity in enumerate(affinities):
        if affinity.service:
            yield from said(f"{where}[{i}].service", service_name_problem(affinity.service))
        else:
            yield Problem(f"{where}[{i}].service", "the service's name is missing")
        if affinity.within:
            yield from readable(f"{where}[{i}].within", parse_attribute, affinity.within)
    wanted = Counter((a.service, a.within, a.anti) for a in affinities if not a.preferred)
    for (service, within, anti), count in wanted.items():
        place = within or "the node"
        yield from when(count > 1, where, f"{service} within {place} is named more than once: keep one")
        yield from when(
            not anti and wanted[service, within, True] > 0,
            where,
            f"tasks are to run beside {service} and away from it, both within {place}: take one out, or let one be "
            "preferred only",
        )


def _networks(networks: tuple[NetworkAttachmentSpec, ...], where: str) -> Problems:
    for i, network in enumerate(networks):
        yield from when(not network.target, f"{where}[{i}].target", "the network's name or id is missing")
        for j, alias in enumerate(network.aliases):
            yield from said(f"{where}[{i}].aliases[{j}]", alias_problem(alias))
    for target, count in Counter(n.target for n in networks if n.target).items():
        if count > 1:
            yield Problem(where, f"the network {target} is joined more than once: give all aliases in one place")


def _static_addresses(spec: ServiceSpec, where: str) -> Problems:
    """Two tasks never have one address: so there is one replica, which stops before the next one starts."""
    asking = [i for i, network in enumerate(spec.task.networks) if network.address]
    for i in asking:
        yield from readable(f"{where}[{i}].address", parse_ipv4, spec.task.networks[i].address)
    if not asking:
        return
    first = f"{where}[{asking[0]}].address"
    yield from when(
        spec.mode is not ServiceMode.REPLICATED or spec.replicas > 1,
        first,
        "only a service with one replica can ask for an address: use mode replicated with 1 replica, or leave the "
        "address out and use the service's name",
    )
    yield from when(spec.canary > 0, first, "a canary would need a second address: leave out one of the two")
    yield from when(
        spec.update.order is UpdateOrder.START_FIRST,
        first,
        "with order start-first two tasks would need the address at once: use stop-first",
    )
