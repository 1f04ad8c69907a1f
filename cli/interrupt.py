"""Ctrl-C that cannot be lost.

Python drops a KeyboardInterrupt that is raised where exceptions are ignored: in a finaliser, or in a callback of the
import system. So it is remembered too, and whoever waits in a loop asks.
"""

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
