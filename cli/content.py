"""What users give as the content of a config or secret, and what is said of a version that was made of it."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from argosy.cli.errors import InvalidInputError
from argosy.cli.output import say


def read_content(source: str, *, secret: bool) -> bytes:
    """Return the bytes of a file, or of stdin for "-"; InvalidInputError where that cannot be a config or secret."""
    from argosy.core.files import CONFIG_LIMIT_BYTES, SECRET_LIMIT_BYTES, size_problem

    most = (SECRET_LIMIT_BYTES if secret else CONFIG_LIMIT_BYTES) + 1
    try:
        if source == "-":
            data = sys.stdin.buffer.read(most)
            size = len(data) if len(data) < most else len(data) + len(sys.stdin.buffer.read())
        else:
            path = Path(source)
            with path.open("rb") as file:
                data = file.read(most)
                size = max(len(data), path.stat().st_size)
    except OSError as error:
        raise InvalidInputError(f"cannot read {source}: {error.strerror}") from None
    problem = size_problem(size, secret=secret)
    if problem:
        raise InvalidInputError(f"{'standard input' if source == '-' else source}: {problem}")
    return data


def labels_of(texts: Sequence[str]) -> dict[str, str]:
    """Return NAME=VALUE options as a mapping; InvalidInputError for one without a name."""
    for text in texts:
        if not text.partition("=")[0]:
            raise InvalidInputError(f"--label {text!r} has no name", "write NAME=VALUE")
    return dict(text.partition("=")[::2] for text in texts)


def row(file: Any) -> dict[str, Any]:
    """Return a Config or Secret message as a plain row."""
    from argosy.cli.rows import STACK_LABEL

    return {
        "id": file.meta.id,
        "name": file.name,
        "version": file.number,
        "size": file.size,
        "stack": file.labels.get(STACK_LABEL, ""),
        "labels": dict(file.labels),
        "created": file.meta.created_at,
        "updated": file.meta.updated_at,
    }


def say_written(kind: str, file: Any, changed: bool, services: Sequence[str]) -> None:
    """Tell what a `create` did."""
    if not changed:
        say(f"{kind} {file.name} holds that already: version {file.number}, nothing is changed")
        return
    say(f"{kind} {file.name} is created" if file.number == 1 else f"{kind} {file.name} has version {file.number}")
    if services:
        say(f"{', '.join(services)}: updated to it, as their update_config says ('argosy service ls' shows how far)")
