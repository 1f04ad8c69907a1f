"""When a goal has been reached, has failed, or waits: tables over pictures of a cluster."""

from dataclasses import replace

import pytest

from argosy.cli.progress.drained import NodeDrained
from argosy.cli.progress.goals import ServicesGone, ServicesSettled, Status, WantedService
from argosy.cli.progress.picture import Picture
from argosy.core.meta import Meta
from argosy.core.network import Network, NetworkSpec
from argosy.core.node import Availability, Node, NodeDescription, NodeSpec, NodeState, NodeStatus, Platform
from argosy.core.service import (
    ROLLED_BACK_BY_HAND,
    Disconnect,
    Placement,
    RestartCondition,
    RestartPolicy,
    Service,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateState,
    UpdateStatus,
)
from argosy.core.task import Task, TaskStatus
from argosy.core.task_state import TaskState as S

SERVICE = Service(meta=Meta("s1", updated_at=10.0), spec=ServiceSpec("web", replicas=2), revision=1)


def node(name: str, state: NodeState = NodeState.READY, availability: Availability = Availability.ACTIVE) -> Node:
    return Node(
        meta=Meta(name, updated_at=1.0),
        spec=NodeSpec(name, availability=availability),
        description=NodeDescription(platform=Platform("linux", "amd64")),
        status=NodeStatus(state),
    )


def task(
    name: str, state: S, desired: S = S.RUNNING, *, slot: int = 1, on: str = "a", revision: int = 1, **more: object
) -> Task:
    status = TaskStatus(state, at=float(more.pop("at", 1.0)), reason=str(more.pop("reason", "")))  # type: ignore[arg-type]
    meta = Meta(name, created_at=float(more.pop("created", 1.0)))  # type: ignore[arg-type]
    return Task(
        meta=meta, service_id="s1", slot=slot, node_id=on, revision=revision, desired_state=desired, status=status
    )


def picture(*objects: Service | Task | Node | Network) -> Picture:
    found = Picture()
    for obj in (node("a"), node("b"), *objects):
        found.put(obj)
    found.mark_synced()
    return found


def service(**changes: object) -> Service:
    spec = {k: changes.pop(k) for k in ("replicas", "mode", "task") if k in changes}
    return replace(SERVICE, spec=replace(SERVICE.spec, **spec), **changes)  # type: ignore[arg-type]


def status(wanted: Service, seen: Picture, **how: bool) -> Status:
    return ServicesSettled((WantedService(wanted, **how),)).assess(seen).status


ONE, TWO = task("t1", S.RUNNING), task("t2", S.RUNNING, slot=2, on="b")


@pytest.mark.parametrize(
    ("objects", "wanted"),
    [
        ((SERVICE, ONE, TWO), Status.DONE),
        ((ONE, TWO), Status.WAITING),
        ((SERVICE,), Status.WAITING),
        ((SERVICE, ONE), Status.WAITING),
        ((SERVICE, ONE, task("t2", S.STARTING, slot=2)), Status.WAITING),
        ((SERVICE, ONE, task("t2", S.PENDING, slot=2, on="")), Status.WAITING),
        ((SERVICE, ONE, task("t2", S.RUNNING, S.READY, slot=2)), Status.WAITING),
        # a surplus task that still runs
        ((SERVICE, ONE, TWO, task("t3", S.RUNNING, S.SHUTDOWN, slot=3)), Status.WAITING),
        ((SERVICE, ONE, TWO, task("t3", S.SHUTDOWN, S.REMOVE, slot=3)), Status.DONE),
        ((SERVICE, ONE, TWO, task("t3", S.FAILED)), Status.DONE),
        # on a node that is away, a task counts for nothing and cannot be waited for
        ((SERVICE, ONE, TWO, node("c", NodeState.DOWN), task("t3", S.RUNNING, S.SHUTDOWN, on="c")), Status.DONE),
        ((SERVICE, ONE, node("c", NodeState.DOWN), task("t3", S.RUNNING, slot=2, on="c")), Status.WAITING),
        # a node whose agent is away goes on running what it has, but stops nothing
        ((SERVICE, ONE, node("c", NodeState.AGENT_LOST), task("t3", S.RUNNING, slot=2, on="c")), Status.DONE),
        ((SERVICE, ONE, TWO, node("c", NodeState.AGENT_LOST), task("t", S.RUNNING, S.SHUTDOWN, on="c")), Status.DONE),
        # an older record than the one acknowledged
        ((replace(SERVICE, meta=Meta("s1", updated_at=9.0)), ONE, TWO), Status.WAITING),
        ((service(removing=True), ONE, TWO), Status.FAILED),
        ((service(revision=2), ONE, TWO), Status.FAILED),
        ((service(replicas=1), ONE), Status.FAILED),  # nothing but the number was asked for
    ],
)
def test_replicated(objects: tuple[Service | Task | Node, ...], wanted: Status) -> None:
    assert status(SERVICE, picture(*objects)) is wanted


@pytest.mark.parametrize("state", [UpdateState.UPDATING, UpdateState.PAUSED, UpdateState.ROLLBACK_COMPLETED])
def test_scaling_goes_on_while_somebody_else_updates_the_service(state: UpdateState) -> None:
    other = service(revision=2, update=UpdateStatus(state, 11.0))
    assert status(SERVICE, picture(other, ONE), exact=False) is Status.WAITING
    assert status(SERVICE, picture(other, ONE, TWO), exact=False) is Status.DONE
    assert status(SERVICE, picture(service(revision=2, replicas=3), ONE, TWO), exact=False) is Status.FAILED


UPDATED = service(revision=2, update=UpdateStatus(UpdateState.UPDATING, 11.0))
CANARY = replace(task("c1", S.RUNNING, revision=2, slot=3), canary=True)
TRYING = service(revision=2, update=UpdateStatus(UpdateState.UPDATING, 11.0, message="trying 1 canary"))
READY = replace(TRYING, update=UpdateStatus(UpdateState.UPDATING, 11.0, ready=True))


def test_canaries_count_apart_and_end_the_waiting_once_they_wait_for_a_person() -> None:
    assert status(TRYING, picture(TRYING, ONE, TWO, CANARY)) is Status.WAITING
    assert status(READY, picture(READY, ONE, TWO, CANARY)) is Status.DONE
    seen = ServicesSettled((WantedService(TRYING),)).assess(picture(TRYING, ONE, TWO, CANARY))
    assert seen.summary == ("web: 2/2 running, 1 canary, updating",)
    assert status(TRYING, picture(TRYING, ONE, TWO, CANARY), exact=False) is Status.DONE


def test_a_stopped_service_is_settled_when_nothing_runs() -> None:
    stopped = replace(SERVICE, spec=replace(SERVICE.spec, stopped=True))
    assert status(stopped, picture(stopped, ONE), exact=False) is Status.WAITING
    assert status(stopped, picture(stopped), exact=False) is Status.DONE
    assert status(stopped, picture(SERVICE, ONE, TWO), exact=False) is Status.FAILED


NEW = (task("n1", S.RUNNING, revision=2), task("n2", S.RUNNING, revision=2, slot=2))


@pytest.mark.parametrize(
    ("seen", "wanted"),
    [
        (UPDATED, Status.WAITING),
        (replace(UPDATED, update=UpdateStatus(UpdateState.COMPLETED)), Status.DONE),
        (replace(UPDATED, update=UpdateStatus(UpdateState.PAUSED)), Status.FAILED),
        (replace(UPDATED, revision=3, update=UpdateStatus(UpdateState.ROLLBACK_STARTED)), Status.WAITING),
        (replace(UPDATED, revision=3, update=UpdateStatus(UpdateState.ROLLBACK_PAUSED)), Status.FAILED),
        (replace(UPDATED, revision=3, update=UpdateStatus(UpdateState.ROLLBACK_COMPLETED)), Status.FAILED),
    ],
)
def test_updates(seen: Service, wanted: Status) -> None:
    assert status(UPDATED, picture(seen, *NEW)) is wanted


def test_a_deployment_goes_on_with_the_number_that_somebody_else_has_scaled_it_to_and_says_so() -> None:
    scaled = replace(UPDATED, spec=replace(UPDATED.spec, replicas=1))
    assert status(UPDATED, picture(scaled, NEW[0])) is Status.WAITING
    over = replace(scaled, update=UpdateStatus(UpdateState.COMPLETED))
    assert status(UPDATED, picture(over, *NEW)) is Status.WAITING
    found = ServicesSettled((WantedService(UPDATED),)).assess(picture(over, NEW[0]))
    said = "web: somebody else has scaled it to 1 meanwhile"
    assert (found.status, found.summary) == (Status.DONE, ("web: 1/1 running", said))
    first = replace(SERVICE, meta=Meta("s1", created_at=10.0, updated_at=10.0))
    assert status(first, picture(service(replicas=1), ONE)) is Status.DONE


LEFT = "1 task on node c, which is cut off, still runs revision 1: replaced when it is back, or by 'argosy node rm'"
DONE = replace(UPDATED, update=UpdateStatus(UpdateState.COMPLETED, 11.0, message=LEFT))
KEPT = task("t2", S.RUNNING, slot=2, on="c")


@pytest.mark.parametrize(
    ("seen", "others", "wanted"),
    [
        (DONE, [KEPT], Status.DONE),
        (DONE, [KEPT, task("n2", S.READY, S.READY, slot=2, revision=2)], Status.DONE),  # prepared, and waits for it
        (replace(DONE, update=UPDATED.update), [KEPT], Status.WAITING),
        (DONE, [], Status.WAITING),
        (DONE, [replace(KEPT, desired_state=S.SHUTDOWN)], Status.WAITING),
    ],
)
def test_an_update_is_over_without_what_is_kept_on_a_node_that_is_cut_off(
    seen: Service, others: list[Task], wanted: Status
) -> None:
    keeping = replace(seen, spec=replace(seen.spec, disconnect=Disconnect.KEEP))
    there = picture(keeping, NEW[0], node("c", NodeState.DOWN), *others)
    found = ServicesSettled((WantedService(UPDATED),)).assess(there)
    assert found.status is wanted
    if wanted is Status.DONE:
        assert found.summary == ("web: 1/2 running, 1 cut off", f"web: {LEFT}")


def test_only_failures_of_the_update_explain_it_and_what_can_be_done_is_told() -> None:
    paused = replace(UPDATED, update=UpdateStatus(UpdateState.PAUSED, message="the only replica failed"))
    old = task("old", S.FAILED, slot=2, revision=1, at=9.0)
    first, last = (task(f"new{i}", S.FAILED, revision=2, at=float(i)) for i in (1, 2))
    back = task("back", S.FAILED, slot=2, revision=3, at=1.5)
    found = ServicesSettled((WantedService(UPDATED),)).assess(picture(paused, old, first, last, back))
    assert [t.meta.id for t in found.culprits] == ["new2", "back"]
    assert found.hint == "'argosy service rollback web' takes it back, 'argosy service resume web' goes on with it"


@pytest.mark.parametrize("state", [UpdateState.ROLLBACK_STARTED, UpdateState.ROLLBACK_COMPLETED])
def test_what_somebody_else_rolled_back_has_not_failed_and_is_not_waited_for(state: UpdateState) -> None:
    seen = replace(UPDATED, revision=3, update=UpdateStatus(state, message=ROLLED_BACK_BY_HAND))
    found = ServicesSettled((WantedService(UPDATED),)).assess(picture(seen, *NEW, task("t", S.FAILED, revision=2)))
    assert found.reason == "web: somebody else has rolled it back meanwhile, as revision 3"
    assert not found.culprits


def test_a_rollback_by_hand() -> None:
    started = service(revision=3, update=UpdateStatus(UpdateState.ROLLBACK_STARTED))
    done = replace(started, update=UpdateStatus(UpdateState.ROLLBACK_COMPLETED))
    paused = replace(started, update=UpdateStatus(UpdateState.ROLLBACK_PAUSED))
    assert status(started, picture(started, *NEW)) is Status.WAITING
    assert status(started, picture(done, *NEW)) is Status.DONE
    told = replace(done, update=replace(done.update, message=ROLLED_BACK_BY_HAND))
    assert ServicesSettled((WantedService(started),)).assess(picture(told, *NEW)).summary == ("web: 2/2 running",)
    assert status(started, picture(paused, *NEW)) is Status.FAILED


def test_scaling_does_not_care_about_the_update() -> None:
    paused = service(update=UpdateStatus(UpdateState.PAUSED))
    assert status(paused, picture(paused, ONE, TWO), exact=False) is Status.DONE
    assert status(paused, picture(paused, ONE, TWO), exact=True) is Status.FAILED


@pytest.mark.parametrize(
    ("constraints", "platforms", "wanted"),
    [
        ((), (), 2),
        (("node.hostname == a",), (), 1),
        ((), (Platform("linux", "arm64"),), 0),
        ((), (Platform("linux", ""),), 2),
    ],
)
def test_a_global_service_runs_on_each_node_that_fits(
    constraints: tuple[str, ...], platforms: tuple[Platform, ...], wanted: int
) -> None:
    spec = TaskSpec(placement=Placement(constraints=constraints, platforms=platforms))
    everywhere = service(mode=ServiceMode.GLOBAL, task=spec)
    away = (node("c", NodeState.DOWN), node("d", availability=Availability.DRAIN), node("e", NodeState.UNKNOWN))
    tasks = [task(f"t{i}", S.RUNNING, slot=0, on=on) for i, on in enumerate(("a", "b")[:wanted])]
    assert status(everywhere, picture(everywhere, *away, *tasks)) is Status.DONE
    if tasks:
        assert status(everywhere, picture(everywhere, *away, *tasks[1:])) is Status.WAITING


def endings(seen: Picture, *states: S, slot: int = 1, reason: str = "r", revision: int = 1) -> None:
    """Let tasks of a slot end, one after the other, while one looks."""
    for i, state in enumerate(states):
        name = f"e{slot}-{i}"
        seen.put(task(name, S.PENDING, slot=slot, created=i, revision=revision))
        seen.put(task(name, state, slot=slot, created=i, at=i, reason=reason, revision=revision))


@pytest.mark.parametrize(
    ("policy", "states", "wanted"),
    [
        (RestartPolicy(), (S.FAILED,) * 2, Status.WAITING),
        (RestartPolicy(), (S.FAILED,) * 3, Status.FAILED),
        (RestartPolicy(), (S.COMPLETE,) * 3, Status.FAILED),
        (RestartPolicy(), (S.SHUTDOWN,) * 3, Status.WAITING),
        (RestartPolicy(max_attempts=1), (S.FAILED,), Status.WAITING),
        (RestartPolicy(max_attempts=1), (S.FAILED,) * 2, Status.FAILED),
        (RestartPolicy(RestartCondition.NONE), (S.FAILED,), Status.FAILED),
        (RestartPolicy(RestartCondition.NONE), (S.COMPLETE,), Status.DONE),
        (RestartPolicy(RestartCondition.ON_FAILURE), (S.COMPLETE,), Status.DONE),
        (RestartPolicy(RestartCondition.ON_FAILURE), (S.FAILED, S.COMPLETE), Status.DONE),
        (RestartPolicy(), (S.REJECTED,), Status.WAITING),
        (RestartPolicy(), (S.REJECTED,) * 2, Status.FAILED),
    ],
)
def test_hopeless(policy: RestartPolicy, states: tuple[S, ...], wanted: Status) -> None:
    crashing = service(replicas=1, task=TaskSpec(restart=policy))
    seen = picture(crashing)
    endings(seen, *states)
    assert status(crashing, seen) is wanted


def test_failures_of_different_slots_do_not_add_up() -> None:
    seen = picture(SERVICE)
    endings(seen, S.FAILED, S.FAILED)
    endings(seen, S.FAILED, S.FAILED, slot=2)
    assert status(SERVICE, seen) is Status.WAITING


def test_what_had_ended_before_counts_for_a_new_revision_only() -> None:
    old = [task(f"o{i}", S.FAILED) for i in range(5)]
    assert status(SERVICE, picture(SERVICE, *old)) is Status.WAITING
    created = replace(SERVICE, meta=Meta("s1", created_at=10.0, updated_at=10.0))
    assert status(created, picture(created, *old)) is Status.FAILED
    updated = service(revision=2, update=UpdateStatus(UpdateState.UPDATING))
    assert status(updated, picture(updated, *old)) is Status.WAITING
    assert status(updated, picture(updated, *(replace(t, revision=2) for t in old))) is Status.FAILED


def test_what_ended_counts_also_when_the_cluster_has_forgotten_it() -> None:
    seen = picture(SERVICE)
    endings(seen, S.FAILED, S.FAILED, S.FAILED)
    for old in list(seen.tasks.values()):
        seen.remove(old)
    found = ServicesSettled((WantedService(SERVICE),)).assess(seen)
    assert found.status is Status.FAILED
    assert found.culprits[0].meta.id == "e1-2"
    assert found.reason == "web: web.1 has failed 3 times"


def test_the_reason_of_what_waits_is_told() -> None:
    seen = picture(SERVICE, *(task(f"p{i}", S.PENDING, slot=i, on="", reason="no room") for i in (1, 2)))
    assert ServicesSettled((WantedService(SERVICE),)).assess(seen).reason == "web: 0/2 running: no room (2 tasks)"


def test_gone() -> None:
    network = Network(meta=Meta("n1"), spec=NetworkSpec("net"))
    goal = ServicesGone((SERVICE,), ("n1",))
    seen = picture(
        replace(SERVICE, removing=True), network, task("t1", S.RUNNING, S.REMOVE, on="c"), node("c", NodeState.DOWN)
    )
    found = goal.assess(seen)
    assert found.status is Status.WAITING
    assert found.reason == "web: 1 task left; networks left: net; it waits for c, which cannot be reached"
    for obj in (*seen.tasks.values(), *seen.services.values(), network):
        seen.remove(obj)
    assert goal.assess(seen).status is Status.DONE


def test_drained() -> None:
    draining = replace(node("a", availability=Availability.DRAIN), meta=Meta("a", updated_at=5.0))
    goal = NodeDrained(draining)
    assert goal.assess(picture(SERVICE, ONE)).status is Status.WAITING  # an older record of the node
    assert goal.assess(picture(draining, SERVICE, ONE)).status is Status.WAITING
    assert goal.assess(picture(draining, SERVICE, task("t1", S.SHUTDOWN, S.SHUTDOWN), TWO)).status is Status.DONE
    active = replace(draining, spec=NodeSpec("a"), meta=Meta("a", updated_at=6.0))
    assert goal.assess(picture(active, SERVICE, ONE)).status is Status.FAILED
