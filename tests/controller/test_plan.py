"""Plans, explanations and rebalancing on a leader with real loops: what is said is what then happens."""

import asyncio
import contextlib
import threading
from collections import Counter
from dataclasses import replace

import grpc
import pytest

from argosy.controller.api import placement
from argosy.controller.loops import forecast
from argosy.controller.store import Put, update
from argosy.core.codec import encode
from argosy.core.meta import Scheduling
from argosy.core.network import Network, NetworkSpec
from argosy.core.node import Availability, Node, NodeState
from argosy.core.service import Affinity, ContainerSpec, Placement, Service, ServiceSpec, TaskSpec
from argosy.core.task import Task, TaskStatus
from argosy.core.task_state import TaskState
from argosy.proto.argosy.v1 import control_pb2 as pb
from argosy.proto.argosy.v1 import types_pb2
from tests.controller.harness import a_service_spec, until


@contextlib.asynccontextmanager
async def hosts(leader, agents, *names):
    """Obedient nodes that beat until the end of the block; yields a function that adds one."""
    made = []

    async def add(name):
        agent = await agents(leader.address, name, obedient=True)
        made.append(agent)
        await until(lambda: (n := leader.cache.snapshot.get(Node, agent.node_id)) and n.status.state is NodeState.READY)
        return agent

    async def beat():
        while True:
            for agent in made:
                await agent.beat()
            await asyncio.sleep(0.2)

    for name in names:
        await add(name)
    beating = asyncio.create_task(beat())
    try:
        yield add
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)


def running(leader):
    """Return the names of nodes and how many tasks of each service run there."""
    snap = leader.cache.snapshot
    live = [t for t in snap.all(Task) if t.desired_state is TaskState.RUNNING and t.status.state is TaskState.RUNNING]
    names = {s.meta.id: s.spec.name for s in snap.all(Service)}
    return Counter((names[t.service_id], snap.get(Node, t.node_id).spec.name) for t in live)


def lines(plan):
    return [(pb.PlanVerb.Name(t.verb).removeprefix("PLAN_VERB_"), t.task, t.old_node, t.new_node) for t in plan.tasks]


def stack(*services, **more):
    network = encode(NetworkSpec("front"), types_pb2.NetworkSpec)
    return pb.ApplyStackRequest(stack="shop", networks=[network], services=services, **more)


async def test_a_client_that_goes_away_leaves_nobody_at_work_for_it(leader, monkeypatch):
    began, ended = threading.Event(), threading.Event()

    class Slow(forecast._World):
        """A cluster that does not come to rest before somebody gives it up."""

        def _sleep(self):
            began.set()
            return True

        def settle(self):
            try:
                super().settle()
            finally:
                ended.set()

    await leader.add_image()
    monkeypatch.setattr(forecast, "_World", Slow)
    monkeypatch.setattr(forecast, "ROUNDS", 10**9)
    call = leader.control.GetPlan(pb.GetPlanRequest(create_service=pb.CreateServiceRequest(spec=a_service_spec("web"))))
    await until(began.is_set)
    call.cancel()
    await until(ended.is_set)


async def test_a_stack_is_planned_applied_and_then_nothing_is_left_to_do(leader, agents):
    await leader.add_image()
    async with hosts(leader, agents, "n1", "n2"):
        request = stack(a_service_spec("shop_web", replicas=3, networks=("front",)))
        before = await leader.store.revision()
        plan = await leader.control.GetPlan(pb.GetPlanRequest(apply_stack=request))
        again = await leader.control.GetPlan(pb.GetPlanRequest(apply_stack=request))
        assert plan.id == again.id
        assert await leader.store.revision() == before or not leader.cache.snapshot.all(Service)
        assert [(s.kind, s.name) for s in plan.specs] == [("service", "shop_web"), ("network", "front")]
        fields = {f.path: f.new for f in plan.specs[0].fields}
        assert fields["replicas"] == "3"
        assert fields["task.networks"] == "[{target: front}]"
        assert [line[0] for line in lines(plan)] == ["CREATE"] * 3
        request.plan_id = plan.id
        await leader.control.ApplyStack(request)
        await until(lambda: running(leader).total() == 3)
        assert Counter(n for _, n in running(leader).elements()) == Counter(t.new_node for t in plan.tasks)
        request.plan_id = ""
        empty = await leader.control.GetPlan(pb.GetPlanRequest(apply_stack=request))
        assert (list(empty.specs), list(empty.tasks)) == ([], [])


async def test_a_stale_plan_is_refused_and_says_what_would_be_done_now(leader, agents):
    await leader.add_image()
    async with hosts(leader, agents, "n1") as add:
        await leader.create(replicas=1)
        await until(lambda: running(leader).total() == 1)
        request = pb.ScaleServicesRequest(replicas={"web": 3})
        plan = await leader.control.GetPlan(pb.GetPlanRequest(scale_services=request))
        assert lines(plan) == [("CREATE", "web.2", "", "n1"), ("CREATE", "web.3", "", "n1")]
        await add("n2")
        request.plan_id = plan.id
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await leader.control.ScaleServices(request)
        assert refusal.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "create web.2 (n2)" in refusal.value.details()
        assert leader.cache.snapshot.all(Service)[0].spec.replicas == 1


async def test_a_request_that_would_be_refused_has_no_plan(leader):
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await leader.control.GetPlan(
            pb.GetPlanRequest(create_service=pb.CreateServiceRequest(spec=a_service_spec("x")))
        )
    assert refusal.value.code() is grpc.StatusCode.NOT_FOUND
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await leader.control.GetPlan(pb.GetPlanRequest())
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_drain_is_planned(leader, agents):
    await leader.add_image()
    async with hosts(leader, agents, "n1", "n2"):
        await leader.create(replicas=2)
        await until(lambda: running(leader).total() == 2)
        node = await leader.control.GetNode(pb.GetNodeRequest(ref="n1"))
        node.spec.availability = types_pb2.Availability.Value("AVAILABILITY_DRAIN")
        request = pb.UpdateNodeRequest(ref="n1", spec=node.spec, drain_for=60.0)
        plan = await leader.control.GetClusterPlan(pb.GetClusterPlanRequest(update_node=request))
        assert [line[0::2] for line in lines(plan)] == [("MOVE", "n1")]
        assert plan.id == (await leader.control.GetClusterPlan(pb.GetClusterPlanRequest(update_node=request))).id
        assert running(leader) == {("web", "n1"): 1, ("web", "n2"): 1}
        assert deadline_in(plan) == ("", "set")
        await leader.control.UpdateNode(request)
        request = await drain_of(leader, "n1")
        request.spec.drain.Clear()
        plan = await leader.control.GetClusterPlan(pb.GetClusterPlanRequest(update_node=request))
        assert deadline_in(plan) == ("set", "")


def deadline_in(plan):
    return next((f.old, f.new) for spec in plan.specs for f in spec.fields if f.path == "drain.deadline")


async def create_jobs(leader):
    for mode in ("GLOBAL_JOB", "REPLICATED_JOB"):
        job = a_service_spec(mode.partition("_")[0].lower())
        job.mode = types_pb2.ServiceMode.Value(f"SERVICE_MODE_{mode}")
        job.job.total_completions = 1
        job.task.restart.condition = types_pb2.RESTART_CONDITION_ON_FAILURE
        await leader.control.CreateService(pb.CreateServiceRequest(spec=job))


@pytest.mark.parametrize(("others", "becomes"), [(["n2"], ("MOVE", "n2")), ([], ("WAIT", ""))])
async def test_a_plan_of_a_drain_shows_what_has_not_begun_of_a_job(leader, agents, others, becomes):
    await leader.add_image()
    async with hosts(leader, agents) as add:
        (await add("n1")).obedient = False
        await create_jobs(leader)
        await until(lambda: [t.status.state for t in leader.cache.snapshot.all(Task)] == [TaskState.ASSIGNED] * 2)
        for name in others:
            (await add(name)).obedient = False
        await until(lambda: sum(1 for _ in leader.cache.snapshot.all(Task)) == 2 + len(others))
        verb, node = becomes
        request = await drain_of(leader, "n1")
        plan = await leader.control.GetClusterPlan(pb.GetClusterPlanRequest(update_node=request))
        assert lines(plan) == [("STOP", "global.n1", "n1", ""), (verb, "replicated.1", "n1", node)]
        assert not plan.notices
        elsewhere = pb.GetPlanRequest(scale_services=pb.ScaleServicesRequest(replicas={}))
        assert not lines(await leader.control.GetPlan(elsewhere))


async def test_a_plan_of_a_drain_names_the_tasks_of_jobs_that_stay(leader, agents):
    await leader.add_image()
    async with hosts(leader, agents, "n1"):
        await create_jobs(leader)
        await leader.create()
        await until(lambda: running(leader).total() == 3)
        request = await drain_of(leader, "n1")
        plan = await leader.control.GetClusterPlan(pb.GetClusterPlanRequest(update_node=request))
        assert [task.task for task in plan.tasks] == ["web.1"]
        assert list(plan.notices) == ["tasks of jobs on n1 run on to their end: global.n1, replicated.1"]
        request.drain_for = 60.0
        plan = await leader.control.GetClusterPlan(pb.GetClusterPlanRequest(update_node=request))
        assert list(plan.notices) == [
            "tasks of jobs on n1 run on to their end, or to the drain's deadline: global.n1, replicated.1"
        ]
        elsewhere = pb.GetPlanRequest(scale_services=pb.ScaleServicesRequest(replicas={"web": 2}))
        assert not (await leader.control.GetPlan(elsewhere)).notices


async def test_a_plan_says_which_nodes_have_not_told_a_new_leader_what_runs_there(leader, agents):
    await leader.add_image()
    agent = await agents(leader.address)
    service = await leader.create()
    await until(agent.tasks)
    (task_id,) = agent.tasks()
    await agent.report({task_id: TaskStatus(TaskState.RUNNING)})
    await until(lambda: leader.tasks(service.meta.id)[0].status.state is TaskState.RUNNING)
    request = pb.GetPlanRequest(scale_services=pb.ScaleServicesRequest(replicas={"web": 2}))

    async def notices():
        return list((await leader.control.GetPlan(request)).notices)

    assert await notices() == []
    await leader.resign()
    await leader.lead()
    assert await notices() == [
        "n1 has not told the new leader yet what runs there: the plan goes by what it told before"
    ]
    await agent.close()
    await agent.connect(leader.address)
    await agent.report({task_id: TaskStatus(TaskState.RUNNING)})
    async with asyncio.timeout(10):
        while await notices():  # noqa: ASYNC110 (each is a request)
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("plan_id", ["xyz", "5F0C1BE2A94D7C33", "5f0c1be2a94d7c3"])
async def test_what_cannot_be_a_plans_id_is_no_stale_plan(leader, plan_id):
    await leader.add_image()
    await leader.create()
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await leader.control.ScaleServices(pb.ScaleServicesRequest(replicas={"web": 3}, plan_id=plan_id))
    assert (refusal.value.code(), refusal.value.details()) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        f"'{plan_id}' is no id of a plan: --plan prints one, of 16 characters 0-9 and a-f",
    )


async def test_after_a_node_joined_rebalancing_evens_out_and_then_has_nothing_to_do(leader, agents):
    await leader.add_image()
    async with hosts(leader, agents, "n1") as add:
        await leader.create(replicas=4)
        await until(lambda: running(leader).total() == 4)
        await add("n2")
        plan = await leader.control.GetClusterPlan(pb.GetClusterPlanRequest(rebalance=pb.RebalanceRequest()))
        assert [(line[0], *line[2:]) for line in lines(plan)] == [("MOVE", "n1", "n2")] * 2
        moved = await leader.control.Rebalance(pb.RebalanceRequest(plan_id=plan.id))
        assert len(moved.tasks) == 2
        await until(lambda: running(leader) == {("web", "n1"): 2, ("web", "n2"): 2})
        nothing = await leader.control.Rebalance(pb.RebalanceRequest())
        assert (len(nothing.tasks), nothing.notice) == (0, "every service is spread as evenly as it can be")


async def stale(call) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await call
    assert refusal.value.code() is grpc.StatusCode.FAILED_PRECONDITION, refusal.value.details()
    return refusal.value.details()


def right_before(store, writes, do):
    """Have `do` happen once, between the check of a plan and the first transaction that `writes` what it looks for."""
    apply, done = store._apply, []

    async def applied(groups, fence):
        puts = [part.op.obj for group in groups for part in group.parts if isinstance(part.op, Put)]
        if not done and any(writes(obj) for obj in puts):
            done.append(True)
            await do()
        return await apply(groups, fence)

    store._apply = applied
    return done


async def drain_of(leader, name):
    node = await leader.control.GetNode(pb.GetNodeRequest(ref=name))
    node.spec.availability = types_pb2.AVAILABILITY_DRAIN
    return pb.UpdateNodeRequest(ref=name, spec=node.spec)


def availability(leader, name):
    return next(n.spec.availability for n in leader.cache.snapshot.all(Node) if n.spec.name == name)


async def test_a_stale_plan_of_a_deploy_does_nothing(leader, agents):
    await leader.add_image()
    async with hosts(leader, agents, "n1") as add:
        request = stack(a_service_spec("shop_web", networks=("front",)))
        request.plan_id = (await leader.control.GetPlan(pb.GetPlanRequest(apply_stack=request))).id
        await leader.control.CreateNetwork(pb.CreateNetworkRequest(spec=types_pb2.NetworkSpec(name="other")))
        await leader.create("other")
        await add("n2")
        said = await stale(leader.control.ApplyStack(request))
        assert "create shop_web.1 (n2)" in said
        assert [s.spec.name for s in leader.cache.snapshot.all(Service)] == ["other"]
        assert not leader.cache.snapshot.by_name(Network, "default", "front")


async def test_a_stale_plan_of_a_drain_does_nothing(leader, agents):
    await leader.add_image()
    async with hosts(leader, agents, "n1", "n2") as add:
        await leader.create(replicas=2)
        await until(lambda: running(leader).total() == 2)
        request = await drain_of(leader, "n1")
        request.plan_id = (await leader.control.GetClusterPlan(pb.GetClusterPlanRequest(update_node=request))).id
        await add("n3")
        said = await stale(leader.control.UpdateNode(request))
        assert "(n3)" in said
        assert availability(leader, "n1") is Availability.ACTIVE
        assert not any(task.evict for task in leader.tasks())


async def test_a_plan_of_a_drain_does_not_outlive_a_change_of_the_node_before_the_writing(leader, agents):
    await leader.add_image()
    async with hosts(leader, agents, "n1", "n2"):
        request = await drain_of(leader, "n1")
        request.plan_id = (await leader.control.GetClusterPlan(pb.GetClusterPlanRequest(update_node=request))).id

        async def label():
            node = await leader.control.GetNode(pb.GetNodeRequest(ref="n1"))
            node.spec.labels["disk"] = "ssd"
            await leader.control.UpdateNode(pb.UpdateNodeRequest(ref="n1", spec=node.spec))

        changed = right_before(
            leader.store, lambda o: isinstance(o, Node) and o.spec.availability is Availability.DRAIN, label
        )
        said = await stale(leader.control.UpdateNode(request))
        assert changed
        assert said.startswith("the plan is stale: the node ")
        assert availability(leader, "n1") is Availability.ACTIVE


async def uneven(leader, add):
    """Return a plan to move two of four tasks to a node that has joined."""
    await leader.add_image()
    await leader.create(replicas=4)
    await until(lambda: running(leader).total() == 4)
    await add("n2")
    return await leader.control.GetClusterPlan(pb.GetClusterPlanRequest(rebalance=pb.RebalanceRequest()))


async def test_a_stale_plan_of_a_rebalance_moves_nothing(leader, agents):
    async with hosts(leader, agents, "n1") as add:
        plan = await uneven(leader, add)
        await add("n3")
        said = await stale(leader.control.Rebalance(pb.RebalanceRequest(plan_id=plan.id)))
        assert "(n3)" in said
        assert running(leader) == {("web", "n1"): 4}
        assert not any(task.evict for task in leader.tasks())


async def test_a_planned_rebalance_moves_all_or_nothing(leader, agents):
    """One of its tasks is changed between the check and the writing: the other does not move either."""
    async with hosts(leader, agents, "n1") as add:
        plan = await uneven(leader, add)

        async def touch():
            task = next(t for t in leader.tasks() if f"web.{t.slot}" == plan.tasks[0].task)
            version = await leader.store.commit([update(replace(task, failures=1))])
            await leader.cache.wait_for(version)

        changed = right_before(leader.store, lambda o: isinstance(o, Task) and o.evict, touch)
        said = await stale(leader.control.Rebalance(pb.RebalanceRequest(plan_id=plan.id)))
        assert changed
        assert said.startswith("the plan is stale: the task ")
        assert not any(task.evict for task in leader.tasks())
        moved = await leader.control.Rebalance(pb.RebalanceRequest())
        assert len(moved.tasks) == 2


async def test_a_rebalance_too_large_for_all_or_nothing_says_so_before_and_refuses(leader, agents, monkeypatch):
    monkeypatch.setattr(placement, "MOST_PLANNED_MOVES", 1)
    async with hosts(leader, agents, "n1") as add:
        plan = await uneven(leader, add)
        (notice,) = plan.notices
        assert notice.startswith("2 tasks are to move, and only 1 can be all or none: `argosy rebalance` without ")
        said = await stale(leader.control.Rebalance(pb.RebalanceRequest(plan_id=plan.id)))
        assert said == f"{notice}; nothing was done"
        assert not any(task.evict for task in leader.tasks())


async def test_an_explanation_says_of_each_node_why_it_is_refused(leader, agents):
    await leader.add_image()
    async with hosts(leader, agents, "n1", "n2"):
        apart = Placement(affinities=(Affinity("web", anti=True),))
        task = TaskSpec(ContainerSpec(image="web:1"), placement=apart)
        spec = encode(ServiceSpec("web", replicas=3, task=task), types_pb2.ServiceSpec)
        await leader.control.CreateService(pb.CreateServiceRequest(spec=spec))
        await until(lambda: running(leader).total() == 2)
        await until(lambda: any(t.status.reason for t in leader.tasks()))
        said = await leader.control.GetExplanation(pb.GetExplanationRequest(ref="web"))
        assert said.summary == "both nodes have a task of web, which this service keeps away from"
        assert [(n.node, n.fits, n.tasks) for n in said.nodes] == [("n1", False, 1), ("n2", False, 1)]
        assert [t.status.reason for t in said.waiting] == [said.summary]


async def test_the_cluster_is_packed_when_it_is_told_to(leader):
    packed = types_pb2.SCHEDULING_BINPACK
    changed = await leader.control.UpdateCluster(pb.UpdateClusterRequest(scheduling=packed))
    assert changed.scheduling == packed
    described = await leader.control.GetCluster(pb.GetClusterRequest())
    assert Scheduling(described.cluster.scheduling) is Scheduling.BINPACK
    nothing = await leader.control.Rebalance(pb.RebalanceRequest())
    assert "packed" in nothing.notice
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await leader.control.UpdateCluster(pb.UpdateClusterRequest(scheduling=7))
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
