"""Election: one leader at a time, epochs that grow, and a leader that stops before another may start."""

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from argosy.controller.store import Candidate, Election, EtcdClient, EtcdConfig, Put
from argosy.core.ambient import boottime
from argosy.core.errors import LostLeadershipError, NotFoundError
from argosy.core.task import Task

from .conftest import a_task, until

TTL_S = 2.0  # etcd's minimum with its default election timeout


def candidate(client, cluster, id="one", margin_s=0.5):
    return Election(client, cluster, Candidate(id, f"{id}:1"), ttl_s=TTL_S, margin_s=margin_s)


async def wait_lost(leadership, timeout=15):
    async with asyncio.timeout(timeout):
        await leadership.lost.wait()


async def test_the_first_leads_and_all_can_see_it(client, cluster):
    election = candidate(client, cluster)
    assert await election.leader() is None
    async with election.lead() as leadership:
        record = await candidate(client, cluster, "two").leader()
        assert (record.id, record.address, record.epoch) == ("one", "one:1", leadership.epoch)
        assert leadership.held()
    assert await election.leader() is None
    assert not leadership.held()


async def test_epochs_grow(client, cluster):
    epochs = []
    for id in ("one", "two", "one"):
        async with candidate(client, cluster, id).lead() as leadership:
            epochs.append(leadership.epoch)
    assert epochs == sorted(set(epochs))


async def test_a_leader_stays_beyond_its_first_lease(client, cluster):
    async with candidate(client, cluster).lead() as leadership:
        first = leadership.confirmed_at
        await until(lambda: leadership.confirmed_at > first + 1.5 * TTL_S)
        assert leadership.held()


async def test_a_leader_that_is_busy_for_longer_than_its_lease_stays(client, cluster):
    async with candidate(client, cluster).lead() as leadership:
        time.sleep(TTL_S + 0.3)  # noqa: ASYNC251 (the event loop does nothing else meanwhile)
        assert leadership.held()
        assert (await candidate(client, cluster, "two").leader()).epoch == leadership.epoch


async def test_resigning_hands_over_at_once(client, cluster):
    async with candidate(client, cluster, "first").lead() as first:
        second_leads = asyncio.create_task(_lead_once(candidate(client, cluster, "two")))
        await asyncio.wait([second_leads], timeout=0.2)
        assert not second_leads.done()
    began = time.monotonic()
    assert await second_leads > first.epoch
    took = time.monotonic() - began
    print(f"hand-over after a resignation: {took * 1000:.0f} ms")
    assert took < TTL_S


async def _lead_once(election):
    async with election.lead() as leadership:
        return leadership.epoch


async def test_revoking_hands_over_at_once_and_fences(client, cluster, store):
    async with candidate(client, cluster).lead() as old:
        await store.commit([Put(a_task("before"), None)], old.fence)
        second = candidate(client, cluster, "two")
        began = time.monotonic()
        await second.revoke_leader(await second.leader())
        async with second.lead() as new:
            took = time.monotonic() - began
            await wait_lost(old)
            assert not old.held()
            with pytest.raises(LostLeadershipError):
                old.check()
            with pytest.raises(LostLeadershipError, match=f"epoch {new.epoch} does"):
                await store.commit([Put(a_task("late"), None)], old.fence)
            (outcome,) = await store.commit_batched([[Put(a_task("late"), None)]], old.fence)
            assert isinstance(outcome.error, LostLeadershipError)
            await store.commit([Put(a_task("after"), None)], new.fence)
        with pytest.raises(LostLeadershipError, match="nobody does"):
            await store.commit([Put(a_task("late"), None)], new.fence)
    print(f"hand-over after a revocation: {took * 1000:.0f} ms")
    assert took < TTL_S
    with pytest.raises(NotFoundError):
        await store.get(Task, "default", "late")


async def test_a_leader_paused_past_its_lease_cannot_write(etcd, client, cluster, store):
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("paused_leader.py")),
        etcd.endpoint,
        cluster,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        word, epoch = (await process.stdout.readline()).split()
        assert word == b"leading"
        process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        async with asyncio.timeout(20), candidate(client, cluster, "two").lead() as leadership:
            print(f"hand-over after a pause: {time.monotonic() - began:.2f} s with a lease of {TTL_S:g} s")
            assert leadership.epoch > int(epoch)
            process.stdin.write(b"try\n")
            process.send_signal(signal.SIGCONT)
            answer = await process.stdout.readline()
        assert answer.split() == [b"False", b"LostLeadershipError"]
        with pytest.raises(NotFoundError):
            await store.get(Task, "default", "forged")
    finally:
        process.kill()
        await process.wait()


async def test_a_leader_cut_off_gives_up_before_its_lease_ends(own_etcd, cluster):
    """etcd is paused: nothing is confirmed any more, and nobody says so."""
    async with EtcdClient(EtcdConfig((own_etcd.endpoint,))) as client:
        async with candidate(client, cluster, margin_s=1.0).lead() as leadership:
            own_etcd.pause()
            await wait_lost(leadership)
            assert not leadership.held()
            since = boottime() - leadership.confirmed_at
            own_etcd.resume()
        assert since < TTL_S


async def test_run_cancels_the_term_and_leads_again(client, cluster):
    terms = []
    cancelled = []

    async def term(leadership):
        terms.append(leadership)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(leadership.epoch)
            raise

    election = candidate(client, cluster)
    task = asyncio.create_task(election.run(term))
    await until(lambda: len(terms) == 1)
    await election.revoke_leader(await election.leader())
    await until(lambda: len(terms) == 2)
    assert cancelled == [terms[0].epoch]
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert cancelled == [t.epoch for t in terms]
    assert await election.leader() is None


async def test_what_a_term_raises_goes_through(client, cluster):
    async def term(_):
        raise RuntimeError("bug")

    election = candidate(client, cluster)
    with pytest.raises(RuntimeError, match="bug"):
        await election.run(term)
    assert await election.leader() is None


async def test_observers_see_each_leader(client, cluster):
    seen = []

    async def observe():
        async for record in candidate(client, cluster, "observer").observe():
            seen.append(record.id if record else None)

    task = asyncio.create_task(observe())
    await until(lambda: seen == [None])
    for id in ("one", "two"):
        async with candidate(client, cluster, id).lead():
            await until(lambda id=id: seen[-1] == id)
    await until(lambda: seen == [None, "one", None, "two", None])
    task.cancel()
    await asyncio.wait([task])


async def test_of_many_candidates_one_leads_at_a_time(client, cluster):
    leading = set()
    led = []

    async def stand(id):
        async with candidate(client, cluster, id).lead() as leadership:
            leading.add(id)
            assert leading == {id}
            led.append(leadership.epoch)
            await asyncio.sleep(0)
            leading.remove(id)

    async with asyncio.timeout(30):
        await asyncio.gather(*(stand(f"c{n}") for n in range(5)))
    assert led == sorted(set(led))
    assert len(led) == 5
