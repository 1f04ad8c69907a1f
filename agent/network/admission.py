"""Keeps the table that says who may send VXLAN packets to this host as the peers are.

Believes that the table is what it was last made, and so writes only what changed; after what `broken_tables` returned
was called the next pass reads it anew.
"""

from collections.abc import Callable, Iterable

from argosy.agent.logic.network_admission import change, read
from argosy.agent.logic.network_firewall import removal
from argosy.agent.network.nft import Nft, NftError


class Admission:
    """Used by the plane's worker thread alone, which is at home in the host's namespace.

    Who was admitted in a former life of the agent stays so until `removes_leftovers`.
    """

    def __init__(self, nft: Nft, table: str, port: int) -> None:
        self.removes_leftovers = False
        self._nft = nft
        self._table = table
        self._port = port
        self._wanted: frozenset[int] | None = None
        self._held: frozenset[int] | None = None
        self._intact_at: bytes | None = None
        self._known = False
        self._broken = False  # there is a table, and it is not as we make it
        self._left: frozenset[int] = frozenset()

    def adopt(self) -> None:
        """Take over what a former life left."""
        self._look_again()
        self._left = self._held or frozenset()

    def want(self, peers: Iterable[int] | None) -> None:
        """Take over the peers' addresses; None: no network is carried, and nothing has to be guarded."""
        self._wanted = None if peers is None else frozenset(peers)

    def converge(self) -> int:
        """Bring the kernel to what is wanted, and return 1 if that took a change. Raises NftError."""
        if not self._known:
            self._look_again()
        wanted = self._wanted
        if self._left and not self.removes_leftovers:
            wanted = self._left | (wanted or frozenset())
        commands = change(self._table, self._port, self._held, wanted) or (removal(self._table) if self._broken else "")
        if commands:
            try:
                self._nft.run(commands)
            except NftError:
                self._known = False
                raise
        self._held, self._broken = wanted, False
        return int(bool(commands))

    def broken_tables(self) -> dict[str, Callable[[], None]]:
        """Return for the name of the table, if the kernel has not what is believed, what has the next pass write it."""
        generation = self._nft.generation()
        if not self._known or (generation != self._intact_at and self._read() != (self._held, False)):
            return {self._table: self._distrust}
        self._intact_at = generation
        return {}

    def purge(self) -> None:
        """Remove the table, whoever made it."""
        self._nft.run(removal(self._table))
        self._wanted = self._held = None
        self._broken = False

    def _distrust(self) -> None:
        self._known = False

    def _look_again(self) -> None:
        self._held, self._broken = self._read()
        self._known = True

    def _read(self) -> tuple[frozenset[int] | None, bool]:
        """Return who is admitted, None if that cannot be told; and whether that is because the table is broken."""
        listing = self._nft.listing(self._table)
        held = read(listing, self._port) if listing else None
        return held, listing is not None and held is None
