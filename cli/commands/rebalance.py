"""`argosy rebalance`: spreads running tasks evenly again, as after a node has joined."""

import click

from argosy.cli.output import notice, say
from argosy.cli.planning import Planning, plan_options
from argosy.cli.session import Session, pass_session
from argosy.cli.waiting import waiting_options


@click.command(name="rebalance", short_help="Move tasks so that services are spread evenly again.")
@plan_options
@waiting_options
@pass_session
def command(session: Session, detach: bool, timeout: float, planning: Planning) -> None:
    """Move as few tasks as it takes to spread services evenly again, after a node has joined or come back.

    Each task starts elsewhere before it stops, as the services' availability budgets (max_unavailable) allow. Services
    that are being updated, jobs and global services are left alone.
    """
    from argosy.proto.argosy.v1 import control_pb2 as pb

    request = pb.RebalanceRequest(project=session.project)
    planning.before(session, "rebalance", request)
    reply = session.control.Rebalance(request)
    if not reply.tasks:
        say(f"nothing to move: {reply.notice}" if reply.notice else "nothing to move")
        return
    number = len(reply.tasks)
    moving = f"{number} task{'s' if number != 1 else ''} of " + ", ".join(sorted(s.spec.name for s in reply.services))
    notice(f"moving {moving}")
    if detach:
        return
    from argosy.cli.progress.moved import TasksMoved
    from argosy.cli.progress.wait import wait_for
    from argosy.core.codec import decode
    from argosy.core.task import Task

    goal = TasksMoved(tuple(decode(task, Task) for task in reply.tasks))
    wait_for(session, goal, timeout=timeout, continues="the cluster goes on moving them")
    say(f"moved {moving}")
