"""Watches of etcd, many on one stream, that go on where they were after every kind of interruption.

A watch remembers the revision up to which it delivered everything, and a new stream (same member or another) starts
from the next one: nothing is lost and nothing comes twice. What makes that exact:

- The position comes from the events' own `mod_revision`, never from a response's header: that one is the store's
  revision, and events up to it may still be on their way.
- A large revision may come in fragments. They are delivered together, or, when the stream broke in between, dropped
  and asked for again.
- Progress responses move the position only where etcd promises that everything before was sent: to a watch of
  its own, or to all watches that stood when we asked (`request_progress`).

The consumer reads a `Watch`; a bounded queue is between. A consumer that does not read stops the whole stream (gRPC's
flow control then stops etcd), so consumers must be quick; the cache and the election are.
"""

import asyncio
import contextlib
import random
from collections import deque
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc.aio
import structlog

from argosy.controller.store.endpoints import Endpoint, Endpoints
from argosy.controller.store.outcome import NEEDS_LEADER, words_of
from argosy.proto.etcd import rpc_pb2 as pb

log = structlog.get_logger(__name__)

QUEUE = 1024
"""Items between the stream and a consumer."""
SHORTEST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 0.5
ASK_AGAIN_S = 0.1
"""How long etcd may take to answer how far the watches are, before it is asked once more."""


@dataclass(frozen=True, slots=True)
class WatchEvents:
    """All events of one or more whole revisions, in order; `revision` is that of the last."""

    revision: int
    events: tuple[pb.Event, ...]


@dataclass(frozen=True, slots=True)
class WatchProgress:
    """Everything up to this revision was delivered, and it may be later than the last event."""

    revision: int


@dataclass(frozen=True, slots=True)
class WatchCompacted:
    """The wanted revisions are gone; `oldest` is the first that is left. The last item of its watch."""

    oldest: int


WatchItem: TypeAlias = WatchEvents | WatchProgress | WatchCompacted


class Watch:
    """One watch: iterate it. Ends after WatchCompacted, or when closed."""

    def __init__(self, stream: "WatchStream", id: int, key: bytes, range_end: bytes, start_revision: int) -> None:
        self.id = id
        self.key = key
        self.range_end = range_end
        self.next_revision = start_revision
        self.created = False
        self._stream = stream
        self._partial: list[pb.Event] = []
        self._items: deque[WatchItem] = deque()
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._closed = False

    def __aiter__(self) -> "Watch":
        return self

    async def __anext__(self) -> WatchItem:
        while not self._items:
            if self._closed:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        item = self._items.popleft()
        self._room.set()
        if isinstance(item, WatchCompacted):
            self.close()
        return item

    def close(self) -> None:
        """End the watch; whoever iterates it comes to the end. May be called again."""
        if self._closed:
            return
        self._closed = True
        self._items.clear()
        self._stream.remove(self)
        self._arrived.set()
        self._room.set()

    # ---- called by the stream

    def restarted(self) -> None:
        """Forget what a broken stream left unfinished."""
        self.created = False
        self._partial.clear()

    async def received(self, response: pb.WatchResponse) -> None:
        """Take one response that is for this watch."""
        if response.events:
            self._partial.extend(response.events)
        if response.fragment:
            return
        if self._partial:
            events = tuple(self._partial)
            self._partial.clear()
            revision = events[-1].kv.mod_revision
            self.next_revision = revision + 1
            await self._put(WatchEvents(revision, events))
        elif not response.created:
            await self.progressed(response.header.revision)

    async def progressed(self, revision: int) -> None:
        """Take etcd's word that all events up to `revision` were sent."""
        if revision < self.next_revision:
            return
        self.next_revision = revision + 1
        await self._put(WatchProgress(revision))

    async def compacted(self, oldest: int) -> None:
        """Take etcd's word that the start is compacted away."""
        await self._put(WatchCompacted(oldest))

    async def _put(self, item: WatchItem) -> None:
        while len(self._items) >= QUEUE and not self._closed:
            self._room.clear()
            await self._room.wait()
        if not self._closed:
            self._items.append(item)
            self._arrived.set()


class WatchStream:
    """The stream that all watches of a client share. Its task runs from the first watch until `close`."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints
        self._watches: dict[int, Watch] = {}
        self._last_id = 0
        self._task: asyncio.Task[None] | None = None
        self._call: Any = None
        self._outbox: asyncio.Queue[pb.WatchRequest] = asyncio.Queue()
        self._asked: frozenset[int] | None = None
        self._ask_again_at = 0.0
        endpoints.on_move(self._moved)

    def add(self, key: bytes, range_end: bytes, start_revision: int) -> Watch:
        """Start a watch. `start_revision` is the first that is wanted."""
        if start_revision < 1:
            raise ValueError("a watch starts at a revision: that of a list, plus one")
        self._last_id += 1
        watch = Watch(self, self._last_id, key, range_end, start_revision)
        self._watches[watch.id] = watch
        self._outbox.put_nowait(_create(watch))
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="etcd-watch")
        return watch

    def remove(self, watch: Watch) -> None:
        """Stop a watch (Watch.close calls this)."""
        if self._watches.pop(watch.id, None) is not None:
            self._outbox.put_nowait(pb.WatchRequest(cancel_request=pb.WatchCancelRequest(watch_id=watch.id)))

    async def request_progress(self) -> None:
        """Ask how far all watches are, unless the answer to an earlier question may still come.

        etcd leaves a question unanswered while a watch of the stream is still catching up, so it is asked again.
        """
        now = asyncio.get_running_loop().time()
        if self._call is None or (self._asked is not None and now < self._ask_again_at):
            return
        # A watch that is created after the question may be behind the answer: it must not believe it. An answer does
        # not say to which question it belongs, so only those count that were there at every one of them.
        created = frozenset(w.id for w in self._watches.values() if w.created)
        self._asked = created if self._asked is None else self._asked & created
        self._ask_again_at = now + ASK_AGAIN_S
        self._outbox.put_nowait(pb.WatchRequest(progress_request=pb.WatchProgressRequest()))

    async def close(self) -> None:
        """End all watches and the stream."""
        for watch in list(self._watches.values()):
            watch.close()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def _moved(self, _: Endpoint) -> None:
        if self._call is not None:
            self._call.cancel()

    async def _run(self) -> None:
        pause = SHORTEST_PAUSE_S
        while True:
            endpoint = self._endpoints.current
            worked, reason = await self._stream_once(endpoint)
            if worked:
                pause = SHORTEST_PAUSE_S
                log.warning("etcd watch interrupted", endpoint=endpoint.address, reason=reason)
            self._endpoints.failed(endpoint)
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(pause * 2, LONGEST_PAUSE_S)

    async def _stream_once(self, endpoint: Endpoint) -> tuple[bool, str]:
        """Run one stream until it breaks; return whether anything came over it, and why it broke."""
        call = endpoint.stream("/etcdserverpb.Watch/Watch", pb.WatchResponse)(metadata=NEEDS_LEADER)
        self._outbox = asyncio.Queue()
        self._asked = None
        self._ask_again_at = 0.0
        for watch in self._watches.values():
            watch.restarted()
            self._outbox.put_nowait(_create(watch))
        self._call = call
        writer = asyncio.create_task(self._write(call, self._outbox), name="etcd-watch-writer")
        worked = False
        try:
            while (response := await call.read()) is not grpc.aio.EOF:
                worked = True
                if reason := await self._dispatch(response):
                    return True, reason
            return worked, f"the stream ended ({(await call.code()).name.lower()}: {await call.details()})"
        except grpc.aio.AioRpcError as error:
            return worked, words_of(error)
        except asyncio.CancelledError:
            if _is_cancelled():
                raise
            return worked, "moved to another endpoint"  # `_moved` cancelled the call, nobody this task
        finally:
            self._call = None
            call.cancel()
            writer.cancel()
            await asyncio.wait([writer])

    async def _write(self, call: Any, outbox: asyncio.Queue[pb.WatchRequest]) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
            # A broken stream: the reader sees it as well, and acts.
            while True:
                await call.write(await outbox.get())

    async def _dispatch(self, response: pb.WatchResponse) -> str:
        """Hand a response to its watch. Returns a reason to give the stream up, or ""."""
        if response.canceled and not response.compact_revision:
            return f"etcd cancelled a watch: {response.cancel_reason}" if self._is_wanted(response) else ""
        if response.watch_id == -1:
            asked, self._asked = self._asked or frozenset(), None
            for id in asked & self._watches.keys():
                await self._watches[id].progressed(response.header.revision)
            return ""
        watch = self._watches.get(response.watch_id)
        if watch is None:
            return ""
        if response.canceled:
            await watch.compacted(response.compact_revision)
            return ""
        if response.created:
            watch.created = True
        await watch.received(response)
        return ""

    def _is_wanted(self, response: pb.WatchResponse) -> bool:
        # -1: a watch that could not be created at all. An unknown id: the answer to our own cancellation.
        return response.watch_id == -1 or response.watch_id in self._watches


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _create(watch: Watch) -> pb.WatchRequest:
    return pb.WatchRequest(
        create_request=pb.WatchCreateRequest(
            key=watch.key,
            range_end=watch.range_end,
            start_revision=watch.next_revision,
            progress_notify=True,
            watch_id=watch.id,
            fragment=True,
        )
    )
