"""The Watch RPC: the cache's change batches as messages, one a store version."""

from collections.abc import AsyncGenerator

from argosy.controller.changes.refs import project_of
from argosy.controller.store import Cache, Change
from argosy.core.codec import encode_into
from argosy.core.errors import InvalidError, PreconditionError
from argosy.core.kinds import BY_TYPE, KINDS, StoredObject
from argosy.proto.argosy.v1 import control_pb2 as pb

_NUMBERS = dict(pb.Kind.items())
NAMES = {_NUMBERS[n]: k.name for k in KINDS if (n := f"KIND_{k.name.upper()}") in _NUMBERS}
"""The kinds' names by their numbers in requests. What configs and secrets hold has none: nobody watches that."""


async def watch(cache: Cache, request: pb.WatchRequest) -> AsyncGenerator[pb.WatchResponse, None]:
    """Yield what exists (unless resumed), then every change of the wanted kinds in the caller's project."""
    unknown = [k for k in request.kinds if k not in NAMES]
    if unknown:
        raise InvalidError(f"this controller knows no kind {unknown[0]}")
    wanted = {NAMES[k] for k in request.kinds} or set(NAMES.values())
    project = project_of(request.project)
    with cache.subscribe(after=request.after_version or None) as changes:
        if not request.after_version:
            yield _existing(cache, wanted, project, only_changes=request.only_changes)
        async for batch in changes:
            if batch.resync:
                raise PreconditionError("this watch was too slow and has missed changes: list again and watch anew")
            response = pb.WatchResponse(version=batch.revision)
            for change in batch.changes:
                _add(response, change, wanted, project)
            if response.changes:
                yield response


def _existing(cache: Cache, wanted: set[str], project: str, *, only_changes: bool) -> pb.WatchResponse:
    snap = cache.snapshot
    response = pb.WatchResponse(version=snap.revision, synced=True)
    if not only_changes:
        for kind in KINDS:
            if kind.name in wanted:
                for obj in snap.all(kind.domain):
                    if obj.meta.project in ("", project):
                        encode_into(obj, getattr(response.changes.add(), kind.name))
    return response


def _add(response: pb.WatchResponse, change: Change, wanted: set[str], project: str) -> None:
    obj: StoredObject | None = change.new or change.old
    assert obj is not None
    kind = BY_TYPE[type(obj)].name
    if kind in wanted and obj.meta.project in ("", project):
        message = response.changes.add(removed=change.new is None)
        encode_into(obj, getattr(message, kind))
