"""Memory, processes and CPU: a container that wants too much ends or waits alone."""

import pytest

from argosy.agent.runtime.errors import RuntimeRejected
from argosy.agent.runtime.oci_config import Limits

from .conftest import Host, eventually, sh

MIB = 2**20


async def test_a_memory_hog_ends_alone(host: Host) -> None:
    neighbour = await host.launch(sh("echo ready; sleep 1000", limits=Limits(memory_bytes=32 * MIB)))
    hog = await host.launch(sh("exec tail /dev/zero", limits=Limits(memory_bytes=32 * MIB, memory_swap_bytes=32 * MIB)))
    exit = await host.wait(hog)
    assert exit.oom_killed
    assert exit.signal == 9
    assert host.lines(neighbour) == ["ready"]
    assert neighbour not in host.exits
    assert (await host.runtime.usage(neighbour)).oom_kills == 0


async def test_a_fork_bomb_is_stopped_by_the_pids_limit(host: Host) -> None:
    bomb = await host.launch(sh("f() { f | f & }; f; sleep 1000", limits=Limits(pids=20)))
    other = await host.launch(sh("while :; do (true); echo alive; sleep 0.05; done"))

    async def pids() -> int:
        return (await host.runtime.usage(bomb)).pids

    for _ in range(20):
        assert await pids() <= 20
        seen = len(host.lines(other))
        await eventually(lambda seen=seen: len(host.lines(other)) > seen, "the neighbour goes on")
    await host.runtime.kill(bomb, 9, everything=True)
    assert (await host.wait(bomb)).code is not None


async def test_pids_are_limited_by_default(host: Host) -> None:
    _, lines = await host.run(sh("cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null"))
    assert lines == ["4096"]


async def test_limits_are_what_was_asked(host: Host) -> None:
    limits = Limits(cpus=0.5, cpu_shares=512, memory_bytes=64 * MIB, memory_high_bytes=48 * MIB, pids=50)
    script = (
        "cd /sys/fs/cgroup; cat cpu/cpu.cfs_quota_us cpu/cpu.shares memory/memory.limit_in_bytes cpu.max memory.max"
    )
    _, lines = await host.run(sh(f"({script}) 2>/dev/null", limits=limits))
    assert lines in (["50000", "512", str(64 * MIB)], ["50000 100000", str(64 * MIB)])


async def test_a_cpuset_holds(host: Host) -> None:
    _, lines = await host.run(sh("grep Cpus_allowed_list /proc/self/status", limits=Limits(cpuset="0")))
    assert lines[0].split() == ["Cpus_allowed_list:", "0"]


async def test_a_limit_the_kernel_refuses_is_a_reason(host: Host) -> None:
    with pytest.raises(RuntimeRejected, match=r"cpuset\.cpus = 9999"):
        await host.launch(sh("true", limits=Limits(cpuset="9999")))
    assert await host.runtime.list() == []


async def test_usage_is_read_back(host: Host) -> None:
    container_id = await host.launch(sh("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo done; sleep 1000"))
    await eventually(lambda: host.lines(container_id) == ["done"], "the work")
    usage = await host.runtime.usage(container_id)
    assert usage.cpu_s > 0.001
    assert usage.memory_bytes > 0
    assert 1 <= usage.pids <= 2
    assert usage.oom_kills == 0
