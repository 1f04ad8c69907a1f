"""Tasks as lines, and what is said when they change."""

from argosy.cli.progress.goals import ServicesSettled, WantedService
from argosy.cli.progress.lines import Narrator, TaskLine, by_urgency, describe, task_lines
from argosy.cli.progress.picture import Picture
from argosy.core.meta import Meta
from argosy.core.node import Node, NodeState, NodeStatus
from argosy.core.service import Service, ServiceSpec
from argosy.core.task import Task, TaskStatus
from argosy.core.task_state import TaskState as S


def line(
    state: S, reason: str = "", *, name: str = "web.1", node: str = "a", code: int | None = None, ran: bool = True
) -> TaskLine:
    return TaskLine(name, node, state, S.RUNNING, reason, code, ran)


def test_words() -> None:
    assert describe(line(S.RUNNING)) == "running on a"
    assert describe(line(S.PENDING, "no room", node="")) == "pending: no room"
    assert describe(line(S.FAILED, "out of memory", code=137)) == "failed on a, exit code 137: out of memory"
    assert describe(line(S.FAILED, "ended with exit code 3", code=3)) == "failed on a: ended with exit code 3"
    assert describe(line(S.SHUTDOWN, "told to", code=0)) == "stopped on a"


def test_each_change_is_said_once_and_what_is_passed_through_is_not() -> None:
    narrator = Narrator()
    narrator.start({"old": line(S.RUNNING, name="web.9")})
    said = []
    for state in (S.NEW, S.ASSIGNED, S.PREPARING, S.STARTING, S.RUNNING, S.RUNNING, S.FAILED):
        said += narrator.tell({"old": line(S.RUNNING, name="web.9"), "t": line(state)}, now=0.0)
    assert said == ["web.1: running on a", "web.1: failed on a"]


def test_that_a_task_has_stopped_is_said_once_of_the_one_that_ran() -> None:
    """Beside it may be one of the same name that was prepared to take its place, and is not needed any more."""
    narrator = Narrator()
    narrator.start({"old": line(S.RUNNING)})
    said = narrator.tell({"old": line(S.RUNNING), "new": line(S.READY, ran=False)}, now=0.0)
    said += narrator.tell({"old": line(S.RUNNING), "new": line(S.SHUTDOWN, ran=False)}, now=0.1)
    said += narrator.tell({"old": line(S.SHUTDOWN), "new": line(S.SHUTDOWN, ran=False)}, now=0.2)
    assert said == ["web.1: stopped on a"]
    waited = {"w": line(S.PENDING, "no room", node="", ran=False)}
    assert [narrator.tell(waited, now=now) for now in (1.0, 5.0)] == [[], ["web.1: pending: no room"]]
    assert narrator.tell({"w": line(S.SHUTDOWN, node="", ran=False)}, now=6.0) == ["web.1: stopped"]


def test_waiting_is_said_after_a_while_only() -> None:
    narrator = Narrator()
    waits = {"t": line(S.PENDING, "no room", node="")}
    assert narrator.tell(waits, now=0.0) == []
    assert narrator.tell(waits, now=2.9) == []
    assert narrator.tell(waits, now=3.0) == ["web.1: pending: no room"]
    assert narrator.tell(waits, now=9.0) == []
    assert narrator.tell({"t": line(S.PENDING, "still none", node="")}, now=9.0) == ["web.1: pending: still none"]


def test_what_keeps_a_task_on_its_node_from_running_is_said_too() -> None:
    narrator = Narrator()
    full = {"t": line(S.PREPARING, "the disk is full", ran=False)}
    narrator.start(full)
    assert [narrator.tell(full, now=now) for now in (0.0, 3.0)] == [[], ["web.1: preparing on a: the disk is full"]]
    assert narrator.tell({"t": line(S.READY, "its turn has not come", ran=False)}, now=4.0) == []
    assert narrator.tell({"t": line(S.RUNNING)}, now=5.0) == ["web.1: running on a"]


def test_of_a_task_that_does_not_run_yet_the_state_of_its_node_is_told() -> None:
    service = Service(Meta("s1"), spec=ServiceSpec("web", replicas=2))
    picture = Picture()
    picture.put(Node(Meta("n1"), status=NodeStatus(NodeState.AGENT_LOST, "its agent is away")))
    for name, state in (("t1", S.READY), ("t2", S.RUNNING)):
        picture.put(Task(Meta(name), service_id="s1", node_id="n1", status=TaskStatus(state)))
    lines = task_lines(ServicesSettled((WantedService(service),)), picture)
    assert lines["t1"].reason == "its node is AGENT_LOST: its agent is away"
    assert lines["t2"].reason == ""


def test_what_is_not_well_is_shown_first() -> None:
    lines = {f"t{i}": line(S.RUNNING, name=f"web.{i}") for i in range(1, 30)}
    lines["p"] = line(S.PENDING, name="web.30")
    lines["old"] = line(S.FAILED, name="web.30")
    shown, more = by_urgency(lines, 3)
    assert [(x.name, x.state) for x in shown] == [("web.1", S.RUNNING), ("web.2", S.RUNNING), ("web.30", S.PENDING)]
    assert more == 27


def test_of_many_tasks_alike_only_the_number_is_told() -> None:
    few = {f"t{i}": line(S.RUNNING, name=f"web.{i}") for i in range(5)}
    many = {f"u{i}": line(S.RUNNING, name=f"api.{i}", node="b") for i in range(6)}
    said = Narrator().tell(few | many, now=0.0)
    assert said == [*(f"web.{i}: running on a" for i in range(5)), "api: 6 tasks running on b"]
