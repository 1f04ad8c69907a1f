"""`argosy job`: what runs to completion, once or by a schedule."""

import time

import click

from argosy.cli import complete
from argosy.cli.commands.service import next_text
from argosy.cli.output import Column, Row, age_text, format_option, quiet_option, say, show
from argosy.cli.session import Session, pass_session
from argosy.cli.waiting import waiting_options

JOB_COLUMNS = (
    Column("ID", "id", rank=3),
    Column("NAME", "name"),
    Column("MODE", "mode", rank=5),
    Column("RUN", lambda row: str(row["run"] or "-")),
    Column("RESULT", lambda row: result_text(row)),
    Column("COMPLETE", lambda row: f"{row['complete']}/{row['total']}" if row["run"] else "-"),
    Column("SCHEDULE", "schedule", rank=4),
    Column("NEXT", lambda row: next_text(row)),
    Column("MESSAGE", "message", rank=2),
)


def result_text(row: Row) -> str:
    """Return how the last run went, and how long ago that was: "COMPLETE 5m"."""
    since = row["finished"] or row["started"]
    return f"{row['state']} {age_text(since, time.time())}" if row["state"] else "-"


@click.group(name="job", help="List jobs, and have one run now.")
def command() -> None:
    pass


@command.command("ls", help="List jobs: their last run, how it went, and the next one.")
@click.option("--stack", default="", metavar="STACK", help="Only jobs of this stack.")
@quiet_option
@format_option
@pass_session
def list_jobs(session: Session, stack: str, quiet: bool, form: str) -> None:
    from argosy.cli.rows import is_global, job_rows
    from argosy.proto.argosy.v1 import control_pb2 as pb

    found = session.control.ListServices(pb.ListServicesRequest(project=session.project, stack=stack))
    tasks = session.control.ListTasks(pb.ListTasksRequest(project=session.project, stack=stack, all=True))
    everywhere = any(is_global(service.spec) for service in found.services)
    nodes = session.control.ListNodes(pb.ListNodesRequest(project=session.project)).nodes if everywhere else ()
    show(job_rows(found.services, tasks.tasks, nodes), JOB_COLUMNS, form, quiet=quiet)


@command.command("run", help="Begin a run of a job now, and wait until it has completed; exits 0 only then.")
@waiting_options
@click.argument("job", shell_complete=complete.services)
@pass_session
def run(session: Session, detach: bool, timeout: float, job: str) -> None:
    from argosy.cli.progress.jobs import JobRun
    from argosy.cli.progress.wait import wait_for
    from argosy.core.codec import decode
    from argosy.core.service import Service
    from argosy.proto.argosy.v1 import control_pb2 as pb

    service = decode(session.control.RunJob(pb.RunJobRequest(project=session.project, ref=job)), Service)
    name, number = service.spec.name, service.job.iteration
    if detach:
        say(f"{name}: run {number} was begun")
        return
    wait_for(session, JobRun(service), timeout=timeout, continues=f"run {number} goes on")
    say(f"{name}: run {number} is complete")
