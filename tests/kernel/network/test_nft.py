"""The library of nftables, whose one context serves for good: it says what is there now, whoever made it so."""

import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from network_world import Namespace

from argosy.agent.logic.nft_messages import Transaction
from argosy.agent.network.nft import Nft, NftError
from argosy.agent.spawn import spawn

TABLES = (
    "add table ip one; add counter ip one seen; add set ip one met { type ipv4_addr; flags dynamic; size 9; };"
    "add chain ip one out { type filter hook output priority 0; }; add rule ip one out udp dport 9 counter name seen;"
    "add rule ip one out add @met { ip daddr }; add table ip two; add chain ip two empty"
)


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    made = Namespace.new()
    made.sh("ip link set lo up")
    yield made
    made.close()


@pytest.fixture
def nft(namespace: Namespace) -> Iterator[Nft]:
    made = namespace.run(Nft)
    made.run(TABLES)
    yield made
    made.close()
    made.close()  # harmless


def test_what_packets_do_is_seen(namespace: Namespace, nft: Nft) -> None:
    """Which changes no ruleset, as the library goes by."""
    with namespace.open_socket(2) as sending:
        for number in range(1, 4):
            sending.sendto(b"", (f"127.0.0.{number}", 9))
            assert f"packets {number} " in nft.run("list counters table ip one", stateless=False)
            assert (nft.listing("one", terse=True) or "").count("127.0.0") == 0
            assert (nft.listing("one") or "").count("127.0.0") == number
            assert "chain empty" in (nft.listing("two") or "")


def test_what_others_do_is_seen(namespace: Namespace, nft: Nft) -> None:
    assert "accept" not in (nft.listing("two") or "")
    namespace.sh("nft add rule ip two empty accept")
    assert "accept" in (nft.listing("two") or "")
    namespace.sh("nft delete table ip two")
    assert nft.listing("two") is None
    nft.run("add table ip two")
    assert nft.listing("two") == "table ip two {\n}\n"


def test_every_change_begins_a_generation(namespace: Namespace, nft: Nft) -> None:
    """By whoever and however it is made; what packets do, and looking, begins none."""
    commands = (
        "add rule ip two empty accept",
        "insert rule ip two empty drop",
        "add element ip one met { 192.0.2.1 }",
        "delete element ip one met { 192.0.2.1 }",
        "flush chain ip two empty",
        "flush set ip one met",
        "flush table ip one",
        "delete chain ip two empty",
        "delete table ip two",
        "add table netdev two",
        "flush ruleset",
    )
    with namespace.open_socket(2) as sending:
        for command in commands:
            before = nft.generation()
            nft.listing("one")
            sending.sendto(b"", ("127.0.0.1", 9))
            namespace.sh("nft list ruleset")
            assert nft.generation() == before
            namespace.sh(f"nft '{command}'")
            assert nft.generation() != before, command
    transaction = Transaction("one")
    transaction.renew_table()
    before = nft.generation()
    nft.execute(transaction.messages)
    assert nft.generation() != before


def test_those_of_two_namespaces_do_not_hold_each_other_up(nft: Nft) -> None:
    """The library keeps one generation for the whole process; listings begin anew where theirs is another."""
    other = Namespace.new()
    with closing(other), closing(other.run(Nft)) as elsewhere, ThreadPoolExecutor(2) as threads:
        elsewhere.run("".join(f"add table ip t{i}; add chain ip t{i} empty;" for i in range(300)))

        elsewhere.run("add table ip another")
        assert elsewhere.generation() != nft.generation()
        enough = threading.Event()

        def keep_looking() -> None:
            while not enough.is_set():
                nft.run("list tables")

        listing = threads.submit(lambda: [elsewhere.run("list ruleset").count("empty") for _ in range(50)])
        looking = threads.submit(keep_looking)
        try:
            assert listing.result(20) == [300] * 50
        finally:
            enough.set()
        looking.result()


def test_what_is_refused_leaves_nothing_behind(nft: Nft) -> None:
    for _ in range(2):
        with pytest.raises(NftError, match="refused: Error: No such file or directory"):
            nft.run("add table ip three; add rule ip none empty accept")
        assert nft.run("list tables") == "table ip one\ntable ip two\n"


def test_no_program_that_is_started_inherits_its_socket(nft: Nft) -> None:
    """The library opens it without O_CLOEXEC; a program would hold the namespace for as long as it runs."""
    reading, writing = os.pipe()
    code = "import os; print(*(os.path.realpath(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd')))"
    pid = spawn([sys.executable, "-c", code], os.environ, [(os.POSIX_SPAWN_DUP2, writing, 1)])
    os.close(writing)
    os.waitpid(pid, 0)
    with os.fdopen(reading) as told:
        assert "socket:" not in told.read()
