"""Which networks this host can carry: its routes and the MTU of its link change, and networks come."""

from collections.abc import Mapping, Sequence

from argosy.agent import facts
from argosy.agent.facts import HostLinks
from argosy.agent.logic.host_routes import collision, told
from argosy.agent.logic.network_plan import Site
from argosy.agent.network.desired import HostReport
from argosy.agent.network.underlay import Underlay
from argosy.core.assignment import NetworkAssignment
from argosy.core.errors import PreconditionError
from argosy.core.network import LEAST_MTU, carried_mtu


class HostFit:
    """Used by the plane's worker thread alone. `report`, what the host was like at the last look, by any."""

    def __init__(self, node_name: str, underlay: Underlay, site: Site, links: HostLinks) -> None:
        self._node_name = node_name
        self._underlay = underlay
        self.site = site
        self._judged: frozenset[str] = frozenset()  # the networks that the report is about
        self.report = self._report(links, {})

    def judge(self, links: HostLinks, assigned: Mapping[str, NetworkAssignment]) -> None:
        """Report what the host is like by now, and which of the networks do not fit it."""
        self._judged = frozenset(assigned)
        self.report = self._report(links, assigned)

    def has_judged(self, assigned: Mapping[str, NetworkAssignment]) -> bool:
        """Tell whether the report is about just these networks."""
        return self._judged == assigned.keys()

    def check(self, networks: Sequence[NetworkAssignment]) -> None:
        """Refuse networks that this host cannot carry; PreconditionError.

        Those of which containers could not tell the addresses from the host's own (the controller has refused what it
        knew of: routes come and go), and those for which its link is too narrow.
        """
        links = facts.read_links(self._underlay.address)
        for network in networks:
            if misfit := self._misfit(network, links):
                raise PreconditionError(misfit)

    def _misfit(self, network: NetworkAssignment, links: HostLinks) -> str:
        """Return why a network does not fit this host, with what to do; "" when it does."""
        if (mtu := carried_mtu(self.site.underlay_mtu, encrypted=network.encrypted)) < LEAST_MTU:
            return (
                f"the link of node {self._node_name} to other hosts takes {self.site.underlay_mtu} bytes, which "
                f"leaves {mtu} for network {network.name}, and {LEAST_MTU} are needed: give the link a larger MTU"
            )
        if taken := collision(links.routes, network.subnet):
            return (
                f"network {network.name} ({network.subnet}) overlaps {taken}: remove that route from node "
                f"{self._node_name}, or give the network another subnet"
            )
        return ""

    def _report(self, links: HostLinks, assigned: Mapping[str, NetworkAssignment]) -> HostReport:
        found = {i: self._underlay.problem or self._misfit(n, links) for i, n in assigned.items()}
        return HostReport(
            underlay_address=self._underlay.address,
            underlay_mtu=self.site.underlay_mtu,
            underlay_problem=self._underlay.problem,
            addresses=links.addresses,
            routes=told(links.routes),
            problems={i: problem for i, problem in found.items() if problem},
        )
