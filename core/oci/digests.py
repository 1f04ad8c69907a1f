"""Digests of content: "sha256:" and 64 hexadecimal digits (OCI image-spec, descriptor.md). No other is taken."""

import hashlib
import re
from typing import Final

from argosy.core.errors import InvalidError

PATTERN: Final = re.compile(r"sha256:[0-9a-f]{64}")


def digest_of(data: bytes) -> str:
    """Return the digest of `data`."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def is_digest(text: str) -> bool:
    """Whether `text` is a digest in the one form that is taken here."""
    return PATTERN.fullmatch(text) is not None


def check_digest(text: str) -> str:
    """Return `text`; InvalidError when it is no digest. Everything that makes a path of a digest calls this first."""
    if not is_digest(text):
        raise InvalidError(f"{text[:100]!r} is not a digest: wanted sha256: and 64 hexadecimal digits")
    return text


def hex_of(digest: str) -> str:
    """Return the hexadecimal digits of a digest; InvalidError when it is none."""
    return check_digest(digest).removeprefix("sha256:")


def short(digest: str) -> str:
    """Return a digest as people read it: its first 12 hexadecimal digits."""
    return digest.removeprefix("sha256:")[:12]
