"""Reading a set of Compose files: variables, `extends`, merging, `include`; the result is one tree for each set.

The only module of this package that reads files. What a set is: the files of `-c`, merged; each `include` is a set of
its own, with its own directory and `.env`, whose definitions are then put beside the including set's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from argosy.cli.compose.cursor import Cursor
from argosy.cli.compose.document import Entry, Map, Node, Scalar, Seq
from argosy.cli.compose.envfile import parse_env_file
from argosy.cli.compose.interpolate import interpolate_tree
from argosy.cli.compose.merge import merge, merge_service, settle
from argosy.cli.compose.problems import Findings, Position
from argosy.cli.compose.reader import read_document
from argosy.cli.compose.repeats import without_repeats
from argosy.cli.compose.shapes import normalise

STDIN: Final = "-"
LONGEST: Final = 16 << 20
"""Characters of a file, of which there may be more than memory has: /dev/zero."""
_RESOURCES: Final = ("services", "networks", "volumes", "configs", "secrets", "models")


@dataclass(frozen=True, slots=True)
class FileSet:
    """A merged set: `root` in long forms; `env` is what its variables were taken from."""

    root: Map
    env: Mapping[str, str]


class Reader:
    """Reads file sets; `stdin` stands for the file "-".

    `repeats`: items that a list has twice, apart from the other findings: they keep no other problem of a list quiet.
    """

    def __init__(self, findings: Findings, stdin: str = "") -> None:
        self.repeats = Findings()
        self._findings = findings
        self._stdin = stdin
        self._open: list[Path] = []

    # ------------------------------------------------------------------ sets

    def read_set(self, files: Sequence[Path], directory: Path, env: Mapping[str, str]) -> list[FileSet]:
        """Return the set of `files` and those that it includes, the including one first.

        Relative paths inside the files are relative to `directory`.
        """
        merged: Map | None = None
        self._open += [path.resolve() for path in files]
        for path in files:
            document = self._read_file(path, directory, env)
            if document is not None:
                merged = document if merged is None else merge(merged, document)
        sets: list[FileSet] = []
        if merged is not None:
            root = settle(merged)
            assert isinstance(root, Map)
            sets = [FileSet(root, env), *self._included(root, directory, env)]
        del self._open[-len(files) :]
        return sets

    def _included(self, root: Map, directory: Path, env: Mapping[str, str]) -> list[FileSet]:
        node = root.get("include")
        found: list[FileSet] = []
        for item in Cursor(node, "include", self._findings).items() if node is not None else ():
            paths, home, env_files = self._include(item, directory)
            if not paths:
                continue
            if any(path.resolve() in self._open for path in paths):
                item.problem("the file includes itself", "remove one of the includes of the circle")
                continue
            defaults = self.environment(env_files, home, env, item.position)
            found += self.read_set(paths, home, {**defaults, **env})
        return found

    def _include(self, item: Cursor, directory: Path) -> tuple[list[Path], Path, list[str]]:
        """Return an include's files, its directory and the files of its variables' defaults (none: `.env`)."""
        if item.is_text:
            path = directory / (item.text() or "")
            return [path], path.parent, []
        self.only(item, ("path", "project_directory", "env_file"))
        where = item.get("path")
        if where is None:
            item.problem("the include has no 'path'", "name the file to include")
            return [], directory, []
        paths = [directory / text for text in _one_or_many(where)]
        home = item.get("project_directory")
        project = directory / (home.text() or "") if home is not None else (paths[0].parent if paths else directory)
        env_file = item.get("env_file")
        env_files = [str(directory / text) for text in _one_or_many(env_file)] if env_file is not None else []
        return paths, project, env_files

    def environment(
        self, env_files: Sequence[str], directory: Path, env: Mapping[str, str], position: Position
    ) -> dict[str, str]:
        """Return the variables of `env_files`, or of the directory's `.env` if there is one; later files win."""
        found: dict[str, str] = {}
        default = directory / ".env"
        for name in env_files or ([str(default)] if default.is_file() else []):
            text = self.read_text(directory / name, name, position)
            if text is not None:
                values = parse_env_file(text, name, {**found, **env}, self._findings)
                found.update({key: value for key, value in values.items() if value is not None})
        return found

    # ------------------------------------------------------------------ one file

    def read_text(self, path: Path, name: str, position: Position | None = None) -> str | None:
        """Return a file's text; None, with a problem added, when it cannot be read."""
        at = position or Position(name)
        try:
            text = self._stdin if str(path) == STDIN else _content(path)
            if len(text) <= LONGEST:
                return text
            what = f"{name} is longer than {LONGEST >> 20} Mi characters: is it the file that is meant?"
        except FileNotFoundError:
            what = f"there is no file {name}" if position else "there is no such file"
        except IsADirectoryError:
            what = f"{name} is a directory" if position else "this is a directory"
        except UnicodeDecodeError:
            what = f"{name} is no UTF-8 text"
        except OSError as error:
            what = f"{name} cannot be read: {error.strerror}"
        self._findings.problem(at, "", what)
        return None

    def _read_file(self, path: Path, directory: Path, env: Mapping[str, str]) -> Map | None:
        """Return a file's document, its variables replaced and its `extends` resolved."""
        document = self.document(path, directory, env)
        if document is None:
            return None
        services = document.get("services")
        if not isinstance(services, Map):
            return document
        resolver = _Extends(self, env, self._findings)
        resolved = {
            key: Entry(entry.position, resolver.resolve(document, key, path, directory, entry))
            for key, entry in services.entries.items()
        }
        entry = document.entries["services"]
        whole = Entry(entry.position, Map(services.position, resolved, services.tag))
        return Map(document.position, {**document.entries, "services": whole}, document.tag)

    def document(
        self, path: Path, directory: Path, env: Mapping[str, str], position: Position | None = None
    ) -> Map | None:
        text = self.read_text(path, str(path), position)
        if text is None:
            return None
        document = read_document(text, "<stdin>" if str(path) == STDIN else str(path), self._findings)
        if document is None:
            return None
        replaced = interpolate_tree(document, env, self._findings)
        assert isinstance(replaced, Map)
        once = without_repeats(replaced, self.repeats)
        return _fill_environment(normalise(once, directory), env)

    def only(self, at: Cursor, known: tuple[str, ...]) -> None:
        if not isinstance(at.node, Map):
            at.mapping()
            return
        for key, entry in at.node.entries.items():
            if key not in known and not key.startswith("x-"):
                self._findings.problem(
                    entry.position, f"{at.path}.{key}", f"there is no key '{key}' here", f"known: {', '.join(known)}"
                )


class _Extends:
    """Resolves the `extends` of one file's services."""

    def __init__(self, reader: Reader, env: Mapping[str, str], findings: Findings) -> None:
        self._reader = reader
        self._env = env
        self._findings = findings
        self._documents: dict[Path, Map | None] = {}
        self._chain: list[tuple[Path, str]] = []

    def resolve(self, document: Map, name: str, path: Path, directory: Path, entry: Entry) -> Node:
        """Return the service `name` with what it extends merged below it."""
        service = entry.value
        if not isinstance(service, Map) or "extends" not in service.entries:
            return service
        own = Map(service.position, {k: v for k, v in service.entries.items() if k != "extends"}, service.tag)
        extends = Cursor(service.entries["extends"].value, f"services.{name}.extends", self._findings)
        if (path, name) in self._chain:
            circle = " → ".join([*(step[1] for step in self._chain), name])
            extends.problem(f"services extend each other in a circle: {circle}", "remove one of them")
            return own
        self._chain.append((path, name))
        base = self._base(extends, document, path, directory)
        self._chain.pop()
        return merge_service(base, own) if base is not None else own

    def _base(self, extends: Cursor, document: Map, path: Path, directory: Path) -> Map | None:
        self._reader.only(extends, ("service", "file"))
        wanted, file = extends.get("service"), extends.get("file")
        name = wanted.text() if wanted is not None else None
        if name is None:
            extends.problem("'extends' names no service", "write 'service: NAME'")
            return None
        if file is not None:
            path = directory / (file.text() or "")
            directory = path.parent
            found = self._other(path, file)
            if found is None:
                return None
            document = found
        services = document.get("services")
        entry = services.entries.get(name) if isinstance(services, Map) else None
        if entry is None:
            where = f" in {path.name}" if file is not None else ""
            extends.problem(f"there is no service '{name}'{where} to extend", _known(services))
            return None
        resolved = self.resolve(document, name, path, directory, entry)
        return resolved if isinstance(resolved, Map) else None

    def _other(self, path: Path, at: Cursor) -> Map | None:
        if path not in self._documents:
            self._documents[path] = self._reader.document(path, path.parent, self._env, at.position)
        return self._documents[path]


def combine(sets: Sequence[FileSet], findings: Findings) -> Map:
    """Return one document with the definitions of all sets; a name that two sets define differently is a problem."""
    first = sets[0].root
    combined: dict[str, dict[str, Entry]] = {}
    for kind in _RESOURCES:
        for one in sets:
            resources = one.root.get(kind)
            if not isinstance(resources, Map):
                continue
            known = combined.setdefault(kind, {})
            for name, entry in resources.entries.items():
                if name not in known:
                    known[name] = entry
                elif _plain(known[name].value) != _plain(entry.value):
                    findings.problem(
                        entry.position,
                        f"{kind}.{name}",
                        f"'{name}' is defined by {known[name].position} too, and differently",
                        "rename one: included files are not merged",
                    )
    entries = {key: entry for key, entry in first.entries.items() if key not in combined and key != "include"}
    for kind, found in combined.items():
        own = first.entries.get(kind)
        position = own.position if own is not None else next(iter(found.values())).position
        entries[kind] = Entry(position, Map(position, found))
    return Map(first.position, entries)


def _plain(node: Node) -> object:
    match node:
        case Map():
            return {key: _plain(entry.value) for key, entry in node.entries.items()}
        case Seq():
            return [_plain(item) for item in node.items]
        case Scalar():
            return node.text


def _known(services: Node | None) -> str:
    names = ", ".join(services.entries) if isinstance(services, Map) else ""
    return f"there are: {names}" if names else "the file has no services"


def _one_or_many(at: Cursor) -> tuple[str, ...]:
    if at.is_text:
        text = at.text()
        return (text,) if text else ()
    return at.texts()


def _fill_environment(root: Map, env: Mapping[str, str]) -> Map:
    """Give variables that a service names without a value the value that they have here, if any."""
    services = root.get("services")
    if not isinstance(services, Map):
        return root
    filled = {}
    for name, entry in services.entries.items():
        service = entry.value
        variables = service.get("environment") if isinstance(service, Map) else None
        if isinstance(service, Map) and isinstance(variables, Map):
            values = {
                key: Entry(value.position, Scalar(value.position, env[key], plain=False))
                if isinstance(value.value, Scalar) and value.value.text is None and not value.value.tag and key in env
                else value
                for key, value in variables.entries.items()
            }
            at = service.entries["environment"].position
            new = Map(variables.position, values, variables.tag)
            service = Map(service.position, {**service.entries, "environment": Entry(at, new)}, service.tag)
        filled[name] = Entry(entry.position, service)
    whole = Entry(root.entries["services"].position, Map(services.position, filled, services.tag))
    return Map(root.position, {**root.entries, "services": whole}, root.tag)


def _content(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.read(LONGEST + 1)
