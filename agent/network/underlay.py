"""Which address of this host the others send to, while the host may get another one.

The host's present address is kept for as long as a link has it, wherever the way to the controllers leads meanwhile:
every change makes all VTEPs anew. One that is gone for a moment (a lease that is renewed, a link that is set up again)
changes nothing either. After that another is taken, where the agent was not told one.
"""

import math
import time

from argosy.agent import facts
from argosy.agent.facts import HostLinks
from argosy.core.errors import InvalidError


class Underlay:
    """Used by the plane's worker thread alone.

    `advertise` and `towards`: see `facts.find_underlay`. `patience` in seconds: so long the address may be away.
    """

    def __init__(self, address: str, advertise: str, towards: str, patience: float) -> None:
        self.address = address
        self.problem = ""
        """Why other hosts cannot reach this one; "" where nothing is known against it."""
        self._away_since = math.inf  # on the monotonic clock; infinity while a link has the address
        self._advertise = advertise
        self._towards = towards
        self._patience = patience

    @property
    def is_away(self) -> bool:
        """Whether no link had the address at the last look: of what comes then nobody may tell."""
        return self._away_since < math.inf

    def look(self) -> HostLinks:
        """Return what the host's links are like now, after having found its address if that is another. OSError."""
        links = facts.read_links(self.address)
        now = time.monotonic()
        if links.underlay_mtu:
            self._away_since, self.problem = math.inf, ""
            return links
        self._away_since = min(self._away_since, now)
        if now - self._away_since < self._patience:
            return links
        try:
            self.address = facts.find_underlay(self._advertise, self._towards)
        except InvalidError as error:
            self.problem = f"the host has lost its address {self.address}, by which the others reach it: {error}"
            return links
        self._away_since, self.problem = math.inf, ""
        return facts.read_links(self.address)
