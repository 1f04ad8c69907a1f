"""What breaks in the simulator, and what comes back: agents, hosts, leaders, etcd, the network, the weather."""

import asyncio
from collections.abc import Awaitable, Callable

from argosy.core.errors import TransientError
from tests.sim.cluster import AgentHost, Controller, World

Act = Callable[[], Awaitable[None]]


class Faults:
    """The acts of no one, by chance."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.chance = world.chance
        self._switches = world.switches
        self.acts: list[tuple[int, Act]] = [
            (7, self._crash_agent),
            (5, self._power),
            (3, self._power_of_all),
            (7, self._cut_host),
            (7, self._crash_leader),
            (5, self._pause_leader),
            (4, self._cut_leader),
            (4, self._lose_answers),
            (4, self._break_watches),
            (3, self._compact),
            (3, self._depose),
            (3, self._split),
            (6, self._weather),
            (5, self._heal),
        ]

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

    async def _power_of_all(self) -> None:
        """Have everything lose power; hosts come back at different times, and the controllers often last."""
        self.world.watcher.power_cut()
        for host in self.world.agents.values():
            if host.kernel.powered:
                host.power_off()
        for controller in self.world.controllers.values():
            if controller.process is not None and controller.process.paused:
                controller.process.resume()
            controller.crash(revive=False)
            self.world.loop.later(self.chance.choice((0.5, 6.0, 15.0)), self._restart, controller)
        for host in self.world.agents.values():
            self.world.loop.later(self.chance.choice((0.5, 4.0, 15.0, 25.0)), self._power_on, host)
        await asyncio.sleep(self.chance.choice((0.0, 8.0, 26.0)))

    def _power_on(self, host: AgentHost) -> None:
        if not host.kernel.powered:
            host.power_on()

    async def _cut_host(self) -> None:
        """Cut a host off from some or all controllers."""
        host, network = self._host(), self.world.network
        addresses = [c.address for c in self.world.controllers.values()]
        if self.chance.random() < 0.3:
            addresses = [self.chance.choice(addresses)]
        seconds = self.chance.choice((0.3, 2.0, 6.0, 14.0))
        hosts = [host]
        if self._switches.random() < 0.3:  # the switch fails that most of them are at
            hosts = [host, *(h for h in self.world.agents.values() if h is not host and self._switches.random() < 0.7)]
            seconds = self._switches.choice((seconds, 6.0, 40.0))
        for one in hosts:
            self.world.note(f"{one.name} is cut off from {addresses}")
            for address in addresses:
                network.close(one.name, address)
            self.world.loop.later(seconds, self._rejoin, one, addresses)

    def _rejoin(self, host: AgentHost, addresses: list[str]) -> None:
        if host.kernel.powered:
            self.world.note(f"{host.name} reaches {addresses} again")
            for address in addresses:
                self.world.network.open(host.name, address)

    async def _crash_leader(self) -> None:
        leader = self.world.leader() or self.world.somebody()
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

    async def _lose_answers(self) -> None:
        """Have users' next changes carried out, or not, without anybody being told."""
        faults = self.world.etcd_faults
        faults.lost_for_users = self.chance.choice((1, 1, 2, 3))
        self.world.note(f"{faults.lost_for_users} answers to users' changes are to be lost")

    async def _break_watches(self) -> None:
        for controller in self.world.controllers.values():
            if controller.alive and self.chance.random() < 0.7:
                self.world.note(f"etcd's streams to {controller.name} break")
                controller.channel.break_streams("connection reset by peer")

    async def _compact(self) -> None:
        """Compact all of etcd's history while a controller is cut off from it, and so is behind."""
        controller = self.world.somebody()
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
        self.still()

    def still(self) -> None:
        self.world.etcd_faults.calm()
        for name in self.world.troubles.__dataclass_fields__:
            setattr(self.world.troubles, name, 0.0)
        self.world.network.slow_s = 0.0


async def _revoke(controller: Controller) -> None:
    assert controller.election is not None
    try:
        leader = await controller.election.leader()
        if leader is not None:
            await controller.election.revoke_leader(leader)
    except TransientError:
        return
