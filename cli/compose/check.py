"""Walks a merged file set along the table of keys: unknown keys, refused ones and those worth a notice."""

from difflib import get_close_matches

from argosy.cli.compose.cursor import Cursor
from argosy.cli.compose.document import Map, Scalar, Seq
from argosy.cli.compose.verdicts import EXTENSION, Branch, Verdict, key_tree


def check_keys(root: Cursor, *, enabled: frozenset[str]) -> None:
    """Report what the table says of each key. In services that no profile enables only unknown keys are reported."""
    _walk(root, key_tree(), "", enabled, speak=True)


def _walk(at: Cursor, branch: Branch, pattern: str, enabled: frozenset[str], *, speak: bool) -> None:
    if isinstance(at.node, Seq):
        for item in at.items():
            _walk(item, branch, pattern, enabled, speak=speak)
        return
    if not branch.children or not isinstance(at.node, Map):
        return
    for key in at.node.entries:
        value = at.find(key)
        if value is None:
            continue
        if key.startswith("x-") and key not in branch.children:
            if key == EXTENSION:
                value.problem(f"'{EXTENSION}' has no meaning here", "put it right below a service")
            continue
        child = branch.child(key)
        if child is None:
            _unknown(at, key, value, branch, pattern)
            continue
        audible = speak and (pattern != "services" or key in enabled)
        said = _say(value, child) if audible else False
        name = key if key in branch.children else "*"
        _walk(value, child, f"{pattern}.{name}" if pattern else name, enabled, speak=audible and not said)


def _say(value: Cursor, branch: Branch) -> bool:
    """Report a refused or noticed key; whether that also speaks for all that is below it."""
    row = branch.row
    if row is None or row.values or row.verdict not in (Verdict.REFUSED, Verdict.NOTICED):
        return False
    if _asks_for_nothing(value):
        return True
    if row.verdict is Verdict.REFUSED:
        value.findings.problem(value.key_position, value.path, "this is not supported", row.text)
    elif not row.text.startswith("as "):
        value.findings.notice(value.key_position, value.path, row.text)
    return bool(row.below)


def _asks_for_nothing(value: Cursor) -> bool:
    """Whether a key is there without asking for anything: `ports: []`, `tty: false`, `volumes:`."""
    match value.node:
        case Map(entries=entries):
            return not entries
        case Seq(items=items):
            return not items
        case Scalar(text=text):
            return text is None or text.lower() in ("false", "no", "off")
    raise AssertionError(value.node)


def _unknown(at: Cursor, key: str, value: Cursor, branch: Branch, pattern: str) -> None:
    known = sorted(name for name in branch.children if name != "*")
    near = get_close_matches(key.lower(), known, n=1, cutoff=0.6)
    where = at.path or "the top level of a Compose file"
    instead = _elsewhere(key, pattern) or (f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(known)}")
    at.findings.problem(value.key_position, value.path, f"there is no key '{key}' in {where}", instead)


def _elsewhere(key: str, pattern: str) -> str:
    """Say where a key that is known, but not here, belongs: one level up or down is a usual slip of indentation."""
    tree = key_tree()
    service = tree.children["services"].children["*"]
    ours = service.children[EXTENSION].children
    if pattern.startswith("services.*.") and key in service.children:
        return f"'{key}' stands right below the service: is it indented too far?"
    if pattern and key in tree.children:
        return f"'{key}' stands at the top level of the file: is it indented too far?"
    if not pattern and key in service.children:
        return f"'{key}' belongs to a service: put it below 'services:' and the service's name"
    if pattern == "services.*" and key in service.children["deploy"].children:
        return f"'{key}' stands below 'deploy'"
    if pattern.startswith("services.*") and key in ours:
        return f"'{key}' is a key of ours: it stands below '{EXTENSION}' of the service"
    return ""
