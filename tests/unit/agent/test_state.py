"""What the agent keeps on disk survives its end at any byte."""

import json
import signal

import pytest

from argosy.agent.journal import Journal
from argosy.agent.state import MAX_INCREMENTS, StateDir, TaskRecord, read_update
from argosy.core.assignment import RevisionAssignment, Succession, TaskAssignment, key_of
from argosy.core.errors import RejectedError
from argosy.core.task import TaskStatus
from argosy.core.task_state import TaskState
from argosy.core.wire import put_piece
from argosy.proto.argosy.v1 import dispatcher_pb2 as pb


def message(*pieces, version, base=0, full=False, remove=()):
    result = pb.ControllerMessage()
    result.leader.epoch, result.leader.revision = 7, 100 + version
    body = result.assignments
    body.full, body.version, body.base_version = full, version, base
    body.remove.extend(remove)
    for piece in pieces:
        put_piece(piece, body.put.add())
    return result


def reopened(state):
    state.release()
    return StateDir(state.root)


@pytest.fixture
def state(tmp_path):
    return StateDir(tmp_path / "agent")


def apply(state, current, update):
    from argosy.agent.logic.assignments import advance

    after = advance(current, read_update(update))
    state.save_assignments(update, after)
    return after


def test_assignments_are_replayed(state):
    from argosy.agent.logic.assignments import Assignments

    now = apply(state, Assignments(), message(TaskAssignment(id="a"), version=1, full=True))
    now = apply(state, now, message(TaskAssignment(id="b"), version=2, base=1))
    now = apply(state, now, message(version=3, base=2, remove=(key_of(TaskAssignment(id="a")),)))
    assert reopened(state).load_assignments() == now


def test_many_increments_are_merged(state):
    from argosy.agent.logic.assignments import Assignments

    now = apply(state, Assignments(), message(version=1, full=True))
    for version in range(2, 3 * MAX_INCREMENTS):
        now = apply(state, now, message(TaskAssignment(id="a", slot=version), version=version, base=version - 1))
    assert reopened(state).load_assignments() == now


def test_a_record_that_was_cut_short_is_dropped_and_the_others_stay(tmp_path):
    journal = Journal(tmp_path / "j")
    for record in (b"one", b"two"):
        journal.append(record)
    whole = (tmp_path / "j").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "j").write_bytes(whole[:length])
        cut = Journal(tmp_path / "j")
        assert list(cut.read()) == ([b"one"] if length >= 7 else [])
        cut.append(b"three")
        assert list(Journal(tmp_path / "j").read())[-1] == b"three"


def test_task_records_and_their_end(state):
    record = TaskRecord(
        "t1", TaskStatus(TaskState.RUNNING, at=5.0, pid=9), 3, stop_at=6.0, signalled=True, running_since=4.0
    )
    state.save_task(TaskRecord("t1", TaskStatus(TaskState.PREPARING), 3))
    state.save_task(record)
    state.save_task(TaskRecord("t2", TaskStatus(TaskState.RUNNING), 4))
    state.forget_task("t2")
    assert reopened(state).load_tasks() == [record]


def test_the_identity_is_made_once(state):
    assert reopened(state).identity() == state.identity()


def test_a_damaged_identity_is_not_replaced_in_silence(state):
    (state.root / "identity.json").write_text("{")
    with pytest.raises(RejectedError, match=r"damaged.*restore it"):
        state.identity()


def test_a_second_agent_is_refused(state):
    with pytest.raises(RejectedError, match="another agent"):
        StateDir(state.root)


def test_a_disk_that_fills_up_tears_no_record(tmp_path):
    """A record that was cut short would swallow the next ones, and a task that ran could run again."""
    resource = pytest.importorskip("resource")
    journal = Journal(tmp_path / "journal")
    journal.append(b"first")
    size = (tmp_path / "journal").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            journal.append(b"x" * 100)
        with pytest.raises(OSError, match="too large"):
            journal.rewrite([b"y" * 100])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    journal.append(b"second")
    assert list(Journal(tmp_path / "journal").read()) == [b"first", b"second"]
    assert not (tmp_path / "journal.new").exists()


def unreadable(*, task, version, base=0, full=False):
    """A newer controller's message: a task and a spec with values that nobody here knows."""
    result = message(task, RevisionAssignment("s1", 2), version=version, base=base, full=full)
    result.assignments.put[0].task.desired_state = 99
    result.assignments.put[1].revision.spec.restart.condition = 99
    return result


@pytest.mark.parametrize("full", [True, False])
def test_a_piece_that_cannot_be_read_costs_nothing_but_itself(state, full):
    from argosy.agent.logic.assignments import Assignments

    runs, new = TaskAssignment(id="a", service_id="s1", revision=1), TaskAssignment(id="b", service_id="s1", revision=2)
    now = apply(state, Assignments(), message(runs, RevisionAssignment("s1", 1), version=1, full=True))
    now = apply(state, now, message(new, version=2, base=1))
    now = apply(state, now, unreadable(task=runs, version=3, base=2, full=full))
    assert now.tasks()["a"] == runs  # it goes on as it was
    assert "condition is 99" in now.why_unreadable(new)
    assert not now.why_unreadable(runs)
    assert "desired_state is 99" in now.trouble_of(runs)
    assert reopened(state).load_assignments().tasks() == now.tasks()
    readable = apply(state, now, message(runs, version=4, base=3))
    assert not readable.trouble_of(runs)


def test_what_cannot_be_read_is_left_out_when_increments_are_merged(state):
    from argosy.agent.logic.assignments import Assignments

    now = apply(state, Assignments(), unreadable(task=TaskAssignment(id="a"), version=1, full=True))
    for version in range(2, MAX_INCREMENTS + 5):
        now = apply(state, now, message(TaskAssignment(id="b"), version=version, base=version - 1))
    assert list(reopened(state).load_assignments().tasks()) == ["b"]


def test_records_of_older_and_of_newer_agents_are_read(state):
    """Fields that are missing have their defaults, fields that are not known are left out: no record is lost."""
    journal = Journal(state.root / "tasks.journal")
    old = {"id": "old", "status": {"state": 512}, "id_range": 3}
    new = {
        **old,
        "id": "new",
        "status": {"state": 512, "mood": "good"},
        "succession": {"root": "r", "cause": "flood"},
        "colour": "red",
    }
    for record in (old, new):
        journal.append(json.dumps(record).encode())
    found = {record.id: record for record in reopened(state).load_tasks()}
    assert found["old"] == TaskRecord("old", TaskStatus(TaskState.RUNNING), 3)
    assert found["new"] == TaskRecord("new", TaskStatus(TaskState.RUNNING), 3, succession=Succession("r"))
