"""What a container can see, do and reach: itself, its networks, the outside; and nothing of the hosts or the cluster.

What a container may *do* is tried by its own program, under all that holds it (capabilities, seccomp), and read in its
output. What it may *send* is sent from its network namespace by a test that is root there, which is more than it may.
"""

import contextlib
import errno
import platform
import select
import socket
import struct
from pathlib import Path

import pytest

from tests.e2e.dev_cluster import wait_until
from tests.e2e.host_view import container_pids, is_alive
from tests.e2e.wire import Capture, connect, datagrams, ip_udp, listen, socket_in, vxlan
from tests.rootfs import busybox_rootfs_tar

# System calls that act on the whole host or widen what can be attacked; numbers of x86-64 (asm/unistd_64.h).
FORBIDDEN = {
    "pivot_root": 155, "acct": 163, "settimeofday": 164, "mount": 165, "umount2": 166, "swapon": 167, "reboot": 169,
    "init_module": 175, "quotactl": 179, "clock_settime": 227, "kexec_load": 246, "add_key": 248, "keyctl": 250,
    "unshare": 272, "perf_event_open": 298, "open_by_handle_at": 304, "setns": 308, "finit_module": 313,
    "kexec_file_load": 320, "bpf": 321, "userfaultfd": 323, "io_uring_setup": 425, "open_tree": 428, "fsopen": 430,
}  # fmt: skip
GETUID = 102

PROBE = """
echo "self $$"
echo "processes $(ls -d /proc/[0-9]* | tr '\\n' ' ')"
echo "links $(ls /sys/class/net | tr '\\n' ' ')"
echo "hostname $(hostname)"
echo "uid $(id -u)"
sed 's/^/mount /' /proc/self/mountinfo
sed 's/^/cgroup /' /proc/self/cgroup
for call in CALLS; do syscall $call; echo "syscall $call $?"; done
try() { if "$@" >/dev/null 2>&1; then echo "did $*"; else echo "refused $*"; fi; }
try true
try mount -t tmpfs none /mnt
try mount -t proc none /proc
try umount /proc/keys
try mknod /tmp/disk b 254 0
try mknod /tmp/mem c 1 1
try reboot -f
try hostname other
try chroot / true
try unshare -n true
try insmod /tmp/none.ko
try ip link set eth0 down
try ip address add 10.64.0.99/32 dev eth0
try ip route add default via 169.254.1.1 table 7
try sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
try sh -c 'echo x > /proc/sys/kernel/hostname'
try sh -c 'echo b > /proc/sysrq-trigger'
try sh -c 'cd /sys/fs/cgroup; echo 99999999 > $(ls memory/memory.limit_in_bytes memory.max 2>/dev/null)'
try sh -c 'echo 1 > /proc/1/oom_score_adj && echo -1000 > /proc/1/oom_score_adj'
try touch /sys/x
try dd if=/dev/vda of=/dev/null count=1
try touch /tmp/works
echo done
exec sleep 100000
"""
REFUSED_BUT = {"true", "touch /tmp/works", "chroot / true"}
"""Everything that PROBE tries fails, but these; chroot is a capability that containers have by default."""

STACK = """
services:
  probe:
    image: probe:1
    command: ["sh", "/probe"]
    stop_grace_period: 1s
    networks: [red]
    deploy: {mode: global}
  red:
    image: busybox:1
    init: true
    command: sleep 100000
    networks: [red]
    deploy: {mode: global}
  blue:
    image: busybox:1
    init: true
    command: sleep 100000
    networks: [blue]
    ports: ["9053:9053/udp"]
    deploy: {mode: global}
  closed:
    image: busybox:1
    init: true
    command: sleep 100000
    networks: [closed]
    deploy: {mode: global}
  fixed:
    image: busybox:1
    command: ["sh", "-c", "touch /x || echo refused; touch /scratch/y && echo written; echo done; exec sleep 100000"]
    read_only: true
    stop_grace_period: 1s
    tmpfs: /scratch
networks:
  red: {}
  blue: {}
  closed: {internal: true}
"""
SWITCH = "198.18.0.1"
HOSTS = {"node1": "198.18.1.1", "node2": "198.18.1.2", "node3": "198.18.1.3"}
VXLAN_PORT = 14789


@pytest.fixture(scope="module")
def stack(cluster, tmp_path_factory):
    """The stack `i`; its tasks by service and node."""
    directory = tmp_path_factory.mktemp("stack")
    probe = PROBE.replace("CALLS", " ".join(map(str, [GETUID, *FORBIDDEN.values()])))
    files = {"bin/syscall": syscall_program(), "probe": probe.encode()}
    cluster.argosy("image", "import", "probe:1", str(busybox_rootfs_tar(directory / "probe.tar", files)))
    cluster.deploy("i", STACK, directory)
    yield {(t["service"].removeprefix("i_"), t["node"]): t for t in cluster.tasks()}
    cluster.argosy("stack", "rm", "i")


@pytest.fixture(scope="module")
def probed(cluster, stack):
    """What the probe on the first host printed: a list of values for each first word."""

    def finished():
        lines = cluster.argosy("logs", "--no-prefix", stack["probe", "node1"]["id"]).splitlines()
        return lines if "done" in lines else None

    lines = wait_until(finished, 30, "the probe has finished")
    found = {}
    for line in lines:
        word, _, rest = line.partition(" ")
        found.setdefault(word, []).append(rest.strip())
    return found


def syscall_program():
    """Return an ELF program that makes the system call whose number is its argument, all of whose arguments are 0.

    It exits with the error number, or 0.
    """
    assert platform.machine() == "x86_64", "this program is in the machine code of x86-64"
    code = bytes.fromhex(
        "488b742410"  # mov rsi, [rsp+16]    argv[1]
        "31c0"  # xor eax, eax
        "0fb60e"  # next: movzx ecx, byte [rsi]
        "85c9740d"  # test ecx, ecx; jz made
        "6bc00a83e93001c848ffc6ebec"  # imul eax, 10; sub ecx, '0'; add eax, ecx; inc rsi; jmp next
        "31ff31f631d24d31d24d31c04d31c9"  # made: all arguments 0
        "0f05"  # syscall
        "f7d889c7b83c0000000f05"  # exit(-result)
    )
    size = 64 + 56 + len(code)
    base = 0x400000
    header = (
        b"\x7fELF\x02\x01\x01"
        + bytes(9)
        + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, base + 120, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    )
    return header + struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000) + code


# ------------------------------------------------------------------ what it sees


def test_a_container_is_alone(probed, stack):
    assert probed["self"] == ["1"]
    processes = probed["processes"][0].split()
    assert processes[0] == "/proc/1"
    assert len(processes) <= 4, "the shell and what it runs at this moment"
    assert probed["links"] == ["eth0 lo"]
    assert probed["hostname"] == [stack["probe", "node1"]["id"]] or "node1" not in probed["hostname"][0]
    assert socket.gethostname() not in probed["hostname"][0]


def test_a_container_sees_no_mount_of_its_host(probed, cluster):
    """Its mounts are its root, the kernel's own file systems, device nodes, and the few files that it was given."""
    host_types = {"ext4", "xfs", "btrfs"}
    for line in probed["mount"]:
        before, _, after = line.partition(" - ")
        inner, point = before.split()[3:5]
        kind = after.split()[0]
        assert str(cluster.run_dir) not in line
        assert "/var/lib/argosy" not in line
        assert "dev-" + cluster.name not in line, "not even the name of its cgroup outside"
        assert kind not in host_types or point in ("/run/argosy-init",), line
        if kind == "devtmpfs":
            assert inner in ("/null", "/zero", "/full", "/random", "/urandom", "/tty"), line
        if kind == "tmpfs" and inner != "/":
            assert point in ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf"), line
        if kind in ("sysfs", "cgroup", "cgroup2"):
            assert "ro" in before.split()[5].split(","), line
    points = [line.split()[4] for line in probed["mount"]]
    assert {"/", "/proc", "/sys", "/dev"} <= set(points)
    assert {line.split(":", 2)[2] for line in probed["cgroup"]} <= {"/", ""}, "its cgroup is the root of what it sees"


def test_root_in_a_container_is_nobody_outside(cluster, stack):
    firsts = set()
    for (_, node), task in stack.items():
        for pid in container_pids(cluster.name, node)[task["id"]]:
            status = dict(
                line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "\t" in line
            )
            assert all(int(uid) >= 10**9 for uid in (status["Uid"] + "\t" + status["Gid"]).split())
            assert status["NoNewPrivs"] == "1"
            assert status["Seccomp"] == "2"
        firsts.add(Path(f"/proc/{pid}/uid_map").read_text().split()[1])
    assert len(firsts) == len(stack), "each container has a range of ids of its own"


# ------------------------------------------------------------------ what it can do


def test_a_container_cannot_touch_the_host(probed):
    assert probed["uid"] == ["0"]
    assert set(probed["did"]) == REFUSED_BUT
    assert len(probed["refused"]) == PROBE.count("\ntry ") - len(REFUSED_BUT)


def test_system_calls_that_act_on_the_host_are_refused(probed):
    results = dict(line.split() for line in probed["syscall"])
    assert results[str(GETUID)] == "0", "the program that tries works"
    eperm = "1"
    assert {name: results[str(number)] for name, number in FORBIDDEN.items()} == dict.fromkeys(FORBIDDEN, eperm)


def test_a_read_only_root_is_read_only(cluster, stack):
    task = next(t for (service, _), t in stack.items() if service == "fixed")

    def words():
        done = cluster.run("logs", "--no-prefix", task["id"])
        lines = (done.stdout + done.stderr).splitlines()
        return lines if "done" in lines else None

    lines = wait_until(words, 20, "its output")
    assert "refused" in lines
    assert "written" in lines


def test_a_memory_hog_and_a_fork_bomb_end_alone(cluster, stack, tmp_path):
    """Both end with a reason; their neighbours on the host, and the host, do not notice."""
    neighbours = cluster.programs()
    cluster.run("deploy", "-d", "-c", write(tmp_path, GREEDY), "greedy", timeout=60)
    try:

        def ended():
            found = {t["service"]: t for t in cluster.tasks(ended=True) if t["service"].startswith("greedy_")}
            return found if len(found) == 2 and all(t["state"] == "FAILED" for t in found.values()) else None

        found = wait_until(ended, 60, lambda: cluster.argosy("ps", "-a"))
        assert "out of memory" in found["greedy_hog"]["reason"]
        assert found["greedy_hog"]["oom_killed"]
        said = cluster.run("logs", found["greedy_bomb"]["id"])
        assert "can't fork" in said.stdout + said.stderr
        assert not found["greedy_bomb"]["oom_killed"]
        assert all(is_alive(p) for p in neighbours.values())
        assert cluster.programs() == neighbours
        assert all(node["state"] == "READY" for node in cluster.json("node", "ls"))
    finally:
        cluster.argosy("stack", "rm", "greedy")


GREEDY = """
services:
  hog:
    image: busybox:1
    command: tail /dev/zero
    deploy:
      restart_policy: {condition: none}
      placement: {constraints: [node.hostname==node1]}
      resources: {limits: {memory: 32M}}
  bomb:
    image: busybox:1
    command: ["sh", "-c", "while :; do sleep 1000 & done"]
    deploy:
      restart_policy: {condition: none}
      placement: {constraints: [node.hostname==node1]}
      resources: {limits: {pids: 50}}
"""


def write(directory, text):
    """Write a Compose file; return its path."""
    path = directory / "compose.yaml"
    path.write_text(text)
    return str(path)


# ------------------------------------------------------------------ what it reaches


@pytest.fixture(scope="module")
def places(cluster, stack):
    """Network namespaces: of tasks by (service, node), of hosts and the switch by name."""
    found = {
        (service, node): f"/proc/{container_pids(cluster.name, node)[task['id']][0]}/ns/net"
        for (service, node), task in stack.items()
    }
    return found | {host: f"/proc/{cluster.holder(host)}/ns/net" for host in ("switch", *cluster.nodes)}


def address(stack, service, node):
    """Return a task's address."""
    return stack[service, node]["addresses"][0]


def vtep_mac(cluster, network_id, node):
    """Return the MAC address of a node's end of a network's tunnels."""
    pins = Path(f"/proc/{cluster.holder(node)}/root/run/argosy/netns")
    pin = next(path for path in pins.iterdir() if path.name.endswith(network_id))
    with socket_in(str(pin), socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind(("vtep", 0))
        return sock.getsockname()[4]


def test_a_forged_vxlan_packet_arrives_nowhere(cluster, stack, places):
    """A packet that, sent by a host, gets into a foreign network. A container's does not leave its host.

    That of a machine on the wire that is no host of the cluster, as the switch, is not taken.
    """
    network = stack["red", "node2"]["networks"][0]
    vni = next(n["vni"] for n in cluster.json("network", "ls") if n["id"] == network)
    target_mac, source_mac = vtep_mac(cluster, network, "node2"), vtep_mac(cluster, network, "node3")
    victim = address(stack, "red", "node2")

    def forged(text):
        return vxlan(vni, target_mac, source_mac, ip_udp(address(stack, "red", "node3"), victim, text))

    with (
        datagrams(places["red", "node2"], (victim, 9999)) as received,
        Capture(places["node2"], "eth0") as wire,
        socket_in(places["blue", "node1"], socket.AF_INET, socket.SOCK_DGRAM) as attacker,
        socket_in(places["closed", "node1"], socket.AF_INET, socket.SOCK_DGRAM) as captive,
        socket_in(places["node1"], socket.AF_INET, socket.SOCK_DGRAM) as host,
        socket_in(places["switch"], socket.AF_INET, socket.SOCK_DGRAM) as stranger,
    ):
        for size in (0, 4000):  # whole, and in fragments
            stranger.sendto(forged(b"strange" + bytes(size)), (HOSTS["node2"], VXLAN_PORT))
        wire.until(b"strange")
        for sender in (attacker, captive):
            for there in (*HOSTS.values(), "169.254.1.1", "169.254.169.254", SWITCH):
                for port in (VXLAN_PORT, 51820):
                    send(sender, forged(b"forged"), (there, port))
            send(sender, forged(b"forged" + bytes(4000)), (HOSTS["node2"], VXLAN_PORT))  # in fragments
        send(attacker, b"innocent", (HOSTS["node2"], 5555))
        frames = wire.until(b"innocent")
        assert not [frame for frame in frames if b"forged" in frame], "nothing forged came to the host's wire"
        # The very same packet from the host itself is what the network consists of: so the test can see it.
        host.sendto(forged(b"genuine"), (HOSTS["node2"], VXLAN_PORT))
        assert received.recv(2000) == b"genuine"


def test_a_forged_vxlan_packet_does_not_come_as_an_answer(cluster, stack, places):
    """A container asks a published port of another node from the tunnels' port, and is answered what a tunnel sends."""
    network = stack["red", "node2"]["networks"][0]
    vni = next(n["vni"] for n in cluster.json("network", "ls") if n["id"] == network)
    victim = address(stack, "red", "node2")
    macs = [vtep_mac(cluster, network, node) for node in ("node2", "node1")]
    forged, genuine = (
        vxlan(vni, *macs, ip_udp(address(stack, "red", "node1"), victim, text)) for text in (b"forged", b"genuine")
    )
    with contextlib.ExitStack() as sockets:
        received = sockets.enter_context(datagrams(places["red", "node2"], (victim, 9999)))
        answering = [sockets.enter_context(datagrams(places["blue", n], ("0.0.0.0", 9053))) for n in cluster.nodes]
        asking = sockets.enter_context(datagrams(places["blue", "node2"], ("0.0.0.0", VXLAN_PORT)))
        for host in HOSTS.values():
            asking.sendto(b"forge", (host, 9053))
            (ready,) = select.select(answering, [], [], 10)[0]
            ready.sendto(forged, ready.recvfrom(100)[1])
            assert asking.recv(2000) == forged, "it is who asked that has the answer"
        host = sockets.enter_context(socket_in(places["node1"], socket.AF_INET, socket.SOCK_DGRAM))
        host.sendto(genuine, (HOSTS["node2"], VXLAN_PORT))
        assert received.recv(2000) == b"genuine"


def send(sock, data, target):
    """Send a datagram; that the kernel refuses at once is as good as that it never arrives."""
    with contextlib.suppress(OSError):
        sock.sendto(data, target)


def test_a_spoofed_source_address_leaves_nowhere(cluster, stack, places):
    own, peer = address(stack, "red", "node1"), address(stack, "red", "node3")
    victim = address(stack, "red", "node2")
    with (
        datagrams(places["red", "node2"], (victim, 9999)) as received,
        socket_in(places["red", "node1"], socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw,
        Capture(places["switch"], "to-node1") as wire,
    ):
        for source in (peer, address(stack, "blue", "node1"), HOSTS["node1"], "169.254.1.1", "8.8.8.8"):
            raw.sendto(ip_udp(source, victim, b"spoofed"), (victim, 0))
            raw.sendto(ip_udp(source, HOSTS["node2"], b"spoofed"), (HOSTS["node2"], 0))
        raw.sendto(ip_udp(own, victim, b"honest"), (victim, 0))
        assert received.recvfrom(2000) == (b"honest", (own, 5353))
        raw.sendto(ip_udp(own, HOSTS["node2"], b"innocent"), (HOSTS["node2"], 0))
        assert not [frame for frame in wire.until(b"innocent") if b"spoofed" in frame]


def test_networks_do_not_reach_each_other(cluster, stack, places):
    for node in cluster.nodes:
        with listen(places["red", node], ("0.0.0.0", 8000)), Capture(places["switch"], "to-node1") as wire:
            red = address(stack, "red", node)
            peer = connect(places["red", "node1"], (red, 8000))
            assert isinstance(peer, socket.socket), f"its own network reaches {node}: {peer}"
            peer.close()
            for foreign in ("blue", "closed"):
                assert isinstance(connect(places[foreign, "node1"], (red, 8000), timeout=0.5), OSError)
            with socket_in(places["blue", "node1"], socket.AF_INET, socket.SOCK_DGRAM) as sock:
                send(sock, b"innocent", (HOSTS["node2"], 5555))
            lost = [f for f in wire.until(b"innocent") if socket.inet_aton(red) == f[30:34]]
            assert not lost, "what is for an address of another network does not leave by the uplink either"


def test_an_address_that_nobody_has_never_leaves_the_host(cluster, stack, places):
    """Of the own slice and of nobody's it is refused at once; of a peer's it goes to that peer, which refuses it."""
    own, peer = address(stack, "red", "node1"), address(stack, "red", "node2")
    subnet = own.rsplit(".", 2)[0]
    unused = [f"{addr.rsplit('.', 1)[0]}.{int(addr.rsplit('.', 1)[1]) | 31}" for addr in (own, peer)]
    with Capture(places["switch"], "to-node1") as wire:
        for there in (*unused, f"{subnet}.250.9"):
            refused = connect(places["red", "node1"], (there, 8000), timeout=5)
            assert isinstance(refused, OSError)
            assert refused.errno == errno.EHOSTUNREACH, (there, refused)
        with socket_in(places["red", "node1"], socket.AF_INET, socket.SOCK_DGRAM) as sock:
            send(sock, b"innocent", (HOSTS["node2"], 5555))
        frames = wire.until(b"innocent")
    outer = [frame[30:34] for frame in frames if frame[12:14] == b"\x08\x00"]
    assert not [target for target in outer if socket.inet_ntoa(target).startswith(subnet)], "never in the clear"
    for there, hosts in ((unused[0], set()), (f"{subnet}.250.9", set()), (unused[1], {HOSTS["node2"]})):
        carried = {socket.inet_ntoa(frame[30:34]) for frame in frames if socket.inet_aton(there) == frame[80:84]}
        assert carried <= hosts, (there, carried)


def test_the_clusters_own_ports_are_out_of_reach_and_others_are_not(cluster, stack, places):
    """etcd, controllers and beats; the listeners here stand for programs that may be there on real hosts."""
    attackers = [places["red", "node1"], places["closed", "node1"]]
    for where, there in (("switch", SWITCH), ("node2", HOSTS["node2"]), ("node1", HOSTS["node1"])):
        with listen(places[where], (there, 8080)) as other:
            reached = connect(attackers[0], (there, 8080))
            assert isinstance(reached, socket.socket), f"ordinary ports of {where} are reached: {reached}"
            accepted, (source, _) = other.accept()
            assert source == HOSTS["node1"] or where == "node1", "under the address of the container's host"
            accepted.close()
            reached.close()
        for port in (2379, 2380, 7070):
            try:
                listener = listen(places[where], (there, port))
            except OSError:
                listener = None  # the controller itself listens there
            for attacker in attackers:
                assert isinstance(connect(attacker, (there, port), timeout=0.4), OSError), (where, port)
            if listener:
                listener.close()
    with Capture(places["switch"], "to-node1") as wire:
        for attacker in attackers:
            with socket_in(attacker, socket.AF_INET, socket.SOCK_DGRAM) as sock:
                send(sock, b"a forged beat", (SWITCH, 7070))
        with socket_in(attackers[0], socket.AF_INET, socket.SOCK_DGRAM) as sock:
            send(sock, b"innocent", (SWITCH, 5555))
        assert not [frame for frame in wire.until(b"innocent") if b"a forged beat" in frame]


def test_an_internal_network_has_no_way_out(cluster, stack, places):
    with (
        listen(places["switch"], (SWITCH, 8080)),
        listen(places["closed", "node2"], ("0.0.0.0", 8000)),
    ):
        inside = connect(places["closed", "node1"], (address(stack, "closed", "node2"), 8000))
        assert isinstance(inside, socket.socket), inside
        inside.close()
        assert isinstance(connect(places["closed", "node1"], (SWITCH, 8080), timeout=0.5), OSError)
        # Also when the container gives itself a route: it may not, but a service with NET_ADMIN may.
        cluster.inside(
            stack["closed", "node1"],
            "/bin/ip",
            "route",
            "replace",
            "default",
            "via",
            "169.254.1.1",
            "dev",
            "eth0",
            "onlink",
        )
        assert isinstance(connect(places["closed", "node1"], (SWITCH, 8080), timeout=0.5), OSError)
        for there in HOSTS.values():
            assert isinstance(connect(places["closed", "node1"], (there, 8080), timeout=0.2), OSError)


def test_a_container_reaches_nothing_of_its_host_by_the_routers_address(places):
    """169.254.1.1 answers names and nothing else."""
    for port in (22, 80, 2379, 7070, 8080):
        assert isinstance(connect(places["red", "node1"], ("169.254.1.1", port), timeout=0.4), OSError)
    with listen(places["node1"], ("0.0.0.0", 8081)):
        assert isinstance(connect(places["red", "node1"], ("169.254.1.1", 8081), timeout=0.4), OSError)
        assert isinstance(connect(places["red", "node1"], ("127.0.0.1", 8081), timeout=0.4), OSError)
