"""The layers that are complete on this host's disk.

    <root>/layers/<name>/        a layer, ready to be an overlayfs lower directory; the layers root is 0700
    <root>/markers/<name>.json   written and flushed after the directory is: without it the directory does not count
    <root>/staging/<random>/     what is being unpacked
    <root>/blobs/<name>.<hex>    what is being fetched
    <root>/trash/                what is being deleted

A directory appears in `layers` by one rename, flushed before its marker is; whatever else a crash leaves is removed by
`open`. Names are the first 32 digits of the layer's diff_id, so that a hundred of them fit into overlayfs's 4 KiB of
mount options; the marker holds the whole, which is compared. Blocking: call it from a thread.
"""

import json
import os
import secrets
import shutil
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from argosy.agent.images.tree import remove_tree
from argosy.core.errors import RejectedError
from argosy.core.oci.digests import hex_of

NAME_LENGTH: Final = 32


@dataclass(frozen=True, slots=True)
class LayerRecord:
    """What is known of a complete layer. `implied` are directories that the layer itself does not describe."""

    diff_id: str
    unpacked_bytes: int = 0
    entries: int = 0
    implied: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def layer_name(diff_id: str) -> str:
    """Return the name of a layer's directory."""
    return hex_of(diff_id)[:NAME_LENGTH]


class LayerDirectory:
    """Owns the directories above. `complete` may be read from anywhere; the methods are for one owner (ImageStore)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.layers = root / "layers"
        self._markers = root / "markers"
        self._staging = root / "staging"
        self._blobs = root / "blobs"
        self._trash = root / "trash"
        self.complete: dict[str, LayerRecord] = {}
        """Name to record, of all layers that may be mounted."""

    def open(self) -> None:
        """Make the directories, remove what is incomplete, read what is complete. Idempotent."""
        for directory in (self.root, self.layers, self._markers, self._staging, self._blobs, self._trash):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Layers hold setuid programs of strangers: no user of the host may reach them.
        os.chmod(self.layers, 0o700)
        self.complete = dict(self._read_markers())
        for entry in os.listdir(self.layers):
            if entry not in self.complete:
                self._throw_away(self.layers / entry)
        for entry in os.listdir(self._staging):
            self._throw_away(self._staging / entry)
        self.empty_trash()

    def stage(self) -> Path:
        """Return a new empty directory to unpack in."""
        path = self._staging / secrets.token_hex(8)
        path.mkdir(mode=0o700)
        return path

    def unstage(self, path: Path) -> None:
        """Throw away what was staged."""
        if path.exists():
            self._throw_away(path)

    def keep(self, staged: Path, record: LayerRecord) -> None:
        """Make what is in `staged` (already flushed to disk) a complete layer."""
        name = layer_name(record.diff_id)
        self.check(record.diff_id)
        if name in self.complete:
            return
        os.rename(staged, self.layers / name)
        _flush_directory(self.layers)
        marker = self._markers / f"{name}.json"
        fresh = marker.with_suffix(".new")
        with open(fresh, "w") as file:
            json.dump(asdict(record), file)
            file.flush()
            os.fsync(file.fileno())
        os.rename(fresh, marker)
        _flush_directory(self._markers)
        self.complete[name] = record

    def check(self, diff_id: str) -> LayerRecord | None:
        """Return the record of a layer if it is complete. RejectedError when another one has its name."""
        record = self.complete.get(layer_name(diff_id))
        if record is not None and record.diff_id != diff_id:
            raise RejectedError(f"layer {diff_id} has the same beginning of its digest as {record.diff_id}: refused")
        return record

    def discard(self, names: Iterable[str]) -> None:
        """Move layers, which `complete` must not have any more, to the trash. The marker goes first."""
        for name in names:
            (self._markers / f"{name}.json").unlink(missing_ok=True)
            if (self.layers / name).exists():
                self._throw_away(self.layers / name)

    def blob(self, diff_id: str, digest: str) -> Path:
        """Return where a layer's blob is kept while it is fetched and unpacked."""
        return self._blobs / f"{layer_name(diff_id)}.{hex_of(digest)}"

    def discard_blobs(self, keep: Collection[str]) -> None:
        """Delete what was fetched of layers other than those named."""
        for blob in self._blobs.iterdir():
            if blob.name.split(".")[0] not in keep:
                blob.unlink(missing_ok=True)

    def empty_trash(self) -> None:
        """Delete what was thrown away; may take long."""
        for entry in os.listdir(self._trash):
            remove_tree(self._trash, entry)

    def free_bytes(self) -> int:
        """Return what may still be written to the layers' file system."""
        return shutil.disk_usage(self.root).free

    def _throw_away(self, path: Path) -> None:
        os.rename(path, self._trash / secrets.token_hex(8))

    def _read_markers(self) -> Iterable[tuple[str, LayerRecord]]:
        for marker in self._markers.iterdir():
            name = marker.stem
            try:
                values = json.loads(marker.read_text())
                record = LayerRecord(**{**values, "implied": tuple(values["implied"]), "notes": tuple(values["notes"])})
                whole = marker.suffix == ".json" and layer_name(record.diff_id) == name
            except (ValueError, TypeError, KeyError, RejectedError):
                whole = False
            if whole and (self.layers / name).is_dir():
                yield name, record
            else:
                marker.unlink()


def _flush_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
