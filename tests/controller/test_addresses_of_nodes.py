"""Who has which address: whoever sends there is told when a node gets another, and as long as a task has it."""

from dataclasses import replace

import pytest

from argosy.core.addresses import format_ipv4
from argosy.core.assignment import NetworkAssignment, PeerAssignment
from argosy.core.codec import decode, encode
from argosy.core.network import NetworkSpec, Slice
from argosy.core.node import Node
from argosy.core.service import NetworkAttachmentSpec, Resources, ServiceSpec
from argosy.core.task_state import TaskState
from argosy.proto.argosy.v1 import control_pb2, dispatcher_pb2, types_pb2
from tests.controller.harness import a_service_spec, until


async def one_running(controllers, agents, static):
    """Return a leader, the agent `n1` which runs a task of the service `web` on the network `net`, and web's spec.

    `static`: the address that the service asks for; "": none, as in the spec that is returned.
    """
    leader = await (await controllers()).lead()
    await leader.add_image()
    spec = encode(NetworkSpec(name="net", subnet="10.9.0.0/25"), types_pb2.NetworkSpec)
    await leader.control.CreateNetwork(control_pb2.CreateNetworkRequest(spec=spec))
    agent = await agents(leader.address, name="n1", obedient=True)
    web = decode(a_service_spec("web", networks=("net",)), ServiceSpec)
    asking = replace(web, task=replace(web.task, networks=(NetworkAttachmentSpec("net", address=static),)))
    await leader.control.CreateService(control_pb2.CreateServiceRequest(spec=encode(asking, types_pb2.ServiceSpec)))
    await until(lambda: [t.status.state for t in leader.tasks()] == [TaskState.RUNNING])
    return leader, agent, web


async def describe(leader, agent, **what):
    """Have an agent describe its node otherwise."""
    description = replace(leader.cache.snapshot.get(Node, agent.node_id).description, **what)
    message = dispatcher_pb2.AgentMessage(description=encode(description, types_pb2.NodeDescription))
    await agent.call.write(message)


@pytest.mark.parametrize("static", ["", "10.9.0.40"], ids=["slices", "a static address alone"])
async def test_the_other_nodes_of_its_networks_learn_a_nodes_new_address(controllers, agents, static):
    leader, moved, _ = await one_running(controllers, agents, static)
    other = await agents(leader.address, name="n2", obedient=True)
    await leader.create("other", networks=("net",))  # goes to the node that has nothing

    def known() -> list[str]:
        pieces = (p for p in other.pieces.values() if isinstance(p, PeerAssignment))
        return [p.underlay_address for p in pieces if p.node_id == moved.node_id]

    await until(lambda: known() == ["192.0.2.1"])
    await until(lambda: [t.status.state for t in leader.tasks()] == [TaskState.RUNNING] * 2)
    await describe(leader, moved, underlay_address="192.0.2.7")
    await until(lambda: known() == ["192.0.2.7"])


async def test_a_task_whose_service_gives_its_static_address_up_is_reached_until_it_ends(controllers, agents):
    """The task that takes its place finds no room: until there is some, the old one goes on."""
    leader, holder, web = await one_running(controllers, agents, "10.9.0.40")
    other = await agents(leader.address, name="n2", obedient=True)
    await leader.create("other", networks=("net",))  # goes to the node that has nothing

    def announced() -> list[str]:
        pieces = (p for p in other.pieces.values() if isinstance(p, PeerAssignment))
        return [format_ipv4(a) for p in pieces if p.node_id == holder.node_id for a in p.addresses]

    await until(lambda: announced() == ["10.9.0.40"])
    roomy = replace(web.task, reservations=Resources(cpus=400.0))
    request = encode(replace(web, task=roomy), types_pb2.ServiceSpec)
    await leader.control.UpdateService(control_pb2.UpdateServiceRequest(ref="web", spec=request))
    await until(lambda: not [h for s in leader.cache.snapshot.all(Slice) for h in s.holders])
    await describe(leader, other, underlay_mtu=1400)  # which is told after whatever came of the claim
    await until(lambda: [p.mtu for p in other.pieces.values() if isinstance(p, NetworkAssignment)] == [1350])
    assert announced() == ["10.9.0.40"]
    await leader.control.UpdateService(
        control_pb2.UpdateServiceRequest(ref="web", spec=encode(web, types_pb2.ServiceSpec))
    )
    await until(lambda: announced() == [])
