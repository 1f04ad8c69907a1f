"""What it costs to attach a container to its network, and to detach it: one after the other, and many at once.

The clock covers the whole call of the agent's network plane: both threads' hand-overs, the namespace's descriptor, the
pair, addresses, routes and neighbours at both ends, and waiting until the link passes packets. Beside it, in the same
run, the kernel's own part: making a pair of links with its peer in another namespace, nothing else.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median, quantiles

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "kernel" / "network"))

from network_world import Container, Host, world

from argosy.agent.logic.network_state import Link, LinkKind
from argosy.agent.network import rtnetlink
from argosy.agent.network.netlink import Netlink
from argosy.core.network import Attachment

NETWORK = "benchnetwork1"
CONTAINERS = 60
ROUNDS = 5


def main() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as directory, world(Path(directory)) as wire:
        host = wire.add_host(dns=False)
        wire.add_network(NETWORK, "10.64.0.0/16", {"h1": (1, 2)})
        host.apply()
        containers = [Container(host, f"benchtask{n:04}") for n in range(CONTAINERS)]
        for n, container in enumerate(containers):
            container.attachments = (Attachment(NETWORK, 0x0A400021 + n),)
            host.containers[container.id] = container
        attach, floor, together, away, one_away = [], [], [], [], []
        for _ in range(ROUNDS):
            floor += [bare_pair(host, c) for c in containers[:20]]
            attach += [timed(host, attaching(c)) for c in containers]
            one_away.append(timed(host, detaching(containers[0])))
            away.append(timed(host, *map(detaching, containers)))
            together.append(timed(host, *map(attaching, containers)))
            timed(host, *map(detaching, containers))
        load = os.getloadavg()[0]
        print(f"attach, one after the other   median {ms(median(attach))}  p95 {ms(quantiles(attach, n=20)[-1])}")
        print(f"  of which a bare veth pair   median {ms(median(floor))}")
        print(
            f"attach {CONTAINERS} at once             {ms(median(together))} ({ms(median(together) / CONTAINERS)} each)"
        )
        print(f"detach one                    median {ms(median(one_away))}")
        print(f"detach {CONTAINERS - 1} at once             {ms(median(away))} ({ms(median(away) / CONTAINERS)} each)")
        print(f"medians of {ROUNDS} rounds; load {load:.1f} on {os.cpu_count()} processors")


def attaching(container: Container) -> Callable[[], Awaitable[object]]:
    """Return the action that attaches a container."""
    return lambda: container.host.plane.attach(container.id, container.pid, container.attachments)


def detaching(container: Container) -> Callable[[], Awaitable[object]]:
    """Return the action that detaches a container."""
    return lambda: container.host.plane.detach(container.id)


def timed(host: Host, *actions: Callable[[], Awaitable[object]]) -> float:
    """Return how long actions take together in the host's event loop, in seconds."""

    async def run() -> float:
        began = time.perf_counter()
        await asyncio.gather(*(action() for action in actions))
        return time.perf_counter() - began

    return host.do(run())


def bare_pair(host: Host, container: Container) -> float:
    """Return how long the kernel takes to make a pair of links."""
    netlink = host.namespace.run(Netlink)
    outer = Link("bench0", LinkKind.CONTAINER, 1450, b"\x02\0\0\0\0\x01")
    inner = Link("bench1", LinkKind.OTHER, 1450, b"\x02\0\0\0\0\x02")
    message = rtnetlink.make_pair(outer, inner, container.fd)
    began = time.perf_counter()
    netlink.execute([message])
    took = time.perf_counter() - began
    netlink.execute([rtnetlink.delete_link(outer.name)])
    netlink.close()
    return took


def ms(seconds: float) -> str:
    """Return a time in milliseconds."""
    return f"{seconds * 1e3:.2f} ms"


if __name__ == "__main__":
    main()
