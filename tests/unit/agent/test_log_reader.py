"""Reading logs: tails, rotation, long lines, following."""

import asyncio

from argosy.agent.logs.reader import parse_record, read_lines


def record(n, text=None, flag="F", stream="stdout"):
    return f"2026-11-21T00:00:{n:02d}.123456789Z {stream} {flag} {text or f'line {n}'}\n"


async def collect(path, *, tail=None, since=0.0, follow=False, ended=None):
    return [
        line.text.decode()
        async for line in read_lines(path, tail=tail, since=since, follow=follow, ended=ended or asyncio.Event())
    ]


def test_a_record():
    line, whole = parse_record(record(7, stream="stderr").encode())
    assert (line.text, line.stderr, whole) == (b"line 7", True, True)
    assert round(line.at % 60, 3) == 7.123
    assert parse_record(b"nonsense\n") is None


async def test_rotated_files_come_first(tmp_path):
    log = tmp_path / "log"
    (tmp_path / "log.2").write_text(record(1))
    (tmp_path / "log.1").write_text(record(2))
    log.write_text(record(3) + record(4))
    assert await collect(log) == ["line 1", "line 2", "line 3", "line 4"]
    assert await collect(log, tail=2) == ["line 3", "line 4"]
    assert await collect(log, tail=0) == []


async def test_pieces_of_long_lines_are_joined_even_across_files(tmp_path):
    log = tmp_path / "log"
    (tmp_path / "log.1").write_text(record(1, "begin-", "P"))
    log.write_text(record(2, "err", stream="stderr") + record(3, "end"))
    assert await collect(log) == ["err", "begin-end"]


async def test_following_sees_every_line_across_rotation(tmp_path):
    log, ended = tmp_path / "log", asyncio.Event()
    log.write_text(record(1))
    reading = asyncio.create_task(collect(log, follow=True, ended=ended))
    with log.open("a") as stream:
        for n in range(2, 20):
            stream.write(record(n))
            stream.flush()
            await asyncio.sleep(0)
    log.rename(tmp_path / "log.1")
    log.write_text(record(20))
    ended.set()
    assert await reading == [f"line {n}" for n in range(1, 21)]


async def test_no_file_is_no_lines(tmp_path):
    ended = asyncio.Event()
    ended.set()
    assert await collect(tmp_path / "none", follow=True, ended=ended) == []
