"""What a service says below `x-argosy`: the keys that the specification has no word for.

The table (verdicts.py) lists them; one that is not there is refused before anything here is asked. Each part of a spec
reads its own keys with `own`.
"""

from dataclasses import dataclass

from argosy.cli.compose.cursor import Cursor
from argosy.cli.compose.verdicts import EXTENSION
from argosy.core.service import Disconnect, EndpointMode, EndpointSpec, UpdateConfig
from argosy.core.validate_update import MOST_WEIGHT


@dataclass(frozen=True, slots=True)
class Canary:
    """How many new tasks an update tries first, and whether it goes on by itself when they did well."""

    count: int = 0
    auto_promote: bool = False


def own(service: Cursor, key: str) -> Cursor | None:
    """Return the value of a key below the service's `x-argosy`; None when it is missing or null."""
    at = service.get(EXTENSION)
    return at.get(key) if at is not None and at.mapping() else None


def canary(service: Cursor) -> Canary:
    """Return `canary` and `auto_promote`."""
    count, auto = own(service, "canary"), own(service, "auto_promote")
    return Canary(
        (count.integer(least=0, most=1_000_000) or 0) if count is not None else 0,
        (auto.boolean() or False) if auto is not None else False,
    )


def progress_deadline(service: Cursor) -> float:
    """Return `progress_deadline` in seconds; it holds for updates and rollbacks alike."""
    at = own(service, "progress_deadline")
    given = at.duration() if at is not None else None
    return UpdateConfig().progress_deadline if given is None else given


def max_unavailable(service: Cursor) -> str:
    """Return `max_unavailable` as it is written; "" when it is not given. The core knows what it may be."""
    at = own(service, "max_unavailable")
    return (at.text() or "") if at is not None else ""


def disconnect(service: Cursor) -> Disconnect:
    """Return `disconnect`."""
    at = own(service, "disconnect")
    given = at.choice({policy.name.lower(): policy for policy in Disconnect}) if at is not None else None
    return Disconnect.REPLACE if given is None else given


def drain_timeout(service: Cursor) -> float | None:
    """Return `drain_timeout` in seconds; None when it is not given."""
    at = own(service, "drain_timeout")
    return at.duration() if at is not None else None


def client_affinity(service: Cursor) -> bool:
    """Return `client_affinity`."""
    at = own(service, "client_affinity")
    return (at.boolean() or False) if at is not None else False


def weight(service: Cursor) -> int:
    """Return `weight`; 0 when it is not given."""
    at = own(service, "weight")
    return (at.integer(least=1, most=MOST_WEIGHT) or 0) if at is not None else 0


def notice_unbalanced(service: Cursor, endpoint: EndpointSpec) -> None:
    """Report keys of balancing where nothing is balanced: `weight` and `client_affinity`."""
    if endpoint.mode is EndpointMode.DNSRR and not endpoint.ports:
        for at in (own(service, "client_affinity"), own(service, "weight")):
            if at is not None:
                at.notice(
                    "by 'endpoint_mode: dnsrr' clients choose among the tasks' addresses: it has no effect",
                    "remove it, or publish a port",
                )
