"""How what the kernel has differs from what is intended, and what is done about it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from argosy.agent.logic.network_state import device_of
from argosy.agent.network import namespace
from argosy.agent.network.audit import EVERYTHING, MESH, Scope, differences
from argosy.agent.network.carried import CarriedNetwork
from argosy.agent.network.desired import Drift, DriftKind
from argosy.agent.network.overlay import Overlay
from argosy.agent.network.problems import Problems
from argosy.core.errors import TransientError


@dataclass(slots=True)
class _Found:
    """The differences of one look. `rewrite` has the next pass write the tables among them."""

    drift: list[Drift] = field(default_factory=list)
    rewrite: list[Callable[[], None]] = field(default_factory=list)

    def add_tables(self, scope: str, broken: Mapping[str, Callable[[], None]]) -> None:
        self.rewrite += broken.values()
        self.drift += (Drift(scope, DriftKind.DIFFERENT, f"nft table {table}") for table in broken)


class Repairs:
    """Of all networks of a node. Used by the thread that the overlay belongs to."""

    def __init__(self, overlay: Overlay) -> None:
        self._overlay = overlay
        self._networks = overlay.networks
        self._host = overlay.host
        self._mesh = overlay.mesh
        self._attachments = overlay.attachments
        self._unfinished = False
        """The last repair failed, or is under way."""
        self._found: dict[Drift, None] = {}  # by repairs that failed: what they did put right is not found again

    def verify(self, scope: Scope = EVERYTHING) -> list[Drift]:
        """Compare what is intended with what the kernel has, and believe the kernel from now on.

        What may be of a former life is no difference until it may be removed.
        """
        drift = self._look(scope).drift
        missing = (i for i in sorted(self._networks.missing) if scope.entries(i))
        drift += (Drift(i, DriftKind.MISSING, "network namespace") for i in missing)
        return drift + [d for d in self._cut_off() if scope.entries(d.network_id)]

    def beyond_repair(self) -> list[Drift]:
        """Return what only people can put right: what keeps links from being made, what of the host fits no network."""
        misfits = self._overlay.host_report.problems.items()
        return [*self._cut_off(), *(Drift(i, DriftKind.UNEXPECTED, problem) for i, problem in misfits)]

    def repair(self, scope: Scope = EVERYTHING) -> list[Drift]:
        """Put right what `verify` finds, and return it. Raises TransientError for what could not be put right.

        The next repair that succeeds returns what those before it found, too.
        """
        problems = Problems()
        unfinished, self._unfinished = self._unfinished, True
        if scope.entries(""):
            self._overlay.follow_host(problems)
        found = self._look(scope)
        broken = {d.network_id for d in found.drift}
        if scope is EVERYTHING:
            broken |= {d.network_id for d in self._cut_off()}  # each try may be notified of: not because of these
        self._found.update(dict.fromkeys(found.drift))
        for network_id, why in self._networks.missing.items():  # which the next pass makes
            if scope.entries(network_id):
                problems.add(why, network_id)
        if scope is EVERYTHING:
            if self._overlay.ports.try_again():
                self._overlay.open_ports()
                self._overlay.converge(problems)
                self._overlay.forget_datagrams(problems)
            self._overlay.ports.look(again=True)
        if broken or unfinished:
            for distrust in found.rewrite:
                distrust()
            if found.rewrite or "" in broken:
                self._overlay.ports.doubt_datagrams()
            for network, carried in self._networks.present():
                if network.id in broken:
                    with problems.of(f"network {network.name}", network.id):
                        self._mend(carried, inside=scope is EVERYTHING)
            self._overlay.converge(problems)
            self._overlay.forget_datagrams(problems)
            if MESH in broken:
                with problems.of("the tunnels"):
                    self._mesh.repair()
        problems.tell()
        self._unfinished = False
        put_right, self._found = self._found, {}
        return list(put_right)

    def silent_changes(self) -> list[str]:
        """Return the scopes in which something changed of which no notification tells: settings, pins, tunnels' peers.

        The host's, too, while it is without its address. Raises TransientError.
        """
        carried, mesh = self._networks.carried, self._mesh
        try:
            found = {i for i, c in carried.items() if not namespace.is_pin(c.pin, c.kernel.fd)}
            found |= {i for i, c in carried.items() if i not in found and c.kernel.settings_changed()}
            found |= {""} if self._overlay.underlay.is_away or self._host.kernel.settings_changed() else set()
            disturbed = mesh.disturbed or not mesh.is_pinned()
            disturbed = disturbed or (mesh.kernel is not None and mesh.kernel.settings_changed())
        except OSError as error:
            raise TransientError(f"settings cannot be read: {error}") from error
        return sorted({*found, MESH} if disturbed else found)

    def _cut_off(self) -> list[Drift]:
        """Return the links of containers that networks go on without, as they cannot be made."""
        return [
            Drift(network.id, DriftKind.MISSING, f"link {device}, which cannot be made: {why}")
            for network, carried in self._networks.present()
            for device, why in carried.cut_off.items()
        ]

    def _look(self, scope: Scope) -> _Found:
        found = _Found()
        tables = {"": self._overlay.nft, **{i: c.nft for i, c in self._networks.carried.items()}}
        for network_id in (scope.tables_of or frozenset()) & tables.keys():
            tables[network_id].doubt()
        self._look_at_host(scope, found)
        if scope.entries(MESH):
            found.drift += self._mesh.verify()
        for network_id, carried in sorted(self._networks.carried.items()):
            if network_id in self._networks.assigned:
                self._look_at_network(carried, scope, found)
            elif carried.removes_leftovers and scope.entries(network_id):
                found.drift.append(Drift(network_id, DriftKind.UNEXPECTED, "network namespace"))
        return found

    def _look_at_host(self, scope: Scope, found: _Found) -> None:
        if scope.entries(""):
            self._host.look_again()
            drift = differences("", self._host.wanted, self._host.read())
            found.drift += drift if self._host.removes_leftovers else _but_unexpected(drift)
        if scope.tables(""):
            found.add_tables("", self._host.broken_tables())
            found.add_tables("", self._overlay.admission.broken_tables())

    def _look_at_network(self, carried: CarriedNetwork, scope: Scope, found: _Found) -> None:
        network_id = carried.network_id
        if scope.tables(network_id):
            found.add_tables(network_id, carried.broken_tables())
        if not scope.entries(network_id):
            return
        if not namespace.is_pin(carried.pin, carried.kernel.fd):
            found.drift.append(Drift(network_id, DriftKind.MISSING, f"pin {carried.pin}"))
        actual = carried.read(self._overlay.outside(carried))
        if any(differences(network_id, carried.wanted, actual)):
            ended = self._attachments.forget_ended(carried)
            actual = {key: entry for key, entry in actual.items() if device_of(entry) not in ended}
        drift = differences(network_id, carried.wanted, actual)
        found.drift += drift if carried.removes_leftovers else _but_unexpected(drift)
        if scope is EVERYTHING:  # which takes a millisecond a container
            found.drift += self._attachments.differences_inside(carried)

    def _mend(self, carried: CarriedNetwork, *, inside: bool) -> None:
        """Put right what converging does not: the pin, containers' links, and what is `inside` of containers."""
        if not namespace.is_pin(carried.pin, carried.kernel.fd):
            namespace.unpin(carried.pin)
            namespace.pin(carried.kernel.fd, carried.pin)
        self._attachments.replug(carried, again=inside)
        if inside:
            self._attachments.mend_inside(carried)


def _but_unexpected(drift: Iterable[Drift]) -> Iterator[Drift]:
    return (one for one in drift if one.kind is not DriftKind.UNEXPECTED)
