"""Containers on networks: making their links, deleting many at once, making them anew when somebody deleted them."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address

import structlog

from argosy.agent.logic import network_names as names
from argosy.agent.logic.network_container import ContainerLink, plan_container_links
from argosy.agent.logic.network_plan import Site, link_mtu, plan_container
from argosy.agent.network import container, rtnetlink
from argosy.agent.network.carried import DELETION_GROUP, Attached, CarriedNetwork
from argosy.agent.network.container import Plug
from argosy.agent.network.desired import Drift, Interface
from argosy.agent.network.namespace import Home
from argosy.core.assignment import NetworkAssignment
from argosy.core.errors import TransientError

log = structlog.get_logger(__name__)

Networks = Sequence[tuple[NetworkAssignment, int]]
"""The networks of a container and its address on each, in order."""


class Attachments:
    """Works on the networks that the overlay carries; used by the worker thread alone."""

    __slots__ = ("_carried", "_home", "site")

    def __init__(self, home: Home, site: Site, carried: Mapping[str, CarriedNetwork]) -> None:
        self._home = home
        self.site = site
        self._carried = carried

    def attach(self, container_id: str, pid: int, networks: Networks) -> tuple[Interface, ...]:
        """Connect a container; repeating it is harmless. Raises PreconditionError, TransientError (ContainerGone too).

        After a failure nothing of the container is left.
        """
        links = plan_container_links(self.site, networks)
        device = names.container_device(container_id)
        plugs = {
            network.id: Plug(tuple(plan_container(self.site, network, device, address)), link)
            for (network, address), link in zip(networks, links, strict=True)
        }
        fd = container.open_container(pid)
        try:
            container.plug_in(self._home, fd, [(self._carried[i].kernel, plug) for i, plug in plugs.items()])
        except OSError as error:
            self.delete([device], on=plugs)
            if not os.path.exists(f"/proc/{pid}"):
                raise container.ContainerGone(pid) from error
            raise TransientError(f"cannot attach container {container_id} to its networks: {error}") from error
        else:
            inode = os.fstat(fd).st_ino
        finally:
            os.close(fd)
        for (network, address), plug in zip(networks, plugs.values(), strict=True):
            self._carried[network.id].add_container(device, Attached(address, pid, inode, plug))
        return tuple(_interface(n, link) for (n, _), link in zip(networks, links, strict=True))

    def detach(self, container_ids: Iterable[str]) -> None:
        """Disconnect containers from all networks."""
        self.delete([names.container_device(c) for c in container_ids])

    def delete(self, devices: Sequence[str], on: Iterable[str] = ()) -> None:
        """Delete links wherever they are known, and on the networks `on` even if they are not."""
        certain = set(on)
        for network_id, carried in self._carried.items():
            known = [d for d in devices if carried.drop_container(d)]
            there = devices if network_id in certain else known
            if there:
                carried.kernel.netlink.execute(rtnetlink.delete_links(there, DELETION_GROUP))
                for device in there:
                    carried.deleted(device)

    def refresh(self, carried: CarriedNetwork, network: NetworkAssignment) -> None:
        """Carry a change of the network (its MTU) into the containers that are on it."""
        mtu = link_mtu(self.site, network)
        for device, attached in list(carried.containers.items()):
            if attached.plug and attached.plug.link.mtu != mtu:
                entries = tuple(plan_container(self.site, network, device, attached.address))
                plug = Plug(entries, replace(attached.plug.link, mtu=mtu))
                if not self._plug_again(carried, device, replace(attached, plug=plug)):
                    carried.unwant_container(device)

    def forget_ended(self, carried: CarriedNetwork) -> set[str]:
        """Want nothing for containers that have ended: what went with them is no drift. They are yet to be detached.

        Returns their devices: of these the kernel may have been read while it took them down.
        """
        ended = set()
        for device, attached in carried.containers.items():
            if not attached.plug:
                continue
            fd = self._reopen(attached)
            if fd is None:
                carried.unwant_container(device)
                ended.add(device)
            else:
                os.close(fd)
        return ended

    def differences_inside(self, carried: CarriedNetwork) -> list[Drift]:
        """Return how containers' own ends of their links differ from what they were given. Raises OSError."""
        return [
            replace(drift, what=f"{drift.what}, in the container behind {device}")
            for device, attached in carried.containers.items()
            for drift in self._inside(carried, device, attached)
        ]

    def mend_inside(self, carried: CarriedNetwork) -> None:
        """Give containers anew what differs at their own ends. Raises TransientError."""
        for device, attached in list(carried.containers.items()):
            if any(self._inside(carried, device, attached)):
                self._plug_again(carried, device, attached)

    def _inside(self, carried: CarriedNetwork, device: str, attached: Attached) -> Iterator[Drift]:
        """Yield what differs in one container: not in those that may change it themselves."""
        if attached.plug is None or device not in carried.kernel.indexes:
            return
        fd = self._reopen(attached)
        if fd is None:
            return
        try:
            if not container.may_change_its_network(attached.pid):
                yield from container.differences_inside(self._home, fd, attached.plug.link)
        finally:
            os.close(fd)

    def replug(self, carried: CarriedNetwork, *, again: bool) -> None:
        """Make links anew that are missing, and forget containers of which nothing is there and can be made by us.

        `again`: those, too, that the network goes on without.
        The latter have ended, or only a former life knew their processes: to want their links would keep the network
        from ever being as wanted. Their owners attach them again if they are to go on.
        """
        there = carried.kernel.indexes if again else {**carried.kernel.indexes, **carried.cut_off}
        for device, attached in list(carried.containers.items()):
            if device not in there and not self._plug_again(carried, device, attached):
                carried.drop_container(device)

    def _plug_again(self, carried: CarriedNetwork, device: str, attached: Attached) -> bool:
        """Make a link anew; False where the container is not known to be what it was. Raises TransientError.

        A container that may change its network can have something of its own in the way for as long as it likes: the
        network goes on without it.
        """
        plug = attached.plug
        fd = self._reopen(attached) if plug else None
        if fd is None or plug is None:
            return False
        try:
            container.plug_in(self._home, fd, [(carried.kernel, plug)])
        except OSError as error:
            if not container.may_change_its_network(attached.pid):
                raise TransientError(f"cannot repair {device}: {error}") from error
            log.warning("a container is without its link: it is tried again", device=device, why=str(error))
            carried.kernel.netlink.execute([rtnetlink.delete_link(device)])
            carried.go_on_without(device, attached, str(error))
        else:
            carried.add_container(device, attached)
        finally:
            os.close(fd)
        return True

    @staticmethod
    def _reopen(attached: Attached) -> int | None:
        """Return the namespace of a container if its process still is what it was when it was attached."""
        try:
            fd = container.open_container(attached.pid)
        except container.ContainerGone:
            return None
        if os.fstat(fd).st_ino == attached.inode:
            return fd
        os.close(fd)
        return None


def _interface(network: NetworkAssignment, link: ContainerLink) -> Interface:
    return Interface(
        name=link.name,
        network_id=network.id,
        network_name=network.name,
        address=str(IPv4Address(link.address)),
        mtu=link.mtu,
        default_route=link.default_route,
    )
