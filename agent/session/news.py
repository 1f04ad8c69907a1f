"""What a node has to say of itself beside its tasks: that its description has changed, how its tunnels are, and what
stands in the way of published ports.

The newest counts: what nobody took yet is replaced by what came after it.
"""

import asyncio
from dataclasses import replace

from argosy.agent.network.desired import HostReport, MeshReport
from argosy.core.codec import encode, encode_into
from argosy.core.node import NodeDescription, PortProblem
from argosy.proto.argosy.v1 import dispatcher_pb2 as pb
from argosy.proto.argosy.v1 import types_pb2 as tpb


class NodeNews:
    """One for an agent, on its event loop."""

    def __init__(self, description: NodeDescription) -> None:
        self.description = description
        self._mesh = MeshReport(keys=description.mesh_keys)
        self._described = False
        self._told_tunnels = False
        self._ports: tuple[PortProblem, ...] = ()
        self._told_ports = False
        self._something = asyncio.Event()

    def take(self, mesh: MeshReport) -> None:
        """Take what the network plane found of the node's mesh."""
        if mesh.keys != self.description.mesh_keys:
            self.description = replace(self.description, mesh_keys=mesh.keys)
            self._described = False
        if mesh.tunnels != self._mesh.tunnels:
            self._told_tunnels = False
        self._mesh = mesh
        self._something.set()

    def take_host(self, host: HostReport) -> None:
        """Take what the host's links are like now."""
        about = replace(
            self.description,
            underlay_address=host.underlay_address,
            underlay_mtu=host.underlay_mtu,
            underlay_problem=host.underlay_problem,
            addresses=host.addresses,
            routes=host.routes,
        )
        if about != self.description:
            self.description, self._described = about, False
            self._something.set()

    def take_ports(self, problems: tuple[PortProblem, ...]) -> None:
        """Take what stands in the way of published ports now."""
        if problems != self._ports:
            self._ports, self._told_ports = problems, False
            self._something.set()

    def hello(self) -> tpb.NodeDescription:
        """Return the description that begins a session; how tunnels and ports are is then told anew."""
        self._described, self._told_tunnels, self._told_ports = True, False, False
        self._something.set()
        return encode(self.description, tpb.NodeDescription)

    async def next(self) -> pb.AgentMessage:
        """Return what the controller has not heard yet, as soon as there is something."""
        while True:
            self._something.clear()
            if not self._described:
                self._described = True
                return pb.AgentMessage(description=encode(self.description, tpb.NodeDescription))
            if not self._told_tunnels:
                self._told_tunnels = True
                message = pb.AgentMessage(tunnels=pb.Tunnels())
                for tunnel in self._mesh.tunnels:
                    encode_into(tunnel, message.tunnels.tunnels.add())
                return message
            if not self._told_ports:
                self._told_ports = True
                message = pb.AgentMessage(ports=pb.PortProblems())
                for problem in self._ports:
                    encode_into(problem, message.ports.problems.add())
                return message
            await self._something.wait()
