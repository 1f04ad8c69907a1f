"""Nodes over random lives of a cluster: whatever happens, and in whatever order, each has been told what is so.

The real term, sessions and cache, and agents that put together what comes. Once all is out, an agent has exactly what
a leader would tell it that began this moment.
"""

import asyncio
import itertools
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from argosy.agent.logic.assignments import Assignments, advance
from argosy.agent.state import read_update
from argosy.controller.logic.assign import assignments_for, network_pieces
from argosy.controller.session.endpoints import EndpointIndex
from argosy.controller.session.heard import HeardNodes
from argosy.controller.session.objects import SnapshotObjects
from argosy.controller.session.term import Term
from argosy.controller.store import Cache, Change
from argosy.controller.store.history import Step
from argosy.core.ambient import Ambient
from argosy.core.assignment import TaskAssignment, key_of
from argosy.core.image import Image
from argosy.core.kinds import StoredObject
from argosy.core.mesh import Mesh, MeshKey
from argosy.core.meta import Cluster, Meta
from argosy.core.network import Attachment, Network, NetworkSpec, Slice, SliceUse, StaticAddress, slice_id
from argosy.core.node import Node, NodeDescription, NodeSpec, NodeState, NodeStatus
from argosy.core.service import (
    ContainerSpec,
    Dependency,
    Disconnect,
    EndpointMode,
    EndpointSpec,
    NetworkAttachmentSpec,
    PortSpec,
    Revision,
    Service,
    ServiceSpec,
    TaskSpec,
    revision_id,
)
from argosy.core.task import Task, TaskStatus
from argosy.core.task_state import TaskState
from argosy.core.wire import Joined
from tests.sim.virtual_time import VirtualLoop

NODES = ("a", "b", "c")
BASE = 0x0A600000
NETWORKS = {
    "open": NetworkSpec("open"),
    "vault": NetworkSpec("vault", encrypted=True),
    "inner": NetworkSpec("inner", encrypted=True, internal=True),
}
SERVICES = {"web": ("open",), "safe": ("vault",), "both": ("vault", "open"), "deep": ("inner", "vault")}
STATIC = {"safe": 200, "both": 201, "web": 202}
"""Services that may ask for an address of their first network, and which."""
STATIC_SLICE = 6
QUIET_S = 3.0
"""After which all is out: endpoints, and records that are gone, wait for others to come along."""


def _task(networks, aliases=(), weight=0):
    joined = tuple(NetworkAttachmentSpec(n, aliases) for n in networks)
    return TaskSpec(ContainerSpec("image", "sha256:1"), networks=joined, weight=weight)


class Leadership:
    """Of a term that nobody questions."""

    fence = None
    confirmed_at = 0.0

    def __init__(self, epoch):
        self.epoch = epoch

    def check(self):
        pass


class Agent:
    """What a node was told, put together as its agent does; confirms with a delay."""

    def __init__(self, node_id):
        self.node_id = node_id
        self.has = Assignments()
        self.delay_s = 0.0
        self._stream = None

    @property
    def away(self):
        return self._stream is None

    def connect(self, term):
        self.leave(term)
        session = term.open(self.node_id)
        self.has = replace(self.has, version=0, synced=False)
        self._stream = (session, asyncio.get_running_loop().create_task(self._listen(term, session)))

    def leave(self, term):
        if self._stream:
            session, listening = self._stream
            self._stream = None
            term.closed(session)
            listening.cancel()

    async def _listen(self, term, session):
        joined = Joined()
        async for message in session.messages():
            # As over the wire: the sender's object is its own.
            whole = joined.add(type(message).FromString(message.SerializeToString()))
            if whole is not None:
                self.has = advance(self.has, read_update(whole))
                await asyncio.sleep(self.delay_s)
                term.acknowledged(session, self.has.version)


class Told(RuleBasedStateMachine):
    """A store, a leader, and three hosts."""

    def __init__(self):
        super().__init__()
        self.loop = VirtualLoop()
        self.ids = map(str, itertools.count(1))
        clock = self.loop.time
        self.ambient = Ambient(self.loop.wall, clock, clock, lambda: next(self.ids), lambda: 0.0)
        self.cache = Cache(store=None)
        self.agents = {name: Agent(name) for name in NODES}
        self.epoch = 0
        self.pending = []
        self.running = None
        self.steps = 0
        self.rhythm = 1
        self._do(self._begin_term)

    def teardown(self):
        try:
            self._all_is_told()
        finally:
            self.loop.abandon()

    # ---- the world

    def _do(self, action, *args):
        """Call a function in the loop, which goes on a little."""

        async def act():
            action(*args)

        self.loop.run_until_complete(act())

    def _wait(self, seconds):
        self.loop.run_until_complete(asyncio.sleep(seconds))
        assert not self.running.done(), self.running.result()

    def _begin_term(self):
        if self.running:
            self.running.cancel()
        self.epoch += 1
        heard = HeardNodes(lambda node_id: b"", self.ambient)
        self.term = Term(None, self.cache, Leadership(self.epoch), heard, self.ambient)
        self.running = asyncio.get_running_loop().create_task(self.term.run())

    @property
    def snap(self):
        return self.cache.snapshot

    def _store(self, *objects: StoredObject, gone=()):
        """Make a revision in which objects are written or removed."""
        changes = [Change(type(o), o.meta.id, self.snap.get(type(o), o.meta.id, o.meta.project), o) for o in objects]
        changes += [Change(type(o), o.meta.id, o, None) for o in gone]
        self._do(self.cache._publish, Step(self.snap.revision + 1, tuple(changes)))

    def _a(self, data, kind, where=lambda o: True):
        """Draw an object of the store."""
        found = sorted((o for o in self.snap.all(kind) if where(o)), key=lambda o: o.meta.id)
        return data.draw(st.sampled_from(found)) if found else None

    @initialize(rhythm=st.integers(1, 5))
    def found(self, rhythm):
        self.rhythm = rhythm
        self._store(Cluster(Meta("cluster"), mesh=Mesh(1)), *(self._node(name) for name in NODES))
        for name in NETWORKS:
            self.declare_network(name)
        for name, networks in SERVICES.items():
            self._declare(name, ServiceSpec(name, task=_task(networks)))
        for number, name in enumerate(NODES):
            self._do(self.agents[name].connect, self.term)
            for service in list(SERVICES)[number:]:
                self._place(self.snap.get(Service, service), name)

    def _node(self, name, **more):
        number = NODES.index(name) + 1
        keys = (MeshKey(1, bytes([number]) * 32, 51821),)
        about = NodeDescription(underlay_address=f"198.18.1.{number}", underlay_mtu=1500, mesh_keys=keys)
        return Node(Meta(name), NodeSpec(name), replace(about, **more), NodeStatus(NodeState.READY))

    # ---- time

    @rule(seconds=st.sampled_from((0.0, 0.001, 0.004, 0.03, 0.3)))
    def wait(self, seconds):
        self._wait(seconds)

    @invariant()
    def now_and_then_all_is_told(self):
        self.steps += 1
        if self.steps % self.rhythm == 0:
            self._all_is_told()

    def _all_is_told(self):
        self._wait(QUIET_S)
        index = EndpointIndex()
        for _ in index.fill(self.snap):
            pass
        objects = SnapshotObjects(self.snap, index, self.term._drains)
        for agent in self.agents.values():
            if agent.away:
                continue
            wanted = assignments_for(agent.node_id, objects)
            pieces = dict(wanted.pieces)
            for network_id in wanted.networks:
                pieces |= {key_of(piece): piece for piece in network_pieces(network_id, objects)}
            assert self._settled(agent.has.pieces) == self._settled(pieces), agent.node_id
            for network_id in NETWORKS:
                assert (agent.node_id in self.term._feeds.carriers.get(network_id, ())) == (
                    network_id in wanted.networks
                )

    def _settled(self, pieces):
        """Leave out what a task that has started waited for before: its node is not told again."""
        return {
            key: replace(piece, after=())
            if isinstance(piece, TaskAssignment) and self.snap.get(Task, piece.id).status.state >= TaskState.STARTING
            else piece
            for key, piece in pieces.items()
        }

    # ---- nodes

    @rule(name=st.sampled_from(NODES), delay_s=st.sampled_from((0.0, 0.01, 1.0)))
    def agent_connects(self, name, delay_s):
        agent = self.agents[name]
        agent.delay_s = delay_s
        if self.snap.get(Node, name):
            self._do(agent.connect, self.term)

    @rule(name=st.sampled_from(NODES))
    def agent_leaves(self, name):
        self._do(self.agents[name].leave, self.term)

    @rule()
    def fail_over(self):
        for agent in self.agents.values():
            self._do(agent.leave, self.term)
        self._do(self._begin_term)
        self._wait(0.0)
        for name, agent in self.agents.items():
            if self.snap.get(Node, name):
                self._do(agent.connect, self.term)

    @rule(data=st.data(), state=st.sampled_from(NodeState))
    def node_state(self, data, state):
        if node := self._a(data, Node):
            self._store(replace(node, status=NodeStatus(state)))

    @rule(
        data=st.data(),
        change=st.sampled_from(
            (
                {"underlay_address": "198.18.2.9"},
                {"underlay_address": ""},
                {"underlay_mtu": 1400},
                {"routes": ("10.0.0.0/8",)},
                {"mesh_keys": ()},
                {"mesh_keys": (MeshKey(2, b"k" * 32, 51820),)},
            )
        ),
    )
    def node_tells(self, data, change):
        if node := self._a(data, Node):
            self._store(replace(node, description=replace(node.description, **change)))

    @rule(name=st.sampled_from(NODES))
    def node_comes(self, name):
        if self.snap.get(Node, name) is None:
            self._store(self._node(name))

    @rule(data=st.data(), at_once=st.booleans())
    def node_goes(self, data, at_once):
        """Its slices go with it or later, its tasks later."""
        if node := self._a(data, Node):
            self._do(self.agents[node.meta.id].leave, self.term)
            self._store(gone=(node, *(self.snap.slices_on_node(node.meta.id) if at_once else ())))

    @rule(data=st.data(), settled=st.booleans())
    def keys(self, data, settled):
        cluster = self.snap.get(Cluster, "cluster")
        mesh = replace(cluster.mesh, settled=True) if settled else Mesh(cluster.mesh.epoch + 1)
        self._store(replace(cluster, mesh=mesh))

    # ---- what is declared

    @rule(name=st.sampled_from(sorted(NETWORKS)))
    def declare_network(self, name):
        if self.snap.get(Network, name) is None:
            number = sorted(NETWORKS).index(name)
            self._store(Network(Meta(name), NETWORKS[name], 4096 + number, "10.96.0.0/24"))

    @rule(data=st.data())
    def remove_network(self, data):
        network = self._a(data, Network)
        if network and not self.snap.tasks_on_network(network.meta.id) and not self._wanted(network.meta.id):
            self._store(gone=(network, *self.snap.slices_of_network(network.meta.id)))

    def _wanted(self, network_id):
        return any(n.target == network_id for s in self.snap.all(Service) for n in s.spec.task.networks)

    @rule(
        name=st.sampled_from(sorted(SERVICES)),
        aliases=st.sampled_from(((), ("alias",))),
        labels=st.sampled_from(({}, {"x": "y"})),
        disconnect=st.sampled_from(Disconnect),
        depends_on=st.sampled_from(((), (Dependency("web"),))),
        mode=st.sampled_from(EndpointMode),
        affinity=st.booleans(),
        port=st.sampled_from((0, 0, 80)),
        new_revision=st.booleans(),
        removing=st.sampled_from((False, False, True)),
        virtual=st.booleans(),
        networks=st.sampled_from((1, 2)),
        weight=st.sampled_from((0, 3)),
        static=st.booleans(),
    )
    def declare_service(
        self,
        name,
        aliases,
        labels,
        disconnect,
        depends_on,
        mode,
        affinity,
        port,
        new_revision,
        removing,
        virtual,
        networks,
        weight,
        static,
    ):
        targets = [n for n in SERVICES[name][:networks] if self.snap.get(Network, n)]
        spec = ServiceSpec(
            name,
            labels,
            task=_task(targets, aliases, weight),
            disconnect=disconnect,
            depends_on=depends_on,
            endpoint=EndpointSpec(mode, affinity),
        )
        self._declare(name, spec, new_revision, removing, virtual, port, static)

    def _declare(self, name, spec, new_revision=True, removing=False, virtual=False, port=0, static=False):
        old = self.snap.get(Service, name)
        number = old.revision if old else 0
        targets = [n.target for n in spec.task.networks]
        objects = []
        if not number or new_revision:
            number += 1
            objects.append(Revision(Meta(revision_id(name, number)), name, number, spec))
        objects.append(
            Service(
                Meta(name),
                spec,
                number,
                removing=removing,
                virtual_addresses=tuple(Attachment(n, BASE + 5) for n in targets) if virtual else (),
                ports=(PortSpec("", "tcp", 80, 8000),) if port else (),
            )
        )
        if name in STATIC and targets:
            objects += self._claims(name, targets[0], static)
        self._store(*objects)

    def _claims(self, name, network_id, wanted):
        """Return the slice of static addresses with, or without, that of a service."""
        at = slice_id(network_id, STATIC_SLICE)
        there = self.snap.get(Slice, at) or Slice(Meta(at), network_id, STATIC_SLICE, use=SliceUse.STATIC)
        holder = StaticAddress(BASE + STATIC[name], name)
        others = tuple(h for h in there.holders if h != holder)
        return (replace(there, holders=(*others, holder) if wanted else others),)

    @rule(data=st.data())
    def remove_service(self, data):
        service = self._a(data, Service, lambda s: not self.snap.tasks_of_service(s.meta.id))
        if service:
            self._store(gone=(service, *self.snap.revisions_of_service(service.meta.id)))

    @rule(there=st.booleans())
    def image(self, there):
        image = Image(Meta("1"), "image", digest="sha256:1")
        if there:
            self._store(image)
        elif old := self.snap.get(Image, "1"):
            self._store(gone=(old,))

    # ---- tasks and what they hold

    @rule(data=st.data(), extra=st.booleans(), fixed=st.booleans(), slot=st.integers(1, 2), apart=st.booleans())
    def place(self, data, extra, fixed, slot, apart):
        """Place a task, as the scheduler does: with addresses of its node's slices, leased for it or there already."""
        service, node = self._a(data, Service, lambda s: not s.removing), self._a(data, Node)
        if service and node:
            self._place(service, node.meta.id, extra, fixed, slot, apart)

    def _place(self, service, node_id, extra=False, fixed=False, slot=1, apart=False):
        revision = self.snap.get(Revision, revision_id(service.meta.id, service.revision))
        leased, attachments = [], []
        for number, attachment in enumerate(revision.spec.task.networks):
            network_id, name = attachment.target, service.meta.id
            if not self.snap.get(Network, network_id):
                return
            if fixed and number == 0 and name in STATIC:
                leased += self._claims(name, network_id, True)
                attachments.append(Attachment(network_id, BASE + STATIC[name], fixed=True))
                continue
            mine = [s for s in self.snap.slices_of_network(network_id) if s.node_id == node_id]
            if not mine or extra:
                mine = [s for i in (1, 2, 3, 4) if (s := self._lease(network_id, i, node_id))] or mine
                if not mine:
                    return
                leased.append(mine[0])
            attachments.append(Attachment(network_id, BASE + mine[0].index * 32 + int(next(self.ids)) % 32))
        task = Task(
            Meta(f"t{next(self.ids)}"),
            service.meta.id,
            slot,
            node_id,
            service.revision,
            status=TaskStatus(TaskState.ASSIGNED),
            attachments=tuple(attachments),
        )
        if apart and leased:
            self._store(*leased)
            leased = []
        self._store(task, *leased)

    def _lease(self, network_id, index, node_id):
        at = slice_id(network_id, index)
        return None if self.snap.get(Slice, at) else Slice(Meta(at), network_id, index, node_id)

    @rule(data=st.data(), node_id=st.sampled_from(NODES), index=st.integers(1, 5))
    def lease(self, data, node_id, index):
        network = self._a(data, Network)
        if network and (piece := self._lease(network.meta.id, index, node_id)):
            self._store(piece)

    @rule(data=st.data(), other=st.sampled_from(("", *NODES)))
    def give_back(self, data, other):
        """Give a slice back; another node may have leased it before anybody looks."""
        if piece := self._a(data, Slice, lambda s: s.use is SliceUse.TASKS):
            self._store(gone=(piece,))
            if other:
                self._store(replace(piece, node_id=other))

    @rule(
        data=st.data(),
        state=st.sampled_from(
            (TaskState.PREPARING, TaskState.STARTING, TaskState.RUNNING, TaskState.RUNNING, TaskState.FAILED)
        ),
        unready=st.booleans(),
    )
    def goes_on(self, data, state, unready):
        task = self._a(data, Task, lambda t: not t.status.released and t.status.state <= TaskState.RUNNING)
        if task and state >= task.status.state:
            self._store(replace(task, status=TaskStatus(state, unready=unready)))

    @rule(data=st.data(), desired=st.sampled_from((TaskState.SHUTDOWN, TaskState.REMOVE)))
    def is_to_stop(self, data, desired):
        if task := self._a(data, Task, lambda t: t.desired_state is TaskState.RUNNING):
            self._store(replace(task, desired_state=desired))

    @rule(data=st.data(), state=st.sampled_from((TaskState.SHUTDOWN, TaskState.FAILED, TaskState.ORPHANED)))
    def ends(self, data, state):
        if task := self._a(data, Task, lambda t: not t.status.released):
            self._store(replace(task, status=TaskStatus(state, released=True)))

    @rule(data=st.data())
    def is_forgotten(self, data):
        if task := self._a(data, Task, lambda t: t.status.released):
            self._store(gone=(task,))

    @precondition(lambda self: self.snap.revision % 7 == 0)
    @rule()
    def much_at_once(self):
        """So much that whoever follows the cache has to look at everything anew."""
        for subscription in list(self.cache._subscriptions.values()):
            self._do(subscription.demand_resync)


TestTold = Told.TestCase
TestTold.settings = settings(max_examples=40, stateful_step_count=50, deadline=None)


def told():
    cluster = Told()
    cluster.found(1)
    cluster._all_is_told()
    return cluster


def test_that_a_service_begins_to_depend_on_another():
    cluster = told()
    web = cluster.snap.get(Service, "web")
    cluster._store(replace(web, spec=replace(web.spec, depends_on=(Dependency("safe"),))))
    cluster.teardown()


def test_what_a_node_says_of_itself_that_has_a_static_address_alone():
    cluster = told()
    cluster._store(Network(Meta("still"), NetworkSpec("still"), 4200, "10.96.0.0/24"))
    cluster._declare("web", ServiceSpec("web", task=_task(["still"])), static=True)
    cluster._place(cluster.snap.get(Service, "web"), "b", fixed=True)
    cluster._place(cluster.snap.get(Service, "web"), "c", slot=2)
    cluster._all_is_told()
    node = cluster.snap.get(Node, "b")
    cluster._store(replace(node, description=replace(node.description, underlay_address="198.18.2.9")))
    cluster.teardown()
