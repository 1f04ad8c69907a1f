"""Networks as operators see them: verified from all nodes, looked into from a container, addresses that stay."""

import json
import os
import re
import subprocess
from pathlib import Path

from tests.e2e.dev_cluster import wait_until
from tests.e2e.host_view import container_pids
from tests.e2e.terminal import at_terminal

STACK = """
services:
  web:
    image: busybox:1
    init: true
    command: sleep 100000
    stop_grace_period: 1s
    networks: [red]
    deploy: {mode: global}
networks:
  red: {}
"""


def verify(cluster, *network):
    """Run `network verify` as JSON; return its exit status and what it says."""
    done = cluster.run("network", "verify", *network, "--format", "json")
    assert done.returncode in (0, 1), done.stderr
    found = json.loads(done.stdout)
    assert found["healthy"] == (done.returncode == 0)
    return done.returncode, found


def ways(found):
    """Return the pairs of the only network in an answer, by (source, target)."""
    (network,) = found["networks"]
    return {(p["source"], p["target"]): p for p in network["pairs"]}


def test_verify_tells_the_ways_between_all_nodes_what_was_changed_by_hand_and_who_is_cut_off(cluster, tmp_path):
    cluster.deploy("shop", STACK, tmp_path)
    status, found = verify(cluster, "shop_red")
    assert status == 0, found
    tried = ways(found)
    assert set(tried) == {(a, b) for a in cluster.nodes for b in cluster.nodes if a != b}
    for pair in tried.values():
        assert (pair["sent"], pair.get("lost", 0), pair["largest"]) == (10, 0, pair["mtu"])
        assert 0 < pair["latency"] < 1
    shown = cluster.argosy("network", "verify", "shop_red")
    assert "6 ways between 3 nodes, all good" in shown
    assert shown.count("as intended") == 3

    # Whoever is first, the audit or who asks: what was changed is told, and put right.
    setting = "/proc/sys/net/ipv4/conf/all/send_redirects"
    pins = Path(f"/proc/{cluster.holder('node2')}/root/run/argosy/netns")
    in_network = ("nsenter", f"--net={next(pins.glob('node2.*'))}", "--")
    subprocess.run([*in_network, "sh", "-c", f"echo 1 > {setting}"], check=True)
    status, found = verify(cluster, "shop_red")
    (node,) = (n for n in found["nodes"] if n["found"] or n["earlier"])
    assert node["node"] == "node2"
    assert status == (1 if node["found"] else 0)
    assert [(d["network"], d["what"]) for d in (*node["found"], *node["earlier"])] == [
        (
            "shop_red",
            "different: sysctl net.ipv4.conf.all.send_redirects = 1, not sysctl net.ipv4.conf.all.send_redirects = 0",
        )
    ]
    assert subprocess.run([*in_network, "cat", setting], check=True, capture_output=True).stdout == b"0\n"
    status, found = verify(cluster, "shop_red")
    assert (status, [int(n["repaired"]) for n in found["nodes"]]) == (0, [0, 1, 0])

    cluster.cut("node3")
    status, found = verify(cluster, "shop_red")
    assert status == 1
    lost = {pair for pair, p in ways(found).items() if p.get("lost", 0) == p["sent"]}
    assert lost == {("node1", "node3"), ("node2", "node3")}
    problems = {n["node"]: n.get("problem", "") for n in found["nodes"]}
    assert problems["node3"].startswith("does not answer")
    assert (problems["node1"], problems["node2"]) == ("", "")
    cluster.heal("node3")
    cluster.wait_node("node3", "READY")
    wait_until(lambda: verify(cluster, "shop_red")[0] == 0, 30, "all ways lead somewhere again")
    cluster.argosy("stack", "rm", "shop")


def test_a_command_and_a_script_run_on_a_network_on_the_chosen_node(cluster, tmp_path):
    cluster.deploy("shop", STACK, tmp_path)
    done = cluster.run(
        "network", "attach", "shop_red", "--node", "node2", "--", "sh", "-c", "nslookup web; hostname; exit 7"
    )
    assert done.returncode == 7, done.stderr
    assert "Name:\tweb" in done.stdout
    pinged = cluster.run("network", "attach", "shop_red", stdin="ping -c 1 -W 5 tasks.web >/dev/null && echo reached")
    assert (pinged.returncode, pinged.stdout) == (0, "reached\n"), pinged.stderr
    missing = cluster.run("network", "attach", "shop_rde", "--", "true")
    assert missing.returncode == 125
    assert "shop_rde" in missing.stderr
    cluster.argosy("stack", "rm", "shop")


def runs(*command):
    """Whether a process with this command line runs on any host."""
    wanted = b"".join(part.encode() + b"\0" for part in command)
    return any(_command_line(path) == wanted for path in Path("/proc").glob("[0-9]*/cmdline"))


def _command_line(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_a_terminal_is_joined_to_a_shell_on_a_network(cluster, tmp_path):
    """As `docker run -it` does it; and whoever goes or is cut off leaves nothing behind."""
    cluster.deploy("shop", STACK, tmp_path)
    attach = ("network", "attach", "shop_red", "--node", "node2")
    begin = ("sh", "-c", "echo be''gun; sleep 98765")

    def works(shell):
        shell.expect("# ")
        shell.type("stty size; tty; nslookup web | grep Name\n")
        assert re.search(r"24 80\r\n/dev/pts/0\r\n.*Name:\tweb", shell.expect("\tweb"), re.DOTALL)
        shell.resize(41, 121)
        shell.type("until stty size | grep '41 121'; do sleep 0.1; done\n")
        shell.expect("\n41 121")
        shell.type("echo be''gun; sleep 98765\n")
        shell.expect("begun")
        wait_until(lambda: runs("sleep", "98765"), 20, "the program runs")
        shell.type("\x03")
        shell.expect("# ")
        assert not runs("sleep", "98765")
        shell.type("exit 9\n")
        assert shell.end() == 9

    def whoever_attached_is_killed(shell):
        shell.expect("begun")
        os.kill(shell.pid, 9)
        wait_until(lambda: not runs("sleep", "98765"), 20, "the program is ended")
        wait_until(lambda: [s["name"] for s in cluster.json("service", "ls")] == ["shop_web"], 20, "no service is left")

    def connection_breaks(shell):
        shell.expect("begun")
        cluster.kill("agent-node2")
        assert "the connection to node node2 broke" in shell.expect("node2 broke")
        assert shell.end() == 3
        wait_until(lambda: not runs("sleep", "98765"), 20, "the program is ended")

    at_terminal(cluster, works, *attach)
    at_terminal(cluster, whoever_attached_is_killed, *attach, "--", *begin)
    where = ("--constraint", "node.hostname==node2")
    at_terminal(cluster, connection_breaks, "run", "-it", *where, "busybox:1", *begin)
    cluster.wait_node("node2", "READY")
    cluster.argosy("stack", "rm", "shop")


STATIC = """
services:
  db:
    image: busybox:1
    init: true
    command: sleep VALUE
    stop_grace_period: 1s
    networks: {back: {ipv4_address: 10.77.1.70}}
    deploy: {update_config: {monitor: 100ms}}
  app:
    image: busybox:1
    init: true
    command: sleep 100000
    stop_grace_period: 1s
    networks: [back]
    deploy: {mode: global}
networks:
  back: {ipam: {config: [{subnet: 10.77.0.0/16, ip_range: 10.77.128.0/17}]}}
"""


def test_a_link_that_is_deleted_in_the_agents_next_life_is_made_again(cluster, tmp_path):
    """The container is an earlier agent's."""
    compose = """
services:
  web: {image: busybox:1, init: true, command: sleep 100000, networks: [net], deploy: {mode: global}}
networks:
  net: {}
"""
    cluster.deploy("again", compose, tmp_path)
    tasks = {task["node"]: task for task in cluster.wait_running("again_web", 3)}
    agent = cluster.kill("agent-node1")
    cluster.wait_restarted("agent-node1", agent)
    cluster.wait_node("node1", "READY")
    pins = Path(f"/proc/{cluster.holder('node1')}/root/run/argosy/netns")
    pin = next(p for p in pins.iterdir() if p.name.endswith(tasks["node1"]["networks"][0]))
    command = ["nsenter", f"--net={pin}", "ip", "link", "del", f"ve{tasks['node1']['id']}"]
    subprocess.run(command, check=True, capture_output=True, timeout=30)

    def reached():
        ping = ("ping", "-c", "1", "-W", "1", tasks["node1"]["addresses"][0])
        return cluster.try_inside(tasks["node2"], *ping).returncode == 0

    wait_until(reached, 10, lambda: cluster.argosy("network", "verify", "again_net"))
    cluster.argosy("stack", "rm", "again")


def test_static_address(cluster, tmp_path):
    """The address stays over an update, a drain and a lost node; all nodes reach it, and nobody else gets it."""
    cluster.deploy("shop", STATIC.replace("VALUE", "100000"), tmp_path)
    everywhere = cluster.wait_running("shop_app", 3)
    assert all(
        a["addresses"][0].startswith("10.77.") and int(a["addresses"][0].split(".")[2]) > 127 for a in everywhere
    )

    def reached_by_all(nodes=tuple(cluster.nodes)):
        return all(
            cluster.try_inside(app, "ping", "-c", "1", "-W", "1", "10.77.1.70").returncode == 0
            for app in cluster.wait_running("shop_app", 3)
            if app["node"] in nodes
        )

    (first,) = cluster.wait_running("shop_db", 1)
    assert first["addresses"] == ["10.77.1.70"]
    wait_until(reached_by_all, 20, "all reach the address")

    cluster.deploy("shop", STATIC.replace("VALUE", "200000"), tmp_path)
    (second,) = cluster.wait_running("shop_db", 1)
    assert second["id"] != first["id"]
    assert second["addresses"] == ["10.77.1.70"]
    wait_until(reached_by_all, 20, "all reach the address after the update")

    other = next(n for n in cluster.nodes if n != second["node"])
    cluster.argosy("node", "drain", second["node"])
    (third,) = cluster.wait_running("shop_db", 1, avoid=(second["node"],))
    assert third["addresses"] == ["10.77.1.70"], other
    cluster.argosy("node", "activate", second["node"])
    wait_until(reached_by_all, 20, "all reach the address after the move")

    lost = third["node"]
    others = [n for n in cluster.nodes if n != lost]
    cluster.cut(lost)
    (fourth,) = cluster.wait_running("shop_db", 1, avoid=(lost,))
    assert fourth["addresses"] == ["10.77.1.70"]
    wait_until(lambda: reached_by_all(others), 20, "the others reach the address while its former node is lost")
    cluster.heal(lost)
    cluster.wait_node(lost, "READY")
    wait_until(lambda: third["id"] not in container_pids(cluster.name, lost), 20, "the former one is stopped on return")
    wait_until(reached_by_all, 20, "all reach the address, its former node as well")

    (shown,) = cluster.json("network", "inspect", "shop_back")
    assert shown["statics"] == [{"address": "10.77.1.70", "service": "shop_db"}]
    refused = cluster.run(
        "service", "create", "--name", "thief", "--network", "name=shop_back,ip=10.77.1.70", "busybox:1", "true"
    )
    assert refused.returncode == 1
    assert "service thief cannot have 10.77.1.70 on network shop_back: service shop_db has it: choose" in refused.stderr

    given_up = STATIC.replace("VALUE", "300000").replace("{back: {ipv4_address: 10.77.1.70}}", "[back]")
    nowhere = given_up.replace("monitor: 100ms}", 'monitor: 100ms}, resources: {reservations: {cpus: "4000"}}')
    cluster.deploy("shop", nowhere, tmp_path, "--detach")
    wait_until(lambda: not cluster.json("network", "inspect", "shop_back")[0]["statics"], 20, "the claim is gone")
    wait_until(lambda: any("CPU" in t["reason"] for t in cluster.tasks("shop_db")), 20, "the next one finds no room")
    assert [t["addresses"] for t in cluster.running("shop_db")] == [["10.77.1.70"]]
    assert all(reached_by_all() for _ in range(3)), "the old one is reached until another takes its place"
    cluster.deploy("shop", given_up, tmp_path)
    (last,) = cluster.wait_running("shop_db", 1)
    assert last["addresses"] != ["10.77.1.70"]
    cluster.argosy("stack", "rm", "shop")


def test_what_changes_of_a_host_while_its_agent_runs_is_followed(cluster, tmp_path):
    """Its link takes smaller packets for a while: so do all containers' links, on the other hosts, too."""
    cluster.deploy("shop", STACK, tmp_path)
    pids = {t["node"]: t["pid"] for t in cluster.tasks("shop_web")}
    device = cluster.on_host("node2", "ip", "-o", "route", "get", "198.18.0.1").partition(" dev ")[2].split()[0]

    def mtus():
        shown = (["nsenter", f"--target={pid}", "--net", "ip", "-o", "link", "show", "eth0"] for pid in pids.values())
        texts = (subprocess.run(command, check=True, capture_output=True, text=True).stdout for command in shown)
        return {int(re.search(r"mtu (\d+)", text)[1]) for text in texts}

    def addresses():
        return cluster.json("node", "inspect", "node2")[0]["description"]["addresses"]

    assert mtus() == {1450}
    try:
        for mtu in (1400, 1500):
            cluster.on_host("node2", "ip", "link", "set", device, "mtu", str(mtu))
            wait_until(lambda mtu=mtu: mtus() == {mtu - 50}, 20, f"all links take {mtu - 50} bytes")
    finally:
        cluster.on_host("node2", "ip", "link", "set", device, "mtu", "1500")
    before = addresses()
    cluster.on_host("node2", "ip", "addr", "add", "203.0.113.9/32", "dev", device)
    wait_until(lambda: addresses() == sorted([*before, "203.0.113.9"]), 20, "the new address is known")
    cluster.on_host("node2", "ip", "addr", "del", "203.0.113.9/32", "dev", device)
    wait_until(lambda: addresses() == before, 20, "the address is gone")
    assert {t["node"]: t["pid"] for t in cluster.tasks("shop_web")} == pids
    cluster.argosy("stack", "rm", "shop")


REFUSED = """
services:
  web: {image: "busybox:1", networks: {a: {ipv4_address: ADDRESS}}}
networks:
  a: {ipam: {config: [{subnet: SUBNET}]}}
"""


def test_networks_that_cannot_be_are_refused_with_what_would_fit(cluster, tmp_path):
    """Overlapping ones are fine, until one service joins both."""
    for name in ("one", "two"):
        cluster.argosy("network", "create", "--subnet", "10.78.0.0/24", name)
    joins = ("service", "create", "--name", "both", "--network", "one", "--network", "two", "busybox:1", "true")
    beside_hosts = ("network", "create", "--subnet", "198.18.0.0/24", "three")
    assert cluster.run(*beside_hosts).stderr.count("198.18.0.0/24") == 1
    for command, says in (
        (joins, "whose subnets overlap: give one of them another subnet"),
        (("network", "create", "--subnet", "10.78.0.0/28", "three"), "smallest subnet is a /26"),
        (beside_hosts, "reaches it by itself): choose another, such as 10.64.0.0/16"),
        (("network", "create", "--mtu", "500", "three"), "500 is not in the range 1280<=x<=65535"),
        (("network", "create", "--mtu", "9000", "three"), "takes 1500 bytes, which leaves 1450: ask for that at most"),
        (("network", "create", "three.four"), "is not a name"),
        (("network", "create", "--ip-range", "10.9.0.0/24", "three"), "of which subnet?"),
    ):
        done = cluster.run(*command)
        assert done.returncode in (1, 2), command
        assert says in done.stderr
    file = tmp_path / "compose.yaml"
    for address, subnet, says in (
        ("198.18.0.70", "198.18.0.0/24", f"{file}:5:32: networks.a.ipam.config.subnet: 198.18.0.0/24 overlaps"),
        ("10.79.0.3", "10.79.0.0/24", f"{file}:3:58: services.web.networks.a.ipv4_address: service bad_web cannot"),
    ):
        file.write_text(REFUSED.replace("ADDRESS", address).replace("SUBNET", subnet))
        assert says in cluster.run("deploy", "-c", str(file), "--detach", "bad").stderr
    # A way of a host that comes later: the host itself refuses, and the task says why.
    route = cluster.on_host("node1", "ip", "-o", "route", "get", "198.18.0.1")
    device = route.partition(" dev ")[2].split()[0]
    cluster.on_host("node1", "ip", "route", "add", "10.78.0.64/26", "dev", device)
    only_there = ("--constraint", "node.hostname==node1", "--restart-condition", "none", "--detach")
    cluster.argosy("service", "create", "--name", "late", "--network", "one", *only_there, "busybox:1", "true")

    def reasons():
        return [t["reason"] for t in cluster.tasks("late", ended=True) if t["state"] == "REJECTED"]

    (reason, *_) = wait_until(reasons, 30, "the task is rejected")
    assert f"network one (10.78.0.0/24) overlaps 10.78.0.64/26, which this host reaches over {device}" in reason
    cluster.argosy("service", "rm", "late")
    cluster.on_host("node1", "ip", "route", "del", "10.78.0.64/26")
    # One that runs already says so, and goes on.
    cluster.argosy(
        "service", "create", "--name", "early", "--network", "one", *only_there, "busybox:1", "sleep", "1000"
    )
    (runs,) = wait_until(lambda: [t for t in cluster.tasks("early") if t["state"] == "RUNNING"], 30, "it runs")
    cluster.on_host("node1", "ip", "route", "add", "10.78.0.64/26", "dev", device)
    wait_until(lambda: cluster.tasks("early")[0]["reason"] == reason, 10, "it says what does not fit any more")
    cluster.on_host("node1", "ip", "route", "del", "10.78.0.64/26")
    wait_until(lambda: not cluster.tasks("early")[0]["reason"], 10, "it fits again")
    assert cluster.tasks("early")[0]["id"] == runs["id"]
    cluster.argosy("service", "rm", "early")
    cluster.argosy("network", "rm", "one", "two")
