"""Repairs what some image builders leave out: the directories that their layers' files are in.

A layer that has `tmp/x` but not `tmp/` still needs a directory `tmp` on disk, and that one, made 0755 root, would hide
the 1777 of a lower layer's: overlayfs shows the attributes of the topmost. What is right depends on the layers below,
so it cannot be put right in the layer, which images share. Instead such an image gets one more layer on top, of nothing
but those directories with the attributes of the topmost layer that does describe them.
"""

import hashlib
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from argosy.agent.images.apply import OPAQUE_XATTRS
from argosy.agent.images.layers import LayerRecord, layer_name


@dataclass(frozen=True, slots=True)
class Attributes:
    """Of a directory."""

    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0


def parents_id(diff_ids: Sequence[str]) -> str:
    """Return what stands for the diff_id of the extra layer of an image with these layers."""
    return "sha256:" + hashlib.sha256("\n".join(["parents", *diff_ids]).encode()).hexdigest()


def find_wrong(layers: Path, records: Sequence[LayerRecord]) -> Mapping[str, Attributes]:
    """Return the directories, with those above them, whose attributes a layer hides. Base layer first. Blocking."""
    roots = [layers / layer_name(record.diff_id) for record in records]
    implied = [frozenset(record.implied) for record in records]
    wrong: dict[str, Attributes] = {}
    for path in sorted(set().union(*implied[1:])):
        attributes, hidden = _effective(roots, implied, path)
        if hidden:
            wrong[path] = attributes
    for path in list(wrong):
        for above in _ancestors(path):
            wrong.setdefault(above, _effective(roots, implied, above)[0])
    if wrong:
        wrong[""] = _effective(roots, implied, "")[0]
    return wrong


def build(root: Path, directories: Mapping[str, Attributes]) -> None:
    """Make the directories under `root`, an empty directory."""
    for path in sorted(directories):
        place = root / path if path else root
        if path:
            place.mkdir()
        attributes = directories[path]
        os.chown(place, attributes.uid, attributes.gid)
        os.chmod(place, attributes.mode)
    for path, attributes in directories.items():
        os.utime(root / path, ns=(attributes.mtime_ns, attributes.mtime_ns))


def _effective(roots: list[Path], implied: list[frozenset[str]], path: str) -> tuple[Attributes, bool]:
    """Return the attributes that the image means a directory to have, and whether a layer's implied one hides them."""
    hidden = False
    for root, names in zip(reversed(roots), reversed(implied), strict=True):
        found, below_shows = _look(root, path)
        if found is not None and path not in names:
            return found, hidden
        hidden = hidden or found is not None
        if not below_shows:
            break
    return Attributes(), False


def _look(root: Path, path: str) -> tuple[Attributes | None, bool]:
    """Return a layer's directory at `path`, if it has one, and whether lower layers show through there."""
    below_shows = True
    place = root
    for part in ["", *path.split("/")] if path else [""]:
        place = place / part if part else place
        try:
            there = os.lstat(place)
        except FileNotFoundError:
            return None, below_shows
        if not stat.S_ISDIR(there.st_mode):
            return None, False
        if OPAQUE_XATTRS[0] in os.listxattr(place, follow_symlinks=False):
            below_shows = False
    return Attributes(stat.S_IMODE(there.st_mode), there.st_uid, there.st_gid, there.st_mtime_ns), below_shows


def _ancestors(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]
