"""`argosy service history`: the revisions that are kept of a service, what each changed, and which tasks run it."""

import time
from collections.abc import Iterable
from typing import Any

import click

from argosy.cli import complete
from argosy.cli.output import Column, age_text, format_option, show
from argosy.cli.session import Session, pass_session

REVISION_COLUMNS = (
    Column("REVISION", lambda row: f"{row['revision']}{' (current)' if row['current'] else ''}"),
    Column("AGE", lambda row: age_text(row["created"], time.time())),
    Column("TASKS", "tasks"),
    Column("IMAGE", "image", rank=1),
    Column("CHANGED", "changed", rank=2),
)


@click.command(
    "history",
    help="List the revisions of a service, to which 'service rollback --to N' returns; what each changed is told "
    "against the one before it.",
)
@format_option
@click.argument("service", shell_complete=complete.services)
@pass_session
def command(session: Session, form: str, service: str) -> None:
    control = session.control
    from argosy.proto.argosy.v1 import control_pb2 as pb

    found = control.ListRevisions(pb.ListRevisionsRequest(project=session.project, ref=service))
    tasks = control.ListTasks(pb.ListTasksRequest(project=session.project, service=found.service.meta.id))
    show(revision_rows(found, tasks.tasks), REVISION_COLUMNS, form)


def revision_rows(found: Any, tasks: Iterable[Any]) -> list[dict[str, Any]]:
    """Return the revisions, newest first; `tasks` that a row counts are those that have not ended.

    A task of an older revision counts to the present one if that says the same: an update or a rollback lets it be.
    """
    present = found.service.revision
    programs = {revision.number: _program(revision.spec.task) for revision in found.revisions}
    running: dict[int, int] = {}
    for task in tasks:
        number = task.revision
        if number in programs and programs[number] == programs.get(present):
            number = present
        running[number] = running.get(number, 0) + 1
    rows = []
    revisions = sorted(found.revisions, key=lambda r: -r.number)
    for i, revision in enumerate(revisions):
        container = revision.spec.task.container
        before = revisions[i + 1] if i + 1 < len(revisions) else None
        rows.append(
            {
                "revision": revision.number,
                "current": revision.number == present,
                "created": revision.meta.created_at,
                "tasks": running.get(revision.number, 0),
                "image": container.image,
                "digest": container.image_digest,
                "changed": differences(before.spec.task, revision.spec.task) if before is not None else [],
            }
        )
    return rows


def _program(task: Any) -> Any:
    """Return what a task spec says but for where it may run: what a changed placement still allows stays as it is."""
    program = type(task)()
    program.CopyFrom(task)
    program.ClearField("placement")
    return program


def differences(old: Any, new: Any) -> list[str]:
    """Return what differs between two task specs, in the words of the contract: "image a:1 -> a:2", "env +A=1"."""
    from argosy.cli.messages import plain

    return list(_differences("", plain(old), plain(new)))


def _differences(path: str, old: Any, new: Any) -> Iterable[str]:
    if old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            if key not in _WITH_ANOTHER:
                yield from _differences(f"{path}.{key}" if path else key, old.get(key), new.get(key))
        return
    name = path.removeprefix("container.")
    if isinstance(old, list | None) and isinstance(new, list | None) and (old or new):
        gone = [f"-{_text(item)}" for item in old or () if item not in (new or ())]
        come = [f"+{_text(item)}" for item in new or () if item not in (old or ())]
        yield f"{name} {' '.join([*gone, *come]) or 'reordered'}"
    elif name == "image_digest":
        yield f"image content {_digest(old)} -> {_digest(new)}"
    else:
        yield f"{name} {_text(old)} -> {_text(new)}"


_WITH_ANOTHER = frozenset({"entrypoint_set", "command_set"})
"""Fields that only tell whether another one was given."""


def _digest(text: str) -> str:
    return text.removeprefix("sha256:")[:12] or "-"


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ",".join(f"{key}={_text(item)}" for key, item in value.items() if item not in (None, "", [], 0, False))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:g}" if isinstance(value, float) else str(value)
    return str(value) if value else "-"
