"""The API on a leader with real loops: version checks, all or nothing, names, removal, waiting tasks."""

import asyncio
import time
from dataclasses import replace

import grpc
import pytest

from argosy.controller.changes import images
from argosy.controller.loops.networks import Suspects, unneeded
from argosy.controller.store import create, update
from argosy.core.codec import encode
from argosy.core.image import Image
from argosy.core.meta import Meta
from argosy.core.network import Network, NetworkSpec, Slice
from argosy.core.node import Availability, Node, NodeDescription, NodeSpec, NodeState, NodeStatus
from argosy.core.service import Revision, Service, ServiceSpec, revision_id
from argosy.core.task import Task, TaskStatus
from argosy.core.task_state import TaskState
from argosy.proto.argosy.v1 import control_pb2 as pb
from argosy.proto.argosy.v1 import types_pb2
from tests.controller.harness import DIGEST, LINUX, Controller, a_service_spec, until


async def refused(call) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await call
    return refusal.value


async def test_an_update_from_an_older_version_is_refused(leader):
    await leader.add_image()
    service = await leader.create()
    spec = a_service_spec("web", replicas=2)
    request = pb.UpdateServiceRequest(ref="web", spec=spec, version=service.meta.version)
    changed = await leader.control.UpdateService(request)
    assert changed.spec.replicas == 2
    request.spec.replicas = 3
    error = await refused(leader.control.UpdateService(request))
    assert error.code() is grpc.StatusCode.ABORTED
    assert leader.cache.snapshot.get(Service, service.meta.id).spec.replicas == 2


async def test_many_who_change_one_service_at_a_time_all_have_their_turn(leader):
    await leader.add_image()
    service = await leader.create()
    asked = [leader.control.ScaleServices(pb.ScaleServicesRequest(replicas={"web": n})) for n in range(1, 31)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [a for a in answers if isinstance(a, Exception)] == []
    last = max((a.services[0] for a in answers), key=lambda s: s.meta.version)
    assert leader.cache.snapshot.get(Service, service.meta.id).spec.replicas == last.spec.replicas


async def test_of_two_operators_the_second_does_not_undo_what_the_first_did(leader, agents):
    agent = await agents(leader.address)
    ready = NodeState.READY
    await until(lambda: (n := leader.cache.snapshot.get(Node, agent.node_id)) and n.status.state is ready)
    read = await leader.control.GetNode(pb.GetNodeRequest(ref="n1"))
    drained = types_pb2.NodeSpec()
    drained.CopyFrom(read.spec)
    drained.availability = types_pb2.Availability.Value("AVAILABILITY_DRAIN")
    version = read.meta.version
    await leader.control.UpdateNode(pb.UpdateNodeRequest(ref="n1", spec=drained, version=version))
    labelled = types_pb2.NodeSpec()
    labelled.CopyFrom(read.spec)
    labelled.labels["disk"] = "ssd"
    error = await refused(leader.control.UpdateNode(pb.UpdateNodeRequest(ref="n1", spec=labelled, version=version)))
    assert error.code() is grpc.StatusCode.ABORTED
    assert leader.cache.snapshot.get(Node, agent.node_id).spec.availability is Availability.DRAIN


async def test_a_stack_is_applied_all_or_nothing(leader):
    await leader.add_image()
    good, bad = a_service_spec("good"), a_service_spec("bad", image="nobody-has:1")
    network = encode(NetworkSpec("front"), types_pb2.NetworkSpec)
    before = await leader.store.revision()
    error = await refused(
        leader.control.ApplyStack(pb.ApplyStackRequest(stack="shop", networks=[network], services=[good, bad]))
    )
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert "nobody-has:1" in error.details()
    error = await refused(
        leader.control.ApplyStack(pb.ApplyStackRequest(stack="shop", services=[good, a_service_spec("Bad Name")]))
    )
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert await leader.store.revision() == before
    assert not leader.cache.snapshot.all(Service)
    assert not leader.cache.snapshot.all(Network)


async def test_the_names_of_a_removed_stack_are_free_at_once_and_its_networks_go_with_the_last_task(leader, agents):
    await leader.add_image()
    agent = await agents(leader.address)
    network = encode(NetworkSpec("front"), types_pb2.NetworkSpec)
    request = pb.ApplyStackRequest(
        stack="shop", networks=[network], services=[a_service_spec("web", networks=("front",))]
    )
    applied = await leader.control.ApplyStack(request)
    old_network = applied.networks[0].meta.id
    (old_task,) = await until(lambda: list(agent.tasks()))
    await agent.report({old_task: TaskStatus(TaskState.RUNNING)})
    await leader.control.RemoveStack(pb.RemoveStackRequest(stack="shop"))
    again = await leader.control.ApplyStack(request)
    assert again.services[0].meta.id != applied.services[0].meta.id
    assert again.networks[0].meta.id != old_network
    await until(lambda: agent.tasks()[old_task].desired_state is TaskState.REMOVE)
    # Its task still has an address of the old network: that stays, with its slice.
    assert leader.cache.snapshot.get(Network, old_network).removing
    number = await agent.report({old_task: TaskStatus(TaskState.SHUTDOWN, released=True)})
    await until(lambda: agent.acknowledged(number))
    await until(lambda: leader.cache.snapshot.get(Network, old_network) is None)
    assert not leader.cache.snapshot.slices_of_network(old_network)
    assert leader.cache.snapshot.get(Network, again.networks[0].meta.id) is not None


async def test_a_network_that_a_service_joined_meanwhile_is_not_deleted(leader):
    """Removal and creation may be decided on views that do not show the other's write yet."""
    network = Network(Meta("net", "default"), NetworkSpec("front"), 4096, "10.64.0.0/16", removing=True)
    service = Service(Meta("svc", "default"), ServiceSpec("web"))
    spec = ServiceSpec("web", task=replace(service.spec.task, networks=(a_target("net"),)))
    await leader.resign()
    await leader.store.commit([create(network), create(replace(service, spec=spec))])
    await until(lambda: leader.cache.snapshot.get(Service, "svc"))
    assert due(leader.cache.snapshot) == []
    stored = leader.cache.snapshot.get(Service, "svc")
    await leader.store.commit([update(replace(stored, removing=True))])
    await until(lambda: leader.cache.snapshot.get(Service, "svc").removing)
    assert len(due(leader.cache.snapshot)) == 1


def due(snap):
    """Return the groups of operations that the network reaper would write."""
    suspects = Suspects()
    for _ in suspects.fill(snap):
        pass
    return [group for groups in unneeded(snap, suspects) for group in groups]


def a_target(network_id: str):
    from argosy.core.service import NetworkAttachmentSpec

    return NetworkAttachmentSpec(network_id)


async def test_a_task_that_nobody_can_take_waits_and_says_why_until_a_node_comes(leader, agents):
    await leader.add_image()
    service = await leader.create()
    task = await until(lambda: [t for t in leader.tasks() if t.status.state is TaskState.PENDING])
    assert task[0].status.reason
    agent = await agents(leader.address)
    await until(lambda: agent.tasks())
    assert [t.status.state for t in leader.tasks(service.meta.id)] == [TaskState.ASSIGNED]


async def test_a_task_that_was_restarted_comes_with_what_failed_before_it(leader, agents):
    agent = await agents(leader.address)
    await leader.add_image()
    service = await leader.create(replicas=2)
    await until(lambda: len(agent.tasks()) == 2)
    first = next(t for t in leader.tasks(service.meta.id) if t.slot == 1)
    failed = TaskStatus(TaskState.FAILED, exit_code=7, at=time.time())
    await agent.report({first.meta.id: failed})
    await until(lambda: [t for t in leader.tasks(service.meta.id) if t.failures == 1])
    listed = await leader.control.ListTasks(pb.ListTasksRequest(service="web"))
    assert sorted((t.slot, t.failures) for t in listed.tasks) == [(1, 1), (2, 0)]
    assert [(t.meta.id, t.status.exit_code) for t in listed.before] == [(first.meta.id, 7)]


async def test_what_failed_in_a_slot_that_has_no_task_now_is_told(leader, agents):
    """It was rejected and is tried again later, or its restart policy allows no more."""
    agent = await agents(leader.address)
    await leader.add_image()
    once = a_service_spec("once", replicas=2)
    once.task.restart.condition = types_pb2.RESTART_CONDITION_NONE
    await leader.control.CreateService(pb.CreateServiceRequest(spec=once))
    await until(lambda: len(agent.tasks()) == 2)
    gone, kept = sorted(leader.tasks(), key=lambda t: t.slot)
    failed = TaskStatus(TaskState.FAILED, exit_code=7, at=time.time())
    await agent.report({gone.meta.id: failed, kept.meta.id: TaskStatus(TaskState.RUNNING)})

    async def told(**request):
        listed = await leader.control.ListTasks(pb.ListTasksRequest(**request))
        return [t.meta.id for t in listed.tasks], [t.meta.id for t in listed.before]

    await until(lambda: leader.cache.snapshot.get(Task, gone.meta.id).status.state is TaskState.FAILED)
    for request in ({}, {"service": "once"}, {"node": "n1"}):
        assert await told(**request) == ([kept.meta.id], [gone.meta.id])
    await leader.control.ScaleServices(pb.ScaleServicesRequest(replicas={"once": 1}))
    await until(lambda: leader.cache.snapshot.get(Task, gone.meta.id).desired_state is not TaskState.RUNNING)
    assert await told() == ([kept.meta.id], [])


def node_id(number: int) -> str:
    return f"node{number:09d}"


async def keep_heard(controller: Controller, count: int) -> None:
    """Let the leader hear of nodes that have no session here."""
    while True:
        if controller.dispatcher.term:
            for number in range(count):
                controller.dispatcher.term.heard.agent(node_id(number))
        await asyncio.sleep(0.2)


async def many_nodes(controller: Controller, count: int) -> None:
    """Store nodes that are READY, as though they had joined long ago."""
    groups = []
    for number in range(count):
        node = Node(
            Meta(node_id(number), created_at=1.0),
            NodeSpec(f"n{number}"),
            NodeDescription(platform=LINUX),
            NodeStatus(NodeState.READY, since=1.0),
        )
        groups.append([create(node)])
    outcomes = await controller.store.commit_batched(groups)
    assert all(o.ok for o in outcomes)


async def test_more_new_slices_than_fit_in_one_write_are_leased(leader):
    """One task on each of many nodes: each node leases a slice of both networks, most of them in the same round."""
    await leader.add_image()
    heard = asyncio.create_task(keep_heard(leader, 100))
    await many_nodes(leader, 100)
    for name in ("front", "back"):
        spec = encode(NetworkSpec(name), types_pb2.NetworkSpec)
        await leader.control.CreateNetwork(pb.CreateNetworkRequest(spec=spec))
    service = await leader.create(replicas=100, networks=("front", "back"))

    def all_assigned():
        if leader.election_task.done():
            leader.election_task.result()
        states = [t.status.state for t in leader.tasks(service.meta.id)]
        return states.count(TaskState.ASSIGNED) == 100

    await until(all_assigned, 20)
    addresses = [a.address for t in leader.tasks(service.meta.id) for a in t.attachments]
    assert len(set(addresses)) == len(addresses) == 200
    leased = {(s.network_id, s.index) for s in leader.cache.snapshot.all(Slice)}
    assert len(leased) == leader.cache.snapshot.count(Slice) == 200
    heard.cancel()


async def test_an_image_whose_name_moves_stays_while_a_revision_runs_it(leader):
    first = await leader.add_image()
    await leader.create()
    second = await leader.add_image(digest="sha256:" + "1" * 64)
    assert second.meta.id == first.meta.id
    kept = images.by_digest(leader.cache.snapshot, "default", DIGEST)
    assert (kept.name, kept.digest) == ("", DIGEST)
    third = await leader.add_image(digest="sha256:" + "2" * 64)
    await leader.store.commit_batched(images.unneeded(leader.cache.snapshot))
    await until(lambda: {i.digest for i in leader.cache.snapshot.all(Image)} == {DIGEST, third.digest})


async def test_a_rollback_restores_the_digest_that_its_revision_had(leader):
    """One name throughout, which moved twice: no revision says more than the name, but for the digest."""
    digests = [DIGEST, "sha256:" + "1" * 64, "sha256:" + "2" * 64]
    await leader.add_image()
    service = await leader.create()
    for digest in digests[1:]:
        await leader.add_image(digest=digest)
        changed = await leader.control.UpdateService(pb.UpdateServiceRequest(ref="web", spec=a_service_spec("web")))
        assert changed.spec.task.container.image_digest == digest
    outcomes = await leader.store.commit_batched(images.unneeded(leader.cache.snapshot))
    assert outcomes == []  # the second image has no name any more and no task, but a revision
    for number in (2, 1):
        back = await leader.control.RollbackService(pb.RollbackServiceRequest(ref="web", to_revision=number))
        has = back.spec.task.container
        assert (has.image, has.image_digest) == ("web:1", digests[number - 1])
        await until(lambda d=digests[number - 1]: running_digests(leader, service) == {d})
    later = await leader.control.UpdateService(
        pb.UpdateServiceRequest(ref="web", spec=a_service_spec("web", replicas=2))
    )
    assert later.spec.task.container.image_digest == digests[2]  # a deploy takes what the name means by then


def running_digests(leader, service):
    """Return the digests that tasks are to run, of whatever revision: a rollback lets those be that run the same."""
    snap = leader.cache.snapshot
    here = [t for t in leader.tasks(service.meta.id) if t.desired_state <= TaskState.RUNNING]
    return {snap.get(Revision, revision_id(service.meta.id, t.revision)).spec.task.container.image_digest for t in here}


@pytest.mark.parametrize("project", ["a/b", "A", "x" * 100, "ä"])
async def test_a_project_that_cannot_be_is_refused_and_is_no_bug(leader, project):
    error = await refused(leader.control.ListServices(pb.ListServicesRequest(project=project)))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    error = await refused(
        leader.control.CreateNetwork(
            pb.CreateNetworkRequest(project=project, spec=encode(NetworkSpec("front"), types_pb2.NetworkSpec))
        )
    )
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


# ------------------------------------------------------------ watch


async def changes_of(call, count: int) -> list:
    async with asyncio.timeout(10):
        return [await call.read() for _ in range(count)]


async def test_a_watch_that_broke_goes_on_where_it_was(leader):
    await leader.add_image()
    kinds = [pb.KIND_SERVICE]
    call = leader.control.Watch(pb.WatchRequest(kinds=kinds))
    (existing,) = await changes_of(call, 1)
    assert existing.synced
    await leader.create("one")
    (first,) = await changes_of(call, 1)
    assert [c.service.spec.name for c in first.changes] == ["one"]
    call.cancel()
    await leader.create("two")
    resumed = leader.control.Watch(pb.WatchRequest(kinds=kinds, after_version=first.version))
    names = []
    while "two" not in names:
        (response,) = await changes_of(resumed, 1)
        assert response.version > first.version
        names += [c.service.spec.name for c in response.changes]
    resumed.cancel()


async def test_a_watch_from_a_version_that_is_not_kept_says_so(leader):
    call = leader.control.Watch(pb.WatchRequest(after_version=1))
    assert await call.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_a_watch_of_a_kind_from_the_future_is_refused_and_is_no_bug(leader):
    call = leader.control.Watch(pb.WatchRequest(kinds=[99]))
    assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
