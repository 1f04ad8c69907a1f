"""What the agent makes of launchers that keep nothing."""

import os
import socket
import threading
from contextlib import closing

import pytest

from argosy.agent.launcher import wire
from argosy.agent.network.keeper import Keeper


@pytest.fixture
def older(tmp_path):
    """A launcher of an older version: it knows none of these requests."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "launcher.sock"))
        listening.listen()

        def serve():
            connection, _ = listening.accept()
            with connection:
                unpacker = wire.Unpacker()
                while data := connection.recv(4096):
                    for message in unpacker.feed(data):
                        error = {"kind": "rejected", "reason": "unknown request", "step": "", "code": None}
                        connection.sendall(wire.pack({"seq": message["seq"], "error": error}))

        thread = threading.Thread(target=serve)
        thread.start()
        yield tmp_path / "launcher.sock"
        thread.join()


def test_one_that_does_not_know_how_is_asked_again_later(older):
    with closing(Keeper(older)) as keeper, pytest.raises(OSError, match="unknown request"):
        keeper.meet({})


def test_nothing_is_held_of_one_that_ends_while_it_gives(tmp_path):
    """What it gave before would keep a network's namespace, and nobody would know of it."""
    reading, writing = os.pipe()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "launcher.sock"))
        listening.listen()

        def serve():
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(wire.pack({"seq": 1, "ok": {"names": ["dns/one", "dns/two"]}}))
                connection.recv(4096)
                given = wire.pack({"seq": 2, "ok": {"count": 2}})
                socket.send_fds(connection, [given], [writing, writing])
                connection.recv(4096)
            os.close(writing)

        thread = threading.Thread(target=serve)
        thread.start()
        keeper = Keeper(tmp_path / "launcher.sock")
        with pytest.raises(OSError, match="it ended"):
            keeper.meet({})
        thread.join()
    os.set_blocking(reading, False)
    assert os.read(reading, 1) == b""
    os.close(reading)


def test_without_one_there_is_nothing_to_do(tmp_path):
    keeper = Keeper(tmp_path / "nobody")
    with pytest.raises(OSError, match="No such file"):
        keeper.meet({})
    pair = (os.dup(0), os.dup(0))
    keeper.want({"net": pair})
    keeper.forget()
    for fd in pair:
        os.close(fd)
