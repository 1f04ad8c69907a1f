"""`--network` of commands that start tasks: NAME, or name=…,ip=…,alias=… as Docker writes it."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from argosy.core.service import NetworkAttachmentSpec

HELP = "Join this network: NAME, or name=NAME,ip=ADDRESS,alias=NAME."


def attachment(text: str) -> "NetworkAttachmentSpec":
    """Return what a value of --network says. UsageError for what it cannot say."""
    from argosy.core.service import NetworkAttachmentSpec

    if "=" not in text:
        return NetworkAttachmentSpec(text)
    target, address, aliases = "", "", []
    for part in text.split(","):
        key, _, value = part.partition("=")
        if key not in ("name", "ip", "alias") or not value:
            raise click.UsageError(f"'{part}': write name=NAME, ip=ADDRESS or alias=NAME (for --network)")
        if key == "alias":
            aliases.append(value)
        elif key == "name":
            target = value
        else:
            address = value
    if not target:
        raise click.UsageError(f"'{text}' names no network: begin with name=NAME (for --network)")
    return NetworkAttachmentSpec(target, tuple(aliases), address)
