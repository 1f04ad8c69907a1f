"""Hosts with an encrypted network, and their keys."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from network_world import Container, Host, Namespace, World, wait_until

from argosy.agent.network.desired import MeshReport, NetworkState
from argosy.core.addresses import parse_ipv4
from argosy.core.assignment import MeshAssignment, MeshPeerAssignment, NetworkAssignment
from argosy.core.mesh import Mesh
from argosy.core.network import Attachment

WEB = "webnet0000001"


class Secret:
    """Two or more hosts with an encrypted network; keys go from host to host as the controller would pass them."""

    def __init__(self, wire: World, count: int = 2, **settings: object) -> None:
        self.wire = wire
        self.mesh = Mesh(1, settled=True)
        self.reports: dict[str, MeshReport] = {}
        self.hosts = [self._host(**settings) for _ in range(count)]
        network = wire.add_network(WEB, "10.64.0.0/16", {f"h{i}": (i,) for i in range(1, count + 1)})
        slices = wire.networks[WEB][1]
        wire.networks[WEB] = (replace(network, encrypted=True), slices)

    def _host(self, **settings: object) -> Host:
        host = self.wire.add_host(dns=False, **settings)
        self._listen(host)
        return host

    def _listen(self, host: Host) -> None:
        host.plane.on_mesh = lambda report: self.reports.update({host.name: report})

    def network(self) -> NetworkAssignment:
        return self.wire.networks[WEB][0]

    def state(self, host: Host) -> NetworkState:
        peers = [
            MeshPeerAssignment(f"node-{o.name}", o.name, o.address, self.reports.get(o.name, MeshReport()).keys)
            for o in self.hosts
            if o is not host
        ]
        mesh = MeshAssignment(self.mesh.epoch, self.mesh.previous)
        return replace(self.wire.state_for(host), mesh=mesh, mesh_peers=peers)

    def apply(self) -> None:
        for host in self.hosts:
            host.do(host.plane.apply(self.state(host)))

    def start(self, number: int) -> Container:
        """Start a container on a host, by its number."""
        host, task = self.hosts[number - 1], f"taskaaaaaaaa{number}"
        container = Container(host, task)
        host.containers[task] = container
        address = f"10.64.0.{number * 32 + 1}"
        container.attachments = (Attachment(WEB, parse_ipv4(address)),)
        host.do(host.plane.apply(self.state(host)))
        host.do(host.plane.attach(task, container.pid, container.attachments))
        return container

    def exchange(self) -> None:
        """Have the hosts make their keys and tell each other."""
        epoch = self.mesh.epoch
        self.apply()
        wait_until(lambda: all(self._has_key(h, epoch) for h in self.hosts))
        self.apply()

    def up(self) -> None:
        """Wait until every host finds its tunnels to all others well, with the present keys."""
        wait_until(lambda: all(self.is_up(h) for h in self.hosts))

    def is_up(self, host: Host) -> bool:
        tunnels = self.reports[host.name].tunnels
        others = len(self.hosts) - 1
        return len(tunnels) == others and all(not t.problem and t.epoch == self.mesh.epoch for t in tunnels)

    def _has_key(self, host: Host, epoch: int) -> bool:
        report = self.reports.get(host.name)
        return report is not None and any(k.epoch == epoch for k in report.keys)

    def new_life(self, host: Host) -> None:
        host.new_life()
        self._listen(host)


@contextmanager
def mesh_of(host: Host) -> Iterator[Namespace]:
    """Yield the namespace of a host's mesh."""
    fd = host.in_mounts(lambda: os.open(host.run_dir / "mesh" / "namespace", os.O_RDONLY | os.O_CLOEXEC))
    namespace = Namespace(fd)
    try:
        yield namespace
    finally:
        namespace.close()
