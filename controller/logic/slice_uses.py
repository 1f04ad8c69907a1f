"""What the slices of a network are in use for, in words: for the reasons why no further one can be had. Pure."""

from collections.abc import Mapping
from typing import Final

from argosy.core.network import SliceUse

_WORDS: Final[Mapping[SliceUse | None, tuple[str, str]]] = {
    SliceUse.TASKS: ("leased to a node", "leased to nodes"),
    SliceUse.STATIC: ("kept for static addresses", "kept for static addresses"),
    SliceUse.SERVICES: ("taken for virtual addresses", "taken for virtual addresses"),
    None: ("held by old tasks", "held by old tasks"),
}


def in_use(counts: Mapping[SliceUse | None, int]) -> str:
    """Return what is to be said of slices, with the verb: "is leased to a node", or how many are what.

    None: nobody has those, but tasks still hold addresses of them. At least one slice is counted.
    """
    parts = [(counts[use], *words) for use, words in _WORDS.items() if counts.get(use)]
    if len(parts) == 1:
        count, one, many = parts[0]
        return f"is {one}" if count == 1 else f"are {many}"
    return "are in use: " + ", ".join(f"{count:,} {one if count == 1 else many}" for count, one, many in parts)
