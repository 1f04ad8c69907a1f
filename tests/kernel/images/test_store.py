"""The store keeps what it promises: shared, fetched once, resumed, verified, never half there, never deleted in use."""

import asyncio
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from argosy.agent.images import worker
from argosy.agent.images.store import ImageStore, Limits
from argosy.core.errors import ExhaustedError, RejectedError, TransientError
from tests.pace import machine_slowness
from tests.rootfs import layer_tar, stored_image

BIG = 300_000


def image_with(blobs, *contents, name="test:1"):
    image, content = stored_image(
        *(layer_tar({"name": f"f{i}", "content": c}) for i, c in enumerate(contents)), name=name
    )
    blobs.content.update(content)
    return image


def on_disk(store):
    return sorted(os.listdir(store._directory.layers))


async def until(condition, deadline_s=60):
    async with asyncio.timeout(deadline_s):
        while not condition():  # noqa: ASYNC110  # what is waited for happens in other processes
            await asyncio.sleep(0.005)


async def test_images_share_layers(store, blobs):
    one = image_with(blobs, b"base", b"one")
    two = image_with(blobs, b"base", b"two")
    first, second = await store.ensure(one), await store.ensure(two)
    assert first.layers[0] == second.layers[0]
    assert len(on_disk(store)) == 3
    assert len(blobs.fetched) == 3
    assert (Path(first.layers_root) / first.layers[1] / "f1").read_bytes() == b"one"


async def test_many_at_once_fetch_once(store, blobs):
    image = image_with(blobs, b"a" * BIG, b"b" * BIG)
    results = await asyncio.gather(*(store.ensure(image) for _ in range(50)))
    assert len({r.layers for r in results}) == 1
    assert len(blobs.fetched) == 2


async def test_cancelling_one_takes_nothing_from_the_others(store, blobs):
    image = image_with(blobs, b"a" * BIG)
    first = asyncio.create_task(store.ensure(image))
    await until(lambda: store._work)
    second = asyncio.create_task(store.ensure(image))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).layers
    assert len(blobs.fetched) == 1
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_broken_transfer_is_resumed(store, blobs):
    image = image_with(blobs, os.urandom(BIG))
    blobs.spoil = lambda digest, offset, data: data[:150_000] if offset == 0 else data
    with pytest.raises(TransientError, match="ended after 150000 of"):
        await store.ensure(image)
    assert (await store.ensure(image)).layers
    assert [offset for _, offset in blobs.fetched] == [0, 150_000]


async def test_damage_on_the_way_is_fetched_again(store, blobs):
    image = image_with(blobs, os.urandom(BIG))

    def flip_once(digest, offset, data):
        if len(blobs.fetched) == 1:
            return data[:1000] + bytes([data[1000] ^ 1]) + data[1001:]
        return data

    blobs.spoil = flip_once
    assert (await store.ensure(image)).layers
    assert len(blobs.fetched) == 2


@pytest.mark.parametrize("at", [0, 100, 600, 200_000])
async def test_damage_at_the_source_is_refused(store, blobs, at):
    image = image_with(blobs, os.urandom(BIG), name="web:1")
    blobs.spoil = lambda digest, offset, data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    with pytest.raises(
        RejectedError, match=r"image web:1: layer sha256:.* does not match its digest.*import the image"
    ):
        await store.ensure(image)
    assert on_disk(store) == []


async def test_a_wrong_diff_id_is_refused(store, blobs):
    from dataclasses import replace

    image = image_with(blobs, b"x")
    image = replace(image, layers=(replace(image.layers[0], diff_id="sha256:" + "0" * 64),))
    with pytest.raises(RejectedError, match=r"content has the digest sha256:.*, its image says sha256:0000"):
        await store.ensure(image)
    assert on_disk(store) == []


async def test_a_longer_blob_is_refused(store, blobs):
    image = image_with(blobs, b"x")
    blobs.spoil = lambda digest, offset, data: data + b"more"
    with pytest.raises(RejectedError, match="longer than"):
        await store.ensure(image)


async def test_a_missing_blob_is_refused(store, blobs):
    image = image_with(blobs, b"x")
    blobs.content.clear()
    with pytest.raises(RejectedError, match="image test:1: no blob"):
        await store.ensure(image)


async def test_too_little_room_is_said_before_fetching(tmp_path, blobs):
    image = image_with(blobs, b"x")
    store = ImageStore(tmp_path / "i", blobs.fetch, Limits(min_free_bytes=2**60))
    await store.open()
    with pytest.raises(ExhaustedError, match="free space under"):
        await store.ensure(image)
    assert blobs.fetched == []


async def test_a_full_disk_is_said(tmp_path, blobs):
    disk = tmp_path / "disk"
    disk.mkdir()
    image = image_with(blobs, b"x" * 3_000_000)
    mount = await asyncio.create_subprocess_exec("mount", "-t", "tmpfs", "-o", "size=4m", "argosy-images-test", disk)
    assert await mount.wait() == 0
    try:
        store = ImageStore(disk / "i", blobs.fetch, Limits(min_free_bytes=0))
        await store.open()
        with pytest.raises(ExhaustedError, match=r"image test:1: .*disk.*free space under"):
            await store.ensure(image)
        assert on_disk(store) == []
        assert os.listdir(disk / "i" / "trash") == []
        assert os.listdir(disk / "i" / "blobs") == []
    finally:
        await (await asyncio.create_subprocess_exec("umount", disk)).wait()


def workers():
    """Pids of this process's unpacking workers."""
    children = [pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]
    found = []
    for pid in children:
        try:
            if "argosy.agent.images.unpack" in Path(f"/proc/{pid}/cmdline").read_text():
                found.append(int(pid))
        except OSError:
            continue
    return found


async def test_a_worker_that_dies_leaves_nothing_and_may_be_tried_again(store, blobs):
    image = image_with(blobs, os.urandom(20 * 2**20))
    task = asyncio.create_task(store.ensure(image))
    await until(workers)
    os.kill(workers()[0], signal.SIGKILL)
    with pytest.raises(TransientError, match="unpacking ended early"):
        await task
    assert on_disk(store) == []
    assert os.listdir(store._directory.root / "staging") == []
    assert (await store.ensure(image)).layers
    assert len(blobs.fetched) == 1  # the blob was there already


async def test_close_ends_the_workers(store, blobs):
    image = image_with(blobs, os.urandom(20 * 2**20))
    task = asyncio.create_task(store.ensure(image))
    await until(workers)
    await store.close()
    assert workers() == []
    with pytest.raises(TransientError, match="stopping"):
        await task


async def test_close_ends_a_worker_that_is_only_being_spawned(store, blobs, monkeypatch):
    """What a thread has begun is done whether its caller is cancelled or not."""
    spawning, spawned = threading.Event(), threading.Event()
    spawn = worker._spawn

    def slow_spawn(command):
        spawning.set()
        assert spawned.wait(60)
        return spawn(command)

    monkeypatch.setattr(worker, "_spawn", slow_spawn)
    task = asyncio.create_task(store.ensure(image_with(blobs, b"x")))
    await until(spawning.is_set)
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0)
    spawned.set()
    await closing
    assert workers() == []
    with pytest.raises(TransientError, match="stopping"):
        await task


CRASH = """
import asyncio, os, sys
from pathlib import Path
from argosy.agent.images.store import ImageStore
from argosy.core.image import Image, Layer
async def fetch(digest, offset):
    yield Path(sys.argv[2]).read_bytes()[offset:]
async def main():
    store = ImageStore(Path(sys.argv[1]), fetch)
    await store.open()
    size = os.path.getsize(sys.argv[2])
    await store.ensure(Image(name="x", layers=(Layer(sys.argv[3], sys.argv[3], size),)))
asyncio.run(main())
"""


@pytest.mark.parametrize("moment", ["unpacking", "renamed"])
async def test_a_crash_in_the_middle_leaves_only_what_the_next_start_removes(tmp_path, blobs, moment):
    entries = [{"name": f"d{i}/f", "content": os.urandom(2000)} for i in range(4000)]
    image, content = stored_image(layer_tar(*entries))
    blobs.content.update(content)
    blob = tmp_path / "blob"
    blob.write_bytes(next(iter(content.values())))
    root = tmp_path / "i"
    child = await asyncio.create_subprocess_exec(
        worker.COMMAND[0], "-I", "-c", CRASH, root, blob, image.layers[0].digest
    )
    staging = root / "staging"
    await until(lambda: staging.exists() and any(p.exists() for p in staging.glob("*/root/d100")))
    child.kill()
    await child.wait()
    # The worker dies with its agent.
    await until(lambda: not any(_uses(pid, root) for pid in os.listdir("/proc") if pid.isdigit()))
    if moment == "renamed":  # the instant between the rename and the marker
        staged = next(staging.glob("*/root"))
        staged.rename(root / "layers" / image.layers[0].diff_id.removeprefix("sha256:")[:32])
    (root / "markers" / "half.new").write_text("{")
    store = ImageStore(root, blobs.fetch)
    await store.open()
    assert [os.listdir(root / name) for name in ("layers", "staging", "trash", "markers")] == [[], [], [], []]
    unpacked = await store.ensure(image)
    assert len(os.listdir(Path(unpacked.layers_root) / unpacked.layers[0])) == 4000
    again = ImageStore(root, blobs.fetch)
    await again.open()
    assert await again.ensure(image) == unpacked
    assert blobs.fetched == []  # the blob of the crash was complete


def _uses(pid, root):
    try:
        return str(root) in Path(f"/proc/{pid}/cmdline").read_text() or str(root) in os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return False


async def test_retain_deletes_what_nothing_needs(store, blobs):
    one = image_with(blobs, b"base", b"one")
    two = image_with(blobs, b"base", b"two")
    layers = (await store.ensure(one)).layers
    await store.ensure(two)
    assert await store.retain([one, two]) == ()
    assert await store.retain([one], in_use=(await store.ensure(two)).layers) == ()
    deleted = await store.retain([one])
    assert len(deleted) == 1
    assert on_disk(store) == sorted(layers)
    assert (await store.ensure(two)).layers
    assert await store.retain([]) != ()
    assert on_disk(store) == []
    assert os.listdir(store._directory.root / "trash") == []


async def test_retain_keeps_what_is_being_made_or_was_just_asked_for(tmp_path, blobs):
    image = image_with(blobs, b"a" * BIG, b"b" * BIG)
    store = ImageStore(tmp_path / "i", blobs.fetch)
    await store.open()
    task = asyncio.create_task(store.ensure(image))
    while not task.done():
        await store.retain([])
        await asyncio.sleep(0)
    unpacked = await task
    assert await store.retain([]) == ()
    assert on_disk(store) == sorted(unpacked.layers)
    assert len(blobs.fetched) == 2


async def test_the_event_loop_does_not_stall(store, blobs):
    entries = [{"name": f"d{i % 50}/f{i}", "content": b"x" * 500} for i in range(4000)]
    image, content = stored_image(layer_tar(*entries))
    blobs.content.update(content)
    longest, stop = 0.0, asyncio.Event()

    async def watch():
        nonlocal longest
        while not stop.is_set():
            before = time.thread_time()  # CPU time: how long others of the machine keep us waiting does not count
            await asyncio.sleep(0.001)
            longest = max(longest, time.thread_time() - before)

    watching = asyncio.create_task(watch())
    await store.ensure(image)
    stop.set()
    await watching
    assert longest < 0.05 * machine_slowness()
