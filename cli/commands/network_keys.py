"""`argosy network rotate-keys`: all nodes change the keys of the tunnels that encrypted networks go through."""

import time

import click

from argosy.cli import interrupt
from argosy.cli.errors import CliError
from argosy.cli.output import notice, say
from argosy.cli.session import Session, pass_session
from argosy.cli.waiting import waiting_options

_POLL_S = 0.2


@click.command("rotate-keys", short_help="Have all nodes change the keys of their tunnels.")
@waiting_options
@pass_session
def command(session: Session, detach: bool, timeout: float) -> None:
    """Have all nodes change the keys of the tunnels that encrypted networks go through.

    Each node makes its new key itself. Old and new tunnels are there side by side until each node has found that the
    new ones work, so nothing is lost. The cluster does this by itself every week.
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
    say("all nodes have new keys")
