"""Which tasks tell how a service is."""

from argosy.cli.rows import Row, latest_rows


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
