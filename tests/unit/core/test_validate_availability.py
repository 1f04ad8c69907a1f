"""Budgets that cannot be kept, and disconnect policies that contradict the rest, are refused with what to do."""

import pytest

from argosy.core.node import Drain, NodeSpec
from argosy.core.service import (
    ContainerSpec,
    Disconnect,
    HostPort,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
    UpdateOrder,
)
from argosy.core.validate import validate_node_spec, validate_service

START_FIRST = UpdateConfig(order=UpdateOrder.START_FIRST)
NO_WAIT = {"update": START_FIRST, "rollback": START_FIRST}


def service(ports=(), **fields):
    task = TaskSpec(container=ContainerSpec(image="web:1"), host_ports=ports)
    return ServiceSpec("web", task=task, **{"replicas": 4, **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {"max_unavailable": "1"},
        {"max_unavailable": "25%"},
        {"max_unavailable": "9"},
        {"max_unavailable": "0", **NO_WAIT},
        {"max_unavailable": "10%", **NO_WAIT},
        {"max_unavailable": "10%", "replicas": 0},
        {"max_unavailable": "10%", "mode": ServiceMode.GLOBAL, "replicas": 1},
        {"disconnect": Disconnect.KEEP, **NO_WAIT},
        {"disconnect": Disconnect.FENCE, "max_unavailable": "1"},
    ],
    ids=str,
)
def test_what_can_be_kept_is_accepted(fields):
    assert validate_service(service(**fields)) == []


@pytest.mark.parametrize(
    ("fields", "where", "says"),
    [
        ({"max_unavailable": "some"}, "max_unavailable", "write a number of tasks such as 2, or a share such as 25%"),
        ({"max_unavailable": "0"}, "max_unavailable", "an update stops the old task first"),
        ({"max_unavailable": "0", "update": START_FIRST}, "max_unavailable", "a rollback stops the old task first"),
        ({"max_unavailable": "0%"}, "max_unavailable", "allow at least 1"),
        ({"max_unavailable": "24%"}, "max_unavailable", "24% of 4 replicas is less than one task"),
        ({"max_unavailable": "24%"}, "max_unavailable", "write a number such as 1, or at least 25%"),
        ({"max_unavailable": "30%", "replicas": 3}, "max_unavailable", "at least 34%"),
        ({"max_unavailable": "0", "mode": ServiceMode.GLOBAL, "replicas": 1}, "max_unavailable", "allow at least 1"),
        (
            {"max_unavailable": "0", "ports": (HostPort("tcp", 80),), **NO_WAIT},
            "max_unavailable",
            "a host port is free",
        ),
        ({"disconnect": Disconnect.FENCE, "max_unavailable": "0"}, "max_unavailable", "a fenced task stops before"),
        ({"disconnect": Disconnect.FENCE, "update": START_FIRST}, "update.order", "use stop-first"),
        ({"disconnect": Disconnect.FENCE, "rollback": START_FIRST}, "rollback.order", "use stop-first"),
        ({"disconnect": Disconnect.FENCE, "mode": ServiceMode.GLOBAL, "replicas": 1}, "disconnect", "leave it out"),
        ({"disconnect": 7}, "disconnect", "use replace, keep or fence"),
    ],
    ids=str,
)
def test_what_cannot_be_kept_is_the_only_problem_and_told_where(fields, where, says):
    problems = validate_service(service(**fields))
    assert [p.where for p in problems] == [where]
    assert says in problems[0].what


@pytest.mark.parametrize(
    ("drain", "where"),
    [
        (Drain(pace=-1), "drain.pace"),
        (Drain(deadline=-1.0), "drain.deadline"),
        (Drain(deadline=float("nan")), "drain.deadline"),
    ],
)
def test_a_drain_that_means_nothing_is_refused(drain, where):
    assert [p.where for p in validate_node_spec(NodeSpec("n1", drain=drain))] == [where]
