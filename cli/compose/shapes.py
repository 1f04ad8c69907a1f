"""Short forms to long ones, so that files merge key by key however each of them was written.

Rules of merging: https://github.com/compose-spec/compose-spec/blob/main/13-merge.md. A path's `*` is any one key.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from argosy.cli.compose.document import Entry, Map, Node, Scalar, Seq
from argosy.cli.compose.problems import Position

Pattern = tuple[str, ...]


def patterns(*paths: str) -> frozenset[Pattern]:
    """Return patterns that are written with dots: "services.*.networks"."""
    return frozenset(tuple(path.split(".")) for path in paths)


ASSIGNMENTS: Final = patterns(
    "services.*.environment",
    "services.*.labels",
    "services.*.annotations",
    "services.*.sysctls",
    "services.*.deploy.labels",
    "services.*.build.args",
    "services.*.build.labels",
    "networks.*.labels",
    "volumes.*.labels",
    "configs.*.labels",
    "secrets.*.labels",
)
"""Lists of NAME=value that may be mappings as well."""
_NAMES: Final = patterns("services.*.networks", "services.*.depends_on", "services.*.models")
"""Lists of names that may be mappings as well."""
_LISTS: Final = patterns(
    "services.*.env_file",
    "services.*.label_file",
    "services.*.dns",
    "services.*.dns_search",
    "services.*.tmpfs",
    "services.*.profiles",
)
"""Single values that may be lists as well."""
_SINGLE: Final[Mapping[Pattern, str]] = {
    ("services", "*", "build"): "context",
    ("services", "*", "extends"): "service",
}
"""A text that stands for a mapping with this one key."""
_HOSTS: Final = ("services", "*", "extra_hosts")
_FILES: Final = patterns("services.*.env_file", "services.*.label_file")
_DEFINITIONS: Final = patterns("configs.*", "secrets.*")
"""Mappings whose `file` is one."""
_MOUNTS: Final = ("services", "*", "volumes")


def normalise(root: Map, directory: Path) -> Map:
    """Return the document in long forms, its paths of files made absolute from `directory`."""
    done = _walk(root, (), directory)
    assert isinstance(done, Map)
    return done


def matches(path: Pattern, pattern: Pattern) -> bool:
    """Whether a path fits a pattern."""
    return len(path) == len(pattern) and all(p in ("*", part) for part, p in zip(path, pattern, strict=True))


def any_of(path: Pattern, known: frozenset[Pattern]) -> bool:
    """Whether a path fits one of some patterns."""
    return any(matches(path, pattern) for pattern in known)


def _walk(node: Node, path: Pattern, directory: Path) -> Node:
    node = _reshape(node, path)
    if any_of(path, _FILES) and isinstance(node, Seq):
        node = Seq(node.position, tuple(_absolute(item, directory) for item in node.items), node.tag)
    if matches(path, _MOUNTS) and isinstance(node, Seq):
        node = Seq(node.position, tuple(_absolute_bind(item, directory) for item in node.items), node.tag)
    if any_of(path, _DEFINITIONS) and isinstance(node, Map):
        node = _absolute_at("file", node, directory)
    if isinstance(node, Map) and len(path) < _DEEPEST:
        entries = {
            key: Entry(entry.position, _walk(entry.value, (*path, key), directory))
            for key, entry in node.entries.items()
        }
        return Map(node.position, entries, node.tag)
    return node


_DEEPEST: Final = max(len(pattern) for pattern in ASSIGNMENTS)


def _reshape(node: Node, path: Pattern) -> Node:
    if isinstance(node, Seq):
        if any_of(path, ASSIGNMENTS):
            return _to_map(node, _assignment)
        if any_of(path, _NAMES):
            return _to_map(node, lambda text, position: (text, Scalar(position, None)))
        if matches(path, _HOSTS):
            return _hosts(node)
    elif isinstance(node, Scalar) and node.text is not None:
        if any_of(path, _LISTS):
            return Seq(node.position, (Scalar(node.position, node.text, node.plain),), node.tag)
        for pattern, key in _SINGLE.items():
            if matches(path, pattern):
                inner = Scalar(node.position, node.text, node.plain)
                return Map(node.position, {key: Entry(node.position, inner)}, node.tag)
    elif isinstance(node, Map) and matches(path, _HOSTS):
        entries = {key: Entry(entry.position, _as_list(entry.value)) for key, entry in node.entries.items()}
        return Map(node.position, entries, node.tag)
    return node


def _to_map(node: Seq, split: Callable[[str, Position], tuple[str, Node]]) -> Node:
    """Return a list of texts as a mapping; as it is when an item is no text (its reader says what is wrong)."""
    entries: dict[str, Entry] = {}
    for item in node.items:
        if not isinstance(item, Scalar) or item.text is None:
            return node
        key, value = split(item.text, item.position)
        entries[key] = Entry(item.position, value)
    return Map(node.position, entries, node.tag)


def _assignment(text: str, position: Position) -> tuple[str, Node]:
    name, equals, value = text.partition("=")
    return name, Scalar(position, value if equals else None, plain=False)


def _hosts(node: Seq) -> Node:
    """Return "name=address" or "name:address" items as a mapping of names to lists of addresses."""
    found: dict[str, list[Node]] = {}
    positions: dict[str, Position] = {}
    for item in node.items:
        if not isinstance(item, Scalar) or item.text is None:
            return node
        separator = "=" if "=" in item.text else ":"
        name, _, address = item.text.partition(separator)
        found.setdefault(name.strip(), []).append(Scalar(item.position, address.strip(), plain=False))
        positions.setdefault(name.strip(), item.position)
    entries = {name: Entry(positions[name], Seq(positions[name], tuple(items))) for name, items in found.items()}
    return Map(node.position, entries, node.tag)


def _as_list(node: Node) -> Node:
    return node if isinstance(node, Seq) else Seq(node.position, (node,))


def _absolute(item: Node, directory: Path) -> Node:
    """Return a file's path made absolute; of an env_file in its long form, the one below `path`."""
    if isinstance(item, Scalar) and item.text is not None:
        return Scalar(item.position, str(directory / Path(item.text).expanduser()), plain=False)
    return _absolute_at("path", item, directory) if isinstance(item, Map) else item


def _absolute_at(key: str, item: Map, directory: Path) -> Map:
    """Return a mapping with the path below `key` made absolute, if there is one."""
    if key not in item.entries:
        return item
    entry = item.entries[key]
    entries = {**item.entries, key: Entry(entry.position, _absolute(entry.value, directory))}
    return Map(item.position, entries, item.tag)


def _absolute_bind(item: Node, directory: Path) -> Node:
    """Return a mount with the host's path made absolute: "./a:/b", or the source of a bind in its long form."""
    if isinstance(item, Map):
        kind = item.get("type")
        return _absolute_at("source", item, directory) if isinstance(kind, Scalar) and kind.text == "bind" else item
    if isinstance(item, Scalar) and item.text is not None and item.text.startswith((".", "~")):
        source, colon, rest = item.text.partition(":")
        if colon:
            path = (directory / Path(source).expanduser()).absolute()  # the directory of `-c compose.yaml` is "."
            return Scalar(item.position, f"{path}{colon}{rest}", item.plain)
    return item
