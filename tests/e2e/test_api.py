"""The gRPC contract as other programs see it: health, reflection, versions, watching and resuming."""

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from argosy.proto.argosy.v1 import control_pb2 as pb
from argosy.proto.argosy.v1 import control_pb2_grpc as rpc
from argosy.proto.argosy.v1 import types_pb2 as tpb
from tests.e2e.dev_cluster import wait_until


@pytest.fixture
def channel(cluster):
    with grpc.insecure_channel(f"unix://{cluster.run_dir}/controller.sock") as channel:
        yield channel


@pytest.fixture
def control(channel):
    return rpc.ControlStub(channel)


@pytest.fixture
def service(control, request):
    """A service without tasks, removed afterwards."""
    spec = tpb.ServiceSpec(name=f"v{abs(hash(request.node.name)) % 10**6}", replicas=0)
    spec.task.container.image = "busybox:1"
    made = control.CreateService(pb.CreateServiceRequest(spec=spec))
    yield made
    control.RemoveService(pb.RemoveServiceRequest(ref=made.meta.id))


def test_health_is_served(channel):
    health = health_pb2_grpc.HealthStub(channel)
    for name in ("", "argosy.v1.Control", "argosy.v1.Dispatcher"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_lists_the_services(channel):
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    answer = next(stub.ServerReflectionInfo(iter([request])))
    names = {s.name for s in answer.list_services_response.service}
    assert {"argosy.v1.Control", "argosy.v1.Content", "argosy.v1.Dispatcher", "grpc.health.v1.Health"} <= names


def test_an_update_from_an_old_version_is_refused(control, service):
    spec = tpb.ServiceSpec()
    spec.CopyFrom(service.spec)
    spec.labels["a"] = "1"
    changed = control.UpdateService(
        pb.UpdateServiceRequest(ref=service.meta.id, spec=spec, version=service.meta.version)
    )
    assert changed.meta.version > service.meta.version
    spec.labels["a"] = "2"
    with pytest.raises(grpc.RpcError) as refused:
        control.UpdateService(pb.UpdateServiceRequest(ref=service.meta.id, spec=spec, version=service.meta.version))
    assert refused.value.code() is grpc.StatusCode.ABORTED
    assert "read it again" in refused.value.details()


def test_a_name_is_taken_once(control, service):
    with pytest.raises(grpc.RpcError) as refused:
        control.CreateService(pb.CreateServiceRequest(spec=service.spec))
    assert refused.value.code() is grpc.StatusCode.ALREADY_EXISTS


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: setattr(s, "name", "no such name!"), "name"),
        (lambda s: setattr(s.task.container, "image", ""), "image"),
        (lambda s: s.task.placement.constraints.append("node.colour == red"), "node.colour"),
        (lambda s: setattr(s.task.reservations, "cpus", -1), "cpus"),
    ],
)
def test_what_cannot_be_is_refused_with_where(control, service, change, said):
    spec = tpb.ServiceSpec()
    spec.CopyFrom(service.spec)
    change(spec)
    with pytest.raises(grpc.RpcError) as refused:
        control.CreateService(pb.CreateServiceRequest(spec=spec))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert said in refused.value.details()


def test_what_is_not_there_is_not_found(control):
    for call, request in (
        (control.GetService, pb.GetServiceRequest(ref="nobody")),
        (control.GetTask, pb.GetTaskRequest(ref="nobody")),
        (control.GetNode, pb.GetNodeRequest(ref="nobody")),
        (control.GetNetwork, pb.GetNetworkRequest(ref="nobody")),
        (control.GetImage, pb.GetImageRequest(ref="nobody")),
    ):
        with pytest.raises(grpc.RpcError) as missing:
            call(request)
        assert missing.value.code() is grpc.StatusCode.NOT_FOUND
        assert "ls" in missing.value.details() or "ps" in missing.value.details()


def test_a_watch_resumes_where_it_was(control, service):
    watch = control.Watch(pb.WatchRequest(kinds=[pb.KIND_SERVICE]))
    first = next(watch)
    assert first.synced
    assert service.meta.id in {c.service.meta.id for c in first.changes}
    labels = []
    for n in range(3):
        spec = control.GetService(pb.GetServiceRequest(ref=service.meta.id)).spec
        spec.labels["n"] = str(n)
        control.UpdateService(pb.UpdateServiceRequest(ref=service.meta.id, spec=spec))
    seen = next(watch)
    watch.cancel()
    labels.append(seen.changes[0].service.spec.labels["n"])
    resumed = control.Watch(pb.WatchRequest(kinds=[pb.KIND_SERVICE], after_version=seen.version))
    labels += [next(resumed).changes[0].service.spec.labels["n"] for _ in range(2)]
    resumed.cancel()
    assert labels == ["0", "1", "2"]


def test_projects_do_not_see_each_other(control, service):
    other = pb.ListServicesRequest(project="other")
    assert service.meta.id not in {s.meta.id for s in control.ListServices(other).services}
    with pytest.raises(grpc.RpcError) as missing:
        control.GetService(pb.GetServiceRequest(project="other", ref=service.meta.id))
    assert missing.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_node_that_runs_is_not_removed(control):
    with pytest.raises(grpc.RpcError) as refused:
        control.RemoveNode(pb.RemoveNodeRequest(ref="node1"))
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "drain" in refused.value.details()


def test_a_network_in_use_is_not_removed(control, cluster, tmp_path):
    compose = "services: {a: {image: 'busybox:1', command: sleep 1000, init: true}}"
    cluster.deploy("netuse", compose, tmp_path)
    try:
        with pytest.raises(grpc.RpcError) as refused:
            control.RemoveNetwork(pb.RemoveNetworkRequest(ref="netuse_default"))
        assert "netuse_a" in refused.value.details()
    finally:
        cluster.argosy("stack", "rm", "netuse")
    wait_until(
        lambda: "netuse_default" not in {n.spec.name for n in control.ListNetworks(pb.ListNetworksRequest()).networks},
        10,
        "the network is gone",
    )
