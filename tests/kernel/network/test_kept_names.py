"""The sockets that names are answered on are kept by the host's launcher, too: for as long as there is the network."""

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from network_world import DEADLINE_S, Container, Host, World, kill, wait_until
from test_names import WEB_ADDRESSES, add_asker, ask, dns_pid, questions_wait, state_of
from test_reach import WEB

from argosy.agent.launcher import wire as launcher_wire
from argosy.agent.network.desired import NetworkState
from argosy.agent.runtime.spawn import launcher_command


class Launcher:
    """A real one, of this machine and not of the hosts': what it keeps is the same everywhere."""

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "launcher.sock"
        parent = f"/argosy-test-net-{os.getpid()}"
        self._command = launcher_command(str(self.socket), str(directory), str(directory / "state"), parent)
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command)
        wait_until(lambda: self.kept() is not None)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def kept(self) -> list[str] | None:
        """Return the names under which it keeps something; None while it does not answer."""
        answer = self._ask("kept")
        return answer and answer["ok"]["names"]

    def end(self) -> None:
        self._ask("shutdown")
        self.process.wait(DEADLINE_S)

    def _ask(self, op: str) -> launcher_wire.Message | None:
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(DEADLINE_S)
            try:
                asking.connect(str(self.socket))
                asking.sendall(launcher_wire.pack({"seq": 1, "op": op}))
                (answer,) = launcher_wire.Unpacker().feed(asking.recv(1 << 16))
            except OSError:
                return None
            return answer


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    directory = tmp_path / "launcher"
    directory.mkdir()
    made = Launcher(directory)
    yield made
    made.end()


@pytest.fixture
def asker(wire: World, launcher: Launcher) -> Container:
    return add_asker(wire, launcher=launcher.socket)


def end_both(host: Host, pid: int) -> None:
    """End the agent's life and argosy-dns, so that neither finds the other ended; begin another when both are gone."""
    host.do(host.plane.close())
    kill(pid)
    wait_until(lambda: state_of(pid) == "Z")
    host.plane = host._new_plane()
    host.do(host.plane.start())


def saved_records(host: Host) -> None:
    saved = host.run_dir / "network" / "dns-records.json"
    wait_until(lambda: saved.exists() and "task/taskasker0001" in saved.read_text())


def canary(host: Host, world: World) -> Callable[[], bool]:
    """Lay a link into a network's namespace, which goes only with that; return what tells whether it is there."""
    namespace = host.network(WEB)
    ends = f"ip link add canary type veth peer name canary netns /proc/{os.getpid()}/fd/{namespace.fd}"
    world.outside.sh(ends)
    namespace.close()
    return lambda: "canary" in world.outside.sh("ip -br link")


def test_no_query_is_lost_when_agent_and_argosy_dns_end_together(asker: Container) -> None:
    host = asker.host
    saved_records(host)
    for _ in range(2):
        with questions_wait(asker) as pid:
            end_both(host, pid)
        assert host.apply() == 0
        assert ask(asker, "web").addresses == WEB_ADDRESSES


def test_the_next_launcher_keeps_them_too(asker: Container, launcher: Launcher) -> None:
    host = asker.host
    saved_records(host)
    launcher.kill()
    launcher.start()
    host._loop.call_soon_threadsafe(host.plane.launcher_started)
    wait_until(launcher.kept)
    with questions_wait(asker) as pid:
        end_both(host, pid)


def test_they_are_given_to_a_launcher_that_starts_after_the_agent(asker: Container, launcher: Launcher) -> None:
    """As on each host that boots: the agent asks again, also when nobody tells it."""
    host = asker.host
    saved_records(host)
    launcher.kill()
    host.new_life()
    launcher.start()
    assert wait_until(launcher.kept) == [f"dns/{WEB}"]


def test_a_launcher_that_hangs_delays_no_names_and_gets_them_later(asker: Container, launcher: Launcher) -> None:
    host, other = asker.host, "othernet00002"
    os.kill(launcher.process.pid, signal.SIGSTOP)
    try:
        asker.host.world.add_network(other, "10.65.0.0/16", {"h1": (1,)})
        host.apply()
        assert ask(asker, "web").addresses == WEB_ADDRESSES
        host.new_life()
        host.apply()
        assert ask(asker, "web").addresses == WEB_ADDRESSES
    finally:
        os.kill(launcher.process.pid, signal.SIGCONT)
    wait_until(lambda: launcher.kept() == [f"dns/{other}", f"dns/{WEB}"])


def test_a_namespace_ends_with_its_network(asker: Container, launcher: Launcher, wire: World) -> None:
    host, there = asker.host, canary(asker.host, wire)
    host.stop_container(asker.id)
    host.do(host.plane.apply(NetworkState()))
    wait_until(lambda: launcher.kept() == [])
    wait_until(lambda: not there())


@pytest.mark.parametrize("answers", ["goes on", "has ended, too"])
def test_a_namespace_ends_with_a_network_that_goes_while_there_is_no_agent(
    answers: str, asker: Container, launcher: Launcher, wire: World
) -> None:
    host, there, pid = asker.host, canary(asker.host, wire), dns_pid(asker.host)
    host.do(host.plane.close())
    asker.end()
    if answers == "has ended, too":
        kill(pid)
        wait_until(lambda: state_of(pid) == "Z")
    assert there()
    host.plane = host._new_plane()
    host.do(host.plane.start())
    host.do(host.plane.apply(NetworkState()))
    assert there(), "what is not seen to be unwanted was removed"
    host.do(host.plane.apply(NetworkState(), synced=True))
    wait_until(lambda: launcher.kept() == [])
    wait_until(lambda: not there())


@pytest.mark.parametrize("known", [True, False])
def test_purging_leaves_nothing_with_the_launcher(
    known: bool, asker: Container, launcher: Launcher, wire: World
) -> None:
    host, there = asker.host, canary(asker.host, wire)
    if not known:
        host.do(host.plane.close())
        host.plane = host._new_plane()
    host.do(host.plane.purge())
    assert launcher.kept() == []
    asker.end()
    wait_until(lambda: not there())
