"""A node that has another address than before: whoever sends to it is told."""

from dataclasses import replace

import pytest

from argosy.core.assignment import PeerAssignment
from argosy.core.codec import decode, encode
from argosy.core.network import NetworkSpec
from argosy.core.node import Node
from argosy.core.service import NetworkAttachmentSpec, ServiceSpec
from argosy.core.task_state import TaskState
from argosy.proto.argosy.v1 import control_pb2, dispatcher_pb2, types_pb2
from tests.controller.harness import a_service_spec, until


@pytest.mark.parametrize("static", ["", "10.9.0.40"], ids=["slices", "a static address alone"])
async def test_the_other_nodes_of_its_networks_learn_a_nodes_new_address(controllers, agents, static):
    leader = await (await controllers()).lead()
    await leader.add_image()
    spec = encode(NetworkSpec(name="net", subnet="10.9.0.0/25"), types_pb2.NetworkSpec)
    await leader.control.CreateNetwork(control_pb2.CreateNetworkRequest(spec=spec))
    moved = await agents(leader.address, name="n1", obedient=True)
    web = decode(a_service_spec("web", networks=("net",)), ServiceSpec)
    web = replace(web, task=replace(web.task, networks=(NetworkAttachmentSpec("net", address=static),)))
    await leader.control.CreateService(control_pb2.CreateServiceRequest(spec=encode(web, types_pb2.ServiceSpec)))
    await until(lambda: [t.status.state for t in leader.tasks()] == [TaskState.RUNNING])
    other = await agents(leader.address, name="n2", obedient=True)
    await leader.create("other", networks=("net",))  # goes to the node that has nothing

    def known() -> list[str]:
        pieces = (p for p in other.pieces.values() if isinstance(p, PeerAssignment))
        return [p.underlay_address for p in pieces if p.node_id == moved.node_id]

    await until(lambda: known() == ["192.0.2.1"])
    await until(lambda: [t.status.state for t in leader.tasks()] == [TaskState.RUNNING] * 2)
    description = replace(leader.cache.snapshot.get(Node, moved.node_id).description, underlay_address="192.0.2.7")
    message = dispatcher_pb2.AgentMessage(description=encode(description, types_pb2.NodeDescription))
    await moved.call.write(message)
    await until(lambda: known() == ["192.0.2.7"])
