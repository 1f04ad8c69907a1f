"""Changes of jobs that people ask for."""

from dataclasses import replace

from argosy.controller.logic import cron
from argosy.controller.store import Op, update
from argosy.core.service import Service


def run_begun(service: Service, now: float) -> tuple[list[Op], Service]:
    """Begin another run of a job. PreconditionError for what is no job, is stopped, or must not run twice at once."""
    begun = replace(service, job=cron.asked(service, now), meta=replace(service.meta, updated_at=now))
    return [update(begun)], begun
