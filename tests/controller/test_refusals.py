"""Requests that cannot be: each is refused with its reason and the right code, and never by an internal error."""

from dataclasses import replace
from functools import partial

import grpc
import pytest

from argosy.controller.changes import images
from argosy.controller.store import Put, Release, create, update
from argosy.core.codec import encode
from argosy.core.errors import PLACES_KEY
from argosy.core.ids import new_id
from argosy.core.image import Image, ImageConfig
from argosy.core.meta import Meta
from argosy.core.network import Network, NetworkSpec
from argosy.core.node import Node, NodeDescription, NodeSpec, NodeStatus
from argosy.core.service import Healthcheck, Service, UpdateState
from argosy.proto.argosy.v1 import control_pb2 as pb
from argosy.proto.argosy.v1 import types_pb2
from tests.controller.harness import DIGEST, a_service_spec, until

NAME = "web:1"
CHECK = Healthcheck(("CMD", "true"), interval=9.0)
INVALID = grpc.StatusCode.INVALID_ARGUMENT


async def refusal(call) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refused.value.code(), refused.value.details()


def waiting_for(name, other, *, restart=False):
    spec = a_service_spec(name)
    spec.depends_on.add(service=other, restart=restart)
    return spec


async def test_a_value_of_a_newer_version_is_the_requests_fault(leader):
    await leader.add_image()
    spec = a_service_spec("web")
    spec.mode = 99
    code, text = await refusal(leader.control.CreateService(pb.CreateServiceRequest(spec=spec)))
    assert code is INVALID
    assert text.startswith("mode is 99, and this version knows 0 (REPLICATED)")


@pytest.mark.parametrize(
    ("what", "parts"),
    [
        ("networks", {"networks": [encode(NetworkSpec("front"), types_pb2.NetworkSpec)] * 2}),
        ("configs", {"configs": [pb.NewFile(name="motd", data=b"a"), pb.NewFile(name="motd", data=b"b")]}),
        ("secrets", {"secrets": [pb.NewFile(name="key", data=b"a")] * 2}),
        ("services", {"services": [a_service_spec("web"), a_service_spec("web")]}),
    ],
)
async def test_a_name_twice_in_a_stack_is_refused(leader, what, parts):
    await leader.add_image()
    code, text = await refusal(leader.control.ApplyStack(pb.ApplyStackRequest(stack="shop", **parts)))
    assert (code, f"has {what} of the same name" in text) == (INVALID, True), text


def on_networks(name, *attached):
    spec = a_service_spec(name)
    for target, address in attached:
        spec.task.networks.add(target=target, address=address)
    return spec


def publishing(name, *ports):
    spec = on_networks(name, ("front", ""))
    for published in ports:
        spec.endpoint.ports.add(protocol="tcp", target=80, published=published)
    return spec


def network(name, **said):
    return encode(NetworkSpec(name, **said), types_pb2.NetworkSpec)


@pytest.mark.parametrize(
    ("networks", "service", "places"),
    [
        ([], a_service_spec("web", image="nobody:1"), ["service web task.container.image"]),
        ([], on_networks("web", ("nowhere", "")), ["service web task.networks"]),
        (
            [network("a", subnet="10.9.0.0/24")],
            on_networks("web", ("front", ""), ("a", "10.9.0.3")),
            ["service web task.networks[1].address"],
        ),
        (
            [network("a", subnet="10.9.0.0/24"), network("b", subnet="10.9.0.0/16")],
            on_networks("web", ("a", ""), ("b", "")),
            ["service web task.networks"],
        ),
        ([], publishing("web", 0, 8000, 8080), ["service web endpoint.ports[2].published"]),
        ([], waiting_for("web", "nobody"), ["service web depends_on[0]"]),
        ([network("front", encrypted=True)], a_service_spec("web"), ["network front encrypted"]),
        ([network("front", internal=True)], a_service_spec("web"), ["network front internal"]),
        ([network("a", subnet="169.254.0.0/16")], a_service_spec("web"), ["network a subnet"]),
        ([network("a", mtu=9000)], a_service_spec("web"), ["network a mtu"]),
        ([network("a", mtu=5)], a_service_spec("w w"), ["service w w name", "network a mtu"]),
        ([], a_service_spec("other"), ["service other "]),
    ],
)
async def test_what_of_a_stack_is_refused_goes_with_the_refusal(leader, networks, service, places):
    await leader.add_image()
    first = pb.ApplyStackRequest(stack="shop", networks=[network("front")], services=[publishing("old", 8080)])
    await leader.control.ApplyStack(first)
    await leader.create("other")
    narrow = NodeDescription("", underlay_address="192.0.2.1", underlay_mtu=1500)
    await leader.store.commit([create(Node(Meta(new_id()), NodeSpec("n1"), description=narrow))])
    await until(lambda: leader.cache.snapshot.count(Node) == 1)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await leader.control.ApplyStack(pb.ApplyStackRequest(stack="shop", networks=networks, services=[service]))
    told = pb.RefusedPlaces.FromString(dict(refused.value.trailing_metadata())[PLACES_KEY])
    assert [f"{p.kind} {p.name} {p.field}" for p in told.places] == places, refused.value.details()


async def test_one_service_scaled_under_two_names_is_refused(leader):
    await leader.add_image()
    service = await leader.create()
    request = pb.ScaleServicesRequest(replicas={"web": 2, service.meta.id: 3})
    code, text = await refusal(leader.control.ScaleServices(request))
    assert code is INVALID
    assert "web is named twice" in text


@pytest.mark.parametrize(
    ("mode", "schedule", "says"),
    [
        ("REPLICATED_JOB", "", "`argosy service update --replicas 3 web`, which begins another run"),
        ("REPLICATED_JOB", "0 4 * * *", "`argosy service update --replicas 3 web`, from its next run on"),
        ("GLOBAL_JOB", "", "web is a global job: it runs once on every node"),
        ("GLOBAL", "", "web is global: it runs once on every node"),
    ],
)
async def test_what_is_not_scaled_says_what_can_be_changed(leader, mode, schedule, says):
    await leader.add_image()
    spec = a_service_spec("web")
    spec.mode = types_pb2.ServiceMode.Value(f"SERVICE_MODE_{mode}")
    if "JOB" in mode:
        spec.job.total_completions = 1
        spec.task.restart.condition = types_pb2.RESTART_CONDITION_ON_FAILURE
    if schedule:
        spec.job.cron.schedule = schedule
    await leader.control.CreateService(pb.CreateServiceRequest(spec=spec))
    code, text = await refusal(leader.control.ScaleServices(pb.ScaleServicesRequest(replicas={"web": 3})))
    assert (code, says in text) == (INVALID, True), text


async def test_a_deploy_says_that_times_of_a_health_check_have_no_effect_where_nothing_asks(leader):
    await leader.add_image()
    asking = Image(
        Meta(project="default"), name="asks:1", digest="sha256:" + "1" * 64, config=ImageConfig(healthcheck=CHECK)
    )
    await leader.store_image(asking)
    idle, asked = a_service_spec("idle"), a_service_spec("asked", image="asks:1")
    for spec in (idle, asked):
        spec.task.container.healthcheck.CopyFrom(encode(replace(CHECK, test=()), types_pb2.Healthcheck))
    request = pb.ApplyStackRequest(stack="shop", services=[idle, asked])
    assert list((await leader.control.ApplyStack(request)).notices) == [
        "service idle: its health check says how often to ask, not how, and its image has none: it has no effect; "
        "add a test"
    ]


async def test_a_service_that_leaves_the_stack_is_not_restarted_on_its_way(leader):
    await leader.add_image()
    first = pb.ApplyStackRequest(stack="shop", services=[a_service_spec("db"), waiting_for("web", "db", restart=True)])
    await leader.control.ApplyStack(first)
    changed = a_service_spec("db")
    changed.task.container.env.append("A=1")
    done = await leader.control.ApplyStack(pb.ApplyStackRequest(stack="shop", services=[changed], prune=True))
    assert [s.spec.name for s in done.removed] == ["web"]


async def test_a_stack_of_too_many_services_says_how_many_fit(leader):
    await leader.add_image()
    many = [a_service_spec(f"s{n}") for n in range(100)]
    code, text = await refusal(leader.control.ApplyStack(pb.ApplyStackRequest(stack="shop", services=many)))
    assert code is INVALID
    assert "etcd" not in text
    fit = int(text.partition("the first ")[2].split()[0])
    assert not leader.cache.snapshot.all(Service)
    await leader.control.ApplyStack(pb.ApplyStackRequest(stack="shop", services=many[:fit]))
    code, _ = await refusal(leader.control.ApplyStack(pb.ApplyStackRequest(stack="more", services=many[: fit + 1])))
    assert code in (INVALID, grpc.StatusCode.ALREADY_EXISTS)
    await leader.control.ApplyStack(pb.ApplyStackRequest(stack="shop", services=many[: 2 * fit]))
    assert leader.cache.snapshot.count(Service) == 2 * fit > 64  # more than one transaction could remove
    gone = await leader.control.RemoveStack(pb.RemoveStackRequest(stack="shop"))
    assert len(gone.services) == 2 * fit


async def test_the_image_of_a_service_is_not_removed_by_mistake(leader):
    await leader.add_image()
    await leader.add_image("old:1")
    stack = pb.ApplyStackRequest(stack="shop", services=[a_service_spec("web"), a_service_spec("api")])
    await leader.control.ApplyStack(stack)
    request = pb.RemoveImageRequest(ref=NAME)
    code, text = await refusal(leader.control.RemoveImage(request))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "services api, web use the image web:1" in text
    await leader.control.RemoveImage(pb.RemoveImageRequest(ref="old:1"))  # the same content by another name
    request.force = True
    await leader.control.RemoveImage(request)
    code, text = await refusal(leader.control.ApplyStack(stack))
    assert code is grpc.StatusCode.NOT_FOUND
    assert "its image 'web:1' was removed, and only what runs now keeps its content" in text
    await leader.add_image()
    await leader.control.RemoveStack(pb.RemoveStackRequest(stack="shop"))
    await leader.control.RemoveImage(pb.RemoveImageRequest(ref=NAME))


async def test_a_service_does_not_get_a_digest_that_its_name_has_lost_meanwhile(leader):
    """The name is moved between the reading and the writing: the change is decided anew, with the new digest."""
    await leader.add_image()
    other = "sha256:" + "1" * 64
    commit, moved = leader.store.commit, []

    async def after_the_name_moved(ops, fence=None):
        ops = list(ops)
        if not moved and any(isinstance(op, Put) and isinstance(op.obj, Service) for op in ops):
            moved.append(True)
            await leader.add_image(digest=other)
        return await commit(ops, fence)

    leader.store.commit = after_the_name_moved
    created = await leader.create()
    assert created.spec.task.container.image_digest == other
    moved.clear()
    spec = a_service_spec("web", replicas=2)
    await leader.add_image("web:2")
    spec.task.container.image = "web:2"
    leader.add_image = partial(leader.add_image, "web:2")
    updated = await leader.control.UpdateService(pb.UpdateServiceRequest(ref="web", spec=spec))
    assert updated.spec.task.container.image_digest == other


@pytest.mark.parametrize("joins", ["create", "update", "deploy", "rollback"])
async def test_no_service_joins_a_network_that_is_removed_meanwhile(leader, joins):
    """Between the reading and the writing: the change is decided anew, and refused then."""
    await leader.add_image()
    front = encode(NetworkSpec("front"), types_pb2.NetworkSpec)
    await leader.control.CreateNetwork(pb.CreateNetworkRequest(spec=front))
    alone, joined = a_service_spec("web"), a_service_spec("web", networks=("front",))
    if joins in ("update", "rollback"):
        await leader.control.CreateService(pb.CreateServiceRequest(spec=joined if joins == "rollback" else alone))
    if joins == "rollback":
        await leader.control.UpdateService(pb.UpdateServiceRequest(ref="web", spec=alone))
    before = {s.meta.id: s.spec for s in leader.cache.snapshot.all(Service)}
    commit, removed = leader.store.commit, []

    async def after_the_network_went(ops, fence=None):
        ops = list(ops)
        if not removed and any(isinstance(op, Put) and isinstance(op.obj, Service) for op in ops):
            removed.append(True)
            network = leader.cache.snapshot.by_name(Network, "default", "front")
            await commit(
                [update(replace(network, removing=True)), Release(Network, "default", "front", network.meta.id)]
            )
            await until(lambda: leader.cache.snapshot.get(Network, network.meta.id) is None)
        return await commit(ops, fence)

    leader.store.commit = after_the_network_went
    code, text = await refusal(
        {
            "create": lambda: leader.control.CreateService(pb.CreateServiceRequest(spec=joined)),
            "update": lambda: leader.control.UpdateService(pb.UpdateServiceRequest(ref="web", spec=joined)),
            "deploy": lambda: leader.control.ApplyStack(pb.ApplyStackRequest(stack="shop", services=[joined])),
            "rollback": lambda: leader.control.RollbackService(pb.RollbackServiceRequest(ref="web", to_revision=1)),
        }[joins]()
    )
    assert removed
    gone = grpc.StatusCode.FAILED_PRECONDITION if joins == "rollback" else grpc.StatusCode.NOT_FOUND
    assert (code, "network" in text) == (gone, True), text
    assert {s.meta.id: s.spec for s in leader.cache.snapshot.all(Service)} == before


async def test_what_a_name_pointed_to_is_there_for_a_deploy_that_was_stored_a_moment_ago(leader):
    await leader.add_image()
    before = leader.cache.snapshot
    await leader.create()
    moved, _ = images.tagged(before, replace(before.by_name(Image, "default", NAME), digest="sha256:" + "1" * 64), 1.0)
    await leader.store.commit(moved)
    await until(lambda: leader.cache.snapshot.by_name(Image, "default", NAME).digest != DIGEST)
    assert images.by_digest(leader.cache.snapshot, "default", DIGEST) is not None


async def test_a_plan_does_not_outlive_a_change_between_its_check_and_the_writing(leader):
    await leader.add_image()
    await leader.create()
    wanted = pb.UpdateServiceRequest(ref="web", spec=a_service_spec("web", replicas=3))
    plan = await leader.control.GetPlan(pb.GetPlanRequest(update_service=wanted))
    commit, scaled = leader.store.commit, []

    async def after_somebody_elses_change(ops, fence=None):
        ops = list(ops)
        if not scaled and any(isinstance(op, Put) and isinstance(op.obj, Service) for op in ops):
            scaled.append(True)
            await leader.control.ScaleServices(pb.ScaleServicesRequest(replicas={"web": 9}))
        return await commit(ops, fence)

    leader.store.commit = after_somebody_elses_change
    wanted.plan_id = plan.id
    code, text = await refusal(leader.control.UpdateService(wanted))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert text.startswith("the plan is stale: the service ")
    assert (await leader.control.GetService(pb.GetServiceRequest(ref="web"))).spec.replicas == 9


async def test_no_rollback_to_a_network_that_is_gone(leader):
    await leader.add_image()
    await leader.control.CreateNetwork(pb.CreateNetworkRequest(spec=types_pb2.NetworkSpec(name="front")))
    await leader.create(networks=("front",), replicas=0)
    await leader.control.UpdateService(pb.UpdateServiceRequest(ref="web", spec=a_service_spec("web", replicas=0)))
    await until(lambda: leader.cache.snapshot.all(Service)[0].update.state is UpdateState.COMPLETED)
    await leader.control.RemoveNetwork(pb.RemoveNetworkRequest(ref="front"))
    code, text = await refusal(leader.control.RollbackService(pb.RollbackServiceRequest(ref="web")))
    assert code is grpc.StatusCode.FAILED_PRECONDITION, text
    assert "revision 1 of service web joins a network that was removed" in text


def with_port(name, number):
    spec = a_service_spec(name)
    spec.task.host_ports.add(protocol="tcp", port=number)
    return spec


async def test_no_rollback_to_a_port_that_another_service_has_by_now(leader):
    await leader.add_image()
    await leader.control.CreateService(pb.CreateServiceRequest(spec=with_port("web", 8080)))
    await leader.control.UpdateService(pb.UpdateServiceRequest(ref="web", spec=a_service_spec("web")))
    await leader.control.CreateNetwork(pb.CreateNetworkRequest(spec=types_pb2.NetworkSpec(name="front")))
    everywhere = a_service_spec("api", networks=("front",))
    everywhere.endpoint.ports.add(protocol="tcp", published=8080, target=80)
    await leader.control.CreateService(pb.CreateServiceRequest(spec=everywhere))
    code, text = await refusal(leader.control.RollbackService(pb.RollbackServiceRequest(ref="web")))
    assert code is grpc.StatusCode.ALREADY_EXISTS
    assert "port 8080/tcp is published by service api" in text
    assert (await leader.control.GetService(pb.GetServiceRequest(ref="web"))).revision == 2


async def test_no_rollback_to_what_is_said_of_the_service_since_does_not_allow(leader):
    """Tasks with a port of the node's stop before others start; since then none may ever be missing."""
    await leader.add_image()
    await leader.control.CreateService(pb.CreateServiceRequest(spec=with_port("web", 8080)))
    careful = a_service_spec("web", max_unavailable="0")
    careful.update.order = careful.rollback.order = types_pb2.UPDATE_ORDER_START_FIRST
    await leader.control.UpdateService(pb.UpdateServiceRequest(ref="web", spec=careful))
    code, text = await refusal(leader.control.RollbackService(pb.RollbackServiceRequest(ref="web")))
    assert code is INVALID
    assert text.startswith(
        "service web cannot be rolled back to revision 1 as it is now: deploy it anew\nmax_unavailable: "
    )
    assert "a host port is free for the new task only when the old one has stopped" in text
    assert (await leader.control.GetService(pb.GetServiceRequest(ref="web"))).revision == 2


async def test_an_id_may_be_shortened_to_four_characters_and_no_further(leader):
    """One or two letters are the beginning of some id by chance: nothing is to be done to what they hit."""
    await leader.add_image()
    file = pb.NewFile(name="motd", data=b"a")
    service = await leader.create(networks=())
    task = await until(lambda: leader.tasks(service.meta.id))
    network = await leader.control.CreateNetwork(pb.CreateNetworkRequest(spec=types_pb2.NetworkSpec(name="front")))
    config = (await leader.control.CreateConfig(pb.CreateConfigRequest(file=file))).config
    secret = (await leader.control.CreateSecret(pb.CreateSecretRequest(file=file))).secret
    control = leader.control
    for identity, kind, ask in (
        (service.meta.id, "service", lambda ref: control.GetService(pb.GetServiceRequest(ref=ref))),
        (task[0].meta.id, "task", lambda ref: control.GetTask(pb.GetTaskRequest(ref=ref))),
        (network.meta.id, "network", lambda ref: control.GetNetwork(pb.GetNetworkRequest(ref=ref))),
        (config.meta.id, "config", lambda ref: control.GetConfig(pb.GetConfigRequest(ref=ref))),
        (secret.meta.id, "secret", lambda ref: control.GetSecret(pb.GetSecretRequest(ref=ref))),
    ):
        await ask(identity[:4])
        code, text = await refusal(ask(identity[:3]))
        assert code is grpc.StatusCode.NOT_FOUND
        assert f"no {kind} '{identity[:3]}'" in text
        assert "an id can be shortened to 4 characters" in text


async def test_a_beginning_of_several_ids_names_them(leader):
    nodes = [
        Node(Meta(f"abcdef000000{n}", created_at=1.0), NodeSpec(f"host-{n}"), NodeDescription(), NodeStatus())
        for n in (1, 2)
    ]
    await leader.store.commit([create(node) for node in nodes])
    await until(lambda: leader.cache.snapshot.count(Node) == 2)
    code, text = await refusal(leader.control.GetNode(pb.GetNodeRequest(ref="abcd")))
    assert (code, text) == (
        INVALID,
        "'abcd' is the beginning of 2 node ids: host-1 (abcdef0000001), host-2 (abcdef0000002): give more of it",
    )
    assert (await leader.control.GetNode(pb.GetNodeRequest(ref="host-2"))).meta.id == "abcdef0000002"


async def test_projects_share_nothing(leader):
    """The same names in two projects: each request sees its own only, by name, id and the beginning of an id."""
    await leader.add_image()
    service = await leader.create(networks=())
    network = await leader.control.CreateNetwork(pb.CreateNetworkRequest(spec=types_pb2.NetworkSpec(name="front")))
    file = pb.NewFile(name="motd", data=b"a")
    config = (await leader.control.CreateConfig(pb.CreateConfigRequest(file=file))).config
    secret = (await leader.control.CreateSecret(pb.CreateSecretRequest(file=file))).secret
    control = leader.control
    for ref, call in (
        *((ref, control.GetService(pb.GetServiceRequest(project="b", ref=ref))) for ref in ("web", service.meta.id)),
        *((ref, control.GetNetwork(pb.GetNetworkRequest(project="b", ref=ref))) for ref in ("front", network.meta.id)),
        *((ref, control.GetConfig(pb.GetConfigRequest(project="b", ref=ref))) for ref in ("motd", config.meta.id[:5])),
        *((ref, control.GetSecret(pb.GetSecretRequest(project="b", ref=ref))) for ref in ("motd", secret.meta.id)),
        ("web", control.RunJob(pb.RunJobRequest(project="b", ref="web"))),
        ("web", control.PauseUpdate(pb.PauseUpdateRequest(project="b", ref=service.meta.id))),
        ("web", control.GetExplanation(pb.GetExplanationRequest(project="b", ref=service.meta.id))),
        ("web", control.ListRevisions(pb.ListRevisionsRequest(project="b", ref=service.meta.id))),
        ("web", control.RemoveService(pb.RemoveServiceRequest(project="b", ref=service.meta.id))),
    ):
        code, text = await refusal(call)
        assert code is grpc.StatusCode.NOT_FOUND, (ref, text)
    await leader.store_image(replace(leader.cache.snapshot.all(Image)[0], meta=Meta(project="b")))
    for field, value in (("networks", network.meta.id), ("files", "motd"), ("depends_on", "web")):
        spec = a_service_spec("api", networks=(value,) if field == "networks" else ())
        if field == "files":
            spec.task.container.files.add(name=value, id=f"{config.meta.id}.1", mode=0o444)
        if field == "depends_on":
            spec.depends_on.add(service=value)
        code, text = await refusal(control.CreateService(pb.CreateServiceRequest(project="b", spec=spec)))
        assert code in (grpc.StatusCode.NOT_FOUND, INVALID), (field, text)


async def test_a_plan_tells_nothing_of_other_projects(leader, agents):
    """Room that one project frees is taken by a task of another, which waits for it: only that project is told."""
    await agents(leader.address, cpus=1.0)
    await leader.add_image()
    await leader.store_image(replace(leader.cache.snapshot.all(Image)[0], meta=Meta(project="b")))
    large = a_service_spec("large")
    large.task.reservations.cpus = 1.0
    await leader.control.CreateService(pb.CreateServiceRequest(spec=large))
    await until(lambda: [t for t in leader.tasks() if t.node_id])
    waits = a_service_spec("waits")
    waits.task.reservations.cpus = 1.0
    await leader.control.CreateService(pb.CreateServiceRequest(project="b", spec=waits))
    request = pb.ScaleServicesRequest(replicas={"large": 0})
    plan = await leader.control.GetPlan(pb.GetPlanRequest(scale_services=request))
    assert {task.service for task in plan.tasks} == {"large"}
