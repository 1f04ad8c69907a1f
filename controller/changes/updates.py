"""What people say to an update that goes on: pause, resume, promote. Pure.

Each takes the service as it is and returns (operations, the service after it). What makes no sense in the update's
present state is refused with the way out; asking for what is so already changes nothing.
"""

from dataclasses import replace

from argosy.controller.logic.update import AT_REST, HELD, ROLLING_BACK
from argosy.controller.store import Op, update
from argosy.core.errors import PreconditionError
from argosy.core.service import PAUSED_BY_HAND, Service, UpdateState, UpdateStatus

_WORDS = {
    UpdateState.NONE: "there was none yet",
    UpdateState.COMPLETED: "the last one is complete",
    UpdateState.ROLLBACK_COMPLETED: "the last one was rolled back",
}


def paused(service: Service, now: float) -> tuple[list[Op], Service]:
    """Have the update go no further."""
    at = _going_on(service)
    if at.state in HELD:
        return [], service
    state = UpdateState.ROLLBACK_PAUSED if at.state in ROLLING_BACK else UpdateState.PAUSED
    return _changed(service, replace(at, state=state, message=PAUSED_BY_HAND), now)


def resumed(service: Service, now: float) -> tuple[list[Op], Service]:
    """Have a paused update go on where it was; what failed before is forgiven."""
    at = _going_on(service)
    if at.state not in HELD:
        return [], service
    state = UpdateState.ROLLBACK_STARTED if at.state in ROLLING_BACK else UpdateState.UPDATING
    return _changed(service, replace(at, state=state, message="", resumed_at=now), now)


def promoted(service: Service, force: bool, now: float) -> tuple[list[Op], Service]:
    """Have an update go on from its canaries to the other tasks; `force`: also if they have not done well (yet)."""
    name, at = service.spec.name, _going_on(service)
    if at.state in ROLLING_BACK:
        raise PreconditionError(f"service {name} is being rolled back: there is nothing to promote")
    if at.promoted or not service.spec.canary:
        raise PreconditionError(f"the update of service {name} has no canaries that wait to be promoted")
    if not at.ready and not force:
        raise PreconditionError(
            f"the canaries of service {name} have not done well{_because(at)}: wait for them, take them back with "
            f"`argosy service rollback {name}`, or promote them all the same with --force"
        )
    if at.state in HELD and not force:
        raise PreconditionError(f"the update of service {name} is paused: `argosy service resume {name}` first")
    status = replace(at, state=UpdateState.UPDATING, promoted=True, ready=False, message="", resumed_at=now)
    return _changed(service, status, now)


def refuse_to_repeat(service: Service) -> None:
    """Raise PreconditionError if an update is paused: the same spec once more changes nothing of that."""
    at, name = service.update, service.spec.name
    if at.state not in HELD:
        return
    is_rollback = at.state in ROLLING_BACK
    what, back = ("rollback", "") if is_rollback else ("update", f"`argosy service rollback {name}` takes it back, ")
    raise PreconditionError(
        f"the {what} of service {name} is paused{_because(at)}, and this changes nothing: "
        f"`argosy service resume {name}` goes on with it, {back}another spec replaces it"
    )


def _going_on(service: Service) -> UpdateStatus:
    name = service.spec.name
    if service.removing:
        raise PreconditionError(f"service {name} is being removed")
    if service.update.state in AT_REST:
        raise PreconditionError(f"no update of service {name} is going on: {_WORDS[service.update.state]}")
    return service.update


def _because(at: UpdateStatus) -> str:
    return f" ({at.message})" if at.message else ""


def _changed(service: Service, status: UpdateStatus, now: float) -> tuple[list[Op], Service]:
    changed = replace(service, update=status, meta=replace(service.meta, updated_at=now))
    return [update(changed)], changed
