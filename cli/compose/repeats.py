"""Lists that may not have an item twice: those of the keys we take that the specification's schema gives `uniqueItems`.

As with Docker Compose, most of them keep one of the two, which is noted; in a few it refuses a repeat, and so do we.
Each file is asked by itself, before it takes long forms, which have no place for a second one; a list that is merged
from several files keeps an item once by the specification's rules (merge.py).
Schema: https://github.com/compose-spec/compose-spec/blob/main/schema/compose-spec.json.
"""

from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

from argosy.cli.compose.document import Entry, Map, Node, Scalar, Seq
from argosy.cli.compose.problems import Findings
from argosy.cli.compose.shapes import ASSIGNMENTS, Pattern, any_of, patterns

_REFUSED: Final = patterns(
    "services.*.depends_on",
    "services.*.extra_hosts",
    "services.*.networks",
    "services.*.security_opt",
)
_UNIQUE: Final = (
    _REFUSED
    | ASSIGNMENTS
    | patterns(
        "include.env_file",
        "include.path",
        "services.*.cap_add",
        "services.*.cap_drop",
        "services.*.dns",
        "services.*.dns_opt",
        "services.*.dns_search",
        "services.*.networks.*.aliases",
        "services.*.ports",
        "services.*.profiles",
        "services.*.tmpfs",
        "services.*.volumes",
    )
)

_Value: TypeAlias = str | tuple["_Value", ...] | frozenset[tuple[str, "_Value"]] | None


def without_repeats(root: Map, findings: Findings) -> Map:
    """Return the tree without items that their lists have already, each reported where it stands."""
    done = _walk(root, (), findings)
    assert isinstance(done, Map)
    return done


def _walk(node: Node, path: Pattern, findings: Findings) -> Node:
    if isinstance(node, Map):
        entries = {k: Entry(e.position, _walk(e.value, (*path, k), findings)) for k, e in node.entries.items()}
        return Map(node.position, entries, node.tag)
    if isinstance(node, Seq):
        items = _first(node.items, path, findings) if any_of(path, _UNIQUE) else node.items
        return Seq(node.position, tuple(_walk(item, path, findings) for item in items), node.tag)
    return node


def _first(items: Iterable[Node], path: Pattern, findings: Findings) -> Iterator[Node]:
    seen: set[_Value] = set()
    tell = findings.problem if any_of(path, _REFUSED) else findings.notice
    for item in items:
        value = _value(item)
        if value is not None and value in seen:
            tell(item.position, ".".join(path), f"{_said(item, path)} is there twice", "remove one")
        else:
            yield item
        seen.add(value)


def _value(node: Node) -> _Value:
    """Return what a node says, wherever it stands."""
    match node:
        case Map(entries=entries):
            return frozenset((key, _value(entry.value)) for key, entry in entries.items())
        case Seq(items=items):
            return tuple(_value(item) for item in items)
        case Scalar(text=text):
            return text
    raise AssertionError(node)


def _said(item: Node, path: Pattern) -> str:
    """Name an item; of NAME=value the name alone, as the value may be nobody's business."""
    if not isinstance(item, Scalar):
        return "this"
    text = item.text or ""
    return f"'{text.partition('=')[0] if any_of(path, ASSIGNMENTS) else text}'"
