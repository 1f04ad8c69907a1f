"""Whether there is something to read, also from a descriptor above 1,023, which select(2) cannot be asked about."""

import select
from typing import Protocol


class HasDescriptor(Protocol):
    """A socket, for example."""

    def fileno(self) -> int:
        """Return its descriptor."""


def readable(what: int | HasDescriptor, seconds: float = 0) -> bool:
    """Wait until something can be read, or has ended; False if it is not so within that time."""
    poll = select.poll()
    poll.register(what, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
