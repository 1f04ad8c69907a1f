"""Listing everything, page by page: what differs from the snapshot there was, or whether anything does.

Both take turns with the other tasks of the event loop, so that it is never held up by the size of the cluster.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from argosy.controller.store.history import Step
from argosy.controller.store.keys import Keyspace
from argosy.controller.store.records import from_bytes
from argosy.controller.store.snapshot import Change, Snapshot, slot_of
from argosy.core.kinds import StoredObject
from argosy.proto.etcd import rpc_pb2 as pb

TURN = 500
"""Keys handled before other tasks get a turn: some 10 ms."""


class Listing:
    """A list of everything at one revision, being turned into the changes that lead there from `before`."""

    def __init__(self, before: Snapshot, keys: Keyspace) -> None:
        self._before = before
        self._keys = keys
        self._snapshot = before
        self._changes: list[Change] = []
        self._seen: set[tuple[type[Any], str]] = set()
        self._kept = 0
        self._revision = 0

    async def add(self, page: pb.RangeResponse) -> None:
        """Take the next page."""
        self._revision = self._revision or page.header.revision
        async for kvs in _in_turns(page):
            changes = [c for kv in kvs if (c := self._change_of(kv)) is not None]
            self._snapshot = self._snapshot.apply(self._revision, changes)
            self._changes += changes

    def finish(self) -> tuple[Step, Snapshot]:
        """Return all changes, and the snapshot that has them."""
        gone = self._before.removals(self._seen) if self._kept < self._before.total() else []
        return Step(self._revision, (*self._changes, *gone)), self._snapshot.apply(self._revision, gone)

    def _change_of(self, kv: pb.KeyValue) -> Change | None:
        at = self._keys.parse(kv.key)
        if at is None:
            return None
        old: StoredObject | None = self._before.get(at.kind.domain, at.id, at.project)
        if old is not None:
            self._kept += 1
        self._seen.add((at.kind.domain, slot_of(at.kind.domain, at.project, at.id)))
        # Of an etcd that went back to a backup the versions mean something else now.
        comparable = self._revision >= self._before.revision
        if old is not None and comparable and old.meta.version == kv.mod_revision:
            return None
        return Change(at.kind.domain, at.id, old, from_bytes(at.kind, kv.value, kv.mod_revision))


class Comparison:
    """The versions of everything in etcd at a snapshot's revision, counted against the snapshot."""

    def __init__(self, snapshot: Snapshot, keys: Keyspace) -> None:
        self._snapshot = snapshot
        self._keys = keys
        self._found = 0
        self._different = 0

    async def add(self, page: pb.RangeResponse) -> None:
        """Take the next page; its values are not needed."""
        async for kvs in _in_turns(page):
            for kv in kvs:
                self._compare(kv)

    def _compare(self, kv: pb.KeyValue) -> None:
        at = self._keys.parse(kv.key)
        if at is None:
            return
        ours: StoredObject | None = self._snapshot.get(at.kind.domain, at.id, at.project)
        self._found += ours is not None
        self._different += ours is None or ours.meta.version != kv.mod_revision

    def differences(self) -> int:
        """Return how many objects differ, or are on one side only."""
        return self._different + self._snapshot.total() - self._found


async def _in_turns(page: pb.RangeResponse) -> AsyncIterator[Sequence[pb.KeyValue]]:
    for start in range(0, len(page.kvs), TURN):
        yield page.kvs[start : start + TURN]
        await asyncio.sleep(0)
