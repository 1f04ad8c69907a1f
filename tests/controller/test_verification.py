"""Networks verified through any controller: agents that report, that are away, that do not answer."""

import asyncio
from dataclasses import replace

import pytest

from argosy.controller.api import verification
from argosy.controller.store import Put
from argosy.core.mesh import Tunnel
from argosy.core.network import Network
from argosy.core.node import Node, NodeState
from argosy.core.task_state import TaskState
from argosy.proto.argosy.v1 import control_pb2, dispatcher_pb2, dispatcher_pb2_grpc
from tests.controller.harness import FakeAgent, until

SAID = (
    "its links have an MTU of 1350, not the 1450 that it asks for: the link of node n1 to other hosts takes 1400 "
    "bytes: give that link 1500, or keep the network's tasks off the node"
)


async def two_carriers(leader, agents):
    """Return two agents of nodes that carry the network `red`."""
    await leader.add_image()
    both = [await agents(leader.address, name=name, obedient=True) for name in ("n1", "n2")]
    await leader.control.CreateNetwork(control_pb2.CreateNetworkRequest(spec={"name": "red"}))
    await until(lambda: [n.status.state for n in leader.cache.snapshot.all(Node)] == [NodeState.READY] * 2)
    await leader.create(replicas=2, networks=("red",))
    await until(lambda: all(agent.tasks() for agent in both))
    return both


async def asked(agent: FakeAgent) -> dispatcher_pb2.VerifyNetworks:
    (ask,) = await until(lambda: agent.bodies("verify_networks"))
    return ask


async def answer(agent: FakeAgent, **report) -> None:
    """Report that every probe came back, and what else there is to say."""
    ask = await asked(agent)
    probes = [
        dispatcher_pb2.ProbeResult(network_id=p.network_id, node_id=n, sent=10, latency=0.001, largest=1450, mtu=1450)
        for p in ask.probes
        for n in p.peers
    ]
    message = dispatcher_pb2.NetworkReport(request_id=ask.request_id, probes=probes, **report)
    await dispatcher_pb2_grpc.DispatcherStub(agent.channel).ReportNetworks(message)


def verify(controller, ref="red"):
    return controller.control.GetNetworkVerification(control_pb2.GetNetworkVerificationRequest(ref=ref))


async def test_all_carriers_are_asked_and_their_reports_put_together(leader, agents, controllers):
    one, two = await two_carriers(leader, agents)
    other = await controllers("c2")  # which passes the request on
    await until(lambda: other.view.leader_address)
    asking = asyncio.ensure_future(verify(other))
    (network_id,) = {p.network_id for p in (await asked(one)).probes}
    drift = [
        dispatcher_pb2.NetworkDrift(network_id=network_id, what="missing: route"),
        dispatcher_pb2.NetworkDrift(network_id="another", what="of no concern"),
    ]
    await answer(one, found=drift, repairs=[dispatcher_pb2.NetworkRepairs(network_id=network_id, count=3)])
    await answer(two)
    found = await asyncio.wait_for(asking, 10)
    assert [(n.node, n.problem, n.repaired) for n in found.nodes] == [("n1", "", 3), ("n2", "", 0)]
    assert [(d.network, d.what) for d in found.nodes[0].found] == [("red", "missing: route")]
    (network,) = found.networks
    assert [(p.source, p.target, p.sent, p.lost) for p in network.pairs] == [("n1", "n2", 10, 0), ("n2", "n1", 10, 0)]


async def test_much_that_was_found_is_passed_on(leader, agents, controllers):
    """More than 4 MiB, which is as much as the library takes by itself."""
    one, two = await two_carriers(leader, agents)
    other = await controllers("c2")
    await until(lambda: other.view.leader_address)
    asking = asyncio.ensure_future(verify(other))
    await answer(one, found=[dispatcher_pb2.NetworkDrift(what="missing: route".ljust(2**20))] * 5)
    await answer(two)
    found = await asyncio.wait_for(asking, 10)
    assert [len(n.found) for n in found.nodes] == [5, 0]


@pytest.mark.parametrize(("encrypted", "said"), [(False, ["", ""]), (True, ["there was no handshake yet", ""])])
async def test_of_an_encrypted_network_it_is_said_who_has_no_tunnel_to_whom(leader, agents, encrypted, said):
    one, two = await two_carriers(leader, agents)
    n1, n2 = sorted(leader.cache.snapshot.all(Node), key=lambda n: n.spec.name)
    (network,) = leader.cache.snapshot.all(Network)
    broken = replace(n1, tunnels=(Tunnel(n2.meta.id, 1, "there was no handshake yet", 5.0),))
    changed = replace(network, spec=replace(network.spec, encrypted=encrypted))
    await leader.cache.wait_for(await leader.store.commit([Put(broken, None), Put(changed, None)]))
    asking = asyncio.ensure_future(verify(leader))
    await answer(one)
    await answer(two)
    (found,) = (await asyncio.wait_for(asking, 10)).networks
    assert [p.tunnel_problem for p in found.pairs] == said


async def test_who_does_not_answer_and_who_is_away_are_said(leader, agents, monkeypatch):
    one, two = await two_carriers(leader, agents)
    monkeypatch.setattr(verification, "ANSWER_TIMEOUT_S", 0.5)
    await two.close()
    await until(lambda: leader.session_of(two) is None)
    found = await asyncio.wait_for(verify(leader), 10)
    assert [(n.node, n.problem) for n in found.nodes] == [
        ("n1", "does not answer: nothing came for 0 s"),
        ("n2", "does not answer: its agent is not connected"),
    ]
    assert [list(n.pairs) for n in found.networks] == [[]]
    ask = await asked(one)
    late = dispatcher_pb2.NetworkReport(request_id=ask.request_id)
    with pytest.raises(Exception, match="nobody waits for this report"):
        await dispatcher_pb2_grpc.DispatcherStub(one.channel).ReportNetworks(late)


async def test_a_node_with_a_narrower_link_than_a_network_asks_for_is_named(leader, agents):
    await leader.add_image()
    agent = await agents(leader.address, name="n1", obedient=True)
    request = control_pb2.CreateNetworkRequest(spec={"name": "red", "mtu": 1450})
    await leader.control.CreateNetwork(request)
    shown = control_pb2.GetNetworkRequest(ref="red")
    found = await leader.control.GetNetwork(shown)
    assert (found.mtu, found.mtu_notice) == (0, "")
    await leader.create(networks=("red",))
    await until(agent.tasks)
    found = await leader.control.GetNetwork(shown)
    assert (found.mtu, found.mtu_notice) == (1450, "")

    (node,) = leader.cache.snapshot.all(Node)
    narrow = replace(node, description=replace(node.description, underlay_mtu=1400))
    await leader.cache.wait_for(await leader.store.commit([Put(narrow, None)]))
    found = await leader.control.GetNetwork(shown)
    assert (found.mtu, found.mtu_notice) == (1350, SAID)
    asking = asyncio.ensure_future(verify(leader))
    await answer(agent)
    (network,) = (await asyncio.wait_for(asking, 10)).networks
    assert network.mtu_notice == SAID


async def test_without_a_network_all_nodes_are_asked(leader, agents):
    await two_carriers(leader, agents)
    three = await agents(leader.address, name="n3")
    asking = asyncio.ensure_future(verify(leader, ""))
    assert list((await asked(three)).probes) == []
    asking.cancel()


async def test_a_network_tells_how_full_it_is_whose_addresses_are_whose_and_who_waits(leader, agents):
    await leader.add_image()
    agent = await agents(leader.address, cpus=1000.0, obedient=True)
    spec = {"name": "small", "subnet": "10.79.0.0/26"}
    await leader.control.CreateNetwork(control_pb2.CreateNetworkRequest(spec=spec))
    await leader.create("many", replicas=34, networks=("small",))
    await until(lambda: len(agent.tasks()) == 32, 20)
    request = control_pb2.GetNetworkRequest(ref="small")

    await until(lambda: sum(t.status.state is TaskState.PENDING for t in leader.tasks()) == 2)
    found = await leader.control.GetNetwork(request)
    assert (found.addresses_used, found.addresses_total, found.addresses_free) == (33, 60, 27)
    assert (found.slices_free, found.slices_total) == (0, 2)
    assert {t.status.reason for t in found.waiting} == {"network small is full: 32 of 32 addresses used"}
    assert list(found.without_virtual) == []
