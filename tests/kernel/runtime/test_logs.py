"""Output: every line with its time, stream and order; rotated; never lost."""

import os
import re
from dataclasses import replace

from .conftest import Host, eventually, sh

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (stdout|stderr) [FP] ")


async def test_lines_have_time_stream_and_flag(host: Host) -> None:
    container_id = await host.launch(sh("echo one; echo two >&2; echo; printf unfinished"))
    await host.wait(container_id)
    lines = host.log_path(container_id).read_text().splitlines()
    assert all(LINE.match(line) for line in lines)
    assert host.lines(container_id) == ["one", "", "unfinished"]
    assert host.lines(container_id, "stderr") == ["two"]
    assert [line.split(" ")[2] for line in lines] == ["F"] * 4


async def test_long_lines_are_cut_into_parts(host: Host) -> None:
    container_id = await host.launch(sh("head -c 40000 /dev/zero | tr '\\0' x; echo; echo end"))
    await host.wait(container_id)
    records = [line.split(" ", 3) for line in host.log_path(container_id).read_text().splitlines()]
    text = "".join(record[3] for record in records)
    assert text == "x" * 40000 + "end"
    assert [record[2] for record in records][-3:] == ["P", "F", "F"]


async def test_an_unfinished_line_waits_for_its_end(host: Host) -> None:
    container_id = await host.launch(sh("printf 'half '; echo other >&2; sleep 0.2; echo whole; sleep 1000"))
    await eventually(lambda: host.lines(container_id) == ["half whole"], "one line")


async def test_rotation_by_size_and_count(host: Host) -> None:
    script = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo line $i of many; done"
    container_id = await host.launch(sh(script), max_bytes=20_000, max_files=3)
    await host.wait(container_id)
    path = host.log_path(container_id)
    names = sorted(entry for entry in os.listdir(path.parent) if entry.startswith(path.name))
    assert names == [path.name, f"{path.name}.1", f"{path.name}.2"]
    assert all((path.parent / name).stat().st_size <= 20_000 for name in names)
    kept = "".join((path.parent / name).read_text() for name in reversed(names)).splitlines()
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
