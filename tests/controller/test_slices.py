"""Slices of addresses that a node no longer needs are given back while it lives, and others may have them."""

from argosy.controller.logic import idle_slices
from argosy.controller.loops import scheduler
from argosy.core.addresses import parse_ipv4
from argosy.core.codec import encode
from argosy.core.network import NetworkSpec, Slice
from argosy.core.task_state import TaskState
from argosy.proto.argosy.v1 import control_pb2, types_pb2
from tests.controller.harness import until


async def test_a_node_that_ran_many_tasks_gives_slices_back_and_another_has_them(controllers, agents, monkeypatch):
    monkeypatch.setattr(scheduler, "LOOK_PERIOD_S", 0.1)
    monkeypatch.setattr(idle_slices, "QUIET_S", 0.3)
    leader = await (await controllers()).lead()
    await leader.add_image()
    await agents(leader.address, name="n1", obedient=True, cpus=64)
    spec = encode(NetworkSpec(name="net", subnet="10.9.0.0/25"), types_pb2.NetworkSpec)
    await leader.control.CreateNetwork(control_pb2.CreateNetworkRequest(spec=spec))

    def running(service) -> int:
        return sum(t.status.state is TaskState.RUNNING for t in leader.tasks(service.meta.id))

    def leased() -> list[int]:
        return sorted(s.index for s in leader.cache.snapshot.all(Slice))

    many = await leader.create(replicas=70, networks=("net",))
    await until(lambda: running(many) == 70)
    assert leased() == [1, 2, 3]
    await leader.control.ScaleServices(control_pb2.ScaleServicesRequest(replicas={"web": 1}))
    await until(lambda: len(leader.tasks()) == 1)
    in_use = 1 + (leader.tasks()[0].attachments[0].address - parse_ipv4("10.9.0.32")) // 32
    await until(lambda: leased() == sorted({1, in_use}))
    shown = await leader.control.GetNetwork(control_pb2.GetNetworkRequest(ref="net"))
    assert shown.slices_free == 3 - len(leased())
    agent = await agents(leader.address, name="n2", obedient=True, cpus=64)
    other = await leader.create("other", replicas=2, networks=("net",))
    await until(lambda: running(other) == 2)
    assert any(task.node_id == agent.node_id for task in leader.tasks(other.meta.id))
