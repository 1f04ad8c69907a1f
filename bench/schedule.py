"""How long placement takes: 10,000 tasks of 250 services onto 5,000 half-full nodes, on one core.

The figure is the time of what the scheduler's loop does for a batch: building the view of the cluster from the
snapshot, then placing. A third of the services wants host ports, a third spreads over zone and rack, constraints match
1 to 90 % of the nodes, some say how many tasks a node may have, and a fifth keeps to or away from others. A leader
builds its view once: what it then costs to follow changes is told beside it. Afterwards a validator that shares no code
with the scheduler looks at every placement: each filter, the room on each node, affinities from both sides, each
refusal, the evenness of each spread.

    .venv/bin/python bench/schedule.py [--nodes 5000] [--tasks 10000] [--services 250] [--runs 5] [--seed 1]
"""

import argparse
import gc
import os
import random
import statistics
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from itertools import combinations

from argosy.controller.logic.cluster_view import ClusterView
from argosy.controller.logic.schedule import Placements, Request, place
from argosy.core.meta import Meta
from argosy.core.node import Availability, Node, NodeDescription, NodeSpec, NodeState, NodeStatus, Platform, Resources
from argosy.core.service import Affinity, HostPort, Placement, SpreadPreference, TaskSpec
from argosy.core.task import Task, TaskStatus
from argosy.core.task_state import TaskState

LIMIT_S = 2.0
GIB = 1 << 30
CPUS, MEMORY = 32, 128 * GIB
SIZES = ((0.25, GIB // 2), (0.5, GIB), (1.0, 2 * GIB), (2.0, 8 * GIB), (4.0, 16 * GIB))
PERCENTS = (1, 5, 10, 25, 50, 75, 90)
PLACES = ("", "node.labels.rack", "node.labels.zone")
Specs = dict[tuple[str, int], TaskSpec]


@dataclass(frozen=True)
class Scene:
    """A cluster and what it is asked to place."""

    nodes: list[Node]
    tasks: list[Task]
    specs: Specs
    requests: list[Request]


def scene(rng: random.Random, nodes: int, tasks: int, services: int) -> Scene:
    """Make up a cluster whose nodes are half full, and requests for it."""
    hosts = [_node(rng, i) for i in range(nodes)]
    specs: Specs = {}
    running = _running(rng, hosts, specs)
    requests = []
    per_service = _portions(rng, tasks, services)
    for index, count in enumerate(per_service):
        service = f"new{index:05d}"
        spec = specs[service, 1] = _spec(rng, index, count, nodes)
        requests += [Request(f"{service}-{slot:05d}", service, 1, spec) for slot in range(count)]
    return Scene(hosts, running, specs, requests)


def _node(rng: random.Random, index: int) -> Node:
    zone = rng.choice("abcde")
    labels = {"zone": zone, "rack": f"{zone}{rng.randrange(40):02d}"}
    labels |= {f"in-{percent}": "yes" for percent in PERCENTS if rng.random() * 100 < percent}
    if rng.random() < 0.5:
        labels["disk"] = rng.choice(("ssd", "nvme"))
    state = NodeState.DOWN if rng.random() < 0.01 else NodeState.READY
    drained = Availability.DRAIN if rng.random() < 0.01 else Availability.ACTIVE
    arch = "arm64" if rng.random() < 0.2 else "amd64"
    return Node(
        Meta(f"n{index:06d}"),
        NodeSpec(f"host-{index}", "worker", drained, labels),
        NodeDescription(f"host-{index}", Platform("linux", arch), Resources(CPUS, MEMORY)),
        NodeStatus(state),
    )


def _running(rng: random.Random, nodes: list[Node], specs: Specs) -> list[Task]:
    for index in range(400):
        cpus, memory = SIZES[index % len(SIZES)]
        ports = (HostPort("tcp", 10000 + index % 40),) if index % 5 == 0 else ()
        specs[f"old{index:04d}", 1] = TaskSpec(reservations=Resources(cpus, memory), host_ports=ports)
    tasks: list[Task] = []
    for node in nodes:
        cpus_left, memory_left = CPUS / 2, MEMORY / 2
        taken: set[HostPort] = set()
        while cpus_left > 0 and memory_left > 0:
            service = f"old{rng.randrange(400):04d}"
            spec = specs[service, 1]
            if taken.isdisjoint(spec.host_ports):
                cpus_left -= spec.reservations.cpus
                memory_left -= spec.reservations.memory_bytes
                taken.update(spec.host_ports)
                meta = Meta(f"t{len(tasks):07d}", "default")
                status = TaskStatus(TaskState.RUNNING)
                tasks.append(Task(meta, service, 1, node.meta.id, 1, TaskState.RUNNING, status))
    return tasks


def _portions(rng: random.Random, tasks: int, services: int) -> list[int]:
    """Return sizes of services that sum to `tasks`: many small ones, a few large ones."""
    weights = [rng.paretovariate(1.2) for _ in range(services)]
    sizes = [max(1, int(tasks * w / sum(weights))) for w in weights]
    sizes[0] += tasks - sum(sizes)
    return sizes


def _spec(rng: random.Random, index: int, count: int, nodes: int) -> TaskSpec:
    cpus, memory = rng.choice(SIZES)
    constraints = [f"node.labels.in-{rng.choice(PERCENTS)} == yes"] if index % 2 else []
    if index % 4 == 0:
        constraints.append(
            rng.choice(("node.labels.disk == ssd", "node.labels.zone != a", "node.platform.arch == amd64"))
        )
    spread = (SpreadPreference("node.labels.zone"), SpreadPreference("node.labels.rack")) if index % 3 == 0 else ()
    ports = (HostPort("tcp", 10000 + rng.randrange(40)),) if index % 3 == 1 else ()
    most = 1 + count * 20 // nodes if index % 7 == 0 else 0
    platforms = (Platform("linux", "amd64"),) if index % 5 == 0 else ()
    return TaskSpec(
        reservations=Resources(cpus, memory),
        placement=Placement(tuple(constraints), spread, most, platforms, _affinities(index, count)),
        host_ports=ports,
    )


def _affinities(index: int, count: int) -> tuple[Affinity, ...]:
    match index % 10:
        case 1:
            return (Affinity(f"new{index:05d}", anti=True),)
        case 3:
            return (Affinity(f"new{index:05d}", anti=True, within="node.labels.rack"),) if count < 100 else ()
        case 5:
            near, away = f"old{index % 400:04d}", f"old{(index + 7) % 400:04d}"
            return (Affinity(near, within="node.labels.rack"), Affinity(away, anti=True))
        case 7:
            return (Affinity(f"new{index - 1:05d}", anti=True), Affinity(f"old{index:04d}", preferred=True))
        case _:
            return ()


class Cluster:
    """The validator's own account of a cluster: plain loops, nothing of the scheduler's."""

    def __init__(self, made: Scene) -> None:
        self.nodes = {n.meta.id: n for n in made.nodes}
        self.specs = made.specs
        self.cpus: Counter[str] = Counter()
        self.memory: Counter[str] = Counter()
        self.ports: defaultdict[str, list[HostPort]] = defaultdict(list)
        self.replicas: Counter[tuple[str, str]] = Counter()
        self.near: Counter[tuple[str, str, str]] = Counter()  # tasks of a service within a place of some sort
        self.repelled: Counter[tuple[str, str, str]] = Counter()  # tasks that keep a service away from a place
        for task in made.tasks:
            self.add(task.service_id, task.node_id)

    def add(self, service: str, node: str) -> None:
        """Count one task."""
        spec = self.specs[service, 1]
        self.cpus[node] += round(spec.reservations.cpus * 1000)
        self.memory[node] += spec.reservations.memory_bytes
        self.ports[node] += spec.host_ports
        self.replicas[service, node] += 1
        for within in PLACES:
            self.near[service, within, self.place(node, within)] += 1
        for wish in spec.placement.affinities:
            if wish.anti and not wish.preferred:
                self.repelled[wish.service, wish.within, self.place(node, wish.within)] += 1

    def place(self, node: str, within: str) -> str:
        """Return what a node has in common with those near it."""
        value = self.nodes[node].spec.labels.get(within.removeprefix("node.labels.")) if within else None
        return node if value is None else f"={value}"

    def company_problem(self, service: str, node: str, own: int) -> str:
        """Say which affinity does not hold on a node that has `own` tasks of the service in question."""
        for wish in self.specs[service, 1].placement.affinities:
            place = self.place(node, wish.within)
            there = self.near[wish.service, wish.within, place] - (own if wish.service == service else 0)
            if not wish.preferred and (there > 0) == wish.anti:
                return f"{there} tasks of {wish.service} within {place}"
        for within in PLACES:
            place = self.place(node, within)
            itself = any(
                w.service == service and w.within == within and w.anti
                for w in self.specs[service, 1].placement.affinities
            )
            if self.repelled[service, within, place] - (own if itself else 0) > 0:
                return f"it is kept away from {place}"
        return ""

    def static_problem(self, spec: TaskSpec, node: Node) -> str:
        """Say why the node can never run the task, or ""."""
        if node.status.state is not NodeState.READY or node.spec.availability is not Availability.ACTIVE:
            return "not ready or not active"
        if spec.placement.platforms and node.description.platform not in spec.placement.platforms:
            return "another platform"
        for constraint in spec.placement.constraints:
            name, operator, value = constraint.split()
            label = name.removeprefix("node.labels.")
            have = node.description.platform.architecture if "platform" in name else node.spec.labels.get(label)
            if (have == value) != (operator == "=="):
                return f"against {constraint}"
        return ""

    def could_take(self, service: str, node: Node) -> bool:
        """Whether one more task of the service would go onto the node as things are."""
        spec, node_id = self.specs[service, 1], node.meta.id
        most = spec.placement.max_replicas_per_node
        return (
            not self.static_problem(spec, node)
            and self.cpus[node_id] + round(spec.reservations.cpus * 1000) <= CPUS * 1000
            and self.memory[node_id] + spec.reservations.memory_bytes <= MEMORY
            and not any(_collide(port, other) for port in spec.host_ports for other in self.ports[node_id])
            and (not most or self.replicas[service, node_id] < most)
            and not self.company_problem(service, node_id, 0)
        )

    def overfull(self) -> list[str]:
        """Return what is oversubscribed."""
        found = [f"{n}: {c / 1000} CPUs reserved" for n, c in self.cpus.items() if c > CPUS * 1000]
        found += [f"{n}: {m} bytes reserved" for n, m in self.memory.items() if m > MEMORY]
        for node, ports in self.ports.items():
            found += [f"{node}: {one} beside {other}" for one, other in combinations(ports, 2) if _collide(one, other)]
        for (service, node), count in self.replicas.items():
            most = self.specs[service, 1].placement.max_replicas_per_node
            if most and count > most:
                found.append(f"{node}: {count} tasks of {service}, at most {most}")
        return found


def _collide(one: HostPort, other: HostPort) -> bool:
    everywhere = not one.host_ip or not other.host_ip
    return (one.protocol, one.port) == (other.protocol, other.port) and (everywhere or one.host_ip == other.host_ip)


def problems(made: Scene, result: Placements) -> list[str]:
    """Return everything that is wrong with an outcome."""
    cluster, found = Cluster(made), []
    for request in made.requests:
        node_id = result.assigned.get(request.task_id)
        if (node_id is None) == (request.task_id not in result.refused):
            found.append(f"{request.task_id}: not answered exactly once")
        elif node_id is not None:
            problem = cluster.static_problem(request.spec, cluster.nodes[node_id])
            found += [f"{request.task_id} on {node_id}: {problem}"] if problem else []
            cluster.add(request.service_id, node_id)
    found += cluster.overfull()
    for request in made.requests:
        node_id = result.assigned.get(request.task_id)
        problem = cluster.company_problem(request.service_id, node_id, 1) if node_id is not None else ""
        found += [f"{request.task_id} on {node_id}: {problem}"] if problem else []
    for service in sorted({r.service_id for r in made.requests if r.task_id in result.refused}):
        found += [f"{service} refused, {n.meta.id} could" for n in made.nodes if cluster.could_take(service, n)]
    return found + _uneven(made, cluster)


def _uneven(made: Scene, cluster: Cluster) -> list[str]:
    """Return services that are spread by more than one although every candidate has room, and none is preferred."""
    found: list[str] = []
    for service, spec in sorted({r.service_id: r.spec for r in made.requests}.items()):
        candidates = [n for n in made.nodes if not cluster.static_problem(spec, n)]
        prefers = any(wish.preferred for wish in spec.placement.affinities)
        if prefers or not candidates or not all(cluster.could_take(service, n) for n in candidates):
            continue
        groups: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
        for node in candidates:
            labels = [p.spread.removeprefix("node.labels.") for p in spec.placement.preferences]
            path = tuple(node.spec.labels.get(label, "") for label in labels)
            groups[path].append(cluster.replicas[service, node.meta.id])
        if any(max(counts) - min(counts) > 1 for counts in groups.values()):
            found.append(f"{service}: uneven over nodes")
        for depth in range(len(spec.placement.preferences)):
            sums: defaultdict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
            for path, counts in groups.items():
                sums[path[:depth]][path[depth]] += sum(counts)
            if any(max(c.values()) - min(c.values()) > 1 for c in sums.values()):
                found.append(f"{service}: uneven over {spec.placement.preferences[depth].spread}")
    return found


def run(made: Scene) -> tuple[float, float, Placements]:
    """Return seconds for the view and for placing, and the outcome."""
    gc.collect()
    began = time.process_time()
    view = ClusterView.build(made.nodes, made.tasks, made.specs)
    built = time.process_time()
    result = place(made.requests, view)
    return built - began, time.process_time() - built, result


def follow(made: Scene) -> float:
    """Return seconds for a leader's view to follow a change of every hundredth node and task, for each change."""
    view = ClusterView.build(made.nodes, made.tasks, made.specs)
    changes = 0
    began = time.process_time()
    for node in made.nodes[::100]:
        view.put_node(replace(node, status=NodeStatus(NodeState.DOWN)))
        changes += 1
    for task in made.tasks[::100]:
        view.put(replace(task, status=TaskStatus(TaskState.FAILED)))
        changes += 1
    return (time.process_time() - began) / changes


def main() -> int:
    """Run, check, print; 1 when a placement is wrong or it took too long."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, default in (("nodes", 5000), ("tasks", 10_000), ("services", 250), ("runs", 5), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    made = scene(random.Random(options.seed), options.nodes, options.tasks, options.services)
    timed = [run(made) for _ in range(options.runs)]
    view_s, place_s = statistics.median(t[0] for t in timed), statistics.median(t[1] for t in timed)
    total_s = statistics.median(t[0] + t[1] for t in timed)
    result = timed[0][2]
    wrong = problems(made, result)
    if any(other[2] != result for other in timed[1:]):
        wrong.append("the same input gave another outcome")
    print(f"nodes {len(made.nodes):,}  running tasks {len(made.tasks):,}  services {options.services:,}")
    print(f"requests {len(made.requests):,}: placed {len(result.assigned):,}, refused {len(result.refused):,}")
    print(f"view of the snapshot {view_s:.3f} s, placing {place_s:.3f} s, together {total_s:.3f} s of CPU time", end="")
    print(f" (median of {options.runs})")
    print(
        f"placements a second {len(made.requests) / total_s:,.0f}; limit {LIMIT_S} s: {total_s / LIMIT_S:.2f} of it; ",
        end="",
    )
    print(f"load {os.getloadavg()[0]:.2f}")
    print(f"a change of a node or task followed in {follow(made) * 1e6:.0f} us")
    reasons = Counter(result.refused.values())
    for reason, count in reasons.most_common(3):
        print(f"  refused {count}: {reason[:150]}")
    for problem in wrong[:20]:
        print(f"WRONG: {problem}")
    print("validator: " + (f"{len(wrong)} problems" if wrong else "all placements, refusals and spreads are right"))
    return 1 if wrong or total_s > LIMIT_S else 0


if __name__ == "__main__":
    sys.exit(main())
