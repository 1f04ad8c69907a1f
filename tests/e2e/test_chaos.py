"""Chaos on the overlay, from a seed: hosts are cut off, parts killed, the kernel's state damaged, services changed.

An independent observer (observer.py) reads every host's kernel, and asks for names, all the while: no two running tasks
have one address of a network, and nothing leads to a task or node that has been gone for 5 s. Whenever calm has
returned, every pair of tasks on a network can talk, and no pair on different networks can, though their addresses are
the same ones; every host answers on the published port, and the static address has one holder.

A seed decides what is done, to whom and after which pauses: `ARGOSY_CHAOS_SEED=7 pytest tests/e2e/test_chaos.py` does
it again. When things meet is the machine's affair; so a replay may need some tries.
"""

import contextlib
import os
import random
import selectors
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.dev_cluster import DevCluster, wait_until
from tests.e2e.leftovers import in_etcd, on_host
from tests.e2e.observer import GONE_S, Observer
from tests.e2e.wire import socket_in

UNDERLAY = {"node1": "198.18.1.1", "node2": "198.18.1.2", "node3": "198.18.1.3"}
COMPOSE = """
services:
  red: &service
    image: busybox:1
    init: true
    command: nc -ll -p 7000 -e hostname
    stop_grace_period: 1s
    networks: [red]
    deploy: {replicas: 3, update_config: &careless {parallelism: 2, monitor: 0s}}
    x-argosy: {drain_timeout: 300ms}
  blue: {<<: *service, networks: [blue], ports: ["8090:7000"]}
  vault: {<<: *service, networks: [vault]}
  fixed: {<<: *service, networks: {still: {ipv4_address: 10.97.0.70}}, deploy: {replicas: 1, update_config: *careless}}
  both: {<<: *service, networks: [red, green], deploy: {replicas: 2, update_config: *careless}}
  green: {<<: *service, networks: [green], deploy: {replicas: 2, update_config: *careless}}
networks:
  red: {ipam: {config: [{subnet: 10.99.0.0/24}]}}
  blue: {ipam: {config: [{subnet: 10.99.0.0/24}]}}
  green: {ipam: {config: [{subnet: 10.98.0.0/24}]}}
  vault: {ipam: {config: [{subnet: 10.96.0.0/24}]}, driver_opts: {encrypted: "true"}}
  still: {ipam: {config: [{subnet: 10.97.0.0/24, ip_range: 10.97.0.128/25}]}}
"""
PASSING = """
services:
  guest: {image: busybox:1, init: true, command: nc -ll -p 7000 -e hostname, networks: [way], deploy: {replicas: 3}}
networks:
  way: {ipam: {config: [{subnet: 10.99.0.0/23}]}}
"""
PORT = 8090
SCALED = {"red": 3, "blue": 3, "both": 2, "green": 2, "vault": 3}
STATIC = {"fixed": "10.97.0.70"}
DECLARED = {**SCALED, **dict.fromkeys(STATIC, 1)}
NAMES = [f"tasks.{service}" for service in DECLARED]
TALK_S = 20.0
"""In calm everybody is heard within this time; an answer takes some milliseconds on an idle machine."""
REPAIRED_S = 5.0
"""So long a repair may take."""
ANSWER_S = 1.0
"""How long a call may take before it is made anew."""


DAMAGES = {
    "network": (
        "ip link del vtep",
        "ip link del uplink",
        "ip -o link | grep -o 've[^@]*' | head -1 | xargs -r ip link del",
        "ip route flush table main",
        "ip neigh flush nud permanent",
        "bridge fdb show dev vtep | cut -d' ' -f1 | xargs -r -I@ bridge fdb del @ dev vtep",
        "nft flush ruleset",
        "ip address flush dev lo",
        "echo 0 >/proc/sys/net/ipv4/ip_forward",
    ),
    "host": ("nft flush ruleset", "ip -o link | grep -o 'au[^@]*' | head -1 | xargs -r ip link del"),
    "mesh": ("ip route flush table main", "ip -o link | grep -o 'aw[^:@]*' | head -1 | xargs -r ip link del"),
}
"""What somebody may do by hand on a host: in a network's namespace, in its own, in that of encrypted tunnels."""


@dataclass(frozen=True, slots=True)
class Act:
    """Something that is done: a method of Chaos and its arguments, and the pause after it in seconds."""

    name: str
    args: tuple
    pause_s: float

    def __str__(self):
        return f"{self.name}({', '.join(map(str, self.args))}), then {self.pause_s:.1f} s"


def plan(seed, length, controllers):
    """Return the acts of a seed."""
    rng = random.Random(seed)
    hosts, services, declared = list(UNDERLAY), list(SCALED), list(DECLARED)
    places = [where for where, commands in DAMAGES.items() for _ in commands]
    acts = {
        "scale": (4, lambda: (rng.choice(services), rng.randint(0, 5))),
        "update": (2, lambda: (rng.choice(declared), rng.randint(1, 999))),
        "recreate": (2, lambda: (rng.choice(declared),)),
        "rotate_keys": (1, lambda: ()),
        "visit": (1, lambda: ()),
        "leave": (1, lambda: ()),
        "cut": (2, lambda: (rng.choice(hosts), rng.choice((0.5, 1.5, 8.0)))),
        "kill_agent": (2, lambda: (rng.choice(hosts),)),
        "kill_controller": (2, lambda: (rng.randint(1, controllers),)),
        "kill_launcher": (1, lambda: (rng.choice(hosts),)),
        "kill_names": (1, lambda: (rng.choice(hosts),)),
        "kill_tunnel": (1, lambda: (rng.choice(hosts),)),
        "damage": (3, lambda: (rng.choice(hosts), rng.choice(places), rng.randint(0, 99))),
        "kill_container": (2, lambda: (rng.choice(hosts), rng.randint(0, 99))),
    }
    names = rng.choices(list(acts), [weight for weight, _ in acts.values()], k=length)
    return [Act(name, acts[name][1](), rng.choice((0.0, 0.2, 1.0))) for name in names]


@dataclass(slots=True)
class Trouble:
    """What a host, or "controllers", is in: until a moment, and then until it is back; `cut`: off the others."""

    what: str
    noted: contextlib.AbstractContextManager
    cut: bool
    until: float
    healed: bool = False


class Chaos:
    """Does to a cluster what an act says. Returns at once; what lasts is ended by `settle`."""

    def __init__(self, cluster, observer, directory):
        self._cluster = cluster
        self._observer = observer
        self._pending = []
        self._files = {"c": directory / "c.yaml", "p": directory / "p.yaml"}
        for name, text in (("c", COMPOSE), ("p", PASSING)):
            self._files[name].write_text(text)

    # ---------------------------------------------------------------- users

    def scale(self, service, count):
        self._ask("scale", "-d", f"c_{service}={count}")

    def update(self, service, number):
        self._ask("service", "update", "-d", "--env-add", f"V={number}", f"c_{service}")

    def recreate(self, service):
        self._ask("service", "rm", "-d", f"c_{service}")
        self._deploy("c", "-d")

    def visit(self):
        self._deploy("p", "-d")

    def leave(self):
        self._ask("stack", "rm", "-d", "p")

    def rotate_keys(self):
        self._ask("network", "rotate-keys")

    def _deploy(self, stack, *options):
        self._ask("deploy", *options, "-c", str(self._files[stack]), stack)

    def _ask(self, *args):
        """Ask as a user does: to be told that nobody answers, or that there is no such thing, is an answer."""
        done = self._cluster.run(*args)
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode in (0, 1, 3), (args, done.stderr)

    # ---------------------------------------------------------------- faults

    def cut(self, host, seconds):
        if any(t.cut and (not t.healed or t.what == host) for t in self._pending):
            return  # when most hosts are lost nothing is replaced, which is another story
        self._cluster.cut(host)
        self._begin(host, self._observer.cut_off(host), seconds, cut=True)

    def kill_agent(self, host):
        self._kill(f"agent-{host}", host)

    def kill_controller(self, number):
        self._kill(f"controller-{number}", "controllers")

    def kill_launcher(self, host):
        with contextlib.suppress(AssertionError, OSError):  # its agent may be dead as well
            pid = self._cluster.launcher_pid(host)
            self._begin(host, self._observer.disturbed(host))
            self._cluster.kill_pid(pid)

    def kill_names(self, host):
        self._kill_parts(host, "argosy.agent.dns")

    def kill_tunnel(self, host):
        self._kill_parts(host, "wireguard-go")

    def _kill_parts(self, host, program):
        """Kill processes of a host that its agent started; the agent starts others."""
        self._begin(host, self._observer.disturbed(host))
        for pid in programs_of(self._cluster, host, program):
            with contextlib.suppress(AssertionError, OSError):
                self._cluster.kill_pid(pid)

    def damage(self, host, where, number):
        """Have somebody change the kernel's state by hand."""
        pins = {
            "network": [pin for _, pin in self._observer.pins(host)],
            "host": [f"/proc/{self._cluster.holder(host)}/ns/net"],
            "mesh": [f"/proc/{self._cluster.holder(host)}/root/run/argosy/mesh/namespace"],
        }[where]
        if pins:
            self._begin(host, self._observer.disturbed(host), REPAIRED_S)
            command = DAMAGES[where][number % len(DAMAGES[where])]
            enter = ["nsenter", f"--net={pins[number % len(pins)]}", "sh", "-c", command]
            subprocess.run(enter, capture_output=True, timeout=30, check=False)  # what is to be broken may not be there

    def kill_container(self, host, number):
        places = sorted((p for p in self._observer.look().places if p.host == host), key=lambda p: p.task)
        if places:
            with contextlib.suppress(ProcessLookupError):
                os.kill(places[number % len(places)].pid, 9)

    def _kill(self, process, what):
        pid = self._cluster.processes()["processes"][process]["pid"]
        if pid:
            self._begin(what, self._observer.disturbed(what))
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)

    def _begin(self, what, noted, lasts_s=0.0, *, cut=False):
        noted.__enter__()
        self._pending.append(Trouble(what, noted, cut, time.monotonic() + lasts_s))

    # ---------------------------------------------------------------- time goes on

    def go_on(self):
        """End what has lasted long enough, and see who is back."""
        for trouble in list(self._pending):
            if time.monotonic() < trouble.until:
                continue
            if trouble.cut and not trouble.healed:
                self._cluster.heal(trouble.what)
                trouble.healed = True
            elif self._is_back(trouble.what):
                trouble.noted.__exit__(None, None, None)
                self._pending.remove(trouble)

    def _is_back(self, what):
        """Whether a host's agent talks to a controller again; "controllers": whether one answers and leads."""
        with contextlib.suppress(Exception):
            if what == "controllers":
                return self._cluster.run("node", "ls").returncode == 0
            running = self._cluster.processes()["processes"][f"agent-{what}"]["pid"]
            return bool(running) and self._cluster.node_state(what) == "READY"
        return False

    def settle(self):
        """End everything, and wait until all is as declared."""

        def calm():
            self.go_on()
            return not self._pending

        wait_until(calm, 60, lambda: f"calm: {[p.what for p in self._pending]}")
        self._cluster.wait_answers()
        deploy = ("deploy", "-c", str(self._files["c"]), "c")
        # What was just told to go has to be gone first.
        wait_until(lambda: self._cluster.run(*deploy).returncode == 0, 60, lambda: self._cluster.run(*deploy).stderr)
        for service, count in DECLARED.items():
            self._cluster.wait_running(f"c_{service}", count, timeout=60)
        wait_until(self._nothing_moves, 60, lambda: self._cluster.argosy("ps", "-a"))

    def _nothing_moves(self):
        return all(t["state"] == t["desired_state"] == "RUNNING" for t in self._cluster.tasks())


def programs_of(cluster, host, program):
    """Return the processes of a host, beside its containers, whose command line has a word."""
    network = os.readlink(f"/proc/{cluster.holder(host)}/ns/net")
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if program.encode() in words and os.readlink(f"/proc/{pid}/ns/net") == network:
                found.append(int(pid))
    return found


# ------------------------------------------------------------------ in calm


def who_answers(pairs):
    """Have containers call others; return what came back, by pair, of those that answered in time."""
    waiting = selectors.DefaultSelector()
    answers = {}
    for caller, called in pairs:
        sock = socket_in(f"/proc/{caller.pid}/ns/net", socket.AF_INET, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.connect_ex((called.address, 7000))
        waiting.register(sock, selectors.EVENT_READ, (caller, called))
    deadline = time.monotonic() + ANSWER_S
    while waiting.get_map() and (ready := waiting.select(max(0.0, deadline - time.monotonic()))):
        for key, _ in ready:
            with contextlib.suppress(OSError):
                answers[key.data] = key.fileobj.recv(100).decode().strip()
            waiting.unregister(key.fileobj)
            key.fileobj.close()
    for key in list(waiting.get_map().values()):
        key.fileobj.close()
    waiting.close()
    return answers


def every_task_has_its_addresses(view):
    """Return the view if that is so: what was damaged a moment ago may still be damaged."""
    return view if {p.task for p in view.places} == view.tasks else None


def assert_who_talks_to_whom(look):
    """Check that those who share a network hear each other, each the right one, and that nobody else does."""
    view = wait_until(lambda: every_task_has_its_addresses(look()), REPAIRED_S, "every task has its addresses")
    names = {p.task: Path(f"/proc/{p.pid}/root/etc/hostname").read_text().strip() for p in view.places}
    tasks = {name: task for task, name in names.items()}
    networks = {task: {p.network for p in view.places if p.task == task} for task in names}
    callers = {p.task: p for p in view.places}.values()
    friends = [(a, b) for a in callers for b in view.places if b.network in networks[a.task]]
    strangers = [(a, b) for a in callers for b in view.places if b.network not in networks[a.task]]

    def all_heard():
        """A program may need a moment until it listens; whoever answers must be the right one from the first."""
        for pair, said in who_answers(friends).items():
            assert said in ("", names[pair[1].task]), f"{pair[0]} asked {pair[1]} and heard {said!r}"
            if said:
                friends.remove(pair)
        return not friends

    wait_until(all_heard, TALK_S, lambda: f"all on a network hear each other, but {friends}")
    for (caller, called), said in who_answers(strangers).items():
        assert not said or networks[tasks[said]] & networks[caller.task], f"{caller} asked {called}, heard {said}"


def assert_ports_and_static_addresses(cluster, look):
    """Check that every host answers on the published port by a task of the service, and who has static addresses."""
    view = look()
    names = {p.task: Path(f"/proc/{p.pid}/root/etc/hostname").read_text().strip() for p in view.places}
    served = {names[task["id"]] for task in cluster.running("c_blue")}
    for host, address in UNDERLAY.items():

        def answer(there=(address, PORT)):
            try:
                with socket_in(f"/proc/{cluster.holder('switch')}/ns/net", socket.AF_INET) as calling:
                    calling.settimeout(ANSWER_S)
                    calling.connect(there)
                    return calling.recv(100).decode().strip()
            except OSError:
                return ""

        assert wait_until(answer, TALK_S, f"{host} answers on the published port") in served
    for service, address in STATIC.items():
        (task,) = cluster.running(f"c_{service}")
        assert [p.task for p in view.places if p.address == address] == [task["id"]]


# ------------------------------------------------------------------ the tests


@contextlib.contextmanager
def told(cluster, seed, done):
    """Whatever fails says the seed, what was done, and what the cluster says then."""
    try:
        yield
    except BaseException:
        print(f"chaos: seed {seed} failed; again: ARGOSY_CHAOS_SEED={seed}\n" + "\n".join(done))
        print(cluster.run("network", "verify").stdout, cluster.run("network", "ls").stdout, cluster.run("ps").stdout)
        print(cluster.log_tails(40))
        print("\n".join(kernels(cluster)))
        raise


def kernels(cluster):
    """Yield what every host's kernel has of its networks and tunnels, in the words of `ip` and its like."""
    inside = "ip -d -s link; ip address; ip route show table all; ip neigh; bridge fdb; ip netns list-id; ss -uan"
    for host in UNDERLAY:
        run = Path(f"/proc/{cluster.holder(host)}/root/run/argosy")
        for pin in sorted((*run.glob("netns/*"), *run.glob("mesh/namespace"))):
            enter = [
                "nsenter",
                f"--net={pin}",
                "sh",
                "-c",
                f"readlink /proc/self/ns/net; {inside}; nft -s list ruleset",
            ]
            yield f"--- {host} {pin.name}\n" + subprocess.run(enter, capture_output=True, text=True, check=False).stdout


def run(seed, length, rounds, directory, image_tar, controllers=1):
    """Carry a seed's plan out in some rounds, with calm after each."""
    done = []
    with (
        DevCluster(f"t{os.getpid() % 100_000}-chaos{seed}", nodes=3, controllers=controllers) as cluster,
        Observer(cluster, UNDERLAY, NAMES, STATIC.values()) as observer,
        told(cluster, seed, done),
    ):
        cluster.argosy("image", "import", "busybox:1", str(image_tar))
        chaos = Chaos(cluster, observer, directory)
        chaos.settle()
        acts = plan(seed, length * rounds, controllers)
        for number, act in enumerate(acts, 1):
            done.append(f"{time.strftime('%H:%M:%S')} {act}")
            getattr(chaos, act.name)(*act.args)
            until = time.monotonic() + act.pause_s
            chaos.go_on()
            while time.monotonic() < until:
                time.sleep(0.1)
                chaos.go_on()
            if number % length == 0:
                chaos.settle()
                assert_who_talks_to_whom(observer.look)
                assert_ports_and_static_addresses(cluster, observer.look)
                done.append(f"{time.strftime('%H:%M:%S')} calm")
            assert not observer.violations
        end(cluster, observer)
        print(f"{observer.looks} looks, the slowest {observer.slowest_s:.2f} s, {len(observer.seen)} tasks seen")


def end(cluster, observer):
    """Remove a node for good, then everything: nothing may lead to it, nothing may be left."""
    with observer.cut_off("node3"), observer.disturbed("node3"):
        cluster.cut("node3")
        cluster.wait_node("node3", "DOWN")
        cluster.argosy("node", "rm", "node3")
        observer.removed("node3")

        def forgotten():
            view = observer.look()
            found = {a for e in view.entries.values() for a in e.peers}
            found |= {a for told in (view.admitted, view.tunnels) for addresses in told.values() for a in addresses}
            return UNDERLAY["node3"] not in found

        wait_until(forgotten, GONE_S, "nothing leads to the node that was removed")
        cluster.argosy("stack", "rm", *(stack["name"] for stack in cluster.json("stack", "ls")))
        for host in ("node1", "node2"):
            wait_until(lambda h=host: not on_host(cluster, h), 2 * GONE_S, lambda h=host: on_host(cluster, h))
        wait_until(lambda: not in_etcd(cluster), GONE_S, lambda: in_etcd(cluster))
        assert not observer.violations


SEEDS = [int(os.environ["ARGOSY_CHAOS_SEED"])] if "ARGOSY_CHAOS_SEED" in os.environ else [1994]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_overlay_stays_right_while_everything_changes(seed, tmp_path, image_tar):
    run(seed, 10, 1, tmp_path, image_tar)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(100, 108))
def test_the_overlay_stays_right_for_long(seed, tmp_path, image_tar):
    run(seed, 15, 4, tmp_path, image_tar, controllers=3)
