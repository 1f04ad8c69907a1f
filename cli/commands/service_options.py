"""The options that `service create` and `service update` share: one row each, from the option to the field of the spec.

    @spec_options            adds them all; they arrive as keyword arguments, None where an option is not given
    apply_options(given, spec)   puts what was given into a ServiceSpec message

Names are Docker's where it has the option. What lists hold (variables, labels, constraints, networks) differs between
the two commands and is not here.
"""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from argosy.cli.commands import probe_options
from argosy.cli.session import Session

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from argosy.proto.argosy.v1 import types_pb2 as types

F = TypeVar("F", bound=Callable[..., Any])


class Kind(Enum):
    """How an option's text is read."""

    TEXT = "TEXT"
    WORDS = "COMMAND"
    SHELL = "LINE"
    HTTP = "PORT[/PATH]"
    TCP = "PORT"
    GRPC = "PORT[/SERVICE]"
    COUNT = "N"
    RATIO = "RATIO"
    DURATION = "DURATION"
    CPUS = "CPUS"
    SIZE = "SIZE"
    CHOICE = "CHOICE"
    SWITCH = "SWITCH"


@dataclass(frozen=True, slots=True)
class Option:
    """`field`: path in ServiceSpec. `words`: of a CHOICE, each with the name of its enumeration value.

    `least`, `most`: of a COUNT.
    """

    name: str
    field: str
    kind: Kind
    help: str
    words: Mapping[str, str] | None = None
    least: int = 0
    most: int = 2**32 - 1

    @property
    def key(self) -> str:
        """The keyword argument that click passes it as."""
        return self.name.removeprefix("--").replace("-", "_")


_ORDERS: Final = {"stop-first": "UPDATE_ORDER_STOP_FIRST", "start-first": "UPDATE_ORDER_START_FIRST"}
_ROLLBACK_ACTIONS: Final = {"pause": "FAILURE_ACTION_PAUSE", "continue": "FAILURE_ACTION_CONTINUE"}
_ACTIONS: Final = {**_ROLLBACK_ACTIONS, "rollback": "FAILURE_ACTION_ROLLBACK"}
_CONDITIONS: Final = {
    "any": "RESTART_CONDITION_ANY",
    "on-failure": "RESTART_CONDITION_ON_FAILURE",
    "none": "RESTART_CONDITION_NONE",
}
_DISCONNECT: Final = {"replace": "DISCONNECT_REPLACE", "keep": "DISCONNECT_KEEP", "fence": "DISCONNECT_FENCE"}


def _rollout(which: str, verb: str, actions: Mapping[str, str]) -> tuple[Option, ...]:
    return (
        Option(f"--{which}-parallelism", f"{which}.parallelism", Kind.COUNT, f"{verb} so many at once; 0 for all."),
        Option(f"--{which}-delay", f"{which}.delay", Kind.DURATION, "Wait so long between them."),
        Option(f"--{which}-monitor", f"{which}.monitor", Kind.DURATION, "A task that ends sooner is a failure."),
        Option(f"--{which}-order", f"{which}.order", Kind.CHOICE, "Which task of a slot goes first.", _ORDERS),
        Option(f"--{which}-failure-action", f"{which}.failure_action", Kind.CHOICE, "When it fails.", actions),
        Option(f"--{which}-max-failure-ratio", f"{which}.max_failure_ratio", Kind.RATIO, "Share that may fail."),
        Option(
            f"--{which}-progress-deadline",
            f"{which}.progress_deadline",
            Kind.DURATION,
            "Without progress for so long it has failed; 0 for never.",
        ),
    )


def _check(name: str, field: str, what: str, retries: str) -> tuple[Option, ...]:
    check = f"task.container.{field}"
    return (
        Option(f"--{name}-cmd", check, Kind.SHELL, f"Ask with this line of shell if {what}."),
        Option(f"--{name}-http", check, Kind.HTTP, "Ask with GET at this port of the task."),
        Option(f"--{name}-tcp", check, Kind.TCP, "Ask by opening a connection to this port."),
        Option(f"--{name}-grpc", check, Kind.GRPC, "Ask grpc.health.v1.Health at this port."),
        Option(f"--{name}-interval", f"{check}.interval", Kind.DURATION, "Ask so often."),
        Option(f"--{name}-timeout", f"{check}.timeout", Kind.DURATION, "Wait so long for the answer."),
        Option(f"--{name}-retries", f"{check}.retries", Kind.COUNT, retries),
        Option(f"--{name}-start-period", f"{check}.start_period", Kind.DURATION, "Time to come up in."),
        Option(f"--{name}-start-interval", f"{check}.start_interval", Kind.DURATION, "Ask so often till then."),
    )


OPTIONS: Final[tuple[Option, ...]] = (
    Option("--replicas", "replicas", Kind.COUNT, "Run so many tasks."),
    Option("--entrypoint", "task.container.entrypoint", Kind.WORDS, "Run this instead of the image's entrypoint."),
    Option("--user", "task.container.user", Kind.TEXT, "Run as this user: UID[:GID] or a name of the image."),
    Option("--workdir", "task.container.working_dir", Kind.TEXT, "Run in this directory."),
    Option("--hostname", "task.container.hostname", Kind.TEXT, "The containers' host name; may hold templates."),
    Option("--init", "task.container.init", Kind.SWITCH, "Run an init that reaps orphans as process 1."),
    Option("--read-only", "task.container.read_only", Kind.SWITCH, "Mount the root file system read-only."),
    Option("--stop-signal", "task.container.stop_signal", Kind.TEXT, "Ask the program to stop with this signal."),
    Option("--stop-grace-period", "task.container.stop_grace_period", Kind.DURATION, "Kill it so long after that."),
    Option("--drain-timeout", "task.drain_timeout", Kind.DURATION, "Let requests end for so long before that."),
    Option(
        "--weight",
        "task.weight",
        Kind.COUNT,
        "Share of requests that each task gets; 1 unless given.",
        least=1,
        most=100,
    ),
    Option(
        "--endpoint-mode",
        "endpoint.mode",
        Kind.CHOICE,
        "Its name stands for an address of its own, or for those of all tasks.",
        {"vip": "ENDPOINT_MODE_VIP", "dnsrr": "ENDPOINT_MODE_DNSRR"},
    ),
    Option("--client-affinity", "endpoint.client_affinity", Kind.SWITCH, "Give a client the same task again."),
    Option("--limit-cpu", "task.limits.cpus", Kind.CPUS, "Limit the CPUs of a task; 0 for none."),
    Option("--limit-memory", "task.limits.memory_bytes", Kind.SIZE, "Limit the memory of a task (512m); 0 for none."),
    Option("--limit-pids", "task.limits.pids", Kind.COUNT, "Limit the processes of a task; 0 for none."),
    Option("--reserve-cpu", "task.reservations.cpus", Kind.CPUS, "Reserve CPUs for a task."),
    Option("--reserve-memory", "task.reservations.memory_bytes", Kind.SIZE, "Reserve memory for a task."),
    Option(
        "--replicas-max-per-node",
        "task.placement.max_replicas_per_node",
        Kind.COUNT,
        "At most so many on a node.",
    ),
    Option("--restart-condition", "task.restart.condition", Kind.CHOICE, "When an ended task restarts.", _CONDITIONS),
    Option("--restart-delay", "task.restart.delay", Kind.DURATION, "Wait before a restart; doubles while it fails."),
    Option("--restart-max-attempts", "task.restart.max_attempts", Kind.COUNT, "Restart so often; 0 for ever."),
    Option("--restart-window", "task.restart.window", Kind.DURATION, "Count attempts within this time; 0 for ever."),
    *_check("health", "healthcheck", "it is well", "So many bad answers make it ill."),
    *_check("readiness", "readiness", "it takes requests", "So many bad answers keep requests away."),
    *_rollout("update", "Replace", _ACTIONS),
    *_rollout("rollback", "Return", _ROLLBACK_ACTIONS),
    Option("--canary", "canary", Kind.COUNT, "Try an update in so many new tasks first."),
    Option("--auto-promote", "auto_promote", Kind.SWITCH, "Go on by itself once the canaries did well."),
    Option("--max-unavailable", "max_unavailable", Kind.TEXT, "So many tasks, or N%, may be missing for our changes."),
    Option("--disconnect", "disconnect", Kind.CHOICE, "What becomes of tasks on a node that is cut off.", _DISCONNECT),
)


_TIMES_OF_HEALTH: Final = tuple(o for o in OPTIONS if o.field.startswith("task.container.healthcheck."))


def spec_options(command: F) -> F:
    """Add the options to a command."""
    command = click.option("--no-readiness", is_flag=True, help="Do not ask whether tasks take requests.")(command)
    command = click.option("--no-healthcheck", is_flag=True, help="Do not ask whether tasks are well.")(command)
    for option in reversed(OPTIONS):
        command = _click_option(option)(command)
    return command


def _click_option(option: Option) -> Callable[[F], F]:
    match option.kind:
        case Kind.COUNT:
            return click.option(
                option.name, type=click.IntRange(option.least, option.most), default=None, help=option.help
            )
        case Kind.RATIO:
            return click.option(option.name, type=float, default=None, metavar="RATIO", help=option.help)
        case Kind.CHOICE:
            words = list(option.words or ())
            return click.option(option.name, type=click.Choice(words), default=None, help=option.help)
        case Kind.SWITCH:
            names = f"{option.name}/--no-{option.name.removeprefix('--')}"
            return click.option(names, option.key, default=None, help=option.help)
        case _:
            return click.option(option.name, default=None, metavar=option.kind.value, help=option.help)


def apply_options(given: Mapping[str, Any], spec: "types.ServiceSpec") -> None:
    """Put the options that were given into a spec. UsageError for one that cannot be read."""
    from argosy.core.errors import InvalidError

    if _is_without(given, "no_healthcheck", "health"):
        spec.task.container.healthcheck.Clear()
        spec.task.container.healthcheck.test[:] = ["NONE"]
    if _is_without(given, "no_readiness", "readiness"):
        spec.task.container.ClearField("readiness")
    _refuse_two_ways(given)
    for option in OPTIONS:
        value = given.get(option.key)
        if value is None:
            continue
        for check in ("healthcheck", "readiness"):
            if f"{option.field}.".startswith(f"task.container.{check}."):
                _have_check(spec, check)
        try:
            _set(option, value, spec)
        except InvalidError as error:
            raise click.UsageError(f"{option.name}: {error}") from None
    _refuse_idle(given, spec)


def _refuse_two_ways(given: Mapping[str, Any]) -> None:
    """Refuse two ways to ask one question: the last would win without a word."""
    for question in ("health", "readiness"):
        ways = [f"--{question}-{way}" for way in ("cmd", "http", "tcp", "grpc") if given.get(f"{question}_{way}")]
        if len(ways) > 1:
            raise click.UsageError(f"{' and '.join(ways)} contradict each other: a task is asked in one way")


def _refuse_idle(given: Mapping[str, Any], spec: "types.ServiceSpec") -> None:
    """Refuse options of the restart policy that would have no effect."""
    from argosy.core.codec import decode
    from argosy.core.restart import idle_settings
    from argosy.core.service import RestartPolicy

    for name, (why, instead) in idle_settings(decode(spec.task.restart, RestartPolicy)).items():
        if given.get(f"restart_{name}") is not None:
            raise click.UsageError(f"--restart-{name.replace('_', '-')}: {why}; {instead}")


def refuse_idle_check(session: Session, given: Mapping[str, Any], spec: "types.ServiceSpec") -> None:
    """Refuse options that say how often a task is asked whether it is well where nothing asks: also not the image."""
    times = [option.name for option in _TIMES_OF_HEALTH if given.get(option.key) is not None]
    if not times:
        return
    control = session.control
    import grpc

    from argosy.core.codec import decode
    from argosy.core.image import Image
    from argosy.core.service import Healthcheck
    from argosy.core.validate_health import asks_nothing
    from argosy.proto.argosy.v1 import control_pb2 as pb

    container = spec.task.container
    if not asks_nothing(decode(container.healthcheck, Healthcheck), None):
        return
    try:
        ref = container.image_digest or container.image
        image = decode(control.GetImage(pb.GetImageRequest(project=session.project, ref=ref)), Image)
    except grpc.RpcError:
        return  # what is wrong with the image, the cluster says better
    if asks_nothing(decode(container.healthcheck, Healthcheck), image.config.healthcheck):
        raise click.UsageError(
            f"{times[0]}: nothing asks whether tasks are well, so it has no effect: add --health-cmd, --health-http, "
            "--health-tcp or --health-grpc"
        )


def _is_without(given: Mapping[str, Any], switch: str, check: str) -> bool:
    """Whether a check is switched off. UsageError when something else is said of it, too."""
    if given.get(switch) and any(key.startswith(f"{check}_") and value is not None for key, value in given.items()):
        raise click.UsageError(f"--{switch.replace('_', '-')} and --{check}-… contradict each other")
    return bool(given.get(switch))


def _have_check(spec: "types.ServiceSpec", name: str) -> None:
    """Give a spec a check with the usual times, if it has none."""
    from argosy.core.codec import encode_into
    from argosy.core.service import Healthcheck

    check = getattr(spec.task.container, name)
    if not spec.task.container.HasField(name) or list(check.test) == ["NONE"]:  # type: ignore[arg-type]
        check.Clear()
        encode_into(Healthcheck(), check)


def _set(option: Option, value: Any, spec: "types.ServiceSpec") -> None:
    from argosy.core.units import parse_bytes, parse_cpus, parse_duration
    from argosy.proto.argosy.v1 import types_pb2 as types

    *path, field = option.field.split(".")
    owner: Message = spec
    for name in path:
        owner = getattr(owner, name)
    match option.kind:
        case Kind.WORDS:
            getattr(owner, field)[:] = split(value, option.name)
            setattr(owner, f"{field}_set", True)
        case Kind.SHELL:
            probe_options.by_shell(getattr(owner, field), value)
        case Kind.HTTP:
            probe_options.by_http(getattr(owner, field), value)
        case Kind.TCP:
            probe_options.by_tcp(getattr(owner, field), value)
        case Kind.GRPC:
            probe_options.by_grpc(getattr(owner, field), value)
        case Kind.DURATION:
            setattr(owner, field, parse_duration(value))
        case Kind.CPUS:
            setattr(owner, field, parse_cpus(value))
        case Kind.SIZE:
            setattr(owner, field, parse_bytes(value))
        case Kind.CHOICE:
            setattr(owner, field, getattr(types, (option.words or {})[value]))
        case _:
            setattr(owner, field, value)


def split(command: str, option: str) -> list[str]:
    """Return a command's words as a shell would split them. UsageError for an open quote."""
    try:
        return shlex.split(command)
    except ValueError as error:
        raise click.UsageError(f"{option}: {error}") from None


def pair(text: str, option: str) -> tuple[str, str]:
    """Return (name, value) of "NAME=VALUE". UsageError for anything else."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.UsageError(f"'{text}' is not NAME=VALUE (for {option})")
    return name, value
