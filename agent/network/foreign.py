"""Looks now and then whether another firewall of the host drops what comes to published ports."""

from argosy.agent.logic.network_foreign import (
    ForeignChain,
    Suspect,
    counted,
    foreign_chains,
    rules_of,
    suspects_of,
    why_dropped,
)
from argosy.agent.network.nft import Nft, NftError


class ForeignFirewall:
    """Used by the plane's worker thread alone, whose namespace is the host's. `table`: ours there."""

    def __init__(self, nft: Nft, table: str) -> None:
        self._nft = nft
        self._table = table
        self._chains: list[ForeignChain] = []
        self._chains_of: bytes | None = None
        self._counted = (0, 0)
        self._dropping = False

    def look(self) -> str:
        """Return why what comes to published ports is dropped; "" when it is not, as far as can be seen."""
        try:
            return self._look()
        except NftError:
            self._chains_of = None  # a table goes with the socket of its owner, which is no transaction
            return ""  # somebody is changing them: the next look tells

    def _look(self) -> str:
        generation = self._nft.generation()
        chains = self._chains
        if generation != self._chains_of:
            chains = foreign_chains(self._nft.run("list chains"), {self._table})
        counts = counted(self._nft.run(f"list counters table ip {self._table}", stateless=False))
        came, passed = (
            now - before if now >= before else now for now, before in zip(counts, self._counted, strict=True)
        )
        if chains != self._chains or passed:
            self._dropping = False  # what came before the chains were changed says nothing of those that are there now
        elif came:
            self._dropping = True
        self._chains, self._chains_of, self._counted = chains, generation, counts
        suspects = [s for c in chains for s in self._suspects(c, within=self._dropping)]
        return why_dropped(suspects, dropping=self._dropping)

    def _suspects(self, chain: ForeignChain, *, within: bool) -> list[Suspect]:
        """Return what may drop in a chain; `within` also the chains that it leads to, which may be many."""
        place = f"{chain.family} {chain.table}"
        listed = f"list table {place}" if within else f"list chain {place} {chain.name}"
        return suspects_of(chain, rules_of(self._nft.run(listed, stateless=False, terse=True)))
