"""What must hold at every moment, judged from outside: by what etcd has, what hosts run and what is said on the wire.

Nothing here asks the code under test. The watcher keeps its own copy of the stored objects from etcd's commits, hears
every message, and sees every container. The first violation ends the run.
"""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from argosy.controller.changes.files import content_of
from argosy.controller.store.records import from_bytes
from argosy.core.errors import RejectedError
from argosy.core.files import Config, FileVersion, NamedFile, Secret, path_of
from argosy.core.kinds import BY_NAME
from argosy.core.network import SLICE_SIZE, Network, Slice
from argosy.core.node import Availability, BeatKey, Node, NodeState
from argosy.core.service import JOB_MODES, Disconnect, Revision, Service, ServiceMode, UpdateState, revision_id
from argosy.core.task import Task
from argosy.core.task_state import TaskState, is_terminal
from tests.sim.etcd_channel import Writer
from tests.sim.etcd_model import Changed
from tests.sim.etcd_model import Revision as StoreRevision
from tests.sim.judge_dependencies import Dependencies
from tests.sim.judge_disconnect import Disconnections
from tests.sim.judge_jobs import Jobs
from tests.sim.judge_updates import Updates
from tests.sim.kernel import Container

S = TaskState
EPSILON_S = 0.05
LATE_S = 10.0
"""How long a decision may wait for etcd to take it."""
KNOWN_S = 2.0
"""After so long a leader is sure to have seen what was stored."""
GRACE_S = 10.0
"""A new leader waits so long for a node that it has not heard."""
SILENCE_S = 2.7
"""Least silence after which a node may be called DOWN."""
TOGETHER_S = 5.0
"""Nodes that are lost within less are sure to be taken for one event."""
BRAKED_S = 15.0
"""For so long at least many that were lost at once are waited for, wherever one counts from."""


class Violation(Exception):
    """An invariant does not hold."""

    def __init__(self, invariant: str, text: str, at_s: float) -> None:
        super().__init__(f"{invariant}: {text}")
        self.invariant = invariant
        self.text = text
        self.at_s = at_s


@dataclass
class _Reader:
    revision: int = 0
    states: dict[str, TaskState] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Judges:
    """Who judges what, beside the watcher itself."""

    jobs: Jobs
    dependencies: Dependencies
    disconnections: Disconnections
    updates: Updates


class Watcher:
    """One for a world."""

    def __init__(self, world: Any) -> None:
        self._world = world
        self.violation: Violation | None = None
        self.stop = lambda: None
        self.tasks: dict[str, Task] = {}
        self.services: dict[str, Service] = {}
        self.revisions: dict[str, Revision] = {}
        self.nodes: dict[str, Node] = {}
        self.networks: dict[str, Network] = {}
        self.slices: dict[str, Slice] = {}
        self.files: dict[type[Any], dict[str, NamedFile]] = {Config: {}, Secret: {}}
        self.versions: dict[str, FileVersion] = {}
        self.created_at: dict[str, float] = {}
        self._judges = Judges(Jobs(self), Dependencies(self), Disconnections(self), Updates(self))
        self._tables = {
            **self.files,
            FileVersion: self.versions,
            Task: self.tasks,
            Service: self.services,
            Revision: self.revisions,
            Node: self.nodes,
            Network: self.networks,
            Slice: self.slices,
        }
        self.slots: defaultdict[tuple[str, Any], dict[str, Task]] = defaultdict(dict)
        self._holders: defaultdict[tuple[str, int], dict[str, Task]] = defaultdict(dict)
        self._leader: Any = None
        self._leads_since = 0.0
        self._heard: dict[tuple[Any, str], float] = {}
        self._returned: dict[tuple[Any, str], float] = {}
        self._readers: defaultdict[str, _Reader] = defaultdict(_Reader)
        self._applied: dict[str, tuple[int, int]] = {}
        self.ran: defaultdict[str, int] = defaultdict(int)
        self._in_flight: defaultdict[str, dict[tuple[str, Any], str]] = defaultdict(dict)
        self._empty_since: dict[tuple[str, Any], float] = {}
        self._taken: set[tuple[str, Any]] = set()
        self._done_for_user: set[int] = set()
        self._said_ready: set[str] = set()
        self._node_made: set[str] = set()
        """Tasks that a node made itself while no controller was there: it may not have known of another heir."""
        world.etcd.on_commit = self._committed
        world.network.sent_up = self._sent_up
        world.network.sent_down = self._sent_down
        world.network.heard = self._heard_host

    def fail(self, invariant: str, text: str, error: BaseException | None = None) -> None:
        """Note the first violation, and end the run."""
        if self.violation is None:
            self.violation = Violation(invariant, text, self._world.loop.now)
            self.violation.__cause__ = error
            self.note(f"VIOLATION {invariant}: {text}")
            self.stop()

    def note(self, text: str) -> None:
        self._world.note(text)

    def now(self) -> float:
        """Return the time of the world's clocks on the wall, as controllers store it."""
        return self._world.loop.wall()  # type: ignore[no-any-return]

    # ---- what is stored

    def _committed(self, revision: StoreRevision, by: object) -> None:
        if isinstance(by, Writer) and by.for_user:
            if by.for_user in self._done_for_user:
                keys = ", ".join(c.key.decode() for c in revision.changes)
                self.fail("a request is done once", f"{by.process.name} carries it out again: {keys}")
            self._done_for_user.add(by.for_user)
        self._stops: list[Task] = []
        self._before: dict[str, Task | None] = {}
        for change in revision.changes:
            self._change(change, revision.number, by)
        for change in revision.changes:
            self._after(change)
        for old in self._stops:
            self._judge_budget(old)
            service = self.services.get(old.service_id)
            if service is not None:
                self._judges.updates.task_stopped(old, service, self._siblings(old))

    def refused(self, number: int, what: str, error: BaseException) -> None:
        """A user was told that a request had no effect."""
        if isinstance(error, RejectedError) and number in self._done_for_user:
            self.fail("users are told the truth", f"{what} was done, and its user told: {error}")

    def _change(self, change: Changed, number: int, by: object) -> None:
        parts = change.key.decode().split("/")[3:]
        if parts == ["leader"]:
            self._led(change, by)
            return
        kind = BY_NAME.get(parts[0])
        if kind is None or kind.domain not in self._tables:
            return
        table: dict[str, Any] = self._tables[kind.domain]
        old = table.get(parts[-1])
        new: Any = from_bytes(kind, change.new.value, number) if change.new else None
        if new is None:
            table.pop(parts[-1], None)
        else:
            table[parts[-1]] = new
        self._judge_writer(kind.domain, old, new, by)
        match old or new:
            case Task():
                self._task(old, new)
            case Slice() if new is None:
                self._slice_given_back(old)
            case Node():
                self._node(old, new)
                if new is not None:
                    self._judges.updates.node_changed(old, new)
                    self._judges.disconnections.node_changed(old, new)
            case Service() | Network() | Config() | Secret() | FileVersion():
                if isinstance(new, Service):
                    by_user = isinstance(by, Writer) and bool(by.for_user)
                    self._judges.jobs.service_changed(old, new, by_user=by_user)
                    self._judges.updates.service_changed(old, new, by_user=by_user)
                what = "deleted" if new is None else "created" if old is None else "changed"
                self.note(f"{kind.name} {(new or old).meta.id} {what} {_of(new)}")

    def _led(self, change: Changed, by: object) -> None:
        if change.new is None:
            self._leader = None
            self.note(f"nobody leads ({'its lease ended' if by == 'lease' else by})")
        else:
            assert isinstance(by, Writer)
            self._leader, self._leads_since = by.process, self._world.loop.now
            self.note(f"{by.process.name} leads, epoch {change.new.created} {json.loads(change.new.value)['id']}")

    def _judge_writer(self, kind: Any, old: Any, new: Any, by: object) -> None:
        """Of what control loops own, only the leader's writes may have an effect."""
        if not isinstance(by, Writer) or by.for_user or by.process is self._leader:
            return
        if kind in (Task, Slice) or (kind is Node and old is not None and new is not None and old.status != new.status):
            self.fail("only the leader writes", f"{by.process.name}, which does not lead, wrote {_of(new or old)}")

    def _task(self, old: Task | None, new: Task | None) -> None:
        if new is not None:
            self._before[new.meta.id] = old
        if new is None:
            assert old is not None
            self._task_deleted(old)
            return
        if old is None or (old.status.state, old.desired_state, old.status.released) != (
            new.status.state,
            new.desired_state,
            new.status.released,
        ):
            self.note(f"task {_of(new)}")
        key = self._slot_key(new)
        self.slots[key][new.meta.id] = new
        if old is None and new.status.state is not S.NEW:
            self._node_made.add(new.meta.id)
        if old is not None:
            self._followed(old, new)
        if not old or old.attachments != new.attachments:
            for attachment in new.attachments:
                at = (attachment.network_id, attachment.address)
                for other in self._holders[at].values():
                    # A successor that the agent began by itself takes over the addresses with the place.
                    if (other.service_id, other.slot, other.node_id) != (new.service_id, new.slot, new.node_id):
                        self.fail("addresses unique", f"{_of(new)} is given the address that {_of(other)} still has")
                if not new.status.released:
                    self._holders[at][new.meta.id] = new

    def _slot_key(self, task: Task) -> tuple[str, Any]:
        service = self.services.get(task.service_id)
        place: Any = task.slot
        if service is not None and service.spec.mode in (ServiceMode.GLOBAL, ServiceMode.GLOBAL_JOB):
            place = task.node_id
        return (task.service_id, (place, task.iteration) if task.iteration else place)

    def _followed(self, old: Task, new: Task) -> None:
        if new.status.state < old.status.state:
            self.fail("states never fall", f"{_of(old)} became {_of(new)}")
        if old.status.state > S.RUNNING and new.status.state not in (old.status.state, S.ORPHANED):
            self.fail("states never fall", f"{_of(old)} had ended and became {_of(new)}")
        if new.desired_state < old.desired_state:
            self.fail("states never fall", f"desired: {_of(old)} became {_of(new)}")
        if old.status.released and not new.status.released:
            self.fail("states never fall", f"released: {_of(old)} became {_of(new)}")
        if new.status.released and not old.status.released:
            self._released(new)
        if old.status.state >= S.ASSIGNED and (old.node_id, old.attachments) != (new.node_id, new.attachments):
            self.fail("a task never moves", f"{_of(old)} became {_of(new)}")
        if _is_ready(new) and not _is_ready(old):
            self._judge_readiness(new)
        if new.desired_state >= S.SHUTDOWN > old.desired_state:
            self._stopped_by_us(old, new)
            self._stops.append(old)

    def _task_deleted(self, old: Task) -> None:
        self.note(f"task {old.meta.id} deleted")
        self.slots[self._slot_key(old)].pop(old.meta.id, None)
        self._free(old)
        if old.status.state < S.ASSIGNED or not old.node_id or old.node_id not in self.nodes:
            return
        if not old.status.released:
            self.fail("records stay until released", f"{_of(old)} was deleted")
        self._nowhere(old)

    def _released(self, task: Task) -> None:
        """Its addresses may be another's from now on."""
        self._free(task)
        self._nowhere(task)

    def _free(self, task: Task) -> None:
        for attachment in task.attachments:
            self._holders[attachment.network_id, attachment.address].pop(task.meta.id, None)

    def _nowhere(self, task: Task) -> None:
        for host in self._world.agents.values():
            if task.meta.id in host.kernel.containers or task.meta.id in host.kernel.links:
                self.fail("records stay until released", f"{_of(task)} is gone by its record and {host.name} has it")

    def _slice_given_back(self, old: Slice) -> None:
        network = self.networks.get(old.network_id)
        if network is None:
            return
        base = _base(network) + old.index * SLICE_SIZE
        for (network_id, address), holders in self._holders.items():
            if holders and network_id == old.network_id and base <= address < base + SLICE_SIZE:
                self.fail(
                    "slices stay while used", f"{old.meta.id} was given back, {list(holders)} have addresses of it"
                )

    # ---- what we do to healthy tasks

    def _stopped_by_us(self, old: Task, new: Task) -> None:
        """A task that does well on a node that does well is stopped for a reason only."""
        service, node = self.services.get(old.service_id), self.nodes.get(old.node_id)
        if service is None or node is None or old.status.state != S.RUNNING or service.removing:
            return
        if node.status.state is NodeState.DOWN or node.spec.availability is not Availability.ACTIVE:
            return
        if old.revision != service.revision or old.evict or service.spec.stopped:
            return
        if any(_live(t) for t in self._siblings(old)):
            return
        if service.spec.mode is ServiceMode.REPLICATED:
            slots = {k for k, ts in self.slots.items() if k[0] == old.service_id and any(_live(t) for t in ts.values())}
            if len(slots) >= service.spec.replicas:
                return  # scaled down
        else:
            return
        self.fail("healthy tasks stay", f"{_of(old)} was told to stop for no reason")

    def _after(self, change: Changed) -> None:
        """Judge the whole after a revision, where a task or a service changed."""
        parts = change.key.decode().split("/")[3:]
        if parts[0] == "service" and (service := self.services.get(parts[-1])) is not None:
            self._judges.dependencies.changed(service)
            self._judges.updates.after(service)
        if parts[0] != "task" or change.new is None:
            return
        task = self.tasks[parts[-1]]
        before = self._before.get(task.meta.id)
        self._follow_slot(self._slot_key(task))
        self._judge_parallelism(task, before)
        self._judge_new(task, before)
        self._judge_slot(task)
        if task.status.state is S.ASSIGNED:
            self._judge_room(task.node_id)

    def _judge_new(self, task: Task, before: Task | None) -> None:
        """Judge a task that was just created, or just given a node."""
        service = self.services.get(task.service_id)
        if service is None:
            return
        self._judges.dependencies.task_changed(task)
        if before is not None and before.status.state < S.ASSIGNED == task.status.state:
            self._judges.dependencies.placed(task, service)
        self._judges.dependencies.changed(service)
        if before is None:
            self.created_at[task.meta.id] = self.now()
        if before is None and task.status.state is S.NEW:
            siblings = self.slots[self._slot_key(task)]
            self._judges.jobs.task_created(task, service, siblings)
            self._judges.disconnections.task_created(task, service, siblings)
            self._judges.updates.task_created(task)

    def before(self, task: Task) -> Task:
        """Return a task as it was before the revision that is judged; one that is new as it is."""
        return self._before.get(task.meta.id) or task

    def _siblings(self, task: Task) -> list[Task]:
        return [t for t in self.slots[self._slot_key(task)].values() if t.meta.id != task.meta.id]

    def _judge_slot(self, task: Task) -> None:
        live = [t for t in self.slots[self._slot_key(task)].values() if _live(t)]
        if len(live) > 2:
            self.fail("slots unique", f"{len(live)} live tasks: {', '.join(map(_of, live))}")
        rising = [t for t in live if t.status.state < S.STARTING and t.desired_state <= S.RUNNING]
        by_nodes = any(t.meta.id in self._node_made for t in live)
        if len(live) == 2 and len(rising) == 2 and live[0].revision == live[1].revision and not by_nodes:
            nodes = [self.nodes.get(t.node_id) for t in live if t.node_id]
            if all(
                n and n.status.state is NodeState.READY and n.spec.availability is Availability.ACTIVE for n in nodes
            ):
                self.fail("slots unique", f"two tasks for one slot: {', '.join(map(_of, live))}")

    def _available(self, task: Task) -> bool:
        node = self.nodes.get(task.node_id)
        good = task.status.state == S.RUNNING and task.desired_state == S.RUNNING and not task.status.unready
        return good and node is not None and node.status.state is not NodeState.DOWN

    def _follow_slot(self, key: tuple[str, Any]) -> None:
        """Keep since when a slot has nobody who serves, and whether we took that one away."""
        if any(self._available(t) for t in self.slots[key].values()):
            self._empty_since.pop(key, None)
            self._taken.discard(key)
        else:
            self._empty_since.setdefault(key, self._world.loop.now)

    def _is_kept(self, key: tuple[str, Any]) -> bool:
        """Whether a slot is to go on: its place has somebody who is to serve, now or soon."""
        return any(_live(task) for task in self.slots[key].values())

    def _is_cut_off(self, key: tuple[str, Any]) -> bool:
        """Whether nothing can be done about a slot: it has a task on a node that is DOWN, and the service keeps it."""
        service = self.services.get(key[0])
        on = [self.nodes.get(task.node_id) for task in self.slots[key].values() if _live(task)]
        down = any(node is not None and node.status.state is NodeState.DOWN for node in on)
        return service is not None and service.spec.disconnect is Disconnect.KEEP and down

    def _is_canarys(self, key: tuple[str, Any]) -> bool:
        """Whether a slot is one more than is wanted, to try an update."""
        return any(task.canary for task in self.slots[key].values())

    def _judge_budget(self, old: Task) -> None:
        """What we stopped served; at most so many slots may then be without anyone who does.

        Slots count that we emptied, or that have been empty for so long that whoever decides must have known.
        """
        key, service = self._slot_key(old), self.services.get(old.service_id)
        if service is None or service.removing or service.spec.stopped or not self._available(old):
            return
        if service.spec.mode is not ServiceMode.REPLICATED or not self._is_kept(key) or self._is_canarys(key):
            return
        if key not in self._empty_since or not service.spec.max_unavailable:
            return
        if self._judges.updates.is_overdue(self.nodes[old.node_id]):
            return  # who set the drain a deadline wanted no more waiting
        self._taken.add(key)
        now = self._world.loop.now
        missing = [
            k
            for k in self.slots
            if k[0] == old.service_id
            and self._is_kept(k)
            and not self._is_canarys(k)
            and k in self._empty_since
            and (k in self._taken or now - self._empty_since[k] > KNOWN_S)
        ]
        limit = _limit(service)
        if len(missing) > limit:
            self.fail(
                "the budget holds", f"{len(missing)} of {_of(service)} are missing, {limit} may be: {_of(old)} stopped"
            )

    def _judge_parallelism(self, task: Task, old: Task | None) -> None:
        """At most so many slots are on their way from a task that served to one of the present revision.

        Slots of canaries, which are beside those that are wanted, all try at once.
        """
        service, key = self.services.get(task.service_id), self._slot_key(task)
        if service is None:
            return
        flying = self._in_flight[task.service_id]
        for k, id in list(flying.items()):
            new = self.tasks.get(id)
            done = new is None or new.status.state >= S.RUNNING or new.desired_state > S.RUNNING
            if done or new.revision != service.revision or self._is_cut_off(k):
                del flying[k]
        if old is not None or task.revision != service.revision or self._is_canarys(key):
            return
        going_back = service.update.state is UpdateState.ROLLBACK_STARTED
        if not going_back and service.update.state is not UpdateState.UPDATING:
            return
        if any(t.revision == task.revision for t in self.slots[key].values() if t.meta.id != task.meta.id):
            return  # the slot has had its turn: the restart policy tries it again
        served = [
            t for t in self.slots[key].values() if t.revision != task.revision and self._available(t) and self._stays(t)
        ]
        if not served:
            return
        flying[key] = task.meta.id
        most = (service.spec.rollback if going_back else service.spec.update).parallelism
        if most and len(flying) > most:
            self.fail("parallelism holds", f"{len(flying)} slots of {_of(service)} are updated at once, not {most}")

    def _stays(self, task: Task) -> bool:
        node = self.nodes[task.node_id]
        return _takes_tasks(node) and not task.evict

    def _judge_room(self, node_id: str) -> None:
        """What is ordered of a node fits; of two tasks in a slot only one will run."""
        node = self.nodes.get(node_id)
        if node is None:
            return
        needs: dict[tuple[str, Any], float] = {}
        for task in self.tasks.values():
            if task.node_id == node_id and _live(task) and task.status.state >= S.ASSIGNED:
                revision = self.revisions.get(revision_id(task.service_id, task.revision))
                if revision is not None:
                    key = self._slot_key(task)
                    needs[key] = max(needs.get(key, 0.0), revision.spec.task.reservations.cpus)
        if sum(needs.values()) > node.description.resources.cpus + 1e-6:
            self.fail("nothing oversubscribed", f"{sum(needs.values())} CPUs are ordered of {node.spec.name}")

    # ---- nodes

    def _heard_host(self, process: Any, host: str, what: str) -> None:
        """Note a sign of life that its receiver can make something of: who leads knows the keys of beats from etcd."""
        controller = next(c for c in self._world.controllers.values() if c.process is process)
        key = controller.cache.snapshot.get(BeatKey, self._world.agents[host].node_id)
        if what == "beat" and (controller.dispatcher.term is None or key is None):
            return
        now = self._world.loop.now
        if now - self._heard.get((process, host), self._leads_since) >= SILENCE_S:
            self._returned[process, host] = now
        self._heard[process, host] = now

    def _node(self, old: Node | None, new: Node | None) -> None:
        if new is None or old is None:
            return
        if old.status.state != new.status.state:
            self.note(f"node {new.spec.name}: {old.status.state.name} -> {new.status.state.name} {new.status.message}")
        if new.status.state is NodeState.DOWN and old.status.state is not NodeState.DOWN:
            now = self._world.loop.now
            heard = self._heard.get((self._leader, new.spec.name))
            began = max(self._leads_since, self._leader.stalled_until if self._leader else 0.0)
            if heard is None or heard < self._leads_since:
                silent_s, needed_s = now - began, GRACE_S
            else:
                silent_s, needed_s = now - max(heard, began), SILENCE_S
            returned = self._returned.get((self._leader, new.spec.name))
            if returned is not None and now - returned < LATE_S:
                return  # decided before it came back, and written only now: etcd was away
            if silent_s < needed_s - EPSILON_S:
                self.fail("no hasty DOWN", f"{new.spec.name} was called DOWN after {silent_s:.2f} s of silence")
            self._judge_brake(new, began)

    def _judge_brake(self, node: Node, began: float) -> None:
        """A node that was the last to be lost of over a third, at about the same time, is waited for much longer."""
        lost_at = self._lost_at(node, began)
        moments = [self._lost_at(n, began) for n in self.nodes.values() if not self._is_old_loss(n, began)]
        together = sum(lost_at - TOGETHER_S <= moment <= lost_at for moment in moments)
        is_mass_loss = together > 1 and 3 * together > len(self.nodes)
        if is_mass_loss and self._world.loop.now - lost_at < BRAKED_S:
            self.fail("mass losses wait", f"{node.spec.name} was called DOWN with {together} of {len(self.nodes)} lost")

    def _lost_at(self, node: Node, began: float) -> float:
        heard = self._heard.get((self._leader, node.spec.name))
        return began + GRACE_S if heard is None or heard < self._leads_since else max(heard, began) + SILENCE_S

    def _is_old_loss(self, node: Node, began: float) -> bool:
        """Whether a node was DOWN already when the leader began to listen."""
        heard = self._heard.get((self._leader, node.spec.name), 0.0)
        return node.status.state is NodeState.DOWN and heard < began

    # ---- what is said

    def _sent_up(self, call: Any, message: Any) -> None:
        if message.WhichOneof("body") == "report":
            call.__dict__.setdefault("reports", {})[message.report.sequence] = message.report

    def _sent_down(self, call: Any, message: Any) -> None:
        if message.WhichOneof("body") != "report_ack":
            return
        report = call.__dict__.get("reports", {}).get(message.report_ack.sequence)
        if report is None:
            self.fail("acknowledged only if stored", f"{call.host}: a report that was never made is acknowledged")
            return
        for item in report.tasks:
            stored = self.tasks.get(item.task_id)
            if stored is None or stored.status.state is S.ORPHANED:
                continue
            # An end is final: a host that lost its last records may tell of another one.
            behind = stored.status.state < item.status.state and stored.status.state <= S.RUNNING
            if behind or (item.status.released and not stored.status.released):
                self.fail(
                    "acknowledged only if stored",
                    f"{call.host} said {S(item.status.state).name} ({item.status.reason}) of {_of(stored)}",
                )

    def applied(self, host: str, epoch: int, revision: int) -> None:
        """An agent has accepted a message."""
        highest = self._applied.get(host, (0, 0))
        if (epoch, revision) < highest:
            self.fail("epochs never fall", f"{host} applied {(epoch, revision)} after {highest}")
        self._applied[host] = max(highest, (epoch, revision))

    def forgot(self, host: str) -> None:
        """An agent has lost its memory of leaders."""
        self._applied.pop(host, None)

    def read(self, name: str, batch: Any) -> None:
        """A reader of a controller's cache sees a batch."""
        reader = self._readers[name]
        if batch.resync:
            return
        if batch.revision < reader.revision:
            self.fail("readers see no fall", f"{name} sees revision {batch.revision} after {reader.revision}")
        reader.revision = batch.revision
        for change in batch.changes:
            if change.kind is not Task:
                continue
            if change.new is None:
                reader.states.pop(change.id, None)
                continue
            if change.new.status.state < reader.states.get(change.id, S.NEW):
                self.fail("readers see no fall", f"{name}: {_of(change.new)}")
            reader.states[change.id] = change.new.status.state

    # ---- what runs

    def linked(self, container: Container) -> None:
        for attachment in container.links:
            for host in self._world.agents.values():
                for other, links in host.kernel.links.items():
                    if other != container.id and attachment in links:
                        self.fail("addresses unique", f"{container.host} links {container.id} as {host.name} {other}")

    def started(self, container: Container) -> None:
        self.note(f"{container.host} {container.id} runs")
        self.ran[container.id] += 1
        if self.ran[container.id] > 1:
            self.fail("a task runs once", f"{container.id} was started again on {container.host}")
        self._judges.disconnections.started(container, self._world.agents.values())
        self._judges.dependencies.started(container, self._world.agents[container.host])
        self._judge_files(container)
        host = self._world.agents[container.host]
        beside = [c for c in host.kernel.containers.values() if c.status == "running" and not self._is_over(c.id)]
        cpus = sum(float(c.env.get("CPUS", 0)) for c in beside)
        if cpus > host.description.resources.cpus + 1e-6:
            self.fail("nothing oversubscribed", f"{cpus} CPUs are promised on {container.host}")
        ports = [c.env["PORT"] for c in beside if "PORT" in c.env]
        if len(ports) != len(set(ports)):
            self.fail("nothing oversubscribed", f"host port twice on {container.host}: {ports}")

    def _is_over(self, task_id: str) -> bool:
        """Whether a task had ended: a host that lost the memory of that runs it again, until it is told."""
        task = self.tasks.get(task_id)
        return task_id in self.created_at if task is None else is_terminal(task.status.state)

    def answered_ready(self, container: Container) -> None:
        """A program was asked whether it is ready, and is."""
        self._said_ready.add(container.id)

    def _judge_readiness(self, task: Task) -> None:
        """Who is said to be ready has been asked."""
        revision = self.revisions.get(revision_id(task.service_id, task.revision))
        if revision is None or revision.spec.task.container.readiness is None:
            return
        if task.meta.id not in self._said_ready:
            self.fail("ready when asked", f"{_of(task)} counts as ready, and its program never said so")

    def _judge_files(self, container: Container) -> None:
        """A program has the versions of its configs and secrets that its revision says."""
        task = self.tasks.get(container.id)
        revision = self.revisions.get(revision_id(task.service_id, task.revision)) if task else None
        for ref in revision.spec.task.container.files if revision else ():
            version = self.versions.get(ref.id)
            wanted = content_of(version, self._world.keys) if version else None
            if wanted is None or container.files.get(path_of(ref)) != wanted:
                self.fail("files are the revision's", f"{container.id} has another {ref.name} than version {ref.id}")

    def ended_by_us(self, container: Container, how: str) -> None:
        self.note(f"{container.host} {container.id} gets {how}")
        task = self.tasks.get(container.id)
        if task is None or task.desired_state >= S.SHUTDOWN or not container.well or container.signalled:
            return
        if task.status.released:  # it had ended, and its host, which lost the memory of that, ran it again
            return
        self.fail("healthy programs run on", f"{container.host} ends {_of(task)} by {how}")

    def cut_loose(self, container: Container) -> None:
        task = self.tasks.get(container.id)
        if task is not None and task.desired_state <= S.RUNNING:
            self.fail("healthy programs run on", f"{container.host} takes the links of {_of(task)}")

    def power_cut(self) -> None:
        """All hosts are about to lose what they run."""
        self._judges.dependencies.power_cut(self._world.agents.values())

    def rebooted(self, host: str) -> None:
        """A host has lost all that it ran, and perhaps the memory of it: it may run a task again."""
        for task in self.tasks.values():
            node = self.nodes.get(task.node_id)
            if node is not None and node.spec.name == host:
                self.ran.pop(task.meta.id, None)

    # ---- at rest

    def judge_rest(self) -> None:
        """Judge a world that has had time to settle: all as declared, nothing left over."""
        for service in self.services.values():
            self._judge_count(service)
        wanted = {t.meta.id for t in self.tasks.values() if not t.status.released}
        for host in self._world.agents.values():
            left = sorted((set(host.kernel.containers) | set(host.kernel.links)) - wanted)
            if left:
                self.fail("nothing is left over", f"{host.name} still has {left}")
        for key, tasks in self.slots.items():
            live = [t for t in tasks.values() if _live(t)]
            if len(live) > 1:
                self.fail("slots unique", f"at rest {key}: {', '.join(map(_of, live))}")

    def unsettled(self) -> str:
        """Say what is not yet as declared; "" when all is."""
        for service in self.services.values():
            if why := self._lacks(service):
                return why
        for task in self.tasks.values():
            if task.desired_state >= S.SHUTDOWN and not (task.status.state > S.RUNNING and task.status.released):
                return f"{_of(task)} is still to end"
            if task.status.state > S.RUNNING and not task.status.released:
                return f"{_of(task)} is still to be released"
            node = self.nodes.get(task.node_id)
            if node is not None and node.spec.availability is Availability.DRAIN and _live(task):
                return f"{_of(task)} is still on {node.spec.name}, which is drained"
        for network in self.networks.values():
            if network.removing:
                return f"network {network.meta.id} is still to go"
        return ""

    def left_over(self) -> str:
        """Say which records are left in etcd after everything was removed."""
        tables = (self.services, self.tasks, self.networks, self.slices, self.versions, *self.files.values())
        return ", ".join(key for table in tables for key in table)

    def _judge_count(self, service: Service) -> None:
        if why := self._lacks(service):
            self.fail("as declared", why)

    def _lacks(self, service: Service) -> str:
        if service.removing:
            return f"{_of(service)} is still to go"
        own = [t for t in self.tasks.values() if t.service_id == service.meta.id]
        if service.spec.mode in JOB_MODES:
            return self._judges.jobs.lacks(service, own)
        running = [t for t in own if t.desired_state == S.RUNNING and t.status.state == S.RUNNING]
        wanted = service.spec.replicas
        if service.spec.mode is ServiceMode.GLOBAL:
            wanted = sum(1 for n in self.nodes.values() if n.spec.availability is not Availability.DRAIN)
        wanted = 0 if service.spec.stopped else wanted
        if len(running) != wanted:
            return f"{len(running)} of {wanted} tasks of {_of(service)} run"
        if service.update.state in (UpdateState.UPDATING, UpdateState.ROLLBACK_STARTED):
            return f"{_of(service)} is still being updated"
        if service.update.state in (UpdateState.NONE, UpdateState.COMPLETED, UpdateState.ROLLBACK_COMPLETED):
            dirty = [t for t in running if t.revision != service.revision]
            dirty = [t for t in dirty if self._task_spec(t.service_id, t.revision) != service.spec.task]
            if dirty:
                return f"{_of(dirty[0])} runs another spec than {_of(service)}"
        return self._outdated(service)

    def _outdated(self, service: Service) -> str:
        """Say which file a service has in an older version than was stored since its present revision."""
        revision = self.revisions.get(revision_id(service.meta.id, service.revision))
        for ref in service.spec.task.container.files:
            file = self.files[Secret if ref.secret else Config].get(ref.id.rpartition(".")[0])
            if file is None or file.removing or revision is None:
                continue
            latest = self.versions[f"{file.meta.id}.{file.number}"]
            if latest.meta.id != ref.id and latest.meta.version > revision.meta.version:
                return f"{_of(service)} has version {ref.id} of {ref.name}, and there is {latest.meta.id}"
        return ""

    def _task_spec(self, service_id: str, number: int) -> Any:
        revision = self.revisions.get(revision_id(service_id, number))
        return revision.spec.task if revision else None


def _live(task: Task) -> bool:
    return task.desired_state <= S.RUNNING and task.status.state <= S.RUNNING


def _is_ready(task: Task) -> bool:
    return task.status.state == S.RUNNING and not task.status.unready


def _limit(service: Service) -> int:
    text = service.spec.max_unavailable
    return service.spec.replicas * int(text[:-1]) // 100 if text.endswith("%") else int(text)


def _takes_tasks(node: Node) -> bool:
    return node.status.state is NodeState.READY and node.spec.availability is Availability.ACTIVE


def _base(network: Network) -> int:
    a, b, c, d = (int(x) for x in network.subnet.partition("/")[0].split("."))
    return a << 24 | b << 16 | c << 8 | d


def _of(obj: Any) -> str:
    match obj:
        case Task():
            at = " ".join(f"{a.address & 255}" for a in obj.attachments)
            released = " released" if obj.status.released else ""
            reason = f" ({obj.status.reason})" if obj.status.reason else ""
            return (
                f"{obj.meta.id} {obj.service_id[:4]}.{obj.slot} r{obj.revision} on {obj.node_id[:4] or '-'} [{at}] "
                f"{obj.status.state.name}->{obj.desired_state.name}{released}{reason}"
            )
        case Service():
            state = f" {obj.update.state.name}" if obj.update.state else ""
            gone = " removing" if obj.removing else ""
            return f"{obj.meta.id[:4]} {obj.spec.name} r{obj.revision} x{obj.spec.replicas}{state}{gone}"
        case None:
            return ""
    return f"{type(obj).__name__} {obj.meta.id}"
