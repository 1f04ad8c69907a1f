"""Names of images: a name is moved by a new import and taken away by `image rm`; content stays while it is needed.

A named record's id is made from its name, so a name has one record and moving it is one write. What a name pointed to
before, and some revision still runs, is kept as a nameless record under an id made from its digest.
"""

import hashlib
from dataclasses import replace

from argosy.controller.store import Op, Put, Snapshot, delete
from argosy.core.image import Image
from argosy.core.service import Revision


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
    return [*ops, *_kept(snap, holder)], named


def removed(snap: Snapshot, image: Image) -> tuple[list[Op], Image]:
    """Take the name away."""
    return [delete(image), *_kept(snap, image)], image


def by_digest(snap: Snapshot, project: str, digest: str) -> Image | None:
    """Return a record, named or not, of a manifest."""
    return snap.get(Image, _id_of(digest), project) or next(
        (i for i in snap.all(Image, project=project) if i.digest == digest), None
    )


def needed_digests(snap: Snapshot, project: str) -> set[str]:
    """Return the digests of the manifests that revisions of the project's services run."""
    return {r.spec.task.container.image_digest for r in snap.all(Revision, project=project)}


def _kept(snap: Snapshot, image: Image | None) -> list[Op]:
    if image is None or image.digest not in needed_digests(snap, image.meta.project):
        return []
    return [Put(replace(image, name="", meta=replace(image.meta, id=_id_of(image.digest))), expect=None)]


def _id_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]
