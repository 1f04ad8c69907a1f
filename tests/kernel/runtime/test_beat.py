"""The host's own beat: the launcher sends it, a controller reads it."""

from __future__ import annotations

import asyncio
import socket

from argosy.agent.runtime.native import leave_words
from argosy.controller.session.heard import HeardNodes

from .conftest import DEADLINE_S, Host

KEY = bytes(range(32))


async def test_beats_tell_why_the_agent_ended_until_there_is_one_again(host: Host) -> None:
    heard = HeardNodes(lambda node_id: KEY)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as controller:
        controller.bind(("127.0.0.1", 0))
        at = f"127.0.0.1:{controller.getsockname()[1]}"
        settings = {"node": "n1", "key": KEY.hex(), "period_s": 0.1, "controllers": [at]}

        async def hear(trouble: str) -> None:
            async with asyncio.timeout(DEADLINE_S):
                while "n1" not in heard.heard or heard.heard["n1"].trouble != trouble:
                    heard.beat(await asyncio.get_running_loop().sock_recv(controller, 4096))

        await host.runtime.beat(settings)
        await hear("")
        await host.close()
        leave_words(str(host.directory / "run/launcher.sock"), "No space left on device:\nmake room")
        await hear("No space left on device: make room")
        await host.restart_agent()
        await host.runtime.beat(settings)
        await hear("")


async def test_an_agent_that_ends_where_there_is_no_launcher_ends_all_the_same(host: Host) -> None:
    leave_words(str(host.directory / "run/nobody.sock"), "No space left on device")
