"""The user's program: who it runs as, where, how it ends, how it is told to."""

import asyncio
import os
import resource
import signal
import time
from dataclasses import replace

import pytest

from argosy.agent.runtime.errors import ContainerMissing, RuntimeRejected
from argosy.agent.runtime.oci_config import ContainerSpec, Ulimit

from .conftest import ID_BASE, Host, eventually, sh

IDS = "id -u; id -g; id -G; echo $HOME; pwd"


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", ["0", "0", "0", "/root", "/"]),
        ("ann", ["1001", "1002", "50 1002", "/home/ann", "/"]),
        ("1001", ["1001", "1002", "50 1002", "/home/ann", "/"]),
        ("ann:staff", ["1001", "50", "50", "/home/ann", "/"]),
        ("4000:4001", ["4000", "4001", "4001", "/", "/"]),
    ],
)
async def test_users_by_name_and_number(host: Host, user: str, expected: list[str]) -> None:
    _, lines = await host.run(sh(IDS, user=user))
    lines[2] = " ".join(sorted(lines[2].split(), key=int))
    assert lines == expected


async def test_additional_groups(host: Host) -> None:
    _, lines = await host.run(sh("id -G", user="ann", groups=(77,)))
    assert sorted(lines[0].split(), key=int) == ["50", "77", "1002"]


@pytest.mark.parametrize("user", ["bob", "ann:nogroup", "70000"])
async def test_unknown_users_are_a_reason(host: Host, user: str) -> None:
    with pytest.raises(RuntimeRejected, match=r"is not in the image's|outside the container's ids"):
        await host.launch(sh("true", user=user))
    assert await host.runtime.list() == []


async def test_working_directory_is_made(host: Host) -> None:
    exit, lines = await host.run(sh("pwd; stat -c %u .", cwd="/made/deep"))
    assert (exit.code, lines) == (0, ["/made/deep", "0"])


async def test_environment(host: Host) -> None:
    spec = ContainerSpec(argv=("env",), id_base=ID_BASE, env=("A=1", "B=x y=z", "PATH=/bin"), hostname="h")
    _, lines = await host.run(spec)
    assert {"A=1", "B=x y=z", "PATH=/bin", "HOSTNAME=h", "HOME=/root"} == set(lines)


@pytest.mark.parametrize(
    ("script", "code", "number"), [("exit 7", 7, None), ("kill -9 $$ ; exit 3", 3, None), ("true", 0, None)]
)
async def test_exit_codes(host: Host, script: str, code: int, number: int | None) -> None:
    exit, _ = await host.run(sh(script))
    assert (exit.code, exit.signal, exit.oom_killed) == (code, number, False)
    assert abs(exit.finished_at - time.time()) < 60


@pytest.mark.parametrize(
    ("argv", "code", "text"),
    [
        (("no-such-program",), 127, "not found in the image's PATH"),
        (("/no/such/program",), 127, "does not exist"),
        (("/srv/noexec",), 126, "Permission denied"),
        (("/srv",), 126, "Permission denied"),
    ],
)
async def test_programs_that_cannot_be_executed(host: Host, argv: tuple[str, ...], code: int, text: str) -> None:
    container_id = await host.create(ContainerSpec(argv=argv, id_base=ID_BASE))
    with pytest.raises(RuntimeRejected, match=text) as caught:
        await host.runtime.start(container_id)
    assert caught.value.exit_code == code
    assert (await host.wait(container_id)).code == code


async def test_stop_signal_then_kill(host: Host) -> None:
    polite = await host.launch(sh("trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.05; done"))
    stubborn = await host.launch(sh("trap '' TERM; echo ready; sleep 1000"))
    await eventually(lambda: host.lines(polite) == host.lines(stubborn) == ["ready"], "both ready")
    for container_id in (polite, stubborn):
        await host.runtime.kill(container_id, signal.SIGTERM)
    assert (await host.wait(polite)).code == 5
    assert host.lines(polite) == ["ready", "bye"]
    await asyncio.sleep(0)
    assert stubborn not in host.exits
    await host.runtime.kill(stubborn, signal.SIGKILL, everything=True)
    exit = await host.wait(stubborn)
    assert (exit.code, exit.signal) == (137, 9)
    await host.runtime.kill(stubborn, signal.SIGTERM)


async def test_init_forwards_signals_and_reaps(host: Host) -> None:
    spec = sh("(sleep 0.01 &) ; trap 'exit 9' TERM; ps -o pid,comm; echo ready; while :; do sleep 0.05; done")
    container_id = await host.launch(replace(spec, init="/usr/bin/tini-static"))
    await eventually(lambda: "ready" in host.lines(container_id), "ready")
    assert any(line.split()[0] == "1" and "argosy-init" in line for line in host.lines(container_id)[1:])
    await host.runtime.kill(container_id, signal.SIGTERM)
    assert (await host.wait(container_id)).code == 9


async def test_signals_are_not_inherited_as_ignored(host: Host) -> None:
    spec = ContainerSpec(argv=("grep", "-E", "Sig(Ign|Blk)", "/proc/self/status"), id_base=ID_BASE)
    _, lines = await host.run(spec)
    # Signals 32 and 33 belong to the C library, and no program can change what it inherited for them.
    assert {int(line.split()[1], 16) & ~(1 << 31 | 1 << 32) for line in lines} == {0}


async def test_priority_is_normal(host: Host) -> None:
    """The launcher runs at a higher one, which must not be inherited."""
    container_id = await host.launch(sh("cut -d' ' -f19 /proc/self/stat; sleep 1000"))
    await eventually(lambda: host.lines(container_id) == [str(os.getpriority(os.PRIO_PROCESS, 0))], "its nice value")
    result = await host.runtime.exec(container_id, ("cut", "-d ", "-f19", "/proc/self/stat"), timeout_s=60)
    assert result.output.decode().split() == host.lines(container_id)


async def test_limits_of_descriptors_are_the_hosts(host: Host) -> None:
    """The launcher raises its own, which must not be inherited."""
    _, lines = await host.run(sh("ulimit -Sn; ulimit -Hn"))
    assert lines == [str(limit) for limit in resource.getrlimit(resource.RLIMIT_NOFILE)]


async def test_ulimits(host: Host) -> None:
    spec = sh("ulimit -n; ulimit -Hn; ulimit -c", ulimits=(Ulimit("nofile", 100, 200), Ulimit("core", 0, 0)))
    _, lines = await host.run(spec)
    assert lines == ["100", "200", "0"]


async def test_a_ulimit_above_the_hosts_is_a_reason(host: Host) -> None:
    with pytest.raises(RuntimeRejected, match=r"ulimit nofile: 9999999 was asked for, this host's hard limit is \d+"):
        await host.launch(sh("true", ulimits=(Ulimit("nofile", 1024, 9_999_999),)))
    assert await host.runtime.list() == []


async def test_state_goes_from_created_to_running_to_stopped(host: Host) -> None:
    async def status() -> tuple[str, int]:
        (state,) = await host.runtime.list()
        assert state.labels == {"test": "yes"}
        return state.status, state.pid

    container_id = await host.create(sh("sleep 1000"))
    assert (await status())[0] == "created"
    await host.runtime.start(container_id)
    assert (await status())[0] == "running"
    await host.runtime.start(container_id)
    await host.runtime.kill(container_id, 9)
    await host.wait(container_id)
    assert await status() == ("stopped", 0)
    with pytest.raises(RuntimeRejected, match="is stopped"):
        await host.runtime.start(container_id)
    await host.runtime.delete(container_id)
    assert await host.runtime.list() == []


async def test_a_created_container_can_be_deleted(host: Host) -> None:
    container_id = await host.create(sh("true"))
    await host.runtime.delete(container_id)
    assert await host.runtime.list() == []


async def test_ids_are_checked(host: Host) -> None:
    container_id = await host.create(sh("true"))
    with pytest.raises(RuntimeRejected, match="exists already"):
        await host.create(sh("true"), container_id)
    assert len(await host.runtime.list()) == 1
    for bad in ("", "..", "a/b", "a b", "x" * 200):
        with pytest.raises(RuntimeRejected, match="container id"):
            await host.create(sh("true"), bad or "\0")
    with pytest.raises(ContainerMissing):
        await host.runtime.start("nobody")
    await host.runtime.delete("nobody")


async def test_many_at_once(host: Host) -> None:
    started = await asyncio.gather(*(host.launch(sh(f"exit {number}")) for number in range(30)))
    exits = [await host.wait(container_id) for container_id in started]
    assert [exit.code for exit in exits] == list(range(30))
