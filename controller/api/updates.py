"""The part of the Control service that is about updates: pause, resume, promote, and a service's revisions."""

import time
from typing import Any, TypeAlias

import grpc

from argosy.controller.changes import refs, updates
from argosy.controller.changes.commit import change
from argosy.controller.changes.refs import project_of
from argosy.controller.store import Cache, Store
from argosy.core.codec import encode, encode_into
from argosy.core.service import Service
from argosy.proto.argosy.v1 import control_pb2 as pb
from argosy.proto.argosy.v1 import control_pb2_grpc as rpc
from argosy.proto.argosy.v1 import types_pb2 as tpb

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class UpdateHandlers(rpc.ControlServicer):
    """Handlers that `ControlServicer` inherits."""

    _store: Store
    _cache: Cache

    async def PauseUpdate(self, request: pb.PauseUpdateRequest, context: Context) -> tpb.Service:
        """Have an update go no further."""
        project = project_of(request.project)
        return self._told(
            await change(
                self._store,
                self._cache,
                lambda snap: updates.paused(refs.service(snap, project, request.ref), time.time()),
            )
        )

    async def ResumeUpdate(self, request: pb.ResumeUpdateRequest, context: Context) -> tpb.Service:
        """Have a paused update go on."""
        project = project_of(request.project)
        return self._told(
            await change(
                self._store,
                self._cache,
                lambda snap: updates.resumed(refs.service(snap, project, request.ref), time.time()),
            )
        )

    async def PromoteUpdate(self, request: pb.PromoteUpdateRequest, context: Context) -> tpb.Service:
        """Have an update go on from its canaries to the other tasks."""
        project = project_of(request.project)
        return self._told(
            await change(
                self._store,
                self._cache,
                lambda snap: updates.promoted(refs.service(snap, project, request.ref), request.force, time.time()),
            )
        )

    async def ListRevisions(self, request: pb.ListRevisionsRequest, context: Context) -> pb.ListRevisionsResponse:
        """Return the revisions that are kept of a service, the newest first."""
        snap = self._cache.snapshot
        service = refs.service(snap, project_of(request.project), request.ref)
        response = pb.ListRevisionsResponse()
        encode_into(service, response.service)
        for revision in sorted(snap.revisions_of_service(service.meta.id), key=lambda r: -r.number):
            encode_into(revision, response.revisions.add())
        return response

    def _told(self, service: Service) -> tpb.Service:
        return encode(self._cache.snapshot.get(Service, service.meta.id) or service, tpb.Service)
