"""A dev cluster under test: runs `argosy` as a person would, and looks at hosts and containers from outside.

What it observes of containers comes from the kernel (/proc, namespaces), not from Argosy.
"""

import base64
import contextlib
import ipaddress
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

from argosy.cli.dev import cgroups
from argosy.proto.argosy.v1 import types_pb2
from tests.e2e import host_view

ARGOSY = str(Path(sys.executable).parent / "argosy")


class DevCluster:
    """Use as a context manager: up on entry, down on exit, whatever happened between. `up` has all that are up now."""

    up: ClassVar[list["DevCluster"]] = []

    def __init__(self, name, *, nodes=3, controllers=1):
        self.name = name
        self.nodes = [f"node{i}" for i in range(1, nodes + 1)]
        self._controllers = controllers
        self.run_dir = Path("/run/argosy/dev") / name
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("ARGOSY_")},
            "ARGOSY_CONTEXT": f"dev/{name}",
        }

    def __enter__(self):
        up = ["dev", "up", "--name", self.name, "--nodes", str(len(self.nodes))]
        try:
            self.argosy(*up, "--controllers", str(self._controllers))
        except BaseException:
            self.run("dev", "down", "--name", self.name)
            raise
        self.up.append(self)
        return self

    def __exit__(self, *_):
        self.up.remove(self)
        self.argosy("dev", "down", "--name", self.name)

    # ---------------------------------------------------------------- as a user

    def run(self, *args, timeout=120, stdin=None, cwd=None):
        """Run `argosy ARGS`; return the finished process, whatever its exit status."""
        return subprocess.run(
            [ARGOSY, *args],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            input=stdin,
            cwd=cwd,
            check=False,
        )

    def argosy(self, *args, **options):
        """Run `argosy ARGS`, which must succeed; return what it printed."""
        done = self.run(*args, **options)
        assert done.returncode == 0, f"argosy {' '.join(args)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def json(self, *args):
        """Run `argosy ARGS --format json`; return the parsed output."""
        return json.loads(self.argosy(*args, "--format", "json"))

    def deploy(self, stack, compose, tmp_path, *args):
        """Deploy a Compose text as a stack and wait until it runs; a deploy that waits too long says what for."""
        path = tmp_path / f"{stack}.yaml"
        path.write_text(compose)
        return self.argosy("deploy", "-c", str(path), "--timeout", "80", *args, stack)

    def tasks(self, service="", *, ended=False):
        """Return the tasks as `ps` shows them."""
        args = ["ps", *([service] if service else []), *(["-a"] if ended else [])]
        return self.json(*args)

    def running(self, service):
        """Return the tasks of a service that run and are to go on running."""
        return [t for t in self.tasks(service) if t["state"] == t["desired_state"] == "RUNNING"]

    def wait_running(self, service, count, timeout=30, avoid=()):
        """Wait until exactly `count` tasks of a service run, none of them on the nodes `avoid`; return them."""

        def settled():
            tasks = [t for t in self.running(service) if t["node"] not in avoid]
            return tasks if len(tasks) == count else None

        return wait_until(settled, timeout, lambda: f"{count} of {service} running: {self.tasks(service, ended=True)}")

    def node_state(self, name):
        """Return a node's state."""
        return next(n["state"] for n in self.json("node", "ls") if n["name"] == name)

    def wait_node(self, name, state, timeout=30):
        """Wait until a node is in a state."""
        wait_until(lambda: self.node_state(name) == state, timeout, f"{name} {state}")

    # ---------------------------------------------------------------- the machine underneath

    def processes(self):
        """Return what the cluster's supervisor says of its processes."""
        return json.loads((self.run_dir / "processes.json").read_text())

    def pid(self, process):
        """Return the id of a process ("controller-1", "agent-node2", "etcd-1")."""
        return wait_until(lambda: self.processes()["processes"][process]["pid"], 20, f"{process} runs")

    def holder(self, host):
        """Return the process that holds a host's namespaces."""
        return self.processes()["holders"][host]

    def kill(self, process, number=signal.SIGKILL):
        """Send a signal to a process of the cluster; return the id it had."""
        pid = self.pid(process)
        os.kill(pid, number)
        return pid

    def kill_pid(self, pid, number=signal.SIGKILL):
        """Send a signal to a process of the cluster that its supervisor does not know, and wait until it has ended."""
        assert f"/argosy/dev-{self.name}" in Path(f"/proc/{pid}/cgroup").read_text(), "only processes of this cluster"
        os.kill(pid, number)
        if number == signal.SIGKILL:
            wait_until(lambda: not host_view.exists(pid), 20, f"process {pid} has ended")

    def wait_restarted(self, process, old_pid, timeout=20):
        """Wait until the supervisor has started a process anew."""
        wait_until(lambda: self.pid(process) not in (0, old_pid), timeout, f"{process} started anew")
        if not process.startswith("agent"):
            self.wait_answers(timeout)

    def wait_answers(self, timeout=30):
        """Wait until the cluster answers."""
        wait_until(lambda: self.run("node", "ls").returncode == 0, timeout, lambda: self.run("node", "ls").stderr)

    def launcher_pid(self, node):
        """Return the id of a host's launcher."""
        return wait_until(lambda: self._find_launcher(node), 20, f"launcher of {node}")

    def _find_launcher(self, node):
        agent_ns = os.readlink(f"/proc/{self.holder(node)}/ns/net")
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{pid}/cmdline").read_bytes()
                if b"launcher" in line and os.readlink(f"/proc/{pid}/ns/net") == agent_ns:
                    return pid
        return None

    def on_host(self, host, *command, check=True, timeout=30):
        """Run a command in a host's network namespace; return its standard output."""
        done = subprocess.run(
            ["nsenter", f"--target={self.holder(host)}", "--net", "--", *command],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert not check or done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def programs(self, command="sleep", nodes=None):
        """Return the programs in containers whose command line begins with `command`, by task, as the kernel has it."""
        return host_view.programs(self.name, nodes or self.nodes, command)

    def wait_programs(self, count, timeout=60, command="sleep", nodes=None):
        """Wait until exactly `count` such programs run; return them by task."""
        found = {}

        def counted():
            found.clear()
            found.update(self.programs(command, nodes))
            return len(found) == count

        wait_until(counted, timeout, lambda: f"{count} programs {command!r}: {found}\n{self.argosy('ps', '-a')}")
        return dict(found)

    def cut(self, node):
        """Take a host's link down."""
        self.argosy("dev", "cut", node, "--name", self.name)

    def heal(self, node):
        """Bring a host's link up."""
        self.argosy("dev", "heal", node, "--name", self.name)

    @contextlib.contextmanager
    def held_down(self, *processes):
        """Kill processes of the cluster and keep them from being started anew while the body runs."""
        flags = [self.run_dir / "stopped" / process for process in processes]
        for flag in flags:
            flag.touch()
        try:
            pids = [self.kill(process) for process in processes]
            wait_until(lambda: not any(map(host_view.exists, pids)), 20, f"{processes} have ended")
            yield
        finally:
            for flag in flags:
                flag.unlink()
        for process, pid in zip(processes, pids, strict=True):
            self.wait_restarted(process, pid, timeout=30)

    @contextlib.contextmanager
    def powered_off(self, node):
        """Have a host lose all that runs on it, and all that is not on its disk; it is back after the body."""
        with self.held_down(f"agent-{node}"):
            wait_until(lambda: not self._end_all(node), 20, f"nothing runs on {node}")
            cgroups.end(f"/argosy/dev-{self.name}/{node}")
            anew = "umount --recursive --lazy /run/argosy && mount -t tmpfs -o mode=755 tmpfs /run/argosy"
            enter = ["nsenter", f"--target={self.holder(node)}", "--mount", "--"]
            subprocess.run([*enter, "sh", "-c", anew], check=True, timeout=30)
            yield

    def _end_all(self, node):
        """Kill the host's own processes, the agent's parts first; return which there were."""
        holder = self.holder(node)
        own = {os.readlink(f"/proc/{holder}/ns/{kind}") for kind in ("net", "mnt")}
        own -= {os.readlink(f"/proc/self/ns/{kind}") for kind in ("net", "mnt")}
        found = []
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            with contextlib.suppress(OSError):
                if pid != holder and own & {os.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("net", "mnt")}:
                    found.append(pid)
                    os.kill(pid, signal.SIGKILL)
        return found

    def container_pid(self, task):
        """Return the id of a task's first process."""
        status = self.json("ps", "-a")
        found = next(t for t in status if t["id"] == task["id"])
        return found["pid"]

    def inside(self, task, *command, check=True, timeout=30):
        """Run a command with all namespaces and the root of a task's container, as its root user."""
        done = self.try_inside(task, *command, timeout=timeout)
        assert not check or done.returncode == 0, f"{command}: exit {done.returncode}: {done.stderr or done.stdout}"
        return done.stdout

    def try_inside(self, task, *command, timeout=30):
        """Run a command inside a task's container; return the finished process."""
        flags = ["--user", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd=/"]
        return subprocess.run(
            ["nsenter", f"--target={self.container_pid(task)}", *flags, "--setuid=0", "--setgid=0", "--", *command],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def etcdctl(self, *args):
        """Run etcdctl against the cluster's etcd."""
        etcdctl = os.environ.get("ARGOSY_ETCDCTL", "/opt/argosy/etcd/bin/etcdctl")
        return self.on_host("switch", etcdctl, "--endpoints=127.0.0.1:2379", *args)

    def stored(self, kind, message):
        """Return the stored objects of a kind, read by etcdctl and decoded here, by id."""
        prefix = f"/argosy/{self.name}/{kind}/"
        answer = json.loads(self.etcdctl("get", "--prefix", prefix, "--write-out=json"))
        values = [base64.b64decode(kv["value"]) for kv in answer.get("kvs", ())]
        objects = [message.FromString(value) for value in values]
        return {obj.meta.id: obj for obj in objects}

    def assert_etcd_tells_the_same(self, timeout=20):
        """Check that etcd and `ps -a`, `service ls` and `node ls` tell the same (as soon as nothing moves)."""

        def differences():
            stored, shown = self._stored_rows(), self._shown_rows()
            return [(kind, stored[kind], shown[kind]) for kind in stored if stored[kind] != shown[kind]]

        wait_until(lambda: not differences(), timeout, lambda: f"etcd and the commands tell the same: {differences()}")

    def _stored_rows(self):
        name = types_pb2.TaskState.Name
        tasks = self.stored("task", types_pb2.Task).values()
        nodes = self.stored("node", types_pb2.Node)
        return {
            "tasks": {
                t.meta.id: (
                    name(t.status.state),
                    name(t.desired_state),
                    nodes[t.node_id].spec.name if t.node_id else "",
                    t.slot,
                    [a.address for a in t.attachments],
                    t.status.reason,
                )
                for t in tasks
            },
            "services": {
                s.meta.id: (s.spec.name, s.spec.replicas)
                for s in self.stored("service", types_pb2.Service).values()
                if s.spec.mode != types_pb2.SERVICE_MODE_GLOBAL
            },
            "nodes": {n.spec.name: types_pb2.NodeState.Name(n.status.state) for n in nodes.values()},
        }

    def _shown_rows(self):
        return {
            "tasks": {
                t["id"]: (
                    f"TASK_STATE_{t['state']}",
                    f"TASK_STATE_{t['desired_state']}",
                    t["node"],
                    t["slot"],
                    [int(ipaddress.ip_address(a)) for a in t["addresses"]],
                    t["reason"],
                )
                for t in self.tasks(ended=True)
            },
            "services": {
                s["id"]: (s["name"], s["replicas"]) for s in self.json("service", "ls") if s["mode"] == "replicated"
            },
            "nodes": {n["name"]: f"NODE_STATE_{n['state']}" for n in self.json("node", "ls")},
        }

    def log_tails(self, lines=25):
        """Return the ends of all logs of the cluster."""
        parts = []
        for path in sorted((self.run_dir / "logs").glob("*.log")):
            if not path.name.startswith("etcd"):
                parts.append(f"--- {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-lines:]))
        return "\n".join(parts)


def wait_until(condition, timeout, what):
    """Wait until `condition()` is true and return it; AssertionError with `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout} s in vain for: {what() if callable(what) else what}")
        time.sleep(0.05)


def assert_throughout(seconds, condition, what):
    """Check that `condition()` is true at every look during some seconds: for what must *not* happen."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert condition(), f"within {seconds} s no longer: {what() if callable(what) else what}"
        time.sleep(0.05)
