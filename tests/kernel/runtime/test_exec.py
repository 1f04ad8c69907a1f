"""Processes that join a running container, as health checks do."""

# ruff: noqa: ASYNC230 - tests look at local files while nothing else runs in their loop

import time
from dataclasses import replace

import pytest

from argosy.agent.runtime.errors import RuntimeRejected

from .conftest import DEADLINE_S, Host, sh


async def test_it_runs_inside_as_the_containers_user(host: Host) -> None:
    container_id = await host.launch(sh("sleep 1000", env=("A=outer",), hostname="inside", user="ann"))
    script = "id -u; hostname; echo $A $B; ls /proc | grep -c '^[0-9]'; grep -E 'CapEff|Seccomp:' /proc/self/status"
    script += "; echo x >&2"
    result = await host.runtime.exec(container_id, ("/bin/sh", "-c", script), timeout_s=60, env=("B=more",))
    lines = result.output.decode().splitlines()
    assert result.code == 0
    assert lines[:3] == ["1001", "inside", "outer more"]
    assert int(lines[3]) <= 5
    assert lines[4].split()[1] == "0" * 16
    assert lines[5].split() == ["Seccomp:", "2"]
    assert lines[6] == "x"


async def test_codes_users_and_directories(host: Host) -> None:
    container_id = await host.launch(sh("sleep 1000"))
    assert (await host.runtime.exec(container_id, ("sh", "-c", "exit 4"), timeout_s=60)).code == 4
    missing = await host.runtime.exec(container_id, ("nothing",), timeout_s=60)
    assert missing.code == 127
    assert b"not found" in missing.output
    result = await host.runtime.exec(container_id, ("sh", "-c", "id -u; pwd"), timeout_s=60, user="ann", cwd="/srv")
    assert result.output == b"1001\n/srv\n"
    with pytest.raises(RuntimeRejected, match="bob"):
        await host.runtime.exec(container_id, ("true",), timeout_s=60, user="bob")


async def test_it_is_killed_at_its_time_out_with_its_children(host: Host) -> None:
    container_id = await host.launch(sh("sleep 1000"))
    result = await host.runtime.exec(container_id, ("sh", "-c", "echo begun; sleep 500; echo not"), timeout_s=2)
    assert (result.code, result.timed_out, result.output) == (None, True, b"begun\n")

    async def processes() -> int:
        return (await host.runtime.usage(container_id)).pids

    deadline = time.monotonic() + DEADLINE_S
    while await processes() > 2:
        assert time.monotonic() < deadline, "the shell and its sleep; nothing of the check is left"


async def test_the_last_4_kib_of_output_are_kept(host: Host) -> None:
    container_id = await host.launch(sh("sleep 1000"))
    result = await host.runtime.exec(container_id, ("sh", "-c", "seq 1 100000"), timeout_s=60)
    assert len(result.output) == 4096
    assert result.output.endswith(b"99999\n100000\n")


async def test_limits_hold_for_it_too(host: Host) -> None:
    container_id = await host.launch(replace(sh("sleep 1000")))
    result = await host.runtime.exec(container_id, ("cat", "/proc/self/cgroup"), timeout_s=60)
    (state,) = await host.runtime.list()
    with open(f"/proc/{state.pid}/cgroup") as file:
        outside = file.read()
    assert container_id in outside
    assert container_id not in result.output.decode(), "its cgroup namespace hides where it is"
    assert "/../" not in result.output.decode(), "it is in the container's group, not above it"


async def test_only_running_containers_can_be_joined(host: Host) -> None:
    container_id = await host.create(sh("true"))
    with pytest.raises(RuntimeRejected, match="is created"):
        await host.runtime.exec(container_id, ("true",), timeout_s=1)
