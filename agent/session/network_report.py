"""Answers a controller that asks how the node's networks are: audits them, tries the ways to peers, reports.

It reports by a call of its own, like all that agents say: they listen on nothing.
"""

import asyncio

import grpc
import structlog

from argosy.agent.network.desired import Audited
from argosy.agent.network.plane import NetworkPlane
from argosy.core.errors import ArgosyError, TransientError
from argosy.proto.argosy.v1 import dispatcher_pb2 as pb
from argosy.proto.argosy.v1 import dispatcher_pb2_grpc as rpc

log = structlog.get_logger(__name__)


async def report_networks(request: pb.VerifyNetworks, channel: grpc.aio.Channel, plane: NetworkPlane) -> None:
    """Look at the networks and report them."""
    report = pb.NetworkReport(request_id=request.request_id)
    # One after the other: what the audit mends must not count as lost. It takes no longer than the kernel is listed.
    await _audit(plane, report)
    for probes in await asyncio.gather(*(_probe(plane, probe) for probe in request.probes)):
        report.probes.extend(probes)
    try:
        await rpc.DispatcherStub(channel).ReportNetworks(report)
    except grpc.aio.AioRpcError as error:
        log.debug("nobody took the report on the networks", code=error.code().name, details=error.details())


async def _audit(plane: NetworkPlane, report: pb.NetworkReport) -> None:
    try:
        audited = await plane.audit()
    except TransientError as error:
        audited = Audited((), f"the kernel could not be read: {error}", ())
    for drift in audited.found:
        report.found.add(network_id=drift.network_id, what=str(drift))
    for repaired in audited.earlier:
        what, others = str(repaired.drift), repaired.others
        report.earlier.add(network_id=repaired.drift.network_id, what=what, at=repaired.at, others=others)
    report.problem = audited.problem
    for network_id, count in plane.drift.items():
        report.repairs.add(network_id=network_id, count=count)


async def _probe(plane: NetworkPlane, probe: pb.NetworkProbe) -> list[pb.ProbeResult]:
    try:
        tallies, mtu = await plane.probe(probe.network_id, probe.peers)
    except ArgosyError as error:
        return [pb.ProbeResult(network_id=probe.network_id, node_id=n, problem=str(error)) for n in probe.peers]
    return [
        pb.ProbeResult(
            network_id=probe.network_id,
            node_id=node_id,
            sent=tally.sent,
            lost=tally.lost,
            latency=tally.latency,
            largest=tally.largest,
            mtu=mtu,
        )
        for node_id, tally in tallies.items()
    ]
