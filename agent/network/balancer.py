"""The load balancer of one network on the node: its nftables table kept as the services say.

Believes that the table is what it was last made, and so writes only what changed; after `distrust` the next pass reads
it from the kernel.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from argosy.agent.logic import network_balance as balance
from argosy.agent.logic.network_balance import BALANCE_TABLE, Balanced, Held
from argosy.agent.network.nft import Nft, NftError


@dataclass(slots=True)
class Balancer:
    """Used by the plane's worker thread alone. `nft` is of the network's namespace."""

    nft: Nft
    services: dict[str, Balanced] = field(default_factory=dict)
    own: frozenset[int] = frozenset()
    _held: Held | None = None
    _known: bool = False
    _intact_at: bytes | None = None
    _touched: set[str] = field(default_factory=set)

    def want(self, services: Mapping[str, Balanced | None], own: Iterable[int]) -> None:
        """Take over what has become of some services (None: it has no virtual address) and all local addresses."""
        for service_id, service in services.items():
            if self.services.get(service_id) == service:
                continue
            self._touched.add(service_id)
            if service is None:
                self.services.pop(service_id, None)
            else:
                self.services[service_id] = service
        self.own = frozenset(own)

    def converge(self) -> int:
        """Bring the kernel to what is wanted, and return 1 if that took a change. Raises NftError."""
        if not self._known:
            self._look_again()
        if self._held is not None and not self._touched and self._held.own == self.own:
            return 0
        touched = set(self.services) if self._held is None else self._touched
        messages, after = balance.change(self._held, self.services, self.own, touched)
        if messages:
            try:
                self.nft.execute(messages)
            except NftError:
                self._known = False
                raise
        self._held = after
        self._touched = set()
        return int(bool(messages))

    def distrust(self) -> None:
        """Have the next pass believe the kernel, and nothing else."""
        self._known = False

    def intact(self) -> bool:
        """Tell whether the kernel has what it is believed to have."""
        generation = self.nft.generation()
        if not self._known or (generation != self._intact_at and self._read() != self._held):
            return False
        self._intact_at = generation
        return True

    def _look_again(self) -> None:
        self._held = self._read()
        self._known = True
        self._touched = {*self.services, *balance.services_in(self._held)}

    def _read(self) -> Held | None:
        listed = self.nft.listing(BALANCE_TABLE)
        return balance.read(listed) if listed else None
