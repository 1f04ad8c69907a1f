"""Reading logs: tails, positions, rotation, following."""

import asyncio
import os

import pytest

from argosy.agent.launcher.logs import ContainerLog, LogPolicy, Scratch
from argosy.agent.logs.reader import Extent, LogFiles, read_output


def record(n, text=None, flag="F", stream="stdout"):
    return f"2026-11-21T00:00:{n:02d}.123456789Z {stream} {flag} {text or f'line {n}'}\n"


def at(n):
    return 1795219200.0 + n


async def parts_of(path, *, follow=False, ended=None, **extent):
    return [part async for part in read_output(path, Extent(**extent), follow=follow, ended=ended or asyncio.Event())]


def lines_of(parts):
    text = b"".join(output.data for part in parts for output in part.outputs)
    return text.decode().splitlines()


async def collect(path, **options):
    return lines_of(await parts_of(path, **options))


def write_rotated(tmp_path, *texts):
    """Write files of a log, the oldest first."""
    end = 0
    for text in texts[:-1]:
        end += len(text)
        (tmp_path / f"log.{end}").write_text(text)
    (tmp_path / "log").write_text(texts[-1])
    return tmp_path / "log"


async def test_rotated_files_come_first(tmp_path):
    log = write_rotated(tmp_path, record(1), record(2), record(3) + record(4))
    assert await collect(log) == ["line 1", "line 2", "line 3", "line 4"]
    assert await collect(log, tail=2) == ["line 3", "line 4"]
    assert await collect(log, tail=0) == []
    assert await collect(log, since=at(2)) == ["line 2", "line 3", "line 4"]
    assert await collect(log, since=at(2), tail=9) == ["line 2", "line 3", "line 4"]


async def test_a_line_that_goes_on_in_the_next_file_is_one(tmp_path):
    log = write_rotated(tmp_path, record(1, "begin-", "P"), record(2, "end"), record(3, "unfinished", "P"))
    assert await collect(log) == ["begin-end", "unfinished"]
    assert await collect(log, tail=2) == ["begin-end", "unfinished"]


async def test_from_a_position_on_nothing_is_told_twice(tmp_path):
    log = write_rotated(tmp_path, record(1), record(2), record(3) + record(4))
    for position in (0, len(record(1)), len(record(1) * 2), len(record(1) * 3), len(record(1) * 4), 10**6):
        got = await parts_of(log, position=position, tail=1, since=at(50))
        done = min(4, position // len(record(1)))
        assert lines_of(got) == [f"line {n}" for n in range(done + 1, 5)]
        assert not any(part.missing for part in got)


async def test_what_was_rotated_away_is_told(tmp_path):
    log = write_rotated(tmp_path, record(1), record(2), record(3))
    (tmp_path / f"log.{len(record(1))}").unlink()
    whole = await parts_of(log)
    assert (lines_of(whole), whole[0].missing) == (["line 2", "line 3"], 0), "who asks for what there is misses nothing"
    assert [(part.missing, lines_of([part])) for part in await parts_of(log, position=5)] == [
        (len(record(1)) - 5, ["line 2"]),
        (0, ["line 3"]),
    ]


async def test_the_position_behind_nothing_is_told(tmp_path):
    async with asyncio.timeout(5):
        async for part in read_output(tmp_path / "none", Extent(tail=3), follow=True, ended=asyncio.Event()):
            assert (part.outputs, part.position) == ([], 0)
            break


async def test_following_sees_every_line_across_rotation(tmp_path):
    log, ended = tmp_path / "log", asyncio.Event()
    log.write_text(record(1))
    reading = asyncio.create_task(collect(log, follow=True, ended=ended))
    with log.open("a") as stream:
        for n in range(2, 20):
            stream.write(record(n))
            stream.flush()
            await asyncio.sleep(0)
    log.rename(tmp_path / f"log.{log.stat().st_size}")
    log.write_text(record(20))
    ended.set()
    assert await reading == [f"line {n}" for n in range(1, 21)]


@pytest.fixture
def written(tmp_path):
    """A function that has the launcher's log take some text; its files are of 2,000 bytes."""
    ends = ContainerLog.make_pipes(str(tmp_path), os.getuid(), os.getgid())
    log = ContainerLog(str(tmp_path), LogPolicy(str(tmp_path / "log"), 2000, 4), Scratch())
    log.open()
    out = next(pipe for pipe, name in log.pipes.items() if name == "out")

    def write(text):
        os.write(ends[0], text)
        while log.pump(out):
            pass

    yield write
    log.close()
    for end in ends:
        os.close(end)


def test_one_who_reads_slower_than_a_log_is_rotated_misses_only_what_has_gone(tmp_path, written):
    log, got, missing = LogFiles(tmp_path / "log", 0), b"", 0

    def read():
        nonlocal got, missing
        for part in log.parts():
            got += b"".join(output.data for output in part.outputs)
            missing += part.missing

    texts = [b"%04d " % number + b"x" * 500 + b"\n" for number in range(100)]
    for number, text in enumerate(texts):
        written(text)
        if number < 80 and number % 8 == 0:  # two or three rotations between
            read()
    assert (missing, got) == (0, b"".join(texts[:73])), "what was rotated is still there"
    read()
    later = got.splitlines(keepends=True)[73:]
    held = next(n for n, text in enumerate(later) if text != texts[73 + n])  # to the end of the file that it had open
    assert later[held:] == texts[100 - len(later) + held :]
    record_bytes = len(record(0, "x", "F")) - 1 + len(texts[0]) - 1
    assert missing == (27 - len(later)) * record_bytes > 0
    assert log.position == 100 * record_bytes


async def test_no_file_is_no_lines(tmp_path):
    ended = asyncio.Event()
    ended.set()
    assert await collect(tmp_path / "none" / "log", follow=True, ended=ended) == []
