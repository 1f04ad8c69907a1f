"""The networks of a service: NAME, or name=…,ip=…,alias=… as Docker writes it.

`--network` of commands that start tasks, `--network-add` and `--network-rm` of `service update`.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from argosy.cli.session import Session

if TYPE_CHECKING:
    from argosy.core.service import NetworkAttachmentSpec
    from argosy.proto.argosy.v1 import types_pb2 as types

HELP = "Join this network: NAME, or name=NAME,ip=ADDRESS,alias=NAME."


def attachment(text: str, option: str = "--network") -> "NetworkAttachmentSpec":
    """Return what a value of the option says. UsageError for what it cannot say."""
    from argosy.core.service import NetworkAttachmentSpec

    if "=" not in text:
        return NetworkAttachmentSpec(text)
    target, address, aliases = "", "", []
    for part in text.split(","):
        key, _, value = part.partition("=")
        if key not in ("name", "ip", "alias") or not value:
            raise click.UsageError(f"'{part}': write name=NAME, ip=ADDRESS or alias=NAME (for {option})")
        if key == "alias":
            aliases.append(value)
        elif key == "name":
            target = value
        else:
            address = value
    if not target:
        raise click.UsageError(f"'{text}' names no network: begin with name=NAME (for {option})")
    return NetworkAttachmentSpec(target, tuple(aliases), address)


def change_networks(session: Session, spec: "types.ServiceSpec", added: Iterable[str], removed: Iterable[str]) -> None:
    """Take a service out of networks and have it join others. UsageError for what cannot be read or is so already."""
    from argosy.core.codec import encode_into

    joined = spec.task.networks
    for ref in removed:
        network_id = _id(session, ref)
        there = [i for i, one in enumerate(joined) if one.target == network_id]
        if not there:
            raise click.UsageError(f"the service is not on network '{ref}' (for --network-rm)")
        del joined[there[0]]
    for text in added:
        wanted = attachment(text, "--network-add")
        network_id = _id(session, wanted.target)
        if any(one.target == network_id for one in joined):
            raise click.UsageError(
                f"the service is on network '{wanted.target}' already: add '--network-rm {wanted.target}' to have it "
                "there in another way"
            )
        encode_into(wanted, joined.add())
        joined[-1].target = network_id


def _id(session: Session, ref: str) -> str:
    from argosy.proto.argosy.v1 import control_pb2 as pb

    return session.control.GetNetwork(pb.GetNetworkRequest(project=session.project, ref=ref)).network.meta.id
