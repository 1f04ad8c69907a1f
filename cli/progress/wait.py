"""Waits for a goal: watches the cluster and shows how it goes, until it has happened, has failed or takes too long.

A lost connection is taken up again from the last version seen, so a controller's failover only delays. Ctrl-C ends the
waiting, never what the cluster does.
"""

import queue
import shutil
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from argosy.cli import interrupt
from argosy.cli.errors import EXIT_INTERRUPTED, CliError, UnreachableError
from argosy.cli.output import notice
from argosy.cli.progress.goals import Assessment, Goal, Status
from argosy.cli.progress.lines import Narrator, by_urgency, describe, task_lines
from argosy.cli.progress.picture import Picture, Watched
from argosy.cli.progress.report import failure_report
from argosy.core.network import Network
from argosy.core.node import Node
from argosy.core.service import Service
from argosy.core.task import Task

if TYPE_CHECKING:
    from argosy.cli.session import Session
    from argosy.proto.argosy.v1 import control_pb2 as pb

DEFAULT_TIMEOUT_S: Final = 600.0
_TICK_S: Final = 0.5
"""How often what only time changes (waiting reasons, the timeout) is looked at."""
_LOOKING_SHARE: Final = 0.2
"""Of the time, what looking may take: a thousand tasks are not gone through again for each of their changes."""
_RECONNECT_S: Final = 0.3
_SUMMARY_EVERY_S: Final = 1.0
"""Without a terminal the totals are printed this often at most."""
_TYPES: Final[dict[str, type[Any]]] = {"service": Service, "task": Task, "node": Node, "network": Network}


def wait_for(session: "Session", goal: Goal, *, timeout: float = DEFAULT_TIMEOUT_S, continues: str = "") -> Picture:
    """Return what was seen when the goal has been reached.

    Raises CliError when it has failed or `timeout` seconds have passed, with all that explains it. `continues` says
    what goes on in the cluster when the waiting is interrupted ("the deployment goes on").
    """
    picture = Picture()
    watcher = Watcher(session, picture)
    display = _TerminalDisplay() if sys.stderr.isatty() else _PlainDisplay()
    try:
        with display:
            assessment = _until_over(watcher, goal, picture, display, timeout)
    except KeyboardInterrupt:
        raise CliError(
            f"stopped waiting; {continues or 'what was asked for goes on'}",
            "look with 'argosy ps' or 'argosy service ls'",
            status=EXIT_INTERRUPTED,
        ) from None
    finally:
        watcher.stop()
    if assessment.status is Status.DONE:
        return picture
    if assessment.status is Status.FAILED:
        details = failure_report(session, assessment.culprits, picture)
        raise CliError("\n".join([assessment.reason, *details]), assessment.hint)
    raise CliError(
        f"it has not happened within {timeout:g} s: {assessment.reason}",
        "the cluster goes on trying; wait longer with --timeout",
    )


def _until_over(
    watcher: "Watcher", goal: Goal, picture: Picture, display: "_PlainDisplay | _TerminalDisplay", timeout: float
) -> Assessment:
    ends_at = time.monotonic() + timeout
    done_since: float | None = None
    assessment = Assessment(Status.WAITING, reason="the cluster does not answer")
    while True:
        interrupt.check()
        now = time.monotonic()
        if picture.synced:
            assessment = goal.assess(picture)
            display.show(goal, picture, assessment, now)
            if assessment.status is Status.FAILED:
                return assessment
            done_since = (done_since or now) if assessment.status is Status.DONE else None
            if done_since is not None and now - done_since >= assessment.steady_s:
                return assessment
        if now >= ends_at:
            return Assessment(Status.WAITING, assessment.summary, assessment.reason)
        until = min(ends_at, now + _TICK_S)
        if done_since is not None:
            until = min(until, done_since + assessment.steady_s)
        time.sleep(min(rest_after(time.monotonic() - now), max(0.0, until - now)))
        watcher.apply_next(until - time.monotonic())


def rest_after(look_s: float) -> float:
    """Return how long not to look again after a look that took so long, in seconds: changes gather meanwhile."""
    return look_s * (1.0 - _LOOKING_SHARE) / _LOOKING_SHARE


class Watcher:
    """Feeds a picture from the Watch RPC, whose blocking stream a thread reads."""

    def __init__(self, session: "Session", picture: Picture) -> None:
        self._session = session
        self._picture = picture
        self._responses: queue.SimpleQueue[pb.WatchResponse | CliError | None] = queue.SimpleQueue()
        self._version = 0
        self._stopped = threading.Event()
        self._stream: Any = None
        self._told = False
        self._unreachable_since: float | None = None
        threading.Thread(target=self._read, name="watch", daemon=True).start()

    def stop(self) -> None:
        """End the stream."""
        self._stopped.set()
        if self._stream is not None:
            self._stream.cancel()

    @property
    def unreachable_s(self) -> float:
        """For how many seconds no controller could be reached; 0 while one can."""
        return 0.0 if self._unreachable_since is None else time.monotonic() - self._unreachable_since

    def apply_next(self, timeout: float) -> None:
        """Apply what has come, waiting up to `timeout` seconds for the first of it."""
        try:
            response = self._responses.get(timeout=max(0.0, timeout))
            while True:
                self._apply(response)
                response = self._responses.get_nowait()
        except queue.Empty:
            return

    def _apply(self, response: "pb.WatchResponse | CliError | None") -> None:
        from argosy.core.codec import decode

        if response is None:
            self._picture.restart()
            return
        if isinstance(response, CliError):
            if self._unreachable_since is None:
                self._unreachable_since = time.monotonic()
            if not self._told:
                self._told = True
                notice(f"{response.message}; waiting for it")
            return
        self._unreachable_since = None
        for change in response.changes:
            kind = change.WhichOneof("object")
            if kind in _TYPES:
                obj: Watched = decode(getattr(change, kind), _TYPES[kind])
                (self._picture.remove if change.removed else self._picture.put)(obj)
        if response.synced:
            self._picture.mark_synced()

    def _read(self) -> None:
        """Read the stream again and again, each time from where the last one broke off."""
        import grpc

        from argosy.proto.argosy.v1 import control_pb2 as pb

        kinds = [pb.KIND_SERVICE, pb.KIND_TASK, pb.KIND_NODE, pb.KIND_NETWORK]
        while not self._stopped.is_set():
            if not self._version:
                self._responses.put(None)
            request = pb.WatchRequest(project=self._session.project, kinds=kinds, after_version=self._version)
            try:
                self._stream = self._session.control.Watch(request)
                for response in self._stream:
                    self._responses.put(response)
                    self._version = response.version or self._version
            except grpc.RpcError as error:
                if isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.FAILED_PRECONDITION:
                    self._version = 0  # what happened meanwhile cannot be replayed: begin anew
            except UnreachableError as error:
                self._responses.put(error)
            self._stopped.wait(_RECONNECT_S)


class _PlainDisplay:
    """One line a change, to stderr: for logs and pipes."""

    def __init__(self) -> None:
        self._narrator = Narrator()
        self._started = False
        self._summary: tuple[str, ...] = ()
        self._summary_at = 0.0

    def __enter__(self) -> "_PlainDisplay":
        return self

    def __exit__(self, *_: object) -> None:
        return

    def show(self, goal: Goal, picture: Picture, assessment: Assessment, now: float) -> None:
        """Print what has changed."""
        lines = task_lines(goal, picture)
        if not self._started:
            self._started = True
            self._narrator.start(lines)
        for text in self._narrator.tell(lines, now):
            notice(f"  {text}")
        over = assessment.status is not Status.WAITING
        if assessment.summary != self._summary and (over or now - self._summary_at >= _SUMMARY_EVERY_S):
            for text in assessment.summary:
                if text not in self._summary:
                    notice(text)
            self._summary, self._summary_at = assessment.summary, now


class _TerminalDisplay:
    """A block of lines that is drawn again as things change."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(stderr=True), auto_refresh=False, transient=False)

    def __enter__(self) -> "_TerminalDisplay":
        self._live.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._live.__exit__(*exception)

    def show(self, goal: Goal, picture: Picture, assessment: Assessment, now: float) -> None:
        """Draw the present state."""
        from rich.text import Text

        from argosy.cli.output import STATE_COLOURS

        columns, rows = shutil.get_terminal_size()
        text = Text(no_wrap=True, overflow="ellipsis")
        for line in assessment.summary:
            text.append(line + "\n", style="bold")
        shown, more = by_urgency(task_lines(goal, picture), max(3, rows - len(assessment.summary) - 3))
        for task in shown:
            text.append(f"  {task.name}: ")
            text.append(
                describe(task)[: max(10, columns - len(task.name) - 5)], style=STATE_COLOURS.get(task.state.name, "")
            )
            text.append("\n")
        if more:
            text.append(f"  and {more} more\n", style="dim")
        text.rstrip()
        self._live.update(text, refresh=True)
