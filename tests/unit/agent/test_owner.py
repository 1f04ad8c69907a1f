"""Task owners on a real loop, with a runtime, a network and images that live in memory."""

import asyncio
import time
from dataclasses import replace

import pytest

from argosy.agent.logic.assignments import Assignments
from argosy.agent.logic.succession import with_successors
from argosy.agent.logic.task_step import MOST_LOST
from argosy.agent.runtime.errors import ContainerMissing, ContainerUnstarted, LauncherBug, RuntimeRejected
from argosy.agent.state import TaskRecord
from argosy.agent.tasks.id_ranges import IdRanges
from argosy.agent.tasks.owner import FULL_BORNE_S
from argosy.core.ambient import SYSTEM
from argosy.core.assignment import Succession, UnreadableAssignment
from argosy.core.errors import ExhaustedError, PreconditionError, RejectedError, TransientError
from argosy.core.ids import successor_id
from argosy.core.network import Attachment
from argosy.core.service import ContainerSpec, FileRef, Healthcheck
from argosy.core.task import TaskStatus
from argosy.core.task_state import TaskState
from tests.unit.agent.node_parts import (
    DIGEST,
    RANGES,
    MemoryRuntime,
    NodeParts,
    a_task,
    assignments,
    transient,
)

RUNS = TaskState.RUNNING
RUNNING, STOP = a_task(), a_task(desired=TaskState.SHUTDOWN)


@pytest.fixture
async def nodes(tmp_path):
    """A function that makes a started node; later calls with the same name come after a stop."""
    made = []

    async def make(known=None, **more) -> NodeParts:
        made.append(await NodeParts(tmp_path, **more).start(known))
        return made[-1]

    yield make
    for node in made:
        if not node._running.done():
            await node.stop()


async def running(nodes, container=None, **more) -> NodeParts:
    node = await nodes(assignments(RUNNING, container=container), **more)
    await node.until_state(TaskState.RUNNING)
    return node


def free_ranges(node: NodeParts) -> list[int]:
    return list(node.host.id_ranges._free)


async def test_a_task_runs_is_stopped_released_and_forgotten(nodes):
    node = await running(nodes)
    assert node.runtime.ran == {"t1": 1}
    assert node.network.attached == {"t1"}
    assert len(free_ranges(node)) == RANGES - 1
    node.apply(assignments(STOP))
    await node.until_state(TaskState.SHUTDOWN, released=True)
    assert node.reported().released
    assert not node.runtime.containers
    assert not node.network.attached
    assert not node.host.layers
    assert len(free_ranges(node)) == len(set(free_ranges(node))) == RANGES
    node.apply(assignments())
    await node.until(lambda: node.status() is None)
    await node.stop()
    assert NodeParts(node.root).records == []


async def test_a_task_starts_when_those_that_it_follows_have_ended(nodes):
    node = await running(nodes)
    node.runtime.stubborn.add("t1")
    heir = replace(a_task("t2"), after=("t1", "one that this node never had"))
    node.apply(assignments(STOP, heir, version=2))
    await node.until(lambda: (s := node.status("t2")) and s.state is TaskState.READY and node.runtime.signals)
    for _ in range(50):
        await asyncio.sleep(0)
    assert node.runtime.ran == {"t1": 1}
    node.runtime.end("t1", 0)
    await node.until(lambda: node.status("t2").state is TaskState.RUNNING)
    await node.until_state(TaskState.SHUTDOWN, released=True)


async def until_created(node):
    """Wait until there is a container that waits for its start: in between there is none."""
    await node.until(lambda: (found := node.runtime.containers.get("t1")) and found.status == "created")


async def test_a_container_that_ends_before_its_start_is_made_anew(nodes):
    """As all that wait do when their launcher is killed."""
    node = await nodes()
    node.apply(assignments(replace(RUNNING, desired_state=TaskState.READY)))
    await node.until_state(TaskState.READY)
    node.runtime.end("t1", 1)
    await until_created(node)
    await node.until_state(TaskState.READY)
    node.apply(assignments(RUNNING))
    await node.until_state(TaskState.RUNNING)
    assert node.runtime.ran == {"t1": 1}


async def test_a_container_that_has_ended_when_it_is_to_be_started_is_made_anew(nodes):
    node = await nodes()
    node.runtime.faults.add("start", ContainerUnstarted("container t1 ended before it was started"))
    node.apply(assignments(RUNNING))
    await node.until_state(TaskState.RUNNING)
    assert node.runtime.ran == {"t1": 1}


async def test_a_container_that_ended_before_its_start_is_made_anew_by_the_agents_next_life(nodes):
    """The start was on disk, and the launcher died over it; then the agent did."""
    first = await nodes()
    first.apply(assignments(replace(RUNNING, desired_state=TaskState.READY)))
    await first.until_state(TaskState.READY)
    (record,) = first.state.load_tasks()
    first.host.state.save_task(replace(record, status=replace(record.status, state=TaskState.STARTING)))
    await first.stop()
    first.runtime.end("t1", 1)
    second = await NodeParts(first.root, first.runtime).start(assignments(RUNNING))
    await second.until_state(TaskState.RUNNING)
    assert second.runtime.ran == {"t1": 1}
    await second.stop()


@pytest.mark.parametrize("state", [TaskState.READY, TaskState.RUNNING])
async def test_what_is_there_is_attached_again_by_the_next_life(nodes, state):
    """Also one that is told to stop, and does not yet: its connections go on."""
    first = await nodes(assignments(replace(RUNNING, desired_state=state)))
    await first.until_state(state)
    first.network.attached.clear()
    first.runtime.stubborn.add("t1")
    await first.stop()
    node = NodeParts(first.root, first.runtime)
    node.network.faults.add("attach", TransientError("the networks are not there yet"))
    await node.start(assignments(STOP if state is TaskState.RUNNING else replace(RUNNING, desired_state=state)))
    await node.until(lambda: node.network.attached == {"t1"})
    await node.stop()


async def test_what_is_made_anew_has_its_network_also_where_the_agent_dies_over_that(nodes):
    first = await nodes()
    first.apply(assignments(replace(RUNNING, desired_state=TaskState.READY)))
    await first.until_state(TaskState.READY)
    first.network.attached.clear()  # as of a container that is gone
    first.network.faults.hold("attach")
    first.runtime.end("t1", 1)
    await until_created(first)
    second = await first.successor(assignments(RUNNING))
    await second.until_state(TaskState.RUNNING)
    assert second.network.attached == {"t1"}
    await second.stop()


async def test_a_network_that_cannot_be_joined_rejects_the_task(nodes):
    node = await nodes()
    node.network.faults.add("attach", PreconditionError("network one overlaps 10.78.0.64/26"))
    node.apply(assignments(RUNNING))
    status = await node.until_state(TaskState.REJECTED)
    assert status.reason == "network one overlaps 10.78.0.64/26"


async def test_one_that_always_ends_before_its_start_fails(nodes):
    node = await nodes()
    node.apply(assignments(replace(RUNNING, desired_state=TaskState.READY)))
    await node.until_state(TaskState.READY)
    for _ in range(MOST_LOST + 1):
        await until_created(node)
        node.runtime.end("t1", 137)
    status = await node.until_state(TaskState.FAILED, released=True)
    assert (
        status.reason == "its container ended 5 times before its program was started: the launcher dies again and again"
    )
    assert status.exit_code is None


async def test_a_task_goes_on_waiting_in_the_next_life_of_the_agent(nodes):
    first = await running(nodes)
    first.runtime.stubborn.add("t1")
    both = assignments(STOP, replace(a_task("t2"), after=("t1",)), version=2)
    first.apply(both)
    await first.until(lambda: (s := first.status("t2")) and s.state is TaskState.READY and first.runtime.signals)
    second = await first.successor(both)
    for _ in range(50):
        await asyncio.sleep(0)
    assert second.runtime.ran == {"t1": 1}
    second.runtime.end("t1", 0)
    await second.until(lambda: second.status("t2").state is TaskState.RUNNING)


async def test_nothing_is_done_before_the_controllers_will_is_known(nodes):
    first = await running(nodes)
    second = await first.successor(Assignments())  # nothing on disk: an unsynced view
    for _ in range(50):
        await asyncio.sleep(0)
    assert second.runtime.containers["t1"].status == "running"
    assert second.status().state is TaskState.RUNNING  # as it is on disk, too: it is never started again
    assert second.runtime.signals == []
    second.apply(assignments())
    await second.until(lambda: second.status() is None)
    assert not second.runtime.containers
    await second.stop()


async def test_a_shutdown_while_it_is_prepared_releases_everything(nodes):
    node = await nodes()
    node.network.faults.hold("attach")
    node.apply(assignments(RUNNING))
    await node.until(lambda: node.network.faults.calls)
    assert "t1" in node.runtime.containers
    node.apply(assignments(STOP))
    await node.until_state(TaskState.SHUTDOWN, released=True)
    assert not node.runtime.containers
    assert len(free_ranges(node)) == RANGES
    assert node.runtime.ran == {}


async def test_transient_errors_are_tried_again_and_the_reason_is_shown(nodes):
    node = await nodes()
    node.images.faults.add("ensure", TransientError("no controller has the layer"))
    node.apply(assignments(RUNNING))
    status = await node.until(lambda: (s := node.status()) and s.reason and s)
    assert (status.state, status.reason) == (TaskState.PREPARING, "no controller has the layer")
    assert node.reported().reason == "no controller has the layer"
    status = await node.until_state(TaskState.RUNNING)
    assert status.reason == ""


async def test_a_host_without_room_is_waited_for_only_so_long(nodes):
    node = await nodes()
    clock = iter((0.0, FULL_BORNE_S - 1, FULL_BORNE_S))
    node.host.ambient = replace(SYSTEM, monotonic=lambda: next(clock))
    node.images.faults.add("ensure", *(ExhaustedError("the disk has 0 B free") for _ in range(3)))
    node.apply(assignments(RUNNING))
    status = await node.until_state(TaskState.REJECTED, released=True)
    assert status.reason == "the disk has 0 B free"
    assert node.images.faults.calls == ["ensure"] * 3


async def test_a_full_run_directory_is_no_bug_and_room_that_comes_there_is_used(nodes):
    node = await nodes()
    full = node.host.files.directory("t1") / "hosts"
    full.parent.mkdir(parents=True)
    full.symlink_to("/dev/full")
    node.apply(assignments(RUNNING))
    await node.until(
        lambda: node.status().reason == "this host has no room for the task's files: No space left on device"
    )
    full.unlink()
    await node.until_state(TaskState.RUNNING)


async def test_room_that_comes_is_used(nodes):
    node = await nodes()
    clock = iter((0.0, FULL_BORNE_S, FULL_BORNE_S + 1))
    node.host.ambient = replace(SYSTEM, monotonic=lambda: next(clock))
    other = TransientError("no controller has the layer")
    node.images.faults.add("ensure", ExhaustedError("the disk has 0 B free"), other, ExhaustedError("again"))
    node.apply(assignments(RUNNING))
    await node.until_state(TaskState.RUNNING)


async def test_what_is_over_is_not_run_again_by_a_host_that_has_forgotten_it(nodes):
    """It lost power, and with it the record of the end: to the controller nothing of the task is left."""
    node = await running(nodes)
    node.apply(assignments(replace(RUNNING, over=True), replace(a_task("t2"), over=True)))
    await node.until_state(TaskState.SHUTDOWN, released=True)
    await node.until_state(TaskState.SHUTDOWN, "t2", released=True)
    assert node.runtime.ran == {"t1": 1}


async def test_what_ended_here_and_is_over_stays_as_it_ended(nodes):
    node = await running(nodes)
    node.runtime.end("t1", 3)
    status = await node.until_state(TaskState.FAILED, released=True)
    assert status.ran_s is not None
    node.apply(assignments(replace(RUNNING, over=True)))
    assert node.status().state is TaskState.FAILED
    # A restart without a controller follows.
    assert node.tasks.ended()["t1"].assigned.desired_state is TaskState.RUNNING


async def test_what_this_host_cannot_run_is_rejected_and_released(nodes):
    node = await nodes()
    node.runtime.faults.add("create", RuntimeRejected("rlimits above the host's hard limit"))
    node.apply(assignments(RUNNING))
    status = await node.until_state(TaskState.REJECTED, released=True)
    assert status.reason == "rlimits above the host's hard limit"
    assert len(free_ranges(node)) == RANGES


async def test_a_spec_that_only_a_newer_agent_could_read_is_rejected_with_the_reason(nodes):
    node = await nodes()
    pieces = assignments(RUNNING)
    unreadable = UnreadableAssignment("revision/svc.1", "condition is 99")
    node.apply(replace(pieces, pieces=pieces.pieces.changed({unreadable.key: unreadable})))
    status = await node.until_state(TaskState.REJECTED, released=True)
    assert status.reason == "this node's agent is too old for the service's spec (condition is 99): upgrade it"


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("task/t1", "too old for what is to be changed of the task (x is 9) and goes on with what it had"),
        ("revision/svc.1", "too old for the service's spec (x is 9)"),
        ("config/c.1", "too old for the config app.conf (x is 9)"),
        ("secret/s.1", "too old for the secret key (x is 9)"),
        ("endpoint/net/t7", "too old for a network of the task (x is 9)"),
    ],
)
async def test_what_runs_goes_on_and_says_which_piece_cannot_be_read(nodes, key, says):
    refs = (FileRef(name="app.conf", id="c.1"), FileRef(secret=True, name="key", id="s.1"))
    container = ContainerSpec(image="web:1", command=("serve",), image_digest=DIGEST)
    task = replace(a_task(), attachments=(Attachment("net"),))
    node = await nodes(assignments(task, container=container))
    await node.until_state(TaskState.RUNNING)
    pieces = assignments(task, container=replace(container, files=refs))
    node.apply(replace(pieces, unreadable={key: "x is 9"}))
    assert says in node.status().reason
    assert (node.reported().state, node.reported().reason) == (TaskState.RUNNING, node.status().reason)
    node.apply(replace(pieces, unreadable={"task/t9": "x is 9", "endpoint/other/t9": "x is 9"}))
    assert (node.status().state, node.status().reason) == (TaskState.RUNNING, "")
    assert (node.runtime.signals, node.runtime.ran) == ([], {"t1": 1})


@pytest.mark.parametrize("of_what", ["host_problems", "tunnel_problems"])
async def test_what_runs_goes_on_and_says_what_is_wrong_with_its_networks(nodes, of_what):
    joined = replace(RUNNING, attachments=(Attachment("net", 5), Attachment("other", 6)))
    node = await nodes(assignments(joined))
    await node.until_state(TaskState.RUNNING)
    for problems, reason in (({"third": "no"}, ""), ({"other": "it overlaps"}, "it overlaps"), ({}, "")):
        setattr(node.host, of_what, problems)
        node.tasks.networks_changed()
        assert (node.status().state, node.status().reason) == (TaskState.RUNNING, reason)


async def test_a_task_that_only_a_newer_agent_could_read_is_rejected_with_the_reason(nodes):
    node = await nodes()
    unreadable = UnreadableAssignment("task/t9", "desired_state is 999")
    pieces = assignments()
    node.apply(replace(pieces, pieces=pieces.pieces.changed({unreadable.key: unreadable})))
    status = node.reported("t9")
    assert (status.state, status.released) == (TaskState.REJECTED, True)
    assert status.reason == "this node's agent is too old for the task (desired_state is 999): upgrade it"
    assert node.tasks.reports() == {"t9": status}  # a new leader hears of it, too
    node.apply(assignments())
    assert (node.tasks.reports(), node.reported("t9")) == ({}, None)


async def test_more_tasks_than_id_ranges_wait_and_end_nothing(nodes):
    """A host whose ranges are all in use shows that as a reason; the agent lives on for the tasks that run."""
    tasks = [a_task(f"t{i}") for i in range(RANGES + 1)]
    node = await nodes(assignments(*tasks))
    last = await node.until(lambda: [s for s in node.tasks.statuses().values() if "id ranges" in s.reason])
    assert last[0].state is TaskState.PREPARING
    await node.until(lambda: len(node.runtime.ran) == RANGES)
    waiting = next(t for t in tasks if t.id not in node.runtime.ran)
    stopped = next(t.id for t in tasks if t.id in node.runtime.ran)
    node.apply(assignments(*(t for t in tasks if t.id != stopped)))
    await node.until_state(TaskState.RUNNING, waiting.id)


async def test_an_end_while_it_is_started_is_not_lost(nodes):
    node = await nodes()
    gate = node.runtime.faults.hold("start")
    node.apply(assignments(RUNNING))
    await node.until(lambda: "start" in node.runtime.faults.calls)
    gate.set()
    await node.until(lambda: node.runtime.ran)
    node.runtime.end("t1", 3)
    status = await node.until_state(TaskState.FAILED, released=True)
    assert status.exit_code == 3
    assert node.runtime.ran == {"t1": 1}


async def test_a_program_that_does_not_start_fails(nodes):
    node = await nodes()
    node.runtime.faults.add("start", RuntimeRejected("no such program", exit_code=127))
    node.apply(assignments(RUNNING))
    status = await node.until_state(TaskState.FAILED, released=True)
    assert status.exit_code == 127
    assert "no such program" in status.reason


@pytest.mark.parametrize("lists_that_fail", [0, 2])
async def test_a_launcher_that_dies_after_the_start_runs_it_once(nodes, lists_that_fail):
    node = await nodes()
    node.runtime.lost_answers = 1
    node.runtime.faults.add("list", *(transient() for _ in range(lists_that_fail)))
    node.apply(assignments(RUNNING))
    await node.until(lambda: node.runtime.ran)
    status = await node.until(lambda: (s := node.status()) and s.state >= TaskState.RUNNING and s)
    assert (status.state, status.reason) == (TaskState.RUNNING, "")
    assert node.runtime.ran == {"t1": 1}


async def test_a_launcher_that_dies_before_the_start_starts_it_after_all(nodes):
    node = await nodes()
    node.runtime.faults.add("start", transient())
    node.apply(assignments(RUNNING))
    await node.until_state(TaskState.RUNNING)
    assert node.runtime.ran == {"t1": 1}


async def test_a_container_that_went_with_its_launcher_fails(nodes):
    node = await nodes()
    gate = node.runtime.faults.hold("start")
    node.runtime.faults.add("start", transient())
    node.apply(assignments(RUNNING))
    await node.until(lambda: "start" in node.runtime.faults.calls)
    node.runtime.containers.clear()
    gate.set()
    status = await node.until_state(TaskState.FAILED)
    assert "lost" in status.reason
    assert node.runtime.ran == {}


@pytest.mark.parametrize("error", [transient(), LauncherBug("bug in the launcher: KeyError")], ids=["transient", "bug"])
@pytest.mark.parametrize("call", ["start", "kill", "delete", "list"])
async def test_no_failure_of_the_launcher_ends_the_agent(nodes, call, error):
    node = await nodes()
    if call == "list":
        node.runtime.faults.add("start", transient())
    node.runtime.faults.add(call, error)
    node.apply(assignments(RUNNING))
    await node.until_state(TaskState.RUNNING)
    node.apply(assignments(STOP))
    status = await node.until_state(TaskState.SHUTDOWN, released=True)
    assert status.exit_code == 128 + 15
    assert node.runtime.signals == [("t1", 15)]


async def test_a_kill_that_the_launcher_missed_is_sent_again(nodes):
    node = await running(nodes, ContainerSpec(image_digest=DIGEST, command=("x",), stop_grace_period=0.05))
    node.runtime.stubborn.add("t1")
    node.apply(assignments(STOP, container=ContainerSpec(image_digest=DIGEST, stop_grace_period=0.05)))
    await node.until(lambda: node.runtime.signals)
    node.runtime.faults.add("kill", transient())
    status = await node.until_state(TaskState.SHUTDOWN, released=True)
    assert node.runtime.signals == [("t1", 15), ("t1", 9)]
    assert status.exit_code == 137


async def test_a_container_that_is_gone_when_it_is_to_be_stopped_ends(nodes):
    node = await running(nodes)
    node.runtime.faults.add("kill", ContainerMissing("no container t1"))
    node.apply(assignments(STOP))
    await node.until_state(TaskState.SHUTDOWN, released=True)


async def test_a_task_is_started_when_its_time_has_come(nodes):
    when = time.time() + 0.3
    node = await nodes(assignments(a_task(not_before=when)))
    await node.until_state(TaskState.READY)
    await node.until_state(TaskState.RUNNING)
    assert time.time() >= when


async def test_ready_waits_for_running_to_be_desired(nodes):
    node = await nodes(assignments(a_task(desired=TaskState.READY)))
    await node.until_state(TaskState.READY)
    assert node.runtime.ran == {}
    node.apply(assignments(RUNNING))
    await node.until_state(TaskState.RUNNING)


# ------------------------------------------------------------ health


def checked(**more) -> ContainerSpec:
    times = {"interval": 0.01, "timeout": 1.0, "retries": 2, "start_interval": 0.01, **more}
    return ContainerSpec(image_digest=DIGEST, command=("x",), healthcheck=Healthcheck(("CMD", "check"), **times))


async def test_a_task_with_a_check_runs_when_it_is_well(nodes):
    runtime = MemoryRuntime()
    runtime.health = 1
    node = await nodes(assignments(RUNNING, container=checked(start_period=60.0)), runtime=runtime)
    await node.until(lambda: runtime.faults.calls.count("exec") > 2)
    assert node.status().state is TaskState.STARTING
    runtime.health = 0
    await node.until_state(TaskState.RUNNING)


async def test_an_unhealthy_task_is_stopped_and_has_failed(nodes):
    node = await running(nodes, checked())
    node.runtime.health = 7
    status = await node.until_state(TaskState.FAILED, released=True)
    assert "health" in status.reason
    assert node.runtime.signals == [("t1", 15)]


async def test_a_launcher_that_is_away_makes_nobody_unhealthy(nodes):
    node = await running(nodes, checked(retries=1))
    node.runtime.faults.add("exec", transient(), transient(), transient())
    before = node.runtime.faults.calls.count("exec")
    await node.until(lambda: node.runtime.faults.calls.count("exec") > before + 5)
    assert node.status().state is TaskState.RUNNING
    assert node.runtime.signals == []


async def test_health_is_watched_again_after_a_restart(nodes):
    first = await running(nodes, checked())
    second = await first.successor()
    # The view on disk was lost: what to check is only known when the controller tells.
    for _ in range(20):
        await asyncio.sleep(0)
    second.apply(assignments(RUNNING, container=checked()))
    second.runtime.health = 1
    status = await second.until_state(TaskState.FAILED, released=True)
    assert "health" in status.reason
    await second.stop()


async def test_a_starting_task_is_not_running_before_its_check_is_known(nodes):
    runtime = MemoryRuntime()
    runtime.health = 1
    first = await nodes(assignments(RUNNING, container=checked(start_period=60.0)), runtime=runtime)
    await first.until(lambda: runtime.faults.calls.count("exec") > 0)
    second = await first.successor()
    for _ in range(50):
        await asyncio.sleep(0)
    assert second.status().state is TaskState.STARTING
    await second.stop()


def asked(**more) -> ContainerSpec:
    times = {"interval": 0.01, "timeout": 1.0, "retries": 2, "start_interval": 0.01, **more}
    return ContainerSpec(image_digest=DIGEST, command=("x",), readiness=Healthcheck(("CMD", "check"), **times))


async def test_what_is_adopted_without_a_record_is_not_ready_before_it_was_asked(nodes):
    first = await running(nodes, asked(interval=0.01))
    first.host.state.forget_task("t1")
    answers = first.runtime.faults.hold("exec")
    second = await first.successor(assignments(RUNNING, container=asked(interval=0.01)))
    assert (await second.until_state(TaskState.RUNNING)).unready
    assert second.reported().unready
    answers.set()
    await second.until(lambda: not second.status().unready)
    await second.stop()


async def test_a_task_that_is_not_well_yet_says_why(nodes):
    check = Healthcheck(("CMD", "check"), interval=0.01, timeout=1.0, retries=2, start_interval=0.01, start_period=60.0)
    runtime = MemoryRuntime()
    runtime.health = 1
    wanted = ContainerSpec(image_digest=DIGEST, command=("x",), healthcheck=check)
    node = await nodes(assignments(RUNNING, container=wanted), runtime=runtime)
    await node.until(lambda: node.reported() and node.reported().reason == "its health check fails: said so")
    assert node.status().state is TaskState.STARTING
    runtime.health = 0
    assert (await node.until_state(TaskState.RUNNING)).reason == ""


async def test_a_task_that_is_not_ready_runs_and_says_so_until_it_is(nodes):
    runtime = MemoryRuntime()
    runtime.health = 1
    node = await nodes(assignments(RUNNING, container=asked()), runtime=runtime)
    unready = await node.until_state(TaskState.RUNNING)
    assert unready.unready
    await node.until(lambda: node.reported() and node.reported().reason == "not ready: said so")
    runtime.health = 0
    await node.until(lambda: not node.status().unready)
    assert (node.reported().state, node.reported().unready, node.reported().reason) == (TaskState.RUNNING, False, "")
    runtime.health = 1
    await node.until(lambda: node.status().unready)
    assert runtime.signals == []  # it is not restarted
    assert runtime.ran == {"t1": 1}


async def test_a_task_that_was_ready_stays_so_when_the_agent_is_started_anew(nodes):
    first = await nodes(assignments(RUNNING, container=asked(interval=3600.0)))
    await first.until(
        lambda: first.status() and first.status().state is TaskState.RUNNING and not first.status().unready
    )
    second = await first.successor(assignments(RUNNING, container=asked(interval=3600.0)))
    for _ in range(50):
        await asyncio.sleep(0)
    assert (second.status().state, second.status().unready) == (TaskState.RUNNING, False)
    await second.stop()


async def test_a_stop_signal_that_may_not_have_been_sent_is_sent_again_and_the_grace_goes_on(nodes):
    first = await running(nodes)
    gate = first.runtime.faults.hold("kill")
    first.apply(assignments(STOP))
    await first.until(lambda: "kill" in first.runtime.faults.calls)
    record = first.state._records["t1"]
    assert (record.stop_at is not None, record.signalled) == (True, False)
    await first.stop()  # before the launcher has got it
    gate.set()
    second = await NodeParts(first.root, first.runtime).start(assignments(STOP))
    await second.until_state(TaskState.SHUTDOWN, released=True)
    assert second.runtime.signals == [("t1", 15)]
    await second.stop()


async def test_a_stop_signal_that_was_sent_is_not_sent_again(nodes):
    first = await running(nodes)
    first.runtime.stubborn.add("t1")
    first.apply(assignments(STOP))
    await first.until(lambda: first.state._records["t1"].signalled)
    second = await first.successor(assignments(STOP))
    for _ in range(50):
        await asyncio.sleep(0)
    assert second.runtime.signals == [("t1", 15)]
    await second.stop()


# ------------------------------------------------------------ ends that no controller knows of


async def test_what_a_task_held_is_told_to_be_free_only_once_its_end_is_stored(nodes):
    node = await running(nodes)
    node.runtime.end("t1", 3)
    await node.until_state(TaskState.FAILED, released=True)
    assert not node.reported().released  # a successor made here could have its addresses
    report = await node.host.reporter.next()
    node.host.reporter.acknowledge(report.sequence)
    assert node.reported().released
    assert node.state._records["t1"].confirmed


async def test_the_end_and_the_successor_go_in_one_report(nodes):
    node = await running(nodes)
    node.runtime.end("t1", 3)
    await node.until_state(TaskState.FAILED, released=True)
    heir = successor_id("t1")
    succession = Succession("t1", 5.0, 1, 0.0, 1, 5.0)
    node.host.successions[heir] = succession
    node.tasks.make(heir, succession)
    node.apply(with_successors(assignments(RUNNING), node.host.successions))
    await node.until_state(TaskState.RUNNING, heir)
    node.host.reporter.restart(node.tasks.reports())
    node.host.reporter.MAX_TASKS = 1
    report = await node.host.reporter.next()
    told = {t.task_id: t for t in report.tasks}
    assert told.keys() == {"t1", heir}
    assert told["t1"].status.released
    assert told[heir].succession.root == "t1"
    again = await node.successor()
    assert again.host.successions == {heir: succession}  # also for an agent that is started anew
    again.apply(with_successors(assignments(RUNNING), again.host.successions))
    assert again.status(heir).state is TaskState.RUNNING
    again.tasks.hand_over(heir)
    last = await again.successor()
    assert last.host.successions == {}
    await last.stop()


# ------------------------------------------------------------ an agent's restart

RECORDS = [None, TaskState.PREPARING, TaskState.READY, TaskState.STARTING, TaskState.RUNNING, TaskState.FAILED]
CONTAINERS = [None, "created", "never started", "running", "stopped"]


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("recorded", RECORDS)
async def test_an_agent_goes_on_from_whatever_it_finds(tmp_path, recorded, container):
    """What was started once never runs again; the others run; nothing is left of those that ended."""
    before = NodeParts(tmp_path)
    if recorded is not None:
        status = TaskStatus(recorded, at=1.0, reason="why")
        before.state.save_task(TaskRecord("t1", status, id_range=2))
    before.state.release()
    runtime = MemoryRuntime()
    if container is not None:
        await runtime.create("t1", {}, None, None, {})
    if container in ("running", "stopped"):
        await runtime.start("t1")
    if container in ("stopped", "never started"):
        runtime.end("t1", 4)
    started_before = runtime.ran.get("t1", 0)
    node = await NodeParts(tmp_path, runtime).start(assignments(RUNNING))
    try:
        ends = (
            recorded is TaskState.FAILED
            or container == "stopped"
            or (container is None and recorded in (TaskState.STARTING, TaskState.RUNNING))
            or (container == "never started" and recorded is TaskState.RUNNING)
        )
        if ends:
            await node.until_state(TaskState.FAILED, released=True)
            assert not runtime.containers
            assert len(free_ranges(node)) == len(set(free_ranges(node))) == RANGES
        else:
            await node.until_state(TaskState.RUNNING)
            await node.until(lambda: runtime.containers["t1"].status == "running")
        assert runtime.ran.get("t1", 0) == (started_before if ends else 1)
    finally:
        await node.stop()


async def test_a_released_task_gives_nothing_back_twice(nodes):
    node = await running(nodes)
    node.runtime.end("t1", 0)
    await node.until_state(TaskState.COMPLETE, released=True)
    second = await node.successor(assignments(RUNNING, a_task("t2")))
    await second.until_state(TaskState.RUNNING, "t2")
    assert second.status("t1").state is TaskState.COMPLETE
    assert second.runtime.ran == {"t1": 1, "t2": 1}
    second.apply(assignments(a_task("t2")))
    await second.until(lambda: second.status("t1") is None)
    assert len(free_ranges(second)) == RANGES - 1
    await second.stop()


async def test_an_agent_that_stops_while_it_prepares_leaves_nothing_behind_for_good(nodes):
    first = await nodes()
    first.network.faults.hold("attach")
    first.apply(assignments(RUNNING))
    await first.until(lambda: first.network.faults.calls)
    second = await first.successor(assignments(RUNNING))
    await second.until_state(TaskState.RUNNING)
    assert second.runtime.ran == {"t1": 1}
    await second.stop()


def test_a_range_that_is_not_one_of_ours_is_not_given_out():
    """After a restart with fewer ranges a task may still have one of those that were."""
    ranges = IdRanges(0, 2, taken=[0, 7])
    ranges.give_back(7)
    assert ranges.take() == 1
    with pytest.raises(TransientError):
        ranges.take()


async def test_a_bug_in_preparing_one_task_does_not_end_the_others(nodes):
    node = await nodes()
    node.images.faults.add("ensure", KeyError("oops"))
    node.apply(assignments(RUNNING, a_task("t2")))
    await node.until(
        lambda: {s.state for s in node.tasks.statuses().values()} == {TaskState.REJECTED, TaskState.RUNNING}
    )


async def test_a_rejected_error_of_the_image_store_rejects(nodes):
    node = await nodes()
    node.images.faults.add("ensure", RejectedError("layer 1: a file outside of the root"))
    node.apply(assignments(RUNNING))
    status = await node.until_state(TaskState.REJECTED, released=True)
    assert "outside of the root" in status.reason
