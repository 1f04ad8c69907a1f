"""Log lines, wire messages, exit statuses and control files: the launcher's pure parts, as tables."""

import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from argosy.agent.launcher import cgroup_v1, cgroup_v2, exits, wire
from argosy.agent.launcher.cgroup_host import mount_points
from argosy.agent.launcher.errors import LaunchError, from_os_error
from argosy.agent.launcher.logformat import MAX_LINE_BYTES, encode, timestamp
from argosy.agent.launcher.rundir import Record, remove_tree
from argosy.agent.logs.records import parse

NOW = 1_700_000_000_123_456_789
HEAD = b"2023-11-14T22:13:20.123456789Z stdout"


def test_timestamps() -> None:
    assert timestamp(NOW) == b"2023-11-14T22:13:20.123456789Z"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", b""),
        (b"a\n", HEAD + b" F a\n"),
        (b"a\nb\npart", HEAD + b" F a\n" + HEAD + b" F b\n" + HEAD + b" P part\n"),
        (b"part", HEAD + b" P part\n"),
        (b"\n\n", HEAD + b" F \n" + HEAD + b" F \n"),
    ],
)
def test_lines(data: bytes, text: bytes) -> None:
    assert encode(data, b"stdout", NOW) == text


@settings(deadline=None)
@given(st.binary(max_size=3 * MAX_LINE_BYTES))
def test_every_byte_is_kept_once(data: bytes) -> None:
    text = encode(data, b"stdout", NOW)
    assert b"".join(output.data for output in parse(text)) == data
    assert max(map(len, text.split(b"\n"))) <= len(HEAD) + 3 + MAX_LINE_BYTES


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.text(), st.integers() | st.text())), st.integers(1, 50))
def test_messages_survive_any_cut(messages: list[dict[str, Any]], size: int) -> None:
    stream = b"".join(wire.pack(message) for message in messages)
    unpacker, received = wire.Unpacker(), []
    for start in range(0, len(stream), size):
        received += unpacker.feed(stream[start : start + size])
    assert received == messages


@pytest.mark.parametrize("stream", [b"\xff\xff\xff\xff", b"\0\0\0\1x", b"\0\0\0\2[]"])
def test_broken_streams(stream: bytes) -> None:
    with pytest.raises(wire.ProtocolError):
        wire.Unpacker().feed(stream)


@pytest.mark.parametrize(
    ("status", "code", "number"), [(0, 0, None), (7 << 8, 7, None), (9, 137, 9), (139, 139, 11), (None, None, None)]
)
def test_statuses(status: int | None, code: int | None, number: int | None) -> None:
    ended = exits.from_status(status, oom_killed=False, now=1.0)
    assert (ended.code, ended.signal) == (code, number)


@pytest.mark.parametrize(
    ("resources", "v1", "v2"),
    [
        ({}, [], []),
        ({"pids": {"limit": 5}}, [("pids", "pids.max", "5")], [("pids", "pids.max", "5")]),
        ({"pids": {"limit": -1}}, [("pids", "pids.max", "max")], [("pids", "pids.max", "max")]),
        (
            {"memory": {"limit": 100, "swap": 150}},
            [("memory", "memory.limit_in_bytes", "100"), ("memory", "memory.memsw.limit_in_bytes", "150")],
            [("memory", "memory.max", "100"), ("memory", "memory.swap.max", "50")],
        ),
        (
            {"unified": {"memory.high": "80"}},
            [("memory", "memory.soft_limit_in_bytes", "80")],
            [("memory", "memory.high", "80")],
        ),
        (
            {"cpu": {"shares": 1024, "quota": 50_000, "period": 100_000}},
            [
                ("cpu", "cpu.shares", "1024"),
                ("cpu", "cpu.cfs_period_us", "100000"),
                ("cpu", "cpu.cfs_quota_us", "50000"),
            ],
            [("cpu", "cpu.weight", "39"), ("cpu", "cpu.max", "50000 100000")],
        ),
        ({"cpu": {"cpus": "0"}}, [("cpuset", "cpuset.cpus", "0")], [("cpuset", "cpuset.cpus", "0")]),
    ],
)
def test_control_files(resources: dict[str, Any], v1: list[Any], v2: list[Any]) -> None:
    assert cgroup_v1.limit_writes(resources) == v1
    assert cgroup_v2.limit_writes(resources) == v2


@pytest.mark.parametrize("name", ["../x.y", "cgroup.procs", "noname"])
def test_raw_files_stay_in_the_group(name: str) -> None:
    with pytest.raises(LaunchError):
        cgroup_v2.limit_writes({"unified": {name: "1"}})


def test_mounted_hierarchies() -> None:
    hybrid = (
        "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
        "34 31 0:31 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n"
        "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n"
    )
    unified, controllers = mount_points(hybrid)
    assert unified == "/sys/fs/cgroup/unified"
    assert controllers["cpu"] == controllers["cpuacct"] == "/sys/fs/cgroup/cpu,cpuacct"
    assert controllers["memory"] == "/sys/fs/cgroup/memory"


def test_errors_are_classified_by_errno() -> None:
    assert from_os_error(OSError(12, "Cannot allocate memory"), "clone").kind == "transient"
    refused = from_os_error(OSError(22, "Invalid argument", b"/x"), "mount")
    assert (refused.kind, refused.reason) == ("rejected", "mount: Invalid argument (/x) [EINVAL]")


def test_a_record_survives_a_torn_last_line(tmp_path: Any) -> None:
    record = Record(str(tmp_path))
    assert record.read() == {}
    record.append({"status": "created", "pid": 1})
    record.append({"status": "running"})
    with open(tmp_path / "state.jsonl", "a") as file:
        file.write('{"status": "stop')
    assert record.read() == {"status": "running", "pid": 1}


def test_trees_are_removed_within_a_budget(tmp_path: Any) -> None:
    tree = tmp_path / "tree"
    (tree / "deep/er").mkdir(parents=True)
    (tree / "deep/er/file").touch()
    os.symlink(tmp_path, tree / "link")
    assert not remove_tree(str(tree), budget=2)
    assert remove_tree(str(tree))
    assert not tree.exists()
    assert tmp_path.exists()
    assert remove_tree(str(tree))
