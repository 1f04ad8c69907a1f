"""The node loop: turns the silence of agents and hosts into nodes' states."""

import structlog

from argosy.controller.logic.actions import SetNodeStatus
from argosy.controller.logic.node_state import plan_nodes, timing_for
from argosy.controller.loops.apply import node_groups
from argosy.controller.loops.triggers import Wake, batches
from argosy.controller.session.heard import HeardNodes
from argosy.controller.sparing import Sparing
from argosy.controller.store import Cache, Fence, Store
from argosy.core.ambient import SYSTEM, Ambient
from argosy.core.errors import ConflictError
from argosy.core.node import Node

log = structlog.get_logger(__name__)

LONGEST_SLEEP_S = 0.5
SHARE = 0.2
"""Of the time that looking takes, at most: while 5,000 nodes join, each gives reason to look."""
STALL_S = 1.0
"""A tick that comes so much too late means that this controller was stopped: nobody is to blame for the silence."""


class NodesLoop:
    """One for a term of leadership; `heard` is fed by the sessions and the hosts' beats."""

    def __init__(self, store: Store, cache: Cache, fence: Fence, heard: HeardNodes, ambient: Ambient = SYSTEM) -> None:
        self._store = store
        self._cache = cache
        self._fence = fence
        self._heard = heard
        self._ambient = ambient
        self._wake = Wake(ambient.monotonic)
        self._sparing = Sparing(ambient.processor, SHARE)
        self._listening_since = self._expected = ambient.monotonic()
        heard.on_hello = self._wake.now

    async def run(self) -> None:
        """Run until cancelled."""
        async for batch in batches(self._cache, self._wake):
            if batch is not None and not batch.resync and all(change.kind is not Node for change in batch.changes):
                continue
            now = self._ambient.monotonic()
            if now - self._expected > STALL_S:
                self._listening_since = now
            await self._look(now)
            await self._sparing.rest()

    async def _look(self, now: float) -> None:
        snap, wall = self._cache.snapshot, self._ambient.wall()
        nodes = snap.all(Node)
        with self._sparing.working():
            plan = plan_nodes(
                nodes,
                self._heard.heard,
                listening_since=self._listening_since,
                now=now,
                wall=wall,
                timing=timing_for(len(nodes)),
            )
        groups = node_groups(plan.actions, snap, wall)
        if groups:
            self._log(plan.actions)
            outcomes = await self._store.commit_batched(groups, self._fence)
            for outcome in outcomes:
                if outcome.error is not None and not isinstance(outcome.error, ConflictError):
                    raise outcome.error
            await self._cache.wait_for(await self._store.revision())
        wake = self._ambient.monotonic() + LONGEST_SLEEP_S
        if plan.wake_at is not None:
            wake = min(wake, max(plan.wake_at, self._ambient.monotonic() + 0.01))
        self._expected = wake
        self._wake.at(wake)

    def _log(self, actions: tuple[object, ...]) -> None:
        for action in actions:
            if isinstance(action, SetNodeStatus):
                node = self._cache.snapshot.get(Node, action.node_id)
                if node:
                    change = f"{node.status.state.name}->{action.status.state.name}"
                    log.info("node state", node=node.spec.name, change=change, why=action.status.message)
