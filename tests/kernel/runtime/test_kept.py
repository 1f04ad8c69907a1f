"""What the launcher keeps for the agent: descriptors under names, which nobody else gets hold of."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from argosy.agent.launcher import wire

from .conftest import DEADLINE_S, Host, eventually, sh


class Client:
    """A connection to the launcher, by code that is not the agent's."""

    def __init__(self, host: Host) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(DEADLINE_S)
        self._socket.connect(str(host.directory / "run/launcher.sock"))

    def ask(self, op: str, *fds: int, **arguments: Any) -> tuple[dict[str, Any], list[int]]:
        """Send a request, and return its answer and the descriptors that came with it."""
        socket.send_fds(self._socket, [wire.pack({"seq": 1, "op": op, **arguments})], fds)
        unpacker, received = wire.Unpacker(), []
        while True:
            data, fds, _, _ = socket.recv_fds(self._socket, 4096, 64)
            assert data, "the launcher ended the connection"
            received += fds
            for message in unpacker.feed(data):
                return message, received

    def keep(self, name: str, *fds: int) -> dict[str, Any]:
        return self.ask("keep", *fds, name=name, count=len(fds))[0]

    def names(self) -> list[str]:
        return self.ask("kept")[0]["ok"]["names"]

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def client(host: Host) -> Iterator[Client]:
    with closing(Client(host)) as made:
        yield made


def given_away(client: Client, name: str) -> int:
    """Have a pipe's end for writing kept, and nobody else hold it; return the other end."""
    reading, writing = os.pipe()
    assert "ok" in client.keep(name, writing)
    os.close(writing)
    return reading


def ended(reading: int) -> bool:
    """Tell whether nobody holds the other end of a pipe any more."""
    poll = select.poll()
    poll.register(reading, 0)
    return bool(poll.poll(0))


async def test_what_is_kept_is_given_to_whoever_comes_until_it_is_dropped(host: Host, client: Client) -> None:
    reading = given_away(client, "dns/one")
    other = given_away(client, "dns/two")
    client.close()
    await host.restart_agent()
    with closing(Client(host)) as later:
        assert later.names() == ["dns/one", "dns/two"]
        answer, fds = later.ask("give", name="dns/one")
        assert answer["ok"] == {"count": 1}
        os.write(fds[0], b"still there")
        assert os.read(reading, 100) == b"still there"
        os.close(fds[0])
        assert not ended(reading)
        later.ask("drop", name="dns/one")
        assert ended(reading)
        assert not ended(other)
        assert later.ask("give", name="dns/one") == ({"seq": 1, "ok": {"count": 0}}, [])
        assert "ok" in later.ask("drop", name="dns/one")[0]
    os.close(reading)
    os.close(other)


async def test_a_name_has_what_was_given_last(host: Host, client: Client) -> None:
    first, second = given_away(client, "dns/one"), given_away(client, "dns/one")
    assert ended(first)
    assert not ended(second)


async def test_what_did_not_come_is_not_kept(host: Host, client: Client) -> None:
    reading, writing = os.pipe()
    answer, _ = client.ask("keep", writing, name="dns/one", count=2)
    os.close(writing)
    assert answer["error"]["kind"] == "rejected"
    assert client.names() == []
    assert ended(reading)


async def test_what_nobody_asked_to_be_kept_goes_with_the_connection(host: Host, client: Client) -> None:
    reading, writing = os.pipe()
    client.ask("kept", writing)
    os.close(writing)
    assert not ended(reading)
    client.close()
    await eventually(lambda: ended(reading), "the launcher has let go of it")


async def test_no_container_holds_what_is_kept(host: Host, client: Client) -> None:
    """Neither one that waits for its start, for however long, nor one that runs, nor a process that joins it."""
    reading = given_away(client, "dns/one")
    inode = os.stat(reading).st_ino
    waiting = await host.create(sh("sleep 1000"))
    running = await host.launch(sh("sleep 1000"))
    pid = await host.pid(running)
    assert not any(f"pipe:[{inode}]" in os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd"))
    listed = await host.runtime.exec(running, ("/bin/sh", "-c", "ls -l /proc/$$/fd"), timeout_s=DEADLINE_S)
    assert f"pipe:[{inode}]".encode() not in listed.output
    client.ask("drop", name="dns/one")
    assert ended(reading)
    assert {s.id: s.status for s in await host.runtime.list()} == {waiting: "created", running: "running"}
    await host.runtime.start(waiting)


async def test_the_agent_is_told_of_each_launcher(host: Host) -> None:
    """What one kept has ended with it: the next one knows nothing."""
    started: list[int] = []
    host.runtime.on_launcher = lambda: started.append(host.runtime.launcher_pid)
    with closing(Client(host)) as client:
        reading = given_away(client, "dns/one")
    await host.kill_launcher()
    assert ended(reading)
    assert started == [host.runtime.launcher_pid]
    with closing(Client(host)) as client:
        assert client.names() == []
