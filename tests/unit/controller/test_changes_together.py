"""Changes that many ask for at the same time go in one write; each gets its own answer."""

import asyncio

import pytest

from argosy.controller.changes.commit import TRIES, Changes
from argosy.controller.store import Outcome
from argosy.core.errors import ArgosyError, ConflictError, ExistsError, InvalidError, NoLeaderError


class Etcd:
    """Store and cache: takes what comes, or what `verdicts` say of the operations of a group."""

    def __init__(self):
        self.writes = []
        self.verdicts = {}
        self.snapshot = 7

    async def commit_batched(self, groups):
        self.writes.append([list(group) for group in groups])
        await asyncio.sleep(0)
        outcomes = []
        for group in groups:
            errors = self.verdicts.get(group[0], []) if group else []
            outcomes.append(Outcome(error=errors.pop(0)) if errors else Outcome(revision=9))
        return outcomes

    async def revision(self):
        return 9

    async def wait_for(self, revision):
        assert revision in (0, 9)


@pytest.fixture
async def etcd():
    etcd = Etcd()
    etcd.changes = Changes(etcd, etcd)
    etcd.running = asyncio.create_task(etcd.changes.run())
    yield etcd
    etcd.running.cancel()
    await asyncio.gather(etcd.running, return_exceptions=True)


def asked(etcd, *names):
    """Ask for changes of these names at once."""
    return asyncio.gather(
        *(etcd.changes.make(lambda snap, name=name: ([name], f"{name} at {snap}")) for name in names),
        return_exceptions=True,
    )


async def test_they_go_together(etcd):
    assert await asked(etcd, "a", "b", "c") == ["a at 7", "b at 7", "c at 7"]
    assert etcd.writes == [[["a"], ["b"], ["c"]]]


async def test_a_conflict_is_decided_anew_and_concerns_nobody_else(etcd):
    etcd.verdicts = {"b": [ConflictError("it changed")]}
    assert await asked(etcd, "a", "b") == ["a at 7", "b at 7"]
    assert etcd.writes == [[["a"], ["b"]], [["b"]]]


async def test_who_is_refused_is_told_why(etcd):
    etcd.verdicts = {"b": [ExistsError("taken")], "c": [ConflictError("again")] * TRIES}
    first, second, third = await asked(etcd, "a", "b", "c")
    assert first == "a at 7"
    assert isinstance(second, ExistsError)
    assert isinstance(third, ConflictError)
    assert len(etcd.writes) == TRIES


async def test_what_cannot_be_decided_is_not_written(etcd):
    def refuse(snap):
        raise InvalidError("no such name")

    with pytest.raises(InvalidError):
        await etcd.changes.make(refuse)
    assert await etcd.changes.make(lambda snap: ([], "nothing to do")) == "nothing to do"
    assert [group for write in etcd.writes for group in write if group] == []


async def test_nobody_waits_for_a_term_that_is_over(etcd):
    etcd.commit_batched = lambda groups: asyncio.Event().wait()
    waiting = asyncio.create_task(etcd.changes.make(lambda snap: (["a"], "a")))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    etcd.running.cancel()
    for ask in (waiting, etcd.changes.make(lambda snap: (["b"], "b"))):
        with pytest.raises(NoLeaderError):
            await ask


async def test_a_store_that_is_away_is_said_to_everyone(etcd):
    async def away(groups):
        raise ArgosyError("etcd is away")

    etcd.commit_batched = away
    assert [str(error) for error in await asked(etcd, "a", "b")] == ["etcd is away"] * 2
