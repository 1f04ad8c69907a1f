"""What the agent tells of its network: that it is in force, and not before the plane has brought it to the kernel."""

import asyncio

from argosy.agent.logic.assignments import Assignments
from argosy.agent.logic.pieces import Pieces
from argosy.agent.tasks.wiring import Wiring
from argosy.core.assignment import NetworkAssignment
from argosy.core.errors import TransientError


class Plane:
    """Applies a state when it is let to, and fails as often as it is told to."""

    def __init__(self) -> None:
        self.begun, self.free = asyncio.Semaphore(0), asyncio.Semaphore(0)
        self.failures = 0
        self.tried: list[set[str]] = []
        self.applied: list[set[str]] = []

    async def apply(self, state, *, synced: bool) -> None:
        self.tried.append(set(state.networks))
        self.begun.release()
        await self.free.acquire()
        if self.failures:
            self.failures -= 1
            raise TransientError("the kernel has no memory left")
        self.applied.append(set(state.networks))


def networks(*names: str) -> Assignments:
    pieces = (NetworkAssignment(name, name=name, subnet="10.9.0.0/24", vni=4096) for name in names)
    return Assignments(Pieces(pieces))


async def turns() -> None:
    """Let everybody do what can be done without the plane."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_nothing_is_in_force_before_the_plane_has_applied_it():
    plane = Plane()
    wiring = Wiring(plane)  # type: ignore[arg-type]
    running = asyncio.create_task(wiring.run())
    try:
        await wiring.set(networks("one"))
        first = asyncio.create_task(wiring.in_force())
        await turns()
        assert (plane.tried, first.done()) == ([{"one"}], False)

        await wiring.set(networks("one", "two"))  # while the former is being applied
        second = asyncio.create_task(wiring.in_force())
        plane.free.release()
        await asyncio.wait_for(first, 10)
        await turns()
        assert (plane.applied, second.done()) == ([{"one"}], False)

        plane.failures = 1
        plane.free.release()
        for _ in range(3):  # it is tried again
            await asyncio.wait_for(plane.begun.acquire(), 10)
        assert (plane.applied, second.done()) == ([{"one"}], False)
        plane.free.release()
        await asyncio.wait_for(second, 10)
        assert plane.applied[-1] == {"one", "two"}
        await asyncio.wait_for(wiring.in_force(), 10)  # of what is in force already nobody waits
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
