"""Sessions of agents with the leader: chains of assignments, newer and older sessions, reports and their acks."""

import asyncio
import contextlib
import gc

import grpc

from argosy.core.assignment import Succession
from argosy.core.ids import successor_id
from argosy.core.node import Node, NodeState
from argosy.core.task import Task, TaskStatus
from argosy.core.task_state import TaskState
from argosy.proto.argosy.v1 import control_pb2, dispatcher_pb2, dispatcher_pb2_grpc, types_pb2
from tests.controller.harness import FakeAgent, until


async def test_a_full_set_comes_first_and_increments_chain_on_it(leader, agents):
    await leader.add_image()
    agent = await agents(leader.address, obedient=True)
    await leader.create(replicas=2)
    await until(lambda: len(agent.tasks()) == 2)
    await until(lambda: [t.status.state for t in leader.tasks()] == [TaskState.RUNNING] * 2)
    sets = agent.bodies("assignments")
    assert [s.full for s in sets] == [True] + [False] * (len(sets) - 1)
    assert [s.base_version for s in sets[1:]] == [s.version for s in sets[:-1]]
    revisions = [(m.leader.epoch, m.leader.revision) for m in agent.messages]
    assert revisions == sorted(revisions)
    assert revisions[0][0] == leader.view.epoch


async def test_a_newer_session_of_a_node_ends_the_older_one(leader, agents):
    older = await agents(leader.address)
    newer = await agents(leader.address, node_id=older.node_id)
    await until(lambda: older.error)
    assert older.error.code() is grpc.StatusCode.UNAVAILABLE
    assert "newer session" in older.error.details()
    assert newer.error is None
    assert leader.session_of(newer) is not None


async def test_a_session_that_the_agent_ends_is_forgotten(leader, agents):
    agent = await agents(leader.address)
    await agent.close()
    await until(lambda: leader.session_of(agent) is None)


async def test_what_a_session_held_is_let_go_also_while_something_is_sent(leader):
    """Without waiting for the garbage collector, which is told to rest in large clusters."""
    gc.disable()
    try:
        for number in range(40):
            agent = await FakeAgent("n1", node_id="abcdefghijklm").connect(leader.address)
            for _ in range(number % 7):
                await agent.beat()
            await agent.close()
            await until(lambda agent=agent: leader.session_of(agent) is None)
    finally:
        gc.enable()


async def test_a_name_that_another_node_has_is_refused(leader, agents):
    first = await agents(leader.address, "n1")
    second = await agents(leader.address, "n1")
    assert second.error.code() is grpc.StatusCode.ALREADY_EXISTS
    assert first.node_id in second.error.details()
    assert first.error is None


async def test_a_stream_without_hello_is_refused_and_is_no_bug(leader):
    async with grpc.aio.insecure_channel(leader.address) as channel:
        call = dispatcher_pb2_grpc.DispatcherStub(channel).Session()
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
        call = dispatcher_pb2_grpc.DispatcherStub(channel).Session()
        await call.write(dispatcher_pb2.AgentMessage(heartbeat=dispatcher_pb2.Heartbeat(sequence=1)))
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_node_that_is_heard_is_ready(leader, agents):
    agent = await agents(leader.address)
    node = await until(lambda: leader.cache.snapshot.get(Node, agent.node_id))
    await until(lambda: leader.cache.snapshot.get(Node, agent.node_id).status.state is NodeState.READY)
    assert node.spec.name == "n1"


async def one_running(leader, agents):
    """Return an agent and its one task, which runs."""
    await leader.add_image()
    agent = await agents(leader.address)
    await leader.create()
    (task_id,) = await until(lambda: list(agent.tasks()))
    number = await agent.report({task_id: TaskStatus(TaskState.RUNNING)})
    await until(lambda: agent.acknowledged(number))
    return agent, task_id


async def test_a_report_is_acknowledged_when_etcd_has_it(leader, agents):
    agent, task_id = await one_running(leader, agents)
    # Linearizable: from etcd itself, not from the cache.
    assert (await leader.store.get(Task, "default", task_id)).status.state is TaskState.RUNNING
    assert agent.error is None


async def test_a_report_waits_for_etcd(own_etcd, tmp_path):
    from tests.controller.harness import Controller

    async with Controller(own_etcd.endpoint, "paused", tmp_path) as controller:
        await controller.lead()
        await controller.add_image()
        agent = await FakeAgent("n1").connect(controller.address)
        try:
            await controller.create()
            (task_id,) = await until(lambda: list(agent.tasks()))
            own_etcd.pause()
            number = await agent.report({task_id: TaskStatus(TaskState.RUNNING)})
            await asyncio.sleep(0.3)  # there is nothing to wait for: what must not come does not come
            assert not agent.acknowledged(number)
            own_etcd.resume()
            await until(lambda: agent.acknowledged(number) or agent.error)
            stored = await controller.store.get(Task, "default", task_id)
            assert stored.status.state is TaskState.RUNNING or not agent.acknowledged(number)
        finally:
            own_etcd.resume()
            await agent.close()


async def test_a_node_has_told_all_that_runs_there_with_the_report_that_says_so(leader, agents):
    """What depends on others waits for that after a loss of power: the first report of many is not enough."""
    agent, task_id = await one_running(leader, agents)
    heard, node = leader.dispatcher.term.heard, leader.cache.snapshot.get(Node, agent.node_id)
    assert heard.vouches(node)
    await agent.close()
    await agent.connect(leader.address)
    assert not heard.vouches(node)
    first = await agent.report({"other": TaskStatus(TaskState.RUNNING)}, more=True)
    await until(lambda: agent.acknowledged(first))
    assert not heard.vouches(node)
    last = await agent.report({task_id: TaskStatus(TaskState.RUNNING)})
    await until(lambda: agent.acknowledged(last))
    assert heard.vouches(node)


async def test_a_status_from_before_is_ignored_and_acknowledged(leader, agents):
    agent, task_id = await one_running(leader, agents)
    number = await agent.report({task_id: TaskStatus(TaskState.PREPARING, reason="late")})
    await until(lambda: agent.acknowledged(number))
    stored = await leader.store.get(Task, "default", task_id)
    assert (stored.status.state, stored.status.reason) == (TaskState.RUNNING, "")


async def test_reports_of_unknown_and_of_foreign_tasks_are_ignored(leader, agents):
    _, task_id = await one_running(leader, agents)
    other = await agents(leader.address, "n2")
    number = await other.report({task_id: TaskStatus(TaskState.FAILED), "nosuchtaskatall": TaskStatus()})
    await until(lambda: other.acknowledged(number))
    assert (await leader.store.get(Task, "default", task_id)).status.state is TaskState.RUNNING


async def test_a_state_that_only_a_newer_agent_knows_does_not_end_its_session(leader, agents):
    agent, task_id = await one_running(leader, agents)
    number = await agent.report({task_id: TaskStatus(99)})
    await until(lambda: agent.acknowledged(number))
    assert (await leader.store.get(Task, "default", task_id)).status.state is TaskState.RUNNING
    assert agent.error is None


async def test_an_end_and_a_successor_of_the_nodes_own_making_are_stored_at_once(leader, agents):
    """Whoever looks sees a task in the slot, so nothing is started beside it; and the node is assigned it."""
    agent, task_id = await one_running(leader, agents)
    heir, later = successor_id(task_id), successor_id(successor_id(task_id))
    ended = TaskStatus(TaskState.FAILED, reason="exit code 1", released=True)
    statuses = {later: TaskStatus(TaskState.RUNNING), heir: ended, task_id: ended}
    made = {heir: Succession(task_id, 1.0, 1, attempts=1), later: Succession(task_id, 2.0, 2, attempts=2)}
    number = await agent.report(statuses, made)
    await until(lambda: agent.acknowledged(number))
    stored = {t.meta.id: t for t in leader.tasks()}
    assert stored.keys() == {task_id, heir, later}
    assert {t.meta.version for t in stored.values()} == {stored[later].meta.version}
    assert [stored[i].status.state for i in (task_id, heir, later)] == [
        TaskState.FAILED,
        TaskState.FAILED,
        TaskState.RUNNING,
    ]
    assert (stored[later].attempts, stored[later].slot, stored[later].node_id) == (2, 1, stored[task_id].node_id)
    await until(lambda: agent.tasks().get(later))
    again = await agent.report(statuses, made)  # the acknowledgement was lost
    await until(lambda: agent.acknowledged(again))
    assert {t.meta.id for t in leader.tasks()} == {task_id, heir, later}


async def test_a_successor_of_an_unknown_or_a_foreign_task_is_not_stored(leader, agents):
    _, task_id = await one_running(leader, agents)
    other = await agents(leader.address, "n2")
    made = {"madebyn2": Succession(task_id), "madeofnone": Succession("nosuchtaskatall")}
    number = await other.report(dict.fromkeys(made, TaskStatus(TaskState.RUNNING)), made)
    await until(lambda: other.acknowledged(number))
    assert [t.meta.id for t in leader.tasks()] == [task_id]


async def test_an_agent_cannot_write_the_controllers_states(leader, agents):
    agent, task_id = await one_running(leader, agents)
    number = await agent.report({task_id: TaskStatus(TaskState.ORPHANED)})
    await until(lambda: agent.acknowledged(number))
    assert (await leader.store.get(Task, "default", task_id)).status.state is TaskState.RUNNING


async def test_many_statuses_go_in_few_writes(leader, agents):
    await leader.add_image()
    agent = await agents(leader.address)
    await leader.create(replicas=90)
    await until(lambda: len(agent.tasks()) == 90)
    before = await leader.store.revision()
    number = await agent.report({t: TaskStatus(TaskState.RUNNING) for t in agent.tasks()})
    await until(lambda: agent.acknowledged(number))
    assert await leader.store.revision() - before <= 3


async def test_statuses_and_the_orchestrator_write_the_same_tasks(leader, agents):
    """Both write the same objects at once: of each conflict one is decided anew, and nothing is lost."""
    await leader.add_image()
    agent = await agents(leader.address)
    service = await leader.create(replicas=40)
    await until(lambda: len(agent.tasks()) == 40)
    from argosy.proto.argosy.v1 import control_pb2

    ids = list(agent.tasks())
    numbers = [await agent.report({t: TaskStatus(TaskState.PREPARING)}) for t in ids]
    remove = leader.control.RemoveService(control_pb2.RemoveServiceRequest(ref=service.meta.id))
    numbers += [await agent.report({t: TaskStatus(TaskState.RUNNING)}) for t in ids]
    await remove
    await until(lambda: all(map(agent.acknowledged, numbers)))
    await until(lambda: all(t.desired_state is TaskState.REMOVE for t in leader.tasks()))
    assert {t.status.state for t in leader.tasks()} == {TaskState.RUNNING}
    number = await agent.report({t: TaskStatus(TaskState.SHUTDOWN, released=True) for t in ids})
    await until(lambda: agent.acknowledged(number))
    await until(lambda: not leader.tasks())


async def test_a_status_too_large_for_etcd_does_not_stop_the_others(leader, agents):
    agent, task_id = await one_running(leader, agents)
    poison = await agent.report({task_id: TaskStatus(TaskState.FAILED, reason="x" * 2_000_000)})
    await until(lambda: agent.acknowledged(poison))
    (successor,) = await until(lambda: [t.meta.id for t in leader.tasks() if t.meta.id != task_id])
    await until(lambda: successor in agent.tasks())
    number = await agent.report({successor: TaskStatus(TaskState.PREPARING)})
    await until(lambda: agent.acknowledged(number))


async def acknowledging(agent):
    """Say of all that an agent is told that it is in force, and beat, until cancelled."""
    while True:
        told = [s.version for s in agent.bodies("assignments")]
        if told:
            ack = dispatcher_pb2.AssignmentAck(version=max(told))
            await agent.call.write(dispatcher_pb2.AgentMessage(ack=ack))
        await agent.beat()
        await asyncio.sleep(0.1)


async def test_a_node_that_is_down_is_not_waited_for_though_its_stream_has_not_broken_yet(leader, agents):
    """A host that loses its link says nothing any more; it takes a minute until its connection is given up."""
    await leader.add_image()
    lives, dies = await agents(leader.address), await agents(leader.address, "n2")
    net = await leader.control.CreateNetwork(control_pb2.CreateNetworkRequest(spec=types_pb2.NetworkSpec(name="net")))
    both = [asyncio.create_task(acknowledging(agent)) for agent in (lives, dies)]
    try:
        await leader.create(replicas=2, networks=(net.meta.id,))
        for agent in (lives, dies):
            (task_id,) = await until(lambda agent=agent: list(agent.tasks()))
            await agent.report({task_id: TaskStatus(TaskState.RUNNING)})
        await until(lambda: [t.status.state for t in leader.tasks()] == [TaskState.RUNNING] * 2)
        (mine,) = lives.tasks()
        both[1].cancel()
        await leader.control.RemoveService(control_pb2.RemoveServiceRequest(ref="web"))
        await until(lambda: lives.tasks()[mine].desired_state > TaskState.RUNNING)
        assert not lives.tasks()[mine].drained, "it is not known to be down: it may still send"
        await until(lambda: leader.cache.snapshot.get(Node, dies.node_id).status.state is NodeState.DOWN)
        await until(lambda: lives.tasks()[mine].drained)
        assert leader.session_of(dies) is not None
    finally:
        for task in both:
            task.cancel()
        await asyncio.gather(*both, return_exceptions=True)


@contextlib.asynccontextmanager
async def obeying(*agents):
    """Have agents acknowledge what they are told, and beat."""
    tasks = [asyncio.create_task(acknowledging(agent)) for agent in agents]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_node_that_is_removed_is_not_waited_for(controllers, agents):
    """One that a new leader has not heard of yet, and that nobody expects back."""
    first = await (await controllers("c1")).lead()
    second = await controllers("c2")
    await first.add_image()
    lives, gone = await agents(first.address), await agents(first.address, "n2")
    net = await first.control.CreateNetwork(control_pb2.CreateNetworkRequest(spec=types_pb2.NetworkSpec(name="net")))
    async with obeying(lives, gone):
        await first.create(replicas=2, networks=(net.meta.id,))
        for agent in (lives, gone):
            (task_id,) = await until(lambda agent=agent: list(agent.tasks()))
            await agent.report({task_id: TaskStatus(TaskState.RUNNING)})
        await until(lambda: [t.status.state for t in first.tasks()] == [TaskState.RUNNING] * 2)
    (mine,) = lives.tasks()
    await gone.close()
    await first.resign()
    await until(lambda: lives.error)
    await second.lead()
    await lives.connect(second.address)
    async with obeying(lives):
        await until(lambda: second.cache.snapshot.get(Node, gone.node_id).status.state is NodeState.UNKNOWN)
        await second.control.RemoveService(control_pb2.RemoveServiceRequest(ref="web"))
        await until(lambda: lives.tasks()[mine].desired_state > TaskState.RUNNING)
        assert not lives.tasks()[mine].drained, "its node may open a session yet, and send meanwhile"
        await second.control.RemoveNode(control_pb2.RemoveNodeRequest(ref=gone.node_id))
        await until(lambda: lives.tasks()[mine].drained)
