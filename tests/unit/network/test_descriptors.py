"""Descriptors that come over a socket, and those with large numbers."""

import fcntl
import os
import resource
import socket
from pathlib import Path

import pytest

from argosy.agent.dns import channel
from argosy.agent.launcher import rights
from argosy.agent.network.dns_link import DnsLink
from argosy.agent.network.readable import readable


@pytest.fixture
def ends():
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def test_no_program_that_is_started_inherits_what_argosy_dns_gave(ends):
    """It would hold a network's namespace for as long as it runs."""
    channel.send(ends[0], {"socket": "net"}, (0, 1))
    decoder = channel.Decoder()
    received = []
    while not received:
        decoder.receive(ends[1])
        received = [fds for _, fds in decoder.messages()]
    assert [os.get_inheritable(fd) for fd in received[0]] == [False, False]
    for fd in received[0]:
        os.close(fd)


def test_it_is_not_waited_for_what_has_not_come(ends):
    """`socket.recv_fds` would: it ignores its flags."""
    ends[1].settimeout(None)
    with pytest.raises(BlockingIOError):
        rights.receive(ends[1], 10, 1, socket.MSG_DONTWAIT)
    socket.send_fds(ends[0], [b"x"], [0])
    data, (fd,) = rights.receive(ends[1], 10, 1)
    assert (data, os.get_inheritable(fd)) == (b"x", False)
    os.close(fd)


@pytest.fixture
def above_1023(ends):
    """A socket whose descriptor has a number that select(2) does not take."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    with socket.socket(fileno=fcntl.fcntl(ends[1], fcntl.F_DUPFD_CLOEXEC, 1500)) as made:
        yield made
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_descriptors_of_large_numbers_are_waited_for(ends, above_1023):
    assert not readable(above_1023)
    ends[0].send(b"x")
    assert readable(above_1023.fileno(), 30)


def test_argosy_dns_is_heard_of_on_a_host_of_many_containers(ends, above_1023):
    """The agent has three descriptors of each container."""
    link = DnsLink(Path("/nowhere"), Path("/dev/null"))
    link._socket = above_1023
    assert not link._ended()
    ends[0].close()
    assert link._ended()
