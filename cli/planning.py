"""`--plan` and `--plan-id`, which the commands that change the cluster have in common: what would happen, no more.

The exit status of a plan says whether anything would change: 0 nothing, 4 something. The two are nobody else's, so that
a script never takes an error (1, 2, 3) for an answer; `terraform plan -detailed-exitcode` says 2 for a change, which is
our status for a wrong command line.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from argosy.cli.output import notice, say, show_json
from argosy.cli.session import Session

if TYPE_CHECKING:
    from argosy.proto.argosy.v1 import control_pb2 as pb

F = TypeVar("F", bound=Callable[..., Any])

EXIT_WOULD_CHANGE: Final = 4
LINES_SHOWN: Final = 60
"""Of tasks, for people; JSON has all."""
_SIGNS: Final = {"CREATE": "+", "REMOVE": "-", "STOP": "-", "WAIT": "!"}


@dataclass(frozen=True, slots=True)
class Planning:
    """What the options said."""

    plan: bool = False
    plan_id: str = ""
    form: str = "table"

    def before(self, session: Session, change: str, request: Any, told: Sequence[str] = ()) -> None:
        """Call this with a request right before it is sent; `change` is its name in GetPlanRequest (or
        GetClusterPlanRequest).

        With `--plan` it prints what the request would do, and the command ends here. `told`: notices that people have
        been shown already, for programs.
        """
        if not self.plan:
            request.plan_id = self.plan_id
            return
        from argosy.proto.argosy.v1 import control_pb2 as pb

        if change in pb.GetClusterPlanRequest.DESCRIPTOR.fields_by_name:
            plan = session.control.GetClusterPlan(pb.GetClusterPlanRequest(**{change: request}))
        else:
            plan = session.control.GetPlan(pb.GetPlanRequest(project=session.project, **{change: request}))
        if self.form == "json":
            show_json(_as_json(plan, told))
        else:
            for text in plan.notices:
                notice(f"note: {text}")
            for line in plan_lines(plan):
                say(line)
        raise click.exceptions.Exit(EXIT_WOULD_CHANGE if plan.specs or plan.tasks else 0)


NO_PLANNING: Final = Planning()


def plan_options(command: F) -> F:
    """Add `--plan`, `--plan-id` and `--format`, passed together as `planning`."""

    def gather(ctx: click.Context, param: click.Parameter, value: object) -> object:
        values = ctx.meta.setdefault(__name__, {})
        values[param.name] = value
        if len(values) == 3:
            if values["plan"] and values["plan_id"]:
                raise click.UsageError("--plan makes a plan, --plan-id applies one: give one of them")
            ctx.params["planning"] = Planning(values["plan"], values["plan_id"], values["form"])
        return value

    for option in (
        click.option(
            "--format",
            "form",
            type=click.Choice(["table", "json"]),
            default="table",
            help="How to print a plan.",
            expose_value=False,
            callback=gather,
        ),
        click.option(
            "--plan-id",
            default="",
            metavar="ID",
            help="Refuse if not just that would happen now which the plan ID said.",
            expose_value=False,
            callback=gather,
        ),
        click.option(
            "--plan",
            is_flag=True,
            help="Only say what would happen. Exits 0 if nothing would, 4 if something would.",
            expose_value=False,
            callback=gather,
        ),
    ):
        command = option(command)
    return command


def plan_lines(plan: "pb.GetPlanResponse") -> Iterator[str]:
    """Yield a plan as people read it."""
    if not plan.specs and not plan.tasks:
        yield "nothing would change"
        return
    for spec in plan.specs:
        verb = _verb(spec.verb)
        yield f"{_SIGNS.get(verb, '~')} {spec.kind} {spec.name}"
        width = max((len(field.path) for field in spec.fields), default=0)
        for field in spec.fields:
            yield f"    {field.path:<{width}}  {_values(verb, field)}".rstrip()
    if plan.specs and plan.tasks:
        yield ""
    for task in plan.tasks[:LINES_SHOWN]:
        yield _task_line(task)
    if len(plan.tasks) > LINES_SHOWN:
        yield f"  … and {len(plan.tasks) - LINES_SHOWN} more tasks (--format json has them all)"
    yield ""
    yield f"plan {plan.id}: {_counted(plan)}; --plan-id {plan.id} does just this or nothing"


def _verb(number: int) -> str:
    from argosy.proto.argosy.v1 import control_pb2 as pb

    return pb.PlanVerb.Name(number).removeprefix("PLAN_VERB_")  # type: ignore[arg-type]


def _values(verb: str, field: "pb.FieldChange") -> str:
    if verb == "CREATE":
        return field.new
    return f"{field.old or '(not set)'} -> {field.new or '(not set)'}"


def _task_line(task: "pb.TaskChange") -> str:
    verb = _verb(task.verb)
    what = {
        "CREATE": f"create on {task.new_node}",
        "MOVE": f"move {task.old_node} -> {task.new_node}",
        "REPLACE": f"replace on {task.new_node}",
        "STOP": f"stop on {task.old_node}" if task.old_node else "stop",
        "WAIT": f"cannot be placed: {task.reason}",
    }.get(verb, verb.lower())
    return f"{_SIGNS.get(verb, '~')} {task.task}: {what}"


def _counted(plan: "pb.GetPlanResponse") -> str:
    def some(things: Iterable[object], one: str, many: str) -> str:
        number = len(list(things))
        return f"{number} {one if number == 1 else many}"

    return f"{some(plan.specs, 'spec', 'specs')} and {some(plan.tasks, 'task', 'tasks')} would change"


def _as_json(plan: "pb.GetPlanResponse", told: Sequence[str]) -> dict[str, Any]:
    return {
        "id": plan.id,
        "changes": bool(plan.specs or plan.tasks),
        "specs": [
            {
                "verb": _verb(spec.verb).lower(),
                "kind": spec.kind,
                "name": spec.name,
                "fields": [{"path": f.path, "old": f.old, "new": f.new} for f in spec.fields],
            }
            for spec in plan.specs
        ],
        "tasks": [
            {
                "verb": _verb(task.verb).lower(),
                "service": task.service,
                "task": task.task,
                "old_node": task.old_node,
                "new_node": task.new_node,
                "reason": task.reason,
            }
            for task in plan.tasks
        ],
        "notices": [*told, *plan.notices],
    }
