"""Terms of leadership: taking over, the fence, and what a term that is over may still do."""

import asyncio
import contextlib
import time
from dataclasses import replace

import grpc
import pytest

from argosy.controller.cluster import ClusterView
from argosy.controller.session import dispatcher
from argosy.controller.session.dispatcher import LEADER_KEY
from argosy.controller.session.heard import BeatProtocol, HeardNodes
from argosy.controller.session.term import Term
from argosy.controller.store import Fence, Put, StoreFullError, StoreUnavailableError, update
from argosy.controller.term import Leader
from argosy.core.codec import encode
from argosy.core.errors import LostLeadershipError, NoLeaderError
from argosy.core.node import BeatKey, Node, NodeState
from argosy.core.service import ContainerSpec, RestartPolicy, Service, ServiceSpec, TaskSpec
from argosy.core.task import Task, TaskStatus
from argosy.core.task_state import TaskState
from argosy.proto.argosy.v1 import control_pb2, types_pb2
from tests.controller.harness import Controller, FakeAgent, until
from tests.store.etcd_server import EtcdServer


async def test_a_follower_refuses_sessions_and_names_the_leader(controllers, agents):
    leader = await (await controllers("c1")).lead()
    follower = await controllers("c2")
    await until(lambda: follower.view.leader_address)
    agent = await agents(follower.address)
    assert agent.error.code() is grpc.StatusCode.UNAVAILABLE
    assert dict(agent.error.trailing_metadata())[LEADER_KEY] == leader.address


@pytest.mark.parametrize("elected", ["c1", "c2"])
async def test_a_session_that_comes_before_a_leader_waits_for_one(controllers, agents, elected, monkeypatch):
    """Refused it would come again seconds later, after an outage that was long."""
    waiting, led = asyncio.Event(), ClusterView.led

    async def led_soon(view):
        waiting.set()
        await led(view)

    monkeypatch.setattr(ClusterView, "led", led_soon)
    asked, other = await controllers("c1"), await controllers("c2")
    asking = asyncio.create_task(agents(asked.address))
    await asyncio.wait_for(waiting.wait(), 10)
    leader = await (asked if elected == "c1" else other).lead()
    agent = await asking
    if leader is asked:
        assert agent.error is None
    else:
        assert dict(agent.error.trailing_metadata())[LEADER_KEY] == leader.address


async def test_a_session_does_not_wait_for_ever_for_a_leader(controllers, agents, monkeypatch):
    monkeypatch.setattr(dispatcher, "ELECTION_S", 0.2)
    agent = await agents((await controllers("c1")).address)
    assert agent.error.code() is grpc.StatusCode.UNAVAILABLE
    assert "does not lead" in agent.error.details()


async def test_another_controller_takes_over_and_goes_on(controllers, agents):
    first = await (await controllers("c1")).lead()
    second = await controllers("c2")
    await first.add_image()
    agent = await agents(first.address, obedient=True)
    service = await first.create(replicas=2)
    await until(lambda: [t.status.state for t in first.tasks()] == [TaskState.RUNNING] * 2)
    ids, epoch = {t.meta.id for t in first.tasks()}, first.view.epoch
    await first.resign()
    await until(lambda: agent.error)
    assert agent.error.code() is grpc.StatusCode.UNAVAILABLE
    await second.lead()
    await agent.connect(second.address)
    assert set(agent.tasks()) == ids
    assert agent.messages[0].leader.epoch > epoch
    await second.control.ScaleServices(control_pb2.ScaleServicesRequest(replicas={service.meta.id: 3}))
    await until(lambda: len(agent.tasks()) == 3)
    assert ids < set(agent.tasks())


async def test_in_a_crash_loop_the_delay_goes_on_growing_over_a_change_of_leaders(controllers, agents):
    first = await (await controllers("c1")).lead()
    second = await controllers("c2")
    await first.add_image()
    agent = await agents(first.address)
    spec = TaskSpec(ContainerSpec("web:1"), restart=RestartPolicy(delay=0.3))
    request = control_pb2.CreateServiceRequest(spec=encode(ServiceSpec("web", task=spec), types_pb2.ServiceSpec))
    await first.control.CreateService(request)
    seen = set()

    async def crash(leader):
        """Have the present task fail as soon as it may run; return for how long its successor has to wait."""
        (task_id,) = await until(lambda: agent.tasks().keys() - seen)
        seen.add(task_id)
        due_at = agent.tasks()[task_id].not_before
        await until(lambda: time.time() >= due_at)
        end = time.time()
        await agent.report({task_id: TaskStatus(TaskState.FAILED, at=end, exit_code=1, released=True)})
        await until(lambda: [t for t in leader.tasks() if t.meta.id not in seen])
        (heir,) = (t for t in leader.tasks() if t.meta.id not in seen)
        return heir.failures, round(heir.not_before - end, 2)

    assert [await crash(first), await crash(first)] == [(1, 0.3), (2, 0.6)]
    await first.resign()
    await until(lambda: agent.error)
    await second.lead()
    await agent.connect(second.address)
    assert [await crash(second), await crash(second)] == [(3, 1.2), (4, 2.4)]


async def test_a_new_leader_knows_the_beats_of_a_host_whose_agent_is_away(controllers, agents):
    """Else it would call the host dead and replace what runs there, when its grace is over."""
    first = await (await controllers("c1")).lead()
    second = await controllers("c2")
    agent = FakeAgent("n1", beat_key=b"k" * 32)
    try:
        await agent.connect(first.address)
    finally:
        await agent.close()
    await first.resign()
    await second.lead()
    heard = second.dispatcher.term.heard.heard
    forger = FakeAgent("n1", node_id=agent.node_id, beat_key=b"f" * 32)
    second.beats.datagram_received(forger.host_beat(), ("192.0.2.1", 1))
    assert agent.node_id not in heard
    second.beats.datagram_received(agent.host_beat(), ("192.0.2.1", 1))
    assert heard[agent.node_id].host_at is not None
    await until(lambda: second.cache.snapshot.get(Node, agent.node_id).status.state is NodeState.UNKNOWN)
    await second.control.RemoveNode(control_pb2.RemoveNodeRequest(ref=agent.node_id))
    assert second.cache.snapshot.get(BeatKey, agent.node_id) is None


async def test_a_leader_that_was_replaced_can_neither_write_nor_command(controllers, agents):
    first = await (await controllers("c1")).lead()
    agent = await agents(first.address)
    old_term = first.dispatcher.term
    session = first.session_of(agent)
    fence: Fence = old_term.leadership.fence
    await first.resign()
    second = await (await controllers("c2")).lead()
    node = second.cache.snapshot.get(Node, agent.node_id)
    with pytest.raises(LostLeadershipError):
        await first.store.commit([update(node)], fence)
    with pytest.raises(LostLeadershipError):
        old_term.give_turn(session)
    with pytest.raises(NoLeaderError):
        old_term.open(agent.node_id)


async def test_no_session_is_opened_in_a_term_that_ended_meanwhile(leader, agents):
    """As when the store is away while a node registers: the session would be served by nobody, for ever."""
    term = Term(leader.store, leader.cache, leader.dispatcher.term.leadership, HeardNodes(lambda _: b""))
    serving = asyncio.create_task(term.run())
    term.open("a-node")
    await asyncio.sleep(0)
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving
    assert term.sessions["a-node"].closed
    with pytest.raises(NoLeaderError):
        term.open("another")


class FailingLeader(Leader):
    """Its terms fail for want of the store, and take until `go` to end."""

    terms = ()

    async def _lead(self, leadership):
        self.ending, self.go = asyncio.Event(), asyncio.Event()
        self.terms = (*self.terms, leadership)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._linger())
            group.create_task(self._fail())

    async def _fail(self):
        raise StoreUnavailableError("etcd does not answer")

    async def _linger(self):
        try:
            await asyncio.Event().wait()
        finally:
            self.ending.set()
            async with asyncio.timeout(10):
                await self.go.wait()


async def test_a_term_that_is_cancelled_as_it_fails_is_over(controllers):
    """A failing task group swallows a cancellation: the controller led on for ever, without being the leader."""
    controller = await controllers()
    leader = FailingLeader(
        controller.client, controller.store, controller.cache, controller.dispatcher, controller.beats
    )
    election = asyncio.create_task(controller.election.run(leader.run))
    try:
        await until(lambda: leader.terms and leader.ending.is_set())
        await controller.election.revoke_leader(await controller.election.leader())
        await until(leader.terms[0].lost.is_set)
        leader.go.set()
        await until(lambda: len(leader.terms) > 1 and leader.ending.is_set())
        assert leader.terms[1].epoch > leader.terms[0].epoch
        election.cancel()
        await until(leader.terms[1].lost.is_set)
        leader.go.set()
        await until(election.done)
    finally:
        election.cancel()


async def test_an_etcd_that_goes_away_for_a_while_ends_no_controller(own_etcd, tmp_path):
    async with Controller(own_etcd.endpoint, "away", tmp_path) as controller:
        await controller.lead()
        await controller.add_image()
        agent = await FakeAgent("n1", obedient=True).connect(controller.address)
        try:
            service = await controller.create()
            await until(lambda: [t.status.state for t in controller.tasks()] == [TaskState.RUNNING])
            own_etcd.kill()
            agent.obedient = False
            with contextlib.suppress(grpc.aio.AioRpcError):
                await agent.report({t: TaskStatus(TaskState.FAILED) for t in agent.tasks()})
            await until(lambda: controller.dispatcher.term is None)
            own_etcd.start()
            await until(lambda: controller.dispatcher.term is not None, 20)
            assert not controller.election_task.done()
            agent.obedient = True
            await agent.close()
            await agent.connect(controller.address)
            await until(lambda: controller.cache.snapshot.get(Node, agent.node_id).status.state is NodeState.READY)
            await controller.control.ScaleServices(control_pb2.ScaleServicesRequest(replicas={service.meta.id: 2}))
            running = TaskState.RUNNING
            await until(lambda: [t.status.state for t in controller.tasks()].count(running) == 2)
            stored = [await controller.store.get(Task, "default", t.meta.id) for t in controller.tasks()]
            assert {t.status.state for t in stored} >= {running}
        finally:
            await agent.close()


async def fill(controller, service_id):
    """Fill etcd with old versions of a service, which making room frees; ends with what the store raises."""
    while True:
        service = controller.cache.snapshot.get(Service, service_id)
        padded = replace(service, spec=replace(service.spec, labels={"padding": "x" * 1_000_000}))
        await controller.cache.wait_for(await controller.store.commit([Put(padded, None)]))


async def test_a_full_etcd_ends_no_controller_and_is_made_room_in(tmp_path):
    server = EtcdServer(tmp_path / "etcd", options={"quota-backend-bytes": str(16 * 1024 * 1024)})
    try:
        await asyncio.to_thread(server.start)
        async with Controller(server.endpoint, "full", tmp_path) as controller:
            await controller.lead()
            await controller.add_image()
            service = await controller.create()
            with pytest.raises(StoreFullError):
                await fill(controller, service.meta.id)
            agent = await FakeAgent("n1", obedient=True).connect(controller.address, wait=False)
            try:
                async with asyncio.timeout(30):
                    while not agent.messages:  # its node is written: there is room again
                        await asyncio.sleep(0.05)
                        if agent.error:
                            await agent.close()
                            await agent.connect(controller.address, wait=False)
                await until(lambda: [t.status.state for t in controller.tasks()] == [TaskState.RUNNING], 20)
                assert not controller.election_task.done()
            finally:
                await agent.close()
    finally:
        server.kill()


async def test_a_store_that_is_away_at_the_moment_of_election_ends_no_controller(leader):
    """The first thing a term does is to read: that may fail as everything else may."""

    class FailsOnce:
        def __init__(self) -> None:
            self.failed = False

        def __getattr__(self, name):
            return getattr(leader.store, name)

        async def revision(self):
            if not self.failed:
                self.failed = True
                raise StoreUnavailableError("etcd does not answer")
            return await leader.store.revision()

    leadership = leader.dispatcher.term.leadership
    running = asyncio.create_task(
        Leader(leader.client, FailsOnce(), leader.cache, leader.dispatcher, BeatProtocol()).run(leadership)
    )
    before = leader.dispatcher.term
    await until(lambda: running.done() or leader.dispatcher.term is not before)
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
