"""What the commands about networks read and show."""

import json
import re
from collections.abc import Callable
from typing import Any

import click
import pytest

from argosy.cli.commands.network_attach import default_image
from argosy.cli.commands.network_keys import outcome
from argosy.cli.commands.network_option import attachment
from argosy.cli.commands.network_verify import _ways, cell, differences, is_healthy, node_rows
from argosy.cli.messages import plain
from argosy.core.image import Image
from argosy.core.service import NetworkAttachmentSpec
from argosy.proto.argosy.v1 import control_pb2 as pb
from argosy.proto.argosy.v1 import types_pb2 as types

Argosy = Callable[..., Any]
GOOD = {"sent": 10, "latency": 0.00031, "largest": 1450, "mtu": 1450}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("back", NetworkAttachmentSpec("back")),
        ("name=back", NetworkAttachmentSpec("back")),
        ("name=back,ip=10.9.0.70", NetworkAttachmentSpec("back", address="10.9.0.70")),
        ("name=back,alias=a,alias=b", NetworkAttachmentSpec("back", ("a", "b"))),
    ],
)
def test_a_network_to_join(text: str, wanted: NetworkAttachmentSpec) -> None:
    assert attachment(text) == wanted


@pytest.mark.parametrize("text", ["ip=10.9.0.70", "name=back,ipv6=1", "name=back,ip=", "name=back,10.9.0.70"])
def test_a_network_to_join_that_cannot_be_read(text: str) -> None:
    with pytest.raises(click.UsageError, match="--network"):
        attachment(text)


def test_a_service_joins_and_leaves_networks(argosy: Argosy) -> None:
    for name in ("one", "two"):
        assert argosy("network", "create", name).status == 0
    create = ("service", "create", "--detach", "--name", "web", "--network", "one", "--endpoint-mode", "dnsrr", "web:1")
    assert argosy(*create).status == 0

    def spec() -> Any:
        return json.loads(argosy("service", "inspect", "web").out)[0]["spec"]

    def joined() -> list[tuple[str, list[str]]]:
        ids = {n["id"]: n["name"] for n in json.loads(argosy("network", "ls", "--format", "json").out)}
        return [(ids.get(n["target"], n["target"]), n["aliases"]) for n in spec()["task"]["networks"]]

    assert spec()["endpoint"]["mode"] == "DNSRR"
    update = ("service", "update", "--detach")
    assert argosy(*update, "--network-add", "name=two,alias=db", "--client-affinity", "web").status == 0
    assert joined() == [("one", []), ("two", ["db"])]
    assert spec()["endpoint"]["client_affinity"] is True
    again = argosy(*update, "--network-add", "two", "web")
    assert (again.status, "is on network 'two' already" in again.err) == (2, True)
    assert argosy(*update, "--network-rm", "two", "--network-add", "name=two,alias=c", "web").status == 0
    assert joined() == [("one", []), ("two", ["c"])]
    assert argosy(*update, "--network-rm", "one", "web").status == 0
    assert joined() == [("two", ["c"])]
    gone = argosy(*update, "--network-rm", "one", "web")
    assert (gone.status, "the service is not on network 'one'" in gone.err) == (2, True)


def test_of_an_attachment_to_an_unknown_network_the_network_is_told(argosy: Argosy) -> None:
    ran = argosy("network", "attach", "nowhere")
    assert (ran.status, "there is no network 'nowhere'" in ran.err) == (125, True), ran.err


def test_of_an_attachment_on_an_unknown_node_the_node_is_told(argosy: Argosy) -> None:
    assert argosy("network", "create", "red").status == 0
    ran = argosy("network", "attach", "red", "--image", "web:1", "--node", "nowhere")
    assert (ran.status, "no node 'nowhere'" in ran.err) == (125, True), ran.err


def test_who_has_a_static_address_is_told_with_the_address_as_text() -> None:
    slice_ = types.Slice(holders=[types.StaticAddress(address=0x0A5A0207, service_id="db")])
    assert plain(slice_)["holders"] == [{"address": "10.90.2.7", "service_id": "db"}]


def test_how_full_a_network_is_is_shown_also_when_nothing_is_left() -> None:
    """Who wants to know that there are none left is not to guess it from a line that is missing."""
    waiting = types.Task(status=types.TaskStatus(reason="network red is full: 32 of 32 addresses used"))
    full = pb.GetNetworkResponse(addresses_used=33, addresses_total=60, waiting=[waiting])
    shown = plain(full)
    assert {name: shown[name] for name in ("addresses_used", "addresses_total", "addresses_free", "slices_free")} == {
        "addresses_used": 33,
        "addresses_total": 60,
        "addresses_free": 0,
        "slices_free": 0,
    }
    assert shown["waiting"][0]["status"]["reason"] == waiting.status.reason


@pytest.mark.parametrize("mtu", ["1279", "65536"])
def test_an_mtu_is_told_within_which_bounds_it_has_to_be(argosy: Argosy, mtu: str) -> None:
    assert argosy("network", "create", "--mtu", "1280", "least").status == 0
    ran = argosy("network", "create", "--mtu", mtu, "red")
    assert (ran.status, "1280<=x<=65535" in ran.err) == (2, True), ran.err


@pytest.mark.parametrize(
    ("images", "taken"),
    [
        (["web:1", "alpine:3", "docker.io/library/busybox:1"], "docker.io/library/busybox:1"),
        (["web:1", "debian"], "debian"),
        (["web:1", "mybusybox:1"], ""),
    ],
)
def test_the_image_with_the_best_tools_is_taken(images: list[str], taken: str) -> None:
    assert default_image([Image(name=name) for name in images]) == taken


@pytest.mark.parametrize(
    ("pair", "text"),
    [
        (pb.PairProbe(**GOOD), "0.31 ms 1450 B"),
        (pb.PairProbe(**GOOD | {"lost": 2}), "20% lost 0.31 ms 1450 B"),
        (pb.PairProbe(**GOOD | {"largest": 1250}), "0.31 ms 1250 B (of 1450)"),
        (pb.PairProbe(sent=10, lost=10, mtu=1450), "no answer"),
        (pb.PairProbe(problem="node n1 has no addresses"), "node n1 has no addresses"),
        (None, "not tried"),
    ],
)
def test_what_is_shown_of_a_way(pair: pb.PairProbe | None, text: str) -> None:
    assert cell(pair) == text


def verification(*pairs: pb.PairProbe, nodes: tuple[str, ...] = ("n1", "n2")) -> pb.GetNetworkVerificationResponse:
    network = pb.NetworkVerification(network="red", nodes=nodes, pairs=pairs)
    return pb.GetNetworkVerificationResponse(
        nodes=[pb.NodeVerification(node=name) for name in nodes], networks=[network]
    )


def way(source: str, target: str, **fields: float | str) -> pb.PairProbe:
    return pb.PairProbe(source=source, target=target, **GOOD | fields)  # type: ignore[arg-type]


def test_all_ways_are_a_matrix() -> None:
    assert list(_ways(verification(way("n1", "n2"), way("n2", "n1", lost=10)))) == [
        "network red: 2 ways between 2 nodes, 1 of them bad",
        "  from \\ to  n1         n2",
        "  n1         -          0.31 ms 1450 B",
        "  n2         no answer  -",
        "",
    ]


def test_of_a_way_without_tunnel_it_is_said_why() -> None:
    pairs = way("n1", "n2", tunnel_problem="it is being made"), way("n2", "n1", lost=10, tunnel_problem="no handshake")
    for nodes in ("n1", "n2"), tuple(f"n{i}" for i in range(1, 30)):
        assert list(_ways(verification(*pairs, nodes=nodes)))[-2:] == ["  n2 has no tunnel to n1: no handshake", ""]


def test_a_smaller_mtu_than_a_network_asks_for_is_told() -> None:
    found = verification(nodes=("n1",))
    found.networks[0].mtu_notice = "its links have an MTU of 1350"
    assert list(_ways(found)) == ["network red: only n1 carries it", "  its links have an MTU of 1350", ""]


def test_of_many_nodes_only_what_is_wrong_is_shown() -> None:
    nodes = tuple(f"n{i:02}" for i in range(13))
    found = verification(way("n00", "n01"), way("n01", "n02", largest=1000), nodes=nodes)
    assert list(_ways(found)) == [
        "network red: 2 ways between 13 nodes, 1 of them bad",
        "  n01 to n02: 0.31 ms 1000 B (of 1450)",
        "",
    ]


@pytest.mark.parametrize(
    ("change", "audit"),
    [
        ({}, "as intended"),
        ({"found": [pb.FoundDrift(what="missing: route")]}, "1 difference, put right"),
        ({"found": [pb.FoundDrift()] * 2, "problem": "no"}, "2 differences, not all put right: no"),
        ({"problem": "does not answer: the node is down"}, "does not answer: the node is down"),
    ],
)
def test_a_node_that_differs_or_does_not_answer_is_not_well(change: dict[str, object], audit: str) -> None:
    found = verification(way("n1", "n2"), way("n2", "n1"))
    assert is_healthy(found)
    found.nodes[0].MergeFrom(pb.NodeVerification(**change))  # type: ignore[arg-type]
    assert node_rows(found)[0]["audit"] == audit
    assert is_healthy(found) == (not change)


def test_of_what_was_repaired_before_each_repair_has_one_line() -> None:
    def drift(at: float, what: str, network: str = "red", others: int = 0) -> pb.FoundDrift:
        return pb.FoundDrift(network=network, what=f"missing: {what}", at=at, others=others)

    earlier = [drift(1.0, "link vtep", others=2), drift(1.0, "rule", "blue")]
    node = pb.NodeVerification(
        node="n1", found=[drift(9.0, "a"), drift(9.0, "b")], earlier=[*earlier, drift(2.0, "pin", "")]
    )
    found = pb.GetNetworkVerificationResponse(nodes=[node])

    assert [re.sub(r"\w+ ago", "AGE ago", line) for line in differences(found)] == [
        "n1: red: missing: a",
        "n1: red: missing: b",
        "n1: AGE ago, repaired: red: missing: link vtep, and 2 more",
        "n1: AGE ago, repaired: blue: missing: rule",
        "n1: AGE ago, repaired: host: missing: pin",
    ]


def test_a_rotation_says_who_has_no_new_key_yet() -> None:
    def node(name: str, *epochs: int) -> types.Node:
        keys = [types.MeshKey(epoch=epoch) for epoch in epochs]
        return types.Node(spec=types.NodeSpec(name=name), description=types.NodeDescription(mesh_keys=keys))

    assert outcome([node("a", 1, 2), node("b", 2), node("plain")], 2) == "all nodes have new keys"
    said = outcome([node("c", 1), node("a", 2), node("b", 1)], 2)
    assert said == "all nodes that are up have new keys; not yet: b, c"


@pytest.mark.parametrize("wrong", [{"lost": 1}, {"largest": 1449}, {"sent": 0}])
def test_a_way_that_is_not_all_good_is_not_healthy(wrong: dict[str, float]) -> None:
    assert not is_healthy(verification(way("n1", "n2", **wrong)))
