"""Finds what a user means by a reference: an id, a name, or the unique beginning of an id."""

import re
from typing import TypeVar

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

T = TypeVar("T", Service, Network, Node, Image, Task, Config, Secret)


def project_of(project: str) -> str:
    """Return the project of a request; "" means the default one. InvalidError for what cannot be one's name."""
    if project and not PROJECT.fullmatch(project):
        raise InvalidError(f"{project!r} cannot be a project: use up to 63 lower-case letters, digits and dashes")
    return project or DEFAULT_PROJECT


def service(snap: Snapshot, project: str, ref: str) -> Service:
    """Return the service that `ref` names; a service that is being removed is found by its id only."""
    found = snap.by_name(Service, project, ref) or snap.get(Service, ref)
    if found is not None and found.meta.project == project:
        return found
    alive = [s for s in snap.all(Service, project=project) if not s.removing]
    return _by_prefix("service", alive, ref, "`argosy service ls` lists them")


def network(snap: Snapshot, project: str, ref: str) -> Network:
    """Return the network that `ref` names."""
    found = snap.by_name(Network, project, ref) or snap.get(Network, ref)
    if found is not None and found.meta.project == project:
        return found
    return _by_prefix("network", snap.all(Network, project=project), ref, "`argosy network ls` lists them")


def config(snap: Snapshot, project: str, ref: str) -> Config:
    """Return the config that `ref` names."""
    found = snap.by_name(Config, project, ref) or snap.get(Config, ref)
    if found is not None and found.meta.project == project:
        return found
    alive = [c for c in snap.all(Config, project=project) if not c.removing]
    return _by_prefix("config", alive, ref, "`argosy config ls` lists them")


def secret(snap: Snapshot, project: str, ref: str) -> Secret:
    """Return the secret that `ref` names."""
    found = snap.by_name(Secret, project, ref) or snap.get(Secret, ref)
    if found is not None and found.meta.project == project:
        return found
    alive = [s for s in snap.all(Secret, project=project) if not s.removing]
    return _by_prefix("secret", alive, ref, "`argosy secret ls` lists them")


def node(snap: Snapshot, ref: str) -> Node:
    """Return the node that `ref` names."""
    return (
        snap.by_name(Node, "", ref)
        or snap.get(Node, ref)
        or _by_prefix("node", snap.all(Node), ref, "`argosy node ls` lists them")
    )


def image(snap: Snapshot, project: str, ref: str) -> Image:
    """Return the image that `ref` names: a name, a digest, or the beginning of an id."""
    alive = [i for i in snap.all(Image, project=project) if i.name]
    for candidate in alive:
        if ref in (candidate.digest, candidate.meta.id):
            return candidate
    found = snap.by_name(Image, project, normalise(ref))
    return found or _by_prefix("image", alive, ref, "`argosy image ls` lists them, `argosy image import` adds one")


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
    return _by_prefix("task", snap.all(Task, project=project), ref, "`argosy ps -a` lists them")


def _by_prefix(kind: str, candidates: "list[T] | tuple[T, ...]", ref: str, hint: str) -> T:
    if not ref:
        raise InvalidError(f"the request names no {kind}")
    found = [c for c in candidates if c.meta.id.startswith(ref)]
    if len(found) == 1:
        return found[0]
    if found:
        raise InvalidError(f"{ref!r} is the beginning of {len(found)} {kind} ids: give more of it")
    raise NotFoundError(f"no {kind} {ref!r}: {hint}")
