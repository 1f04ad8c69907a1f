"""Run argosy-dns: `python -m argosy.agent.dns --control SOCKET --records FILE --resolv-conf FILE`. The agent does."""

import argparse
import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

from argosy.agent.dns.control import Control
from argosy.agent.dns.server import Server
from argosy.agent.dns.upstream import Upstream
from argosy.agent.dns.zone import Zone


def main() -> int:
    """Run until stopped. Returns the process's exit status."""
    parser = argparse.ArgumentParser(prog="argosy-dns", description="Answers names to the containers of a host.")
    parser.add_argument("--control", type=Path, required=True, help="unix socket that the agent connects to")
    parser.add_argument("--records", type=Path, required=True, help="file that keeps the records")
    parser.add_argument("--resolv-conf", type=Path, required=True, help="names the host's resolvers")
    options = parser.parse_args()
    # A signal meant for the agent's terminal is not meant for us: we end when the agent says so, or by SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        listening = _listen(options.control)
    except OSError as error:
        print(f"argosy-dns: cannot listen at {options.control}: {error.strerror}", file=sys.stderr)
        return 1
    os.chdir("/")
    pid_file = options.control.with_suffix(".pid")
    pid_file.write_text(f"{os.getpid()}\n")
    with listening:
        asyncio.run(_run(listening, options.records, options.resolv_conf))
        options.control.unlink(missing_ok=True)
        pid_file.unlink(missing_ok=True)
    return 0


async def _run(listening: socket.socket, records: Path, resolv_conf: Path) -> None:
    zone = Zone()
    server = Server(zone, Upstream(resolv_conf))
    control = Control(zone, server, records)
    control.load()
    await control.serve(listening)


def _listen(path: Path) -> socket.socket:
    """Listen at a path; a socket file that nobody listens at any more is replaced, by a rename that no client sees."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    listening.bind(str(temporary))
    os.chmod(temporary, 0o600)
    listening.listen(4)
    temporary.replace(path)
    return listening


if __name__ == "__main__":
    sys.exit(main())
