"""Delays between tries: exponential, capped, with full jitter, so that a fleet does not come back in step."""

import random


class Backoff:
    """Grows from `first_s` to `cap_s` by doubling; each delay is drawn between half of that and all of it."""

    def __init__(self, first_s: float = 0.1, cap_s: float = 5.0) -> None:
        self._first_s = first_s
        self._cap_s = cap_s
        self._next_s = first_s

    def next(self) -> float:
        """Return the delay before the next try, in seconds."""
        delay = self._next_s
        self._next_s = min(self._cap_s, delay * 2)
        return random.uniform(delay / 2, delay)

    def reset(self) -> None:
        """Start over: the last try succeeded."""
        self._next_s = self._first_s
