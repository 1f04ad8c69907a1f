"""Runs the unpacking worker (unpack.py) from the agent's event loop, as an interpreter of its own.

Not by asyncio's own subprocesses: uvloop forks for them, and a fork of a process that holds gRPC's threads may die in
gRPC's handlers before it executes anything. `subprocess` uses vfork, which runs no such handlers.
"""

import asyncio
import os
import subprocess
import sys
from dataclasses import replace

from argosy.agent.images.unpack import Reply, Request
from argosy.core.errors import TransientError

COMMAND = (sys.executable, "-I", "-m", "argosy.agent.images.unpack")
"""-I: neither the environment nor the working directory can give the interpreter other modules."""


async def run_worker(request: Request, command: tuple[str, ...] = COMMAND) -> Reply:
    """Return how unpacking went. TransientError when the worker died. When cancelled, the worker is killed first.

    The reply is the worker's word on stdout; its exit status may have been collected by somebody else, since the agent
    reaps the children of dead launchers.
    """
    spawning = asyncio.create_task(asyncio.to_thread(_spawn, command))
    try:
        process = await asyncio.shield(spawning)
    except asyncio.CancelledError:
        # The thread spawns it all the same.
        await asyncio.shield(asyncio.wait({spawning}))
        if not spawning.cancelled() and spawning.exception() is None:
            await asyncio.shield(asyncio.to_thread(_end, spawning.result()))
        raise
    talk = asyncio.create_task(
        asyncio.to_thread(process.communicate, replace(request, parent_pid=os.getpid()).to_json())
    )
    try:
        out, err = await asyncio.shield(talk)
    except asyncio.CancelledError:
        process.kill()
        await asyncio.shield(asyncio.wait({talk}))
        raise
    if not out:
        last = err.decode(errors="replace").strip().splitlines()[-1:]
        raise TransientError(f"unpacking ended early (status {process.returncode}{': ' + last[0] if last else ''})")
    reply = Reply.from_json(out)
    if reply.kind == "bug":
        # Not raised as a bug of the agent: one strange layer or a failing disk must not restart it again and again.
        raise TransientError(f"unpacking failed unexpectedly: {reply.problem}")
    return reply


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.communicate()


def _spawn(command: tuple[str, ...]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"LC_ALL": "C.UTF-8"},
        cwd="/",
    )
