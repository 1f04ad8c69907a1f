"""Configs and secrets: files that services get into their containers, by name, in versions that never change.

A `Config` or `Secret` is the name with its latest number: small, listed, watched. What it holds stands apart, one
`FileVersion` a number, and is kept while it is the latest or a revision of a service refers to it. The content of a
secret is stored sealed only (controller/secrets/), and is in no answer of the API.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from argosy.core.meta import Meta
from argosy.core.service import FileRef
from argosy.core.units import human_bytes

CONFIG_LIMIT_BYTES: Final = 1000 * 1024
SECRET_LIMIT_BYTES: Final = 500 * 1024
"""As in Docker Swarm (manager/controlapi/{config,secret}.go), so that what is moved here from there fits."""
MAX_NAME: Final = 128
"""Letters in a name: STACK_NAME of two full names fits."""
SECRETS_DIRECTORY: Final = "/run/secrets"
DEFAULT_FILE_MODE: Final = 0o444
MAX_FILES: Final = 64
"""In one container."""
_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Config:
    """A named file. `number` and `size` are of its latest version; `removing`: its name is free already."""

    meta: Meta = Meta()
    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    number: int = 0
    size: int = 0
    removing: bool = False
    schema: int = 1


@dataclass(frozen=True, slots=True)
class Secret:
    """A named file whose content nobody sees but the tasks that use it. Fields as of Config."""

    meta: Meta = Meta()
    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    number: int = 0
    size: int = 0
    removing: bool = False
    schema: int = 1


NamedFile: TypeAlias = Config | Secret


@dataclass(frozen=True, slots=True)
class Sealed:
    """An envelope: content under a key of its own, and that key under the key-encryption key `key_id`."""

    key_id: str = ""
    wrapped_key: bytes = b""
    content: bytes = b""


@dataclass(frozen=True, slots=True)
class FileVersion:
    """What a config (`data`) or a secret (`sealed`) holds under a number; never changed."""

    meta: Meta = Meta()
    file_id: str = ""
    number: int = 0
    name: str = ""
    data: bytes = b""
    sealed: Sealed = Sealed()
    schema: int = 1


@dataclass(frozen=True, slots=True)
class NewFile:
    """What a user gives for a config or secret: its next version. Never shown: it may be a secret's."""

    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    data: bytes = field(default=b"", repr=False)


def path_of(ref: FileRef) -> str:
    """Return where a file stands in its container, as it was asked for: from the root, not yet normalised."""
    base = SECRETS_DIRECTORY if ref.secret else ""
    target = ref.target or ref.name
    return target if target.startswith("/") else f"{base}/{target}"


def version_id(file_id: str, number: int) -> str:
    """Return the id of a version of a config or secret."""
    return f"{file_id}.{number}"


def kind_name(*, secret: bool) -> str:
    """Return what people call the kind."""
    return "secret" if secret else "config"


def file_name_problem(text: str) -> str | None:
    """Say what keeps `text` from naming a config or secret, or None. It is also a file's name in the container."""
    if not text:
        return "a name is missing"
    if len(text) > MAX_NAME:
        return f'"{text[:20]}…" has {len(text)} letters: a name has at most {MAX_NAME}'
    if not _NAME.fullmatch(text):
        return f'"{text}" is not a name: use letters, digits, ".", "-" and "_", with a letter or digit at both ends'
    return None


def size_problem(size: int, *, secret: bool) -> str | None:
    """Say what keeps content of so many bytes from being a config or secret, or None."""
    limit = SECRET_LIMIT_BYTES if secret else CONFIG_LIMIT_BYTES
    if size > limit:
        what = kind_name(secret=secret)
        return (
            f"it has {size:,} bytes, and a {what} at most {limit:,} ({human_bytes(limit)}): "
            "put large files into the image"
        )
    if secret and not size:
        return "it is empty: a secret needs at least one byte"
    return None
