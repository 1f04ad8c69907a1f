"""What happens in a world, from a seed: people, faults and the weather, then calm, and the reckoning.

build      controllers, hosts, images, a network, services
trouble    a dozen or two of acts: what users do, what breaks, what comes back
calm       everything works again: all must become as declared, and then nothing more may be written
a new eye  another leader looks at it: there must be nothing left for it to do
the end    everything is removed: nothing may be left, in etcd or on any host
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from argosy.controller.changes import images, networks, nodes, services
from argosy.core.image import Image, ImageConfig, Layer
from argosy.core.meta import DEFAULT_PROJECT, Meta
from argosy.core.network import Network, NetworkSpec
from argosy.core.node import Availability, Node, Resources
from argosy.core.service import (
    ContainerSpec,
    FailureAction,
    Healthcheck,
    HostPort,
    NetworkAttachmentSpec,
    Placement,
    RestartPolicy,
    Service,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
    UpdateOrder,
    UpdateState,
)
from tests.sim.cluster import LINUX, AgentHost, Controller, World

SETTLE_S = 420.0
"""How long the world may take to become as declared: backoffs and the brake on mass losses are in it."""
QUIET_S = 3.0
"""How long nothing is written before the world counts as at rest."""


class Scenario:
    """One run."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.chance = world.chance
        self.names = 0
        self._asked: list[asyncio.Task[object]] = []
        self.acts: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (10, self._scale),
            (14, self._update),
            (4, self._roll_back),
            (3, self._create),
            (3, self._remove),
            (4, self._drain),
            (4, self._activate),
            (2, self._label),
            (7, self._crash_agent),
            (5, self._power),
            (7, self._cut_host),
            (7, self._crash_leader),
            (5, self._pause_leader),
            (4, self._cut_leader),
            (4, self._break_watches),
            (3, self._compact),
            (3, self._depose),
            (3, self._split),
            (6, self._weather),
            (5, self._heal),
        ]

    async def run(self) -> None:
        await self._build()
        total = self.chance.randint(6, 18)
        for number in range(total):
            await asyncio.sleep(self.chance.choice((0.05, 0.3, 1.0, 2.0, 4.0)) * self.chance.random())
            (act,) = self.chance.choices([a for _, a in self.acts], [w for w, _ in self.acts])
            self.world.note(f"-- {number + 1}/{total} {act.__name__.strip('_')}")
            await act()
        await self._calm()
        await self._come_to_rest("after the trouble")
        await self._look_anew()
        await self._end()

    # ---- build

    async def _build(self) -> None:
        chance, world = self.chance, self.world
        for number in range(chance.choice((1, 2, 2, 3))):
            Controller(world, f"c{number + 1}").start()
        for number in range(chance.choice((1, 2, 3, 3, 4))):
            zone = {"zone": chance.choice("ab")}
            AgentHost(world, f"h{number + 1}", cpus=chance.choice((2.0, 4.0, 8.0)), labels=zone).start()
        await self._until(lambda: world.leader() is not None, 30, "a leader")
        for name in ("one:1", "two:1"):
            await self._must(f"image {name}", lambda snap, now, name=name: images.tagged(snap, _image(name), now))
        spec = NetworkSpec(name="net", subnet=chance.choice(("10.70.0.0/24", "10.70.0.0/16")))
        network_id = world.new_id()
        await self._must("network", lambda snap, now: networks.created(snap, "default", [(network_id, spec)], now))
        for _ in range(chance.choice((1, 1, 2, 2))):
            await self._create(at_once=True)

    async def _must(self, what: str, decide: Callable[..., object]) -> None:
        for _ in range(20):
            leader = self.world.leader()
            if leader and await leader.user(what, decide) is not None:
                return
            await asyncio.sleep(0.5)
        raise AssertionError(f"{what}: never came through")

    async def _until(self, condition: Callable[[], object], timeout_s: float, what: str) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():  # noqa: ASYNC110  # conditions are of many kinds
                await asyncio.sleep(0.1)

    # ---- users

    def _controller(self) -> Controller | None:
        """Return a controller that a user might ask."""
        alive = [c for c in self.world.controllers.values() if c.alive]
        return self.chance.choice(alive) if alive else None

    async def _ask(self, what: str, decide: Callable[..., object]) -> None:
        controller = self._controller()
        if controller is not None:
            self._asked.append(self.world.loop.create_task(controller.user(what, decide)))

    def _service(self) -> Service | None:
        found = [s for s in self.world.watcher.services.values() if not s.removing]
        return self.chance.choice(found) if found else None

    def _spec(self, name: str) -> ServiceSpec:
        chance = self.chance
        mode = ServiceMode.GLOBAL if chance.random() < 0.15 else ServiceMode.REPLICATED
        return ServiceSpec(
            name=name,
            mode=mode,
            replicas=chance.randint(1, 5) if mode is ServiceMode.REPLICATED else 1,
            task=self._task_spec(),
            update=self._update_config(),
            rollback=self._rollback_config(),
            max_unavailable=chance.choice(("", "", "1", "1", "50%", "0")) if mode is ServiceMode.REPLICATED else "",
        )

    def _task_spec(self) -> TaskSpec:
        chance = self.chance
        cpus = chance.choice((0.0, 0.5, 1.0))
        env = [f"CPUS={cpus}", f"VERSION={chance.randint(1, 10**6)}"]
        if chance.random() < 0.12:
            env.append(f"FATE={chance.choice(('crashes', 'cannot'))}")
        ports = ()
        if chance.random() < 0.15:
            port = chance.choice((8080, 8081))
            ports, env = (HostPort("tcp", port),), [*env, f"PORT={port}"]
        check = None
        if chance.random() < 0.25:
            check = Healthcheck(("CMD", "true"), interval=chance.choice((1.0, 2.0)), timeout=1, retries=1)
        joined = chance.random() < 0.8
        networks_of = list(self.world.watcher.networks.values()) if joined else []
        return TaskSpec(
            container=ContainerSpec(
                image=chance.choice(("one:1", "two:1")),
                env=tuple(env),
                stop_grace_period=chance.choice((0.5, 2.0)),
                healthcheck=check,
            ),
            reservations=Resources(cpus=cpus),
            restart=RestartPolicy(delay=chance.choice((0.1, 1.0))),
            placement=Placement(constraints=("node.labels.zone == a",) if chance.random() < 0.1 else ()),
            networks=tuple(NetworkAttachmentSpec(n.meta.id) for n in networks_of if not n.removing),
            host_ports=ports,
        )

    def _update_config(self) -> UpdateConfig:
        chance = self.chance
        return UpdateConfig(
            parallelism=chance.choice((1, 1, 2, 0)),
            delay=chance.choice((0.0, 0.0, 0.5)),
            failure_action=chance.choice(list(FailureAction)),
            monitor=chance.choice((0.2, 1.0)),
            max_failure_ratio=chance.choice((0.0, 0.3)),
            order=chance.choice(list(UpdateOrder)),
        )

    def _rollback_config(self) -> UpdateConfig:
        config = self._update_config()
        return replace(config, failure_action=self.chance.choice((FailureAction.PAUSE, FailureAction.CONTINUE)))

    async def _create(self, *, at_once: bool = False) -> None:
        self.names += 1
        spec, service_id = self._spec(f"web{self.names}"), self.world.new_id()

        def decide(snap: object, now: float) -> object:
            resolved = services.resolve(snap, DEFAULT_PROJECT, spec, {})  # type: ignore[arg-type]
            services.check(resolved)
            return services.created(snap, DEFAULT_PROJECT, service_id, resolved, now)  # type: ignore[arg-type]

        if at_once:
            leader = self.world.leader()
            assert leader is not None
            await leader.user(f"create {spec.name}", decide)
        else:
            await self._ask(f"create {spec.name}", decide)

    async def _change(self, what: str, service: Service, alter: Callable[[ServiceSpec], ServiceSpec]) -> None:
        def decide(snap: object, now: float) -> object:
            present = snap.get(Service, service.meta.id)  # type: ignore[attr-defined]
            if present is None:
                return [], service
            spec = services.resolve(snap, DEFAULT_PROJECT, alter(present.spec), {}, present)  # type: ignore[arg-type]
            services.check(spec)
            return services.updated(snap, present, spec, now)  # type: ignore[arg-type]

        await self._ask(f"{what} {service.spec.name}", decide)

    async def _scale(self) -> None:
        service, count = self._service(), self.chance.randint(0, 6)
        if service and service.spec.mode is ServiceMode.REPLICATED:
            await self._change(f"scale to {count}", service, lambda spec: replace(spec, replicas=count))

    async def _update(self) -> None:
        service = self._service()
        if service:
            task, config = self._task_spec(), self._update_config()
            await self._change("update", service, lambda spec: replace(spec, task=task, update=config))

    async def _roll_back(self) -> None:
        service = self._service()
        if service and service.previous_revision:

            def decide(snap: object, now: float) -> object:
                present = snap.get(Service, service.meta.id)  # type: ignore[attr-defined]
                if present is None or present.removing:
                    return [], service
                return services.rolled_back(snap, present, present.previous_revision, now)  # type: ignore[arg-type]

            await self._ask(f"roll back {service.spec.name}", decide)

    async def _remove(self) -> None:
        service = self._service()
        if service:
            await self._ask(f"remove {service.spec.name}", lambda snap, now: _removed(snap, service, now))

    async def _set_node(self, what: str, availability: Availability) -> None:
        found = list(self.world.watcher.nodes.values())
        if found:
            node = self.chance.choice(found)
            await self._ask(f"{what} {node.spec.name}", lambda snap, now: _available(snap, node, availability, now))

    async def _drain(self) -> None:
        await self._set_node("drain", Availability.DRAIN)

    async def _activate(self) -> None:
        await self._set_node("activate", Availability.ACTIVE)

    async def _label(self) -> None:
        found = list(self.world.watcher.nodes.values())
        if found:
            node, zone = self.chance.choice(found), self.chance.choice("ab")

            def decide(snap: object, now: float) -> object:
                present = snap.get(Node, node.meta.id)  # type: ignore[attr-defined]
                return nodes.updated(present, replace(present.spec, labels={"zone": zone}), now)

            await self._ask(f"label {node.spec.name} zone={zone}", decide)

    # ---- faults

    def _host(self) -> AgentHost:
        return self.chance.choice(list(self.world.agents.values()))

    async def _crash_agent(self) -> None:
        host = self._host()
        if self.chance.random() < 0.3:
            self.world.note(f"{host.name}: its agent is to die between a start and its answer")
            host.kernel.after_start = lambda: self._crash_between(host)
            return
        host.crash()
        if self.chance.random() < 0.2:
            host.damage_assignments()
        self.world.loop.later(self.chance.choice((0.05, 1.0, 5.0)), host.start)

    def _crash_between(self, host: AgentHost) -> None:
        host.crash()
        self.world.loop.later(1.0, host.start)

    async def _power(self) -> None:
        host = self._host()
        if host.kernel.powered:
            host.power_off()
            self.world.loop.later(self.chance.choice((0.5, 4.0, 15.0)), self._power_on, host)

    def _power_on(self, host: AgentHost) -> None:
        if not host.kernel.powered:
            host.power_on()

    async def _cut_host(self) -> None:
        """Cut a host off from some or all controllers."""
        host, network = self._host(), self.world.network
        addresses = [c.address for c in self.world.controllers.values()]
        if self.chance.random() < 0.3:
            addresses = [self.chance.choice(addresses)]
        self.world.note(f"{host.name} is cut off from {addresses}")
        for address in addresses:
            network.close(host.name, address)
        self.world.loop.later(self.chance.choice((0.3, 2.0, 6.0, 14.0)), self._rejoin, host, addresses)

    def _rejoin(self, host: AgentHost, addresses: list[str]) -> None:
        if host.kernel.powered:
            self.world.note(f"{host.name} reaches {addresses} again")
            for address in addresses:
                self.world.network.open(host.name, address)

    async def _crash_leader(self) -> None:
        leader = self.world.leader() or self._controller()
        if leader is None:
            return
        leader.crash(revive=False)
        self.world.loop.later(self.chance.choice((0.2, 1.0, 4.0)), self._restart, leader)

    def _restart(self, controller: Controller) -> None:
        if not controller.alive:
            controller.start()

    async def _pause_leader(self) -> None:
        leader = self.world.leader()
        if leader is None or leader.process is None:
            return
        process = leader.process
        self.world.note(f"{process.name} is paused")
        process.pause()

        def resume() -> None:
            self.world.note(f"{process.name} goes on")
            process.resume()

        self.world.loop.later(self.chance.choice((0.5, 2.5, 3.5, 6.0)), resume)

    async def _cut_leader(self) -> None:
        """Cut the leader off from etcd, with the way to the agents left open."""
        leader = self.world.leader()
        if leader is None:
            return
        faults = self.world.etcd_faults
        self.world.note(f"{leader.name} is cut off from etcd")
        faults.away.add(leader.name)

        def heal() -> None:
            self.world.note(f"{leader.name} reaches etcd again")
            faults.away.discard(leader.name)

        self.world.loop.later(self.chance.choice((0.3, 1.5, 5.0)), heal)

    async def _break_watches(self) -> None:
        for controller in self.world.controllers.values():
            if controller.alive and self.chance.random() < 0.7:
                self.world.note(f"etcd's streams to {controller.name} break")
                controller.channel.break_streams("connection reset by peer")

    async def _compact(self) -> None:
        """Compact all of etcd's history while a controller is cut off from it, and so is behind."""
        controller = self._controller()
        if controller is None:
            return
        etcd, faults, name = self.world.etcd, self.world.etcd_faults, controller.name
        self.world.note(f"{name} is cut off from etcd, which is compacted")
        faults.away.add(name)
        controller.channel.break_streams("connection reset by peer")
        delay = self.chance.choice((0.5, 1.5))
        self.world.loop.later(delay, lambda: etcd.compact(etcd.revision))
        self.world.loop.later(delay + 0.1, faults.away.discard, name)

    async def _depose(self) -> None:
        """Have a follower end the lease of a leader that lives."""
        for controller in self.world.controllers.values():
            if controller.alive and not controller.leads() and controller.election is not None:
                self.world.note(f"{controller.name} ends the leader's lease")
                controller.process.spawn(_revoke(controller))  # type: ignore[union-attr]
                return

    async def _split(self) -> None:
        """Have two controllers lead at once: the old one cannot see that its lease was ended, and agents waver."""
        leader = self.world.leader()
        others = [c for c in self.world.controllers.values() if c.alive and c is not leader]
        if leader is None or not others:
            return
        faults = self.world.etcd_faults
        self.world.note(f"{leader.name} is cut off from etcd, and its lease ended")
        faults.away.add(leader.name)
        self.world.loop.later(3.0, faults.away.discard, leader.name)
        others[0].process.spawn(_revoke(others[0]))  # type: ignore[union-attr]
        for number in range(6):
            self.world.loop.later(0.1 + 0.25 * number, self._reset_sessions)

    def _reset_sessions(self) -> None:
        for call in list(self.world.network.calls):
            call.reset("connection reset by peer")

    async def _weather(self) -> None:
        """Change how unreliable things are."""
        chance, faults, troubles = self.chance, self.world.etcd_faults, self.world.troubles
        faults.lost_answer = chance.choice((0, 0, 0.02, 0.2))
        faults.lost_request = chance.choice((0, 0, 0.02))
        faults.late_request = chance.choice((0, 0, 0.02))
        faults.refused = chance.choice((0, 0, 0.02))
        faults.lag_s = chance.choice((0, 0, 0.05, 0.5))
        faults.fragments = chance.random() < 0.5
        troubles.transient = chance.choice((0, 0, 0.05))
        troubles.lost_answer = chance.choice((0, 0, 0.05))
        troubles.crash = chance.choice((0, 0, 0.1))
        troubles.refused = chance.choice((0, 0, 0.05))
        troubles.missing_image = chance.choice((0, 0, 0.3))
        troubles.unwell = chance.choice((0, 0, 0.2))
        troubles.stubborn = chance.choice((0, 0, 0.3))
        troubles.slow_s = chance.choice((0, 0, 2.0))
        self.world.network.slow_s = chance.choice((0, 0, 0.05, 0.3))

    async def _heal(self) -> None:
        self._still()

    def _still(self) -> None:
        self.world.etcd_faults.calm()
        for name in self.world.troubles.__dataclass_fields__:
            setattr(self.world.troubles, name, 0.0)
        self.world.network.slow_s = 0.0

    # ---- calm

    async def _calm(self) -> None:
        world = self.world
        world.note("-- calm")
        self._still()
        for controller in world.controllers.values():
            if controller.process and controller.process.paused:
                controller.process.resume()
            if not controller.alive:
                controller.start()
        for host in world.agents.values():
            if not host.kernel.powered:
                host.power_on()
        world.network.calm()
        for host in world.agents.values():
            host.start()
        await asyncio.gather(*self._asked)
        await self._until(lambda: world.leader() is not None, 30, "a leader")
        for node in list(world.watcher.nodes.values()):
            await self._must(
                f"activate {node.spec.name}",
                lambda snap, now, node=node: _available(snap, node, Availability.ACTIVE, now),
            )
        for service in list(world.watcher.services.values()):
            if not service.removing:
                await self._must(f"mend {service.spec.name}", lambda snap, now, s=service: _mended(snap, s, now))

    async def _come_to_rest(self, when: str) -> None:
        """Wait until all is as declared and nothing is written any more."""
        world = self.world
        began = world.loop.now
        revision, since, why = world.etcd.revision, began, "nothing was looked at"
        while world.loop.now - began < SETTLE_S:
            await asyncio.sleep(0.25)
            if world.etcd.revision != revision:
                revision, since = world.etcd.revision, world.loop.now
            if world.loop.now - since >= QUIET_S:
                why = world.watcher.unsettled()
                if not why:
                    world.note(f"-- at rest {when} after {world.loop.now - began:.1f} s")
                    world.watcher.judge_rest()
                    return
        world.watcher.fail("converges", f"{when}: {why or 'something is written again and again'}")
        await asyncio.sleep(0)

    async def _look_anew(self) -> None:
        """Let a new leader look: it must find nothing to do, and all caches must be as etcd is."""
        world = self.world
        self._compare_caches()
        leader = world.leader()
        if leader is None:
            world.watcher.fail("converges", "nobody leads at rest")
            await asyncio.sleep(0)
            return
        before = {k: v for k, v in world.etcd.keys.items() if b"/leader" not in k and b"/node/" not in k}
        leader.crash(revive=True)
        await asyncio.sleep(0.1)
        await self._until(lambda: world.leader() is not None, 30, "a leader")
        await asyncio.sleep(1.5)
        after = {k: v for k, v in world.etcd.keys.items() if b"/leader" not in k and b"/node/" not in k}
        if before != after:
            keys = sorted(k.decode() for k in before.keys() | after.keys() if before.get(k) != after.get(k))
            world.watcher.fail("a second planning does nothing", f"a new leader wrote {keys}")
        await asyncio.sleep(0)

    def _compare_caches(self) -> None:
        world = self.world
        for controller in world.controllers.values():
            if not controller.alive or not controller.cache.snapshot.revision:
                continue
            if controller.cache.differences:
                world.watcher.fail("caches are exact", f"{controller.name} found its cache to differ")
            keys = controller.store.keys
            wanted = {p.kind.domain: {} for k in world.etcd.keys if (p := keys.parse(k))}
            for key, stored in world.etcd.keys.items():
                if at := keys.parse(key):
                    wanted[at.kind.domain][at.id] = stored.modified
            for kind, versions in wanted.items():
                found = {o.meta.id: o.meta.version for o in controller.cache.snapshot.all(kind)}
                if found != versions:
                    world.watcher.fail(
                        "caches are exact", f"{controller.name} has {kind.__name__}: {found} not {versions}"
                    )

    async def _end(self) -> None:
        world = self.world
        for service in list(world.watcher.services.values()):
            await self._must(f"remove {service.spec.name}", lambda snap, now, s=service: _removed(snap, s, now))
        for network in list(world.watcher.networks.values()):
            await self._must("remove the network", lambda snap, now, n=network: _network_removed(snap, n, now))
        await self._come_to_rest("after all was removed")
        if world.watcher.tasks or world.watcher.networks or world.watcher.slices or world.watcher.services:
            world.watcher.fail("nothing is left over", "records are left in etcd")
            await asyncio.sleep(0)


def _image(name: str) -> Image:
    digest = "sha256:" + f"{sum(name.encode()):064x}"
    layer = Layer(digest, digest, 1000)
    meta = Meta(project=DEFAULT_PROJECT)
    return Image(meta, name=name, digest=digest, platform=LINUX, layers=(layer,), config=ImageConfig(command=("run",)))


def _removed(snap: object, service: Service, now: float) -> object:
    present = snap.get(Service, service.meta.id)  # type: ignore[attr-defined]
    return services.removed(present, now) if present is not None else ([], service)


def _network_removed(snap: object, network: Network, now: float) -> object:
    present = snap.get(Network, network.meta.id)  # type: ignore[attr-defined]
    return networks.removed(snap, present, now) if present is not None else ([], network)  # type: ignore[arg-type]


def _available(snap: object, node: Node, availability: Availability, now: float) -> object:
    present = snap.get(Node, node.meta.id)  # type: ignore[attr-defined]
    if present is None:
        return [], node
    return nodes.updated(present, replace(present.spec, availability=availability), now)


def _mended(snap: object, service: Service, now: float) -> object:
    """Give a service a spec that can run on these hosts, whatever it was given before."""
    present = snap.get(Service, service.meta.id)  # type: ignore[attr-defined]
    if present is None or present.removing:
        return [], service
    container = present.spec.task.container
    env = tuple(e for e in container.env if not e.startswith(("FATE=", "PORT=", "CPUS=")))
    task = replace(
        present.spec.task,
        container=replace(container, env=env),
        host_ports=(),
        reservations=Resources(),
        placement=replace(present.spec.task.placement, constraints=()),
    )
    update = replace(present.spec.update, failure_action=FailureAction.CONTINUE)
    stuck = present.update.state in (UpdateState.PAUSED, UpdateState.ROLLBACK_PAUSED)
    if stuck:
        task = replace(task, force_update=task.force_update + 1)
    return services.updated(snap, present, replace(present.spec, task=task, update=update), now)  # type: ignore[arg-type]


async def _revoke(controller: Controller) -> None:
    from argosy.core.errors import TransientError

    assert controller.election is not None
    try:
        leader = await controller.election.leader()
        if leader is not None:
            await controller.election.revoke_leader(leader)
    except TransientError:
        return
