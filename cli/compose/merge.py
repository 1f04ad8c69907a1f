"""Merging a later document over an earlier one, both in long forms (shapes.py).

Mappings merge key by key; lists are appended, without repeating an item; commands are replaced; what is mounted or
published at the same place is replaced; `!reset` removes, `!override` replaces.
Rules: https://github.com/compose-spec/compose-spec/blob/main/13-merge.md. Pure.
"""

from collections.abc import Callable
from typing import Final

from argosy.cli.compose.document import OVERRIDE, RESET, Entry, Map, Node, Scalar, Seq
from argosy.cli.compose.shapes import Pattern, matches

_REPLACED: Final[tuple[Pattern, ...]] = (
    ("services", "*", "command"),
    ("services", "*", "entrypoint"),
    ("services", "*", "healthcheck", "test"),
    ("services", "*", "extra_hosts", "*"),
)


def merge(base: Map, over: Map) -> Map:
    """Return `base` with `over` laid over it."""
    merged = _merge(base, over, ())
    assert isinstance(merged, Map)
    return merged


def merge_service(base: Map, over: Map) -> Map:
    """Return a service's mapping with another's laid over it (for `extends`)."""
    merged = _merge(base, over, ("services", "*"))
    assert isinstance(merged, Map)
    return merged


def settle(node: Node) -> Node:
    """Return a tree without what is tagged `!reset`, and without tags: to be used once all is merged."""
    match node:
        case Map():
            entries = {
                key: Entry(entry.position, settle(entry.value))
                for key, entry in node.entries.items()
                if entry.value.tag != RESET
            }
            return Map(node.position, entries)
        case Seq():
            return Seq(node.position, tuple(settle(item) for item in node.items if item.tag != RESET))
        case Scalar():
            return Scalar(node.position, node.text, node.plain)


def _merge(base: Node, over: Node, path: Pattern) -> Node:
    if over.tag in (OVERRIDE, RESET) or base.tag == RESET:
        return over
    if isinstance(base, Map) and isinstance(over, Map):
        return _merge_maps(base, over, path)
    if isinstance(base, Seq) and isinstance(over, Seq):
        return _merge_lists(base, over, path)
    if isinstance(over, Scalar) and over.text is None and isinstance(base, Map | Seq):
        return base  # `deploy:` with nothing below says nothing
    return over


def _merge_maps(base: Map, over: Map, path: Pattern) -> Map:
    entries = dict(base.entries)
    for key, entry in over.entries.items():
        below = entries.get(key)
        if below is None:
            entries[key] = entry
        else:
            entries[key] = Entry(entry.position, _merge(below.value, entry.value, (*path, key)))
    return Map(over.position, entries, base.tag)


def _merge_lists(base: Seq, over: Seq, path: Pattern) -> Seq:
    if any(matches(path, pattern) for pattern in _REPLACED):
        return over
    identity = next((_IDENTITIES[p] for p in _IDENTITIES if matches(path, p)), _by_text)
    items = list(base.items)
    places = {key: i for i, item in enumerate(items) if (key := identity(item)) is not None}
    for item in over.items:
        key = identity(item)
        if key is not None and key in places:
            at = places[key]
            items[at] = _merge(items[at], item, (*path, "*"))
        else:
            if key is not None:
                places[key] = len(items)
            items.append(item)
    return Seq(over.position, tuple(items), base.tag)


def _text(node: Node | None) -> str:
    return (node.text or "") if isinstance(node, Scalar) else ""


def _by_text(item: Node) -> str | None:
    return item.text if isinstance(item, Scalar) else None


def _by_target(item: Node) -> str | None:
    """Identify a mount by where it is mounted: "source:target:mode" or `target`."""
    if isinstance(item, Map):
        return _text(item.get("target")) or None
    parts = _text(item).split(":")
    return parts[1] if len(parts) > 1 else parts[0]


def _by_place(item: Node) -> str | None:
    """Identify a config or secret by its target, which is its source when not given."""
    if isinstance(item, Map):
        return _text(item.get("target")) or _text(item.get("source")) or None
    return _text(item) or None


def _by_port(item: Node) -> str | None:
    if isinstance(item, Map):
        parts = [_text(item.get(key)) for key in ("host_ip", "target", "published", "protocol")]
        return "/".join(part or ("tcp" if i == 3 else "") for i, part in enumerate(parts))
    text, _, protocol = _text(item).partition("/")
    *ip, target = text.rsplit(":", 2)[-3:]
    published = ip.pop() if ip else ""
    return "/".join((ip[0] if ip else "", target, published, protocol or "tcp"))


def _by_path(item: Node) -> str | None:
    return _text(item.get("path")) if isinstance(item, Map) else _text(item)


def _by_subnet(item: Node) -> str | None:
    return (_text(item.get("subnet")) or None) if isinstance(item, Map) else None


_IDENTITIES: Final[dict[Pattern, Callable[[Node], str | None]]] = {
    ("services", "*", "volumes"): _by_target,
    ("services", "*", "devices"): _by_target,
    ("services", "*", "configs"): _by_place,
    ("services", "*", "secrets"): _by_place,
    ("services", "*", "ports"): _by_port,
    ("services", "*", "env_file"): _by_path,
    ("networks", "*", "ipam", "config"): _by_subnet,
}
