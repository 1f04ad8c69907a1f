"""The options of `service create` that make a service a job: how often it has to complete, how many run at once, when.

`--replicas` is the number of completions of a job, as in Docker.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from argosy.proto.argosy.v1 import types_pb2 as types

F = TypeVar("F", bound=Callable[..., Any])

MODES: Final = ("replicated", "global", "replicated-job", "global-job")
_OVERLAPS: Final = {"allow": "OVERLAP_ALLOW", "forbid": "OVERLAP_FORBID", "replace": "OVERLAP_REPLACE"}
_OPTIONS: Final = ("max_concurrent", "schedule", "time_zone", "overlap")


def job_options(command: F) -> F:
    """Add the options to a command."""
    for option in (
        click.option("--overlap", type=click.Choice(list(_OVERLAPS)), help="What if the last run still goes on."),
        click.option("--time-zone", default=None, metavar="ZONE", help="Of the schedule: Europe/Berlin; else UTC."),
        click.option("--schedule", default=None, metavar="CRON", help="Run a job at these times: '30 4 * * mon-fri'."),
        click.option(
            "--max-concurrent", type=click.IntRange(0), default=None, help="Of a job, run so many at once; 0 for all."
        ),
    ):
        command = option(command)
    return command


def apply_mode(options: Mapping[str, Any], spec: "types.ServiceSpec") -> None:
    """Put mode, completions and schedule into a spec. UsageError for what contradicts each other."""
    from argosy.proto.argosy.v1 import types_pb2 as types

    mode = options["mode"]
    spec.mode = types.ServiceMode.Value(f"SERVICE_MODE_{mode.upper().replace('-', '_')}")
    if mode in ("global", "global-job") and options["replicas"] is not None:
        raise click.UsageError(f"a {mode} service runs one task on every node: --replicas has no meaning")
    given = [name for name in _OPTIONS if options[name] is not None]
    if not mode.endswith("-job"):
        if given:
            raise click.UsageError(
                f"--{given[0].replace('_', '-')} is for jobs: add --mode replicated-job or global-job"
            )
        return
    if options["schedule"] is None and (set(given) & {"time_zone", "overlap"}):
        raise click.UsageError("--time-zone and --overlap say something of a schedule: add --schedule")
    _make_job(options, spec)


def _make_job(options: Mapping[str, Any], spec: "types.ServiceSpec") -> None:
    from argosy.core.codec import encode_into
    from argosy.core.service import JobSpec
    from argosy.proto.argosy.v1 import types_pb2 as types

    encode_into(JobSpec(), spec.job)
    if options["replicas"] is not None:
        spec.job.total_completions, spec.replicas = options["replicas"], 1
    spec.job.max_concurrent = options["max_concurrent"] or 0
    if options["schedule"] is not None:
        spec.job.cron.schedule, spec.job.cron.time_zone = options["schedule"], options["time_zone"] or ""
        spec.job.cron.overlap = types.Overlap.Value(_OVERLAPS[options["overlap"] or "allow"])
    if options["restart_condition"] is None:
        spec.task.restart.condition = types.RESTART_CONDITION_ON_FAILURE
