"""Names and MAC addresses of what the network plane makes: functions of ids alone, so that a later life finds them.

Device names have at most 15 characters. In a network's namespace: `vtep`, `uplink`, and `ve` + container id for each
container. In the host's: `au` + network id. Ids have 13 characters; a longer one is hashed to 13.
"""

import hashlib
import re
from typing import Final

VTEP: Final = "vtep"
UPLINK: Final = "uplink"
LOOPBACK: Final = "lo"
CONTAINER_PREFIX: Final = "ve"
HOST_UPLINK_PREFIX: Final = "au"
TUNNEL_PREFIX: Final = "aw"

_ID_CHARACTERS: Final = 13
_HOST_UPLINK: Final = re.compile(rf"{HOST_UPLINK_PREFIX}[a-z0-9]{{{_ID_CHARACTERS}}}")
_NOT_IN_NFT_NAME: Final = re.compile(r"[^A-Za-z0-9_.-]")


def container_device(container_id: str) -> str:
    """Return the name of a container's link as seen in the network's namespace."""
    return CONTAINER_PREFIX + _fitting(container_id)


def host_uplink_device(network_id: str) -> str:
    """Return the name of a network's uplink as seen in the host's namespace."""
    return HOST_UPLINK_PREFIX + _fitting(network_id)


def is_host_uplink(name: str) -> bool:
    """Tell whether a name is of the form that uplinks' names have in the host's namespace.

    Others have devices there, too, and a name such as `au-syd-wg-001` may be a VPN's.
    """
    return _HOST_UPLINK.fullmatch(name) is not None


def tunnel_device(node_id: str, epoch: int) -> str:
    """Return the name of a node's tunnel device of an epoch, as seen in the mesh's namespace.

    Of two epochs that follow each other the names differ.
    """
    return f"{TUNNEL_PREFIX}{_fitting(node_id)[:-1]}{epoch % 2}"


def container_interface(index: int) -> str:
    """Return what a container calls its link of the attachment number `index`."""
    return f"eth{index}"


def host_table(node_name: str) -> str:
    """Return the name of the node's table in the host's nftables."""
    return "argosy-" + _NOT_IN_NFT_NAME.sub("_", node_name)


def peers_table(node_name: str) -> str:
    """Return the name of the node's table of those who may send it VXLAN packets."""
    return host_table(node_name) + "/peers"


def ports_table(node_name: str) -> str:
    """Return the name of the node's table of where the host's published ports lead."""
    return host_table(node_name) + "/ports"


def pin_name(node_name: str, network_id: str) -> str:
    """Return the file name under which the namespace of a network on a node is pinned."""
    return f"{node_name.replace('/', '_')}.{network_id}"


def network_of_pin(node_name: str, name: str) -> str | None:
    """Return the network whose pin has this file name, None if it is not one of this node's."""
    prefix = pin_name(node_name, "")
    return name.removeprefix(prefix) if name.startswith(prefix) and len(name) > len(prefix) else None


def vtep_mac(network_id: str, node_id: str) -> bytes:
    """Return the MAC address of a node's VTEP on a network: every node computes the same."""
    return _mac("vtep", network_id, node_id)


def router_mac(network_id: str) -> bytes:
    """Return the MAC address of the router that all containers of a network see."""
    return _mac("router", network_id)


def container_mac(network_id: str, address: int) -> bytes:
    """Return the MAC address of the container that has an address."""
    return _mac("container", network_id, str(address))


def uplink_mac(network_id: str, node_id: str) -> bytes:
    """Return the MAC address of an uplink's inner end."""
    return _mac("uplink", network_id, node_id)


def host_uplink_mac(network_id: str, node_id: str) -> bytes:
    """Return the MAC address of an uplink's outer end."""
    return _mac("host-uplink", network_id, node_id)


def _fitting(identifier: str) -> str:
    if len(identifier) <= _ID_CHARACTERS:
        return identifier
    return hashlib.sha256(identifier.encode()).hexdigest()[:_ID_CHARACTERS]


def _mac(*parts: str) -> bytes:
    """Return a locally administered unicast address from 46 bits of a hash of the parts."""
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    return bytes(((digest[0] & 0xFC) | 0x02,)) + digest[1:6]
