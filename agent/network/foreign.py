"""Looks now and then whether another firewall of the host drops what comes to published ports."""

from argosy.agent.logic.network_foreign import ForeignChain, counted, foreign_chains, may_drop, may_pass, why_dropped
from argosy.agent.network import nft
from argosy.agent.network.nft import NftError


class ForeignFirewall:
    """Used by the plane's worker thread alone, whose namespace is the host's. `table`: ours there."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._chains: list[ForeignChain] = []
        self._counted = (0, 0)
        self._dropping = False

    def look(self) -> str:
        """Return why what comes to published ports is dropped; "" when it is not, as far as can be seen."""
        try:
            return self._look()
        except NftError:
            return ""  # somebody is changing them: the next look tells

    def _look(self) -> str:
        chains = foreign_chains(nft.run("list chains"), {self._table})
        certain = [c for c in chains if c.drops and not may_pass(_rules(c))]
        counts = counted(nft.run(f"list counters table ip {self._table}", stateless=False))
        came, passed = (
            now - before if now >= before else now for now, before in zip(counts, self._counted, strict=True)
        )
        if chains != self._chains or passed:
            self._dropping = False  # what came before the chains were changed says nothing of those that are there now
        elif came:
            self._dropping = True
        self._chains, self._counted = chains, counts
        suspects = [c for c in chains if c.drops or may_drop(_rules(c))] if self._dropping else certain
        return why_dropped(suspects, certain, dropping=self._dropping)


def _rules(chain: ForeignChain) -> str:
    return nft.run(f"list chain {chain.family} {chain.table} {chain.name}")
