"""What a session sends its node, and what it knows of what is in force there."""

import asyncio
from dataclasses import replace

from argosy.controller.logic.assign import NodeSet
from argosy.controller.session import feeds as feeds_module
from argosy.controller.session import node_session
from argosy.controller.session.feeds import Feeds
from argosy.controller.session.node_session import Haste, NodeSession
from argosy.core.assignment import EndpointAssignment, LeaderEpoch, TaskAssignment, key_of
from argosy.core.wire import Joined
from argosy.proto.argosy.v1 import dispatcher_pb2 as pb

ENDPOINT = EndpointAssignment("net", "t1", "web", 1, 7)
KEY = key_of(ENDPOINT)
WITHDRAWN = replace(ENDPOINT, withdrawn=True)


class Node:
    """A session with the agent at its other end, who takes what comes; turns are given by `told`."""

    def __init__(self, networks=("net",)):
        self.networks = networks
        self.tasks = {}
        self.pieces = {"net": {KEY: ENDPOINT}}
        self.feeds = Feeds(lambda network_id: list(self.pieces.get(network_id, {}).values()))
        self.session = NodeSession("n1", "s1", self, self.feeds, self)
        self.asked = []
        self.has = {}
        self.parts = 0
        self._messages = self.session.messages()
        self._joined = Joined()
        self._next = None

    def wanted(self, node_id):
        return NodeSet({f"task/{i}": TaskAssignment(id=i) for i in self.tasks}, tuple(self.networks))

    def filled(self, piece):
        return piece

    def leader_epoch(self):
        return LeaderEpoch(3, 5)

    def ask(self, session, *, own, first):
        self.asked.append("first" if first else own)

    def came_out(self, session):
        self.asked.append("out")

    def put(self, endpoint, network="net"):
        """Change an endpoint as the term does."""
        key = f"endpoint/{network}/t1"
        if endpoint is None:
            self.pieces[network].pop(key, None)
        else:
            self.pieces[network][key] = endpoint
        if self.feeds.put(network, key, endpoint):
            self.session.mark_dirty(own=False)

    async def told(self):
        """Take what the session sends now; return the version."""
        self.session._not_before = 0.0
        self.session.mark_dirty()
        for _ in (*self.networks, "what is told"):  # a feed that is missing takes a turn
            self.session.take_turn()
        while True:
            message = await (self._next or self._take_next())
            self._take_next()
            await asyncio.sleep(0)  # what was sent is out now
            self.parts += 1
            assert (message.leader.epoch, message.leader.revision) == (3, 5)
            if whole := self._joined.add(message):
                break
        body = whole.assignments
        if body.full:
            self.has = {}
        for key in body.remove:
            self.has.pop(key, None)
        self.has |= {piece.key: piece for piece in body.put}
        return body.version

    def _take_next(self):
        self._next = asyncio.ensure_future(anext(self._messages))
        return self._next

    async def confirmed(self):
        self.session.acknowledge(await self.told())

    def may_send(self, key=KEY):
        return self.session.may_send_to("net", key)


async def test_it_is_told_everything_and_then_what_differs():
    node = Node()
    node.tasks = {"a": 1, "b": 1}
    assert await node.told() == 1
    assert set(node.has) == {"task/a", "task/b", KEY}
    node.tasks = {"b": 1, "c": 1}
    node.put(WITHDRAWN)
    assert await node.told() == 2
    assert set(node.has) == {"task/b", "task/c", KEY}
    assert node.has[KEY].endpoint.withdrawn


async def test_without_a_difference_nothing_is_sent():
    node = Node()
    await node.told()
    node.session.mark_dirty()
    node.session.take_turn()
    assert not node.session._queue


async def test_a_network_comes_and_goes_as_a_whole():
    node = Node(networks=())
    await node.told()
    assert not node.has
    node.networks = ("net",)
    await node.told()
    assert set(node.has) == {KEY}
    assert set(node.feeds.carriers) == {"net"}
    node.networks = ()
    await node.told()
    assert not node.has
    assert not node.feeds.carriers


async def test_a_network_that_nobody_was_told_of_takes_a_turn_of_its_own():
    node = Node(networks=("net", "other"))
    node.session.mark_dirty()
    for made in (1, 2):
        node.session.take_turn()
        assert node.asked == ["first", *["out", "first"] * made]
    assert node.feeds.missing(node.networks) is None
    assert all(list(node.feeds.carriers[n]) == ["n1"] for n in node.networks)
    node.session.take_turn()
    assert node.asked[-1] == "first"  # asks no more: it has what it sends
    await node.told()


async def test_a_session_asks_for_one_turn_until_what_it_sent_is_out():
    node = Node()
    node.feeds.of("net")
    node.session.mark_dirty()
    assert node.asked == ["first"]
    node.session.take_turn()
    node.session.mark_dirty(own=False)
    node.session.mark_dirty()
    assert node.asked == ["first"]
    messages = node.session.messages()
    await anext(messages)
    node.session._not_before = 0.0
    node.session.send(pb.ControllerMessage(report_ack=pb.ReportAck(sequence=1)))
    await anext(messages)
    assert node.asked == ["first", "out", True]


async def test_a_large_set_comes_in_parts(monkeypatch):
    monkeypatch.setattr(feeds_module, "PART_BYTES", 1000)
    node = Node()
    node.tasks = {f"task{number}": 1 for number in range(200)}
    await node.told()
    assert len(node.has) == 201
    assert node.parts > 3


async def test_who_fell_far_behind_gets_a_full_set(monkeypatch):
    monkeypatch.setattr(feeds_module, "KEPT", 4)
    node = Node()
    await node.told()
    for number in range(20):
        key = f"endpoint/net/x{number}"
        node.feeds.put("net", key, replace(ENDPOINT, task_id=f"x{number}"))
        node.feeds.put("net", key, None)
    node.has["endpoint/net/x0"] = "as if it had been told of it"
    await node.told()
    assert set(node.has) == {KEY}


async def test_what_a_node_has_confirmed():
    node = Node()
    assert node.may_send("endpoint/net/other"), "what it does since before this session is unknown"
    await node.confirmed()
    assert node.may_send()
    assert not node.may_send("endpoint/net/other")
    node.put(WITHDRAWN)
    assert node.may_send(), "it has not been told"
    version = await node.told()
    assert node.may_send(), "it was told, and has not confirmed"
    node.session.acknowledge(version)
    assert not node.may_send()
    node.put(None)
    await node.told()
    assert not node.may_send(), "it got nothing new before, either"
    node.put(ENDPOINT)
    await node.told()
    assert node.may_send()


async def test_a_node_that_leaves_a_network_sends_nothing_there_once_it_has_confirmed():
    node = Node()
    await node.confirmed()
    node.networks = ()
    version = await node.told()
    assert node.may_send()
    node.session.acknowledge(version)
    assert not node.may_send()
    node.networks = ("net",)
    await node.told()
    assert node.may_send(), "it may have it in force already"


async def test_a_node_has_a_new_endpoint_in_force_when_it_has_confirmed_it():
    node = Node()
    node.put(WITHDRAWN)
    await node.confirmed()
    assert node.feeds.came("net", KEY) is None, "it gets nothing"
    node.put(ENDPOINT)
    came = node.feeds.came("net", KEY)
    assert not node.session.has_in_force("net", came)
    version = await node.told()
    assert not node.session.has_in_force("net", came), "it was told, and has not confirmed"
    node.session.acknowledge(version)
    assert node.session.has_in_force("net", came)
    assert not node.session.has_in_force("other", 0), "a network that it does not carry"


async def test_what_nobody_waits_for_goes_with_what_somebody_does(monkeypatch):
    monkeypatch.setattr(node_session, "IDLE_S", 600.0)
    node = Node()
    await node.told()
    node.asked.clear()
    node.session._not_before = 0.0
    node.tasks = {"a": 1}
    node.session.mark_dirty(haste=Haste.SOMETIME)
    assert node.asked == [], "it waits for company"
    node.put(WITHDRAWN)
    assert node.asked == [True]
    await node.told()
    assert "task/a" in node.has


async def test_in_the_end_it_is_told_alone(monkeypatch):
    monkeypatch.setattr(node_session, "IDLE_S", 0.001)
    node = Node()
    await node.told()
    node.asked.clear()
    asked = asyncio.Event()
    node.ask = lambda session, *, own, first: asked.set()
    node.session.mark_dirty(haste=Haste.SOMETIME)
    await asyncio.wait_for(asked.wait(), 10)


def test_an_endpoint_waits_for_the_way_to_it() -> None:
    """Else a node would send connections to where it has no route yet."""
    node = Node()
    feed = node.feeds.of("net")
    before = feed.edition
    other = replace(ENDPOINT, task_id="t2")
    node.pieces["net"][key_of(other)] = other
    node.feeds.mark_stale("net")
    assert not node.feeds.put("net", key_of(other), other)
    assert feed.since(before) == []
    assert node.feeds.put("net", KEY, WITHDRAWN), "who leaves is told of at once"
    node.pieces["net"][KEY] = WITHDRAWN
    assert node.feeds.renew_one() == "net"
    assert node.feeds.came("net", key_of(other)) == feed.edition
