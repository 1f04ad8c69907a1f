"""`x-argosy: {affinity: …, anti_affinity: …}`: which services' tasks a service runs near to, or away from.

An item is the name of a service, or {service, within, preferred}. A service of the file has its short name; one of
another stack the name that it has in the cluster, STACK_NAME.
"""

from collections.abc import Collection

from argosy.cli.compose.cursor import Cursor
from argosy.cli.compose.document import Map
from argosy.cli.compose.extension import own
from argosy.core.constraints import parse_attribute
from argosy.core.errors import InvalidError
from argosy.core.names import stack_name
from argosy.core.service import Affinity


def affinities(service: Cursor, stack: str, services: Collection[str]) -> tuple[Affinity, ...]:
    """Return what a service wants; `services` are the names in the file."""
    found = []
    for key, anti in (("affinity", False), ("anti_affinity", True)):
        at = own(service, key)
        for item in at.items() if at is not None else ():
            one = _affinity(item, stack, services, anti=anti)
            found += [one] if one is not None else []
    return tuple(found)


def _affinity(at: Cursor, stack: str, services: Collection[str], *, anti: bool) -> Affinity | None:
    if not isinstance(at.node, Map):
        name = _service(at, stack, services)
        return Affinity(name, anti) if name else None
    named, within, preferred = at.get("service"), at.get("within"), at.get("preferred")
    if named is None:
        at.problem("the service is missing", "write a name, or {service: NAME, within: node.labels.rack}")
        return None
    name = _service(named, stack, services)
    return Affinity(
        name,
        anti,
        preferred is not None and preferred.boolean() is True,
        _attribute(within) if within is not None else "",
    )


def _service(at: Cursor, stack: str, services: Collection[str]) -> str:
    name = at.text() or ""
    if name in services:
        return stack_name(stack, name)
    if name and "_" not in name:
        at.problem(f"there is no service '{name}' in the file", "name one of another stack in full: STACK_NAME")
    return name


def _attribute(at: Cursor) -> str:
    text = at.text() or ""
    try:
        return str(parse_attribute(text)) if text else ""
    except InvalidError as error:
        at.problem(str(error))
        return ""
