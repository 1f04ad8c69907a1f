"""The agent as a program: how it is put together, and how it says that it cannot be."""

import asyncio
import errno
from pathlib import Path
from types import SimpleNamespace

import pytest

from argosy.agent.main import Agent, _last_words
from argosy.agent.network.desired import HostReport
from argosy.agent.settings import AgentSettings
from argosy.agent.state import StateDir
from argosy.core.errors import TransientError
from argosy.core.node import NodeDescription


def test_an_error_deep_in_task_groups_is_told_in_a_sentence() -> None:
    nested = ExceptionGroup("a", [ExceptionGroup("b", [TransientError("the launcher is restarting")])])
    assert _last_words(nested) == "the launcher is restarting"
    assert "make room" in _last_words(ExceptionGroup("a", [OSError(errno.ENOSPC, "No space left on device")]))
    with pytest.raises(ExceptionGroup):
        _last_words(ExceptionGroup("a", [KeyError("x")]))


async def test_the_plane_tells_nothing_to_an_agent_that_could_not_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is at work before there is an agent, and goes on until it is closed: on a full disk there never is one."""

    def full(state: StateDir) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(StateDir, "load_tasks", full)
    told: list[object] = []
    plane = SimpleNamespace(on_mesh=told.append, on_ports=told.append, on_host=told.append)
    settings = AgentSettings((), "n1", tmp_path, tmp_path)
    state = StateDir(tmp_path)
    async with asyncio.TaskGroup() as group:
        with pytest.raises(OSError, match="No space left"):
            Agent(settings, state, state.identity(), NodeDescription(), *4 * (plane,), group)  # type: ignore[arg-type]
    plane.on_host(HostReport())
    assert told == [HostReport()]
