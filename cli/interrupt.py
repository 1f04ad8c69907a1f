"""Ctrl-C that cannot be lost.

Python drops a KeyboardInterrupt that is raised where exceptions are ignored: in a finaliser, or in a callback of the
import system. So it is remembered too, and whoever waits in a loop asks.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_seen = False


def handle(number: int, frame: FrameType | None) -> NoReturn:
    """Handle SIGINT."""
    global _seen
    _seen = True
    raise KeyboardInterrupt


def check() -> None:
    """Raise the KeyboardInterrupt that came, in case it was lost."""
    if _seen:
        raise KeyboardInterrupt


def acted_on() -> None:
    """Note that the interrupt has been acted on, so that what follows from it can be waited for."""
    global _seen
    _seen = False


@contextmanager
def held() -> Iterator[None]:
    """Hold back the first Ctrl-C that comes in the block: it is only remembered, for `check`. A second one ends it."""
    came = False

    def remember(number: int, frame: FrameType | None) -> None:
        global _seen
        nonlocal came
        if came:
            raise KeyboardInterrupt
        came = _seen = True

    before = signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
