"""Output: every line with its time, stream and order; rotated; never lost."""

import os
import random
import re
import signal
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from argosy.agent.launcher.logs import ContainerLog, LogPolicy, Scratch, rotated_ends
from argosy.agent.launcher.loop import Loop
from argosy.agent.logs.records import parse

from .conftest import Host, eventually, sh

WAITING = "while true; do sleep 0.05; done"

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (stdout|stderr) [FP] ")


async def test_lines_have_time_stream_and_flag(host: Host) -> None:
    container_id = await host.launch(sh("echo one; echo two >&2; echo; printf unfinished"))
    await host.wait(container_id)
    lines = host.log_path(container_id).read_text().splitlines()
    assert all(LINE.match(line) for line in lines)
    assert host.lines(container_id) == ["one", "", "unfinished"]
    assert host.lines(container_id, "stderr") == ["two"]
    assert [line.split(" ")[2] for line in lines].count("P") == 1, "the unfinished one"


async def test_long_lines_are_cut_into_parts(host: Host) -> None:
    container_id = await host.launch(sh("head -c 40000 /dev/zero | tr '\\0' x; echo; echo end"))
    await host.wait(container_id)
    records = [line.split(" ", 3) for line in host.log_path(container_id).read_text().splitlines()]
    text = "".join(record[3] for record in records)
    assert text == "x" * 40000 + "end"
    assert [record[2] for record in records][-3:] == ["P", "F", "F"]


async def test_an_unfinished_line_is_written_at_once_and_goes_on(host: Host) -> None:
    container_id = await host.launch(sh(f"trap 'echo whole; exit' TERM; echo other >&2; printf 'half '; {WAITING}"))
    await eventually(lambda: host.lines(container_id) == ["half "], "its begin")
    await host.runtime.kill(container_id, signal.SIGTERM)
    await host.wait(container_id)
    assert (host.lines(container_id), host.lines(container_id, "stderr")) == (["half whole"], ["other"])


def test_a_writer_that_fills_the_pipe_again_while_something_is_left_in_it_does_not_hang(tmp_path: Path) -> None:
    """It sleeps in the midst of its write, and the kernel wakes a reader for more only where the pipe was empty."""
    ends = ContainerLog.make_pipes(str(tmp_path), 0, 0)
    log = ContainerLog(str(tmp_path), LogPolicy(str(tmp_path / "log"), 2**24, 2), Scratch())
    log.open()
    loop = Loop()
    for pipe in log.pipes:
        loop.watch(pipe, partial(log.pump, pipe))
    sent = random.Random(0).randbytes(2_000_000)
    writer = threading.Thread(target=os.write, args=(ends[0], sent), daemon=True)
    writer.start()
    deadline = time.monotonic() + 30
    while writer.is_alive():
        assert time.monotonic() < deadline, "the writer sleeps"
        loop.after(0.01, lambda: None)
        loop.turn()
    log.finish()
    assert b"".join(output.data for output in parse((tmp_path / "log").read_bytes())) == sent
    for end in ends:
        os.close(end)


async def test_rotation_by_size_and_count(host: Host) -> None:
    script = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo line $i of many; done"
    container_id = await host.launch(sh(script), max_bytes=20_000, max_files=3)
    await host.wait(container_id)
    path = host.log_path(container_id)
    ends = rotated_ends(str(path))
    files = [path.parent / f"{path.name}.{end}" for end in ends]
    assert len(files) == 2
    assert ends[1] - ends[0] == files[1].stat().st_size, "a name tells how much was written up to the file's end"
    assert all(file.stat().st_size <= 20_000 for file in [*files, path])
    kept = "".join(file.read_text() for file in [*files, path]).splitlines()
    numbers = [int(line.split(" ")[4]) for line in kept]
    assert numbers == list(range(3000 - len(numbers) + 1, 3001))


async def test_a_flood_arrives_whole_and_does_not_stall_others(host: Host) -> None:
    flood = await host.launch(sh("seq 1 100000"), max_bytes=50 * 2**20)
    other = await host.launch(sh("echo hello; sleep 1000"))
    await eventually(lambda: host.lines(other) == ["hello"], "the other's line")
    await host.wait(flood)
    assert host.lines(flood) == [str(number) for number in range(1, 100_001)]


async def test_stdout_can_be_opened_by_the_user_again(host: Host) -> None:
    """Programs such as nginx log to /dev/stdout, as an unprivileged user."""
    _, lines = await host.run(replace(sh("echo again > /dev/stdout; echo err > /dev/stderr"), user="ann"))
    assert lines == ["again", "err"]


async def test_a_full_log_disk_loses_output_and_not_the_container(host: Host) -> None:
    container_id = await host.create(sh("echo lost; read x < /srv/new; echo go >&2; sleep 0.3; echo back; sleep 1000"))
    path = host.log_path(container_id)
    path.parent.parent.joinpath("logs").write_text("a file where the directory of the log should be")
    await host.runtime.start(container_id)
    pid = await host.pid(container_id)
    directory = path.parent
    await eventually(lambda: os.path.exists(f"/proc/{pid}"), "the container lives")
    directory.unlink()
    await eventually(lambda: "back" in host.lines(container_id), "output again")
    assert container_id not in host.exits
