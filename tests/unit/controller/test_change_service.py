"""What a change of a spec means for a service and its revisions."""

from dataclasses import replace

import pytest

from argosy.controller.logic.change_service import REVISIONS_KEPT, create, roll_back, update
from argosy.core.errors import PreconditionError
from argosy.core.service import (
    ROLLED_BACK_BY_HAND,
    ContainerSpec,
    EndpointSpec,
    HostPort,
    PortSpec,
    ServiceSpec,
    TaskSpec,
    UpdateState,
    UpdateStatus,
)
from argosy.core.validate import validate_service

NOW = 1000.0
COMPLETED = UpdateStatus(UpdateState.COMPLETED)
BACK = UpdateStatus(UpdateState.ROLLBACK_STARTED, started_at=NOW)


def spec(image, replicas=1):
    return ServiceSpec(name="web", replicas=replicas, task=TaskSpec(container=ContainerSpec(image=image)))


def history(*images):
    change = create("s1", "default", spec(images[0]), NOW)
    service, revisions = change.service, [change.revision]
    for image in images[1:]:
        service = replace(service, update=COMPLETED)
        change = update(service, spec(image), revisions, frozenset(), NOW)
        service = change.service
        revisions = [r for r in revisions if r not in change.outdated] + [change.revision]
    return service, revisions


def test_scaling_makes_no_revision_and_no_update():
    service, revisions = history("a:1")
    change = update(service, spec("a:1", replicas=9), revisions, frozenset(), NOW)
    assert change.revision is None
    assert (change.service.revision, change.service.update, change.service.spec.replicas) == (1, service.update, 9)


def test_another_image_makes_both():
    service, revisions = history("a:1")
    change = update(service, spec("a:2"), revisions, frozenset(), NOW)
    assert (change.service.revision, change.service.previous_revision) == (2, 1)
    assert change.service.update.state is UpdateState.UPDATING
    assert change.revision.spec.task.container.image == "a:2"


def test_the_last_revisions_are_kept_and_those_in_use():
    images = [f"a:{n}" for n in range(1, REVISIONS_KEPT + 1)]
    service, revisions = history(*images)
    assert len(revisions) == REVISIONS_KEPT
    change = update(service, spec("a:99"), revisions, frozenset({1}), NOW)
    assert [r.number for r in change.outdated] == [2]


def test_a_rollback_is_a_new_revision_of_the_old_tasks_and_keeps_the_scale():
    service, revisions = history("a:1", "a:2")
    service = replace(service, spec=replace(service.spec, replicas=7))
    change = roll_back(service, 0, BACK, revisions, frozenset(), NOW)
    assert (change.service.revision, change.service.previous_revision) == (3, 2)
    assert change.service.spec.task.container.image == "a:1"
    assert change.service.spec.replicas == 7
    assert change.service.update == BACK


def test_a_rollback_to_ports_of_tasks_takes_them_from_those_of_every_node():
    """As far as they cannot stand side by side: both would be refused in a spec."""
    own = (HostPort("tcp", 8080, 80), HostPort("tcp", 8081, 81, host_ip="192.0.2.7"), HostPort("tcp", 0, 9))
    service, revisions = history("a:1")
    in_host_mode = replace(service.spec.task, host_ports=own)
    change = update(service, replace(service.spec, task=in_host_mode), revisions, frozenset(), NOW)
    revisions = [*revisions, change.revision]
    everywhere = tuple(PortSpec("", "tcp", 80, n) for n in (8080, 8081, 8082, 0))
    there = (PortSpec("", "udp", 80, 8080), PortSpec("", "tcp", 80, 8081, host_ip="192.0.2.8"))
    wanted = replace(service.spec, endpoint=EndpointSpec(ports=(*everywhere, *there)))
    change = update(change.service, wanted, revisions, frozenset(), NOW)
    back = roll_back(change.service, 2, BACK, [*revisions, change.revision], frozenset(), NOW).service.spec
    assert back.task.host_ports == own
    assert back.endpoint.ports == (*everywhere[2:], *there)
    assert not [p for p in validate_service(back) if "port" in p.what]


@pytest.mark.parametrize("state", [UpdateState.UPDATING, UpdateState.PAUSED])
def test_a_rollback_skips_what_never_came_through_and_that_is_kept_for_it(state):
    service, revisions = history("a:1", "a:2")
    for number in range(3, REVISIONS_KEPT + 5):
        service = replace(service, update=UpdateStatus(COMPLETED.state if number == 3 else state))
        change = update(service, spec(f"a:{number}"), revisions, frozenset(), NOW)
        service = change.service
        revisions = [r for r in revisions if r not in change.outdated] + [change.revision]
    assert service.previous_revision == 2
    assert roll_back(service, 0, BACK, revisions, frozenset(), NOW).service.spec.task.container.image == "a:2"


def test_an_update_after_a_rollback_that_goes_on_returns_to_that():
    service, revisions = history("a:1", "a:2")
    change = roll_back(service, 0, BACK, revisions, frozenset(), NOW)
    again = update(change.service, spec("a:3"), [*revisions, change.revision], frozenset(), NOW)
    assert (again.service.revision, again.service.previous_revision) == (4, 3)


def test_a_revision_knows_the_one_before_it_that_came_through_and_a_rollback_what_its_target_knew():
    service, revisions = history("a:1", "a:2", "a:3")
    assert [r.previous for r in revisions] == [0, 1, 2]
    failed = replace(service, update=UpdateStatus(UpdateState.PAUSED))
    assert update(failed, spec("a:4"), revisions, frozenset(), NOW).revision.previous == 2
    assert roll_back(failed, 2, BACK, revisions, frozenset(), NOW).revision.previous == 1


def test_an_update_that_a_late_slot_began_speaks_not_for_its_revision():
    service, revisions = history("a:1", "a:2")
    late = replace(service, update=UpdateStatus(UpdateState.UPDATING, started_at=NOW + 60))
    assert update(late, spec("a:3"), revisions, frozenset(), NOW + 90).service.previous_revision == 2


def test_what_failed_and_was_rolled_back_comes_again_only_by_its_number():
    service, revisions = history("a:1", "a:2", "a:1")
    failed = replace(service, update=replace(BACK, message="the only replica failed"))
    with pytest.raises(PreconditionError, match="already been rolled back, from revision 2: --to 2 tries that again"):
        roll_back(failed, 0, BACK, revisions, frozenset(), NOW)
    assert roll_back(failed, 2, BACK, revisions, frozenset(), NOW).service.spec.task.container.image == "a:2"
    by_hand = replace(service, update=replace(BACK, message=ROLLED_BACK_BY_HAND))
    assert roll_back(by_hand, 0, BACK, revisions, frozenset(), NOW).service.spec.task.container.image == "a:2"


def test_a_rollback_past_the_history_says_what_there_is():
    service, revisions = history("a:1", "a:2")
    with pytest.raises(PreconditionError, match="no revision 9 any more: it has 1, 2"):
        roll_back(service, 9, BACK, revisions, frozenset(), NOW)
    fresh, first = history("a:1")
    with pytest.raises(PreconditionError, match="no earlier revision"):
        roll_back(fresh, 0, BACK, first, frozenset(), NOW)
