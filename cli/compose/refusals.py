"""Where in its files a stack is refused by the controller, which knows specs alone and names the service or network.

A refusal is a line, or a line and then one for each field ("subnet: 10.0.0.0/24 overlaps …"). What it says is kept.
"""

import re
from collections.abc import Iterator
from typing import Final

from argosy.cli.compose.cursor import Cursor
from argosy.cli.compose.ports import ports_of
from argosy.cli.compose.stack import Stack
from argosy.cli.compose.where import place_in_network, place_of
from argosy.core.ports import said
from argosy.core.service import ServiceSpec

_ABOUT: Final = re.compile(r"(service|network) ([^\s:]+)")
_FIELD: Final = re.compile(r"([a-z_]+(?:\[[^\]]*\]|\.[a-z_]+)*): (.+)", re.DOTALL)


def placed(stack: Stack, text: str) -> str:
    """Return a refusal with file, line and key put before what it says, as far as these are known."""
    head, *lines = text.split("\n")
    about = _ABOUT.match(head)
    at = stack.origins.get((about[1], about[2])) if about else None
    if about is None or at is None:
        return text
    if lines:
        return "\n".join([head, *(_placed_field(about[1], at, line) for line in lines)])
    spec = next((s for s in stack.services if about[1] == "service" and s.name == about[2]), None)
    places = _named(spec, at, head) if spec is not None else _named_network(at, head)
    place = next(places, None)
    return text if place is None else f"{place.position}: {place.path}: {head}"


def _placed_field(kind: str, at: Cursor, line: str) -> str:
    found = _FIELD.fullmatch(line)
    if found is None:
        return line
    place = place_of(at, found[1]) if kind == "service" else place_in_network(at, found[1])
    what = line if place.path == at.path else found[2]
    return f"{place.position}: {place.path}: {what}"


def _named(spec: ServiceSpec, at: Cursor, head: str) -> Iterator[Cursor]:
    """Yield the places of a service whose values a refusal names."""
    for i, network in enumerate(spec.task.networks):
        if network.address and f"cannot have {network.address} on network {network.target}:" in head:
            yield place_of(at, f"task.networks[{i}].address")
    ports = at.get("ports")
    for item in ports.items() if ports is not None else ():
        if any(f": port {said(p.protocol, p.published, p.host_ip)} is " in head for p in ports_of(item)):
            yield item
    if head.startswith(f"service {spec.name} joins "):
        yield place_of(at, "task.networks")


def _named_network(at: Cursor, head: str) -> Iterator[Cursor]:
    if "cannot be encrypted" in head or "is not encrypted" in head:
        yield place_in_network(at, "encrypted")
