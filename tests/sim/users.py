"""What people do in the simulator: declare, change, scale, take back, drain, run, by any controller that is there."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from argosy.controller.api.placement import moves_of
from argosy.controller.changes import dependencies, files, jobs, networks, nodes, services, updates
from argosy.controller.store import Snapshot, update
from argosy.core.errors import NotFoundError
from argosy.core.files import NewFile
from argosy.core.meta import DEFAULT_PROJECT
from argosy.core.network import Network
from argosy.core.node import Availability, Drain, Node, NodeSpec
from argosy.core.service import JOB_MODES, PAUSED_BY_HAND, Service, ServiceMode, ServiceSpec, UpdateState
from tests.sim.cluster import World
from tests.sim.specs import FILE_NAMES, Specs

Act = Callable[[], Awaitable[None]]
Decide = Callable[[Snapshot, float], Any]


class Users:
    """The acts of people, by chance. `asked`: requests that have not been answered yet."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.chance = world.chance
        self.specs = Specs(world)
        self.names = 0
        self.asked: list[asyncio.Task[object]] = []
        self.acts: list[tuple[int, Act]] = [
            (10, self._scale),
            (14, self._update),
            (4, self._roll_back),
            (5, self._speak),
            (2, self._stop_or_start),
            (3, self.create),
            (3, self._remove),
            (3, self._run_job),
            (12, self._await_minute),
            (3, self._write_file),
            (6, self._drain),
            (4, self._activate),
            (2, self._label),
            (3, self._rebalance),
        ]

    async def _ask(self, what: str, decide: Decide) -> None:
        controller = self.world.somebody()
        if controller is not None:
            self.asked.append(self.world.loop.create_task(controller.user(what, decide)))

    def _service(self, only: Callable[[Service], object] = lambda service: True) -> Service | None:
        found = [s for s in self.world.watcher.services.values() if not s.removing and only(s)]
        return self.chance.choice(found) if found else None

    def _node(self) -> Node | None:
        found = list(self.world.watcher.nodes.values())
        return self.chance.choice(found) if found else None

    # ---- services

    async def create(self, *, at_once: bool = False) -> None:
        """Declare a service; `at_once`: nothing else happens meanwhile."""
        self.names += 1
        spec, service_id = self.specs.service(f"web{self.names}"), self.world.new_id()

        def decide(snap: Snapshot, now: float) -> object:
            services.check(spec)
            compared = dependencies.check(snap, DEFAULT_PROJECT, [spec])
            resolved = services.resolve(snap, DEFAULT_PROJECT, spec, {})
            ops, service = services.created(snap, DEFAULT_PROJECT, service_id, resolved, now)
            return [*ops, *compared], service

        if at_once:
            leader = self.world.leader()
            assert leader is not None
            await leader.user(f"create {spec.name}", decide)
        else:
            await self._ask(f"create {spec.name}", decide)

    async def _change(self, what: str, service: Service, alter: Callable[[ServiceSpec], ServiceSpec]) -> None:
        def decide(snap: Snapshot, now: float) -> object:
            present = _present(snap, service)
            spec = services.resolve(snap, DEFAULT_PROJECT, alter(present.spec), {}, present)
            services.check(spec)
            ops, changed = services.updated(snap, present, spec, now)
            return [*ops, *dependencies.restarts(snap, DEFAULT_PROJECT, spec, now)] if ops else [], changed

        await self._ask(f"{what} {service.spec.name}", decide)

    async def _scale(self) -> None:
        service, count = self._service(lambda s: s.spec.mode is ServiceMode.REPLICATED), self.chance.randint(0, 6)
        if service:
            await self._change(
                f"scale to {count}",
                service,
                lambda spec: replace(spec, replicas=count, canary=min(count, spec.canary)),
            )

    async def _update(self) -> None:
        service = self._service()
        if service:
            task, config = self.specs.task_for(service.spec), self.specs.update_for(service.spec)
            await self._change("update", service, lambda spec: replace(spec, task=task, update=config))

    async def _roll_back(self) -> None:
        service = self._service(lambda s: s.previous_revision)
        if service:

            def decide(snap: Snapshot, now: float) -> object:
                present = _present(snap, service)
                return services.rolled_back(snap, present, present.previous_revision, now)

            await self._ask(f"roll back {service.spec.name}", decide)

    async def _speak(self) -> None:
        """Say something to an update that goes on: what fits it, most often."""
        service = self._service(lambda s: s.update.state in (UpdateState.UPDATING, UpdateState.PAUSED))
        if service is None:
            return
        force = self.chance.random() < 0.2
        words: list[tuple[str, Decide]] = [
            ("pause", lambda snap, now: updates.paused(_present(snap, service), now)),
            ("resume", lambda snap, now: updates.resumed(_present(snap, service), now)),
            ("promote", lambda snap, now: updates.promoted(_present(snap, service), force, now)),
        ]
        what, decide = self.chance.choice(words)
        if service.update.message == PAUSED_BY_HAND:
            what, decide = words[1]
        await self._ask(f"{what} {service.spec.name}", decide)

    async def _stop_or_start(self) -> None:
        service = self._service()
        if service:
            stopped = not service.spec.stopped
            await self._change("stop" if stopped else "start", service, lambda spec: replace(spec, stopped=stopped))

    async def _remove(self) -> None:
        service = self._service()
        if service:
            await self._ask(f"remove {service.spec.name}", lambda snap, now: removed(snap, service, now))

    # ---- jobs, files

    async def _run_job(self) -> None:
        job = self._service(lambda s: s.spec.mode in JOB_MODES)
        if job:
            await self._ask(f"run {job.spec.name}", lambda snap, now: jobs.run_begun(_present(snap, job), now))

    async def _await_minute(self) -> None:
        """Let the time come at which a schedule fires, so that other things happen around it."""
        if self._service(lambda s: s.spec.job is not None and s.spec.job.cron is not None):
            left_s = 60 - self.world.loop.wall() % 60
            await asyncio.sleep(max(0.0, left_s - self.chance.choice((0.02, 0.5, 3.0))))

    async def _write_file(self) -> None:
        secret = self.chance.random() < 0.4
        await self._ask("write a file", self.file_of(secret=secret))

    def file_of(self, *, secret: bool) -> Decide:
        """Return what makes the next version of the config or of the secret."""
        name, content, new_id = FILE_NAMES[secret], f"{self.chance.randint(1, 10**6)}".encode(), self.world.new_id()
        new = NewFile(name, data=content)

        def decide(snap: Snapshot, now: float) -> object:
            return files.written(snap, DEFAULT_PROJECT, new, new_id, self.world.keys, now, secret=secret)

        return decide

    # ---- nodes

    async def _set_node(self, what: str, alter: Callable[[NodeSpec], NodeSpec], drain_for: float = 0.0) -> None:
        node = self._node()
        if node:

            def decide(snap: Snapshot, now: float) -> object:
                present = snap.get(Node, node.meta.id)
                if present is None:
                    raise NotFoundError("there is no such node")
                return nodes.updated(present, alter(present.spec), now, drain_for=drain_for)

            await self._ask(f"{what} {node.spec.name}", decide)

    async def _drain(self) -> None:
        pace, drain_for = self.chance.choice((0, 0, 1, 2)), self.chance.choice((0.0, 0.0, 3.0, 12.0))
        await self._set_node(
            f"drain (pace {pace}, for {drain_for:g} s)",
            lambda spec: replace(spec, availability=Availability.DRAIN, drain=Drain(pace)),
            drain_for,
        )

    async def _activate(self) -> None:
        await self._set_node("activate", lambda spec: replace(spec, availability=Availability.ACTIVE, drain=Drain()))

    async def _label(self) -> None:
        zone = self.chance.choice("ab")
        await self._set_node(f"label zone={zone}", lambda spec: replace(spec, labels={"zone": zone}))

    async def _rebalance(self) -> None:
        def decide(snap: Snapshot, now: float) -> object:
            tasks, notice = moves_of(snap)
            return [update(replace(t, evict=True, meta=replace(t.meta, updated_at=now))) for t in tasks], notice

        await self._ask("rebalance", decide)


def _present(snap: Snapshot, service: Service) -> Service:
    present = snap.get(Service, service.meta.id)
    if present is None:
        raise NotFoundError(f"there is no service {service.spec.name}")
    return present


def removed(snap: Snapshot, service: Service, now: float) -> object:
    """Remove a service, if it is there."""
    present = snap.get(Service, service.meta.id)
    return services.removed(present, now) if present is not None else ([], service)


def network_removed(snap: Snapshot, network: Network, now: float) -> object:
    """Remove a network, if it is there."""
    present = snap.get(Network, network.meta.id)
    return networks.removed(snap, present, now) if present is not None else ([], network)


def set_to(snap: Snapshot, node: Node, availability: Availability, now: float) -> object:
    """Set a node's availability, if it is there."""
    present = snap.get(Node, node.meta.id)
    if present is None:
        return [], node
    return nodes.updated(present, replace(present.spec, availability=availability, drain=Drain()), now)
