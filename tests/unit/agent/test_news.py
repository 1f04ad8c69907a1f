"""What a node says of its mesh: to a session, and to its tasks."""

import asyncio

import pytest

from argosy.agent.logic.assignments import Assignments
from argosy.agent.logic.pieces import Pieces
from argosy.agent.network.desired import HostReport, MeshReport
from argosy.agent.network.wireguard_go import PROGRAM, why_not
from argosy.agent.session.news import NodeNews
from argosy.agent.tasks.wiring import Wiring, network_state
from argosy.core.assignment import MeshAssignment, MeshPeerAssignment, NetworkAssignment
from argosy.core.codec import decode
from argosy.core.errors import RejectedError
from argosy.core.mesh import MeshKey, Tunnel
from argosy.core.network import Attachment
from argosy.core.node import NodeDescription

KEY = MeshKey(1, b"k" * 32, 51821)
TUNNEL = Tunnel("n2", 1, "why", 5.0)


async def heard(news: NodeNews) -> list[str]:
    """Return the kinds of all messages that wait, but for what is said of ports."""
    kinds = []
    while True:
        try:
            async with asyncio.timeout(0.02):
                kinds.append((await news.next()).WhichOneof("body"))
        except TimeoutError:
            return [kind for kind in kinds if kind != "ports"]


async def test_a_session_hears_what_changed_and_a_new_one_everything() -> None:
    news = NodeNews(NodeDescription(hostname="h"))
    assert not news.hello().mesh_keys
    assert await heard(news) == ["tunnels"], "what the last session was told may be out of date"
    news.take(MeshReport((KEY,), ()))
    assert await heard(news) == ["description"]
    assert news.description.mesh_keys == (KEY,)
    news.take(MeshReport((KEY,), (TUNNEL,)))
    message = await news.next()
    assert [(t.node_id, t.problem) for t in message.tunnels.tunnels] == [("n2", "why")]
    news.take(MeshReport((KEY,), (TUNNEL,), {"net": "why"}))
    assert await heard(news) == []
    assert [k.port for k in news.hello().mesh_keys] == [51821]
    assert await heard(news) == ["tunnels"]


async def test_a_session_hears_what_the_host_is_like_once_it_changes() -> None:
    same = HostReport("192.0.2.1", 1500, "", ("192.0.2.1",), ("192.0.2.0/24",), {"net": "why"})
    news = NodeNews(NodeDescription("h", underlay_address="192.0.2.1", underlay_mtu=1500, addresses=same.addresses))
    news.take_host(same)
    news.hello()
    news.take_host(same)
    assert await heard(news) == ["tunnels"]
    news.take_host(HostReport("192.0.2.7", 1400, "why", ("192.0.2.7", "192.0.2.8"), ("10.0.0.0/8",), {}))
    about = decode((await news.next()).description, NodeDescription)
    assert about == NodeDescription(
        "h",
        underlay_address="192.0.2.7",
        underlay_mtu=1400,
        underlay_problem="why",
        addresses=("192.0.2.7", "192.0.2.8"),
        routes=("10.0.0.0/8",),
    )
    assert await heard(news) == []


class Plane:
    """Takes everything."""

    def __init__(self) -> None:
        self.attached: list[str] = []

    async def apply(self, desired: object, *, synced: bool) -> int:
        return 0

    async def attach(self, container_id: str, pid: int, attachments: object) -> None:
        self.attached.append(container_id)


def assignments() -> Assignments:
    pieces = (
        NetworkAssignment("plain", "plain"),
        NetworkAssignment("vault", "vault", encrypted=True),
        MeshAssignment(2, 1),
        MeshPeerAssignment("n2", "node2", "192.0.2.2", (KEY,), network_id="vault"),
        MeshPeerAssignment("n1", "node1", "192.0.2.1", (KEY,), network_id="vault"),
    )
    return Assignments(Pieces(pieces))


def test_the_network_plane_is_told_of_the_mesh() -> None:
    state = network_state("n1", assignments(), {})
    assert state.mesh == MeshAssignment(2, 1)
    assert [(p.node_id, p.keys) for p in state.mesh_peers] == [("n2", (KEY,))]
    assert network_state("n1", Assignments(), {}).mesh is None


async def test_a_node_that_can_make_no_tunnels_refuses_tasks_of_encrypted_networks() -> None:
    plane = Plane()
    wiring = Wiring(plane, "n1", "there is no /dev/net/tun")  # type: ignore[arg-type]
    await wiring.set(assignments())
    running = asyncio.create_task(wiring.run())
    try:
        await wiring.attach("t1", 1, (Attachment("plain", 5),))
        with pytest.raises(
            RejectedError, match="network vault is encrypted, which this node cannot do: there is no /dev"
        ):
            await wiring.attach("t2", 2, (Attachment("plain", 6), Attachment("vault", 7)))
    finally:
        running.cancel()
    assert plane.attached == ["t1"]


def test_it_is_said_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert PROGRAM in why_not()
    assert "apt-get install" in why_not()
