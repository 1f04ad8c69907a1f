"""How many tasks of a service run, where, with how much, and how they are replaced: `deploy` and its older forms."""

from collections.abc import Callable
from typing import Final, TypeVar

from argosy.cli.compose.cursor import Cursor
from argosy.cli.compose.extension import progress_deadline
from argosy.cli.compose.jobs import JOBS
from argosy.core.node import Platform, Resources
from argosy.core.restart import idle_settings
from argosy.core.service import (
    EndpointMode,
    FailureAction,
    Placement,
    RestartCondition,
    RestartPolicy,
    ServiceMode,
    SpreadPreference,
    UpdateConfig,
    UpdateOrder,
)

T = TypeVar("T")

_MODES: Final = {"replicated": ServiceMode.REPLICATED, "global": ServiceMode.GLOBAL, **JOBS}
_CONDITIONS: Final = {
    "any": RestartCondition.ANY,
    "on-failure": RestartCondition.ON_FAILURE,
    "none": RestartCondition.NONE,
}
_RESTART: Final = {
    "no": RestartCondition.NONE,
    "always": RestartCondition.ANY,
    "unless-stopped": RestartCondition.ANY,
    "on-failure": RestartCondition.ON_FAILURE,
}
_ORDERS: Final = {"stop-first": UpdateOrder.STOP_FIRST, "start-first": UpdateOrder.START_FIRST}
_ACTIONS: Final = {
    "pause": FailureAction.PAUSE,
    "continue": FailureAction.CONTINUE,
    "rollback": FailureAction.ROLLBACK,
}
_ROLLBACK_ACTIONS: Final = {name: action for name, action in _ACTIONS.items() if name != "rollback"}
_DEFAULT_PERIOD_US: Final = 100_000
"""The kernel's period of CPU quotas when none is given (sched-bwc.rst)."""


def find(service: Cursor, *keys: str) -> Cursor | None:
    """Return what stands below nested keys; None when one is missing, or is no mapping (which is reported)."""
    at: Cursor | None = service
    for key in keys:
        if at is None or not at.mapping():
            return None
        at = at.get(key)
    return at


def _value(at: Cursor | None, key: str, read: Callable[[Cursor], T | None], default: T) -> T:
    found = at.get(key) if at is not None else None
    value = read(found) if found is not None else None
    return default if value is None else value


def service_mode(service: Cursor) -> tuple[ServiceMode, int | None]:
    """Return the mode and the number of replicas (of a job: of completions); None where it is not given."""
    mode_at = find(service, "deploy", "mode")
    mode = (mode_at.choice(_MODES) if mode_at is not None else None) or ServiceMode.REPLICATED
    replicas_at, scale_at = find(service, "deploy", "replicas"), service.get("scale")
    replicas = replicas_at.integer(least=0, most=1_000_000) if replicas_at is not None else None
    scale = scale_at.integer(least=0, most=1_000_000) if scale_at is not None else None
    if replicas is not None and scale is not None and replicas != scale and scale_at is not None:
        scale_at.problem(f"'scale' is {scale} and 'deploy.replicas' is {replicas}", "keep one of them")
    given = replicas_at if replicas_at is not None else scale_at
    if mode in (ServiceMode.GLOBAL, ServiceMode.GLOBAL_JOB):
        if given is not None:
            what = "runs one task on every node: it has no number of replicas"
            if mode is ServiceMode.GLOBAL_JOB:
                what = "completes once on every eligible node: it has no number of completions"
            given.problem(f"a {(mode_at.text() or '') if mode_at else ''} service {what}", "remove it, or the mode")
        return mode, None
    return mode, next((n for n in (replicas, scale) if n is not None), None)


def endpoint_mode(service: Cursor) -> EndpointMode:
    """Return what the service's name stands for."""
    at = find(service, "deploy", "endpoint_mode")
    given = at.choice({mode.name.lower(): mode for mode in EndpointMode}) if at is not None else None
    return EndpointMode.VIP if given is None else given


# ---------------------------------------------------------------- resources


def resources(service: Cursor) -> tuple[Resources, Resources]:
    """Return (limits, reservations), from `deploy.resources` and the older keys of the service itself."""
    limits = find(service, "deploy", "resources", "limits")
    reservations = find(service, "deploy", "resources", "reservations")
    limit_cpus = _agreed(_field(limits, "cpus", Cursor.cpus), _field(service, "cpus", Cursor.cpus), _quota(service))
    limit_memory = _agreed(_field(limits, "memory", Cursor.size), _field(service, "mem_limit", Cursor.size))
    limit_pids = _agreed(_field(limits, "pids", _pids), _field(service, "pids_limit", _pids))
    reserved_memory = _agreed(
        _field(reservations, "memory", Cursor.size), _field(service, "mem_reservation", Cursor.size)
    )
    return (
        Resources(limit_cpus or 0.0, limit_memory or 0, limit_pids or 0),
        Resources(_value(reservations, "cpus", Cursor.cpus, 0.0), reserved_memory or 0, 0),
    )


def _field(at: Cursor | None, key: str, read: Callable[[Cursor], T | None]) -> tuple[Cursor, T] | None:
    found = at.get(key) if at is not None else None
    value = read(found) if found is not None else None
    return None if found is None or value is None else (found, value)


def _agreed(*given: tuple[Cursor, T] | None) -> T | None:
    """Return the value that several keys for the same thing give; that they differ is a problem."""
    found = [one for one in given if one is not None]
    for at, value in found[1:]:
        if value != found[0][1]:
            at.problem(f"this differs from {found[0][0].path}, which means the same", "keep one of them")
    return found[0][1] if found else None


def _pids(at: Cursor) -> int | None:
    value = at.integer(least=-1)
    return 0 if value == -1 else value


def _quota(service: Cursor) -> tuple[Cursor, float] | None:
    """Return the CPUs of cpu_quota in cpu_period, both in microseconds or as durations."""
    quota = _field(service, "cpu_quota", _microseconds)
    period = _field(service, "cpu_period", _microseconds)
    if quota is None or quota[1] <= 0:
        return None
    return quota[0], round(quota[1] / (period[1] if period is not None and period[1] > 0 else _DEFAULT_PERIOD_US), 6)


def _microseconds(at: Cursor) -> float | None:
    if at.is_text and (at.text() or "").lstrip("-").isdecimal():
        return float(at.text() or 0)
    seconds = at.duration()
    return None if seconds is None else seconds * 1e6


# ---------------------------------------------------------------- restarts and updates


def restart_policy(service: Cursor, condition: RestartCondition = RestartCondition.ANY) -> RestartPolicy:
    """Return the policy of `deploy.restart_policy`, else that of `restart`; `condition` is the one not given."""
    policy, older = find(service, "deploy", "restart_policy"), service.get("restart")
    default = RestartPolicy(condition=condition)
    if policy is None:
        return _older_restart(older) if older is not None else default
    if older is not None:
        older.notice("'deploy.restart_policy' is used instead of it")
    policy.mapping()
    found = RestartPolicy(
        condition=_value(policy, "condition", lambda at: at.choice(_CONDITIONS), default.condition),
        delay=_value(policy, "delay", Cursor.duration, default.delay),
        max_attempts=_value(policy, "max_attempts", lambda at: at.integer(least=0), default.max_attempts),
        window=_value(policy, "window", Cursor.duration, default.window),
    )
    for name, (why, instead) in idle_settings(found).items():
        setting = policy.get(name)
        if setting is not None:
            setting.notice(why, instead)
    return found


def _older_restart(at: Cursor) -> RestartPolicy:
    text = at.text() or ""
    word, colon, count = text.partition(":")
    condition = _RESTART.get(word.lower() if word.lower() in ("no", "false") else word)
    if word.lower() == "false":
        condition = RestartCondition.NONE
    if condition is None or (colon and (word != "on-failure" or not count.isdecimal())):
        at.problem(f"'{text}' is no restart policy", "write no, always, on-failure[:TIMES] or unless-stopped")
        return RestartPolicy()
    return RestartPolicy(condition=condition, max_attempts=int(count) if count else 0)


def update_config(service: Cursor, which: str) -> UpdateConfig:
    """Return `deploy.update_config` or `deploy.rollback_config`."""
    at = find(service, "deploy", which)
    default = UpdateConfig(progress_deadline=progress_deadline(service))
    if at is None or not at.mapping():
        return default
    actions = _ACTIONS if which == "update_config" else _ROLLBACK_ACTIONS
    return UpdateConfig(
        parallelism=_value(at, "parallelism", lambda c: c.integer(least=0), default.parallelism),
        delay=_value(at, "delay", Cursor.duration, default.delay),
        failure_action=_value(at, "failure_action", lambda c: c.choice(actions), default.failure_action),
        monitor=_value(at, "monitor", Cursor.duration, default.monitor),
        max_failure_ratio=_value(at, "max_failure_ratio", lambda c: c.number(least=0), default.max_failure_ratio),
        order=_value(at, "order", lambda c: c.choice(_ORDERS), default.order),
        progress_deadline=default.progress_deadline,
    )


# ---------------------------------------------------------------- placement


def placement(service: Cursor) -> Placement:
    """Return `deploy.placement` and `platform`."""
    at = find(service, "deploy", "placement")
    constraints = at.get("constraints") if at is not None and at.mapping() else None
    platform = service.get("platform")
    return Placement(
        constraints=constraints.texts() if constraints is not None else (),
        preferences=tuple(_preferences(at.get("preferences"))) if at is not None else (),
        max_replicas_per_node=_value(at, "max_replicas_per_node", lambda c: c.integer(least=0), 0),
        platforms=_platforms(platform) if platform is not None else (),
    )


def _preferences(at: Cursor | None) -> list[SpreadPreference]:
    found = []
    for item in at.items() if at is not None else ():
        if not item.mapping():
            continue
        spread = item.get("spread")
        text = spread.text() if spread is not None else None
        if text is None:
            item.problem("a preference is 'spread: node.labels.KEY'")
        else:
            found.append(SpreadPreference(text))
    return found


def _platforms(at: Cursor) -> tuple[Platform, ...]:
    from argosy.core.constraints import architecture_name

    text = at.text() or ""
    system, slash, rest = text.partition("/")
    architecture = rest.partition("/")[0]
    if not slash or not system or not architecture:
        at.problem(f"'{text}' is no platform", "write OS/ARCHITECTURE, like linux/amd64")
        return ()
    return (Platform(system.lower(), architecture_name(architecture)),)
