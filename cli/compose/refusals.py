"""Where in its files a stack is refused by the controller, which knows specs alone and says which field of them it is.

What it says is kept: a line, or a line and then one for each field ("subnet: 10.0.0.0/24 overlaps …").
"""

from collections.abc import Sequence

from argosy.cli.compose.stack import Stack
from argosy.cli.compose.where import place_in_network, place_of
from argosy.core.errors import Place


def placed(stack: Stack, text: str, places: Sequence[Place]) -> str:
    """Return a refusal with file, line and key put before what it says, as far as these are known.

    `places`: what the text is about, or each of its lines but the first.
    """
    head, *lines = text.split("\n")
    if not lines and len(places) == 1:
        return _placed(stack, text, places[0])
    if len(lines) != len(places):
        return text
    return "\n".join([head, *(_placed(stack, line, place) for line, place in zip(lines, places, strict=True))])


def _placed(stack: Stack, line: str, place: Place) -> str:
    at = stack.origins.get((place.kind, place.name))
    if at is None:
        return line
    found = place_in_network(at, place.field) if place.kind == "network" else place_of(at, place.field)
    own = f"{place.kind} {place.name}: "
    what = line.removeprefix(own) if line.startswith(f"{own}{place.field}: ") else line
    if found.path != at.path:
        what = what.removeprefix(f"{place.field}: ")
    return f"{found.position}: {found.path}: {what}"
