"""A container's standard input: a terminal or a pipe whose other end is given to whoever asked for the container."""

import fcntl
import os
import struct
import termios

from argosy.agent.runtime.interface import LogTarget
from argosy.agent.runtime.oci_config import ContainerSpec, build

from .conftest import Host, eventually, sh


async def launch_fed(host: Host, spec: ContainerSpec) -> tuple[str, int]:
    """Launch a container; return its id and the other end of its standard input."""
    fed: list[int] = []
    container_id = host.new_id()
    log = LogTarget(str(host.log_path(container_id)))
    await host.runtime.create(container_id, build(spec), host.rootfs, log, {}, feed=fed.append)
    await host.runtime.start(container_id)
    return container_id, fed[0]


async def read_until(terminal: int, text: bytes) -> bytes:
    """Read from a terminal until a text has come, or it has hung up."""
    os.set_blocking(terminal, False)
    seen = b""

    def come() -> bool:
        nonlocal seen
        try:
            seen += os.read(terminal, 65536)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return text in seen

    await eventually(come, f"{text!r}")
    assert text in seen, seen
    return seen


async def test_a_terminal_is_a_terminal_inside(host: Host) -> None:
    script = "tty; test -t 0 && test -t 1 && test -t 2 && id -u; stty -echo; echo ready"
    script += "; read line; echo got $line; stty size; trap 'exit 3' INT; echo wait; while :; do sleep 1; done"
    container_id, terminal = await launch_fed(host, sh(script, terminal=True, user="ann"))
    seen = await read_until(terminal, b"ready\r\n")
    assert seen.startswith(b"/dev/pts/0\r\n1001\r\n")
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
    os.write(terminal, b"hello\n")
    seen = await read_until(terminal, b"wait\r\n")
    assert b"got hello\r\n33 101\r\n" in seen
    os.write(terminal, b"\x03")
    assert (await host.wait(container_id)).code == 3
    os.close(terminal)
    assert host.lines(container_id) == []


async def test_a_shell_ends_when_its_terminal_hangs_up(host: Host) -> None:
    """Whoever holds the other end is the session's life, also across a new launcher: nobody else keeps it open."""
    container_id, terminal = await launch_fed(
        host, ContainerSpec(argv=("/bin/sh",), id_base=sh("").id_base, terminal=True)
    )
    os.write(terminal, b"echo a$((1+1))b\n")
    await read_until(terminal, b"a2b")
    await host.kill_launcher()
    os.write(terminal, b"echo a$((1+2))b\n")
    await read_until(terminal, b"a3b")
    assert container_id not in host.exits
    os.close(terminal)
    await host.wait(container_id)


async def test_a_pipe_carries_bytes_and_its_end(host: Host) -> None:
    container_id, feed = await launch_fed(host, sh("cat; echo over"))
    os.write(feed, b"one\ntwo\n")
    await eventually(lambda: len(host.lines(container_id)) == 2, "two lines")
    assert container_id not in host.exits
    os.close(feed)
    assert (await host.wait(container_id)).code == 0
    assert host.lines(container_id) == ["one", "two", "over"]
