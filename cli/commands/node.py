"""`argosy node`: the hosts of the cluster."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from argosy.cli import complete
from argosy.cli.errors import CliError
from argosy.cli.output import Column, Row, format_option, notice, quiet_option, say, show, size_text
from argosy.cli.planning import NO_PLANNING, Planning, plan_options
from argosy.cli.session import Session, pass_session
from argosy.cli.waiting import seconds, waiting_options

if TYPE_CHECKING:
    from argosy.proto.argosy.v1 import types_pb2 as types

_TRIES = 5


def _labels(row: Row) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(row["labels"].items()))


def _period(ctx: click.Context, param: click.Parameter, text: str | None) -> float | None:
    from argosy.core.problem import LONGEST_S
    from argosy.core.units import format_duration

    if text is None:
        return None
    period = seconds(ctx, param, text)
    if period > LONGEST_S:
        raise click.BadParameter(f"{text} is longer than {format_duration(LONGEST_S)}: leave it out for no deadline")
    return period


COLUMNS = (
    Column("ID", "id", rank=4),
    Column("NAME", "name"),
    Column("STATE", "state"),
    Column("AVAILABILITY", "availability"),
    Column("ADDRESS", "address", rank=2),
    Column("TASKS", "tasks"),
    Column("CPUS", lambda row: f"{row['cpus']:g}", rank=6),
    Column("MEMORY", lambda row: size_text(row["memory_bytes"]), rank=5),
    Column("LABELS", _labels, rank=3),
    Column("MESSAGE", "message", rank=1),
)


@click.group(name="node", help="List, look into, drain and label nodes.")
def command() -> None:
    pass


@command.command("ls", help="List nodes.")
@quiet_option
@format_option
@pass_session
def list_nodes(session: Session, quiet: bool, form: str) -> None:
    control = session.control
    from argosy.cli.rows import node_rows
    from argosy.proto.argosy.v1 import control_pb2 as pb

    nodes = control.ListNodes(pb.ListNodesRequest(project=session.project)).nodes
    tasks = control.ListTasks(pb.ListTasksRequest(project=session.project)).tasks
    show(node_rows(nodes, tasks), COLUMNS, form, quiet=quiet)


@command.command("inspect", help="Show nodes in full, as JSON.")
@click.option("--format", "form", type=click.Choice(["json"]), default="json", hidden=True)
@click.argument("nodes", nargs=-1, required=True, metavar="NODE...", shell_complete=complete.nodes)
@pass_session
def inspect(session: Session, form: str, nodes: tuple[str, ...]) -> None:
    control = session.control
    from argosy.cli.messages import plain
    from argosy.cli.output import show_json
    from argosy.proto.argosy.v1 import control_pb2 as pb

    found = [control.GetNode(pb.GetNodeRequest(project=session.project, ref=ref)) for ref in nodes]
    show_json([plain(node) for node in found])


@command.command("drain", short_help="Move all tasks away from nodes, and wait until none runs there.")
@click.option("--pace", type=click.IntRange(1, 100_000), metavar="N", help="Move so many tasks of a node at a time.")
@click.option(
    "--deadline",
    metavar="DURATION",
    callback=_period,
    help="Stop what is still there so long from now, such as 10m; never, unless given.",
)
@plan_options
@waiting_options
@click.argument("nodes", nargs=-1, required=True, metavar="NODE...", shell_complete=complete.nodes)
@pass_session
def drain(
    session: Session,
    pace: int | None,
    deadline: float | None,
    detach: bool,
    timeout: float,
    nodes: tuple[str, ...],
    planning: Planning,
) -> None:
    """Move all tasks away from nodes, and wait until none runs there.

    Each task is started elsewhere and is well there before it stops here, as the services' availability budgets
    (max_unavailable) allow; tasks of global services stop last. A job's task goes on to its end, and a task that can
    run nowhere else stays, and it is said why, until the deadline, if there is one. 'argosy node activate' ends a
    drain: what has not moved stays.
    """
    from argosy.cli.progress.drained import NodeDrained
    from argosy.cli.progress.jobs import AllOf
    from argosy.cli.progress.wait import wait_for
    from argosy.core.codec import decode
    from argosy.core.node import Node

    if planning != NO_PLANNING and len(nodes) > 1:
        raise click.UsageError("a plan is of one node: the drain of the next depends on where this one's tasks go")
    refs = _without_new_tasks(session, nodes) if len(nodes) > 1 else nodes
    changed = [
        _set_availability(session, ref, "AVAILABILITY_DRAIN", pace or 0, deadline or 0.0, planning) for ref in refs
    ]
    if detach:
        for node in changed:
            notice(f"{node.spec.name}: draining")
        return
    goal = AllOf(tuple(NodeDrained(decode(node, Node)) for node in changed))
    wait_for(session, goal, timeout=timeout, continues="the drain goes on")
    for node in changed:
        say(f"node {node.spec.name} is drained")


@command.command("activate", help="Let nodes take tasks again.")
@click.argument("nodes", nargs=-1, required=True, metavar="NODE...", shell_complete=complete.nodes)
@pass_session
def activate(session: Session, nodes: tuple[str, ...]) -> None:
    for ref in nodes:
        say(f"node {_set_availability(session, ref, 'AVAILABILITY_ACTIVE').spec.name} is active")


@command.command("pause", help="Let nodes take no new tasks; what runs there goes on.")
@click.argument("nodes", nargs=-1, required=True, metavar="NODE...", shell_complete=complete.nodes)
@pass_session
def pause(session: Session, nodes: tuple[str, ...]) -> None:
    for ref in nodes:
        say(f"node {_set_availability(session, ref, 'AVAILABILITY_PAUSE').spec.name} is paused")


@command.command("update", help="Change the labels of a node.")
@click.option("--label-add", multiple=True, metavar="NAME=VALUE", help="Set a label (constraints can ask for it).")
@click.option("--label-rm", multiple=True, metavar="NAME", help="Remove a label.")
@click.argument("node", shell_complete=complete.nodes)
@pass_session
def update(session: Session, label_add: tuple[str, ...], label_rm: tuple[str, ...], node: str) -> None:
    if not label_add and not label_rm:
        raise click.UsageError("nothing is to be changed: give --label-add or --label-rm")
    pairs = [pair.partition("=") for pair in label_add]
    for name, equals, _ in pairs:
        if not name or not equals:
            raise click.UsageError(f"'{name}' is not NAME=VALUE (for --label-add)")

    def change(spec: "types.NodeSpec") -> None:
        for name, _, value in pairs:
            spec.labels[name] = value
        for name in label_rm:
            if name not in spec.labels:
                raise CliError(f"node {spec.name} has no label '{name}' to remove")
            del spec.labels[name]

    say(f"node {_change(session, node, change).spec.name} is updated")


@command.command("rm", help="Forget nodes for good: their tasks are replaced, their addresses are free again.")
@click.argument("nodes", nargs=-1, required=True, metavar="NODE...", shell_complete=complete.nodes)
@pass_session
def remove(session: Session, nodes: tuple[str, ...]) -> None:
    control = session.control
    from argosy.proto.argosy.v1 import control_pb2 as pb

    for ref in nodes:
        node = control.RemoveNode(pb.RemoveNodeRequest(project=session.project, ref=ref))
        say(f"node {node.spec.name} is removed")


def _without_new_tasks(session: Session, refs: tuple[str, ...]) -> tuple[str, ...]:
    """Pause the nodes that are active, or the first one's tasks would go to the others; return the ids of all."""
    from argosy.proto.argosy.v1 import control_pb2 as pb
    from argosy.proto.argosy.v1 import types_pb2 as types

    found = [session.control.GetNode(pb.GetNodeRequest(project=session.project, ref=ref)) for ref in refs]
    nodes = {node.meta.id: node for node in found}
    for identity, node in nodes.items():
        if node.spec.availability == types.AVAILABILITY_ACTIVE:
            _set_availability(session, identity, "AVAILABILITY_PAUSE")
    return tuple(nodes)


def _set_availability(
    session: Session, ref: str, name: str, pace: int = 0, drain_for: float = 0.0, planning: Planning = NO_PLANNING
) -> "types.Node":
    from argosy.proto.argosy.v1 import types_pb2 as types

    def change(spec: "types.NodeSpec") -> None:
        spec.availability = types.Availability.Value(name)
        spec.drain.Clear()
        spec.drain.pace = pace

    return _change(session, ref, change, drain_for, planning)


def _change(
    session: Session,
    ref: str,
    change: Callable[[Any], None],
    drain_for: float = 0.0,
    planning: Planning = NO_PLANNING,
) -> "types.Node":
    """Change a node's spec under its version; again on the newer one if the controller has changed it meanwhile."""
    import grpc

    from argosy.proto.argosy.v1 import control_pb2 as pb
    from argosy.proto.argosy.v1 import types_pb2 as types

    control = session.control
    for left in reversed(range(_TRIES)):
        node = control.GetNode(pb.GetNodeRequest(project=session.project, ref=ref))
        spec = types.NodeSpec()
        spec.CopyFrom(node.spec)
        change(spec)
        request = pb.UpdateNodeRequest(
            project=session.project, ref=node.meta.id, spec=spec, version=node.meta.version, drain_for=drain_for
        )
        planning.before(session, "update_node", request)
        try:
            return control.UpdateNode(request)
        except grpc.RpcError as error:
            if not left or not isinstance(error, grpc.Call) or error.code() is not grpc.StatusCode.ABORTED:
                raise
    raise AssertionError("the last try returns or raises")
