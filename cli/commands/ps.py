"""`argosy ps`: the tasks of the cluster."""

import time

import click

from argosy.cli import complete
from argosy.cli.errors import CliError
from argosy.cli.output import Column, Row, age_text, format_option, quiet_option, show
from argosy.cli.session import Session, pass_session

TASK_COLUMNS = (
    Column("ID", "id", rank=3),
    Column("NAME", "name"),
    Column("NODE", "node", rank=1),
    Column("STATE", lambda row: state_text(row)),
    Column("ADDRESSES", "addresses", rank=4),
    Column("PORTS", lambda row: ", ".join(row["ports"]), rank=6),
    Column("IMAGE", "image", rank=5),
    Column("REASON", lambda row: reason_text(row), rank=2),
)

_BEFORE_START = ("NEW", "ASSIGNED", "ACCEPTED", "PREPARING", "READY")
HEALTHY_AFTER_S = 600.0
"""As core.restart.HEALTHY_AFTER_S, which would cost the import of core."""


def state_text(row: Row) -> str:
    """Return a task's state with its age, and what is wanted of it where that differs.

    One that waits for its next try under the restart policy is "RESTARTING in 40s"; where there is none before that
    time, the one that failed last says "(next try in 40s)".
    """
    now = time.time()
    going = row["desired_state"] in ("SHUTDOWN", "REMOVE")
    if row["state"] in _BEFORE_START and row["not_before"] > now and not going:
        state = f"RESTARTING in {age_text(now, row['not_before'])}"
    else:
        state = f"{row['state']} {age_text(row['since'], now)}"
    ended = row["state"] in ("SHUTDOWN", "FAILED", "COMPLETE", "REJECTED")
    remarks = {
        f"next try in {age_text(now, row['not_before'])}": ended and row["not_before"] > now,
        "not ready": row["state"] == "RUNNING" and not row["ready"],
        "canary": row["canary"],
        "stopping": going and not ended,
    }
    return " ".join([state, *(f"({remark})" for remark, holds in remarks.items() if holds)])


def reason_text(row: Row) -> str:
    """Return why a task is not as wanted, its exit code included, or what went before it that failed."""
    return "; ".join(text for text in (_ending_text(row, row["reason"] or row["note"]), _before_text(row)) if text)


def _ending_text(row: Row, reason: str) -> str:
    code = f"exit code {row['exit_code']}" if row["exit_code"] else ""
    memory = "out of memory" if row["oom_killed"] else ""
    known = [part for part in (code, memory) if part and part not in reason]
    return ": ".join([*known, reason] if reason else known)


def _before_text(row: Row) -> str:
    """Return how often what ran in the task's slot before it failed, and of what; "" once the task has run long."""
    last, failures, now = row["before"], row["failures"], time.time()
    if last is None or 0 < row["running_since"] <= now - HEALTHY_AFTER_S:
        return ""
    if not failures:
        return "ended with exit code 0" if row["not_before"] > now else ""
    times = "once" if failures == 1 else f"{failures} times"
    return ": ".join(text for text in (f"failed {times}", _ending_text(last, last["reason"])) if text)


@click.command(
    name="ps",
    help="List tasks, all or those of a service: those that are to run, and where there is none what failed last; "
    "with -a all that have ended, too.",
)
@click.option("-a", "--all", "everything", is_flag=True, help="Also tasks that have ended.")
@click.option("--stack", default="", metavar="STACK", help="Only tasks of this stack.")
@click.option("--node", default="", metavar="NODE", help="Only tasks on this node.")
@quiet_option
@format_option
@click.argument("service", default="", required=False, shell_complete=complete.services)
@pass_session
def command(session: Session, everything: bool, service: str, stack: str, node: str, quiet: bool, form: str) -> None:
    show_tasks(session, service=service, stack=stack, node=node, everything=everything, quiet=quiet, form=form)


def show_tasks(
    session: Session,
    *,
    form: str,
    service: str = "",
    stack: str = "",
    node: str = "",
    everything: bool = False,
    latest: bool = False,
    quiet: bool = False,
) -> None:
    """Print the tasks that fit; with `latest` also the last one of a slot in which nothing runs."""
    control = session.control
    from argosy.cli.rows import latest_rows, task_rows
    from argosy.proto.argosy.v1 import control_pb2 as pb

    if stack:
        stack_must_exist(session, stack)
    wanted = everything or latest
    request = pb.ListTasksRequest(project=session.project, service=service, node=node, stack=stack, all=wanted)
    rows = task_rows(control.ListTasks(request))
    columns = [c for c in TASK_COLUMNS if c.title != "PORTS" or any(row["ports"] for row in rows)]
    show(rows if everything or not latest else latest_rows(rows), columns, form, quiet=quiet)


def stack_must_exist(session: Session, stack: str) -> None:
    """Raise CliError when no service belongs to a stack of that name."""
    from argosy.proto.argosy.v1 import control_pb2 as pb

    if not session.control.ListServices(pb.ListServicesRequest(project=session.project, stack=stack)).services:
        raise CliError(f"there is no stack '{stack}'", "'argosy stack ls' lists them")
