"""The networks of a node: those that are assigned, and the namespaces that they have, which come and go after them.

One whose namespace could not be made is `missing`, and left out of what is done. One that is assigned no more is
carried on until its last container has left it.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from argosy.agent.logic import network_names as names
from argosy.agent.logic.network_plan import Site
from argosy.agent.network import namespace
from argosy.agent.network.carried import CarriedNetwork
from argosy.agent.network.namespace import Home
from argosy.agent.network.problems import Problems
from argosy.agent.network.tables import Tables
from argosy.core.assignment import NetworkAssignment
from argosy.core.errors import PreconditionError, TransientError


class Networks:
    """Used by the plane's worker thread alone. Their namespaces are pinned in the directory `pins`."""

    def __init__(self, node_name: str, home: Home, site: Site, pins: Path, tables: Tables) -> None:
        self._node_name = node_name
        self._home = home
        self._site = site
        self._pins = pins
        self._tables = tables
        self._ending: set[str] = set()
        self.carried: dict[str, CarriedNetwork] = {}
        self.assigned: Mapping[str, NetworkAssignment] = {}
        self.missing: dict[str, str] = {}
        """Those whose namespace could not be made, and why."""

    def adopt(self) -> None:
        """Take over the namespaces that a former life left pinned; nothing is changed. Raises OSError."""
        self._pins.mkdir(parents=True, exist_ok=True)
        for path in sorted(self._pins.iterdir()):
            network_id = names.network_of_pin(self._node_name, path.name)
            if network_id and namespace.is_pin(path):
                adopted = CarriedNetwork.adopt(network_id, self._home, self._site, path, self._tables)
                self.carried[network_id] = adopted

    def close(self) -> None:
        """Let go of all; the kernel's state stays."""
        for carried in self.carried.values():
            carried.close()
        self.carried.clear()

    def destroy(self) -> None:
        """Remove all from the kernel."""
        for carried in self.carried.values():
            carried.destroy()
        self.carried.clear()
        self.assigned, self.missing = {}, {}

    def assign(self, assigned: Mapping[str, NetworkAssignment]) -> None:
        """Have these on the node; nothing is changed yet."""
        gone = self.assigned.keys() - assigned.keys()
        self._ending = (self._ending | gone) - assigned.keys()
        self.assigned = dict(assigned)

    def present(self) -> list[tuple[NetworkAssignment, CarriedNetwork]]:
        """Return those that are assigned, without those whose namespace could not be made."""
        return [(n, self.carried[i]) for i, n in self.assigned.items() if i in self.carried]

    def assignment(self, network_id: str) -> NetworkAssignment:
        """Return what is assigned of one. Raises PreconditionError where the node does not carry it."""
        network = self.assigned.get(network_id)
        if network is None or network_id not in self.carried:
            raise PreconditionError(f"network {network_id} is not assigned to node {self._node_name}")
        return network

    def make_missing(self, prepare: Callable[[str], None], problems: Problems) -> None:
        """Make the namespaces of those that have none, each after `prepare`, which is given its id."""
        self.missing = {}
        for network_id in [i for i in self.assigned if i not in self.carried]:
            try:
                prepare(network_id)
                pin = self._pins / names.pin_name(self._node_name, network_id)
                made = CarriedNetwork.create(network_id, self._home, self._site, pin, self._tables)
            except (OSError, TransientError) as error:
                self.missing[network_id] = f"cannot make the namespace of network {network_id}: {error}"
                problems.add(self.missing[network_id], network_id)
            else:
                self.carried[network_id] = made

    def end_unassigned(self) -> None:
        """Have those go, too, that a former life left and nothing wants."""
        self._ending |= self.carried.keys() - self.assigned.keys()

    def ended(self) -> list[str]:
        """Return those that may go: assigned no more, and without containers."""
        return [i for i in self._ending if i in self.carried and not self.carried[i].containers]

    def remove(self, network_id: str) -> None:
        """Remove one from the kernel. Raises OSError, TransientError."""
        self.carried[network_id].destroy()
        del self.carried[network_id]
        self._ending.discard(network_id)

    def follow(self, site: Site) -> None:
        """Take note that the host has another address or MTU."""
        self._site = site
        for carried in self.carried.values():
            carried.follow(site)
