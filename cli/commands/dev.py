"""`argosy dev`: a whole cluster on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from argosy.cli.output import Column, format_option, say, show
from argosy.cli.session import Session
from argosy.cli.waiting import seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from argosy.cli.dev.layout import Layout


@click.group(name="dev", help="A whole cluster on this machine, each host in namespaces of its own.")
def command() -> None:
    """Group of the dev commands."""


def _named(ctx: click.Context, _: click.Parameter, name: str | None) -> str:
    """Return the name given, else that of the dev cluster in use: what ends it must not meet another."""
    return name if name is not None else ctx.ensure_object(Session).dev_name


_name = click.option(
    "--name",
    metavar="NAME",
    callback=_named,
    help="Several may live side by side.  [default: that of the context in use, or default]",
)


@command.command(help="Start a dev cluster and wait until its hosts are ready.")
@_name
@click.option("--nodes", default=3, show_default=True, type=click.IntRange(1, 100), help="Number of hosts.")
@click.option("--controllers", default=1, show_default=True, type=click.IntRange(1, 5))
@click.option(
    "--timeout",
    default="1m",
    show_default=True,
    metavar="DURATION",
    callback=seconds,
    help="How long to wait for the hosts.",
)
def up(name: str, nodes: int, controllers: int, timeout: float) -> None:
    """Start a cluster."""
    import time

    from argosy.cli.dev import cluster
    from argosy.cli.dev.layout import Layout

    layout = Layout(name)
    began = time.monotonic()
    cluster.up(layout, nodes, controllers)
    try:
        cluster.wait_ready(layout, _ready_counter(layout), nodes, timeout)
    except KeyboardInterrupt:
        cluster.down(layout)
        raise
    took = time.monotonic() - began
    say(f"The dev cluster {name} is up: {nodes} hosts, ready after {took:.1f} s.")
    context = "" if name == "default" else f" --context dev/{name}"
    say(f"Look around: argosy{context} node ls      End it: argosy dev down{_flag(name)}")


@command.command(help="End a dev cluster and remove everything of it.")
@_name
def down(name: str) -> None:
    """End a cluster."""
    from argosy.cli.dev import cluster
    from argosy.cli.dev.layout import Layout

    if cluster.down(Layout(name)):
        say(f"The dev cluster {name} is gone.")
    else:
        say(f"There is no dev cluster {name}.")


@command.command(help="Show the processes of a dev cluster.")
@_name
@format_option
def status(name: str, form: str) -> None:
    """Show a cluster's processes."""
    from argosy.cli.dev import cluster
    from argosy.cli.dev.layout import Layout
    from argosy.cli.errors import CliError

    layout = Layout(name)
    if not cluster.is_up(layout):
        others = ", ".join(n for n in cluster.names() if cluster.is_up(Layout(n)))
        raise CliError(
            f"the dev cluster {name} is not up{f' (up: {others})' if others else ''}",
            f"`argosy dev up{_flag(name)}` starts it",
        )
    found = cluster.processes(layout)
    rows = [
        {"process": process, "pid": what["pid"], "host": what["space"], "log": str(layout.log(process))}
        for process, what in found.get("processes", {}).items()
    ]
    rows += [{"process": "host", "pid": pid, "host": host, "log": ""} for host, pid in found.get("holders", {}).items()]
    columns = (Column("PROCESS", "process"), Column("PID", "pid"), Column("HOST", "host"), Column("LOG", "log", 1))
    show(rows, columns, form)


@command.command(help="Cut a host off: take its link to the other hosts and the controllers down.")
@_name
@click.argument("node")
def cut(name: str, node: str) -> None:
    """Take a host's link down."""
    _set_link(name, node, "down")
    say(f"{node} is cut off. Bring it back: argosy dev heal {node}{_flag(name)}")


@command.command(help="Bring a host's link back up.")
@_name
@click.argument("node")
def heal(name: str, node: str) -> None:
    """Take a host's link up."""
    _set_link(name, node, "up")
    say(f"{node} is connected again.")


@command.command(
    name="exec",
    help="Run a command on a host, in its network and its root directory: argosy dev exec node1 curl "
    "http://localhost:8080 asks a port that a service publishes. Exits with the command's status.",
    context_settings={"allow_interspersed_args": False},
)
@_name
@click.argument("node")
@click.argument("arguments", nargs=-1, required=True, metavar="COMMAND...")
def run_on(name: str, node: str, arguments: tuple[str, ...]) -> None:
    """Become a command on a host."""
    import os

    from argosy.cli.dev import cluster
    from argosy.cli.dev.layout import Layout

    entering = cluster.on_host(Layout(name), node, arguments)
    os.execvp(entering[0], entering)


def _set_link(name: str, node: str, state: str) -> None:
    from argosy.cli.dev import cluster
    from argosy.cli.dev.layout import Layout

    cluster.set_link(Layout(name), node, state)


def _flag(name: str) -> str:
    return "" if name == "default" else f" --name {name}"


def _ready_counter(layout: Layout) -> Callable[[], int]:
    """Return a function that counts the nodes that are READY; 0 while no controller answers."""
    import grpc

    from argosy.proto.argosy.v1 import control_pb2 as pb
    from argosy.proto.argosy.v1 import control_pb2_grpc as rpc
    from argosy.proto.argosy.v1 import types_pb2 as tpb

    target = f"unix://{layout.socket(1)}"
    options = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 100)]
    stub = rpc.ControlStub(grpc.insecure_channel(target, options=options))

    def count() -> int:
        try:
            nodes = stub.ListNodes(pb.ListNodesRequest(), timeout=2).nodes
        except grpc.RpcError:
            return 0
        return sum(n.status.state == tpb.NODE_STATE_READY for n in nodes)

    return count
