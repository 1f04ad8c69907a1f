"""The other end of an interactive program's standard input: bytes, ends, sizes, and who may be attached when."""

import asyncio
import fcntl
import os
import struct
import termios
import tty

import pytest

from argosy.agent.tasks import console
from argosy.agent.tasks.console import Console, Consoles


async def test_all_of_it_passes_a_full_pipe_and_then_its_end():
    reader, fd = os.pipe()
    feed = Console(fd, terminal=False)
    sent = os.urandom(300_000)
    writing = asyncio.create_task(feed.write(sent))
    got = b""
    while len(got) < len(sent):
        got += await asyncio.to_thread(os.read, reader, 65536)
    await writing
    feed.end_input()
    assert (got, os.read(reader, 1)) == (sent, b"")
    await feed.write(b"more")  # to nobody
    os.close(reader)


async def test_a_program_that_reads_no_more_is_not_waited_for():
    reader, fd = os.pipe()
    feed = Console(fd, terminal=False)
    os.close(reader)
    await feed.write(b"x" * 300_000)
    feed.close()


async def test_a_terminal_goes_both_ways_has_a_size_and_ends_behind_its_last_byte():
    master, slave = os.openpty()
    tty.setraw(slave)
    joined = Console(master, terminal=True)
    reading = asyncio.create_task(joined.read())
    await joined.write(b"typed\x03")
    joined.resize(33, 70_000)
    assert os.read(slave, 100) == b"typed\x03"
    assert struct.unpack("HHHH", fcntl.ioctl(slave, termios.TIOCGWINSZ, bytes(8)))[:2] == (33, 65535)
    os.write(slave, b"shown")
    assert await reading == b"shown"
    os.write(slave, b"last")
    os.close(slave)
    assert [await joined.read(), await joined.read()] == [b"last", b""]
    joined.close()
    joined.close()


@pytest.fixture
def consoles():
    made = Consoles()
    made.lost = []
    made.on_lost = lambda *what: made.lost.append(what)
    return made


async def test_one_can_be_attached_to_once_and_is_lost_with_whoever_was(consoles):
    reader, fd = os.pipe()
    consoles.hold("t1", Console(fd, terminal=False))
    assert (consoles.knows("t1"), consoles.knows("t2")) == (True, False)
    assert consoles.take("t2") is None
    assert consoles.take("t1") is not None
    assert (consoles.take("t1"), consoles.knows("t1")) == (None, True)
    consoles.end("t1", "broke")
    assert (os.read(reader, 1), consoles.lost, consoles.knows("t1")) == (b"", [("t1", "broke")], False)
    os.close(reader)


async def test_nobody_is_waited_for_for_ever(consoles, monkeypatch):
    monkeypatch.setattr(console, "UNATTACHED_S", 0.01)
    first, second, third = os.pipe(), os.pipe(), os.pipe()
    consoles.hold("t1", Console(first[1], terminal=False))
    consoles.hold("t1", Console(second[1], terminal=False))  # its container was made anew
    consoles.hold("t2", Console(third[1], terminal=False))
    assert consoles.take("t2") is not None
    assert os.read(first[0], 1) == b""
    assert await asyncio.to_thread(os.read, second[0], 1) == b""
    await asyncio.sleep(0)
    assert consoles.lost == [("t1", "nobody attached to it within 0 s")]
    consoles.end("t2", "")
    assert len(consoles.lost) == 1
    for reader, _ in (first, second, third):
        os.close(reader)
