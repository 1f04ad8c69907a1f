"""Runs the unpacking worker (unpack.py) from the agent's event loop, as an interpreter of its own; never forks."""

import asyncio
import os
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
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"LC_ALL": "C.UTF-8"},
        cwd="/",
    )
    try:
        out, err = await process.communicate(replace(request, parent_pid=os.getpid()).to_json())
    except asyncio.CancelledError:
        if process.returncode is None:
            process.kill()
            await asyncio.shield(process.wait())
        raise
    if not out:
        last = err.decode(errors="replace").strip().splitlines()[-1:]
        raise TransientError(f"unpacking ended early (status {process.returncode}{': ' + last[0] if last else ''})")
    reply = Reply.from_json(out)
    if reply.kind == "bug":
        # Not raised as a bug of the agent: one strange layer or a failing disk must not restart it again and again.
        raise TransientError(f"unpacking failed unexpectedly: {reply.problem}")
    return reply
