"""A change that finds nothing to do is judged by what is there, not by what a controller has heard of yet."""

import asyncio

from argosy.controller.changes.commit import change


class Etcd:
    """Store and cache in one: the cache shows what it was waited for."""

    def __init__(self, shown, there):
        self.snapshot, self.there = shown, there
        self.written = []
        self.contended = asyncio.Lock()

    async def revision(self):
        return 9

    async def wait_for(self, revision):
        self.snapshot = self.there

    async def commit(self, ops):
        self.written += ops
        return 9


def activate(snap):
    return ([] if snap == "active" else ["activate"]), snap


async def test_what_another_controller_has_just_answered_is_seen():
    etcd = Etcd("active", "drained")
    assert await change(etcd, etcd, activate) == "drained"
    assert etcd.written == ["activate"]


async def test_what_is_so_already_is_not_written():
    etcd = Etcd("active", "active")
    assert await change(etcd, etcd, activate) == "active"
    assert etcd.written == []
