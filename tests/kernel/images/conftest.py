"""What the tests of layers on disk share: a store over blobs in memory, and an overlay mount of what it unpacked."""

import contextlib
import ctypes
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from argosy.agent.images.store import ImageStore, Limits, Unpacked
from argosy.core.errors import RejectedError


class Blobs:
    """A source of blobs which counts, and can be told to misbehave."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}
        self.fetched: list[tuple[str, int]] = []
        self.spoil: Callable[[str, int, bytes], bytes] = lambda digest, offset, data: data

    async def fetch(self, digest: str, offset: int) -> AsyncIterator[bytes]:
        self.fetched.append((digest, offset))
        if digest not in self.content:
            raise RejectedError(f"no blob {digest}")
        data = self.spoil(digest, offset, self.content[digest][offset:])
        for at in range(0, len(data), 65536):
            yield data[at : at + 65536]


@pytest.fixture
def blobs() -> Blobs:
    return Blobs()


@pytest_asyncio.fixture
async def store(tmp_path: Path, blobs: Blobs) -> AsyncIterator[ImageStore]:
    made = ImageStore(
        tmp_path / "images", blobs.fetch, Limits(max_unpacked_bytes=30 * 2**20, max_entries=5000), keep_after_use_s=0
    )
    await made.open()
    yield made
    await made.close()


@contextlib.contextmanager
def overlay(unpacked: Unpacked, place: Path, options: str = "") -> Iterator[Path]:
    """Mount an unpacked image as a container would see it, and unmount it in any case."""
    for name in ("upper", "work", "merged"):
        (place / name).mkdir(parents=True)
    lower = ":".join(f"{unpacked.layers_root}/{name}" for name in reversed(unpacked.layers))
    options = f"{options}lowerdir={lower},upperdir={place}/upper,workdir={place}/work"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, place / "merged"], check=True)
    try:
        yield place / "merged"
    finally:
        ctypes.CDLL(None).umount2(os.fsencode(place / "merged"), 2)
