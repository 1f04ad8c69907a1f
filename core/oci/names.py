"""Names of images: what a user writes, in one form, so that the same image is found under it everywhere.

`[registry[:port]/]path[:tag]`, with the tag "latest" when none is given. Docker's own registry is implied by other
tools and shown by some: "docker.io/library/nginx:1" and "nginx:1" are one name here.
"""

import re
from typing import Final

from argosy.core.errors import InvalidError
from argosy.core.oci.digests import is_digest

DEFAULT_TAG: Final = "latest"
MAX_LENGTH: Final = 255
_COMPONENT: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST: Final = (
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*(?::[0-9]+)?)"
)
_NAME: Final = re.compile(
    rf"(?:(?P<host>{_HOST})/)?(?P<path>{_COMPONENT}(?:/{_COMPONENT})*)(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{{0,127}}))?"
)
_DOCKER_PREFIXES: Final = ("docker.io/library/", "index.docker.io/library/", "docker.io/", "index.docker.io/")


def normalise(name: str) -> str:
    """Return the one form of an image name. A digest ("sha256:…") stays as it is. InvalidError says what is wrong.

    "name@sha256:…" becomes the digest: it says exactly which content is meant.
    """
    if is_digest(name):
        return name
    plain, at, digest = name.partition("@")
    if at and is_digest(digest):
        normalise(plain)
        return digest
    for prefix in _DOCKER_PREFIXES:
        if name.startswith(prefix):
            name = name.removeprefix(prefix)
            break
    match = _NAME.fullmatch(name) if len(name) <= MAX_LENGTH else None
    if match is None:
        raise InvalidError(f"{name[:100]!r} is not an image name: {_why(name)}", (("image", _why(name)),))
    return name if match["tag"] else f"{name}:{DEFAULT_TAG}"


def _why(name: str) -> str:
    if not name:
        return "it is empty; wanted NAME or NAME:TAG, such as web:1"
    if len(name) > MAX_LENGTH:
        return f"it is longer than {MAX_LENGTH} characters"
    if "@" in name:
        return "what follows @ must be sha256: and 64 hexadecimal digits"
    if name != name.lower() and _NAME.fullmatch(name.lower()):
        return f"names are in lower case; did you mean {name.lower()}?"
    return "wanted NAME or NAME:TAG in lower-case letters, digits and . _ - /, such as web:1 or example.org/team/web:1"
