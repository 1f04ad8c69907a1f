"""Keeps the network plane as the assignments say, and attaches tasks once it is.

Applying a state is level-triggered and coalesced: while one is being applied, only the newest of those that come is
kept. A task is attached after the state that has its networks was applied.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace

import structlog

from argosy.agent.logic.assignments import Assignments
from argosy.agent.logic.network_mesh import others
from argosy.agent.network.desired import LocalTask, NetworkState
from argosy.agent.network.plane import NetworkPlane
from argosy.agent.session.backoff import Backoff
from argosy.core.assignment import (
    EndpointAssignment,
    MeshAssignment,
    MeshPeerAssignment,
    NamesAssignment,
    NetworkAssignment,
    PeerAssignment,
    PublishedAssignment,
    TaskAssignment,
)
from argosy.core.errors import PreconditionError, RejectedError, TransientError
from argosy.core.network import Attachment
from argosy.core.ports import plain_host_ip
from argosy.core.task_state import TaskState

log = structlog.get_logger(__name__)


class Wiring:
    """One for an agent. `run` applies; the others may be called at any time from the same loop."""

    def __init__(self, plane: NetworkPlane, node_id: str, no_tunnels: str = "") -> None:
        """`no_tunnels`: why this host can make none for encrypted networks; "" when it can."""
        self._plane = plane
        self._node_id = node_id
        self._no_tunnels = no_tunnels
        self._wanted: NetworkState | None = None
        self._wanted_synced = False
        self._generation = 0
        self._applied = 0
        self._changed = asyncio.Condition()
        self._holding: dict[str, LocalTask] = {}
        self._found: set[str] = set()
        self._assignments = Assignments()

    def adopt(self, containers: Iterable[str]) -> None:
        """Have containers that a former life left keep their links until they are detached; before the first `set`.

        Also those that are to stop: they finish what they have.
        """
        self._found = set(containers)

    async def set(self, assignments: Assignments) -> None:
        """Take the networks of a new set of assignments."""
        self._assignments = assignments
        await self._renew()

    async def _renew(self) -> None:
        state = network_state(self._node_id, self._assignments, self._holding, self._found)
        async with self._changed:
            if state != self._wanted or self._assignments.synced != self._wanted_synced:
                # Together: what an unsynced view lacks must not be removed because a synced one has come meanwhile.
                self._wanted, self._wanted_synced = state, self._assignments.synced
                self._generation += 1
                self._changed.notify_all()

    async def run(self) -> None:
        """Apply states as they come; never returns."""
        backoff = Backoff(0.1, 5.0)
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._generation > self._applied)
                generation, wanted, synced = self._generation, self._wanted, self._wanted_synced
            assert wanted is not None
            try:
                await self._plane.apply(wanted, synced=synced)
            except (TransientError, PreconditionError) as e:
                log.warning("network not as wanted yet", why=str(e))
                await self._wait_for_newer(generation, backoff.next())
                continue
            backoff.reset()
            async with self._changed:
                self._applied = generation
                self._changed.notify_all()

    async def _wait_for_newer(self, generation: int, seconds: float) -> None:
        """Wait so long at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait_for(lambda: self._generation > generation)

    async def in_force(self) -> None:
        """Wait until the network is as the assignments that were set last want it."""
        generation = self._generation
        async with self._changed:
            await self._changed.wait_for(lambda: self._applied >= generation)

    async def connections(self, task_id: str) -> int:
        """Return how many TCP connections to a task are open. Raises TransientError."""
        return await self._plane.connections(task_id)

    async def attach(
        self, task_id: str, pid: int, attachments: tuple[Attachment, ...], nameservers: tuple[str, ...] = ()
    ) -> None:
        """Give a container its links and addresses; waits until its networks are there."""
        if not attachments:
            await self._plane.attach(task_id, pid, ())
            return
        self._holding[task_id] = LocalTask(task_id, attachments, nameservers)
        await self._renew()
        await self.in_force()
        self._check_tunnels(attachments)
        self._check_ports(task_id)
        await self._plane.attach(task_id, pid, attachments)

    def _check_tunnels(self, attachments: tuple[Attachment, ...]) -> None:
        networks = self._wanted.networks if self._wanted else {}
        for network in (n for a in attachments if (n := networks.get(a.network_id))):
            if network.encrypted and self._no_tunnels:
                raise RejectedError(
                    f"network {network.name} is encrypted, which this node cannot do: {self._no_tunnels}"
                )

    def _check_ports(self, task_id: str) -> None:
        """Refuse a task whose port a program of the host has (RejectedError): it may find it free on another node."""
        tasks = self._wanted.tasks if self._wanted else ()
        task = next((t for t in tasks if t.container_id == task_id), None)
        ports = [p for p in task.host_ports if p.target] if task else []
        own = {(p.protocol, p.port, plain_host_ip(p.host_ip)) for p in ports}
        for problem in self._plane.port_problems if own else ():
            if problem.closed and (problem.protocol, problem.published, problem.host_ip) in own:
                raise RejectedError(problem.reason)

    async def detach(self, task_id: str) -> None:
        """Take a container's links away; idempotent."""
        await self._plane.detach(task_id)
        held = self._holding.pop(task_id, None) is not None or task_id in self._found
        self._found.discard(task_id)
        if held:
            await self._renew()


def network_state(
    node_id: str, assignments: Assignments, holding: Mapping[str, LocalTask], found: Collection[str] = ()
) -> NetworkState:
    """Return what the assignments want of a node's network.

    `holding`: tasks that still have their links; `found`: those of which a former life left the containers. One that
    is over has no address any more: somebody else may have it.
    """
    tasks = dict(holding)
    for task in assignments.of(TaskAssignment):
        wanted = task.desired_state <= TaskState.RUNNING
        if not task.attachments or task.over or not (wanted or (task.id in found and task.id not in holding)):
            continue
        revision = assignments.revision_of(task)
        local = LocalTask(task.id, task.attachments, revision.spec.container.dns.nameservers if revision else ())
        if wanted:  # ports lead no more to one that is to stop
            local = replace(local, service_id=task.service_id, host_ports=revision.spec.host_ports if revision else ())
        tasks[task.id] = local
    return NetworkState(
        networks={n.id: n for n in assignments.of(NetworkAssignment)},
        peers=assignments.of(PeerAssignment),
        names=assignments.of(NamesAssignment),
        endpoints=assignments.of(EndpointAssignment),
        published=assignments.of(PublishedAssignment),
        mesh=next(iter(assignments.of(MeshAssignment)), None),
        mesh_peers=others(assignments.of(MeshPeerAssignment), node_id),
        tasks=tuple(task for _, task in sorted(tasks.items())),
    )
