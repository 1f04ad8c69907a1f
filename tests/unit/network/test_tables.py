from pathlib import Path

import pytest

from argosy.agent.network.tables import Tables


class Kernel:
    """Stands for nftables: lists the last text that it was given."""

    def __init__(self) -> None:
        self.text: str | None = None
        self.transactions = 0

    def run(self, commands: str) -> str:
        self.text = commands
        self.transactions += 1
        return ""

    def listing(self, table: str, *, terse: bool) -> str | None:
        return self.text

    def generation(self) -> bytes:
        return self.transactions.to_bytes(4, "big")


def test_a_table_that_was_written_and_could_not_be_remembered_is_told_of_by_the_next_try(tmp_path: Path) -> None:
    """Whoever writes one has to deal with what began while it was not there."""
    kernel, path = Kernel(), tmp_path / "tables.json"
    tables = Tables(path)
    path.mkdir()  # so that no file can take its place
    with pytest.raises(IsADirectoryError):
        tables.ensure("", "argosy", "rules", kernel)  # type: ignore[arg-type]
    path.rmdir()
    assert tables.ensure("", "argosy", "rules", kernel)  # type: ignore[arg-type]
    assert not tables.ensure("", "argosy", "rules", kernel)  # type: ignore[arg-type]
    assert kernel.transactions == 2
