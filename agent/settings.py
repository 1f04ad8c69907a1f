"""The agent's configuration: parsed once in main, frozen, with units in the names."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """Everything that can be set of an agent; `argosy agent --help` lists the same.

    `advertise` is the address that other hosts send VXLAN packets to; "" takes the one that the way to the first
    controller leaves by. Ids of container users are taken from `id_base` upwards, 65,536 a task.
    """

    controllers: tuple[str, ...]
    node_name: str
    state_dir: Path = Path("/var/lib/argosy")
    run_dir: Path = Path("/run/argosy")
    role: str = "worker"
    labels: Mapping[str, str] = field(default_factory=dict)
    advertise: str = ""
    vxlan_port: int = 14789
    wireguard_port: int = 51820
    cgroup_parent: str = "/argosy"
    id_base: int = 2_000_000_000
    id_ranges: int = 16_384
    prepare_parallelism: int = 8
    log_max_bytes: int = 10 * 2**20
    log_max_files: int = 3
    protect_tcp: tuple[int, ...] = ()
