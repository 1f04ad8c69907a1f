"""A container's end of its links: made straight into its namespace, two system calls a link and two for the rest.

Nothing is asked back from the kernel on the way: interface indexes are ours to choose, MAC addresses follow from ids.
A repetition is harmless; a pair left over from an attempt that was cut short is used if its ends are where they belong.
"""

import errno
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from argosy.agent.logic.network_container import ContainerLink, plan_inside, rules_of
from argosy.agent.logic.network_plan import ROUTER
from argosy.agent.logic.network_state import Entry, Link, LinkKind, state_of
from argosy.agent.network import rtnetlink
from argosy.agent.network.audit import differences
from argosy.agent.network.desired import Drift
from argosy.agent.network.kernel import KernelNamespace
from argosy.agent.network.namespace import Home, open_namespace, write_setting
from argosy.agent.network.netlink import Message, Netlink, NetlinkError
from argosy.core.errors import PreconditionError, TransientError

_LOOPBACK_INDEX: Final = 1
_CARRIER_S: Final = 0.1
_CARRIER_POLL_S: Final = 0.0005
_CAP_NET_ADMIN: Final = 1 << 12


@dataclass(frozen=True, slots=True)
class Plug:
    """One link: what the network's namespace holds for the container, and the container's side."""

    entries: tuple[Entry, ...]
    link: ContainerLink

    @property
    def outer(self) -> Link:
        """The end in the network's namespace."""
        return next(e for e in self.entries if isinstance(e, Link))

    @property
    def inner(self) -> Link:
        """The end in the container."""
        return Link(self.link.name, LinkKind.OTHER, mtu=self.link.mtu, mac=self.link.mac)


class ContainerGone(TransientError):
    """The container has ended: one that takes its place can be attached."""

    def __init__(self, pid: int) -> None:
        super().__init__(f"process {pid} of the container is gone: it has no network to attach to")


def open_container(pid: int) -> int:
    """Return a descriptor of a container's network namespace. Raises ContainerGone."""
    try:
        return open_namespace(f"/proc/{pid}/ns/net")
    except (FileNotFoundError, ProcessLookupError) as error:
        raise ContainerGone(pid) from error


def plug_in(home: Home, container_fd: int, plugs: Sequence[tuple[KernelNamespace, Plug]]) -> None:
    """Make a container's links and configure them. Raises OSError; what was made is then still there."""
    if os.fstat(container_fd).st_ino == os.fstat(home.fd).st_ino:
        raise PreconditionError("the container shares the host's network namespace: it cannot be attached to networks")
    with home.away(container_fd):
        netlink = Netlink()
        _without_ipv6()
    try:
        for network, plug in plugs:
            _make_pair(network, plug, container_fd, netlink)
        configuration = [m for _, plug in plugs for m in _configuration(plug.link)]
        netlink.execute([rtnetlink.set_link(_LOOPBACK_INDEX), *configuration])
    finally:
        netlink.close()
    for network, plug in plugs:
        _await_carrier(network, plug)


def differences_inside(home: Home, container_fd: int, link: ContainerLink) -> Iterator[Drift]:
    """Yield what is missing in a container, or different; what it has beside that is its own affair. Raises OSError."""
    netlink = home.netlink_in(container_fd)
    try:
        # Devices go by their index: a name may have been changed.
        links = {
            i: replace(found, name=link.name) if i == link.index else found
            for i, found, _ in rtnetlink.read_links(netlink)
        }
        devices = {i: found.name for i, found in links.items()}
        actual = state_of(
            [
                *links.values(),
                *rtnetlink.read_addresses(netlink, devices),
                *rtnetlink.read_neighbours(netlink, devices),
                *rtnetlink.read_routes(netlink, devices),
                *(rtnetlink.read_rules(netlink) if link.rule_table else ()),
            ]
        )
    finally:
        netlink.close()
    wanted = state_of(plan_inside(link))
    return differences(link.network_id, wanted, {key: entry for key, entry in actual.items() if key in wanted})


def may_change_its_network(pid: int) -> bool:
    """Tell whether a container may change its own network (CAP_NET_ADMIN); False for one that has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return False
    bounding = next((line.split()[1] for line in lines if line.startswith("CapBnd:")), "0")
    return bool(int(bounding, 16) & _CAP_NET_ADMIN)


def _await_carrier(network: KernelNamespace, plug: Plug) -> None:
    """Wait until the outer end sends: the kernel drops packets for it until it has dealt with the carrier's coming up.

    It does that in a worker of its own, soon for the end that was opened first, at once for the other one. Asking for
    the link makes it do it now (since Linux 6.8); before that we can only look again. Not to wait would cost the
    container's first connection a second: the time after which TCP tries again.
    """
    deadline = time.monotonic() + _CARRIER_S
    while not rtnetlink.is_operational(network.netlink, network.indexes[plug.outer.name]):
        if time.monotonic() > deadline:
            return
        time.sleep(_CARRIER_POLL_S)


def _without_ipv6() -> None:
    """Give links made from now on no IPv6 address of their own; `lo` keeps ::1."""
    try:
        write_setting("ipv6/conf/default/disable_ipv6", "1")
    except FileNotFoundError:
        return  # a kernel without IPv6


def _make_pair(network: KernelNamespace, plug: Plug, container_fd: int, container: Netlink) -> None:
    """Make the pair; one that is there already stays if its two ends belong together, and is made anew if not."""
    try:
        _create(network, plug, container_fd)
    except NetlinkError as error:
        if error.errno not in (errno.EEXIST, errno.EBUSY):  # a name, or an index, is taken
            raise
        if not _belongs_together(network, plug, container):
            _delete_remains(network, plug, container)
            _create(network, plug, container_fd)
    index = network.indexes[plug.outer.name]
    messages = [rtnetlink.put(e, {plug.outer.name: index}) for e in plug.entries if rtnetlink.is_message(e)]
    network.netlink.execute([rtnetlink.set_link(index, mtu=plug.outer.mtu), *messages])


def _delete_remains(network: KernelNamespace, plug: Plug, container: Netlink) -> None:
    """Delete what is left of a former pair, either end of which may have got another name; both go with one.

    A container may have any number of devices of its own, so only these are looked at.
    """
    network.netlink.execute([rtnetlink.delete_link(plug.outer.name)])
    places = rtnetlink.read_link(container, plug.link.name), rtnetlink.read_link_at(container, plug.link.index)
    for name in {found[1].name for found in places if found}:
        if rtnetlink.has_far_side_in(container, name, network.fd):
            container.execute([rtnetlink.delete_link(name)])


def _create(network: KernelNamespace, plug: Plug, container_fd: int) -> None:
    index = network.next_index()
    pair = rtnetlink.make_pair(plug.outer, plug.inner, container_fd, index=index, peer_index=plug.link.index)
    network.netlink.execute([pair])
    network.indexes[plug.outer.name] = index


def _belongs_together(network: KernelNamespace, plug: Plug, container: Netlink) -> bool:
    outer = rtnetlink.read_link(network.netlink, plug.outer.name)
    inner = rtnetlink.read_link(container, plug.link.name)
    if outer is None or inner is None:
        return False
    if rtnetlink.peer_index(outer[2]) != inner[0] or rtnetlink.peer_index(inner[2]) != outer[0]:
        return False
    network.indexes[plug.outer.name] = outer[0]
    return inner[0] == plug.link.index


def _configuration(link: ContainerLink) -> list[Message]:
    messages = [
        rtnetlink.set_link(link.index, mtu=link.mtu),
        rtnetlink.address_on(link.index, link.address),
        rtnetlink.neighbour(link.index, ROUTER, link.router_mac),
    ]
    for route in link.routes:
        gateway = ROUTER if route.via_router else 0
        messages.append(
            rtnetlink.route_via(
                link.index,
                route.destination,
                route.prefix,
                gateway=gateway,
                source=link.address,
                table=route.table,
            )
        )
    return messages + [rtnetlink.put(rule, {}) for rule in rules_of(link)]
