"""The Attach RPC: somebody's keyboard and screen, and a program on a node, joined through a tunnel the agent opens.

The leader holds the agents' sessions; any other controller passes the stream on to it. The stream is the program's
life: when it breaks off on either side the agent ends the program, and its service is removed here, since whoever
would have done it may be what has gone.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, TypeAlias

import grpc

from argosy.controller.api.to_leader import leaders_control
from argosy.controller.changes import refs, services
from argosy.controller.changes.commit import change
from argosy.controller.changes.refs import project_of
from argosy.controller.cluster import ClusterView
from argosy.controller.session.dispatcher import DispatcherServicer
from argosy.controller.session.term import Term
from argosy.controller.session.tunnels import Tunnel
from argosy.controller.store import Cache, Op, Snapshot, Store
from argosy.core.errors import InvalidError, PreconditionError, TransientError
from argosy.core.node import Node
from argosy.core.service import Service
from argosy.core.task import Task
from argosy.proto.argosy.v1 import control_pb2 as pb
from argosy.proto.argosy.v1 import control_pb2_grpc as rpc
from argosy.proto.argosy.v1 import dispatcher_pb2 as dpb

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Requests: TypeAlias = AsyncIterator[pb.AttachRequest]
Console: TypeAlias = Tunnel[dpb.ConsoleOutput]

CONNECT_TIMEOUT_S = 5.0
"""How long an agent may take to open the tunnel that it was asked for."""


class AttachHandlers(rpc.ControlServicer):
    """Handlers that `ControlServicer` inherits."""

    _store: Store
    _cache: Cache
    _view: ClusterView
    _dispatcher: DispatcherServicer

    async def Attach(self, request_iterator: Requests, context: Context) -> AsyncGenerator[pb.AttachResponse, None]:
        """Carry a program's input and output."""
        term = self._dispatcher.term
        if term is not None:
            async with contextlib.aclosing(self._attach(term, request_iterator)) as responses:
                async for response in responses:
                    yield response
            return
        async with leaders_control(self._view) as leader:
            async for response in leader.Attach(request_iterator):
                yield response

    async def _attach(self, term: Term, requests: Requests) -> AsyncGenerator[pb.AttachResponse, None]:
        first = await anext(aiter(requests), None)
        if first is None:
            raise InvalidError("an attachment begins with a task")
        task = refs.task(self._cache.snapshot, project_of(first.project), first.task)
        consoles = self._dispatcher.consoles
        console, feeding, opened = consoles.expect(), None, False
        try:
            await self._open(term, task, console)
            opened = True
            feeding = asyncio.create_task(_feed(first, requests, console))
            async for message in console.messages():
                yield pb.AttachResponse(output=message.data)
            if not console.complete:
                raise TransientError(f"the connection to node {self._node_name(task)} broke")
        finally:
            consoles.close(console)
            if feeding is not None:
                feeding.cancel()
            if opened and not console.complete:
                # To its end: gRPC may cancel a handler a second time.
                await asyncio.shield(asyncio.ensure_future(self._remove(task.service_id)))

    def _node_name(self, task: Task) -> str:
        node = self._cache.snapshot.get(Node, task.node_id)
        return node.spec.name if node else task.node_id

    async def _open(self, term: Term, task: Task, console: Console) -> None:
        session = term.sessions.get(task.node_id)
        if session is None:
            raise TransientError(f"node {self._node_name(task)} is not connected")
        ask = dpb.OpenConsole(tunnel_id=console.id, task_id=task.meta.id)
        session.send(dpb.ControllerMessage(open_console=ask))
        if not (await asyncio.wait({console.opened}, timeout=CONNECT_TIMEOUT_S))[0]:
            raise TransientError(f"node {self._node_name(task)} did not answer")
        if console.first.problem:
            raise PreconditionError(f"task {task.meta.id}: {console.first.problem}")

    async def _remove(self, service_id: str) -> None:
        def removed(snap: Snapshot) -> tuple[list[Op], None]:
            service = snap.get(Service, service_id)
            return (services.removed(service, time.time())[0] if service else []), None

        await change(self._store, self._cache, removed)


async def _feed(first: pb.AttachRequest, requests: Requests, console: Console) -> None:
    if first.HasField("input"):
        await console.send(first.input)
    async for request in requests:
        await console.send(request.input)
