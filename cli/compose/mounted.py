"""Configs and secrets: the top-level definitions, and as which files a service gets them.

What a definition holds is read here, once, where the command runs: a file, a variable or the text in the file. Also
binds of files, which exist only where the command runs: refused, or with --ship-files made configs.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from argosy.cli.compose.cursor import Cursor
from argosy.cli.compose.document import Map
from argosy.cli.compose.problems import Position
from argosy.core.files import NewFile, file_name_problem, kind_name, size_problem
from argosy.core.meta import STACK_LABEL
from argosy.core.names import stack_name
from argosy.core.service import FileRef

_SOURCES: Final = {False: ("file", "environment", "content"), True: ("file", "environment")}
_NO_NAME: Final = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class ExternalFile:
    """A config or secret that a service uses and that must exist already; `position` is where the file says so."""

    secret: bool
    name: str
    position: Position


@dataclass(slots=True)
class MountedFiles:
    """The configs and secrets of one file set. Filled while services are read: what none uses is not made."""

    root: Cursor
    stack: str
    env: Mapping[str, str]
    ship: bool
    configs: dict[str, NewFile] = field(default_factory=dict)
    secrets: dict[str, NewFile] = field(default_factory=dict)
    external: dict[tuple[bool, str], ExternalFile] = field(default_factory=dict)
    _names: dict[tuple[bool, str], str] = field(default_factory=dict)

    def of(self, name: str, service: Cursor) -> tuple[FileRef, ...]:
        """Return the files of a service, `name` in the file; what they hold is read."""
        found: list[FileRef] = []
        for secret in (False, True):
            at = service.get(f"{kind_name(secret=secret)}s")
            for item in at.items() if at is not None else ():
                one = self._reference(item, secret=secret)
                if one is not None:
                    found.append(one)
        volumes = service.get("volumes")
        for item in volumes.items() if volumes is not None else ():
            bind = bind_of(item)
            if bind is not None:
                found += self._shipped(name, item, bind)
        return tuple(found)

    def unused(self) -> None:
        """Notice the definitions that no service uses."""
        for secret in (False, True):
            at = self.root.get(f"{kind_name(secret=secret)}s")
            for key, _ in at.entries() if at is not None and at.mapping() else ():
                if (secret, key) not in self._names:
                    below = at.find(key) if at is not None else None
                    if below is not None:
                        below.findings.notice(below.key_position, below.path, "no service uses it: it is not made")

    # ---------------------------------------------------------------- references

    def _reference(self, item: Cursor, *, secret: bool) -> FileRef | None:
        if item.is_text:
            key = item.text()
            return self._file(key, key, item, secret=secret) if key else None
        if not item.mapping():
            return None
        source, target = item.get("source"), item.get("target")
        key = source.text() if source is not None else None
        if source is None or not key:
            item.problem(f"the entry names no {kind_name(secret=secret)}", "write 'source: NAME'")
            return None
        path = (target.text() if target is not None else None) or key
        uid, gid, mode = (item.get(name) for name in ("uid", "gid", "mode"))
        return self._file(
            key,
            path,
            source,
            secret=secret,
            uid=(uid.integer(least=0) or 0) if uid is not None else 0,
            gid=(gid.integer(least=0) or 0) if gid is not None else 0,
            mode=_mode(mode) if mode is not None else 0,
        )

    def _file(
        self, key: str, target: str, at: Cursor, *, secret: bool, uid: int = 0, gid: int = 0, mode: int = 0
    ) -> FileRef | None:
        name = self._names.get((secret, key))
        if name is None:
            name = self._defined(key, at, secret=secret)
            if name is None:
                return None
            self._names[secret, key] = name
        return FileRef(secret=secret, name=name, target=target, uid=uid, gid=gid, mode=mode)

    # ---------------------------------------------------------------- definitions

    def _defined(self, key: str, used: Cursor, *, secret: bool) -> str | None:
        """Read a definition on its first use; return the name in the cluster, None with a problem added."""
        what = kind_name(secret=secret)
        definitions = self.root.get(f"{what}s")
        at = definitions.find(key) if definitions is not None and definitions.mapping() else None
        if at is None:
            known = list(definitions.node.entries) if definitions and isinstance(definitions.node, Map) else []
            near = get_close_matches(key, known, n=1)
            advice = f"did you mean '{near[0]}'?" if near else f"define it at the top level: '{what}s: {{{key}: …}}'"
            used.problem(f"there is no {what} '{key}' in the file", advice)
            return None
        if not at.mapping():
            return None
        external, given = _external(at)
        name = given or (key if external else stack_name(self.stack, key))
        problem = file_name_problem(name)
        if problem:
            at.findings.problem(at.key_position, at.path, f"the {what}'s name: {problem}")
            return None
        if external:
            self.external[secret, name] = ExternalFile(secret, name, at.key_position)
            return name
        data = self._content(at, secret=secret)
        if data is not None:
            labels = at.get("labels")
            own = labels.text_map() if labels is not None else {}
            new = NewFile(name, {**own, STACK_LABEL: self.stack}, data)
            (self.secrets if secret else self.configs)[name] = new
        return name

    def _content(self, at: Cursor, *, secret: bool) -> bytes | None:
        what, sources = kind_name(secret=secret), _SOURCES[secret]
        given = [found for key in sources if (found := at.get(key)) is not None]
        if len(given) != 1:
            says = "says where from more than once" if given else "does not say what it holds"
            instead = f"write one of {', '.join(sources)}, or 'external: true'"
            at.findings.problem(at.key_position, at.path, f"the {what} {says}", instead)
            return None
        source, text = given[0], given[0].text()
        if text is None:
            return None
        if source.key == "file":
            data = _read(Path(text), source)
        elif source.key == "environment":
            if text not in self.env:
                source.problem(f"the variable {text} is not set here", "set it, or use 'file'")
                return None
            data = self.env[text].encode()
        else:
            data = text.encode()
        return _fitting(data, source, secret=secret)

    # ---------------------------------------------------------------- binds

    def _shipped(self, service: str, item: Cursor, bind: "BindMount") -> list[FileRef]:
        if not self.ship:
            item.problem(
                f"'{bind.source}' is there only where this command runs, not on the hosts",
                "deploy with --ship-files to make a config of it (files only, read-only), or put it into the image",
            )
            return []
        path = Path(bind.source)
        if not bind.target.startswith("/"):
            item.problem(f"'{bind.target}' is not absolute", "write the path in the container from its root")
            return []
        if not path.is_file():
            what = "a directory" if path.is_dir() else "no file" if path.exists() else "not there"
            item.problem(
                f"'{bind.source}' is {what}, and only a file can be shipped", "put it into the image, or name its files"
            )
            return []
        data = _fitting(_read(path, item), item, secret=False)
        if data is None:
            return []
        name = stack_name(self.stack, f"{service}-{_NO_NAME.sub('-', bind.target.strip('/')).strip('-._') or 'file'}")
        problem = file_name_problem(name)
        if problem:
            item.problem(f"a config cannot be named after its target: {problem}")
            return []
        if not bind.read_only:
            item.notice("a copy of the file as it is now is shipped: it is read-only in the container")
        self.configs[name] = NewFile(name, {STACK_LABEL: self.stack}, data)
        return [FileRef(name=name, target=bind.target, mode=path.stat().st_mode & 0o555 or 0o444)]


@dataclass(frozen=True, slots=True)
class BindMount:
    """An entry of `volumes` that is a file or directory of the host; paths are absolute, or as they were written."""

    source: str
    target: str
    read_only: bool


def bind_of(item: Cursor) -> BindMount | None:
    """Return an entry of `volumes` that is a bind; None for any other."""
    if item.is_text:
        source, colon, rest = (item.text() or "").partition(":")
        target, _, options = rest.partition(":")
        if not colon or not source.startswith(("/", ".", "~")):
            return None
        return BindMount(source, target, "ro" in options.split(","))
    kind = item.get("type") if isinstance(item.node, Map) else None
    if kind is None or kind.text() != "bind":
        return None
    source_at, target_at, read_only = item.get("source"), item.get("target"), item.get("read_only")
    return BindMount(
        (source_at.text() or "") if source_at is not None else "",
        (target_at.text() or "") if target_at is not None else "",
        read_only is not None and bool(read_only.boolean()),
    )


def _external(at: Cursor) -> tuple[bool, str]:
    """Return whether a definition is external, and the name that is given for it ("" for none)."""
    name_at, external_at = at.get("name"), at.get("external")
    name = (name_at.text() or "") if name_at is not None else ""
    if external_at is None:
        return False, name
    if isinstance(external_at.node, Map):
        older = external_at.get("name")
        return True, name or ((older.text() or "") if older is not None else "")
    external = bool(external_at.boolean())
    for other, value in at.entries() if external else ():
        if other not in ("external", "name"):
            value.problem(f"'{other}' has no effect on what is external: it exists already", "remove it, or 'external'")
    return external, name


def _read(path: Path, at: Cursor) -> bytes | None:
    try:
        return path.expanduser().read_bytes()
    except OSError as error:
        shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        at.problem(f"cannot read {shown}: {error.strerror}")
        return None


def _fitting(data: bytes | None, at: Cursor, *, secret: bool) -> bytes | None:
    problem = size_problem(len(data), secret=secret) if data is not None else None
    if problem:
        at.problem(problem)
        return None
    return data


def _mode(at: Cursor) -> int:
    text = at.text() or ""
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 < mode <= 0o7777:
        at.problem(f"'{text}' is no mode", "write it in octal, like 0440")
        return 0
    return mode
