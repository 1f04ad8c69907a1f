"""What people say to an update: pause, resume, promote; and what makes no sense is refused with the way out."""

from dataclasses import replace

import pytest

from argosy.controller.changes.updates import paused, promoted, refuse_to_repeat, resumed
from argosy.core.errors import PreconditionError
from argosy.core.meta import Meta
from argosy.core.service import Service, ServiceSpec, UpdateState, UpdateStatus

S = UpdateState
NOW = 2000.0


def service(state, *, canary=0, **update):
    meta = Meta("s1", "default", version=7)
    status = UpdateStatus(state, started_at=1000.0, **update)
    return Service(meta=meta, spec=ServiceSpec(name="web", canary=canary), revision=2, update=status)


@pytest.mark.parametrize(
    ("before", "after"), [(S.UPDATING, S.PAUSED), (S.ROLLBACK_STARTED, S.ROLLBACK_PAUSED), (S.PAUSED, S.PAUSED)]
)
def test_paused(before, after):
    ops, changed = paused(service(before), NOW)
    assert (changed.update.state, changed.update.started_at, len(ops)) == (after, 1000.0, before is not after)


@pytest.mark.parametrize(
    ("before", "after"), [(S.PAUSED, S.UPDATING), (S.ROLLBACK_PAUSED, S.ROLLBACK_STARTED), (S.UPDATING, S.UPDATING)]
)
def test_resumed(before, after):
    ops, changed = resumed(service(before, message="it failed"), NOW)
    assert (changed.update.state, len(ops)) == (after, before is not after)
    if ops:
        assert (changed.update.resumed_at, changed.update.message) == (NOW, "")


@pytest.mark.parametrize("act", [paused, resumed, lambda s, now: promoted(s, False, now)])
@pytest.mark.parametrize(
    ("state", "said"), [(S.NONE, "none yet"), (S.COMPLETED, "is complete"), (S.ROLLBACK_COMPLETED, "rolled back")]
)
def test_where_no_update_goes_on_there_is_nothing_to_say_to_it(act, state, said):
    with pytest.raises(PreconditionError, match=f"no update of service web is going on: .*{said}"):
        act(service(state), NOW)


def test_a_service_that_is_being_removed_is_left_alone():
    with pytest.raises(PreconditionError, match="being removed"):
        paused(replace(service(S.UPDATING), removing=True), NOW)


def test_promoted():
    _, changed = promoted(service(S.UPDATING, canary=1, ready=True, message="1 canary did well"), False, NOW)
    assert changed.update == UpdateStatus(S.UPDATING, 1000.0, promoted=True, resumed_at=NOW)


@pytest.mark.parametrize(
    ("before", "said"),
    [
        (service(S.UPDATING), "no canaries that wait"),
        (service(S.UPDATING, canary=1, promoted=True), "no canaries that wait"),
        (service(S.ROLLBACK_STARTED, canary=1), "being rolled back"),
        (service(S.UPDATING, canary=1, message="trying 1 canary"), r"not done well \(trying 1 canary\).*--force"),
        (service(S.PAUSED, canary=1, ready=True), "`argosy service resume web` first"),
    ],
)
def test_what_cannot_be_promoted(before, said):
    with pytest.raises(PreconditionError, match=said):
        promoted(before, False, NOW)


def test_canaries_that_fail_are_promoted_only_by_force():
    before = service(S.PAUSED, canary=1, message="1 of 1 canary failed")
    _, changed = promoted(before, True, NOW)
    assert (changed.update.state, changed.update.promoted) == (S.UPDATING, True)


def test_the_same_spec_again_is_refused_while_its_update_is_paused():
    with pytest.raises(PreconditionError, match=r"is paused .it failed.*service resume web.*service rollback web"):
        refuse_to_repeat(service(S.PAUSED, message="it failed"))
    refuse_to_repeat(service(S.UPDATING))
