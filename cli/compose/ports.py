"""A service's published ports: the short form (a text, with ranges) and the long one (a mapping)."""

from collections.abc import Callable
from typing import TypeVar

from argosy.cli import ports
from argosy.cli.compose.cursor import Cursor
from argosy.cli.compose.document import Map
from argosy.cli.ports import Publication
from argosy.core.errors import InvalidError

T = TypeVar("T")


def published_ports(service: Cursor) -> list[Publication]:
    """Return the ports that a service publishes; what is wrong is reported where it stands."""
    at = service.get("ports")
    found: list[Publication] = []
    for item in at.items() if at is not None else ():
        found += ports_of(item)
    return found


def ports_of(item: Cursor) -> list[Publication]:
    """Return the ports of one item of the list."""
    if isinstance(item.node, Map):
        port = _long(item)
        return [port] if port is not None else []
    return _read(item, ports.parse_short) or []


def _long(at: Cursor) -> Publication | None:
    target, published, host_ip = at.get("target"), at.get("published"), at.get("host_ip")
    protocol, mode, name = at.get("protocol"), at.get("mode"), at.get("name")
    if target is None:
        at.problem("the port of the container is missing", "add 'target: 80'")
        return None
    number = _read(target, ports.parse_number)
    if number is None:
        return None
    wanted = published is not None and published.text() not in ("", "0")
    return Publication(
        target=number,
        published=(_read(published, ports.parse_number) or 0) if published is not None and wanted else 0,
        protocol=(protocol.choice({"tcp": "tcp", "udp": "udp"}) if protocol is not None else None) or "tcp",
        host_ip=(_read(host_ip, ports.read_host_ip) if host_ip is not None else None) or "",
        host_mode=bool(mode is not None and mode.choice({"ingress": False, "host": True})),
        name=(name.text() if name is not None else None) or "",
    )


def _read(at: Cursor, parse: Callable[[str], T]) -> T | None:
    text = at.text()
    if text is None:
        return None
    try:
        return parse(text)
    except InvalidError as error:
        what, colon, instead = str(error).rpartition(": ")
        at.problem(what if colon else str(error), instead if colon else "")
        return None
