"""What the agent tells of its network: that it is in force, and not before the plane has brought it to the kernel."""

import asyncio
from dataclasses import replace

import pytest

from argosy.agent.logic.assignments import Assignments
from argosy.agent.logic.pieces import Pieces
from argosy.agent.network.desired import LocalTask
from argosy.agent.session.backoff import Backoff
from argosy.agent.tasks.wiring import Wiring, network_state
from argosy.core.assignment import NetworkAssignment, RevisionAssignment, TaskAssignment
from argosy.core.errors import ArgosyError, PreconditionError, TransientError
from argosy.core.network import Attachment
from argosy.core.service import HostPort, TaskSpec
from argosy.core.task_state import TaskState


class Plane:
    """Applies a state when it is let to, and fails as often as it is told to."""

    def __init__(self) -> None:
        self.begun, self.free = asyncio.Semaphore(0), asyncio.Semaphore(0)
        self.failures = 0
        self.why: ArgosyError = TransientError("the kernel has no memory left")
        self.tried: list[set[str]] = []
        self.applied: list[set[str]] = []

    async def apply(self, state, *, synced: bool) -> None:
        self.tried.append(set(state.networks))
        self.begun.release()
        await self.free.acquire()
        if self.failures:
            self.failures -= 1
            raise self.why
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
    wiring = Wiring(plane, "n1")  # type: ignore[arg-type]
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


HERE = (Attachment("one", 5),)


class Kernel(Plane):
    """Applies at once, and notes whose links are to be there."""

    def __init__(self) -> None:
        super().__init__()
        self.linked: list[list[str]] = []

    async def apply(self, state, *, synced: bool) -> None:
        self.linked.append([task.container_id for task in state.tasks])

    async def detach(self, task_id: str) -> None:
        """Be gone at once."""


def on_one(*tasks: TaskAssignment) -> Assignments:
    network = NetworkAssignment("one", name="one", subnet="10.9.0.0/24", vni=4096)
    return Assignments(Pieces((network, *tasks)))


async def test_what_a_former_life_left_keeps_its_links_until_it_is_detached():
    """Also a task that is to stop: it drains, or has its grace period."""
    plane = Kernel()
    wiring = Wiring(plane, "n1")  # type: ignore[arg-type]
    wiring.adopt(["going", "staying"])
    stopping = (TaskAssignment(i, desired_state=TaskState.SHUTDOWN, attachments=HERE) for i in ("going", "gone"))
    await wiring.set(on_one(*stopping, TaskAssignment("staying", attachments=HERE)))
    running = asyncio.create_task(wiring.run())
    try:
        await asyncio.wait_for(wiring.in_force(), 10)
        await wiring.detach("going")
        await asyncio.wait_for(wiring.in_force(), 10)
        assert plane.linked == [["going", "staying"], ["staying"]]
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def test_ports_and_names_lead_no_more_to_what_a_former_life_left_once_it_is_to_stop():
    revision = RevisionAssignment("web", 1, "web", {}, TaskSpec(host_ports=(HostPort("tcp", 80, 80),)))
    stopping = TaskAssignment("t", service_id="web", revision=1, desired_state=TaskState.SHUTDOWN, attachments=HERE)
    going = network_state("n1", Assignments(Pieces((stopping, revision))), {}, {"t"}).tasks
    assert going == (LocalTask("t", HERE),)
    stays = replace(stopping, desired_state=TaskState.RUNNING)
    (staying,) = network_state("n1", Assignments(Pieces((stays, revision))), {}, {"t"}).tasks
    assert (staying.service_id, staying.host_ports) == ("web", revision.spec.host_ports)


def test_a_task_that_is_over_has_no_address_any_more():
    """It stays assigned, as history; its address may be another's by now, who would else be taken for it."""
    over = TaskAssignment("z", attachments=HERE, over=True)
    successor = TaskAssignment("a", attachments=HERE)
    assert network_state("n1", on_one(over, successor), {}, {"z"}).tasks == (LocalTask("a", HERE),)


@pytest.mark.parametrize("why", [TransientError("no memory left"), PreconditionError("no free uplink address")])
async def test_what_is_new_does_not_wait_until_what_fails_is_tried_again(monkeypatch, why):
    """One network that cannot be made keeps no other from its changes."""
    monkeypatch.setattr(Backoff, "next", lambda _: 1000.0)
    plane = Plane()
    plane.failures, plane.why = 1, why
    wiring = Wiring(plane, "n1")  # type: ignore[arg-type]
    running = asyncio.create_task(wiring.run())
    try:
        await wiring.set(networks("one"))
        plane.free.release()
        await asyncio.wait_for(plane.begun.acquire(), 10)
        await turns()
        assert (plane.applied, len(plane.tried)) == ([], 1)
        await wiring.set(networks("one", "two"))
        plane.free.release()
        await asyncio.wait_for(wiring.in_force(), 10)
        assert plane.applied == [{"one", "two"}]
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
