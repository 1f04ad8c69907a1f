"""Durations, amounts of bytes and of CPU: numbers here, text where people write or read them.

The syntax is the Compose Specification's: durations such as "1m30s", bytes such as "512m" (powers of 1024). Inside
Argosy a duration is seconds as a float and a size is bytes as an int; text exists only at the edges.
"""

import math
import re
from typing import Final

from argosy.core.errors import InvalidError

_DURATION_UNITS: Final = {
    "d": 86400.0,
    "h": 3600.0,
    "m": 60.0,
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
    "µs": 1e-6,
    "ns": 1e-9,
}
_DURATION_PART: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)([a-zµ]+)")
_BYTES: Final = re.compile(r"([0-9]{1,20}(?:\.[0-9]{0,20})?|\.[0-9]{1,20})\s*(?:([kmgtp])(?:i?b)?|b)?", re.IGNORECASE)
_BYTE_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_NANO: Final = 1_000_000_000
MAX_BYTES: Final = (1 << 63) - 1
"""What an int64 field holds."""


def parse_duration(text: str) -> float:
    """Return the seconds that "1m30s", "2.5s", "500ms" or "0" mean; InvalidError says what is wrong."""
    stripped = text.strip()
    if stripped == "0":
        return 0.0
    total, end = 0.0, 0
    for part in _DURATION_PART.finditer(stripped):
        factor = _DURATION_UNITS.get(part[2])
        if factor is None or part.start() != end:
            break
        total += float(part[1]) * factor
        end = part.end()
    if not stripped or end != len(stripped):
        raise InvalidError(_duration_message(text, stripped))
    return round(total, 9)


def _duration_message(text: str, stripped: str) -> str:
    example = "write it like 1m30s (units: d, h, m, s, ms, us)"
    if re.fullmatch(r"\d+(\.\d+)?", stripped):
        return f'duration "{text}" has no unit: did you mean "{stripped}s"?'
    if stripped.startswith("-"):
        return f'duration "{text}" is negative: {example}'
    return f'"{text}" is not a duration: {example}'


def format_duration(seconds: float) -> str:
    """Return `seconds` (not negative) in the syntax that parse_duration reads, exact to the microsecond."""
    micros = round(seconds * 1_000_000)
    if micros == 0:
        return "0s"
    parts = []
    for unit, size in (("h", 3_600_000_000), ("m", 60_000_000)):
        count, micros = divmod(micros, size)
        if count:
            parts.append(f"{count}{unit}")
    if micros and (parts or micros >= 1_000_000):
        whole, fraction = divmod(micros, 1_000_000)
        parts.append(f"{whole}.{fraction:06d}".rstrip("0").rstrip(".") + "s")
    elif micros:
        parts.append(f"{micros // 1000}ms" if micros % 1000 == 0 else f"{micros}us")
    return "".join(parts)


def parse_bytes(text: str) -> int:
    """Return the bytes that "512m", "1.5g", "64kb", "2GiB" or "4096" mean; InvalidError says what is wrong."""
    match = _BYTES.fullmatch(text.strip())
    if match is None:
        raise InvalidError(f'"{text}" is not an amount of bytes: write it like 512m or 2g (units: b, k, m, g, t, p)')
    factor = _BYTE_UNITS[(match[2] or "").lower()]
    value = int(match[1]) * factor if match[1].isdecimal() else int(float(match[1]) * factor)
    if value > MAX_BYTES:
        raise InvalidError(f'"{text}" is more bytes than can be counted: the largest is {format_bytes(1 << 62)}')
    return value


def format_bytes(amount: int) -> str:
    """Return `amount` (not negative) exactly, in the largest unit that divides it: 536870912 is "512m"."""
    for unit in ("p", "t", "g", "m", "k"):
        size = _BYTE_UNITS[unit]
        if amount and amount % size == 0:
            return f"{amount // size}{unit}"
    return str(amount)


def human_bytes(amount: int) -> str:
    """Return `amount` for a person, to three digits: "512 MiB", "1.5 GiB"."""
    value, sign = float(abs(amount)), "-" if amount < 0 else ""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1023.5 or unit == "TiB":
            break
        value /= 1024
    number = f"{value:.0f}" if value >= 100 or unit == "B" else f"{value:.3g}"
    return f"{sign}{number} {unit}"


def parse_cpus(text: str) -> float:
    """Return the number of CPUs that "0.5" or "2" mean; InvalidError says what is wrong."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise InvalidError(f'"{text}" is not a number of CPUs: write it like 0.5 or 2')
    return value


def format_cpus(cpus: float) -> str:
    """Return a number of CPUs without needless digits: 4.0 is "4", 1.50 is "1.5"."""
    return f"{cpus:.3f}".rstrip("0").rstrip(".")


def nano_cpus(cpus: float) -> int:
    """Return CPUs as whole billionths, in which sums and differences are exact."""
    return round(cpus * _NANO)


def from_nano_cpus(nano: int) -> float:
    """Return billionths of a CPU as CPUs."""
    return nano / _NANO
