"""What an owner does next, as a table that reads like the life of a task."""

import pytest

from argosy.agent.logic.task_step import MOST_LOST, ContainerState, Drain, ExitStatus, Observed, Step, next_step
from argosy.core.assignment import TaskAssignment
from argosy.core.network import Attachment
from argosy.core.task import TaskStatus
from argosy.core.task_state import TaskState

NOW, GRACE_S = 1000.0, 10.0
NONE, CREATED, RUNNING, STOPPED = (
    ContainerState.NONE,
    ContainerState.CREATED,
    ContainerState.RUNNING,
    ContainerState.STOPPED,
)


def wanted(state=TaskState.RUNNING, not_before=0.0, drained=False, networks=0):
    attachments = (Attachment("net", 1),) * networks
    return TaskAssignment(id="t", desired_state=state, not_before=not_before, drained=drained, attachments=attachments)


def seen(state, container=NONE, **more):
    return Observed(status=TaskStatus(state, released=more.pop("released", False)), container=container, **more)


STEPS = [
    ("a new task is prepared", wanted(), seen(TaskState.ACCEPTED), Step.PREPARE),
    ("a prepared one is started", wanted(), seen(TaskState.READY, CREATED), Step.START),
    ("but not if only READY is wanted", wanted(TaskState.READY), seen(TaskState.READY, CREATED), Step.WAIT),
    ("nor before its time", wanted(not_before=NOW + 5), seen(TaskState.READY, CREATED), Step.WAIT),
    ("a running one is left alone", wanted(), seen(TaskState.RUNNING, RUNNING), Step.WAIT),
    ("an ended one is ended", wanted(), seen(TaskState.RUNNING, STOPPED, exit=ExitStatus(0)), Step.END),
    ("a container that vanished is an end", wanted(), seen(TaskState.RUNNING, NONE), Step.END),
    ("also one that may have run", wanted(), seen(TaskState.STARTING, NONE), Step.END),
    ("one that was not started is made anew", wanted(), seen(TaskState.READY, STOPPED), Step.PREPARE),
    ("also one that vanished", wanted(), seen(TaskState.READY, NONE), Step.PREPARE),
    ("but not again and again", wanted(), seen(TaskState.READY, STOPPED, lost=MOST_LOST), Step.END),
    ("nor when it is to go", wanted(TaskState.SHUTDOWN), seen(TaskState.READY, STOPPED), Step.END),
    ("stop asks first", wanted(TaskState.SHUTDOWN), seen(TaskState.RUNNING, RUNNING), Step.STOP),
    (
        "then waits for the grace period",
        wanted(TaskState.SHUTDOWN),
        seen(TaskState.RUNNING, RUNNING, stop_at=NOW - GRACE_S + 1, signalled=True),
        Step.WAIT,
    ),
    (
        "then kills",
        wanted(TaskState.SHUTDOWN),
        seen(TaskState.RUNNING, RUNNING, stop_at=NOW - GRACE_S, signalled=True),
        Step.KILL,
    ),
    (
        "once",
        wanted(TaskState.SHUTDOWN),
        seen(TaskState.RUNNING, RUNNING, stop_at=NOW - 99, signalled=True, killed=True),
        Step.WAIT,
    ),
    ("what was only prepared just ends", wanted(TaskState.SHUTDOWN), seen(TaskState.READY, CREATED), Step.END),
    ("a task that is gone from the set is stopped", None, seen(TaskState.RUNNING, RUNNING), Step.STOP),
    ("an end is released", wanted(), seen(TaskState.FAILED, STOPPED), Step.RELEASE),
    ("a released one stays for people to see", wanted(), seen(TaskState.FAILED, released=True), Step.WAIT),
    ("until the controller forgets it", None, seen(TaskState.FAILED, released=True), Step.FORGET),
    ("an unhealthy one is stopped", wanted(), seen(TaskState.RUNNING, RUNNING, unhealthy="sick"), Step.STOP),
]


LEAVING = wanted(TaskState.SHUTDOWN, networks=1)
DRAINED = wanted(TaskState.SHUTDOWN, networks=1, drained=True)
DRAIN_S = 5.0


def settling(since, drained, began):
    """One that has drained for so many seconds, to which nobody sends for so many, and that waits for so many."""
    return Drain(NOW - since, drained_at=NOW - drained, settling_since=NOW - began)


DRAINS = [
    ("one that answers on a network drains first", LEAVING, {}, Step.DRAIN),
    ("also one that is not ready: it may have connections of before", LEAVING, {"unready": True}, Step.DRAIN),
    ("it waits for the balancers", LEAVING, {"drain": Drain(NOW)}, Step.WAIT),
    ("no longer than it may", LEAVING, {"drain": Drain(NOW - DRAIN_S)}, Step.STOP),
    ("then it notes when", DRAINED, {"drain": Drain(NOW)}, Step.SETTLE),
    (
        "lets packets arrive that are under way",
        DRAINED,
        {"drain": Drain(NOW - 1, drained_at=NOW, settling_since=NOW)},
        Step.WAIT,
    ),
    ("once more where everything is late", DRAINED, {"drain": settling(0.2, 0.1, 0.1)}, Step.SETTLE),
    ("also where nodes were late to say so", DRAINED, {"drain": settling(3, 0.4, 0.1)}, Step.SETTLE),
    ("but not for ever", DRAINED, {"drain": settling(0.6, 0.51, 0.1)}, Step.DRAIN),
    ("and counts its connections", DRAINED, {"drain": settling(0.2, 0.1, 0.031)}, Step.DRAIN),
    ("waits while there are some", DRAINED, {"drain": Drain(NOW - 1, 3, NOW)}, Step.WAIT),
    ("counts again", DRAINED, {"drain": Drain(NOW - 1, 3, NOW - 0.2)}, Step.DRAIN),
    ("no longer than it may, either", DRAINED, {"drain": Drain(NOW - DRAIN_S, 3, NOW)}, Step.STOP),
    ("and stops when there are none", DRAINED, {"drain": Drain(NOW - 1, 0, NOW)}, Step.STOP),
    ("one that was asked to stop already does not begin to drain", LEAVING, {"stop_at": NOW - 1}, Step.STOP),
]


@pytest.mark.parametrize(("assigned", "more", "step"), [d[1:] for d in DRAINS], ids=[d[0] for d in DRAINS])
def test_it_drains_before_it_stops(assigned, more, step):
    status = TaskStatus(TaskState.RUNNING, unready=more.pop("unready", False))
    observed = Observed(status, RUNNING, **more)
    assert next_step(assigned, observed, GRACE_S, NOW, DRAIN_S).step is step


def test_without_time_to_drain_it_stops_at_once():
    observed = Observed(TaskStatus(TaskState.RUNNING), RUNNING)
    assert next_step(LEAVING, observed, GRACE_S, NOW, 0.0).step is Step.STOP


@pytest.mark.parametrize(("assigned", "observed", "step"), [s[1:] for s in STEPS], ids=[s[0] for s in STEPS])
def test_next_step(assigned, observed, step):
    assert next_step(assigned, observed, GRACE_S, NOW).step is step


def test_it_does_not_start_while_a_task_that_it_follows_goes_on():
    ready = seen(TaskState.READY, CREATED)
    assert next_step(wanted(), ready, GRACE_S, NOW, waits=True).step is Step.WAIT
    assert next_step(wanted(), seen(TaskState.ACCEPTED), GRACE_S, NOW, waits=True).step is Step.PREPARE
    assert next_step(wanted(), seen(TaskState.RUNNING, RUNNING), GRACE_S, NOW, waits=True).step is Step.WAIT


def test_waiting_says_until_when():
    decision = next_step(wanted(not_before=NOW + 5), seen(TaskState.READY, CREATED), GRACE_S, NOW)
    assert decision.until == NOW + 5
    stopping = seen(TaskState.RUNNING, RUNNING, stop_at=NOW - 1, signalled=True)
    assert next_step(wanted(TaskState.SHUTDOWN), stopping, GRACE_S, NOW).until == NOW - 1 + GRACE_S


ENDS = [
    ("by itself", wanted(), ExitStatus(0), TaskState.COMPLETE, ""),
    ("with a code", wanted(), ExitStatus(3), TaskState.FAILED, "exit code 3"),
    ("not found", wanted(), ExitStatus(127), TaskState.FAILED, "exit code 127: no such program in the image"),
    ("by a signal", wanted(), ExitStatus(139), TaskState.FAILED, "exit code 139: ended by signal 11"),
    (
        "out of memory",
        wanted(),
        ExitStatus(137, oom_killed=True),
        TaskState.FAILED,
        "killed: out of memory (its limit, deploy.resources.limits.memory)",
    ),
    ("unknown", wanted(), ExitStatus(None), TaskState.FAILED, "it ended; with which exit code is unknown"),
    ("as asked", wanted(TaskState.SHUTDOWN), ExitStatus(143), TaskState.SHUTDOWN, ""),
]


@pytest.mark.parametrize(("assigned", "end", "state", "reason"), [e[1:] for e in ENDS], ids=[e[0] for e in ENDS])
def test_how_it_ended(assigned, end, state, reason):
    decision = next_step(assigned, seen(TaskState.RUNNING, STOPPED, exit=end), GRACE_S, NOW)
    assert (decision.status.state, decision.status.reason) == (state, reason)
    assert decision.status.exit_code == end.code


@pytest.mark.parametrize("state", [TaskState.STARTING, TaskState.RUNNING])
def test_what_was_started_and_has_no_container_went_with_its_host(state):
    status = next_step(wanted(), seen(state), GRACE_S, NOW).status
    assert (status.state, status.host_restarted) == (TaskState.FAILED, True)
    assert not next_step(wanted(TaskState.SHUTDOWN), seen(state), GRACE_S, NOW).status.host_restarted


def test_an_unhealthy_task_fails_with_the_reason():
    observed = seen(TaskState.RUNNING, STOPPED, exit=ExitStatus(137), unhealthy="its check failed")
    decision = next_step(wanted(), observed, GRACE_S, NOW)
    assert (decision.status.state, decision.status.reason) == (TaskState.FAILED, "its check failed")
