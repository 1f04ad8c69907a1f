"""What is left of tasks when all of them are gone: looked for in the kernel of every host, its files, and in etcd."""

import contextlib
import json
from pathlib import Path

from tests.e2e.host_view import HIERARCHY

KINDS_OF_TASKS = ("task", "service", "revision", "slice", "network")


def in_etcd(cluster):
    """Return the keys that tell of tasks, services and networks."""
    prefix = f"/argosy/{cluster.name}/"
    keys = cluster.etcdctl("get", "--prefix", prefix, "--keys-only").split()
    return [key for key in keys if key.removeprefix(prefix).split("/")[0] in KINDS_OF_TASKS]


def on_host(cluster, host):
    """Return whatever a host has of networks and containers: namespaces, devices, tables, groups, mounts, names."""
    root = Path(f"/proc/{cluster.holder(host)}/root/run/argosy")
    found = []
    with contextlib.suppress(FileNotFoundError):
        found += [f"namespace {pin.name}" for pin in (root / "netns").iterdir()]
    listed = cluster.on_host(host, "sh", "-c", "ip -br link; nft list tables").splitlines()
    found += [line for line in listed if line.startswith(("au", "ve", "vx", "table ip argosy"))]
    with contextlib.suppress(FileNotFoundError):
        groups = (HIERARCHY / f"argosy/dev-{cluster.name}/{host}").iterdir()
        found += [f"group {group.name}" for group in groups if group.is_dir()]
    with contextlib.suppress(FileNotFoundError):
        records = json.loads((root / "network/dns-records.json").read_text())
        found += [f"name {record}" for record in records]
    mounts = Path(f"/proc/{cluster.holder(host)}/mountinfo").read_text().splitlines()
    found += [f"mount {line.split()[4]}" for line in mounts if "overlay" in line.split()]
    return found
