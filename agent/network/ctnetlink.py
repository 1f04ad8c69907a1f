"""The numbers of ctnetlink's messages and attributes (linux/netfilter/nfnetlink_conntrack.h)."""

import socket
import struct
from typing import Final

GET: Final = (1 << 8) | 1  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET
DELETE: Final = (1 << 8) | 2
GET_STATISTICS: Final = (1 << 8) | 5
ENTRIES: Final = 1
HEADER: Final = struct.pack("=BBH", socket.AF_INET, 0, 0)
NESTED: Final = 0x8000
ORIGINAL: Final = 1
REPLY: Final = 2
STATUS: Final = 3
PROTOCOL_INFO: Final = 4
TIMEOUT: Final = 7
FILTER: Final = 25
STATUS_MASK: Final = 26
FILTER_ORIGINAL: Final = 1
FILTER_REPLY: Final = 2
FILTER_SOURCE: Final = 1
FILTER_PROTOCOL: Final = 1 << 3
ANSWERED: Final = 1 << 1  # IPS_SEEN_REPLY
SOURCE_TRANSLATED: Final = 1 << 4  # IPS_SRC_NAT
DESTINATION_TRANSLATED: Final = 1 << 5  # IPS_DST_NAT
IP: Final = 1
PROTOCOL: Final = 2
SOURCE: Final = 1
DESTINATION: Final = 2
NUMBER: Final = 1
SOURCE_PORT: Final = 2
DESTINATION_PORT: Final = 3
