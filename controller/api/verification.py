"""The part of the Control service that looks at networks from all nodes at once: `argosy network verify`.

The leader holds the agents' sessions; any other controller passes the request on to it. Each node that carries one of
the networks is asked to audit its kernel and to try the ways to others; who does not answer in time is said to.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import grpc

from argosy.controller.api import network_usage
from argosy.controller.api.to_leader import leaders_control
from argosy.controller.changes import refs
from argosy.controller.changes.refs import project_of
from argosy.controller.cluster import ClusterView
from argosy.controller.logic.network_mtu import lowered
from argosy.controller.logic.verification import carriers, notice, ways
from argosy.controller.session.dispatcher import DispatcherServicer
from argosy.controller.session.term import Term
from argosy.controller.store import Cache
from argosy.core.network import Network
from argosy.core.node import Node, NodeState
from argosy.core.task import Task
from argosy.proto.argosy.v1 import control_pb2 as pb
from argosy.proto.argosy.v1 import control_pb2_grpc as rpc
from argosy.proto.argosy.v1 import dispatcher_pb2 as dpb

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

LOOK_S = 0.25
"""How often it is looked whether a node that has not answered yet is still there."""
ANSWER_TIMEOUT_S = 12.0
"""How long a node may take: its probes take 4 s at most (agent/network/prober.py), its audit as long as it is busy."""
_OF_THE_HOST = ("", "mesh")
"""What agents call their host's namespace, and that of its tunnels: of no network, and shown with any."""
_STATES = {
    NodeState.DOWN: "the node is down",
    NodeState.AGENT_LOST: "its agent is lost, though the host still beats",
}


class VerificationHandlers(rpc.ControlServicer):
    """Handlers that `ControlServicer` inherits."""

    _cache: Cache
    _view: ClusterView
    _dispatcher: DispatcherServicer

    async def GetNetworkVerification(
        self, request: pb.GetNetworkVerificationRequest, context: Context
    ) -> pb.GetNetworkVerificationResponse:
        """Have the nodes look at networks, and return what they found."""
        term = self._dispatcher.term
        if term is not None:
            return await _Verification(self._cache, request).run(term, self._dispatcher)
        async with leaders_control(self._view) as leader:
            return await leader.GetNetworkVerification(request)


class _Verification:
    """One request, on the state of the cluster when it came."""

    def __init__(self, cache: Cache, request: pb.GetNetworkVerificationRequest) -> None:
        self._cache, snap = cache, cache.snapshot
        project = project_of(request.project)
        if request.ref:
            networks: Iterable[Network] = [refs.network(snap, project, request.ref)]
        else:
            networks = (n for n in snap.all(Network, project=project) if not n.removing)
        self._nodes = {node.meta.id: node for node in snap.all(Node)}
        self._networks = {n.meta.id: n for n in sorted(networks, key=lambda n: n.spec.name)}
        ingress = network_usage.ingress_networks(snap)
        found = carriers(snap.all(Task), self._networks, ingress, self._nodes)
        self._carriers = {i: [n for n in nodes if n in self._nodes] for i, nodes in found.items()}
        carrying = {node_id for nodes in self._carriers.values() for node_id in nodes}
        self._asked = sorted(carrying if request.ref else self._nodes, key=self._name)

    def _name(self, node_id: str) -> str:
        node = self._nodes.get(node_id)
        return node.spec.name if node else node_id

    async def run(self, term: Term, dispatcher: DispatcherServicer) -> pb.GetNetworkVerificationResponse:
        """Ask all nodes at once, and put their answers together."""
        plans = {network_id: ways(nodes) for network_id, nodes in self._carriers.items()}
        probes: dict[str, list[dpb.NetworkProbe]] = {node_id: [] for node_id in self._asked}
        for network_id, plan in plans.items():
            for node_id, peers in plan.items():
                probes[node_id].append(dpb.NetworkProbe(network_id=network_id, peers=peers))
        answers = await asyncio.gather(*(self._ask(term, dispatcher, n, probes[n]) for n in self._asked))
        reports = dict(zip(self._asked, answers, strict=True))
        response = pb.GetNetworkVerificationResponse()
        for node_id, answer in reports.items():
            response.nodes.append(self._node(node_id, answer))
        for network_id, nodes in self._carriers.items():
            response.networks.append(self._network(network_id, nodes, reports))
        return response

    async def _ask(
        self, term: Term, dispatcher: DispatcherServicer, node_id: str, probes: list[dpb.NetworkProbe]
    ) -> dpb.NetworkReport | str:
        """Return a node's report, or why there is none."""
        session = term.sessions.get(node_id)
        if session is None:
            return f"does not answer: {_STATES.get(self._nodes[node_id].status.state, 'its agent is not connected')}"
        request_id, report = dispatcher.network_reports.expect()
        ask = dpb.VerifyNetworks(request_id=request_id, probes=probes)
        session.send(dpb.ControllerMessage(verify_networks=ask))
        give_up_at = asyncio.get_running_loop().time() + ANSWER_TIMEOUT_S
        try:
            while not (await asyncio.wait({report}, timeout=LOOK_S))[0]:
                node = self._cache.snapshot.get(Node, node_id)
                if node is None or node.status.state in _STATES:
                    return f"does not answer: {_STATES[node.status.state] if node else 'it was removed'}"
                if asyncio.get_running_loop().time() >= give_up_at:
                    return f"does not answer: nothing came for {ANSWER_TIMEOUT_S:.0f} s"
            return report.result()
        finally:
            report.cancel()

    def _node(self, node_id: str, answer: dpb.NetworkReport | str) -> pb.NodeVerification:
        verdict = pb.NodeVerification(node=self._name(node_id))
        if isinstance(answer, str):
            verdict.problem = answer
            return verdict
        verdict.problem = answer.problem
        verdict.repaired = sum(r.count for r in answer.repairs if self._concerns(r.network_id))
        for drifts, into in ((answer.found, verdict.found), (answer.earlier, verdict.earlier)):
            for drift in drifts:
                if self._concerns(drift.network_id):
                    name = self._network_name(drift.network_id)
                    into.add(network=name, what=drift.what, at=drift.at, others=drift.others)
        return verdict

    def _concerns(self, network_id: str) -> bool:
        return network_id in (*_OF_THE_HOST, *self._networks)

    def _network_name(self, network_id: str) -> str:
        network = self._networks.get(network_id)
        return network.spec.name if network else ""

    def _network(
        self, network_id: str, nodes: list[str], reports: Mapping[str, dpb.NetworkReport | str]
    ) -> pb.NetworkVerification:
        network = self._networks[network_id]
        verdict = pb.NetworkVerification(
            network=network.spec.name,
            notice=notice(nodes),
            mtu_notice=lowered(network.spec, network_usage.carriers(self._cache.snapshot, network)),
        )
        verdict.nodes.extend(sorted(map(self._name, nodes)))
        tunnels = self._tunnel_problems() if network.spec.encrypted else {}
        for node_id in sorted(nodes, key=self._name):
            report = reports[node_id]
            if isinstance(report, str):
                continue
            mine = (p for p in report.probes if p.network_id == network_id)
            for probe in sorted(mine, key=lambda p: self._name(p.node_id)):
                verdict.pairs.add(
                    source=self._name(node_id),
                    target=self._name(probe.node_id),
                    sent=probe.sent,
                    lost=probe.lost,
                    latency=probe.latency,
                    largest=probe.largest,
                    mtu=probe.mtu,
                    problem=probe.problem,
                    tunnel_problem=tunnels.get((node_id, probe.node_id), ""),
                )
        return verdict

    def _tunnel_problems(self) -> Mapping[tuple[str, str], str]:
        """Return why nodes have no tunnels, as they told last, by the ids of both."""
        nodes = self._cache.snapshot.all(Node)
        return {(node.meta.id, tunnel.node_id): tunnel.problem for node in nodes for tunnel in node.tunnels}
