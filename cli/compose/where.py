"""Which key of a Compose file a field of the core's specs came from, to show its problems at the right line."""

import re
from typing import Final

from argosy.cli.compose.cursor import Cursor
from argosy.cli.compose.document import Map, Scalar, Seq
from argosy.cli.compose.extension import own
from argosy.cli.compose.networks import MTU_OPTION
from argosy.cli.compose.ports import ports_of
from argosy.cli.compose.problems import Findings

_KEYS: Final[dict[str, str]] = {
    "name": "",
    "labels": "deploy.labels",
    "mode": "deploy.mode",
    "replicas": "deploy.replicas",
    "update": "deploy.update_config",
    "update.progress_deadline": "x-argosy.progress_deadline",
    "rollback": "deploy.rollback_config",
    "rollback.progress_deadline": "x-argosy.progress_deadline",
    "canary": "x-argosy.canary",
    "auto_promote": "x-argosy.auto_promote",
    "max_unavailable": "x-argosy.max_unavailable",
    "disconnect": "x-argosy.disconnect",
    "job": "x-argosy.job",
    "job.total_completions": "x-argosy.job.total_completions",
    "job.cron": "x-argosy.cron",
    "task.drain_timeout": "x-argosy.drain_timeout",
    "task.weight": "x-argosy.weight",
    "task.limits": "deploy.resources.limits",
    "task.limits.memory_bytes": "deploy.resources.limits.memory",
    "task.reservations": "deploy.resources.reservations",
    "task.reservations.memory_bytes": "deploy.resources.reservations.memory",
    "task.restart": "deploy.restart_policy",
    "task.placement": "deploy.placement",
    "task.placement.platforms": "platform",
    "task.networks": "networks",
    "endpoint": "",
    "task.container": "",
    "task.container.env": "environment",
    "task.container.readiness": "x-argosy.readiness",
    "task.container.dns.nameservers": "dns",
    "task.container.dns.search": "dns_search",
    "task.container.dns.options": "dns_opt",
}
"""Fields whose name or place differs; what is not here has the field's own name below that of its parent."""


_PORT: Final = re.compile(r"(endpoint\.ports|task\.host_ports)(?:\[([0-9]+)\](?:\.(.+))?)?")
_PART: Final = re.compile(r"([^.\[\]]+)|\[([^\]]*)\]")


def place_of(at: Cursor, field: str) -> Cursor:
    """Return what the file says of a field ("task.container.cap_add[1]"), or the nearest above it that it says."""
    port = _PORT.fullmatch(field)
    if port is not None:
        return _port(at, port[2], port[3], host_mode=port[1] == "task.host_ports")
    for key in keys_of(field):
        below = at.find(key) if isinstance(key, str) else _item(at, key)
        if below is None and key == "healthcheck":
            below = own(at, "liveness")
        elif below is None and key == "address":
            below = at.find("ipv4_address")
        if below is None:
            break
        at = below
    return at


def place_in_network(at: Cursor, field: str) -> Cursor:
    """As place_of, for a field of a NetworkSpec and the network's definition in the file."""
    if field == "mtu":
        return (options.find(MTU_OPTION) if (options := at.get("driver_opts")) is not None else None) or at
    if field == "encrypted":
        return place_of(at, "driver_opts.encrypted")
    if field in ("subnet", "ip_range"):
        config = place_of(at, "ipam.config")
        items = config.items() if isinstance(config.node, Seq) else ()
        return next((found for item in items if (found := item.get(field)) is not None), config)
    return place_of(at, field) if field else at


def _port(at: Cursor, index: str | None, field: str | None, *, host_mode: bool) -> Cursor:
    """As place_of, for the ports of one mode: an item of the list may be a range of them."""
    listed = at.get("ports")
    if listed is None or index is None:
        return listed or at
    items = [Cursor(item.node, item.path, Findings()) for item in listed.items()]  # read before: nothing is said anew
    places = [item for item in items for port in ports_of(item) if port.host_mode == host_mode]
    if int(index) >= len(places):
        return listed
    place = Cursor(places[int(index)].node, listed.path, at.findings)
    return place.find("published" if field == "port" else field or "") or place


def _item(at: Cursor, index: int) -> Cursor | None:
    if isinstance(at.node, Seq):
        items = [Cursor(item, at.path, at.findings) for item in at.node.items]
        if at.key == "aliases":
            items = _aliases(at, items)
        return items[index] if index < len(items) else None
    if isinstance(at.node, Map) and at.key in ("depends_on", "ulimits", "networks"):
        keys = [key for key in at.node.entries if at.key != "networks" or not key.startswith("x-")]
        return at.find(keys[index]) if index < len(keys) else None
    return None


def _aliases(at: Cursor, items: list[Cursor]) -> list[Cursor]:
    """Return where each alias of a spec is from: the service's own name comes first there, and each name once."""
    places = {at.path.split(".")[1]: at}
    for item in items:
        places.setdefault(item.node.text or "" if isinstance(item.node, Scalar) else "", item)
    return list(places.values())


def keys_of(field: str) -> tuple[str | int, ...]:
    """Return the keys, and places in lists, from the service down."""
    parts = [_part(name, index) for name, index in _PART.findall(field)]
    for end in range(len(parts), 0, -1):
        known = _KEYS.get(".".join(map(str, parts[:end])))
        if known is not None:
            return (*(part for part in known.split(".") if part), *parts[end:])
    return tuple(parts)


def _part(name: str, index: str) -> str | int:
    return int(index) if not name and index.isdecimal() else name or index
