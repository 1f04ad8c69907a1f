"""Reading on behind what was read when the connection to the cluster is lost."""

import threading
from types import SimpleNamespace

import grpc
import pytest

from argosy.cli.commands.run import await_rest
from argosy.cli.errors import UnreachableError
from argosy.cli.following import follow
from argosy.proto.argosy.v1 import control_pb2 as pb
from argosy.proto.argosy.v1 import types_pb2 as types


class Broken(grpc.RpcError, grpc.Call):
    """A call that has failed."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "Socket closed"


class Cluster:
    """Answers each request with what is behind its positions, but breaks off after as many as `breaks` says."""

    def __init__(self, entries: list[pb.LogEntry], breaks: list[int | Exception]) -> None:
        self.entries = entries
        self.breaks = breaks
        self.requests: list[pb.LogsRequest] = []
        self.control = SimpleNamespace(Logs=self._logs)

    def _logs(self, request: pb.LogsRequest):
        asked = pb.LogsRequest()
        asked.CopyFrom(request)
        self.requests.append(asked)
        due = self.breaks.pop(0) if self.breaks else None
        if isinstance(due, Exception):
            raise due
        return self._stream(asked.positions, due)

    def _stream(self, positions, due: int | None):
        fitting = [entry for entry in self.entries if entry.notice or entry.position > positions.get(entry.task_id, 0)]
        yield from fitting[:due]
        if due is not None:
            raise Broken(grpc.StatusCode.UNAVAILABLE)


def wrote(task: str, position: int, text: str) -> pb.LogEntry:
    return pb.LogEntry(task_id=task, position=position, output=[types.LogOutput(data=text.encode())])


OUTPUT = [
    pb.LogEntry(task_id="c", notice="its node is DOWN"),
    wrote("a", 10, "a0"),
    wrote("b", 7, "b0"),
    wrote("a", 20, "a1\na2"),
    wrote("b", 8, "b1"),
    wrote("b", 9, "b2"),
]


@pytest.mark.parametrize("first", range(len(OUTPUT) + 1))
@pytest.mark.parametrize("second", [1, 3])
def test_nothing_is_lost_or_told_twice_where_connections_break(first, second, monkeypatch) -> None:
    monkeypatch.setattr("argosy.cli.following._RETRY_S", 0.0)
    cluster = Cluster(OUTPUT, [first, second, UnreachableError(("c:1",))] if first else [first, second])
    lost: list[int] = []
    got = list(follow(cluster, pb.LogsRequest(tail=100, follow=True), lambda: lost.append(1)))
    assert [e for e in got if not e.notice] == OUTPUT[1:]
    assert len(lost) == len(cluster.requests) - 1


def test_what_is_refused_or_never_answered_is_not_asked_again() -> None:
    refused = Cluster([], [Broken(grpc.StatusCode.NOT_FOUND)])
    with pytest.raises(grpc.RpcError):
        list(follow(refused, pb.LogsRequest(), lambda: None))
    away = Cluster([], [UnreachableError(("c:1",))])
    with pytest.raises(UnreachableError):
        list(follow(away, pb.LogsRequest(), lambda: None))


@pytest.mark.parametrize("falls_silent", [False, True])
def test_run_takes_output_for_as_long_as_more_comes(monkeypatch, falls_silent) -> None:
    monkeypatch.setattr("argosy.cli.commands.run._LAST_LINES_S", 0.5)
    monkeypatch.setattr("argosy.cli.commands.run._TICK_S", 0.01)
    passed, ends = [], threading.Event()

    def read() -> None:
        for _ in range(10):
            ends.wait(0.1)
            passed.append(1)
        if falls_silent:
            ends.wait(60)

    reader = threading.Thread(target=read)
    reader.start()
    assert await_rest(reader, lambda: len(passed), lambda: False) is not falls_silent
    assert len(passed) == 10
    ends.set()
    reader.join()


def test_run_waits_for_whoever_reads_its_output(monkeypatch) -> None:
    monkeypatch.setattr("argosy.cli.commands.run._LAST_LINES_S", 0.05)
    monkeypatch.setattr("argosy.cli.commands.run._TICK_S", 0.01)
    writing, looks = threading.Event(), []
    writing.set()
    reader = threading.Thread(target=lambda: wait_until_clear(writing))
    reader.start()

    def is_writing() -> bool:
        looks.append(1)
        if len(looks) == 20:  # 0.2 s: the reader of our output was slow
            writing.clear()
        return writing.is_set()

    assert await_rest(reader, lambda: 0, is_writing)
    reader.join()


def wait_until_clear(event: threading.Event) -> None:
    while event.is_set():
        threading.Event().wait(0.005)
