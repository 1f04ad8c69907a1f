"""A machine beside the cluster, for tests."""

import os
import subprocess

from tests.e2e.dev_cluster import wait_until


class Outside:
    """A machine that is no host of the cluster: a namespace of its own on the hosts' bridge."""

    def __init__(self, cluster):
        self._process = subprocess.Popen(["unshare", "--net", "sleep", "1000"], stdout=subprocess.DEVNULL)
        self.namespace = f"/proc/{self._process.pid}/ns/net"
        own = os.readlink("/proc/self/ns/net")
        wait_until(lambda: os.readlink(self.namespace) != own, 10, "a namespace of its own")
        hosts = cluster.on_host("switch", "ip", "-o", "-4", "address", "show", "scope", "global")
        _, bridge, _, cidr, *_ = hosts.split()
        base, _, prefix = cidr.rpartition("/")
        self.address = base.rpartition(".")[0] + ".250"
        pid = str(self._process.pid)
        cluster.on_host("switch", "ip", "link", "add", "outside", "type", "veth", "peer", "eth0", "netns", pid)
        cluster.on_host("switch", "ip", "link", "set", "outside", "master", bridge, "up")
        self._run("ip", "address", "add", f"{self.address}/{prefix}", "dev", "eth0")
        self._run("ip", "link", "set", "eth0", "up")

    def _run(self, *command):
        subprocess.run(["nsenter", f"--target={self._process.pid}", "--net", "--", *command], check=True)

    def close(self):
        self._process.kill()
        self._process.wait()
