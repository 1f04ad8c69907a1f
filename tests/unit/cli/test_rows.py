"""Which tasks tell how a service is, and what a task's node means for it."""

import pytest

from argosy.cli.rows import Row, latest_rows, task_rows
from argosy.proto.argosy.v1 import control_pb2 as pb
from argosy.proto.argosy.v1 import types_pb2 as types


def row(name: str, state: str, *, slot: int = 1, node: str = "n1", desired: str = "RUNNING") -> Row:
    return {
        "id": name, "service_id": "web", "slot": slot, "node_id": node, "state": state, "desired_state": desired
    }  # fmt: skip


def latest(*rows: Row) -> list[str]:
    return [r["id"] for r in latest_rows(rows)]


def test_what_runs_hides_what_ended_before_it() -> None:
    assert latest(row("new", "RUNNING"), row("old", "FAILED"), row("older", "REJECTED")) == ["new"]
    assert latest(row("heir", "PENDING"), row("serving", "RUNNING"), row("old", "FAILED")) == ["heir", "serving"]


def test_where_nothing_runs_the_last_one_tells_why() -> None:
    assert latest(row("last", "REJECTED"), row("before", "FAILED")) == ["last"]
    assert latest(row("a", "RUNNING"), row("b", "FAILED", slot=2), row("c", "FAILED", slot=2)) == ["a", "b"]
    assert latest(row("done", "COMPLETE")) == ["done"]


def test_slots_of_a_global_service_are_nodes() -> None:
    rows = [row("a", "FAILED", slot=0), row("b", "RUNNING", slot=0, node="n2"), row("c", "FAILED", slot=0, node="n2")]
    assert latest(*rows) == ["a", "b"]


def test_a_slot_that_was_scaled_away_tells_nothing() -> None:
    assert latest(row("a", "RUNNING"), row("b", "SHUTDOWN", slot=2, desired="REMOVE")) == ["a"]


@pytest.mark.parametrize(
    ("state", "policy", "says"),
    [
        ("READY", "REPLACE", ""),
        ("UNKNOWN", "REPLACE", "its node is UNKNOWN: lost together with many"),
        ("DOWN", "KEEP", "its node is DOWN: it is kept until the node is back or removed (disconnect: keep)"),
        ("DOWN", "FENCE", "its node is DOWN: it is replaced once it has surely ended (disconnect: fence)"),
    ],
)
def test_a_task_tells_what_its_node_means_for_it(state: str, policy: str, says: str) -> None:
    node = types.Node(spec=types.NodeSpec(name="a"))
    node.meta.id = "n1"
    node.status.state = types.NodeState.Value(f"NODE_STATE_{state}")
    node.status.message = "lost together with many" if state != "READY" else ""
    service = types.Service(
        spec=types.ServiceSpec(name="web", disconnect=types.Disconnect.Value(f"DISCONNECT_{policy}"))
    )
    service.meta.id = "s"
    task = types.Task(service_id="s", slot=1, node_id="n1", desired_state=types.TASK_STATE_RUNNING)
    task.status.state = types.TASK_STATE_RUNNING
    (told,) = task_rows(pb.ListTasksResponse(tasks=[task], services=[service], nodes=[node]))
    assert told["note"] == says
