"""A person at a terminal: the command runs with a pseudo-terminal of its own, as its session's."""

import fcntl
import os
import pty
import select
import struct
import termios
import time

from tests.e2e.dev_cluster import ARGOSY

DEADLINE_S = 60.0


class BrokenOff(Exception):
    """The command says that the connection to the program broke."""


def at_terminal(cluster, scenario, *args):
    """Go through a scenario in a terminal; once more when the cluster changed its leader meanwhile, as it may."""
    for attempt in range(3):
        try:
            with Terminal(cluster, *args) as terminal:
                scenario(terminal)
            return
        except BrokenOff:
            if attempt == 2:
                raise


class Terminal:
    """`argosy ARGS` in a terminal of 24 rows and 80 columns; used as a context."""

    def __init__(self, cluster, *args):
        self._environment = {**os.environ, **cluster.environment, "TERM": "xterm"}
        self._args = args
        self._seen = ""
        self.pid = 0

    def __enter__(self):
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            try:
                fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
                os.execve(ARGOSY, ["argosy", *self._args], self._environment)
            finally:
                os._exit(127)
        self._before = termios.tcgetattr(self._master)
        return self

    def __exit__(self, *_):
        if self.pid:
            os.kill(self.pid, 9)
            os.waitpid(self.pid, 0)
        os.close(self._master)

    def type(self, text):
        """Type it."""
        os.write(self._master, text.encode())

    def resize(self, rows, columns):
        """Change the window's size; the kernel tells the command."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def expect(self, text):
        """Return what is shown up to a text and with it."""
        deadline = time.monotonic() + DEADLINE_S
        while text not in self._seen:
            if "is ended: " in self._seen:
                raise BrokenOff(self._seen)
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} did not come: {self._seen!r}"
            if select.select([self._master], [], [], left)[0]:
                try:
                    self._seen += os.read(self._master, 65536).decode()
                except OSError:
                    raise AssertionError(f"ended before {text!r} came: {self._seen!r}") from None
        shown, _, self._seen = self._seen.partition(text)
        return shown + text

    def end(self):
        """Return the command's exit status, once it has ended; the terminal has to be as it was."""
        deadline = time.monotonic() + DEADLINE_S
        while not (ended := os.waitpid(self.pid, os.WNOHANG))[0]:
            assert time.monotonic() < deadline, "it does not end"
            if select.select([self._master], [], [], 0.05)[0]:
                try:
                    self._seen += os.read(self._master, 65536).decode()
                except OSError:
                    continue
        self.pid = 0
        assert termios.tcgetattr(self._master) == self._before
        return os.waitstatus_to_exitcode(ended[1])
