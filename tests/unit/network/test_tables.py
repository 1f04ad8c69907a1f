from pathlib import Path
from typing import cast

from argosy.agent.network.nft import Nft
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


def test_a_table_is_written_and_told_of_though_that_cannot_be_written_down(tmp_path: Path) -> None:
    """Whoever has one written has to deal with what began while it was not there."""
    kernel, path = Kernel(), tmp_path / "tables.json"
    nft = cast(Nft, kernel)
    tables = Tables(path)
    path.mkdir()  # so that no file can take its place
    assert tables.ensure("", "argosy", "rules", nft)
    assert not tables.ensure("", "argosy", "rules", nft)
    assert kernel.transactions == 1
    path.rmdir()
    assert tables.ensure("net", "argosy", "others", nft)
    later = Tables(path)
    later.load()
    assert later.known("")
