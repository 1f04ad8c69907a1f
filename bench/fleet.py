"""One leader and 5,000 agents: does it hold all sessions, and what does it cost when nothing happens?

    .venv/bin/python bench/fleet.py [--agents 5000] [--tasks 100000] [--services 1000] [--networks 200] [--calm 30]
                                    [--update 1000] [--processes 1]

A real etcd, a real controller process and, from other processes, as many real gRPC sessions as there are agents: each
says hello, beats as the controller asks it to (so does its host), acknowledges what it is assigned, and reports every
task RUNNING as soon as it has it (a bench of the controller: no agent runs a container). Then, in this order: all tasks
are made and run; a calm time, in which the leader's processor time is taken; a rolling update of one service of
--update tasks while the rest goes on.

Services are in stacks: each network has as many services on it, and the one that is updated is on the first, with the
others. A session counts as held when it was never opened a second time; a heartbeat as in time when it is answered
before the next is due. No peer prints these figures; Kubernetes states 5,000 nodes and 150,000 pods as its limit
(docs/peers).
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from _fleet_agents import Tally  # beside this file

from argosy.proto.argosy.v1 import control_pb2 as cpb
from argosy.proto.argosy.v1 import control_pb2_grpc
from argosy.proto.argosy.v1 import types_pb2 as tpb

PROJECT = Path(__file__).resolve().parent.parent
ETCD = "/opt/argosy/etcd/bin/etcd"
TICK_S = os.sysconf("SC_CLK_TCK")


class Fleet:
    """The processes of the agents."""

    def __init__(self, address: str, number: int, processes: int, children: list[subprocess.Popen[Any]]) -> None:
        each = -(-number // processes)
        program = [sys.executable, str(Path(__file__).with_name("_fleet_agents.py")), address]
        self._children = [
            subprocess.Popen(
                [*program, str(first), str(min(each, number - first))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for first in range(0, number, each)
        ]
        children += self._children

    def tally(self) -> Tally:
        """Return what all agents have seen."""
        total = Tally()
        for child in self._children:
            assert child.stdin
            child.stdin.write("\n")
            child.stdin.flush()
        for child in self._children:
            assert child.stdout
            total.add(Tally(**json.loads(child.stdout.readline())))
        return total


def cpu_s(pid: int) -> float:
    """Return the processor time that a process has used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK_S


def memory_mib(pid: int) -> float:
    """Return the resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def free_port() -> int:
    """Return a port of loopback that nothing listens on."""
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float) -> float:
    """Wait for a condition and return how long it took; SystemExit when it does not come."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > timeout_s:
            raise SystemExit(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.2)
    return time.monotonic() - began


def service(number: int, replicas: int, network: str) -> cpb.CreateServiceRequest:
    """Return one of the services: some with constraints, some spread; on a network, if it is given."""
    spec = tpb.ServiceSpec(name=f"s{number}", replicas=replicas)
    spec.task.container.image = "fleet:1"
    spec.task.reservations.cpus = 0.05
    spec.task.reservations.memory_bytes = 16 << 20
    spec.update.parallelism = 50
    spec.update.order = tpb.UPDATE_ORDER_START_FIRST
    spec.rollback.parallelism = 1
    if network:
        spec.task.networks.add(target=network)
    if number % 4 == 1:
        spec.task.placement.constraints.append(f"node.labels.zone != z{number % 10}")
    if number % 4 == 2:
        spec.task.placement.preferences.add(spread="node.labels.zone")
    return cpb.CreateServiceRequest(project="default", spec=spec)


def main() -> int:
    """Run the bench; 1 when a session was lost, a heartbeat late, or the calm leader took more than a core."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--agents", type=int, default=5000)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--networks", type=int, default=200, help="that the services share out; 0: none")
    parser.add_argument("--calm", type=float, default=30.0, help="seconds")
    parser.add_argument("--update", type=int, default=1000, help="tasks of the service that is updated")
    parser.add_argument("--processes", type=int, default=1, help="that the agents are in")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what it started ends with it
    with tempfile.TemporaryDirectory() as work:
        children: list[subprocess.Popen[Any]] = []
        try:
            return 0 if run(Path(work), options, children) else 1
        finally:
            for child in reversed(children):
                child.terminate()
                child.wait(30)


def run(work: Path, options: argparse.Namespace, children: list[subprocess.Popen[Any]]) -> bool:
    """Start everything, measure and print; return whether all was held."""
    leader = Leader(work, children)
    print(f"load before {os.getloadavg()[0]:.2f}, {os.cpu_count()} processors; leader's memory {leader.memory()}")
    fleet = gather(leader, options, children)
    come_up(leader, fleet, options)
    cores = rest(leader, fleet, options.calm)
    update(leader, options.update)
    last = fleet.tally()
    print(
        f"sessions opened again: {last.opened - options.agents}; heartbeats answered late: {last.late} of "
        f"{last.beats}; errors {last.errors or 'none'}; memory {leader.memory()}; load {os.getloadavg()[0]:.2f}"
    )
    if said := (work / "controller.log").read_text():
        print(f"the controller said: {said[-2000:]}")
    return last.opened == options.agents and last.late == 0 and cores <= 1.0


class Leader:
    """A controller with an etcd of its own, and the image that the tasks name."""

    def __init__(self, work: Path, children: list[subprocess.Popen[Any]]) -> None:
        etcd = start_etcd(work, children)
        self.address = f"127.0.0.1:{free_port()}"
        command = [sys.executable, "-m", "argosy.controller", "--etcd", etcd, "--listen", self.address]
        command += ["--data-dir", f"{work}/data", "--log-level", "warning"]
        with (work / "controller.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        children.append(process)
        self.pid = process.pid
        self.control = control_pb2_grpc.ControlStub(grpc.insecure_channel(self.address))
        wait_until(lambda: leads(self.control), "a leader", 30)
        import_image(work, self.address)

    def memory(self) -> str:
        """Return the resident memory."""
        return f"{memory_mib(self.pid):.0f} MiB"


class Span:
    """A time, and the processor time that the leader takes in it."""

    def __init__(self, leader: Leader) -> None:
        self._leader = leader
        self._began = time.monotonic()
        self._used = cpu_s(leader.pid)

    def seconds(self) -> float:
        """Return how long it lasts by now."""
        return time.monotonic() - self._began

    def processor_s(self) -> float:
        """Return the leader's processor time in it."""
        return cpu_s(self._leader.pid) - self._used

    def cores(self) -> float:
        """Return how many processors the leader has kept busy."""
        return self.processor_s() / self.seconds()


def start_etcd(work: Path, children: list[subprocess.Popen[Any]]) -> str:
    """Start an etcd; return its address."""
    client, peer = free_port(), free_port()
    urls = [f"--listen-client-urls=http://127.0.0.1:{client}", f"--advertise-client-urls=http://127.0.0.1:{client}"]
    urls += [f"--listen-peer-urls=http://127.0.0.1:{peer}", f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}"]
    urls += [f"--initial-cluster=default=http://127.0.0.1:{peer}", "--quota-backend-bytes=8589934592"]
    with (work / "etcd.log").open("wb") as log:
        children.append(subprocess.Popen([ETCD, f"--data-dir={work}/etcd", *urls], stdout=log, stderr=log))
    return f"127.0.0.1:{client}"


def gather(leader: Leader, options: argparse.Namespace, children: list[subprocess.Popen[Any]]) -> Fleet:
    """Have all agents open their sessions."""
    span = Span(leader)
    fleet = Fleet(leader.address, options.agents, options.processes, children)
    wait_until(lambda: fleet.tally().opened >= options.agents, "all sessions", 300)
    print(
        f"{options.agents} sessions after {span.seconds():.1f} s ({span.processor_s():.1f} s of the leader's processor "
        f"time); memory {leader.memory()}"
    )
    return fleet


def come_up(leader: Leader, fleet: Fleet, options: argparse.Namespace) -> None:
    """Make all networks and services, and wait until all tasks run."""
    span = Span(leader)
    networks = [
        leader.control.CreateNetwork(
            cpb.CreateNetworkRequest(project="default", spec=tpb.NetworkSpec(name=f"stack{number}")), timeout=60
        ).meta.id
        for number in range(options.networks)
    ]
    each, over = divmod(options.tasks - options.update, options.services - 1)
    for number in range(options.services):
        network = networks[number * len(networks) // options.services] if networks else ""
        replicas = each + (number <= over) if number else options.update
        leader.control.CreateService(service(number, replicas, network), timeout=120)
    wait_until(lambda: fleet.tally().running >= options.tasks, f"{options.tasks} tasks run", 1800)
    used, received = span.processor_s(), fleet.tally().received
    print(
        f"{options.tasks} tasks on {options.networks} networks run after {span.seconds():.1f} s "
        f"({options.tasks / span.seconds():,.0f} a second, leader {used:.1f} s of processor time, "
        f"{used / options.tasks * 1000:.2f} ms a task, assignments {received / 2**20:,.0f} MiB); "
        f"memory {leader.memory()}"
    )


def rest(leader: Leader, fleet: Fleet, calm_s: float) -> float:
    """Let nothing happen for a while; return the cores that the leader takes meanwhile."""
    wait_until(lambda: calm(leader.pid), "the leader comes to rest", 300)
    before, whole, shares = fleet.tally(), Span(leader), []
    while whole.seconds() < calm_s:
        second = Span(leader)
        time.sleep(1)
        shares.append(second.cores())
    after = fleet.tally()
    print(
        f"calm for {calm_s:g} s: leader {statistics.median(shares):.2f} cores (median; most {max(shares):.2f}), "
        f"{(after.beats - before.beats) / whole.seconds():,.0f} heartbeats of agents a second and as many of hosts, "
        f"{after.late - before.late} answered late, slowest {after.slowest_s:.2f} s"
    )
    return statistics.median(shares)


def update(leader: Leader, tasks: int) -> None:
    """Roll the first service over to a new spec."""
    ref = cpb.GetServiceRequest(project="default", ref="s0")
    updated = leader.control.GetService(ref)
    updated.spec.task.container.env.append("VERSION=2")
    request = cpb.UpdateServiceRequest(project="default", ref="s0", spec=updated.spec, version=updated.meta.version)
    span = Span(leader)
    leader.control.UpdateService(request, timeout=60)

    def complete() -> bool:
        return bool(leader.control.GetService(ref).update.state == tpb.UPDATE_STATE_COMPLETED)

    wait_until(complete, "the update", 900)
    batches = -(-tasks // updated.spec.update.parallelism)
    print(
        f"rolling update of {tasks} tasks, {batches} batches: {span.seconds():.1f} s, leader {span.cores():.2f} cores"
    )


def leads(control: control_pb2_grpc.ControlStub) -> bool:
    """Whether the controller answers and leads."""
    try:
        return bool(control.GetCluster(cpb.GetClusterRequest(project="default"), timeout=2).leader)
    except grpc.RpcError:
        return False


def calm(pid: int) -> bool:
    """Whether a process uses under half of a core."""
    before = cpu_s(pid)
    time.sleep(2)
    return cpu_s(pid) - before < 1.0


def import_image(work: Path, address: str) -> None:
    """Give the cluster the image that its tasks name."""
    tar = work / "image.tar"
    with tar.open("wb") as out:
        subprocess.run([str(PROJECT / "deploy/demo/image.sh"), "1"], stdout=out, check=True)
    argosy = str(PROJECT / ".venv/bin/argosy")
    subprocess.run([argosy, "--host", address, "image", "import", "fleet:1", str(tar)], check=True, capture_output=True)


if __name__ == "__main__":
    sys.exit(main())
