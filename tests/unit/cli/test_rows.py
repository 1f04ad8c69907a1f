"""Which tasks tell how a service is, and what a task's node means for it."""

import time
from typing import Any

import pytest

from argosy.cli.commands.ps import reason_text, state_text
from argosy.cli.rows import Row, latest_rows, node_rows, service_rows, task_rows
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


def restarted(state: str, *, failures: int, due: float = 0.0, since: float = 1.0, note: str = "") -> Row:
    """Return the row of a task that was restarted after another one, on the node a, which had failed."""
    node = types.Node(spec=types.NodeSpec(name="a"), status=types.NodeStatus(state=types.NODE_STATE_READY))
    node.meta.id = "n1"
    before = types.Task(service_id="s", slot=1, node_id="n1")
    before.status.state = types.TASK_STATE_FAILED if failures else types.TASK_STATE_COMPLETE
    before.status.exit_code, before.status.reason = (1 if failures else 0), note
    now = time.time()
    task = types.Task(
        service_id="s", slot=1, desired_state=types.TASK_STATE_RUNNING, failures=failures, not_before=now + due
    )
    task.status.state, task.status.at = types.TaskState.Value(f"TASK_STATE_{state}"), now - since
    task.running_since = now - since if state == "RUNNING" else 0
    (told,) = task_rows(pb.ListTasksResponse(tasks=[task], before=[before], nodes=[node]))
    return told


def test_a_task_that_waits_for_its_next_try_says_so_and_why() -> None:
    row = restarted("READY", failures=3, due=40.5)
    assert state_text(row) == "RESTARTING in 40s"
    assert reason_text(row) == "failed 3 times: exit code 1"
    assert (row["state"], row["failures"], row["before"]["exit_code"]) == ("READY", 3, 1)
    assert (
        reason_text(restarted("READY", failures=1, due=9, note="no database"))
        == "failed once: exit code 1: no database"
    )


def test_what_ended_well_and_is_to_run_again_is_no_failure() -> None:
    row = restarted("READY", failures=0, due=4.5)
    assert (state_text(row), reason_text(row)) == ("RESTARTING in 4s", "ended with exit code 0")


def test_a_crash_loop_shows_also_while_the_next_try_runs_until_it_has_run_long() -> None:
    assert state_text(restarted("RUNNING", failures=2, since=1)) == "RUNNING 1s"
    assert reason_text(restarted("RUNNING", failures=2, since=1)) == "failed 2 times: exit code 1"
    assert reason_text(restarted("STARTING", failures=2)) == "failed 2 times: exit code 1"
    assert reason_text(restarted("RUNNING", failures=2, since=700)) == ""
    assert reason_text(restarted("RUNNING", failures=0, since=1)) == ""


def test_a_slot_that_has_no_task_shows_what_failed_there_last() -> None:
    live, rejected, restarted = (types.Task(service_id="s", slot=slot) for slot in (1, 2, 1))
    live.status.state = types.TASK_STATE_RUNNING
    for task in (rejected, restarted):
        task.status.state, task.status.reason = types.TASK_STATE_REJECTED, "no such user"
    rows = task_rows(pb.ListTasksResponse(tasks=[live], before=[rejected, restarted]))
    assert [(r["slot"], r["state"], reason_text(r)) for r in rows] == [
        (1, "RUNNING", ""),
        (2, "REJECTED", "no such user"),
    ]


@pytest.mark.parametrize(
    ("state", "policy", "says"),
    [
        ("REJECTED", {"delay": 60}, "REJECTED 9s (next try in 50s)"),
        ("REJECTED", {"delay": 5}, "REJECTED 9s"),  # it is due
        ("REJECTED", {"delay": 60, "max_attempts": 2}, "REJECTED 9s"),
        ("REJECTED", {"delay": 60, "condition": types.RESTART_CONDITION_NONE}, "REJECTED 9s"),
    ],
)
def test_a_slot_whose_task_was_rejected_says_when_it_is_tried_again(
    state: str, policy: dict[str, Any], says: str
) -> None:
    service = types.Service(meta=types.Meta(id="s"))
    service.spec.task.restart.MergeFrom(types.RestartPolicy(**policy))
    rejected = types.Task(service_id="s", slot=1, desired_state=types.TASK_STATE_RUNNING, attempts=2)
    rejected.status.state, rejected.status.at = types.TaskState.Value(f"TASK_STATE_{state}"), time.time() - 9.5
    (row,) = task_rows(pb.ListTasksResponse(before=[rejected], services=[service]))
    assert state_text(row) == says
    rejected.desired_state = types.TASK_STATE_SHUTDOWN
    (row,) = task_rows(pb.ListTasksResponse(before=[rejected], services=[service]))
    assert state_text(row) == "REJECTED 9s"


def test_what_finds_no_node_waits_for_that() -> None:
    assert state_text(restarted("PENDING", failures=2, due=30)).startswith("PENDING")


@pytest.mark.parametrize(("policy", "running", "kept"), [("KEEP", 0, 1), ("REPLACE", 1, 0)])
def test_what_is_kept_on_a_node_that_is_cut_off_does_not_count_as_running(policy: str, running: int, kept: int) -> None:
    node = types.Node(meta=types.Meta(id="n1"), status=types.NodeStatus(state=types.NODE_STATE_DOWN))
    spec = types.ServiceSpec(name="web", replicas=1, disconnect=types.Disconnect.Value(f"DISCONNECT_{policy}"))
    task = types.Task(service_id="s", slot=1, node_id="n1", desired_state=types.TASK_STATE_RUNNING)
    task.status.state = types.TASK_STATE_RUNNING
    (row,) = service_rows([types.Service(meta=types.Meta(id="s"), spec=spec)], [task], [node])
    assert (row["running"], row["kept"]) == (running, kept)


@pytest.mark.parametrize(
    ("state", "lost", "told"), [("", "lost", "lost"), ("away", "lost", "away"), ("away", "", "away"), ("", "", "")]
)
def test_a_node_says_what_is_wrong_with_its_address_unless_there_is_worse(state: str, lost: str, told: str) -> None:
    node = types.Node(status=types.NodeStatus(message=state), description=types.NodeDescription(underlay_problem=lost))
    assert [row["message"] for row in node_rows([node], [])] == [told]
