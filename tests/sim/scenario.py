"""What happens in a world, from a seed: people, faults and the weather, then calm, and the reckoning.

build      controllers, hosts, images, a network, files, services
trouble    a dozen or two of acts: what users do (users.py), what breaks, what comes back (faults.py)
calm       everything works again: all must become as declared, and then nothing more may be written
a new eye  another leader looks at it: there must be nothing left for it to do
the end    everything is removed: nothing may be left, in etcd or on any host
"""

import asyncio
from collections.abc import Callable

from argosy.controller.changes import files, images, networks, services
from argosy.controller.store import Snapshot
from argosy.core.errors import NotFoundError
from argosy.core.files import Config, Secret
from argosy.core.image import Image, ImageConfig, Layer
from argosy.core.meta import DEFAULT_PROJECT, Meta
from argosy.core.network import NetworkSpec
from argosy.core.node import Availability
from argosy.core.service import Service
from tests.sim.cluster import LINUX, AgentHost, Controller, World
from tests.sim.faults import Faults
from tests.sim.specs import mended
from tests.sim.users import Users, network_removed, removed, set_to

SETTLE_S = 420.0
"""How long the world may take to become as declared: backoffs and the brake on mass losses are in it."""
QUIET_S = 3.0
"""How long nothing is written before the world counts as at rest."""


class Scenario:
    """One run."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.chance = world.chance
        self.users = Users(world)
        self.faults = Faults(world)

    async def run(self) -> None:
        await self._build()
        total = self.chance.randint(6, 18)
        acts = [*self.users.acts, *self.faults.acts]
        for number in range(total):
            await asyncio.sleep(self.chance.choice((0.05, 0.3, 1.0, 2.0, 4.0)) * self.chance.random())
            (act,) = self.chance.choices([a for _, a in acts], [w for w, _ in acts])
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
        for secret in (False, True):
            if chance.random() < 0.5:
                await self._must("a file", self.users.file_of(secret=secret))
        for _ in range(chance.choice((1, 1, 2, 2))):
            await self.users.create(at_once=True)

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

    # ---- calm

    async def _calm(self) -> None:
        world = self.world
        world.note("-- calm")
        self.faults.still()
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
        await asyncio.gather(*self.users.asked)
        await self._until(lambda: world.leader() is not None, 30, "a leader")
        nodes = list(world.watcher.nodes.values())
        drained = [n for n in nodes if n.spec.availability is Availability.DRAIN]
        if len(drained) == len(nodes) or self.chance.random() < 0.5:  # else they stay drained, and have to be empty
            for node in drained:
                await self._must(
                    f"activate {node.spec.name}",
                    lambda snap, now, node=node: set_to(snap, node, Availability.ACTIVE, now),
                )
        for service in list(world.watcher.services.values()):
            if not service.removing:
                await self._must(f"mend {service.spec.name}", lambda snap, now, s=service: self._mended(snap, s, now))

    def _mended(self, snap: Snapshot, service: Service, now: float) -> object:
        """Give a service a spec that can run on these hosts, whatever it was given before."""
        present = snap.get(Service, service.meta.id)
        if present is None and service.meta.id in self.world.watcher.services:
            raise NotFoundError(f"{service.spec.name} is not known here yet")
        if present is None or present.removing:
            return [], service
        others = {s.spec.name: s for s in snap.all(Service) if not s.removing}
        return services.updated(snap, present, mended(present, others), now)

    async def _come_to_rest(self, when: str) -> None:
        """Wait until all is as declared and nothing is written any more."""
        world = self.world
        began = world.loop.now
        revision, since, why = world.etcd.revision, began, "nothing was looked at"
        while world.loop.now - began < SETTLE_S:
            await asyncio.sleep(0.25)
            if world.etcd.revision != revision or world.leader() is None:
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
            await self._must(f"remove {service.spec.name}", lambda snap, now, s=service: removed(snap, s, now))
        for network in list(world.watcher.networks.values()):
            await self._must("remove the network", lambda snap, now, n=network: network_removed(snap, n, now))
        for kind in (Config, Secret):
            for file in list(world.watcher.files[kind].values()):
                await self._must("remove a file", lambda snap, now, f=file: files.removed(snap, f, now))
        await self._come_to_rest("after all was removed")
        left = world.watcher.left_over()
        if left:
            world.watcher.fail("nothing is left over", f"etcd still has {left}")
            await asyncio.sleep(0)


def _image(name: str) -> Image:
    digest = "sha256:" + f"{sum(name.encode()):064x}"
    layer = Layer(digest, digest, 1000)
    meta = Meta(project=DEFAULT_PROJECT)
    return Image(meta, name=name, digest=digest, platform=LINUX, layers=(layer,), config=ImageConfig(command=("run",)))
