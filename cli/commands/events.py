"""`argosy events`: what changes in the cluster, as it happens."""

import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from argosy.cli.output import format_option, notice, say
from argosy.cli.session import Session, pass_session

if TYPE_CHECKING:
    from argosy.proto.argosy.v1 import control_pb2 as pb

_KINDS = ("node", "service", "task", "network", "image", "config", "secret")
_RECONNECT_S = 0.5


@click.command(name="events", help="Show what changes in the cluster, as it happens; Ctrl-C ends it.")
@click.option("--kind", "kinds", multiple=True, type=click.Choice(_KINDS), help="Only changes of these kinds.")
@click.option("--existing", is_flag=True, help="First show what is there.")
@format_option
@pass_session
def command(session: Session, kinds: tuple[str, ...], existing: bool, form: str) -> None:
    from argosy.cli.messages import plain

    known: dict[str, Any] = {}
    for change, quiet in _changes(session, kinds or _KINDS, existing):
        kind = change.WhichOneof("object")
        if kind is None:
            continue
        obj = getattr(change, kind)
        before = known.get(obj.meta.id)
        if change.removed:
            known.pop(obj.meta.id, None)
        else:
            known[obj.meta.id] = obj
        if quiet:
            continue
        what = "removed" if change.removed else "created" if before is None else "changed"
        if form == "json":
            say(json.dumps({"time": time.time(), "kind": kind, "change": what, "object": plain(obj)}))
        else:
            text = _describe(kind, obj, before, known)
            if text or what != "changed":
                say(f"{time.strftime('%H:%M:%S')} {kind:8} {_name(kind, obj, known)} {text or what}")
        _flush()


def _flush() -> None:
    import sys

    sys.stdout.flush()


def _changes(session: Session, kinds: tuple[str, ...], existing: bool) -> Iterator[tuple["pb.Change", bool]]:
    """Yield changes for ever, each with whether it only tells what was there before."""
    import grpc

    from argosy.proto.argosy.v1 import control_pb2 as pb

    wanted = [pb.Kind.Value(f"KIND_{kind.upper()}") for kind in kinds]
    version, synced, told = 0, False, False
    while True:
        request = pb.WatchRequest(project=session.project, kinds=wanted, after_version=version)
        try:
            for response in session.control.Watch(request):
                for change in response.changes:
                    yield change, not synced and not existing
                synced = synced or response.synced
                version = response.version or version
                told = False
        except grpc.RpcError as error:
            if not isinstance(error, grpc.Call) or not synced:
                raise
            if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
                version = 0
            elif error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            if not told:
                notice("the connection was lost; trying again")
                told = True
        time.sleep(_RECONNECT_S)


def _name(kind: str, obj: Any, known: dict[str, Any]) -> str:
    if kind == "task":
        service = known.get(obj.service_id)
        return f"{service.spec.name if service is not None else obj.service_id}.{obj.slot or obj.node_id}"
    if kind == "image":
        return str(obj.name or obj.digest)
    if kind in ("config", "secret"):
        return str(obj.name)
    return str(obj.spec.name or obj.meta.id)


def _describe(kind: str, obj: Any, before: Any, known: dict[str, Any]) -> str:
    """Return what of an object changed, in words; "" when it is nothing that a person looks for."""
    from argosy.cli.rows import node_name, state_name, update_state
    from argosy.proto.argosy.v1 import types_pb2 as types

    if kind == "task":
        if before is not None and before.status.state == obj.status.state and before.status.reason == obj.status.reason:
            return ""
        node = known.get(obj.node_id)
        where = f" on {node_name(node) if node is not None else obj.node_id}" if obj.node_id else ""
        old = f"{state_name(before.status.state)} -> " if before is not None else ""
        reason = f": {obj.status.reason}" if obj.status.reason else ""
        return f"{old}{state_name(obj.status.state)}{where}{reason}"
    if kind == "node":
        state = types.NodeState.Name(obj.status.state).removeprefix("NODE_STATE_")
        availability = types.Availability.Name(obj.spec.availability).removeprefix("AVAILABILITY_")
        same = before is not None and (before.status, before.spec) == (obj.status, obj.spec)
        return "" if same else f"{state} {availability}" + (f": {obj.status.message}" if obj.status.message else "")
    if kind in ("config", "secret"):
        return "being removed" if obj.removing else f"version {obj.number}"
    if kind == "service":
        if before is None:
            return ""
        if before.spec.replicas != obj.spec.replicas:
            return f"scaled to {obj.spec.replicas}"
        if obj.removing:
            return "being removed"
        if before.revision != obj.revision:
            return f"revision {obj.revision}"
        if before.update != obj.update:
            return update_state(obj) + (f": {obj.update.message}" if obj.update.message else "")
    return ""
