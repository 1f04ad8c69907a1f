"""Networks: the top-level definitions, and which of them a service joins under what names."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from argosy.cli.compose.cursor import Cursor
from argosy.cli.compose.document import Map, Scalar
from argosy.cli.compose.problems import Position
from argosy.core.meta import STACK_LABEL
from argosy.core.names import stack_name
from argosy.core.network import NetworkSpec
from argosy.core.service import NetworkAttachmentSpec

DEFAULT: Final = "default"
MTU_OPTION: Final = "com.docker.network.driver.mtu"
_DRIVERS: Final = ("overlay", "bridge", "default", "")


@dataclass(frozen=True, slots=True)
class DefinedNetwork:
    """A network of the file: made by the stack, or `external` (it must exist under the spec's name)."""

    key: str
    spec: NetworkSpec
    external: bool
    position: Position


def defined_networks(root: Cursor, stack: str) -> dict[str, DefinedNetwork]:
    """Return the file's networks by their key, the implicit default one included."""
    found: dict[str, DefinedNetwork] = {}
    networks = root.get("networks")
    for key, at in networks.entries() if networks is not None else ():
        if at.mapping():
            found[key] = _network(key, at, stack)
    if DEFAULT not in found:
        spec = NetworkSpec(name=stack_name(stack, DEFAULT), labels={STACK_LABEL: stack})
        found[DEFAULT] = DefinedNetwork(DEFAULT, spec, False, root.position)
    return found


def _network(key: str, at: Cursor, stack: str) -> DefinedNetwork:
    external, name = _external(key, at)
    driver = at.get("driver")
    if driver is not None and (driver.text() or "") not in _DRIVERS:
        driver.problem(
            f"there is no driver '{driver.text()}'", "remove it: every network is an overlay between the hosts"
        )
    ipv4, ipv6 = at.get("enable_ipv4"), at.get("enable_ipv6")
    if ipv4 is not None and ipv4.boolean() is False:
        ipv4.problem("networks have IPv4 only", "remove it")
    if ipv6 is not None and ipv6.boolean():
        ipv6.problem("networks have IPv4 only", "remove it")
    labels, internal, attachable = at.get("labels"), at.get("internal"), at.get("attachable")
    spec = NetworkSpec(
        name=name or (key if external else stack_name(stack, key)),
        labels={} if external else {**(labels.text_map() if labels is not None else {}), STACK_LABEL: stack},
        subnet=_subnet(at.get("ipam")),
        internal=bool(internal is not None and internal.boolean()),
        attachable=bool(attachable is not None and attachable.boolean()),
        encrypted=_encrypted(at.get("driver_opts")),
        ip_range=_ip_range(at.get("ipam")),
        mtu=_mtu(at.get("driver_opts")),
    )
    return DefinedNetwork(key, spec, external, at.key_position)


def _encrypted(options: Cursor | None) -> bool:
    """Return whether the driver's options ask for encryption, which needs no value."""
    wanted = False
    for name, value in options.entries() if options is not None else ():
        if name not in ("encrypted", MTU_OPTION):
            value.problem(f"the overlay has no option '{name}'", f"remove it; there are 'encrypted' and '{MTU_OPTION}'")
        elif name == "encrypted":
            bare = value.is_null or (isinstance(value.node, Scalar) and value.node.text == "")
            wanted = bare or bool(value.boolean())
    return wanted


def _mtu(options: Cursor | None) -> int:
    """Return the MTU that the driver's options ask for; 0: as the hosts' links allow."""
    wanted = options.get(MTU_OPTION) if options is not None else None
    text = (wanted.text() or "") if wanted is not None else ""
    if wanted is not None and not (text.isascii() and text.isdigit()):
        wanted.problem(f"'{text}' is no MTU", "write a number of bytes, such as 1400")
        return 0
    return int(text or 0)


def _external(key: str, at: Cursor) -> tuple[bool, str]:
    """Return whether the network is external, and the name that is given for it ("" for none)."""
    name_at, external_at = at.get("name"), at.get("external")
    name = (name_at.text() or "") if name_at is not None else ""
    if external_at is None:
        return False, name
    if isinstance(external_at.node, Map):
        older = external_at.get("name")
        return True, name or ((older.text() or "") if older is not None else "")
    external = bool(external_at.boolean())
    for other, value in at.entries() if external else ():
        if other not in ("external", "name"):
            value.problem(
                f"'{other}' has no effect on an external network: it exists already", "remove it, or 'external'"
            )
    return external, name


def _subnet(ipam: Cursor | None) -> str:
    if ipam is None or not ipam.mapping():
        return ""
    driver = ipam.get("driver")
    if driver is not None and driver.text() not in ("default", ""):
        driver.problem("addresses are given by the cluster", "remove it, or write 'default'")
    config = ipam.get("config")
    subnets = []
    for item in config.items() if config is not None else ():
        subnet = item.get("subnet") if item.mapping() else None
        if subnet is not None:
            subnets.append((subnet, subnet.text() or ""))
    for at, _ in subnets[1:]:
        at.problem("a network has one subnet", "remove the others, or define another network")
    if subnets and ":" in subnets[0][1]:
        subnets[0][0].problem("networks have IPv4 only", "write a subnet like 10.20.0.0/16")
        return ""
    return subnets[0][1] if subnets else ""


def _ip_range(ipam: Cursor | None) -> str:
    """Return the part of the subnet that tasks' addresses are chosen from; the others are for services that ask."""
    config = ipam.get("config") if ipam is not None and ipam.mapping() else None
    for item in config.items() if config is not None else ():
        part = item.get("ip_range") if item.mapping() else None
        if part is not None:
            return part.text() or ""
    return ""


def attachments(
    service: Cursor, name: str, defined: Mapping[str, DefinedNetwork], used: set[str]
) -> tuple[NetworkAttachmentSpec, ...]:
    """Return the networks that a service joins; the keys of those are added to `used`.

    Without any it joins the stack's default network, as in Compose. Its own short name is an alias on each.
    """
    at = service.get("networks")
    mode = service.get("network_mode")
    if mode is not None and mode.text() == "none":
        mode.problem("every container is on a network", "remove it, and join one with 'internal: true'")
    elif mode is not None and mode.text() not in ("bridge", "default"):
        mode.problem(
            f"'{mode.text()}' would leave the container's isolation", "remove it, and join networks with 'networks'"
        )
    elif mode is not None and at is not None:
        mode.problem("'network_mode' and 'networks' exclude each other", "keep 'networks'")
    if at is None or (isinstance(at.node, Map) and not at.node.entries):
        used.add(DEFAULT)
        return (NetworkAttachmentSpec(defined[DEFAULT].spec.name, (name,)),)
    found = []
    for key, value in at.entries() if at.mapping(names=True) else ():
        network = defined.get(key)
        if network is None:
            near = get_close_matches(key, defined, n=1)
            advice = f"did you mean '{near[0]}'?" if near else f"define it at the top level: 'networks: {{{key}: }}'"
            value.problem(f"there is no network '{key}' in the file", advice)
            found.append(NetworkAttachmentSpec(key))  # stands in, so that the others keep their places
            continue
        used.add(key)
        aliases = value.get("aliases") if value.mapping() else None
        names = dict.fromkeys((name, *(aliases.texts() if aliases is not None else ())))
        address = value.get("ipv4_address") if value.mapping() else None
        text = (address.text() or "") if address is not None else ""
        found.append(NetworkAttachmentSpec(network.spec.name, tuple(names), text))
    return tuple(found)
