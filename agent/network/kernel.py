"""A namespace of the kernel as the plane sees it: what it believes is there, reading it anew, and changing it.

`state` is a belief: what was last read, and changed by what was written since. A pass that finds belief and intention
equal costs nothing; `read` is for adopting, for verifying, and after anything went wrong.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from argosy.agent.logic import network_names as names
from argosy.agent.logic.network_diff import Operation, Put, after
from argosy.agent.logic.network_state import (
    MAIN_TABLE,
    Entry,
    Gro,
    Key,
    Link,
    LinkKind,
    RouteKind,
    Setting,
    State,
    state_of,
)
from argosy.agent.network import rtnetlink
from argosy.agent.network.gro import read_gro, write_gro
from argosy.agent.network.namespace import Home, read_setting, write_setting
from argosy.agent.network.netlink import Message, Netlink

_FIRST_INDEX: Final = 100
"""Of the indexes that we choose ourselves: above the kernel's own, the VTEP and the uplink, and those of inner ends.

A pair with the same index at both ends would be slow to come up: the kernel takes it for a device without a peer.
"""

LinkMaker = Callable[[Link], None]


class KernelNamespace:
    """One network namespace. Used by the plane's worker thread alone; owns `fd` and the netlink socket."""

    __slots__ = ("_home", "_is_hosts", "_next_index", "fd", "indexes", "netlink", "state")

    def __init__(self, home: Home, fd: int, *, is_hosts: bool = False) -> None:
        """Open the namespace of a descriptor; in the host's, which is not ours, only the uplinks are."""
        self._home = home
        self._is_hosts = is_hosts
        self._next_index = _FIRST_INDEX
        self.fd = fd
        self.netlink: Netlink = home.netlink_in(fd)
        self.indexes: dict[str, int] = {}
        self.state: dict[Key, Entry] = {}

    def close(self) -> None:
        """Let go of the namespace; it lives on if it is pinned."""
        self.netlink.close()
        os.close(self.fd)

    def read(self, wanted: State) -> dict[Key, Entry]:
        """Read what is there and believe it. Settings are read where `wanted` has an opinion on them."""
        links = [(i, _classified(link)) for i, link, _ in rtnetlink.read_links(self.netlink)]
        links = [(i, link) for i, link in links if self._is_ours(link)]
        self.indexes = {link.name: i for i, link in links}
        self._next_index = max([self._next_index, *(i + 1 for i, _ in links)])
        devices = {i: link.name for i, link in links}
        entries: list[Entry] = [link for _, link in links]
        entries += (a for a in rtnetlink.read_addresses(self.netlink, devices) if not _is_loopback(a.address))
        entries += rtnetlink.read_neighbours(self.netlink, devices)
        entries += rtnetlink.read_fdb(self.netlink, devices)
        routes = rtnetlink.read_routes(self.netlink, devices)
        if self._is_hosts:
            entries += (r for r in routes if r.device and r.table == MAIN_TABLE)
        else:
            entries += (r for r in routes if r.device or r.kind is not RouteKind.UNICAST)
            entries += rtnetlink.read_rules(self.netlink)
        entries += rtnetlink.read_routing_sysctls(self.netlink, devices)
        self.state = state_of(entries)
        self.learn_settings(wanted)
        self.state = {k: e for k, e in self.state.items() if not isinstance(e, Setting) or k in wanted}
        return self.state

    def _is_ours(self, link: Link) -> bool:
        return link.kind is LinkKind.HOST_UPLINK if self._is_hosts else link.kind is not LinkKind.OTHER

    def learn_settings(self, wanted: State) -> None:
        """Read the settings that `wanted` has an opinion on and that are not believed to be anything yet."""
        missing = [(k, e) for k, e in wanted.items() if isinstance(e, Setting) and k not in self.state]
        if not missing:
            return
        with self._home.away(self.fd):
            for key, entry in missing:
                value = _read(entry)
                if value is not None:
                    self.state[key] = replace(entry, value=value)

    def forget_settings(self) -> None:
        """Believe nothing of settings: they were written by other ways than `apply`."""
        self.state = {k: e for k, e in self.state.items() if not isinstance(e, Setting)}

    def settings_changed(self) -> bool:
        """Tell whether a setting is not what it is believed to be. Changes nothing; raises OSError."""
        believed = {key: entry for key, entry in self.state.items() if isinstance(entry, Setting)}
        devices = {index: name for name, index in self.indexes.items()}
        told = state_of(list(rtnetlink.read_routing_sysctls(self.netlink, devices)))
        if any(believed.pop(key, entry) != entry for key, entry in told.items()):
            return True
        with self._home.away(self.fd):
            return any(_read(entry) != entry.value for entry in believed.values())

    def apply(self, operations: Sequence[Operation], make: LinkMaker) -> None:
        """Carry operations out in order; `make` makes links that are not there.

        Raises OSError (NetlinkError, or of a setting); what is then believed is what the caller reads anew.
        """
        pending: list[Message] = []
        settings: list[Setting] = []
        for operation in operations:
            entry = operation.entry
            if isinstance(entry, Setting):
                if isinstance(operation, Put):
                    self._flush(pending)
                    settings.append(entry)
                continue
            self._write_settings(settings)
            if isinstance(operation, Put) and isinstance(entry, Link):
                self._flush(pending)
                if operation.creates:
                    make(entry)
                self._settle(entry)
            elif isinstance(operation, Put):
                pending.append(rtnetlink.put(entry, self.indexes))
            else:
                message = rtnetlink.remove(entry, self.indexes)
                if message:
                    pending.append(message)
                if isinstance(entry, Link):
                    self._flush(pending)
                    self.indexes.pop(entry.name, None)
        self._write_settings(settings)
        self._flush(pending)
        self.state = after(self.state, list(operations))

    def next_index(self) -> int:
        """Return an interface index that no device of this namespace has had."""
        index = self._next_index
        self._next_index += 1
        return index

    def _settle(self, link: Link) -> None:
        """Find a link's index, and give it its properties: those made by a peer do not have them yet."""
        found = rtnetlink.read_link(self.netlink, link.name)
        if found is None:
            raise OSError(f"{link} is gone again")
        index, there, _ = found
        self.indexes[link.name] = index
        self._next_index = max(self._next_index, index + 1)
        if _classified(there) != link:
            mac = link.mac if link.mac != there.mac else b""
            self.netlink.execute([rtnetlink.set_link(index, mtu=link.mtu, mac=mac)])

    def _flush(self, pending: list[Message]) -> None:
        if pending:
            self.netlink.execute(pending)
            pending.clear()

    def _write_settings(self, settings: list[Setting]) -> None:
        if settings:
            with self._home.away(self.fd):
                for entry in settings:
                    try:
                        if _read(entry) != entry.value:
                            _write(entry)
                    except FileNotFoundError:
                        if not entry.device or rtnetlink.read_link(self.netlink, entry.device):
                            raise
                        # Its container has just ended, and the device with it: of that we shall hear.
            settings.clear()


def _read(setting: Setting) -> str | None:
    return read_gro(setting.device) if isinstance(setting, Gro) else read_setting(setting.path)


def _write(setting: Setting) -> None:
    if isinstance(setting, Gro):
        write_gro(setting.device, setting.value)
    else:
        write_setting(setting.path, setting.value)


def _classified(link: Link) -> Link:
    """Tell our kinds of veth apart, which the kernel does not know, by their names."""
    if link.kind is not LinkKind.CONTAINER:
        return link
    if link.name == names.UPLINK:
        return replace(link, kind=LinkKind.UPLINK)
    if names.is_host_uplink(link.name):
        return replace(link, kind=LinkKind.HOST_UPLINK)
    return link if link.name.startswith(names.CONTAINER_PREFIX) else replace(link, kind=LinkKind.OTHER)


def _is_loopback(address: int) -> bool:
    return address >> 24 == 127
