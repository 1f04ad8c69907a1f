"""Platforms in the words of OCI images: "linux/amd64", "linux/arm/v7"."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from argosy.cli.errors import InvalidInputError

_ARCHITECTURES: Final = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "armv6l": "arm",
    "i386": "386",
    "i686": "386",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
    "loongarch64": "loong64",
}
_VARIANTS: Final = {"armv7l": "v7", "armv6l": "v6"}
_USUAL_VARIANT: Final = {"arm64": "v8"}
"""Said by some and not by others: the same platform."""


@dataclass(frozen=True, slots=True)
class Platform:
    """`variant` "" stands for any."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))

    def fits(self, other: "Platform") -> bool:
        """Whether what is wanted (self) is met by what an image is for."""
        if (self.os, self.architecture) != (other.os, other.architecture):
            return False
        usual = _USUAL_VARIANT.get(self.architecture, "")
        return not self.variant or self.variant == (other.variant or usual)


def host_platform() -> Platform:
    """Return this machine's."""
    machine = platform.machine()
    return Platform("linux", _ARCHITECTURES.get(machine, machine), _VARIANTS.get(machine, ""))


def parse_platform(text: str) -> Platform:
    """Return the platform that a user wrote; InvalidInputError."""
    parts = text.split("/")
    if not 2 <= len(parts) <= 3 or not all(parts):
        raise InvalidInputError(f"'{text}' is no platform", "write OS/ARCHITECTURE, such as linux/amd64 or linux/arm64")
    return Platform(*parts)


def platform_of(document: Mapping[str, Any]) -> Platform:
    """Return what an index entry or configuration says; unknown parts are ""."""
    os, architecture, variant = (document.get(key) for key in ("os", "architecture", "variant"))
    return Platform(str(os or ""), str(architecture or ""), str(variant or ""))
