"""Versions as people write them, in an order: "6.1" < "6.1.4-amd64" < "v6.18.0-rc2" < "6.18".

Numbers between dots are compared one by one, missing ones count as 0. What follows them matters only where it marks a
version that came before the finished one (rc, beta, alpha, pre, dev), as semver.org 2.0.0 (11) and PEP 440 have it;
anything else is a distributor's build: the kernel's "6.1.0-13-amd64" is at least 6.1.
"""

import re
from typing import Final, TypeAlias

Version: TypeAlias = tuple[tuple[int, ...], tuple[int, str, int]]
"""Compares as the version does."""

_VERSION: Final = re.compile(
    r"v?([0-9]{1,18}(?:\.[0-9]{1,18})*)(?![0-9])"
    r"(?:[-~._+]?(dev|alpha|a|beta|b|pre|rc)(?![a-z])[-.]?([0-9]{0,18})(?![0-9]))?",
    re.IGNORECASE,
)
_STAGES: Final = {"a": "alpha", "b": "beta", "dev": " dev", "pre": "rc"}
_FINISHED: Final = (1, "", 0)


def parse_version(text: str) -> Version | None:
    """Return a version's place in the order; None when `text` does not begin with a number."""
    match = _VERSION.match(text.strip())
    if match is None:
        return None
    numbers = [int(number) for number in match[1].split(".")]
    while numbers and not numbers[-1]:
        numbers.pop()
    if not match[2]:
        return tuple(numbers), _FINISHED
    stage = match[2].lower()
    return tuple(numbers), (0, _STAGES.get(stage, stage), int(match[3] or 0))
