"""Who waits for an address of a network, as `network inspect` tells it: by what the scheduler said of the tasks."""

from dataclasses import replace

import pytest

from argosy.controller.api.network_usage import add_usage
from argosy.controller.loops.placing import Placing
from argosy.core.addresses import parse_ipv4
from argosy.core.network import Attachment, Network
from argosy.core.node import Resources
from argosy.core.service import Dependency, NetworkAttachmentSpec, TaskSpec
from argosy.core.task import TaskStatus
from argosy.core.task_state import TaskState
from argosy.proto.argosy.v1 import control_pb2 as pb
from tests.unit.controller.objects import changed, network, node, service, snapshot, task


def on(*names, **fields):
    return TaskSpec(networks=tuple(NetworkAttachmentSpec(name) for name in names), **fields)


def filled(name, third):
    """Return tasks that have all addresses of a network of one slice."""
    addresses = (parse_ipv4(f"10.{third}.0.{i}") for i in range(32, 64))
    return [task(f"old-{name}", i, "a", attachments=(Attachment(name, a),)) for i, a in enumerate(addresses)]


def waiting(snap, *tasks):
    """Return by network which of some new tasks wait for an address of it, after the scheduler tried to place them."""
    decided, slices = Placing().decide(snap, tasks, 1.0)
    snap, _ = changed(snap, *decided, *slices)
    found = {}
    for net in snap.all(Network):
        add_usage(snap, net, response := pb.GetNetworkResponse())
        found[net.spec.name] = [t.meta.id for t in response.waiting]
    return found, {t.meta.id: t.status.reason for t in decided}


@pytest.mark.parametrize("full", ["shop", "shop_back", "back"])
def test_a_task_waits_for_the_network_that_is_full_and_for_none_of_a_like_name(full):
    names = ("shop", "shop_back", "back")
    nets = [network(name, f"10.{i}.0.0/26") for i, name in enumerate(names)]
    snap = snapshot(node("a"), *nets, service("web", task=on(*names)), *filled(full, names.index(full)))
    found, reasons = waiting(snap, task("web", 1, state=TaskState.NEW))
    assert reasons == {"web1": f"network {full} is full: 32 of 32 addresses used"}
    assert found == {name: ["web1"] if name == full else [] for name in names}


def test_who_waits_for_something_else_is_not_told():
    """Neither whom another service holds nor whom no node has room for, whatever the network is called."""
    snap = snapshot(
        node("a"),
        network("db", "10.0.0.0/26"),
        network("node", "10.1.0.0/26"),
        service("db", task=on("db")),
        service("web", task=on("db"), depends_on=(Dependency("db"),)),
        service("big", task=on("node", reservations=Resources(99))),
        *filled("db", 0),
    )
    new = {name: task(name, 1, state=TaskState.NEW) for name in ("web", "big", "db")}
    found, reasons = waiting(snap, *new.values())
    assert reasons["web1"].startswith("waiting for db: ")
    assert "no node has 99 CPUs" in reasons["big1"]
    assert found == {"db": ["db1"], "node": []}
    # What holds a task up is told with what holds that up in turn.
    status = TaskStatus(TaskState.PENDING, reason=reasons["db1"])
    snap, _ = changed(snap, replace(new["db"], status=status))
    found, reasons = waiting(snap, new["web"])
    assert "network db is full" in reasons["web1"]
    assert found["db"] == ["db1"]
