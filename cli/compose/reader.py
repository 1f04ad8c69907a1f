"""YAML text to a document tree: anchors, aliases and merge keys resolved, duplicate keys and endless files refused."""

from typing import Final

import yaml

from argosy.cli.compose.document import OVERRIDE, RESET, Entry, Map, Node, Scalar, Seq
from argosy.cli.compose.problems import Findings, Position

MOST_VALUES: Final = 100_000
"""With aliases expanded; a file of a few lines can otherwise stand for billions (the "billion laughs")."""
_YAML: Final = "tag:yaml.org,2002:"
_MERGE: Final = _YAML + "merge"
_PLAIN_TAGS: Final = frozenset({"str", "null", "bool", "int", "float", "timestamp", "value", "seq", "map", "merge"})


def read_document(text: str, file: str, findings: Findings) -> Map | None:
    """Return the mapping that `text` holds; None, with a problem added, when it is no usable YAML."""
    loader = yaml.CSafeLoader(text)
    try:
        return _document(loader.get_single_node(), file, findings)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        position = Position(file, mark.line + 1, mark.column + 1) if mark else Position(file)
        words = " ".join(part for part in (error.context, error.problem) if part)
        lines = text.split("\n")
        character = lines[mark.line][mark.column : mark.column + 1] if mark and mark.line < len(lines) else ""
        findings.problem(position, "", f"this is no valid YAML: {words}", _yaml_advice(words, character))
        return None
    except yaml.YAMLError as error:
        findings.problem(Position(file), "", f"this is no valid YAML: {' '.join(str(error).split())}")
        return None
    except RecursionError:
        findings.problem(
            Position(file), "", "its values are nested too deeply", "no Compose file needs a hundred levels"
        )
        return None
    finally:
        loader.dispose()


def _document(root: yaml.Node | None, file: str, findings: Findings) -> Map | None:
    if root is None:
        findings.problem(Position(file), "", "the file is empty", "it needs at least 'services:'")
        return None
    node = _Builder(file, findings).build(root)
    if node is None:
        return None
    if not isinstance(node, Map):
        findings.problem(node.position, "", "a Compose file is a mapping", "start with 'services:'")
        return None
    return node


def _yaml_advice(words: str, character: str) -> str:
    if "tab" in words or ("cannot start any token" in words and character == "\t"):
        return "a tab is there: indent with spaces"
    if "single document" in words:
        return "one file holds one document: split it at '---'"
    return ""


class _Builder:
    """Turns PyYAML's nodes into ours; each once, however many aliases there are to it."""

    def __init__(self, file: str, findings: Findings) -> None:
        self._file = file
        self._findings = findings
        self._built: dict[int, Node] = {}
        self._sizes: dict[int, int] = {}
        self._open: set[int] = set()

    def build(self, source: yaml.Node) -> Node | None:
        """Return the tree under `source`; None when it is unusable as a whole."""
        node = self._node(source)
        if self._size(node) > MOST_VALUES:
            self._findings.problem(
                Position(self._file), "", f"with its aliases expanded the file has over {MOST_VALUES:,} values"
            )
            return None
        return node

    def _position(self, source: yaml.Node) -> Position:
        return Position(self._file, source.start_mark.line + 1, source.start_mark.column + 1)

    def _node(self, source: yaml.Node) -> Node:
        known = self._built.get(id(source))
        if known is not None:
            return known
        position = self._position(source)
        if id(source) in self._open:
            self._findings.problem(position, "", "an alias stands within what it is an alias for")
            return Scalar(position, None)
        self._open.add(id(source))
        built = self._built[id(source)] = self._convert(source, position)
        self._open.discard(id(source))
        return built

    def _convert(self, source: yaml.Node, position: Position) -> Node:
        tag = self._tag(source, position)
        if isinstance(source, yaml.ScalarNode):
            plain = not source.style  # the C parser says "", the other one None
            null = source.tag == _YAML + "null" or (tag != "" and plain and source.value in ("", "~", "null"))
            return Scalar(position, None if null else source.value, plain, tag)
        if isinstance(source, yaml.SequenceNode):
            return Seq(position, tuple(self._node(item) for item in source.value), tag)
        assert isinstance(source, yaml.MappingNode)
        return Map(position, self._entries(source), tag)

    def _tag(self, source: yaml.Node, position: Position) -> str:
        tag: str = source.tag
        if tag in (RESET, OVERRIDE):
            return tag
        if tag.removeprefix(_YAML) not in _PLAIN_TAGS:
            self._findings.problem(
                position, "", f"the tag {tag} is not known here", f"only {RESET} and {OVERRIDE} may be used"
            )
        return ""

    def _entries(self, source: yaml.MappingNode) -> dict[str, Entry]:
        own: dict[str, Entry] = {}
        merged: dict[str, Entry] = {}
        for key, value in source.value:
            position = self._position(key)
            if not isinstance(key, yaml.ScalarNode):
                self._findings.problem(position, "", "a key must be a single word or text")
            elif key.tag == _MERGE:
                for name, entry in self._merged(value).items():
                    merged.setdefault(name, entry)
            elif key.value in own:
                first = own[key.value].position.line
                self._findings.problem(
                    position, "", f"the key '{key.value}' is there twice (first in line {first})", "remove one"
                )
            else:
                own[key.value] = Entry(position, self._node(value))
        return {**{name: entry for name, entry in merged.items() if name not in own}, **own}

    def _merged(self, value: yaml.Node) -> dict[str, Entry]:
        """Return the keys that a `<<` brings; of several mappings the earlier one wins."""
        node = self._node(value)
        parts = node.items if isinstance(node, Seq) else (node,)
        found: dict[str, Entry] = {}
        for part in parts:
            if not isinstance(part, Map):
                self._findings.problem(self._position(value), "", "'<<' needs a mapping, or a list of mappings")
                continue
            for name, entry in part.entries.items():
                found.setdefault(name, entry)
        return found

    def _size(self, node: Node) -> int:
        """Return the number of values in the expanded tree, capped where it is too large anyway."""
        known = self._sizes.get(id(node))
        if known is not None:
            return known
        size = 1
        children: tuple[Node, ...] = ()
        if isinstance(node, Map):
            children = tuple(entry.value for entry in node.entries.values())
        elif isinstance(node, Seq):
            children = node.items
        for child in children:
            size += self._size(child)
        self._sizes[id(node)] = min(size, MOST_VALUES + 1)
        return self._sizes[id(node)]
