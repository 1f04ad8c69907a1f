"""Which key of a Compose file a field of the core's specs came from, to show its problems at the right line."""

import re
from typing import Final

_KEYS: Final[dict[str, str]] = {
    "name": "",
    "labels": "deploy.labels",
    "mode": "deploy.mode",
    "replicas": "deploy.replicas",
    "update": "deploy.update_config",
    "rollback": "deploy.rollback_config",
    "task.limits": "deploy.resources.limits",
    "task.limits.memory_bytes": "deploy.resources.limits.memory",
    "task.reservations": "deploy.resources.reservations",
    "task.reservations.memory_bytes": "deploy.resources.reservations.memory",
    "task.restart": "deploy.restart_policy",
    "task.placement": "deploy.placement",
    "task.placement.platforms": "platform",
    "task.networks": "networks",
    "task.container": "",
    "task.container.env": "environment",
    "task.container.dns.nameservers": "dns",
    "task.container.dns.search": "dns_search",
    "task.container.dns.options": "dns_opt",
}
"""Fields whose name or place differs; what is not here has the field's own name below that of its parent."""


def key_of(field: str) -> tuple[str, ...]:
    """Return the keys, from the service down, for a field such as "task.container.tmpfs[0].target"."""
    parts = [part for part in re.sub(r"\[[^\]]*\]", "", field).split(".") if part]
    for end in range(len(parts), 0, -1):
        known = _KEYS.get(".".join(parts[:end]))
        if known is not None:
            return tuple(part for part in (*known.split("."), *parts[end:]) if part)
    return tuple(parts)
