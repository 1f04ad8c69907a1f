"""What fails in a pass that goes on all the same: collected, and raised together at its end."""

from collections.abc import Iterator
from contextlib import contextmanager

from argosy.core.errors import TransientError


class Problems:
    """Of one pass. `scopes`: whom something failed for: the ids of networks, "" for the host."""

    def __init__(self) -> None:
        self.scopes: set[str] = set()
        self._reasons: dict[str, None] = {}  # the same one twice says no more

    def add(self, reason: str, scope: str | None = None) -> None:
        """Take note of what failed."""
        self._reasons[reason] = None
        if scope is not None:
            self.scopes.add(scope)

    @contextmanager
    def of(self, what: str, scope: str | None = None) -> Iterator[None]:
        """Have the pass go on where the block fails with OSError or TransientError, of which `what` is said."""
        try:
            yield
        except (OSError, TransientError) as error:
            self.add(f"{what}: {error}", scope)

    def tell(self) -> None:
        """Raise TransientError with all reasons, if there are any."""
        if self._reasons:
            raise TransientError("; ".join(self._reasons))
