"""Where everything of a dev cluster is: paths, addresses, names. Pure."""

import re
from dataclasses import dataclass
from pathlib import Path

from argosy.cli.errors import InvalidInputError

RUN_ROOT = Path("/run/argosy/dev")
STATE_ROOT = Path("/var/lib/argosy/dev")
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,19}")
MAX_NODES = 100
MAX_CONTROLLERS = 5
CONTROLLER_PORT = 7070
ID_RANGES_A_NODE = 256
FIRST_ID_BASE = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Layout:
    """One dev cluster by its name. Addresses are of the benchmarking range (RFC 2544), inside private namespaces."""

    name: str

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise InvalidInputError(
                f"{self.name!r} cannot be a dev cluster's name", "use up to 20 lower-case letters, digits and dashes"
            )

    @property
    def run_dir(self) -> Path:
        """Sockets, process ids, logs."""
        return RUN_ROOT / self.name

    @property
    def state_dir(self) -> Path:
        """What etcd, controllers and hosts keep."""
        return STATE_ROOT / self.name

    @property
    def spec_path(self) -> Path:
        """What the supervisor was told to run."""
        return self.run_dir / "spec.json"

    @property
    def status_path(self) -> Path:
        """What the supervisor says of its processes."""
        return self.run_dir / "processes.json"

    @property
    def cgroup(self) -> str:
        """The subtree of all its processes, from the root of every hierarchy."""
        return f"/argosy/dev-{self.name}"

    @property
    def secrets_key(self) -> Path:
        """The key of the controllers that secrets are encrypted with."""
        return self.state_dir / "secrets.key"

    def socket(self, controller: int) -> Path:
        """The unix socket of a controller; the first one's name has no number."""
        return self.run_dir / ("controller.sock" if controller == 1 else f"controller-{controller}.sock")

    def log(self, process: str) -> Path:
        """Where a process's own log goes."""
        return self.run_dir / "logs" / f"{process}.log"

    def node_cgroup(self, node: str) -> str:
        """The parent of a host's containers' cgroups."""
        return f"{self.cgroup}/{node}"

    def host_dir(self, node: str) -> Path:
        """What is /var/lib/argosy on a host."""
        return self.state_dir / "hosts" / node

    @staticmethod
    def controller_address(controller: int) -> str:
        """Where agents reach a controller."""
        return f"198.18.0.{controller}:{CONTROLLER_PORT}"

    @staticmethod
    def node_address(node: int) -> str:
        """A host's address on the bridge."""
        return f"198.18.1.{node}"

    @staticmethod
    def node_name(node: int) -> str:
        """A host's name."""
        return f"node{node}"

    @staticmethod
    def etcd_ports(member: int) -> tuple[int, int]:
        """Client and peer port of an etcd member, on the switch's loopback."""
        return 2379 + 10 * (member - 1), 2380 + 10 * (member - 1)


PREFIX_LENGTH = 15
"""Of the bridge's network, 198.18.0.0/15."""
BRIDGE_NETWORK = "198.18.0.0/15"
