"""An independent observer of the overlay: reads the kernel of every host, and knows nothing of Argosy but some names.

A network's namespace is pinned in a host's /run/argosy/netns as HOST.NETWORK; a container's cgroup is called after its
task, and its link in the namespace of a network `ve` and the task; balancing is the nftables table `argosy-balance`,
published ports lead to tasks in `argosy-ingress`; the tunnels of encrypted networks are in a namespace that is pinned
as /run/argosy/mesh/namespace, and wireguard-go tells what they are set to by a socket beside it. Names are asked as
every program in a container asks them. Everything else (routes, neighbours, forwarding entries, processes, addresses)
is as `ip`, `bridge`, `nft` and /proc tell it. Nothing of the project is imported here but `host_view`, which reads
cgroups and /proc, and `wire`, which opens sockets.
"""

import json
import re
import socket
import struct
import subprocess
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.host_view import addresses_of, container_pids
from tests.e2e.wire import socket_in

GONE_S = 5.0
"""So long after a task or node is gone nothing may be left that leads to it."""
NEW_LEADER_S = 10.0
"""How much longer a new leader waits for a node that it has not heard yet (docs/availability.md)."""
HEARD_S = 5.0
"""So soon after an election a leader may not have heard a host yet whose agent is itself being started again."""
_MARK = "----\n"
_LOOK = (
    "ip -j -4 route show table main; echo ----; ip -j -4 neigh show nud permanent; echo ----;"
    "bridge -j fdb show dev vtep; echo ----; nft list table ip argosy-balance; nft list table ip argosy-ingress"
)
_CHAIN = re.compile(r"\tchain (?:s|tcp|udp)-\S+ \{\n(.*?)\n\t\}", re.DOTALL)
_ALLOWED = re.compile(r"^allowed_ip=(\S+)/32$", re.MULTILINE)
_BY_MARK = "02:00:00:00:00:01"
"""Stands for the host that a question came in by, where an answer leaves (`argosy-ingress`)."""
_ANSWER_S = 0.5
_ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+")


@dataclass(frozen=True, slots=True)
class Place:
    """A container on a network, as the kernel has it; `pid` is its first process."""

    network: str
    address: str
    host: str
    task: str
    pid: int


@dataclass(slots=True)
class Entries:
    """What one network's namespace on one host has in it that leads somewhere."""

    links: set[str] = field(default_factory=set)  # of tasks
    containers: dict[str, str] = field(default_factory=dict)  # address -> task
    peers: set[str] = field(default_factory=set)  # addresses of hosts
    dangling: set[str] = field(default_factory=set)  # routes and neighbours that lead no further
    endpoints: set[str] = field(default_factory=set)  # what balancing and published ports lead to


@dataclass(slots=True)
class View:
    """One look at all hosts: containers, tasks that have processes, and what there is by host and network.

    By host: whose tunnel packets are let in, and to whom encrypted tunnels lead. By who asked: what names stand for.
    """

    places: list[Place]
    tasks: set[str]
    entries: dict[tuple[str, str], Entries]
    admitted: dict[str, set[str]]
    tunnels: dict[str, set[str]]
    named: dict[Place, dict[str, set[str]]]

    def on(self, network):
        """Return the containers on a network."""
        return [place for place in self.places if place.network == network]


class Observer:
    """Looks again and again, from entry to exit; what it does not like is in `violations`.

    `underlay` are the hosts' own addresses. `names` are asked on each network of each host. `statics` are addresses
    that the next task gets while the one before may still run, on a host that is cut off.

    Who disturbs a host, or the controllers, says so: what these cannot know or do meanwhile is not held against them,
    until `GONE_S` after the disturbance is over.
    """

    def __init__(self, cluster, underlay, names=(), statics=()):
        self.violations = []
        self.looks = 0
        self.slowest_s = 0.0
        self.seen = set()
        self._cluster = cluster
        self._underlay = dict(underlay)
        self._names = names
        self._statics = frozenset(statics)
        self._troubles = Counter()
        self._calm_since = Counter()
        self._cut = {}
        self._stale_since = {}
        self._last_host = {}
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="observer", daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    # ---------------------------------------------------------------- what is done to the cluster

    @contextmanager
    def disturbed(self, what):
        """Note that a host, or "controllers", cannot do its work while the body runs."""
        self._trouble(what, 1)
        try:
            yield
        finally:
            self._trouble(what, -1)

    @contextmanager
    def cut_off(self, host):
        """Note that a host is cut off while the body runs: for the others its tasks are gone."""
        with self.disturbed(host):
            with self._lock:
                # What led to it until now was right, however often it was cut off before.
                self._cut[host] = self._calm_since[_cutting(host)] = time.monotonic()
            yield
            with self._lock:
                del self._cut[host]

    def removed(self, host):
        """Note that a host is no node any more: nothing may lead to it."""
        with self._lock:
            del self._underlay[host]

    def _trouble(self, what, number):
        with self._lock:
            self._troubles[what] += number
            self._calm_since[what] = time.monotonic()

    # ---------------------------------------------------------------- looking

    def look(self):
        """Return what the kernels of all hosts have now."""
        hosts = list(self._underlay)
        homes = {
            task: (host, pids[0]) for host in hosts for task, pids in container_pids(self._cluster.name, host).items()
        }
        entries = {}
        for host in hosts:
            for network, pin in self.pins(host):
                with suppress(OSError, ValueError):  # it may go while it is looked at
                    entries[host, network] = _entries(pin)
        places = []
        for (host, network), found in entries.items():
            for address, task in found.containers.items():
                home, pid = homes.get(task, ("", 0))
                if home == host and address in addresses_of(pid):
                    places.append(Place(network, address, host, task, pid))
        askers = {(place.host, place.network): place for place in places}.values()
        return View(
            places,
            set(homes),
            entries,
            admitted={host: self._admitted(host) for host in hosts},
            tunnels={host: self._tunnels(host) for host in hosts},
            named={asker: addresses_named(asker.pid, self._names) for asker in askers},
        )

    def pins(self, host):
        """Return the networks that a host carries, with the paths of their namespaces."""
        directory = Path(f"/proc/{self._cluster.holder(host)}/root/run/argosy/netns")
        with suppress(OSError):
            return [(pin.name.removeprefix(f"{host}."), pin) for pin in sorted(directory.iterdir())]
        return []

    def _tunnels(self, host):
        """Return the hosts that encrypted tunnels lead to, or that what they are set to speaks of."""
        mesh = Path(f"/proc/{self._cluster.holder(host)}/root/run/argosy/mesh")
        enter = ["nsenter", f"--net={mesh / 'namespace'}", "ip", "-j", "-4", "route", "show", "table", "main"]
        routes = subprocess.run(enter, capture_output=True, text=True, check=False).stdout
        found = {route["dst"] for route in json.loads(routes or "[]")}
        for path in mesh.glob("*.sock"):
            found |= set(_ALLOWED.findall(_told_by(path)))
        return found

    def _admitted(self, host):
        listed = self._cluster.on_host(host, "nft", "list", "set", "ip", f"argosy-{host}/peers", "peers", check=False)
        return set(_ADDRESS.findall(listed))

    # ---------------------------------------------------------------- judging

    def _run(self):
        while not self._stop.wait(0.2):
            began = time.monotonic()
            try:
                self._judge(self.look(), began)
            except Exception as error:
                self.violations.append(f"the observer itself failed: {error!r}")
                raise
            self.looks += 1
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)

    def _judge(self, view, now):
        holders = {}
        for place in view.places:
            self.seen.add(place.task)
            other = holders.setdefault((place.network, place.address), place)
            twice = other.task != place.task and place.address not in self._statics
            if twice and all(place.address in addresses_of(p.pid) for p in (place, other)):
                self.violations.append(f"two tasks have an address at once: {place}, {other}")
            self._last_host[place.network, place.address] = place.host
        with self._lock:
            stale = dict(self._stale(view))
            for key in self._stale_since.keys() - stale.keys():
                del self._stale_since[key]
            for key, (concerned, patience_s) in stale.items():
                since = max([self._stale_since.setdefault(key, now), *(self._calm_since[c] for c in concerned)])
                if not any(self._troubles[c] for c in concerned) and now - since > patience_s:
                    self.violations.append(f"for {now - since:.1f} s {key[0]} has {' '.join(key[1:])}")
                    self._stale_since[key] = now + 3600  # told once

    def _stale(self, view):
        """Yield what leads to nobody, each with those on whom it depends that it goes, and how long that may take."""
        nodes = set(self._underlay.values())
        for (host, network), found in view.entries.items():
            concerned = (host, "controllers"), GONE_S
            for task in found.links - view.tasks:
                yield (host, "a link of a task that is gone:", task), concerned
            for address in (a for a, task in found.containers.items() if task not in view.tasks):
                yield (host, "a route to a task that is gone:", network, address), concerned
            reachable = {p.address for p in view.on(network) if p.host == host or p.host not in self._cut}
            for address in found.endpoints - reachable:
                last = self._last_host.get((network, address), host)
                yield (host, "an endpoint that nobody is:", network, address), self._until_an_endpoint_goes(host, last)
            for address in found.dangling:
                yield (host, "a way that leads no further:", network, address), concerned
            for address in found.peers - nodes:
                yield (host, "a peer that is no node:", network, address), concerned
        for host, admitted in view.admitted.items():
            for address in admitted - nodes:
                yield (host, "an open door for what is no node:", address), ((host, "controllers"), GONE_S)
        for host, tunnels in view.tunnels.items():
            for address in tunnels - nodes:
                yield (host, "a tunnel to what is no node:", address), ((host, "controllers"), GONE_S)
        for asker, named in view.named.items():
            yield from self._misnamed(view, asker, named)
        holders = {}
        for place in view.places:
            other = holders.setdefault((place.network, place.address), place)
            if other.task != place.task:
                concerned = (place.host, other.host, "controllers")
                yield (place.host, "an address of another's:", place.address, other.task), (concerned, GONE_S)

    def _misnamed(self, view, asker, named):
        """Yield what names stand for on a host though nobody on the asker's networks has it."""
        networks = {p.network for p in view.places if p.task == asker.task}
        reachable = {
            p.address
            for p in view.places
            if p.network in networks and (p.host == asker.host or p.host not in self._cut)
        }
        for name, addresses in named.items():
            for address in addresses - reachable:
                last = next(
                    (self._last_host[n, address] for n in networks if (n, address) in self._last_host), asker.host
                )
                until = self._until_an_endpoint_goes(asker.host, last)
                yield (asker.host, "a name of what nobody is:", name, address), until

    def _until_an_endpoint_goes(self, host, last):
        """Return on whom it depends that a host forgets one which was on `last`, and how long that may take."""
        if last not in self._cut:
            return (host, "controllers", last), GONE_S
        led_anew = self._calm_since["controllers"] > self._cut[last] - HEARD_S
        return (host, "controllers", _cutting(last)), GONE_S + (NEW_LEADER_S if led_anew else 0.0)


def _cutting(host):
    """Return how a host's being cut off is called among what others depend on."""
    return f"{host} cut off"


def addresses_named(pid, names):
    """Ask the name server of a container for names; return the addresses of those that it answered."""
    found = {}
    with suppress(OSError), socket_in(f"/proc/{pid}/ns/net", socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(_ANSWER_S)
        asking.connect(("169.254.1.1", 53))
        for number, name in enumerate(names):
            labels = b"".join(bytes((len(part),)) + part.encode() for part in name.split("."))
            asking.send(struct.pack("!6H", number, 0x0100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1")
        for _ in names:
            answer = asking.recv(4096)
            number, count = struct.unpack_from("!H4xH", answer)
            # After the question, each: a pointer to the name, type, class, time to live, the length 4, and the address.
            first = answer.index(b"\0", 12) + 5
            records = range(first, first + 16 * count, 16)
            found[names[number]] = {socket.inet_ntoa(answer[at + 12 : at + 16]) for at in records}
    return found


def _told_by(path):
    """Return what wireguard-go says at its socket of a tunnel; "" of one that has just ended."""
    told = b""
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(_ANSWER_S)
        asking.connect(str(path))
        asking.sendall(b"get=1\n\n")
        while not told.endswith(b"\n\n") and (more := asking.recv(1 << 16)):
            told += more
    return told.decode()


def _entries(pin):
    """Return what leads somewhere in the namespace at a pin. ValueError when it is gone."""
    done = subprocess.run(["nsenter", f"--net={pin}", "sh", "-c", _LOOK], capture_output=True, text=True, check=False)
    routes, neighbours, forwarding, tables = (part for part in done.stdout.split(_MARK))
    found = Entries()
    for route in json.loads(routes or "[]"):
        device, destination = route.get("dev", ""), route["dst"]
        if device.startswith("ve") and "/" not in destination:
            found.containers[destination] = device[2:]
            found.links.add(device[2:])
    found.links |= {n["dev"][2:] for n in json.loads(neighbours or "[]") if n["dev"].startswith("ve")}
    macs = {entry["mac"] for entry in json.loads(forwarding or "[]") if "dst" in entry}
    ways = {n["dst"]: n["lladdr"] for n in json.loads(neighbours or "[]") if n["dev"] == "vtep"}
    found.dangling = {address for address, mac in ways.items() if mac not in macs and mac != _BY_MARK}
    for route in json.loads(routes or "[]"):
        if route.get("dev") == "vtep" and route["gateway"] not in ways:
            found.dangling.add(route["dst"])
    found.peers = {entry["dst"] for entry in json.loads(forwarding or "[]") if "dst" in entry}
    found.endpoints = {a for chain in _CHAIN.findall(tables) for a in _ADDRESS.findall(chain)}
    return found
