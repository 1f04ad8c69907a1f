"""kill -9 of the launcher and of the agent: containers go on, no line and no exit is lost or doubled."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from argosy.agent.launcher import exits, rundir, wire
from argosy.agent.launcher.loop import Loop
from argosy.agent.runtime.errors import ContainerUnstarted, RuntimeTransient

from .conftest import Host, eventually, sh

CHATTER = "i=0; while [ $i -lt {count} ]; do i=$((i+1)); echo line $i; {pause}; done; exit 3"
WAITING = "echo ready; while :; do sleep 0.05; done"


async def test_a_killed_launcher_loses_and_doubles_no_line(host: Host) -> None:
    container_id = await host.launch(sh(CHATTER.format(count=3000, pause="[ $((i % 50)) != 0 ] || sleep 0.02")))
    pid = await host.pid(container_id)
    started = rundir.start_ticks(pid)
    for round in range(1, 5):
        await eventually(lambda round=round: len(host.lines(container_id)) > 500 * round, "output")
        await host.kill_launcher()
        assert rundir.start_ticks(pid) in (started, 0), "the container was touched"
    exit = await host.wait(container_id)
    assert exit.code == 3
    assert host.lines(container_id) == [f"line {number}" for number in range(1, 3001)]


async def test_an_exit_while_no_launcher_lives_is_known(host: Host) -> None:
    container_id = await host.launch(sh("read line < /run/go; echo last words; exit 42", tmpfs=()))
    failing = await host.launch(sh("sleep 1000"))
    pid = await host.pid(failing)
    host.runtime._supervisor.cancel()  # type: ignore[union-attr]
    os.kill(host.runtime.launcher_pid, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: rundir.start_ticks(pid) == 0, "the container's end")
    await host.restart_agent()
    exit = await host.wait(failing)
    assert exit.signal == 9 or exit.code is None
    assert container_id in {state.id for state in await host.runtime.list()}


async def test_exit_codes_are_known_to_the_agent_as_the_new_parent(host: Host) -> None:
    """The launcher is dead when the container ends; the agent, as subreaper, sees how, and holds the last output."""
    container_id = await host.launch(sh(f"trap 'echo last words; exit 42' TERM; {WAITING}"))
    await eventually(lambda: host.lines(container_id) == ["ready"], "ready")
    pid = await host.pid(container_id)
    launcher = host.runtime.launcher_pid
    os.kill(launcher, signal.SIGSTOP)
    os.kill(pid, signal.SIGTERM)
    await eventually(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z", "the end")
    os.kill(launcher, signal.SIGKILL)
    exit = await host.wait(container_id)
    assert exit.code == 42
    assert host.lines(container_id) == ["ready", "last words"]


async def test_an_exit_after_a_launcher_restart_is_known(host: Host) -> None:
    container_id = await host.launch(sh(f"trap 'exit 6' TERM; {WAITING}"))
    await eventually(lambda: host.lines(container_id) == ["ready"], "ready")
    await host.kill_launcher()
    await host.runtime.kill(container_id, signal.SIGTERM)
    assert (await host.wait(container_id)).code == 6


async def test_an_end_that_waits_to_be_told_is_not_that_of_the_next_container_with_its_id(host: Host) -> None:
    """A launcher's death ends what waits for its start; it is made anew while nobody has heard of that yet."""
    host.stop_collecting()
    container_id = await host.create(sh("exit 5"))
    await host.kill_launcher()
    await eventually(lambda: not host.runtime._exits.empty(), "its end")
    await host.runtime.delete(container_id)
    await host.create(sh("exit 7"), container_id)
    await host.runtime.start(container_id)
    host.collect()
    assert (await host.wait(container_id)).code == 7


async def test_a_restarted_agent_finds_all_and_misses_no_exit(host: Host) -> None:
    living = await host.launch(sh("echo ready; sleep 1000"))
    ending = await host.launch(sh(f"trap 'exit 8' TERM; {WAITING}"))
    await eventually(lambda: host.lines(ending) == ["ready"], "ready")
    ending_pid = await host.pid(ending)
    consumed = await host.launch(sh("exit 1"))
    await host.wait(consumed)
    await asyncio.sleep(0)
    await host.close()
    pid = next(int(name) for name in [str(host.runtime.launcher_pid)])
    await eventually(lambda: os.path.exists(f"/proc/{pid}"), "the launcher lives on")
    host.exits.clear()
    os.kill(ending_pid, signal.SIGTERM)
    host.runtime = host.new_runtime()
    await host.open()
    assert host.runtime.launcher_pid == pid
    assert {state.id for state in await host.runtime.list()} == {living, ending, consumed}
    assert (await host.wait(ending)).code == 8
    assert living not in host.exits


async def test_an_agent_and_a_launcher_both_restarted(host: Host) -> None:
    container_id = await host.launch(sh(CHATTER.format(count=200, pause="sleep 0.01")))
    await eventually(lambda: len(host.lines(container_id)) > 10, "output")
    await host.restart_agent()
    await host.kill_launcher()
    exit = await host.wait(container_id)
    assert host.lines(container_id) == [f"line {number}" for number in range(1, 201)]
    # Kernels before 6.15 cannot tell how a process ended whose parent was neither of the two.
    assert exit.code in (3, None)


async def test_a_launcher_that_is_told_to_stop_is_replaced(host: Host) -> None:
    container_id = await host.launch(sh("echo ready; sleep 1000"))
    await eventually(lambda: host.lines(container_id) == ["ready"], "ready")
    pid, old = await host.pid(container_id), host.runtime.launcher_pid
    os.kill(old, signal.SIGTERM)
    await eventually(lambda: host.runtime.launcher_pid != old, "a new launcher")
    assert await host.pid(container_id) == pid


async def test_a_launcher_of_another_version_is_replaced(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    container_id = await host.launch(sh("sleep 1000"))
    pid, old = await host.pid(container_id), host.runtime.launcher_pid
    await host.close()
    # The launcher reads its own copy of the constant: to it, this agent is of a later version.
    monkeypatch.setattr("argosy.agent.launcher.wire.PROTOCOL", wire.PROTOCOL + 1)
    host.runtime = host.new_runtime()
    opening = asyncio.create_task(host.open())
    await eventually(lambda: _has_ended(old), "the old one's end")
    monkeypatch.undo()
    await opening
    assert host.runtime.launcher_pid != old
    assert await host.pid(container_id) == pid


async def test_a_container_that_waited_for_its_start_ends_with_the_launcher(host: Host) -> None:
    container_id = await host.create(sh("true"))
    await host.kill_launcher()
    await host.wait(container_id)
    await host.runtime.delete(container_id)


async def test_one_that_has_ended_with_its_launcher_is_not_started(host: Host) -> None:
    container_id = await host.create(sh("true"))
    await host.kill_launcher()
    with pytest.raises(ContainerUnstarted):
        await host.runtime.start(container_id)
    await host.wait(container_id)
    with pytest.raises(ContainerUnstarted):
        await host.runtime.start(container_id)


async def test_of_a_program_that_ran_it_is_known_however_its_start_was_cut_short(host: Host) -> None:
    """Else it would be run a second time. The moment between its start and the launcher's next breath is the one."""
    for round in range(30):
        container_id = await host.create(sh("echo ran; exec sleep 1000"))
        old = host.runtime.launcher_pid
        starting = asyncio.create_task(host.runtime.start(container_id))
        await asyncio.sleep(0.0001 * round)
        os.kill(old, signal.SIGKILL)
        await asyncio.gather(starting, return_exceptions=True)
        await eventually(lambda old=old: host.runtime.launcher_pid != old, "a new launcher")
        (found,) = await host.runtime.list()
        if found.started_at is None:
            await host.wait(container_id)
            assert host.lines(container_id) == []
        else:
            await eventually(lambda: host.lines(container_id) == ["ran"] or container_id in host.exits, "its life")  # noqa: B023
        await host.runtime.delete(container_id)


async def test_requests_under_way_fail_as_transient(host: Host) -> None:
    container_id = await host.launch(sh("sleep 1000"))
    waiting = asyncio.create_task(host.runtime.exec(container_id, ("sleep", "100"), timeout_s=100))
    await eventually_async(lambda: _children(host.runtime.launcher_pid), "the exec")
    os.kill(host.runtime.launcher_pid, signal.SIGKILL)
    with pytest.raises(RuntimeTransient):
        await waiting
    assert (await host.runtime.exec(container_id, ("true",), timeout_s=60)).code == 0


def _has_ended(pid: int) -> bool:
    """Whether a process is gone, or a zombie that its parent has not reaped yet."""
    path = Path(f"/proc/{pid}/stat")
    return not path.exists() or path.read_text().rpartition(")")[2].split()[0] == "Z"


def _children(pid: int) -> bool:
    return len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()) >= 2


async def eventually_async(condition: object, what: str) -> None:
    await eventually(condition, what)  # type: ignore[arg-type]


async def test_half_made_containers_are_removed_by_the_next_launcher(host: Host) -> None:
    """Kill the launcher in the middle of many creates: whatever it had begun is whole or gone."""
    creates = [asyncio.create_task(host.launch(sh("sleep 1000"))) for _ in range(12)]
    await asyncio.sleep(0.03)
    await host.kill_launcher()
    results = await asyncio.gather(*creates, return_exceptions=True)
    made = {result for result in results if isinstance(result, str)}
    assert all(isinstance(result, str | RuntimeTransient) or "ended" in str(result) for result in results), results
    states = {state.id: state.status for state in await host.runtime.list()}
    assert made <= states.keys()
    assert all(states[container_id] == "running" for container_id in made)


def test_foreign_status_needs_a_reaped_process() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(9)
    pidfd = os.pidfd_open(pid)
    assert exits.child_status(pidfd, reap=False) in (9 << 8, None)
    os.waitpid(pid, 0)
    status = exits.foreign_status(pidfd)
    os.close(pidfd)
    release = tuple(int(part) for part in os.uname().release.split(".")[:2])
    assert status == (9 << 8 if release >= (6, 15) else None)


def test_the_loop_calls_timers_in_order() -> None:
    loop, called = Loop(), []
    loop.after(0.02, lambda: called.append("second"))
    loop.after(0.01, lambda: called.append("first"))
    while len(called) < 2:
        loop.turn()
    assert called == ["first", "second"]
