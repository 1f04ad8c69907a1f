"""`argosy cluster`: the cluster itself."""

import click

from argosy.cli.output import say, show_json
from argosy.cli.session import Session, pass_session


@click.group(name="cluster", help="Look into and change the cluster itself.")
def command() -> None:
    pass


@command.command("inspect", help="Show the cluster, as JSON.")
@click.option("--format", "form", type=click.Choice(["json"]), default="json", hidden=True)
@pass_session
def inspect(session: Session, form: str) -> None:
    control = session.control
    from argosy.proto.argosy.v1 import control_pb2 as pb
    from argosy.proto.argosy.v1 import types_pb2 as types

    found = control.GetCluster(pb.GetClusterRequest(project=session.project))
    show_json(
        {
            "name": found.cluster.name,
            "scheduling": types.Scheduling.Name(found.cluster.scheduling).removeprefix("SCHEDULING_").lower(),
            "leader": found.leader,
            "controller_version": found.controller_version,
            "nodes": found.nodes,
            "nodes_ready": found.nodes_ready,
        }
    )


@command.command("update", short_help="Change how tasks are placed.")
@click.option(
    "--scheduling",
    type=click.Choice(["spread", "binpack"]),
    required=True,
    help="Give new tasks to the emptiest nodes (spread), or fill the fullest first (binpack).",
)
@pass_session
def update(session: Session, scheduling: str) -> None:
    """Change how tasks are placed from now on. Tasks that run stay where they are: see 'argosy rebalance'."""
    from argosy.proto.argosy.v1 import control_pb2 as pb
    from argosy.proto.argosy.v1 import types_pb2 as types

    wanted = types.Scheduling.Value(f"SCHEDULING_{scheduling.upper()}")
    changed = session.control.UpdateCluster(pb.UpdateClusterRequest(project=session.project, scheduling=wanted))
    say(f"cluster {changed.name} places tasks by {scheduling}")
