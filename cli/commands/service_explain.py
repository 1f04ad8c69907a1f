"""`argosy service explain`: which nodes could run another task of a service, and why the others could not."""

from collections import Counter

import click

from argosy.cli import complete
from argosy.cli.output import Column, format_option, say, show, show_json
from argosy.cli.session import Session, pass_session

COLUMNS = (
    Column("NODE", "node"),
    Column("TASKS", "tasks"),
    Column("VERDICT", lambda row: _verdict(row["fits"], row["next"])),
    Column("REASON", "reason", rank=1),
)


def _verdict(fits: bool, is_next: bool) -> str:
    return "next" if is_next else "could" if fits else "refused"


@click.command(name="explain", short_help="Say of each node whether it could run another task of a service.")
@format_option
@click.argument("service", shell_complete=complete.services)
@pass_session
def command(session: Session, form: str, service: str) -> None:
    """Say of each node whether it could run another task of a service, and if not why; the next task goes to 'next'."""
    control = session.control
    from argosy.proto.argosy.v1 import control_pb2 as pb

    found = control.GetExplanation(pb.GetExplanationRequest(project=session.project, ref=service))
    rows = [{"node": n.node, "tasks": n.tasks, "fits": n.fits, "next": n.next, "reason": n.reason} for n in found.nodes]
    waiting = Counter(task.status.reason or "it is being placed" for task in found.waiting)
    if form == "json":
        show_json({"summary": found.summary, "nodes": rows, "waiting": dict(waiting)})
        return
    show(rows, COLUMNS, form)
    for reason, count in sorted(waiting.items()):
        say(f"{count} task{'s' if count != 1 else ''} waiting: {reason}")
    if found.summary and found.summary not in waiting:
        say(f"another task could not be placed: {found.summary}")
