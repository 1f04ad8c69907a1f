"""What a dev cluster consists of: the processes to run and where. Pure; the supervisor carries it out."""

import sys
from dataclasses import asdict, dataclass, field

from argosy.cli.dev.layout import BRIDGE_NETWORK, FIRST_ID_BASE, ID_RANGES_A_NODE, PREFIX_LENGTH, Layout

SWITCH = "switch"


@dataclass(frozen=True, slots=True)
class Space:
    """A namespace holder: what runs inside it first, as shell commands."""

    name: str
    setup: tuple[str, ...]
    mounts: bool


@dataclass(frozen=True, slots=True)
class Process:
    """A process to keep running in a space, started anew when it ends."""

    name: str
    space: str
    argv: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that the supervisor needs to know."""

    name: str
    cgroup: str
    run_dir: str
    spaces: tuple[Space, ...]
    links: tuple[tuple[str, str, str], ...]  # (host's space, name of the switch's end, address with prefix)
    processes: tuple[Process, ...]
    nodes: tuple[str, ...]
    controllers: int

    def to_json(self) -> dict[str, object]:
        """Return the plan as plain data."""
        return asdict(self)


def plan(layout: Layout, nodes: int, controllers: int, etcd: str) -> Plan:
    """Return the cluster's parts. Members of etcd: as many as controllers, when that is 3 or 5, else one."""
    members = controllers if controllers in (3, 5) else 1
    names = tuple(layout.node_name(i) for i in range(1, nodes + 1))
    return Plan(
        name=layout.name,
        cgroup=layout.cgroup,
        run_dir=str(layout.run_dir),
        spaces=(_switch(controllers), *(_host(layout, name) for name in names)),
        links=tuple((n, f"to-{n}", f"{layout.node_address(i)}/{PREFIX_LENGTH}") for i, n in enumerate(names, start=1)),
        processes=(
            *(_etcd(layout, etcd, i, members) for i in range(1, members + 1)),
            *(_controller(layout, i, controllers, members) for i in range(1, controllers + 1)),
            *(_agent(layout, i, controllers) for i in range(1, nodes + 1)),
        ),
        nodes=names,
        controllers=controllers,
    )


def _switch(controllers: int) -> Space:
    addresses = [f"ip address add 198.18.0.{i}/{PREFIX_LENGTH} dev br0" for i in range(1, controllers + 1)]
    return Space(
        SWITCH,
        ("ip link set lo up", "ip link add br0 type bridge forward_delay 0", *addresses, "ip link set br0 up"),
        mounts=False,
    )


def _host(layout: Layout, name: str) -> Space:
    return Space(
        name,
        (
            f"mount --bind {layout.host_dir(name)} /var/lib/argosy",
            "mount -t tmpfs -o mode=755 tmpfs /run/argosy",
            f"hostname {name}",
            "ip link set lo up",
        ),
        mounts=True,
    )


def _etcd(layout: Layout, etcd: str, member: int, members: int) -> Process:
    client, peer = layout.etcd_ports(member)
    peers = ",".join(f"m{i}=http://127.0.0.1:{layout.etcd_ports(i)[1]}" for i in range(1, members + 1))
    options = {
        "name": f"m{member}",
        "data-dir": str(layout.state_dir / f"etcd-{member}"),
        "listen-client-urls": f"http://127.0.0.1:{client}",
        "advertise-client-urls": f"http://127.0.0.1:{client}",
        "listen-peer-urls": f"http://127.0.0.1:{peer}",
        "initial-advertise-peer-urls": f"http://127.0.0.1:{peer}",
        "initial-cluster": peers,
        "initial-cluster-token": layout.name,
        "heartbeat-interval": "50",
        "election-timeout": "500",
        "logger": "zap",
        "log-level": "warn",
    }
    return Process(f"etcd-{member}", SWITCH, (etcd, *(f"--{k}={v}" for k, v in options.items())))


def _controller(layout: Layout, number: int, controllers: int, members: int) -> Process:
    name = f"controller-{number}"
    argv = [sys.executable, "-m", "argosy.controller"]
    for member in range(1, members + 1):
        argv += ["--etcd", f"127.0.0.1:{layout.etcd_ports(member)[0]}"]
    argv += ["--listen", layout.controller_address(number), "--listen", f"unix://{layout.socket(number)}"]
    argv += ["--advertise", layout.controller_address(number), "--trusted-network", BRIDGE_NETWORK]
    for other in range(1, controllers + 1):
        if other != number:
            argv += ["--peer", layout.controller_address(other)]
    argv += ["--secrets-key", str(layout.secrets_key)]
    argv += ["--data-dir", str(layout.state_dir / name), "--cluster", layout.name, "--name", name]
    return Process(name, SWITCH, tuple(argv))


def _agent(layout: Layout, node: int, controllers: int) -> Process:
    name = layout.node_name(node)
    argv = [sys.executable, "-m", "argosy.agent", "--name", name, "--advertise", "eth0"]
    for number in range(1, controllers + 1):
        argv += ["--controller", layout.controller_address(number)]
    argv += ["--cgroup-parent", layout.node_cgroup(name)]
    argv += ["--id-base", str(FIRST_ID_BASE + node * ID_RANGES_A_NODE * 65_536), "--id-ranges", str(ID_RANGES_A_NODE)]
    return Process(f"agent-{name}", name, tuple(argv))
