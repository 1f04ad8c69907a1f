"""Files of environment variables: `.env`, `--env-file` and a service's `env_file`.

Rules: "Env_file format" in https://github.com/compose-spec/compose-spec/blob/main/05-services.md. Pure.
"""

import re
from collections.abc import Mapping
from typing import Final

from argosy.cli.compose.interpolate import InterpolationError, interpolate
from argosy.cli.compose.problems import Findings, Position

_NAME: Final = re.compile(r"[^\s=#'\"$]+")
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "$": "$$"}
_COMMENT: Final = re.compile(r"\s+#.*")


def parse_env_file(
    text: str, file: str, env: Mapping[str, str], findings: Findings, *, raw: bool = False
) -> dict[str, str | None]:
    """Return the variables of a file; None for a name without "=".

    Values see `env` first, then the variables above them. `raw`: values are taken as they are written.
    """
    found: dict[str, str | None] = {}
    lines = text.removeprefix("\ufeff").splitlines()
    number = 0
    while number < len(lines):
        position = Position(file, number + 1, 1)
        line = lines[number].strip()
        number += 1
        if not line or line.startswith("#"):
            continue
        line = line.removeprefix("export ").lstrip()
        name, equals, value = line.partition("=")
        name = name.strip()
        if not equals and ":" in name:
            # "NAME: value" is taken by the reference implementation as well
            name, equals, value = (part.strip() for part in name.partition(":"))
        if not _NAME.fullmatch(name):
            findings.problem(position, "", f"'{line[:40]}' is no variable", "write NAME=value")
            continue
        if not equals:
            found[name] = None
        elif raw:
            found[name] = value
        else:
            value = value.strip()
            while value[:1] in ("'", '"') and _end_of_quote(value) < 0 and number < len(lines):
                value += "\n" + lines[number]
                number += 1
            found[name] = _value(value, {**_known(found), **env}, position, name, findings)
    return found


def _known(found: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in found.items() if value is not None}


def _end_of_quote(value: str) -> int:
    """Return where the quote that opens `value` is closed; -1 when it is not."""
    at = 1
    while at < len(value):
        if value[at] == "\\":
            at += 1
        elif value[at] == value[0]:
            return at
        at += 1
    return -1


def _value(value: str, env: Mapping[str, str], position: Position, name: str, findings: Findings) -> str:
    if value[:1] in ("'", '"'):
        end = _end_of_quote(value)
        rest = value[end + 1 :].strip()
        if end < 0 or (rest and not rest.startswith("#")):
            findings.problem(position, name, "the quote is not closed at the end of the value")
            return ""
        inner = value[1:end]
        if value[0] == "'":
            return inner.replace("\\'", "'")
        text = _unescape(inner)
    else:
        text = _COMMENT.sub("", " " + value).strip()
    try:
        return interpolate(text, env)
    except InterpolationError as error:
        findings.problem(position, name, str(error))
        return ""


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[0]), text, flags=re.DOTALL)
