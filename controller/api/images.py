"""Names of images: a name is moved by a new import and taken away by `image rm`; content stays while it is needed."""

from dataclasses import replace

from argosy.controller.store import Claim, Op, Release, Snapshot, create, delete, update
from argosy.core.image import Image
from argosy.core.service import Revision


def tagged(snap: Snapshot, image: Image) -> tuple[list[Op], Image]:
    """Give the image its name, taking it from the one that had it."""
    project = image.meta.project
    holder = snap.by_name(Image, project, image.name)
    if holder is not None and holder.digest == image.digest:
        return [], holder
    ops: list[Op] = []
    if holder is not None:
        ops += [Release(Image, project, holder.name, holder.meta.id), _retired(snap, holder)]
    known = snap.get(Image, image.meta.id, project)
    ops.append(update(replace(image, meta=known.meta)) if known else create(image))
    if holder is None:
        return [*ops, Claim(Image, project, image.name, image.meta.id)], image
    return [*ops, Move(Image, project, image.name, holder.meta.id, image.meta.id)], image


def removed(snap: Snapshot, image: Image) -> tuple[list[Op], Image]:
    """Take the name away."""
    return [Release(Image, image.meta.project, image.name, image.meta.id), _retired(snap, image)], image


def _retired(snap: Snapshot, image: Image) -> Op:
    """Drop the record, or keep it nameless while a revision runs its content."""
    if image.digest in needed_digests(snap, image.meta.project):
        return update(replace(image, name=""))
    return delete(image)


def needed_digests(snap: Snapshot, project: str) -> set[str]:
    """Return the digests of the manifests that revisions of the project's services run."""
    return {r.spec.task.container.image_digest for r in snap.all(Revision, project=project)}
