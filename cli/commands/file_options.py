"""`--config` and `--secret` of the service commands, as Docker writes them: NAME, or source=NAME,target=PATH,uid=,…"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from argosy.core.service import FileRef
    from argosy.proto.argosy.v1 import types_pb2 as types

_KEYS = ("source", "target", "uid", "gid", "mode")


def parse_file(text: str, *, secret: bool) -> "FileRef":
    """Return the reference that an option's value writes; click.UsageError says what is wrong with it."""
    from argosy.core.service import FileRef

    option = "--secret" if secret else "--config"
    if "=" not in text:
        return FileRef(secret=secret, name=text, target=text)
    values: dict[str, str] = {}
    for part in text.split(","):
        key, sign, value = part.partition("=")
        key = {"src": "source"}.get(key, key)
        if not sign or key not in _KEYS:
            raise click.UsageError(f"'{part}' in {option}: write NAME, or {','.join(f'{k}=…' for k in _KEYS)}")
        values[key] = value
    if not values.get("source"):
        raise click.UsageError(f"{option} {text}: source=NAME is missing")
    return FileRef(
        secret=secret,
        name=values["source"],
        target=values.get("target") or values["source"],
        uid=_number(values.get("uid", "0"), 10, option, "uid"),
        gid=_number(values.get("gid", "0"), 10, option, "gid"),
        mode=_number(values.get("mode", "0"), 8, option, "mode"),
    )


def _number(text: str, base: int, option: str, key: str) -> int:
    try:
        return int(text, base)
    except ValueError:
        what = "an octal number such as 0440" if base == 8 else "a number"
        raise click.UsageError(f"'{text}' in {option}: {key} is {what}") from None


def add_files(container: "types.ContainerSpec", texts: Iterable[str], *, secret: bool) -> None:
    """Add references to a spec; one with the same target is replaced. The same file may be at several."""
    from argosy.core.codec import encode_into

    for text in texts:
        reference = parse_file(text, secret=secret)
        _drop(container, [ref.secret == secret and ref.target == reference.target for ref in container.files])
        encode_into(reference, container.files.add())


def remove_files(container: "types.ContainerSpec", names: Iterable[str], *, secret: bool) -> None:
    """Take references out of a spec; click.UsageError for one that it does not have."""
    for name in names:
        if not _drop(container, [ref.secret == secret and ref.name == name for ref in container.files]):
            raise click.UsageError(f"the service has no {'secret' if secret else 'config'} '{name}' to remove")


def _drop(container: "types.ContainerSpec", which: Sequence[bool]) -> bool:
    """Take out the references that `which` says so of; tell whether there was any."""
    for index in reversed([i for i, goes in enumerate(which) if goes]):
        del container.files[index]
    return any(which)
