"""What `argosy service update` makes of its options: a changed spec, sent under the version it was made from."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import click

from argosy.cli.commands.file_options import add_files, remove_files
from argosy.cli.commands.network_option import change_networks
from argosy.cli.commands.port_options import publish_ports, unpublish_ports
from argosy.cli.commands.service_options import apply_options, pair, refuse_idle_check, split
from argosy.cli.planning import NO_PLANNING, Planning
from argosy.cli.rows import mode_name
from argosy.cli.session import Session
from argosy.core.errors import InvalidError
from argosy.proto.argosy.v1 import control_pb2 as pb
from argosy.proto.argosy.v1 import types_pb2 as types

_REPLICATED: Final = (types.SERVICE_MODE_REPLICATED, types.SERVICE_MODE_REPLICATED_JOB)
_TRIES: Final = 5
"""The controller itself changes a service's record now and then; the change then applies to the newer one."""


def update_service(
    session: Session, ref: str, options: Mapping[str, Any], planning: Planning
) -> tuple[types.Service, bool]:
    """Apply the options to a service; return it, and whether its tasks are to be replaced."""
    switches = ("force", "no_healthcheck", "no_readiness")
    if all(value in (None, ()) or (name in switches and not value) for name, value in options.items()):
        raise click.UsageError("nothing is to be changed: see 'argosy service update --help' for what can be")

    def change(service: types.Service) -> None:
        change_networks(session, service.spec, options["network_add"], options["network_rm"])
        apply(options, service)
        refuse_idle_check(session, options, service.spec)

    return change_service(session, ref, change, planning)


def change_service(
    session: Session, ref: str, change: Callable[[types.Service], None], planning: Planning = NO_PLANNING
) -> tuple[types.Service, bool]:
    """Change a service's spec and send it; return the service, and whether its tasks are to be replaced.

    `change` gets a copy of the service and changes the spec there in place.
    """
    import grpc

    control = session.control
    for left in reversed(range(_TRIES)):
        service = control.GetService(pb.GetServiceRequest(project=session.project, ref=ref))
        wanted = types.Service()
        wanted.CopyFrom(service)
        try:
            change(wanted)
        except InvalidError as error:
            raise click.UsageError(str(error)) from None
        request = pb.UpdateServiceRequest(
            project=session.project, ref=service.meta.id, spec=wanted.spec, version=service.meta.version
        )
        planning.before(session, "update_service", request)
        try:
            changed = control.UpdateService(request)
        except grpc.RpcError as error:
            if left and isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.ABORTED:
                continue
            raise
        return changed, changed.revision != service.revision
    raise AssertionError("the last try returns or raises")


def apply(options: Mapping[str, Any], service: types.Service) -> None:
    """Change a service's spec in place. Raises InvalidError or click.UsageError for an option that cannot be read."""
    spec = service.spec
    container = spec.task.container
    if options["image"] is not None:
        container.image = options["image"]
        container.image_digest = ""
    if options["replicas"] is not None and spec.mode not in _REPLICATED:
        raise click.UsageError(f"only replicated services and jobs have replicas, and this one is {mode_name(spec)}")
    if options["arguments"] is not None:
        container.command[:] = split(options["arguments"], "--args")
        container.command_set = True
    container.env[:] = _with_variables(container.env, options["env_add"], options["env_rm"])
    for text in options["label_add"]:
        name, value = pair(text, "--label-add")
        spec.labels[name] = value
    for name in options["label_rm"]:
        spec.labels.pop(name, None)
    for secret, kind in ((False, "config"), (True, "secret")):
        remove_files(container, options[f"{kind}_rm"], secret=secret)
        add_files(container, options[f"{kind}_add"], secret=secret)
    unpublish_ports(service, options["publish_rm"])
    publish_ports(spec, options["publish_add"], option="--publish-add")
    _constraints(spec.task.placement, options["constraint_add"], options["constraint_rm"])
    apply_options(options, spec)
    if options["replicas"] is not None and spec.mode == types.SERVICE_MODE_REPLICATED_JOB:
        spec.job.total_completions, spec.replicas = options["replicas"], 1
    if options["force"]:
        spec.task.force_update += 1


def _with_variables(env: Iterable[str], added: Iterable[str], removed: Iterable[str]) -> list[str]:
    values = dict(entry.partition("=")[::2] for entry in env)
    for text in added:
        name, value = pair(text, "--env-add")
        values[name] = value
    for name in removed:
        if values.pop(name, None) is None:
            raise click.UsageError(f"the service has no variable '{name}' to remove")
    return [f"{name}={value}" for name, value in values.items()]


def _constraints(placement: types.Placement, added: Iterable[str], removed: Iterable[str]) -> None:
    from argosy.core.constraints import parse_constraint

    def canonical(text: str) -> str:
        return str(parse_constraint(text))

    have = {canonical(text): text for text in placement.constraints}
    for text in removed:
        if have.pop(canonical(text), None) is None:
            raise click.UsageError(f"the service has no constraint '{text}' to remove")
    for text in added:
        have.setdefault(canonical(text), text)
    placement.constraints[:] = list(have.values())
