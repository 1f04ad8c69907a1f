"""The controllers' key-encryption keys, and the envelopes made with them.

Each version of a secret is sealed with a data key of its own (AES-256-GCM); the data key is sealed with a
key-encryption key, which is in a file of every controller and never in etcd: a copy of etcd's data tells nothing. Both
bind the secret's project, name and version as additional data, so that an envelope copied onto another secret does not
open.

The file has one key a line, 32 bytes in base64; blank lines and what follows a "#" do not count. The first one seals;
all of them open, so that a new key can be put before an old one. A key's id is made from the key, and tells nothing
about it.
"""

import base64
import binascii
import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from argosy.core.errors import InvalidError, PreconditionError
from argosy.core.files import Sealed

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_GROUP_AND_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


class Keyring:
    """Keys by id, in the file's order. Without any it seals and opens nothing, and says so."""

    def __init__(self, keys: tuple[bytes, ...] = ()) -> None:
        self._keys: Mapping[str, bytes] = {_id_of(key): key for key in keys}

    def __repr__(self) -> str:
        return f"Keyring({', '.join(self._keys)})"

    @property
    def can_seal(self) -> bool:
        """Whether there is a key at all."""
        return bool(self._keys)

    def seal(self, content: bytes, binding: bytes) -> Sealed:
        """Return an envelope that opens with the same `binding` only; PreconditionError without a key."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        if not self._keys:
            raise PreconditionError(
                "this controller has no key to encrypt secrets with: start all controllers with --secrets-key FILE"
            )
        key_id, key = next(iter(self._keys.items()))
        data_key = AESGCM.generate_key(bit_length=8 * KEY_BYTES)
        return Sealed(key_id, _encrypt(key, data_key, binding), _encrypt(data_key, content, binding))

    def open(self, sealed: Sealed, binding: bytes) -> bytes:
        """Return what is in an envelope; PreconditionError when its key is not here, or it was tampered with."""
        from cryptography.exceptions import InvalidTag

        key = self._keys.get(sealed.key_id)
        if key is None:
            raise PreconditionError(
                f"this controller lacks the key {sealed.key_id} that the secret is encrypted with: "
                "add it to the file of --secrets-key"
            )
        try:
            return _decrypt(_decrypt(key, sealed.wrapped_key, binding), sealed.content, binding)
        except InvalidTag:
            raise PreconditionError("the stored secret was damaged or exchanged: create it anew") from None


def binding_of(project: str, name: str, number: int) -> bytes:
    """Return what an envelope is bound to. The parts cannot hold a zero byte."""
    return "\0".join(("argosy.secret.v1", project, name, str(number))).encode()


def load(path: Path) -> Keyring:
    """Return the keys of a file; InvalidError for one that cannot be used, or that others may read."""
    try:
        with path.open("rb") as file:
            mode, text = os.fstat(file.fileno()).st_mode, file.read()
    except OSError as e:
        raise InvalidError(f"--secrets-key {path}: {e.strerror}") from None
    if mode & _GROUP_AND_OTHERS:
        raise InvalidError(f"--secrets-key {path}: others than its owner may read it: chmod 600 {path}")
    keys = tuple(_key(line, path, n) for n, line in enumerate(text.splitlines(), 1) if line.partition(b"#")[0].strip())
    if not keys:
        raise InvalidError(f"--secrets-key {path}: there is no key in it: {_HOW}")
    return Keyring(keys)


_HOW: Final = "write one with `head -c 32 /dev/urandom | base64`"


def new_key_line() -> str:
    """Return a line for the file with a fresh key."""
    return base64.b64encode(os.urandom(KEY_BYTES)).decode() + "\n"


def _key(line: bytes, path: Path, number: int) -> bytes:
    try:
        key = base64.b64decode(line.partition(b"#")[0].strip(), validate=True)
    except binascii.Error:
        key = b""
    if len(key) != KEY_BYTES:
        raise InvalidError(f"--secrets-key {path}: line {number} is not {KEY_BYTES} bytes in base64: {_HOW}")
    return key


def _id_of(key: bytes) -> str:
    return hashlib.sha256(b"argosy.key-id.v1\0" + key).hexdigest()[:16]


def _encrypt(key: bytes, content: bytes, binding: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, content, binding)


def _decrypt(key: bytes, sealed: bytes, binding: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], binding)
