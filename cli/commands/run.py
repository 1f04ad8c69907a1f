"""`argosy run`: one task that is its own service: its output comes here, its exit status is the command's.

With -i its standard input is ours, with -t it has a terminal, which is ours (cli/console.py).

The service is a job of one completion that is never restarted, with the label argosy.run; it is removed when the task
has ended, or is interrupted. Anything that goes wrong between us and the program is said on stderr.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

import click

from argosy.cli import complete, interrupt
from argosy.cli.commands import network_option
from argosy.cli.commands.port_options import publish_option, publish_ports
from argosy.cli.commands.service_options import apply_options
from argosy.cli.errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_UNREACHABLE,
    CliError,
    InvalidInputError,
    UnreachableError,
    explain,
    outcome_unknown,
)
from argosy.cli.following import follow, problem
from argosy.cli.output import notice, say
from argosy.cli.session import Session, pass_session
from argosy.cli.waiting import until_gone

if TYPE_CHECKING:
    from argosy.cli.console import Console
    from argosy.core.service import Service, ServiceSpec
    from argosy.core.task import Task
    from argosy.proto.argosy.v1 import control_pb2 as pb
    from argosy.proto.argosy.v1 import types_pb2 as types

RUN_LABEL: Final = "argosy.run"
EXIT_CANNOT_RUN: Final = 125
"""The program was never tried, as docker run says it."""
_TICK_S: Final = 0.5
_LAST_LINES_S: Final = 10.0
"""How long to wait for more of the output once the task has ended."""
_STOP_TIMEOUT_S: Final = 60.0
_PATIENCE_S: Final = 60.0
"""How long no controller may be reachable until the run is given up; its output and its end are missed until then."""
_GRACE_S: Final = 1.0
"""How long an interactive program may go on when nobody is attached any more. A shell as pid 1 takes no SIGTERM."""


@click.command(
    name="run",
    help="Run a command in a container somewhere in the cluster, with its output here, and exit with its status: "
    "argosy run IMAGE [COMMAND...]. A program killed by signal N gives 128+N; one that is not there 127, one that "
    "cannot be executed 126, and 125 when it could not even be tried. Ctrl-C stops it.",
    context_settings={"allow_interspersed_args": False},
)
@click.option("--name", default="", metavar="NAME", help="What its service is called; else run-SOMETHING.")
@click.option("--network", "networks", multiple=True, metavar="NETWORK", help=network_option.HELP)
@publish_option
@click.option(
    "-e", "--env", multiple=True, metavar="NAME[=VALUE]", help="Set a variable; NAME alone takes it from here."
)
@click.option("-w", "--workdir", default=None, metavar="PATH", help="Run in this directory.")
@click.option("-u", "--user", default=None, metavar="USER", help="Run as this user: UID[:GID] or a name of the image.")
@click.option("--constraint", "constraints", multiple=True, metavar="EXPRESSION", help="Run where this holds.")
@click.option("--limit-cpu", default=None, metavar="CPUS", help="Limit its CPUs.")
@click.option("--limit-memory", default=None, metavar="SIZE", help="Limit its memory (512m).")
@click.option("--limit-pids", type=click.IntRange(0), default=None, help="Limit its processes.")
@click.option("-i", "--interactive", is_flag=True, help="Feed it this standard input.")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal, joined to this one: as 'run -it IMAGE sh'.")
@click.option("--rm/--no-rm", "remove", default=True, help="Remove its service when it has ended (yes).")
@click.option("-d", "--detach", is_flag=True, help="Print the service's name and do not wait; nothing is removed.")
@click.argument("image", shell_complete=complete.images)
@click.argument("arguments", nargs=-1, metavar="[COMMAND...]")
@pass_session
def command(session: Session, /, remove: bool, detach: bool, **options: Any) -> int:
    if options["tty"] and not sys.stdin.isatty():
        raise InvalidInputError("standard input is not a terminal", "leave -t out")
    if detach and (options["tty"] or options["interactive"]):
        raise InvalidInputError("nobody is attached to what runs detached", "leave -d out, or -i and -t")
    return run_to_its_end(session, options, remove=remove, detach=detach)


def run_to_its_end(session: Session, options: dict[str, Any], *, remove: bool = True, detach: bool = False) -> int:
    """Run what the options of `argosy run` say; return the exit status."""
    from argosy.cli.console import Console
    from argosy.core.codec import decode
    from argosy.core.service import Service
    from argosy.proto.argosy.v1 import control_pb2 as pb

    request = pb.CreateServiceRequest(project=session.project, spec=_message(options))
    if detach:
        with interrupt.held():
            say(_create(session, request).spec.name)
        interrupt.check()
        return 0
    console = Console(session, terminal=options["tty"]) if options["tty"] or options["interactive"] else None
    with _terminated_as_interrupted():
        with interrupt.held():  # until it is known what there is to remove
            created = _create(session, request)
            following = _Following(session, decode(created, Service), console)
        try:
            with console.ready() if console else nullcontext():
                status = following.until_ended()
                if remove:
                    _remove(session, created)
                return status
        except KeyboardInterrupt:
            interrupt.acted_on()
            notice(f"{created.spec.name}: being stopped")
            until_gone(session, [_remove(session, created)], (), timeout=_STOP_TIMEOUT_S)
            notice(f"{created.spec.name}: stopped and removed")
            return EXIT_INTERRUPTED
        except ConnectionBroke:
            _remove(session, created)
            raise
        finally:
            following.stop()


def _create(session: Session, request: "pb.CreateServiceRequest") -> "types.Service":
    name = request.spec.name
    try:
        with refused_with(EXIT_CANNOT_RUN, name):
            return session.control.CreateService(request)
    except KeyboardInterrupt:
        interrupt.acted_on()
        raise CliError("interrupted", _may_run(name), status=EXIT_INTERRUPTED) from None


def _remove(session: Session, created: "types.Service") -> "types.Service":
    from argosy.proto.argosy.v1 import control_pb2 as pb

    return session.control.RemoveService(pb.RemoveServiceRequest(project=session.project, ref=created.meta.id))


def _may_run(name: str) -> str:
    return f"{name} may run all the same: 'argosy service rm {name}' ends it"


def _message(options: dict[str, Any]) -> "types.ServiceSpec":
    from argosy.core.codec import encode
    from argosy.proto.argosy.v1 import types_pb2 as types

    message = encode(_spec(options), types.ServiceSpec)
    publish_ports(message, options["publish"])
    apply_options(
        {key: options.get(key) for key in ("workdir", "user", "limit_cpu", "limit_memory", "limit_pids")}, message
    )
    return message


def _spec(options: dict[str, Any]) -> "ServiceSpec":
    from argosy.core.ids import new_id
    from argosy.core.service import (
        ContainerSpec,
        Interactive,
        JobSpec,
        Placement,
        RestartCondition,
        RestartPolicy,
        ServiceMode,
        ServiceSpec,
        TaskSpec,
    )

    arguments = options["arguments"]
    attached = Interactive.TERMINAL if options["tty"] else Interactive(bool(options["interactive"]))
    return ServiceSpec(
        name=options["name"] or f"run-{new_id()[:10]}",
        labels={RUN_LABEL: "true"},
        mode=ServiceMode.REPLICATED_JOB,
        job=JobSpec(),
        task=TaskSpec(
            container=ContainerSpec(
                image=options["image"],
                command=arguments,
                command_set=bool(arguments),
                env=tuple(text for given in _environment(options) if (text := _variable(given))),
                interactive=attached,
                stop_grace_period=_GRACE_S if attached else None,
            ),
            restart=RestartPolicy(RestartCondition.NONE),
            placement=Placement(constraints=options["constraints"]),
            networks=tuple(map(network_option.attachment, options["networks"])),
        ),
    )


def _environment(options: dict[str, Any]) -> tuple[str, ...]:
    """Return what is set for the program: with a terminal, also of which kind that is."""
    given: tuple[str, ...] = options["env"]
    return ("TERM", *given) if options["tty"] else given


def _variable(given: str) -> str:
    """Return NAME=VALUE; "" for a NAME alone that is not set here."""
    name, equals, _ = given.partition("=")
    if not name:
        raise click.UsageError(f"'{given}' is not NAME=VALUE (for --env)")
    if equals:
        return given
    return f"{name}={os.environ[name]}" if name in os.environ else ""


@contextmanager
def refused_with(status: int, name: str = "") -> Iterator[None]:
    """End with this status where the cluster refuses a request; a cluster that is away is another matter.

    `name`: of the service that the request would begin.
    """
    import grpc

    try:
        yield
    except grpc.RpcError as error:
        told = explain(error)
        if told.status not in (EXIT_UNREACHABLE, EXIT_INTERRUPTED):
            told.status = status
        if name and outcome_unknown(error):
            told.hint = _may_run(name)
        raise told from None


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Take SIGTERM like Ctrl-C: what was begun here is ended here."""
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def await_rest(reader: threading.Thread, passed: Callable[[], int], writing: Callable[[], bool]) -> bool:
    """Wait until all output of a task that has ended is here, for as long as more comes; False if it came no more.

    `passed` tells how much has come, `writing` whether it waits for whoever reads what we write, who may take any time.
    """
    before, quiet_since = passed(), time.monotonic()
    while reader.is_alive():
        interrupt.check()
        reader.join(_TICK_S)
        if writing() or passed() != before:
            before, quiet_since = passed(), time.monotonic()
        elif time.monotonic() - quiet_since > _LAST_LINES_S:
            return not reader.is_alive()
    return True


class ConnectionBroke(CliError):
    """The connection to an interactive program broke, which is its end."""


class _Following:
    """Watches the service and passes on the output of its tasks (a second one, if the first one's node is lost)."""

    def __init__(self, session: Session, service: "Service", console: "Console | None" = None) -> None:
        from argosy.cli.progress.picture import Picture
        from argosy.cli.progress.wait import Watcher

        self._session = session
        self._service = service
        self._picture = Picture()
        self._watcher = Watcher(session, self._picture)
        self._console = console
        self._attached: threading.Thread | None = None
        self._broke = ""
        self._readers: dict[str, threading.Thread] = {}
        self._passed = 0  # writes: that output comes, not how much
        self._writing = False
        self._incomplete = False
        self._told: set[str] = set()

    def stop(self) -> None:
        """End the watch."""
        self._watcher.stop()

    def until_ended(self) -> int:
        """Return the exit status when the run is over and its output has been passed on."""
        from argosy.core.service import JobState

        seen = False
        while True:
            interrupt.check()
            self._watcher.apply_next(_TICK_S)
            if self._watcher.unreachable_s > _PATIENCE_S:
                raise CliError(
                    f"no controller has answered for {_PATIENCE_S:g} s",
                    f"{self._service.spec.name} may still run: 'argosy service rm {self._service.spec.name}' ends it",
                    status=EXIT_UNREACHABLE,
                )
            if not self._picture.synced:
                continue
            service = self._picture.services.get(self._service.meta.id)
            if service is None or service.removing:
                if seen:
                    self._say_if_broken()  # then the controllers remove it
                    raise CliError(f"{self._service.spec.name} was removed by somebody else")
                continue
            seen = True
            tasks = list(self._picture.tasks_of(service.meta.id))
            for task in tasks:
                self._look_at(task)
            if service.job.state in (JobState.COMPLETE, JobState.FAILED):
                self._say_if_broken()
                for reader in self._readers.values():
                    if not await_rest(reader, lambda: self._passed, lambda: self._writing):
                        notice(f"{self._service.spec.name}: the rest of its output does not come")
                        self._incomplete = True
                return exit_status(self._service.spec.name, tasks) or (EXIT_FAILED if self._incomplete else 0)
            if self._broke:
                raise self._connection_broke()

    def _say_if_broken(self) -> None:
        """Raise ConnectionBroke if whoever is attached was cut off from the program; once all of its output is here."""
        if self._attached is not None:
            self._attached.join(_LAST_LINES_S)
        if self._broke:
            raise self._connection_broke()

    def _connection_broke(self) -> ConnectionBroke:
        return ConnectionBroke(f"{self._service.spec.name} is ended: {self._broke}", status=EXIT_UNREACHABLE)

    def _look_at(self, task: "Task") -> None:
        from argosy.core.task_state import TaskState

        state, reason = task.status.state, task.status.reason
        if state is TaskState.PENDING and reason and reason not in self._told:
            self._told.add(reason)
            notice(f"{self._service.spec.name}: waiting: {reason.removeprefix('waiting for ')}")
        was_started = state >= TaskState.RUNNING and state is not TaskState.REJECTED
        if self._console is not None and was_started and self._attached is None:
            self._attached = threading.Thread(target=self._attach, args=(self._console, task.meta.id), daemon=True)
            self._attached.start()
        if self._console is not None and self._console.terminal:
            return  # its output comes there
        if state >= TaskState.ASSIGNED and task.node_id and task.meta.id not in self._readers:
            reader = threading.Thread(target=self._pass_on, args=(task.meta.id,), daemon=True)
            self._readers[task.meta.id] = reader
            reader.start()

    def _attach(self, console: "Console", task_id: str) -> None:
        """Join the task's program; it ends when its connection breaks, and is not begun anew."""
        import grpc

        try:
            console.attach(task_id)
        except grpc.RpcError as error:
            self._broke = explain(error).message
        except OSError as error:
            self._broke = f"its output cannot be written: {error.strerror}"

    def _pass_on(self, task_id: str) -> None:
        """Write a task's output to ours; when the connection breaks, go on behind what was read."""
        import grpc

        from argosy.proto.argosy.v1 import control_pb2 as pb

        request = pb.LogsRequest(project=self._session.project, task=task_id, follow=True, positions={task_id: 0})
        try:
            for entry in follow(self._session, request, lambda: None):
                if said := problem(entry):
                    notice(f"{self._service.spec.name}: {said}")
                    self._incomplete |= bool(entry.missing)
                self._writing = True
                for stderr, outputs in groupby(entry.output, key=attrgetter("stderr")):
                    stream = sys.stderr.buffer if stderr else sys.stdout.buffer
                    stream.writelines(output.data for output in outputs)
                    stream.flush()
                    self._passed += 1
                self._writing = False
        except (grpc.RpcError, UnreachableError) as error:
            if not isinstance(error, grpc.Call) or error.code() is not grpc.StatusCode.NOT_FOUND:
                told = explain(error) if isinstance(error, grpc.RpcError) else error
                notice(f"{self._service.spec.name}: its output cannot be read: {told.message}")
                self._incomplete = True
        except (OSError, ValueError):
            return  # nobody reads our output any more


def exit_status(name: str, tasks: "Sequence[Task]") -> int:
    """Return the exit status of a run that is over, and say what its output cannot."""
    from argosy.core.task_state import TaskState

    if any(task.status.state is TaskState.COMPLETE for task in tasks):
        return 0
    last = max(tasks, key=lambda task: (task.status.at, task.meta.id))
    status = last.status
    code = status.exit_code
    if status.reason and status.reason != f"exit code {code}":
        notice(f"{name}: {status.reason}")
    if status.state is TaskState.REJECTED:
        return EXIT_CANNOT_RUN
    return EXIT_FAILED if code is None else code
