"""What `argosy service update` makes of its options: a changed spec, sent under the version it was made from."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import click

from argosy.cli.session import Session
from argosy.core.errors import InvalidError
from argosy.core.units import parse_bytes, parse_cpus, parse_duration
from argosy.proto.argosy.v1 import control_pb2 as pb
from argosy.proto.argosy.v1 import types_pb2 as types

_TRIES: Final = 5
"""The controller itself changes a service's record now and then; the options then apply to the newer one."""
_ORDERS: Final = {"stop-first": types.UPDATE_ORDER_STOP_FIRST, "start-first": types.UPDATE_ORDER_START_FIRST}
_ACTIONS: Final = {
    "pause": types.FAILURE_ACTION_PAUSE,
    "continue": types.FAILURE_ACTION_CONTINUE,
    "rollback": types.FAILURE_ACTION_ROLLBACK,
}


@dataclass(frozen=True, slots=True)
class Changes:
    """The options as they were given; None or empty: leave it as it is."""

    image: str | None = None
    replicas: int | None = None
    env_add: tuple[str, ...] = ()
    env_rm: tuple[str, ...] = ()
    label_add: tuple[str, ...] = ()
    label_rm: tuple[str, ...] = ()
    constraint_add: tuple[str, ...] = ()
    constraint_rm: tuple[str, ...] = ()
    limit_cpu: str | None = None
    limit_memory: str | None = None
    limit_pids: int | None = None
    reserve_cpu: str | None = None
    reserve_memory: str | None = None
    update_parallelism: int | None = None
    update_delay: str | None = None
    update_monitor: str | None = None
    update_order: str | None = None
    update_failure_action: str | None = None
    arguments: str | None = None
    force: bool = False


def update_service(session: Session, ref: str, changes: Changes) -> tuple[types.Service, bool]:
    """Apply the options to a service; return it, and whether its tasks are to be replaced."""
    import grpc

    control = session.control
    if changes == Changes():
        raise click.UsageError("nothing is to be changed: see 'argosy service update --help' for what can be")
    for left in reversed(range(_TRIES)):
        service = control.GetService(pb.GetServiceRequest(project=session.project, ref=ref))
        spec = types.ServiceSpec()
        spec.CopyFrom(service.spec)
        try:
            apply(changes, spec)
        except InvalidError as error:
            raise click.UsageError(str(error)) from None
        request = pb.UpdateServiceRequest(
            project=session.project, ref=service.meta.id, spec=spec, version=service.meta.version
        )
        try:
            changed = control.UpdateService(request)
        except grpc.RpcError as error:
            if left and isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.ABORTED:
                continue
            raise
        return changed, changed.revision != service.revision
    raise AssertionError("the last try returns or raises")


def apply(changes: Changes, spec: types.ServiceSpec) -> None:
    """Change a spec in place. Raises InvalidError or click.UsageError for an option that cannot be read."""
    container = spec.task.container
    if changes.image is not None:
        container.image = changes.image
        container.image_digest = ""
    if changes.replicas is not None:
        if spec.mode == types.SERVICE_MODE_GLOBAL:
            raise click.UsageError("a global service runs one task on every node: --replicas has no meaning")
        spec.replicas = changes.replicas
    if changes.arguments is not None:
        container.command[:] = shlex.split(changes.arguments)
        container.command_set = True
    container.env[:] = _with_variables(container.env, changes.env_add, changes.env_rm)
    for pair in changes.label_add:
        name, value = _split(pair, "--label-add")
        spec.labels[name] = value
    for name in changes.label_rm:
        spec.labels.pop(name, None)
    _constraints(changes, spec.task.placement)
    _amounts(changes, spec.task)
    _update_config(changes, spec.update)
    if changes.force:
        spec.task.force_update += 1


def _split(pair: str, option: str) -> tuple[str, str]:
    name, equals, value = pair.partition("=")
    if not name or not equals:
        raise click.UsageError(f"'{pair}' is not NAME=VALUE (for {option})")
    return name, value


def _with_variables(env: Iterable[str], added: Iterable[str], removed: Iterable[str]) -> list[str]:
    values = dict(entry.partition("=")[::2] for entry in env)
    for pair in added:
        name, value = _split(pair, "--env-add")
        values[name] = value
    for name in removed:
        if values.pop(name, None) is None:
            raise click.UsageError(f"the service has no variable '{name}' to remove")
    return [f"{name}={value}" for name, value in values.items()]


def _constraints(changes: Changes, placement: types.Placement) -> None:
    from argosy.core.constraints import parse_constraint

    def canonical(text: str) -> str:
        return str(parse_constraint(text))

    have = {canonical(text): text for text in placement.constraints}
    for text in changes.constraint_rm:
        if have.pop(canonical(text), None) is None:
            raise click.UsageError(f"the service has no constraint '{text}' to remove")
    for text in changes.constraint_add:
        have.setdefault(canonical(text), text)
    placement.constraints[:] = list(have.values())


def _amounts(changes: Changes, task: types.TaskSpec) -> None:
    if changes.limit_cpu is not None:
        task.limits.cpus = parse_cpus(changes.limit_cpu)
    if changes.limit_memory is not None:
        task.limits.memory_bytes = parse_bytes(changes.limit_memory)
    if changes.limit_pids is not None:
        task.limits.pids = changes.limit_pids
    if changes.reserve_cpu is not None:
        task.reservations.cpus = parse_cpus(changes.reserve_cpu)
    if changes.reserve_memory is not None:
        task.reservations.memory_bytes = parse_bytes(changes.reserve_memory)


def _update_config(changes: Changes, config: types.UpdateConfig) -> None:
    if changes.update_parallelism is not None:
        config.parallelism = changes.update_parallelism
    if changes.update_delay is not None:
        config.delay = parse_duration(changes.update_delay)
    if changes.update_monitor is not None:
        config.monitor = parse_duration(changes.update_monitor)
    if changes.update_order is not None:
        config.order = _ORDERS[changes.update_order]
    if changes.update_failure_action is not None:
        config.failure_action = _ACTIONS[changes.update_failure_action]
