"""Images on a host: `ensure` makes all layers of an image be there, `retain` removes those that nothing needs.

Called by the owners of tasks (agent/tasks) with images from assignments. A layer is worked on by one piece of work at a
time, which all who want it wait for: as many tasks may ask for an image at once as like to, it is fetched once. The
work belongs to the store and not to who asked first, so that a task that is cancelled takes nothing from the others.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from argosy.agent.images.apply import Limits
from argosy.agent.images.download import Fetch, download
from argosy.agent.images.layers import LayerDirectory, LayerRecord, layer_name
from argosy.agent.images.parents import build, find_wrong, parents_id
from argosy.agent.images.tree import flush_file_system
from argosy.agent.images.unpack import Reply, Request
from argosy.agent.images.worker import run_worker
from argosy.core.errors import ExhaustedError, RejectedError, TransientError
from argosy.core.image import Image, Layer
from argosy.core.units import human_bytes

__all__ = ["ImageStore", "Limits", "Unpacked"]

log = structlog.get_logger(__name__)

PARALLEL_DOWNLOADS: Final = 3
PARALLEL_WORKERS: Final = 2
KEEP_AFTER_USE_S: Final = 60.0
"""A layer that ensure() returned so recently is kept: whoever asked may not have made the container yet."""


@dataclass(frozen=True, slots=True)
class Unpacked:
    """An image on disk: names of directories under `layers_root`, base first. Overlayfs wants them top first.

    `notes` are remarks for the log, such as device nodes that were left out.
    """

    layers_root: str
    layers: tuple[str, ...]
    notes: tuple[str, ...] = ()


class ImageStore:
    """The layers under `root`, a directory that this object owns alone. `open` first, `close` at the end."""

    def __init__(
        self,
        root: Path,
        fetch: Fetch,
        limits: Limits = Limits(),  # noqa: B008  # frozen
        keep_after_use_s: float = KEEP_AFTER_USE_S,
    ) -> None:
        self._directory = LayerDirectory(root)
        self._fetch = fetch
        self._limits = limits
        self._keep_after_use_s = keep_after_use_s
        self._work: dict[str, asyncio.Task[LayerRecord]] = {}
        self._wanted: Counter[str] = Counter()
        self._last_use: dict[str, float] = {}
        self._downloads = asyncio.Semaphore(PARALLEL_DOWNLOADS)
        self._workers = asyncio.Semaphore(PARALLEL_WORKERS)
        self._changes = asyncio.Lock()  # held while directories appear among the layers or leave them
        self._trash_lock = asyncio.Lock()

    async def open(self) -> None:
        """Remove what a crash left, and read what is there. Call it once, before all else."""
        await asyncio.to_thread(self._directory.open)

    async def close(self) -> None:
        """End all work; what was fetched so far stays for the next time."""
        work = list(self._work.values())
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)

    async def ensure(self, image: Image) -> Unpacked:
        """Return the image's layers, fetching and unpacking what is not there. Idempotent.

        RejectedError: the image can never be unpacked here, the message says why and what to do. TransientError (also
        ExhaustedError): try again later; what was fetched is kept.
        """
        names = tuple(layer_name(layer.diff_id) for layer in image.layers)
        reserved = _names(image)
        self._wanted.update(reserved)
        try:
            records = await self._layers(image)
            extra = await self._parents(records)
        finally:
            self._wanted.subtract(reserved)
            self._wanted = +self._wanted
            self._last_use.update(dict.fromkeys(reserved, time.monotonic()))
        notes = tuple(dict.fromkeys(note for record in records for note in record.notes))
        return Unpacked(str(self._directory.layers), names + extra, notes)

    async def retain(self, images: Iterable[Image], in_use: Iterable[str] = ()) -> tuple[str, ...]:
        """Delete the layers that none of `images` has; return the names of those deleted.

        `images` are those of all assignments; `in_use` names the layers (as in Unpacked) that containers are mounted
        from which no assignment may want any more, such as one that is being stopped: without their layers the files
        of a running container vanish. What ensure() is working on, or returned within the last minute, is kept too.
        """
        needed = {*in_use, *self._wanted, *self._work}
        oldest = time.monotonic() - self._keep_after_use_s
        needed.update(name for name, at in self._last_use.items() if at > oldest)
        for image in images:
            needed.update(_names(image))
        unneeded = tuple(name for name in self._directory.complete if name not in needed)
        for name in unneeded:
            # At once: ensure() must not be given a layer that is on its way out. If it makes one of them anew, keep()
            # comes later than the removal, since the lock is given in the order of asking.
            del self._directory.complete[name]
            self._last_use.pop(name, None)
        async with self._changes:
            await asyncio.to_thread(self._directory.discard, unneeded)
            await asyncio.to_thread(self._directory.discard_blobs, needed | set(self._work))
        await self._empty_trash()
        if unneeded:
            log.info("layers deleted", layers=len(unneeded))
        return unneeded

    async def _layers(self, image: Image) -> list[LayerRecord]:
        try:
            async with asyncio.TaskGroup() as group:
                waiting = [group.create_task(self._layer(layer)) for layer in image.layers]
        except BaseExceptionGroup as several:
            known, bugs = several.split((RejectedError, TransientError))
            if bugs is not None or known is None:
                raise
            raise _first(known.exceptions, image) from None
        return [task.result() for task in waiting]

    async def _layer(self, layer: Layer) -> LayerRecord:
        """Return the record of a layer once it is complete, joining work on it that is under way."""
        record = self._directory.check(layer.diff_id)
        if record is not None:
            return record
        name = layer_name(layer.diff_id)
        work = self._work.get(name)
        if work is None:
            work = self._work[name] = asyncio.create_task(self._make(layer), name=f"layer {name}")
            work.add_done_callback(lambda done: self._done(name, done))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            if work.cancelled():
                raise TransientError("the agent is stopping") from None
            raise

    def _done(self, name: str, work: asyncio.Task[LayerRecord]) -> None:
        self._work.pop(name, None)
        # Whoever still waits gets the error; when nobody does, this keeps asyncio from complaining.
        if not work.cancelled() and (error := work.exception()) is not None:
            log.info("layer failed", layer=name, error=str(error))

    async def _make(self, layer: Layer) -> LayerRecord:
        """Fetch and unpack one layer. A blob that arrived damaged is fetched once more."""
        blob = self._directory.blob(layer.diff_id, layer.digest)
        reply = await self._try(layer, blob)
        if reply.kind == "digest":
            log.warning("layer arrived damaged, fetching it again", digest=layer.digest, problem=reply.problem)
            reply = await self._try(layer, blob)
        if reply.kind == "exhausted":
            raise ExhaustedError(f"layer {layer.digest}: {reply.problem}: free space under {self._directory.root}")
        if reply.kind == "digest":
            raise RejectedError(
                f"layer {layer.digest} does not match its digest ({reply.problem}): import the image again"
            )
        if reply.problem:
            raise RejectedError(
                f"layer {layer.digest} cannot be unpacked: {reply.problem}. Mend the image and import it again"
            )
        return self._directory.complete[layer_name(layer.diff_id)]

    async def _try(self, layer: Layer, blob: Path) -> Reply:
        async with self._downloads:
            self._check_room(layer)
            try:
                await download(self._fetch, layer.digest, layer.size, blob)
            except ExhaustedError:
                await asyncio.to_thread(blob.unlink, missing_ok=True)
                raise
        async with self._workers:
            staged = await asyncio.to_thread(self._directory.stage)
            try:
                request = Request(str(blob), str(staged), layer.digest, layer.diff_id, self._limits)
                reply = await run_worker(request)
                if not reply.problem:
                    record = LayerRecord(layer.diff_id, reply.unpacked_bytes, reply.entries, reply.implied, reply.notes)
                    async with self._changes:
                        await asyncio.to_thread(self._directory.keep, staged / "root", record)
                # Kept only when the agent stops in between: then it need not be fetched again.
                await asyncio.to_thread(blob.unlink, missing_ok=True)
                return reply
            finally:
                await asyncio.to_thread(self._directory.unstage, staged)
                await self._empty_trash()

    def _check_room(self, layer: Layer) -> None:
        free = self._directory.free_bytes()
        if free - layer.size < self._limits.min_free_bytes:
            raise ExhaustedError(
                f"layer {layer.digest} has {human_bytes(layer.size)}, the disk {human_bytes(free)} free, of which "
                f"{human_bytes(self._limits.min_free_bytes)} are kept: free space under {self._directory.root}"
            )

    async def _parents(self, records: list[LayerRecord]) -> tuple[str, ...]:
        """Return the name of the extra layer of directories (parents.py), making it first; none for most images."""
        if not any(record.implied for record in records[1:]):
            return ()
        diff_id = parents_id([record.diff_id for record in records])
        async with self._changes:
            record = self._directory.check(diff_id)
            if record is None:
                record = await asyncio.to_thread(self._make_parents, diff_id, records)
        # An image whose layers hide nothing has a record as well, of an empty layer, which needs no mounting.
        return (layer_name(diff_id),) if record.entries else ()

    def _make_parents(self, diff_id: str, records: list[LayerRecord]) -> LayerRecord:
        wrong = find_wrong(self._directory.layers, records)
        staged = self._directory.stage()
        try:
            root = staged / "root"
            root.mkdir(mode=0o755)
            build(root, wrong)
            flush_file_system(root)
            record = LayerRecord(diff_id, entries=len(wrong))
            self._directory.keep(root, record)
            return record
        finally:
            self._directory.unstage(staged)

    async def _empty_trash(self) -> None:
        async with self._trash_lock:
            await asyncio.to_thread(self._directory.empty_trash)


def _names(image: Image) -> tuple[str, ...]:
    """Return the names of all layers that an image may be mounted from."""
    diff_ids = [layer.diff_id for layer in image.layers]
    return (*map(layer_name, diff_ids), layer_name(parents_id(diff_ids)))


def _first(errors: Sequence[BaseException], image: Image) -> Exception:
    """Return the error that says most of several: a rejection before what may pass."""
    error = next((e for e in errors if isinstance(e, RejectedError)), errors[0])
    kind = next(k for k in (RejectedError, ExhaustedError, TransientError) if isinstance(error, k))
    return kind(f"image {image.name or image.digest}: {error}")
