"""`argosy network rotate-keys`: all nodes change the keys of the tunnels that encrypted networks go through."""

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from argosy.cli import interrupt
from argosy.cli.errors import CliError
from argosy.cli.output import notice, say
from argosy.cli.session import Session, pass_session
from argosy.cli.waiting import waiting_options

if TYPE_CHECKING:
    from argosy.proto.argosy.v1 import types_pb2 as types

_POLL_S = 0.2


@click.command("rotate-keys", short_help="Have all nodes change the keys of their tunnels.")
@waiting_options
@pass_session
def command(session: Session, detach: bool, timeout: float) -> None:
    """Have all nodes change the keys of the tunnels that encrypted networks go through.

    Each node makes its new key itself. Old and new tunnels are there side by side until each node has found that the
    new ones work, so nothing is lost. A node that is down is not waited for. The cluster does this by itself every
    week.
    """
    control = session.control
    from argosy.proto.argosy.v1 import control_pb2 as pb

    epoch = control.RotateKeys(pb.RotateKeysRequest(project=session.project)).mesh.epoch
    if detach:
        notice("the nodes change their keys")
        return
    deadline = time.monotonic() + timeout
    while True:
        mesh = control.GetCluster(pb.GetClusterRequest(project=session.project)).cluster.mesh
        if mesh.epoch > epoch or mesh.settled:
            break
        if time.monotonic() > deadline:
            raise CliError(
                f"not all nodes have changed their keys within {timeout:.0f} s",
                "the cluster goes on with it; `argosy node inspect` shows each node's tunnels and their epochs",
            )
        interrupt.check()
        time.sleep(_POLL_S)
    say(outcome(control.ListNodes(pb.ListNodesRequest(project=session.project)).nodes, mesh.epoch))


def outcome(nodes: "Iterable[types.Node]", epoch: int) -> str:
    """Return what to say of a rotation that is over: a node that is down was not waited for."""
    keys = {node.spec.name: [key.epoch for key in node.description.mesh_keys] for node in nodes}
    behind = sorted(name for name, epochs in keys.items() if epochs and max(epochs) < epoch)
    if not behind:
        return "all nodes have new keys"
    return f"all nodes that are up have new keys; not yet: {', '.join(behind)}"
