"""Which key of a Compose file a field of the core's specs came from, to show its problems at the right line."""

import re
from typing import Final

from argosy.cli.compose.cursor import Cursor
from argosy.cli.compose.document import Map, Seq
from argosy.cli.compose.extension import own

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
    "task.host_ports": "ports",
    "endpoint.ports": "ports",
    "task.container": "",
    "task.container.env": "environment",
    "task.container.readiness": "x-argosy.readiness",
    "task.container.dns.nameservers": "dns",
    "task.container.dns.search": "dns_search",
    "task.container.dns.options": "dns_opt",
}
"""Fields whose name or place differs; what is not here has the field's own name below that of its parent."""


_PART: Final = re.compile(r"([^.\[\]]+)|\[([^\]]*)\]")


def place_of(at: Cursor, field: str) -> Cursor:
    """Return what the file says of a field ("task.container.cap_add[1]"), or the nearest above it that it says."""
    for key in keys_of(field):
        below = at.find(key) if isinstance(key, str) else _item(at, key)
        if below is None and key == "healthcheck":
            below = own(at, "liveness")
        if below is None:
            break
        at = below
    return at


def _item(at: Cursor, index: int) -> Cursor | None:
    if isinstance(at.node, Seq):
        return Cursor(at.node.items[index], at.path, at.findings) if index < len(at.node.items) else None
    if isinstance(at.node, Map) and at.key == "ulimits":
        return at.find(list(at.node.entries)[index])
    return None


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
