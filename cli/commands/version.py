"""`argosy version`: of this program, and of the cluster if one answers."""

import click

from argosy.cli.errors import CliError
from argosy.cli.output import format_option, say, show_json
from argosy.cli.session import Session, pass_session

_TIMEOUT_S = 3.0


@click.command(name="version", help="Show the versions of this program and of the cluster.")
@format_option
@pass_session
def command(session: Session, form: str) -> None:
    from importlib.metadata import version

    found = {"client": version("argosy"), "controller": None, "leader": None, "cluster": None}
    why = ""
    try:
        import grpc

        from argosy.proto.argosy.v1 import control_pb2 as pb

        try:
            reply = session.control.GetCluster(pb.GetClusterRequest(project=session.project), timeout=_TIMEOUT_S)
            found |= {"controller": reply.controller_version, "leader": reply.leader, "cluster": reply.cluster.name}
        except grpc.RpcError as error:
            why = (error.details() if isinstance(error, grpc.Call) else "") or "it does not answer"
    except CliError as error:
        why = error.message
    if form == "json":
        show_json(found)
        return
    say(f"argosy      {found['client']}")
    say(
        f"controller  {found['controller']} (leader {found['leader']})"
        if found["controller"]
        else f"controller  - ({why})"
    )
