"""`argosy logs`: what tasks write."""

import sys
import time
from datetime import UTC, datetime
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Final

import click

from argosy.cli import complete
from argosy.cli.following import follow as following
from argosy.cli.following import problem
from argosy.cli.output import notice
from argosy.cli.session import Session, pass_session

if TYPE_CHECKING:
    from argosy.proto.argosy.v1 import control_pb2 as pb
    from argosy.proto.argosy.v1 import types_pb2 as types

_COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "bright_cyan", "bright_yellow", "bright_green")

_LONGEST_HELD: Final = 2**20
"""More than this of a line is not held back until it ends."""


@click.command(name="logs", help="Show what the tasks of a service, or one task (by its id), write.")
@click.option("-f", "--follow", is_flag=True, help="Go on as they write.")
@click.option(
    "-n", "--tail", type=click.IntRange(0), default=None, metavar="N", help="Only the last N lines of each task."
)
@click.option("--since", default="", metavar="TIME", help="Only lines since then: 10m ago, or 2026-01-31T12:00:00.")
@click.option("-t", "--timestamps", is_flag=True, help="Show when each line was written.")
@click.option("--no-prefix", is_flag=True, help="Do not show which task wrote a line.")
@click.argument("what", metavar="SERVICE|TASK", shell_complete=complete.services)
@pass_session
def command(
    session: Session, follow: bool, tail: int | None, since: str, timestamps: bool, no_prefix: bool, what: str
) -> None:
    from argosy.proto.argosy.v1 import control_pb2 as pb

    request = pb.LogsRequest(project=session.project, follow=follow, since=_since(since))
    if tail is not None:
        request.tail = tail
    name = _resolve(session, request, what)
    printer = _Printer(name, _node_names(session), timestamps, not no_prefix)
    try:
        for entry in following(session, request, _Lost()) if follow else session.control.Logs(request):
            printer.show(entry)
    finally:
        printer.finish()


class _Lost:
    """Says once that the connection was lost."""

    def __init__(self) -> None:
        self._told = False

    def __call__(self) -> None:
        if not self._told:
            self._told = True
            notice("the connection was lost; trying again")


def _since(text: str) -> float:
    from argosy.core.errors import InvalidError
    from argosy.core.units import parse_duration

    if not text:
        return 0.0
    try:
        return time.time() - parse_duration(text.removesuffix(" ago"))
    except InvalidError:
        pass
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise click.UsageError(f"--since: '{text}' is no time: write a duration (10m) or 2026-01-31T12:00:00") from None


def _resolve(session: Session, request: "pb.LogsRequest", what: str) -> str:
    """Put the service or task that `what` names ("web", "web.2" or a task's id) into the request; return its name."""
    import grpc

    from argosy.proto.argosy.v1 import control_pb2 as pb

    control = session.control
    try:
        service = control.GetService(pb.GetServiceRequest(project=session.project, ref=what))
        request.service = service.meta.id
        return service.spec.name
    except grpc.RpcError as error:
        if not (isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.NOT_FOUND):
            raise
        missing = error
    name, dot, slot = what.rpartition(".")
    if dot and slot.isdecimal():
        tasks = control.ListTasks(pb.ListTasksRequest(project=session.project, service=name, all=True)).tasks
        newest = max((t for t in tasks if t.slot == int(slot)), key=lambda t: t.meta.created_at, default=None)
        if newest is not None:
            request.task = newest.meta.id
            return name
    try:
        task = control.GetTask(pb.GetTaskRequest(project=session.project, ref=what))
    except grpc.RpcError:
        raise missing from None
    request.task = task.meta.id
    try:
        return control.GetService(pb.GetServiceRequest(project=session.project, ref=task.service_id)).spec.name
    except grpc.RpcError:
        return task.service_id


def _node_names(session: Session) -> dict[str, str]:
    from argosy.cli.rows import node_name
    from argosy.proto.argosy.v1 import control_pb2 as pb

    reply = session.control.ListNodes(pb.ListNodesRequest(project=session.project))
    return {node.meta.id: node_name(node) for node in reply.nodes}


class _Printer:
    """Prints entries in whole lines, with the task's name and node in front; what was for stderr goes to stderr."""

    def __init__(self, service: str, nodes: dict[str, str], timestamps: bool, prefix: bool) -> None:
        self._service = service
        self._nodes = nodes
        self._timestamps = timestamps
        self._prefix = prefix
        self._width = 0
        self._colour = sys.stdout.isatty()
        self._unfinished: dict[tuple[str, bool], bytes] = {}

    def show(self, entry: "pb.LogEntry") -> None:
        """Print one entry, except a line that is not finished."""
        who = f"{self._service}.{entry.slot or self._nodes.get(entry.node_id, entry.node_id)}"
        if said := problem(entry):
            for stderr in (False, True):  # something may be missing here: a line before it does not go on behind it
                if unfinished := self._unfinished.pop((entry.task_id, stderr), b""):
                    click.echo(unfinished, err=stderr)
            notice(f"{who}: {said}")
        name = self._head(who, entry) if self._prefix else b""
        for stderr, outputs in groupby(entry.output, key=attrgetter("stderr")):
            click.echo(b"".join([self._lines(name, entry.task_id, output) for output in outputs]), err=stderr, nl=False)

    def _lines(self, name: bytes, task_id: str, output: "types.LogOutput") -> bytes:
        """Return the lines that are whole by now, with their heads."""
        head = name + _stamp(output.at) if self._timestamps else name
        # A line that goes on has its head already. What is behind the last newline is a head alone, or a line.
        text = self._unfinished.pop((task_id, output.stderr), head) + output.data.replace(b"\n", b"\n" + head)
        end = text.rfind(b"\n") + 1
        if not output.data.endswith(b"\n"):
            end = end if len(text) - end <= _LONGEST_HELD else len(text)
            self._unfinished[task_id, output.stderr] = text[end:]
        return text[:end]

    def finish(self) -> None:
        """Print the lines that are not finished, as they are."""
        before = False
        for (_, stderr), text in self._unfinished.items():
            click.echo(b"\n" * before + text, err=stderr, nl=False)
            before = True

    def _head(self, who: str, entry: "pb.LogEntry") -> bytes:
        node = self._nodes.get(entry.node_id, "")
        text = f"{who}@{node}" if node and entry.slot else who
        self._width = max(self._width, len(text))
        text = f"{text:{self._width}} | "
        if self._colour:
            text = click.style(text, fg=_COLOURS[entry.slot % len(_COLOURS)])
        return text.encode()


def _stamp(at: float) -> bytes:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").encode() + b" "
