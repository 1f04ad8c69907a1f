"""nftables by text, through the library that `nft` itself uses, and by messages packed here.

Text is for what is written once: a transaction takes 0.2 ms, instead of 4 ms for a process, but more the more there is
already. Messages are for what changes often. Either way one call is one transaction: all of it is in force, or nothing.
"""

import ctypes
import ctypes.util
import os
import struct
import threading
from collections.abc import Iterable
from functools import cache
from typing import Final

from argosy.agent.logic.nft_messages import NftMessage
from argosy.agent.network.netlink import NETLINK_NETFILTER, Message, Netlink, attribute, attributes
from argosy.agent.spawn import uninherited
from argosy.core.errors import TransientError

_STATELESS: Final = 1 << 2
_TERSE: Final = 1 << 11
"""NFT_CTX_OUTPUT_* flags (nftables/libnftables.h): leave counters, and what named sets hold, out of listings."""

_SUBSYSTEM: Final = 10  # NFNL_SUBSYS_NFTABLES
_FOR_NFTABLES: Final = struct.pack("!BBH", 0, 0, _SUBSYSTEM)
_BEGIN: Final = Message(16, 0, _FOR_NFTABLES, about="an nftables transaction", decisive=True)
_END: Final = Message(17, 0, _FOR_NFTABLES)
_GENERATION: Final = Message(_SUBSYSTEM << 8 | 16, 0, struct.pack("!BBH", 0, 0, 0), about="the generation")
_GENERATION_ID: Final = 1  # NFTA_GEN_ID
_GET_TABLE: Final = _SUBSYSTEM << 8 | 1
_TABLE_NAME: Final = 1  # NFTA_TABLE_NAME
_FAMILIES: Final = {"ip": 2, "netdev": 5}

_one_at_a_time: Final = threading.Lock()
"""The library keeps the generation that it reads in one place for all contexts (mnl.c, nft_genid), and begins anew
where another is told: two threads in two namespaces would hold each other up, on a slow machine without end."""


class NftError(TransientError):
    """The kernel or the library refused a ruleset; nothing of it is in force."""


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libnftables.so.1")
    except OSError as error:
        raise NftError("libnftables.so.1 is missing: install the package libnftables1") from error
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    library.nft_ctx_free.argtypes = [ctypes.c_void_p]
    for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
        getattr(library, name).restype = ctypes.c_char_p
    library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    return library


class Nft:
    """nftables of the namespace that the making thread is in; for one user. `netfilter`: the socket of its messages.

    The sockets serve for good: when one of netfilter's is closed the kernel waits until what transactions have
    replaced, in whichever namespace, is nobody's any more (nf_tables_api.c, nft_rcv_nl_event): 16 ms and more.
    """

    __slots__ = ("_context", "_doubts", "netfilter")

    def __init__(self) -> None:
        library = _library()
        self.netfilter = Netlink(NETLINK_NETFILTER)
        with uninherited():
            self._context: int | None = library.nft_ctx_new(0)
        if not self._context:
            self.netfilter.close()
            raise NftError("nftables is not available: out of memory, or no netlink socket")
        library.nft_ctx_buffer_output(self._context)
        library.nft_ctx_buffer_error(self._context)
        self._doubts = 0

    def generation(self) -> bytes:
        """Return what changes with every transaction of anyone, and so with whatever a listing shows.

        But for what packets change: counters, and what they put in sets; for what goes with a device that it hangs on
        (before Linux 6.16), or with the socket of its owner; and for a moment, see `doubt`. Raises NftError.
        """
        try:
            told = self.netfilter.request(_GENERATION)
        except OSError as error:
            raise NftError(f"nftables tells no generation: {error}") from error
        if told is None:
            raise NftError("nftables tells no generation")
        return attributes(told[1][4:])[_GENERATION_ID] + self._doubts.to_bytes(4, "big")

    def doubt(self) -> None:
        """Have the generation be another: the kernel told that somebody's transaction is complete.

        It numbers one before, and for the milliseconds that a large one takes it may list a chain's policy as it was
        (nf_tables_api.c, nf_tables_commit).
        """
        self._doubts += 1

    def execute(self, messages: Iterable[NftMessage]) -> None:
        """Carry out messages, as one transaction. Raises NftError."""
        packed = [Message(_SUBSYSTEM << 8 | m.kind, m.flags, m.body, about=m.about) for m in messages]
        try:
            self.netfilter.transact(_BEGIN, packed, _END)
        except OSError as error:
            raise NftError(f"nftables refused: {error}") from error

    def run(self, commands: str, *, stateless: bool = True, terse: bool = False) -> str:
        """Run commands and return what they print. Raises NftError.

        What counters say is left out, unless not `stateless`; what named sets and maps hold if `terse`.
        """
        library, context = _library(), self._context
        library.nft_ctx_output_set_flags(context, (_STATELESS if stateless else 0) | (_TERSE if terse else 0))
        with _one_at_a_time:
            failed = library.nft_run_cmd_from_buffer(context, os.fsencode(commands))
        # Both, always: what is not taken comes before what is said next time.
        output: bytes = library.nft_ctx_get_output_buffer(context)
        said: bytes = library.nft_ctx_get_error_buffer(context)
        if failed:
            raise NftError(f"nftables refused: {said.decode(errors='replace').strip()}")
        return output.decode(errors="replace")

    def listing(self, table: str, family: str = "ip", *, terse: bool = False) -> str | None:
        """Return a table as the kernel has it, without counters; None if there is none. See `run`."""
        if not self._has(table, family):
            return None
        try:
            return self.run(f"list table {family} {table}", terse=terse)
        except NftError:
            if self._has(table, family):
                raise
            return None

    def _has(self, table: str, family: str) -> bool:
        """Tell whether there is a table: to have the library list their names takes as long as to list all of them."""
        header, name = struct.pack("!BBH", _FAMILIES[family], 0, 0), attribute(_TABLE_NAME, table.encode() + b"\0")
        try:
            return self.netfilter.request(Message(_GET_TABLE, 0, header + name, about=f"table {table}")) is not None
        except OSError as error:
            raise NftError(f"nftables does not tell its tables: {error}") from error

    def close(self) -> None:
        """Close the sockets; the namespace loses its references. Harmless to repeat."""
        context, self._context = self._context, None
        if context:
            _library().nft_ctx_free(context)
        self.netfilter.close()
