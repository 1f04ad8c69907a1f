"""What differs between two states of a cluster, for a person: of specs field by field, of placement task by task. Pure.

`plan_id` makes a name of such a difference. It has what would happen in it, and no time, version or id that the cluster
gives by itself: the same request has the same id as long as it would do the same.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Any

from argosy.core.files import DEFAULT_FILE_MODE, kind_name, path_of
from argosy.core.service import FileRef
from argosy.core.task import Task
from argosy.core.task_state import TaskState


class Verb(Enum):
    """What would become of a spec or a task."""

    CREATE = "create"
    UPDATE = "update"
    REMOVE = "remove"
    MOVE = "move"
    REPLACE = "replace"
    STOP = "stop"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field of a spec; "" is what is not set."""

    path: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class SpecChange:
    """A service, network, config, secret or node whose spec would be another."""

    verb: Verb
    kind: str
    name: str
    fields: tuple[FieldChange, ...] = ()


@dataclass(frozen=True, slots=True)
class TaskChange:
    """A task that would be elsewhere, or another. `reason`: why it has to wait."""

    verb: Verb
    service: str
    task: str
    old_node: str = ""
    new_node: str = ""
    reason: str = ""


def field_changes(old: Any, new: Any) -> tuple[FieldChange, ...]:
    """Return what differs between two specs of one type (frozen dataclasses), by the paths of their fields."""
    before, after = dict(_leaves("", old)), dict(_leaves("", new))
    paths = [*before, *(path for path in after if path not in before)]
    changes = (FieldChange(path, before.get(path, ""), after.get(path, "")) for path in paths)
    return tuple(change for change in changes if change.old != change.new)


def _leaves(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if is_dataclass(value):
        for each in fields(value):
            yield from _leaves(f"{path}.{each.name}" if path else each.name, getattr(value, each.name))
    elif isinstance(value, Mapping):
        for key in sorted(value):
            yield from _leaves(f"{path}.{key}", value[key])
    elif isinstance(value, tuple) and value and all(isinstance(each, FileRef) for each in value):
        for ref in value:
            yield f"{kind_name(secret=ref.secret)} {ref.name} at {path_of(ref)}", _file_text(ref)
    else:
        yield path, _text(value)


def _file_text(ref: FileRef) -> str:
    """Return which version of a config or secret a container has, and whose it is there."""
    owner = f", owner {ref.uid}:{ref.gid}" if ref.uid or ref.gid else ""
    version = ref.id.rpartition(".")[2] or "latest"
    return f"version {version}, mode {ref.mode or DEFAULT_FILE_MODE:04o}{owner}"


def _text(value: Any) -> str:
    if value is None or value == () or value == "":
        return ""
    if isinstance(value, Enum):
        return value.name.lower().replace("_", "-")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(_text, value))}]"
    if is_dataclass(value):
        parts = ((each.name, _part(each.name, getattr(value, each.name))) for each in fields(value))
        return "{" + ", ".join(f"{name}: {text}" for name, text in parts if text not in ("", "0", "false")) + "}"
    return str(value)


def _part(name: str, value: Any) -> str:
    """Return a field of a record; permissions as people write them."""
    return f"{value:04o}" if name == "mode" and type(value) is int and value else _text(value)


def task_changes(
    old: Iterable[Task], new: Iterable[Task], known: frozenset[str], names: Mapping[str, str], nodes: Mapping[str, str]
) -> tuple[TaskChange, ...]:
    """Return what differs between the tasks that are to go on, at rest without and with a change.

    `known` are the ids of tasks that are really there; the others are of a forecast, and their ids say nothing. `names`
    of services and `nodes` (names) are by id.
    """
    before, after = _by_slot(old), _by_slot(new)
    changes = []
    for key in sorted(before.keys() | after.keys(), key=lambda k: (names.get(k[0], k[0]), k[1], nodes.get(k[2], ""))):
        service = names.get(key[0], key[0])
        name = f"{service}.{key[1] or nodes.get(key[2], key[2])}"
        change = _change(before.get(key), after.get(key), known, service, name, nodes)
        changes += [change] if change is not None else []
    return tuple(changes)


_Slot = tuple[str, int, str]


def _by_slot(tasks: Iterable[Task]) -> dict[_Slot, Task]:
    """Return one task for each slot: of several the newest."""
    found: dict[_Slot, Task] = {}
    for task in sorted(tasks, key=lambda t: (t.meta.created_at, t.meta.id)):
        found[task.service_id, task.slot, "" if task.slot else task.node_id] = task
    return found


def _change(
    old: Task | None, new: Task | None, known: frozenset[str], service: str, name: str, nodes: Mapping[str, str]
) -> TaskChange | None:
    here = nodes.get(old.node_id, old.node_id) if old is not None else ""
    there = nodes.get(new.node_id, new.node_id) if new is not None else ""
    if new is None:
        return TaskChange(Verb.STOP, service, name, here) if old is not None else None
    if old is not None and _same(old, new, known):
        return None
    if new.status.state < TaskState.ASSIGNED:
        reason = new.status.reason or "it waits for the scheduler"
        return TaskChange(Verb.WAIT, service, name, here, "", reason)
    if old is None or not old.node_id:
        return TaskChange(Verb.CREATE, service, name, "", there)
    return TaskChange(Verb.MOVE if here != there else Verb.REPLACE, service, name, here, there)


def _same(old: Task, new: Task, known: frozenset[str]) -> bool:
    if old.meta.id in known or new.meta.id in known:
        return old.meta.id == new.meta.id and old.node_id == new.node_id
    return (old.node_id, old.revision, old.status.reason) == (new.node_id, new.revision, new.status.reason)


PLAN_ID = re.compile(r"[0-9a-f]{16}")


def plan_id(specs: Iterable[SpecChange], tasks: Iterable[TaskChange]) -> str:
    """Return the name of what would happen: 16 hexadecimal digits."""
    return hashlib.sha256(repr((tuple(specs), tuple(tasks))).encode()).hexdigest()[:16]
