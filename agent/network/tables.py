"""nftables tables: written when their text changes, and found again unchanged after a restart.

The kernel's listing of a table is not the text it was made from. So the digest of both is remembered, in a file that
lasts as long as the kernel's state does (`run_dir`): a later life of the agent then knows that a table is its own.
Named sets in these tables are filled by packets alone, so what they hold is left out.
"""

import hashlib
import json
import os
from pathlib import Path

import structlog

from argosy.agent.network.nft import Nft

log = structlog.get_logger(__name__)


def _digest(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()


class Tables:
    """What is in force, by scope (a network's id, or "" for the host): digests of text and listing."""

    __slots__ = ("_checked", "_intact_at", "_path", "_records")

    def __init__(self, path: Path) -> None:
        self._path = path
        self._records: dict[str, tuple[str, str]] = {}
        self._checked: set[str] = set()
        self._intact_at: dict[str, bytes] = {}

    def load(self) -> None:
        """Read what a former life remembered; an unreadable file only means that all is written again."""
        try:
            raw = json.loads(self._path.read_text())
            self._records = {scope: (str(text), str(listed)) for scope, (text, listed) in raw.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            self._records = {}
        self._checked.clear()
        self._intact_at.clear()

    def ensure(self, scope: str, table: str, ruleset: str, nft: Nft) -> bool:
        """Have a table of a namespace be what `ruleset` makes it; tell whether it had to be written."""
        record = self._records.get(scope)
        if record and record[0] == _digest(ruleset):
            if scope in self._checked:
                return False
            if self.intact(scope, table, nft):
                self._checked.add(scope)
                return False
        nft.run(ruleset)
        listed = nft.listing(table, terse=True) or ""
        self._records[scope] = (_digest(ruleset), _digest(listed))
        self._checked.add(scope)
        self._save()
        return True

    def intact(self, scope: str, table: str, nft: Nft) -> bool:
        """Tell whether the kernel lists a table as it did when it was written; one never written must not be there."""
        generation = nft.generation()
        if self._intact_at.get(scope) == generation:
            return True
        listed = nft.listing(table, terse=True)
        record = self._records.get(scope)
        if (_digest(listed) if listed is not None else None) != (record[1] if record else None):
            return False
        self._intact_at[scope] = generation
        return True

    def distrust(self, scope: str) -> None:
        """Have the table written again at the next `ensure`."""
        self._records.pop(scope, None)
        self._intact_at.pop(scope, None)
        self._checked.discard(scope)

    def forget(self, scope: str) -> None:
        """Forget a table that is gone."""
        if self._records.pop(scope, None):
            self._save()
        self._intact_at.pop(scope, None)
        self._checked.discard(scope)

    def written_from(self, scope: str, ruleset: str) -> bool:
        """Tell whether a table was last written from just this ruleset."""
        record = self._records.get(scope)
        return record is not None and record[0] == _digest(ruleset)

    def known(self, scope: str) -> bool:
        """Tell whether a table of this scope was written."""
        return scope in self._records

    def _save(self) -> None:
        """Write down what is in force; without it a later life only writes all of it again."""
        temporary = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(self._records))
            temporary.replace(self._path)
        except OSError as error:
            log.warning("what tables are in force cannot be written down", path=str(self._path), why=str(error))
