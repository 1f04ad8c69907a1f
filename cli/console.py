"""This process's terminal, or standard input, joined to a program in the cluster. Used by `argosy run`.

While joined a terminal is raw: every key goes to the program, Ctrl-C too. It is given back as it was found, whatever
ends this process short of a kill -9.
"""

import contextlib
import os
import queue
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from argosy.cli.session import Session
    from argosy.proto.argosy.v1 import control_pb2 as pb

_STDIN: Final = 0
_READ_BYTES: Final = 32768
_READ_AHEAD: Final = 16
"""How many reads of standard input may wait for the connection, whose flow control reaches there."""
_LOOK_S: Final = 0.2
"""How often it is looked whether the terminal has another size, or all is over."""


class Console:
    """One attachment. `attach` runs in a thread of its own; the rest belongs to the main thread."""

    def __init__(self, session: "Session", *, terminal: bool) -> None:
        self._session = session
        self.terminal = terminal
        self._before: list[Any] | None = None
        self._resized = False
        self._input: queue.Queue[bytes | None] = queue.Queue(_READ_AHEAD)
        self._over = threading.Event()

    @contextlib.contextmanager
    def ready(self) -> Iterator[None]:
        """Notice changes of the terminal's size, and give it back at the end."""
        if not self.terminal:
            yield
            return
        before = signal.signal(signal.SIGWINCH, self._on_resize)
        try:
            yield
        finally:
            signal.signal(signal.SIGWINCH, before)
            self.restore()

    def _on_resize(self, number: int, frame: FrameType | None) -> None:
        self._resized = True

    def attach(self, task_id: str) -> None:
        """Join the program of a task until it ends; grpc.RpcError when it cannot be, or the connection breaks."""
        if self.terminal:
            self._before = termios.tcgetattr(_STDIN)
            tty.setraw(_STDIN, termios.TCSADRAIN)
            self._resized = True
        threading.Thread(target=self._read, daemon=True).start()
        responses = self._session.control.Attach(self._requests(task_id))
        try:
            for response in responses:
                sys.stdout.buffer.write(response.output)
                sys.stdout.buffer.flush()
        finally:
            responses.cancel()
            self._over.set()
            self.restore()

    def restore(self) -> None:
        """Give the terminal back as it was found; may be repeated."""
        before, self._before = self._before, None
        if before is not None:
            with contextlib.suppress(termios.error):  # it was closed
                termios.tcsetattr(_STDIN, termios.TCSADRAIN, before)

    def _read(self) -> None:
        """Read ahead until the end, which is None. Never joined: a read of a terminal cannot be called off."""
        data: bytes | None = b""
        while data is not None and not self._over.is_set():
            try:
                data = os.read(_STDIN, _READ_BYTES) or None
            except OSError:
                data = None
            self._input.put(data)

    def _requests(self, task_id: str) -> "Iterator[pb.AttachRequest]":
        """Yield what is to be sent, until all is over: the end of this would be the end of the attachment."""
        from argosy.proto.argosy.v1 import control_pb2 as pb
        from argosy.proto.argosy.v1 import types_pb2 as types

        yield pb.AttachRequest(project=self._session.project, task=task_id)
        while not self._over.is_set():
            if self._resized:
                self._resized = False
                size = os.get_terminal_size(_STDIN)
                window = types.WindowSize(rows=size.lines, columns=size.columns)
                yield pb.AttachRequest(input=types.ConsoleInput(size=window))
            with contextlib.suppress(queue.Empty):
                data = self._input.get(timeout=_LOOK_S)
                yield pb.AttachRequest(input=types.ConsoleInput(data=data) if data else types.ConsoleInput(end=True))
