"""`argosy network verify`: all nodes' networks audited, and the ways between them tried."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import click

from argosy.cli import complete
from argosy.cli.errors import EXIT_FAILED
from argosy.cli.output import Column, Row, age_text, format_option, say, show, show_json
from argosy.cli.session import Session, pass_session

if TYPE_CHECKING:
    from argosy.proto.argosy.v1 import control_pb2 as pb

TIMEOUT_S: Final = 60.0
WIDEST: Final = 12
"""Nodes of which all ways are shown as a matrix; of more only what is wrong."""

NODES = (Column("NODE", "node"), Column("AUDIT", "audit"), Column("REPAIRED", "repaired"))


@click.command(
    "verify",
    help="Have the nodes compare their networks with what is intended, and try the way from each to each other (loss, "
    "round trip, largest packet). Without NETWORK: all networks, all nodes. What differs is put right at once. Exits "
    "with 1 when something differed, was lost, or does not answer.",
)
@format_option
@click.argument("network", required=False, default="", shell_complete=complete.networks)
@pass_session
def command(session: Session, form: str, network: str) -> int:
    from argosy.proto.argosy.v1 import control_pb2 as pb

    request = pb.GetNetworkVerificationRequest(project=session.project, ref=network)
    found = session.control.GetNetworkVerification(request, timeout=TIMEOUT_S)
    if form == "json":
        from argosy.cli.messages import plain

        show_json({"healthy": is_healthy(found), **plain(found)})
    else:
        for line in _ways(found):
            say(line)
        show(node_rows(found), NODES, "table")
        for line in differences(found):
            say(line)
    return 0 if is_healthy(found) else EXIT_FAILED


def is_healthy(found: "pb.GetNetworkVerificationResponse") -> bool:
    """Whether every node answered, nothing differed, and every packet that should pass did."""
    nodes_well = all(not node.problem and not node.found for node in found.nodes)
    return nodes_well and all(_is_well(pair) for network in found.networks for pair in network.pairs)


def _is_well(pair: "pb.PairProbe") -> bool:
    return bool(pair.sent) and not pair.lost and not pair.problem and pair.largest >= pair.mtu


def _ways(found: "pb.GetNetworkVerificationResponse") -> Iterable[str]:
    for network in found.networks:
        if not network.nodes:
            yield f"network {network.network}: no node carries it"
            yield ""
            continue
        pairs = {(pair.source, pair.target): pair for pair in network.pairs}
        yield f"network {network.network}: {_summary(network)}"
        yield from (f"  {text}" for text in (network.notice, network.mtu_notice) if text)
        if 1 < len(network.nodes) <= WIDEST:
            yield from _matrix(list(network.nodes), pairs)
        else:
            yield from (f"  {p.source} to {p.target}: {cell(p)}" for p in network.pairs if not _is_well(p))
        for pair in network.pairs:
            if pair.tunnel_problem and not _is_well(pair):
                yield f"  {pair.source} has no tunnel to {pair.target}: {pair.tunnel_problem}"
        yield ""


def _summary(network: "pb.NetworkVerification") -> str:
    if len(network.nodes) == 1:
        return f"only {network.nodes[0]} carries it"
    bad = sum(not _is_well(pair) for pair in network.pairs)
    ways = f"{len(network.pairs)} ways between {len(network.nodes)} nodes"
    return f"{ways}, {bad} of them bad" if bad else f"{ways}, all good"


def _matrix(nodes: list[str], pairs: "dict[tuple[str, str], pb.PairProbe]") -> Iterable[str]:
    rows = [["from \\ to", *nodes]]
    for source in nodes:
        cells = ["-" if source == t else cell(pairs.get((source, t))) for t in nodes]
        rows.append([source, *cells])
    widths = [max(len(row[i]) for row in rows) for i in range(len(nodes) + 1)]
    for row in rows:
        yield "  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def cell(pair: "pb.PairProbe | None") -> str:
    """Return what is known of a way: "0.31 ms 1450 B"; losses and packets that should have passed are said."""
    if pair is None:
        return "not tried"
    if pair.problem:
        return pair.problem
    if pair.lost >= pair.sent:
        return "no answer"
    loss = f"{100 * pair.lost / pair.sent:.0f}% lost " if pair.lost else ""
    short = f" (of {pair.mtu})" if pair.largest < pair.mtu else ""
    return f"{loss}{pair.latency * 1000:.2f} ms {pair.largest} B{short}"


def differences(found: "pb.GetNetworkVerificationResponse") -> Iterable[str]:
    """Yield what differed, all of it, and of each repair before what it put right first (as a rule why the others)."""
    for node in found.nodes:
        for drift in node.found:
            yield f"{node.node}: {_where(drift)}{drift.what}"
        for first in node.earlier:
            more = f", and {first.others} more" if first.others else ""
            yield f"{node.node}: {_ago(first)} ago, repaired: {_where(first)}{first.what}{more}"


def node_rows(found: "pb.GetNetworkVerificationResponse") -> list[Row]:
    """Return a row a node: how its audit ended, and how much was put right since its agent started."""
    return [{"node": node.node, "audit": _audit(node), "repaired": node.repaired} for node in found.nodes]


def _audit(node: "pb.NodeVerification") -> str:
    if node.problem and not node.found:
        return node.problem
    if not node.found:
        return "as intended"
    count = len(node.found)
    what = f"{count} difference{'s' if count != 1 else ''}"
    return f"{what}, not all put right: {node.problem}" if node.problem else f"{what}, put right"


def _where(drift: Any) -> str:
    return f"{drift.network}: " if drift.network else "host: "


def _ago(drift: Any) -> str:
    import time

    return age_text(drift.at, time.time())
