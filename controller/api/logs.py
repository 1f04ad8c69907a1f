"""The Logs RPC: output of tasks, from the agents that have it, through tunnels which they open.

The leader holds the agents' sessions; any other controller passes the request on to it.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncGenerator
from typing import Final, TypeAlias

from argosy.controller.api.to_leader import leaders_control
from argosy.controller.changes import refs
from argosy.controller.changes.refs import project_of
from argosy.controller.cluster import ClusterView
from argosy.controller.session.dispatcher import DispatcherServicer, LogTunnels
from argosy.controller.session.term import Term
from argosy.controller.session.tunnels import Tunnel
from argosy.controller.store import Cache, Snapshot
from argosy.core.errors import InvalidError
from argosy.core.node import Node
from argosy.core.task import Task
from argosy.core.task_state import TaskState, is_terminal
from argosy.proto.argosy.v1 import control_pb2 as pb
from argosy.proto.argosy.v1 import dispatcher_pb2 as dpb

CONNECT_TIMEOUT_S = 5.0
"""How long an agent may take to open the tunnel that it was asked for."""
PATIENCE_S = 3.0
"""How long an agent may be away, as when a controller has just begun to lead, before a reader who follows is told."""
RETRY_S = 0.25
_READ_AHEAD: Final = 4
"""Messages of agents, of up to 256 KiB, that wait for whoever reads."""

Entries: TypeAlias = "asyncio.Queue[pb.LogEntry | None]"


class LogRelay:
    """Serves Logs requests of one controller."""

    def __init__(self, cache: Cache, view: ClusterView, dispatcher: DispatcherServicer, tunnels: LogTunnels) -> None:
        self._cache = cache
        self._view = view
        self.dispatcher = dispatcher
        self._tunnels = tunnels

    async def entries(self, request: pb.LogsRequest) -> AsyncGenerator[pb.LogEntry, None]:
        """Yield output, in order within a task."""
        if self.dispatcher.term is not None:
            async with contextlib.aclosing(self._from_agents(self.dispatcher.term, request)) as entries:
                async for entry in entries:
                    yield entry
            return
        async with leaders_control(self._view) as leader:
            async for entry in leader.Logs(request):
                yield entry

    async def _from_agents(self, term: Term, request: pb.LogsRequest) -> AsyncGenerator[pb.LogEntry, None]:
        project = project_of(request.project)
        selected = _Selection(self._cache.snapshot, project, request)
        entries: Entries = asyncio.Queue(_READ_AHEAD)
        work = asyncio.create_task(self._collect(term, request, selected, entries))
        try:
            while (entry := await entries.get()) is not None:
                yield entry
            await work  # which raises what it ended with
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def _collect(self, term: Term, request: pb.LogsRequest, selected: "_Selection", entries: Entries) -> None:
        """Put all entries into the queue, and None behind them; not when cancelled: then nobody makes room in it."""
        seen: set[str] = set()
        try:
            with self._cache.subscribe(coalesce=True) as changes:
                async with asyncio.TaskGroup() as group:
                    self._open_new(group, term, request, selected.tasks(self._cache.snapshot), seen, entries)
                    if request.follow and selected.may_grow:
                        async for batch in changes:
                            tasks = selected.tasks(batch.snapshot)
                            self._open_new(group, term, request, tasks, seen, entries)
        except asyncio.CancelledError:
            raise
        except BaseException:
            await entries.put(None)
            raise
        await entries.put(None)

    def _open_new(
        self,
        group: asyncio.TaskGroup,
        term: Term,
        request: pb.LogsRequest,
        tasks: list[Task],
        seen: set[str],
        entries: Entries,
    ) -> None:
        by_node: dict[str, list[Task]] = defaultdict(list)
        for task in tasks:
            if task.meta.id not in seen and task.status.state >= TaskState.ASSIGNED and task.node_id:
                seen.add(task.meta.id)
                by_node[task.node_id].append(task)
        for node_id, on_node in by_node.items():
            group.create_task(self._from_node(term, request, node_id, on_node, entries))

    async def _from_node(
        self,
        term: Term,
        request: pb.LogsRequest,
        node_id: str,
        tasks: list[Task],
        entries: Entries,
    ) -> None:
        """Put what a node says into the queue; followed, also when its agent is away for a while."""
        positions = dict(request.positions)
        broken_at: float | None = None
        told = False
        while True:
            before = dict(positions)
            problem = await self._read(term, request, node_id, tasks, positions, entries)
            if not problem:
                return
            if positions != before:
                broken_at, told = None, False
            now = asyncio.get_running_loop().time()
            broken_at = broken_at or now
            patient = request.follow and now - broken_at < PATIENCE_S
            if not patient and not told:
                told = True
                await _notice(tasks, problem, entries)
            if not request.follow or (not patient and self._have_ended(tasks)):
                return
            await asyncio.sleep(RETRY_S)

    async def _read(
        self,
        term: Term,
        request: pb.LogsRequest,
        node_id: str,
        tasks: list[Task],
        positions: dict[str, int],
        entries: Entries,
    ) -> str:
        """Read a node's tasks on from `positions`; return what keeps the rest from being read, "" if nothing."""
        session = term.sessions.get(node_id)
        if session is None:
            node = self._cache.snapshot.get(Node, node_id)
            return f"node {node.spec.name if node else node_id} is not connected: its output cannot be read now"
        tunnel = self._tunnels.expect()
        try:
            ids = [t.meta.id for t in tasks]
            ask = dpb.OpenTunnel(
                tunnel_id=tunnel.id,
                task_ids=ids,
                follow=request.follow,
                since=request.since,
                tail=request.tail if request.HasField("tail") else None,
                positions={task_id: positions[task_id] for task_id in ids if task_id in positions},
            )
            session.send(dpb.ControllerMessage(open_tunnel=ask))
            return await self._relay(tunnel, {t.meta.id: t for t in tasks}, positions, entries)
        finally:
            self._tunnels.close(tunnel)

    async def _relay(
        self,
        tunnel: Tunnel[dpb.LogTunnelMessage],
        tasks: dict[str, Task],
        positions: dict[str, int],
        entries: Entries,
    ) -> str:
        if not (await asyncio.wait({tunnel.opened}, timeout=CONNECT_TIMEOUT_S))[0]:
            return "the node did not answer: its output cannot be read now"
        async for message in tunnel.messages():
            task = tasks.get(message.task_id)
            if task is not None:
                await entries.put(_entry(task, message))
                if message.HasField("position"):
                    positions[task.meta.id] = message.position
        return "" if tunnel.complete else "the connection to its node broke: what follows is missing"

    def _have_ended(self, tasks: list[Task]) -> bool:
        found = (self._cache.snapshot.get(Task, task.meta.id) for task in tasks)
        return all(task is None or is_terminal(task.status.state) for task in found)


class _Selection:
    """Which tasks a request means; of a service, also those that come while it follows."""

    def __init__(self, snap: Snapshot, project: str, request: pb.LogsRequest) -> None:
        if bool(request.service) == bool(request.task):
            raise InvalidError("name either a service or a task")
        self._task_id = refs.task(snap, project, request.task).meta.id if request.task else ""
        self._service_id = refs.service(snap, project, request.service).meta.id if request.service else ""
        self.may_grow = bool(self._service_id)

    def tasks(self, snap: Snapshot) -> list[Task]:
        """Return the tasks of now, oldest first."""
        if self._task_id:
            task = snap.get(Task, self._task_id)
            return [task] if task else []
        return sorted(snap.tasks_of_service(self._service_id), key=lambda t: t.meta.created_at)


async def _notice(tasks: list[Task], text: str, entries: Entries) -> None:
    for task in tasks:
        entry = pb.LogEntry(
            task_id=task.meta.id, service_id=task.service_id, slot=task.slot, node_id=task.node_id, notice=text
        )
        await entries.put(entry)


def _entry(task: Task, message: dpb.LogTunnelMessage) -> pb.LogEntry:
    return pb.LogEntry(
        task_id=task.meta.id,
        service_id=task.service_id,
        slot=task.slot,
        node_id=task.node_id,
        notice=message.notice,
        output=message.output,
        position=message.position if message.HasField("position") else None,
        missing=message.missing,
    )
