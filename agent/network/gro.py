"""Whether packets are put together as they come in by a device (generic receive offload), of this thread's namespace.

By ioctl(2) SIOCETHTOOL (linux/ethtool.h), since routing netlink does not know of it.
"""

import array
import errno
import fcntl
import socket
import struct
from typing import Final

_SIOCETHTOOL: Final = 0x8946
_GET: Final = 0x2B
_SET: Final = 0x2C
_VALUE: Final = struct.Struct("=II")
_REQUEST: Final = struct.Struct("@16sP16x")


def read_gro(device: str) -> str | None:
    """Return "on" or "off"; None if there is no such device."""
    try:
        return "on" if _ask(_GET, device) else "off"
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise


def write_gro(device: str, value: str) -> None:
    """Switch it "on" or "off". Raises OSError."""
    _ask(_SET, device, int(value == "on"))


def _ask(command: int, device: str, value: int = 0) -> int:
    data = array.array("B", _VALUE.pack(command, value))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asking:
        fcntl.ioctl(asking, _SIOCETHTOOL, _REQUEST.pack(device.encode(), data.buffer_info()[0]))
    answer: int = _VALUE.unpack(data.tobytes())[1]
    return answer
