"""Reads the archives of `docker save`, and of the many tools that write their form (podman, skopeo, kaniko, nix).

`manifest.json` lists images: a configuration and layer tars by their names in the archive, which may be links to each
other. Source: the Docker image specification v1.2, "Combined Image JSON + Filesystem Changeset Format".
"""

from functools import partial
from typing import Any

from argosy.cli.images.archive import BrokenArchiveError, Files, parse_json, read_document
from argosy.cli.images.layer import LayerMaker
from argosy.cli.images.local import LocalImage, assemble
from argosy.cli.images.platforms import Platform, platform_of
from argosy.core.errors import InvalidError
from argosy.core.oci.names import normalise

MANIFEST = "manifest.json"


def is_docker_archive(files: Files) -> bool:
    """Whether the archive's manifest.json is Docker's; a root filesystem may well have a file of that name."""
    try:
        return files.has(MANIFEST) and bool(_entries(files))
    except BrokenArchiveError:
        return False


def read_docker_archive(files: Files, maker: LayerMaker, name: str, platform: Platform | None) -> LocalImage:
    """Return the archive's image; of several the one that has `name` as a tag."""
    entry = _choose(files, name)
    raw = read_document(files, str(entry["Config"]))
    config = parse_json(files.source, raw, "configuration")
    diff_ids = _diff_ids(files.source, config)
    paths = [str(path) for path in entry["Layers"]]
    if len(paths) != len(diff_ids):
        raise BrokenArchiveError(
            files.source, f"{MANIFEST} lists {len(paths)} layers, the configuration {len(diff_ids)}"
        )
    found = platform_of(config)
    if platform is not None and not platform.fits(found):
        raise BrokenArchiveError(files.source, f"it is for {found}, not for {platform}")
    layers = []
    for number, (path, diff_id) in enumerate(zip(paths, diff_ids, strict=True), 1):
        what = f"layer {number} of {len(paths)} ({path})"
        layer = maker.make(what, partial(files.open, path), files.size(path))
        if layer.diff_id != diff_id:
            raise BrokenArchiveError(files.source, f"{what} has the digest {layer.diff_id}, the image says {diff_id}")
        layers.append(layer)
    return assemble(raw, layers)


def _entries(files: Files) -> list[dict[str, Any]]:
    listed = parse_json(files.source, read_document(files, MANIFEST), MANIFEST)
    if not isinstance(listed, list):
        return []
    entries = [e for e in listed if isinstance(e, dict) and isinstance(e.get("Layers"), list) and "Config" in e]
    return entries if len(entries) == len(listed) else []


def _choose(files: Files, name: str) -> dict[str, Any]:
    entries = _entries(files)
    if len(entries) == 1:
        return entries[0]
    for entry in entries:
        if any(_same(str(tag), name) for tag in entry.get("RepoTags") or ()):
            return entry
    tags = sorted(str(tag) for entry in entries for tag in entry.get("RepoTags") or ["(untagged)"])
    raise BrokenArchiveError(
        files.source,
        f"it has {len(entries)} images, none of them named {name}: import one by its name, of {', '.join(tags)}",
    )


def _same(tag: str, name: str) -> bool:
    try:
        return normalise(tag) == name
    except InvalidError:
        return False


def _diff_ids(source: str, config: Any) -> list[str]:
    rootfs = config.get("rootfs") if isinstance(config, dict) else None
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(diff_ids, list):
        raise BrokenArchiveError(source, "its configuration lists no rootfs.diff_ids (saved by Docker before 1.10?)")
    return [str(diff_id) for diff_id in diff_ids]
