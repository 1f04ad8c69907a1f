"""The part of the Control service that is about jobs: having one run now."""

import time
from typing import Any, TypeAlias

import grpc

from argosy.controller.changes import jobs, refs
from argosy.controller.changes.commit import change
from argosy.controller.changes.refs import project_of
from argosy.controller.store import Cache, Store
from argosy.core.codec import encode
from argosy.proto.argosy.v1 import control_pb2 as pb
from argosy.proto.argosy.v1 import control_pb2_grpc as rpc
from argosy.proto.argosy.v1 import types_pb2 as tpb

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class JobHandlers(rpc.ControlServicer):
    """Handlers that `ControlServicer` inherits."""

    _store: Store
    _cache: Cache

    async def RunJob(self, request: pb.RunJobRequest, context: Context) -> tpb.Service:
        """Begin another run of a job; the answer tells its number."""
        project = project_of(request.project)
        begun = await change(
            self._store, self._cache, lambda snap: jobs.run_begun(refs.service(snap, project, request.ref), time.time())
        )
        return encode(begun, tpb.Service)
