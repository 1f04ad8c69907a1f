"""Dev clusters that come and go at once share parent directories."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from argosy.cli.dev import directories


def test_one_comes_while_another_goes(tmp_path: Path) -> None:
    shared = tmp_path / "argosy/dev"

    def come_and_go(name: str) -> None:
        for _ in range(300):
            mine = shared / name
            directories.make(mine)
            mine.rmdir()
            directories.remove_unused((shared, shared.parent))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(come_and_go, "abcd"))
    assert list(tmp_path.iterdir()) == []


def test_parents_in_use_stay(tmp_path: Path) -> None:
    directories.make(tmp_path / "argosy/dev/one")
    directories.make(tmp_path / "argosy/dev/one")
    directories.remove_unused((tmp_path / "argosy/dev", tmp_path / "argosy"))
    assert (tmp_path / "argosy/dev/one").is_dir()
