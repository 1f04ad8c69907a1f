"""Finds what a user means by a reference: a name, an id, or the unique beginning of an id, of four characters at least.

Shorter ones are met by chance: `service rm p` must not remove what happens to have such an id.
"""

import re
from collections.abc import Sequence
from typing import Final, TypeVar

from argosy.controller.store import Snapshot
from argosy.core.errors import InvalidError, NotFoundError
from argosy.core.files import Config, Secret
from argosy.core.image import Image
from argosy.core.meta import DEFAULT_PROJECT
from argosy.core.network import Network
from argosy.core.node import Node
from argosy.core.oci.names import normalise
from argosy.core.service import Service
from argosy.core.task import Task

PROJECT = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""It stands in keys of the store."""

_SLOT = re.compile(r"[0-9]{1,9}")

LEAST_OF_AN_ID: Final = 4
_NAMED: Final = 5
"""So many of those that a reference may mean are named."""

T = TypeVar("T", bound=Service | Network | Node | Image | Task | Config | Secret)
Owned = TypeVar("Owned", bound=Service | Network | Config | Secret)


def project_of(project: str) -> str:
    """Return the project of a request; "" means the default one. InvalidError for what cannot be one's name."""
    if project and not PROJECT.fullmatch(project):
        raise InvalidError(f"{project!r} cannot be a project: use up to 63 lower-case letters, digits and dashes")
    return project or DEFAULT_PROJECT


def service(snap: Snapshot, project: str, ref: str) -> Service:
    """Return the service that `ref` names; what is being removed is found by its id only, here and below."""
    return _in_project(snap, Service, project, ref)


def network(snap: Snapshot, project: str, ref: str) -> Network:
    """Return the network that `ref` names."""
    return _in_project(snap, Network, project, ref)


def config(snap: Snapshot, project: str, ref: str) -> Config:
    """Return the config that `ref` names."""
    return _in_project(snap, Config, project, ref)


def secret(snap: Snapshot, project: str, ref: str) -> Secret:
    """Return the secret that `ref` names."""
    return _in_project(snap, Secret, project, ref)


def _in_project(snap: Snapshot, kind: type[Owned], project: str, ref: str) -> Owned:
    found = snap.by_name(kind, project, ref) or snap.get(kind, ref)
    if found is not None and found.meta.project == project:
        return found
    alive: list[Owned] = [obj for obj in snap.all(kind, project=project) if not obj.removing]
    word = kind.__name__.lower()
    return _by_prefix(snap, word, alive, ref, f"`argosy {word} ls` lists them")


def node(snap: Snapshot, ref: str) -> Node:
    """Return the node that `ref` names."""
    return (
        snap.by_name(Node, "", ref)
        or snap.get(Node, ref)
        or _by_prefix(snap, "node", snap.all(Node), ref, "`argosy node ls` lists them")
    )


def image(snap: Snapshot, project: str, ref: str) -> Image:
    """Return the image that `ref` names: a name, a digest, or the beginning of an id."""
    alive = [i for i in snap.all(Image, project=project) if i.name]
    for candidate in alive:
        if ref in (candidate.digest, candidate.meta.id):
            return candidate
    found = snap.by_name(Image, project, normalise(ref))
    return found or _by_prefix(
        snap, "image", alive, ref, "`argosy image ls` lists them, `argosy image import` adds one"
    )


def task(snap: Snapshot, project: str, ref: str) -> Task:
    """Return the task that `ref` names: an id, the beginning of one, or SERVICE.SLOT for the newest of a slot."""
    found = snap.get(Task, ref)
    if found is not None and found.meta.project == project:
        return found
    name, dot, slot = ref.rpartition(".")
    owner = snap.by_name(Service, project, name) if dot and _SLOT.fullmatch(slot) else None
    if owner is not None:
        in_slot = [t for t in snap.tasks_of_service(owner.meta.id) if t.slot == int(slot)]
        if in_slot:
            return max(in_slot, key=lambda t: t.meta.created_at)
    return _by_prefix(snap, "task", snap.all(Task, project=project), ref, "`argosy ps -a` lists them")


def _by_prefix(snap: Snapshot, kind: str, candidates: Sequence[T], ref: str, hint: str) -> T:
    """Return the only candidate whose id begins with `ref`, if that is long enough not to be met by chance."""
    if not ref:
        raise InvalidError(f"the request names no {kind}")
    found = [c for c in candidates if c.meta.id.startswith(ref)]
    if found and len(ref) < LEAST_OF_AN_ID:
        raise NotFoundError(f"no {kind} {ref!r} (an id can be shortened to {LEAST_OF_AN_ID} characters): {hint}")
    if len(found) == 1:
        return found[0]
    if found:
        named = [f"{_name_of(snap, c)} ({c.meta.id})" for c in sorted(found, key=lambda c: c.meta.id)[:_NAMED]]
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        raise InvalidError(
            f"{ref!r} is the beginning of {len(found)} {kind} ids: {', '.join(named)}{more}: give more of it"
        )
    raise NotFoundError(f"no {kind} {ref!r}: {hint}")


def _name_of(snap: Snapshot, obj: T) -> str:
    if isinstance(obj, Task):
        owner, node = snap.get(Service, obj.service_id), snap.get(Node, obj.node_id)
        slot = obj.slot or (node.spec.name if node is not None else obj.node_id)
        return f"{owner.spec.name if owner is not None else obj.service_id}.{slot}"
    return obj.spec.name if isinstance(obj, Service | Network | Node) else obj.name
