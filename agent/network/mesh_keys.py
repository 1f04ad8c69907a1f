"""The node's private keys for its tunnels: made here, kept in the agent's state directory, never sent anywhere.

One file an epoch (core/mesh.py), mode 0600. A key of an epoch that is over is deleted.
"""

import os
from collections.abc import Collection
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

_SUFFIX: Final = ".key"
_KEY_BYTES: Final = 32


class MeshKeys:
    """Used by the plane's worker thread alone."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known: dict[int, bytes] = {}

    def private(self, epoch: int) -> bytes:
        """Return the private key of an epoch, made when it is first asked for. Raises OSError."""
        if epoch not in self._known:
            self._known[epoch] = self._load(epoch) or self._make(epoch)
        return self._known[epoch]

    def public(self, epoch: int) -> bytes:
        """Return the public key of an epoch. Raises OSError."""
        return X25519PrivateKey.from_private_bytes(self.private(epoch)).public_key().public_bytes_raw()

    def retain(self, epochs: Collection[int]) -> None:
        """Delete the keys of all other epochs."""
        for path in self._directory.glob(f"*{_SUFFIX}"):
            if path.stem not in {str(e) for e in epochs}:
                path.unlink(missing_ok=True)
        self._known = {e: key for e, key in self._known.items() if e in epochs}

    def epochs(self) -> list[int]:
        """Return the epochs that there are keys of."""
        return sorted(int(p.stem) for p in self._directory.glob(f"*{_SUFFIX}") if p.stem.isdigit())

    def _load(self, epoch: int) -> bytes | None:
        try:
            key = self._path(epoch).read_bytes()
        except FileNotFoundError:
            return None
        return key if len(key) == _KEY_BYTES else None  # torn by a crash: nobody was told its public key

    def _make(self, epoch: int) -> bytes:
        key = X25519PrivateKey.generate().private_bytes_raw()
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = self._directory / f"{epoch}.new"
        temporary.unlink(missing_ok=True)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, key)
        finally:
            os.close(fd)
        temporary.replace(self._path(epoch))
        return key

    def _path(self, epoch: int) -> Path:
        return self._directory / f"{epoch}{_SUFFIX}"
