"""Tables of nftables that are kept as wanted by small changes: the way in of a network, and of the host's ports.

Believes that the tables are what they were last made. What the kernel lists after each change is remembered by its
digest, which tells later whether somebody else has changed them.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from argosy.agent.network.nft import Nft, NftError

W = TypeVar("W")
"""What is wanted of the tables."""


@dataclass(slots=True)
class KeptTables(Generic[W]):
    """Used by the plane's worker thread alone. `wanted` None: there are to be none.

    `names`: the tables, as (name, family). `change` returns the commands that lead from what is held (None: nothing is
    known of them) to what is wanted.
    """

    nft: Nft
    names: tuple[tuple[str, str], ...]
    change: Callable[[W | None, W | None], str]
    wanted: W | None = None
    _held: W | None = None
    _listed: str | None = None
    _intact_at: bytes | None = None
    _known: bool = False

    def converge(self) -> int:
        """Bring the kernel to what is wanted, and return 1 if that took a change. Raises NftError."""
        if not self._known and self.wanted is None and self._list() is None:
            self._held, self._listed, self._known = None, None, True
        if self._known and self.wanted == self._held:
            return 0
        # What somebody else has changed would else be among what is listed after the change, and pass for ours.
        held = self._held if self.intact() else None
        commands = self.change(held, self.wanted)
        try:
            self.nft.run(commands)
            self._listed = self._list()
        except NftError:
            self._known = False
            raise
        self._held, self._known = self.wanted, True
        return 1

    def distrust(self) -> None:
        """Have the tables written anew at the next pass."""
        self._known, self._held = False, None

    def intact(self) -> bool:
        """Tell whether the kernel has what it is believed to have."""
        generation = self.nft.generation()
        if not self._known or (generation != self._intact_at and self._list() != self._listed):
            return False
        self._intact_at = generation
        return True

    def _list(self) -> str | None:
        listed = [self.nft.listing(*name) for name in self.names]
        if not any(listed):
            return None
        return hashlib.sha256("".join(text or "-" for text in listed).encode()).hexdigest()
