"""Names of images: a name is moved by a new import and taken away by `image rm`; content stays while it is needed.

A named record's id is made from its name, so a name has one record and moving it is one write. What a name pointed to
before is kept as a nameless record under an id made from its digest, and forgotten when no revision runs it
(loops/images.py): only then, since a deploy that nobody here has seen yet may have been stored a moment ago. For the
same reason a deploy stores a digest only while the record that it was read from is as it was (`checks`).
"""

import hashlib
from dataclasses import replace
from typing import Final

from argosy.controller.store import Op, Put, Snapshot, delete
from argosy.controller.store import check as check_unchanged
from argosy.core.errors import PreconditionError
from argosy.core.image import Image
from argosy.core.oci.names import normalise
from argosy.core.service import ContainerSpec, Revision, Service

_NAMED: Final = 5
"""So many services that use an image are named."""


def tagged(snap: Snapshot, image: Image, now: float) -> tuple[list[Op], Image]:
    """Give the image its name, taking it from the one that had it."""
    project = image.meta.project
    holder = snap.by_name(Image, project, image.name)
    if holder is not None and holder.digest == image.digest:
        return [], holder
    created_at = holder.meta.created_at if holder else now
    meta = replace(image.meta, id=_id_of(image.name), created_at=created_at, updated_at=now)
    named = replace(image, meta=meta)
    ops: list[Op] = [Put(named, expect=holder.meta.version if holder else 0)]
    return [*ops, *_kept(holder)], named


def removed(snap: Snapshot, image: Image, force: bool) -> tuple[list[Op], Image]:
    """Take the name away. PreconditionError where services use it, unless with `force`: a deploy would not find it."""
    users = [
        service.spec.name
        for service in snap.all(Service, project=image.meta.project)
        if not service.removing and normalise(service.spec.task.container.image) == image.name
    ]
    if users and not force:
        named = ", ".join(sorted(users)[:_NAMED]) + (f" and {len(users) - _NAMED} more" if len(users) > _NAMED else "")
        who = f"services {named} use" if len(users) > 1 else f"service {named} uses"
        raise PreconditionError(
            f"{who} the image {image.name}, and could not be deployed anew without it; with --force its name is taken "
            "away all the same, and what runs keeps the content"
        )
    return [delete(image), *_kept(image)], image


def checks(snap: Snapshot, project: str, container: ContainerSpec) -> list[Op]:
    """Return the operations that let a resolved container be stored only while its image's record is as it was read."""
    named = snap.by_name(Image, project, normalise(container.image))
    has = named is not None and named.digest == container.image_digest
    image = named if has else by_digest(snap, project, container.image_digest)
    return [check_unchanged(image)] if image is not None else []


def by_digest(snap: Snapshot, project: str, digest: str) -> Image | None:
    """Return a record, named or not, of a manifest."""
    return snap.get(Image, _id_of(digest), project) or next(
        (i for i in snap.all(Image, project=project) if i.digest == digest), None
    )


def unneeded(snap: Snapshot) -> list[list[Op]]:
    """Return the deletions that are due: nameless images that no revision of their project runs."""
    needed = {(r.meta.project, r.spec.task.container.image_digest) for r in snap.all(Revision)}
    return [[delete(i)] for i in snap.all(Image) if not i.name and (i.meta.project, i.digest) not in needed]


def _kept(image: Image | None) -> list[Op]:
    if image is None:
        return []
    return [Put(replace(image, name="", meta=replace(image.meta, id=_id_of(image.digest))), expect=None)]


def _id_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]
