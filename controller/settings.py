"""The controller's configuration: parsed once in main, frozen, with units in the names."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ControllerSettings:
    """Everything that can be set of a controller; `argosy controller --help` lists the same.

    `listen` are gRPC addresses: "unix:///path" or "host:port"; `advertise` is the host:port that agents and other
    controllers use. Without TLS only unix sockets, loopback and the addresses named by `trusted_networks` are allowed.
    `secrets_key` is the file of the key-encryption keys (controller/secrets/keyring.py), the same on all controllers.
    """

    etcd: tuple[str, ...]
    listen: tuple[str, ...]
    advertise: str
    data_dir: Path
    cluster: str = "argosy"
    name: str = ""
    peers: tuple[str, ...] = ()
    trusted_networks: tuple[str, ...] = ()
    lease_ttl_s: float = 2.0
    vxlan_port: int = 14789
    secrets_key: Path | None = None
