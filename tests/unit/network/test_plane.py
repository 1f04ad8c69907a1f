"""The network plane's end, without a kernel."""

import os
from pathlib import Path

import pytest

from argosy.agent.network.desired import NetworkSettings, NodeIdentity
from argosy.agent.network.plane import NetworkPlane
from argosy.core.errors import TransientError


async def test_what_another_thread_has_just_let_go_of_is_not_watched(tmp_path: Path) -> None:
    """One that stops waits for no thread, which may be about to start argosy-dns anew: to it the old one has ended."""
    plane = NetworkPlane(NodeIdentity("node", "n1", "127.0.0.1"), NetworkSettings(state_dir=tmp_path, run_dir=tmp_path))
    assert plane._dns is not None
    plane._dns.pidfd = os.open(os.devnull, os.O_RDONLY)
    os.close(plane._dns.pidfd)
    plane._watch()
    assert plane._dns_ended.is_set()
    plane._dns.pidfd = -1
    await plane.close()


async def test_nobody_s_connections_are_none_before_anything_was_applied(tmp_path: Path) -> None:
    """Else a task that drains while its agent begins anew would be stopped at once."""
    plane = NetworkPlane(NodeIdentity("node", "n1", "127.0.0.1"), NetworkSettings(state_dir=tmp_path, run_dir=tmp_path))
    with pytest.raises(TransientError, match="nothing was applied yet"):
        await plane.connections("task")
    await plane.close()
