"""One owner a task: it alone changes the task's container, network and record.

A loop around the pure decision (agent/logic/task_step.py): observe, decide, carry out, until there is nothing to do;
then sleep until something changed. What it observes survives the agent: the record on disk and the runtime's own
state, so that an owner started after a crash goes on where the old one stood.
"""

import asyncio
import contextlib
from dataclasses import replace

import structlog

from argosy.agent.guard.files import Guarded
from argosy.agent.launcher.rundir import start_ticks
from argosy.agent.logic.succession import Ended
from argosy.agent.logic.task_step import ContainerState, Decision, Drain, ExitStatus, Observed, Step, next_step
from argosy.agent.runtime.errors import ContainerUnstarted
from argosy.agent.runtime.interface import ContainerState as RuntimeState
from argosy.agent.runtime.interface import Exit
from argosy.agent.session.backoff import Backoff
from argosy.agent.state import TaskRecord
from argosy.agent.tasks.fence import reason_of
from argosy.agent.tasks.host import Host
from argosy.agent.tasks.prepare import Prepared, drain_timeout_s, prepare, stop_grace_s, stop_signal
from argosy.agent.tasks.probe import Answer
from argosy.agent.tasks.start import execute, observed_at_start
from argosy.agent.tasks.watch import Checks, checks_of, watch
from argosy.core.addresses import format_ipv4
from argosy.core.assignment import RevisionAssignment, TaskAssignment
from argosy.core.errors import ArgosyError, ExhaustedError, NotFoundError, RejectedError, TransientError
from argosy.core.ids import successor_id
from argosy.core.service import Healthcheck
from argosy.core.task import TaskStatus
from argosy.core.task_state import TaskState, is_failure, is_terminal

FENCE_WAIT = "waiting for a controller to confirm this node: the service is fenced"
FENCE_LOOK_S = 0.05
"""How often a fenced task asks whether it may start."""
FULL_BORNE_S = 90.0
"""How long a task waits for room on this host: what no image needs has been deleted by then (main.TIDY_PERIOD_S)."""
log = structlog.get_logger(__name__)


class TaskOwner:
    """Runs one task to its end. `assign` and `exited` may be called at any time, from the same loop."""

    def __init__(self, task_id: str, host: Host, record: TaskRecord | None, found: RuntimeState | None) -> None:
        self.task_id = task_id
        self._host = host
        self._wall = host.ambient.wall
        self._assigned: TaskAssignment | None = None
        self._told = asyncio.Event()  # until then nothing is known of what is desired, and nothing is done
        self._wake = asyncio.Event()
        self.released = asyncio.Event()
        """Set when nothing of the task is left but its record and its log, which has its last line."""
        self._preparing: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._attaching: asyncio.Task[None] | None = None
        self._running_since = record.running_since if record else 0.0
        self._confirmed = record.confirmed if record else False
        self._succession = record.succession if record else None
        self._id_range = record.id_range if record else -1
        self._tried = record is not None
        self._trouble = record.status.reason if record and not record.status.unready else ""
        self._seen = observed_at_start(record, found, self._wall())
        if record:
            host.reporter.put(task_id, self.reportable)
        if self._seen.status.released:
            self.released.set()

    @property
    def status(self) -> TaskStatus:
        """The task's status as of now."""
        return self._seen.status

    @property
    def reportable(self) -> TaskStatus:
        """The status as a controller is to hear it.

        That it holds nothing any more is told of a task that ended by itself only when its end is stored: until then
        a successor made here may have its addresses, and the controller would give them to somebody else.
        """
        status = self._seen.status
        if not status.released or self._confirmed or not _ended_by_itself(status.state):
            return status
        succeeded = self._succession is not None or successor_id(self.task_id) in self._host.successions
        return status if succeeded else replace(status, released=False)

    def stored(self, status: TaskStatus) -> None:
        """Take that a controller has stored a status."""
        if is_terminal(status.state) and not self._confirmed:
            self._confirmed = True
            self._save()
            if self.reportable != status:
                self._report()

    def ended(self) -> Ended | None:
        """Return how the task ended; None while it has not, or while nothing is known of what is desired of it."""
        if self._assigned is None or not is_terminal(self._seen.status.state):
            return None
        return Ended(self._assigned, self._seen.status, self._running_since, self._confirmed)

    def handed_over(self) -> None:
        """Take that this task of the node's own making is the controller's now."""
        self._succession = None
        self._save()

    def assign(self, assigned: TaskAssignment | None) -> None:
        """Take what is desired now; None: the controller's set has no such task.

        A host that lost power may have lost the record of a task's end, too, and run it again.
        """
        if assigned is not None and assigned.over and not is_terminal(self._seen.status.state):
            assigned = replace(assigned, desired_state=TaskState.SHUTDOWN, drained=True)
        if assigned != self._assigned or not self._told.is_set():
            self._assigned = assigned
            self._told.set()
            self._wake.set()

    def exited(self, end: Exit) -> None:
        """Take the exit of the container's program."""
        code = end.code if end.signal is None else 128 + end.signal
        self._note(
            replace(
                self._seen,
                container=ContainerState.STOPPED,
                exit=ExitStatus(code, end.oom_killed, end.finished_at),
            )
        )

    async def run(self) -> None:
        """Own the task until it is forgotten."""
        await self._told.wait()
        if self._seen.container in (ContainerState.CREATED, ContainerState.RUNNING):
            self._attaching = asyncio.create_task(self._attach_again(), name=f"attach {self.task_id}")
        if self._seen.container is ContainerState.RUNNING:
            self._adopt()
        try:
            while await self._advance():
                pass
            self._host.state.forget_task(self.task_id)
        finally:
            children = [child for child in (self._preparing, self._watching, self._attaching) if child]
            for child in children:
                child.cancel()
            await asyncio.gather(*children, return_exceptions=True)

    async def _advance(self) -> bool:
        """Carry out one step; False when the task is forgotten."""
        self._wake.clear()
        decision = next_step(
            self._assigned, self._seen, self._grace_s(), self._wall(), self._drain_s(), waits=self._waits()
        )
        match decision.step:
            case Step.WAIT:
                await self._sleep(decision.until)
            case Step.PREPARE:
                await self._prepare()
            case Step.START:
                await self._start()
            case Step.DRAIN:
                await self._drain()
            case Step.SETTLE:
                assert self._seen.drain is not None
                now, drain = self._wall(), self._seen.drain
                drained_at = now if drain.drained_at is None else drain.drained_at
                self._note(replace(self._seen, drain=replace(drain, drained_at=drained_at, settling_since=now)))
            case Step.STOP:
                await self._stop()
            case Step.KILL:
                await self._signal(9, everything=True)
                self._note(replace(self._seen, killed=True))
            case Step.END:
                await self._end(decision)
            case Step.RELEASE:
                await self._release()
            case Step.FORGET:
                return False
        return True

    def _waits(self) -> bool:
        return self._assigned is not None and any(map(self._host.kin.is_under_way, self._assigned.after))

    def predecessor_ended(self, task_id: str) -> None:
        """Take that another task of the node has ended: this one may have waited for it."""
        if self._assigned is not None and task_id in self._assigned.after:
            self._wake.set()

    async def _sleep(self, until: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if until is None else max(0.0, until - self._wall())):
                await self._wake.wait()

    # ------------------------------------------------------------ steps

    async def _prepare(self) -> None:
        """Start preparing, or wait until that is done or something else is wanted."""
        if self._preparing is None:
            before = self._seen
            lost = before.lost + (before.status.state is TaskState.READY)
            status = self._status(TaskState.PREPARING)
            self._seen = replace(before, status=status, container=ContainerState.NONE, exit=None, lost=lost)
            self._report(passing=self._is_passing(status))
            self._save()
            self._preparing = asyncio.create_task(self._prepare_with_retries(), name=f"prepare {self.task_id}")
        waker = asyncio.create_task(self._wake.wait())
        try:
            await asyncio.wait({self._preparing, waker}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waker.cancel()
        if self._preparing.done():
            preparing, self._preparing = self._preparing, None
            preparing.result()

    async def _prepare_with_retries(self) -> None:
        backoff = Backoff(0.2, 30.0)
        full_since: float | None = None
        while True:
            assigned = self._assigned
            if assigned is None:
                return
            self._tried, again = True, self._tried
            try:
                prepared = await prepare(self._host, assigned, self._first_id(), again=again)
            except TransientError as e:
                now = self._host.ambient.monotonic()
                if not isinstance(e, ExhaustedError):
                    full_since = None
                elif full_since is None:
                    full_since = now
                if full_since is not None and now - full_since >= FULL_BORNE_S:
                    self._reject(str(e))  # another host may have room
                    return
                self._set(TaskState.PREPARING, reason=str(e))
            except RejectedError as e:
                self._reject(str(e))
                return
            except Exception as e:
                # A bug in preparing one task must not end the agent that looks after the others.
                log.exception("preparing failed: a bug", task=self.task_id)
                self._reject(f"internal error of the agent: {type(e).__name__}: {e}")
                return
            else:
                self._ready(prepared)
                return
            await asyncio.sleep(backoff.next())

    def _first_id(self) -> int:
        """Return the host id that is root in the container; TransientError while no range is free."""
        if self._id_range < 0:
            self._id_range = self._host.id_ranges.take()
            self._save()  # before anything has its ids: another life of the agent must not give them to somebody else
        return self._host.id_ranges.first_id(self._id_range)

    def _reject(self, reason: str) -> None:
        self._note(replace(self._seen, status=self._status(TaskState.REJECTED, reason=reason)))
        self._save()

    def _ready(self, prepared: Prepared) -> None:
        self._note(replace(self._seen, container=ContainerState.CREATED, exit=None))
        self._set(TaskState.READY, pid=prepared.pid)
        self._save()

    async def _start(self) -> None:
        if not self._may_start():
            if self._seen.status.reason != FENCE_WAIT:
                self._set(TaskState.READY, reason=FENCE_WAIT)
            await self._sleep(self._wall() + FENCE_LOOK_S)
            return
        # On disk before it happens: after a crash in between, the task counts as started and never runs twice.
        checks = self._checks()
        self._set(TaskState.STARTING, quiet=checks.liveness is None, unready=checks.readiness is not None)
        self._save()
        try:
            await execute(self._host.runtime, self.task_id)
        except ContainerUnstarted:
            status = self._status(TaskState.READY)
            self._note(replace(self._seen, container=ContainerState.STOPPED, status=status))
            return
        except RejectedError as e:
            status = self._status(TaskState.FAILED, reason=f"it did not start: {e}", exit_code=_exit_code_of(e))
            self._note(replace(self._seen, status=status))
            self._save()
            return
        if self._seen.container is not ContainerState.STOPPED:
            self._note(replace(self._seen, container=ContainerState.RUNNING))
        self._watch()

    def _may_start(self) -> bool:
        """Whether nothing fences the task, or there is a grant and it is guarded."""
        revision = self._revision()
        return revision is None or not revision.fenced or self._host.fence.admits(self.task_id, self._guarded)

    def _guarded(self) -> Guarded:
        revision, pid = self._revision(), self._seen.status.pid
        return Guarded(pid, start_ticks(pid), stop_signal(revision, self._host.image_of(revision)), self._grace_s())

    def refence(self) -> None:
        """Have a program that runs guarded as its service says now: that may have changed since it was started."""
        revision = self._revision()
        if self._seen.container is ContainerState.RUNNING and revision is not None:
            self._host.fence.keep(self.task_id, self._guarded if revision.fenced else None)

    def _adopt(self) -> None:
        """Go on with an earlier agent's program; nobody knows yet whether one that has no record is ready."""
        status = self._seen.status
        if status.state is TaskState.STARTING and self._checks().readiness is not None:
            self._note(replace(self._seen, status=replace(status, unready=True)))
        self._watch()

    async def _attach_again(self) -> None:
        """Have the network know an earlier agent's container: only then it can repair what that one gave it."""
        backoff = Backoff(0.2, 30.0)
        while assigned := self._assigned:
            revision = self._revision()
            nameservers = revision.spec.container.dns.nameservers if revision else ()
            try:
                await self._host.network.attach(self.task_id, self._seen.status.pid, assigned.attachments, nameservers)
            except ArgosyError as e:
                log.warning("not attached again yet", task=self.task_id, why=str(e))
                await asyncio.sleep(backoff.next())
            else:
                return

    def _watch(self) -> None:
        """Watch the health of a program that runs, also of one that an earlier agent started."""
        revision = self._revision()
        if revision and revision.spec.container.interactive and not self._host.consoles.knows(self.task_id):
            self.given_up("the agent that somebody was attached through has ended")
        checks = self._checks()
        if checks.liveness is None and not checks.was_well:
            self.passed()
        if checks.liveness is not None or checks.readiness is not None:
            self._watching = asyncio.create_task(watch(checks, self._ask, self), name=f"health {self.task_id}")

    async def _ask(self, check: Healthcheck) -> Answer:
        attachments = self._assigned.attachments if self._assigned else ()
        address = format_ipv4(attachments[0].address) if attachments else ""
        return await self._host.prober.ask(self.task_id, address, check)

    def passed(self) -> None:
        """Take that liveness passed."""
        if self._seen.status.state is TaskState.STARTING:
            self._running_since = self._wall()
            before = self._seen.status
            self._set(TaskState.RUNNING, reason=before.reason if before.unready else "", unready=before.unready)
            self._save()
            self.say_trouble()

    def unwell(self, why: str) -> None:
        """Take that liveness failed before it ever passed."""
        status = self._seen.status
        if status.state is TaskState.STARTING:
            self._note(replace(self._seen, status=replace(status, reason=why)))

    def given_up(self, reason: str) -> None:
        """Take that liveness failed too often, or that nobody is attached to an interactive program any more."""
        self._note(replace(self._seen, unhealthy=reason))

    def ready(self, ready: bool, why_not: str) -> None:
        """Take what came of a readiness check."""
        old = self._seen.status
        if is_terminal(old.state):
            return
        status = replace(old, unready=not ready, reason="" if ready else why_not)
        self._note(replace(self._seen, status=status))
        if status.unready != old.unready:
            self._save()
        self.say_trouble()

    def say_trouble(self) -> None:
        """Say of a task that runs what it lacks without ending by it: a piece that cannot be read, a tunnel, a way.

        Other reasons go before.
        """
        status, mine = self._seen.status, self._trouble
        found = [self._host.assignments.trouble_of(self._assigned)] if self._assigned else []
        attached = self._assigned.attachments if self._assigned else ()
        for problems in (self._host.host_problems, self._host.tunnel_problems):
            found += (problems.get(a.network_id, "") for a in attached)
        self._trouble = reason = next(filter(None, found), "")
        if status.state is TaskState.RUNNING and status.reason in ("", mine) and status.reason != reason:
            self._note(replace(self._seen, status=replace(status, reason=reason)))

    async def _drain(self) -> None:
        """Begin to drain; once no new connections come, count those that are open."""
        now, before = self._wall(), self._seen.drain
        if before is None:
            self._note(replace(self._seen, drain=Drain(now)))
            return
        try:
            connections = await self._host.network.connections(self.task_id)
        except TransientError as e:
            log.warning("open connections not counted", task=self.task_id, why=str(e))
            connections = before.connections or 1
        status = self._seen.status
        if connections and (
            before.connections is None or int(now - before.since) != int(before.counted_at - before.since)
        ):
            status = replace(status, reason=f"draining {connections} connection{'s' if connections > 1 else ''}")
        self._note(replace(self._seen, drain=replace(before, connections=connections, counted_at=now), status=status))

    async def _stop(self) -> None:
        if self._seen.stop_at is None:
            self._note(replace(self._seen, stop_at=self._wall()))
            self._save()  # so that the grace period does not begin anew with an agent that does
        revision = self._revision()
        await self._signal(stop_signal(revision, self._host.image_of(revision)))
        self._note(replace(self._seen, signalled=True))
        self._save()

    async def _signal(self, number: int, *, everything: bool = False) -> None:
        """Send a signal, however often the launcher is away; a container that is gone has ended."""
        backoff = Backoff(0.1, 5.0)
        while self._seen.container is ContainerState.RUNNING:
            try:
                await self._host.runtime.kill(self.task_id, number, everything=everything)
                return
            except NotFoundError:
                self._note(replace(self._seen, container=ContainerState.STOPPED))
            except ArgosyError as e:
                log.warning("cannot signal yet", task=self.task_id, signal=number, why=str(e))
                await asyncio.sleep(backoff.next())

    async def _end(self, decision: Decision) -> None:
        if self._preparing:
            self._preparing.cancel()
            await asyncio.gather(self._preparing, return_exceptions=True)
            self._preparing = None
        assert decision.status is not None
        status = decision.status
        if status.state is not TaskState.SHUTDOWN:
            unconfirmed_s = self._host.fence.unconfirmed_s(self.task_id)
            if unconfirmed_s is not None:
                status = replace(status, state=TaskState.FAILED, reason=reason_of(unconfirmed_s))
        ended_at = self._seen.exit.at if self._seen.exit and self._seen.exit.at else self._wall()
        ran_s = max(0.0, ended_at - self._running_since) if self._running_since else None
        self._note(replace(self._seen, status=replace(status, at=ended_at, ran_s=ran_s)))
        self._save()
        log.info("task ended", task=self.task_id, state=status.state.name, reason=status.reason)
        self._host.kin.wake_followers(self.task_id)

    async def _release(self) -> None:
        for child in (self._watching, self._attaching):
            if child:
                child.cancel()
        self._watching = self._attaching = None
        backoff = Backoff(0.1, 10.0)
        while True:
            try:
                await self._host.runtime.delete(self.task_id)
                await self._host.network.detach(self.task_id)
                self._host.files.remove(self.task_id)
                break
            except ArgosyError as e:
                log.warning("cannot release yet", task=self.task_id, why=str(e))
                await asyncio.sleep(backoff.next())
        self._host.fence.release(self.task_id)
        self._host.layers.pop(self.task_id, None)
        if self._id_range >= 0:
            self._host.id_ranges.give_back(self._id_range)
        self.released.set()
        status = replace(self._seen.status, released=True)
        self._note(replace(self._seen, status=status, container=ContainerState.NONE))
        self._save()

    # ------------------------------------------------------------ state

    def _grace_s(self) -> float:
        return stop_grace_s(self._revision())

    def _drain_s(self) -> float:
        return drain_timeout_s(self._revision())

    def _revision(self) -> RevisionAssignment | None:
        return self._host.assignments.revision_of(self._assigned) if self._assigned else None

    def _checks(self) -> Checks:
        revision, status = self._revision(), self._seen.status
        was_well = status.state is TaskState.RUNNING
        if revision is None:
            return Checks(was_well=was_well)
        return checks_of(revision.spec.container, self._host.image_of(revision), was_well, status.unready)

    def _status(self, state: TaskState, *, reason: str = "", pid: int = 0, exit_code: int | None = None) -> TaskStatus:
        return TaskStatus(
            state=state, at=self._wall(), reason=reason, pid=pid or self._seen.status.pid, exit_code=exit_code
        )

    def _set(
        self, state: TaskState, *, reason: str = "", pid: int = 0, unready: bool = False, quiet: bool = False
    ) -> None:
        """Enter a state on the way up; `quiet` when the next one follows at once and need not be told apart."""
        if is_terminal(self._seen.status.state) or state < self._seen.status.state:
            return
        status = replace(self._status(state, reason=reason, pid=pid), unready=unready)
        self._seen = replace(self._seen, status=status)
        if not quiet:
            self._report(passing=self._is_passing(status))

    def _is_passing(self, status: TaskStatus) -> bool:
        """Whether the task is about to leave this state upwards by itself."""
        wanted = self._assigned.desired_state if self._assigned else TaskState.SHUTDOWN
        return not status.reason and status.state < min(wanted, TaskState.STARTING)

    def _note(self, seen: Observed) -> None:
        changed = seen.status != self._seen.status
        self._seen = seen
        if changed:
            self._report()
        self._wake.set()

    def _report(self, *, passing: bool = False) -> None:
        self._host.reporter.put(self.task_id, self.reportable, passing=passing)

    def _save(self) -> None:
        seen = self._seen
        self._host.state.save_task(
            TaskRecord(
                self.task_id,
                seen.status,
                self._id_range,
                seen.stop_at,
                seen.signalled,
                self._running_since,
                self._confirmed,
                self._succession,
            )
        )


def _ended_by_itself(state: TaskState) -> bool:
    return is_failure(state) or state is TaskState.COMPLETE


def _exit_code_of(error: Exception) -> int | None:
    code = getattr(error, "exit_code", None)
    return code if isinstance(code, int) else None
