"""The network plane: what the rest of the agent calls.

Two threads do the work, so that the event loop never waits for the kernel: one moves between namespaces and changes
them, one talks to argosy-dns. Within each, calls are carried out in the order they were made. Nothing here forks.

Deleting a device costs the kernel 15 ms of waiting, deleting fifty at once hardly more: containers whose detaching is
asked for while the thread is busy are detached together.
"""

import asyncio
import os
import random
import socket
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, ParamSpec, TypeVar

from argosy.agent.logic import network_names as names
from argosy.agent.logic.network_probe import Tally, Way
from argosy.agent.network import dns_sockets
from argosy.agent.network.audit import EVERYTHING, MESH, Scope
from argosy.agent.network.auditor import Auditor
from argosy.agent.network.desired import (
    AttachResult,
    Audited,
    AuditTiming,
    Drift,
    HostReport,
    MeshReport,
    NetworkSettings,
    NetworkState,
    NodeIdentity,
)
from argosy.agent.network.dns_link import DnsLink
from argosy.agent.network.events import Listener
from argosy.agent.network.keeper import Keeper, Sockets
from argosy.agent.network.overlay import Overlay
from argosy.agent.network.prober import Prober
from argosy.agent.network.records import Records
from argosy.agent.network.repairs import Repairs
from argosy.agent.network.tunnels import Looked, TunnelWatch
from argosy.core.errors import TransientError
from argosy.core.mesh import MeshKey
from argosy.core.network import Attachment
from argosy.core.node import PortProblem

P = ParamSpec("P")
R = TypeVar("R")

_FIRST_RETRY_S: Final = 0.1
_LAST_RETRY_S: Final = 5.0


@dataclass(slots=True)
class _Opened:
    """What is held in the namespaces of networks after a turn of both threads. `problem`: why not all is."""

    sockets: dict[str, Sockets]
    listeners: Mapping[str, Listener] = field(default_factory=dict)
    problem: Exception | None = None


class NetworkPlane:
    """Owns the node's part of the overlay. To be made and used on one event loop, in the host's namespaces."""

    def __init__(self, identity: NodeIdentity, settings: NetworkSettings) -> None:
        self._identity = identity
        self._settings = settings
        self._kernel_thread = ThreadPoolExecutor(1, "argosy-network")
        self._dns_thread = ThreadPoolExecutor(1, "argosy-dns-link")
        self._overlay: Overlay | None = None
        self._repairs: Repairs | None = None
        keeper = Keeper(settings.launcher) if settings.launcher else None
        self._dns = DnsLink(settings.run_dir, settings.resolv_conf, keeper) if settings.dns else None
        self._desired = NetworkState()
        self._records = Records()
        self._applied = False
        self._leaving: dict[str, asyncio.Future[None]] = {}
        self._counting: dict[str, asyncio.Future[int]] = {}
        self._applying = asyncio.Lock()
        self._watched = -1
        self._dns_ended = asyncio.Event()
        self._launcher_ended = asyncio.Event()
        self._supervisors: list[asyncio.Task[None]] = []
        self._auditor = Auditor(self.repair, self._silent_changes, settings.audit or AuditTiming())
        self._auditing: asyncio.Task[None] | None = None
        self._tunnels = TunnelWatch(self._look_at_tunnels, self._open_echo, lambda report: self.on_mesh(report))
        self._watching: asyncio.Task[None] | None = None
        self.on_mesh: Callable[[MeshReport], None] = lambda report: None
        """Called on the loop when what the node says of its mesh has changed."""
        self.on_ports: Callable[[tuple[PortProblem, ...]], None] = lambda problems: None
        """Called on the loop with what stands in the way of published ports, whenever that was looked at."""
        self.on_host: Callable[[HostReport], None] = lambda report: None
        """Called on the loop with what the host is like, whenever that was looked at."""

    async def start(self) -> None:
        """Adopt what a former life left; nothing is changed or removed. Raises TransientError."""
        await self._open()
        self._watching = asyncio.create_task(self._tunnels.run(), name="tunnels")
        if self._settings.audit:
            self._auditing = asyncio.create_task(self._auditor.run(), name="network audit")
        if self._dns:
            await self._in_dns(self._dns.adopt)
            with suppress(TransientError):  # there is none yet, or it hangs: it is asked again
                await self._in_dns(self._dns.meet_launcher)
            # Have one run before the first network needs it: a process takes longer to start than a network.
            self._watch()
            self._supervisors = [
                asyncio.create_task(self._supervise(self._dns_ended, self._restore_dns), name="argosy-dns supervisor"),
                asyncio.create_task(self._supervise(self._launcher_ended, self._meet_launcher), name="keeping sockets"),
            ]

    async def apply(self, desired: NetworkState, *, synced: bool = False) -> int:
        """Bring the node to a desired state, and return how many changes of the kernel that took.

        What the node had to begin with, from a former life, is removed where nothing wants it, if `synced`: only who
        has seen all assignments may conclude from one's absence. Raises TransientError if something could not be
        brought about; the rest was.
        """
        async with self._applying:
            self._desired, self._applied = desired, True
            try:
                return await self._change(lambda: self._running.apply(desired, synced=synced))
            finally:
                self._tunnels.want(desired)

    async def attach(self, container_id: str, pid: int, attachments: Sequence[Attachment]) -> AttachResult:
        """Connect the network namespace of process `pid` to networks of the last applied state; harmless to repeat.

        Raises PreconditionError (not assigned, overlapping networks), TransientError (process gone, too).
        """
        interfaces = await self._in_kernel(self._running.attach, container_id, pid, tuple(attachments))
        return AttachResult(interfaces)

    async def detach(self, container_id: str) -> None:
        """Disconnect a container; harmless to repeat. When this returns nothing of it is left in any network."""
        waiting = self._leaving.get(container_id)
        if waiting is None:
            waiting = asyncio.get_running_loop().create_future()
            self._leaving[container_id] = waiting
            self._kernel_thread.submit(self._detach_waiting, asyncio.get_running_loop())
        await asyncio.shield(waiting)

    async def connections(self, container_id: str) -> int:
        """Return how many TCP connections to a container of the last applied state are open. Raises TransientError.

        A connection is open until both sides have said that they end; those that the container opened do not count.
        """
        if not self._applied:
            raise TransientError("nothing was applied yet")
        loop = asyncio.get_running_loop()
        waiting = self._counting.get(container_id)
        if waiting is None:
            waiting = self._counting[container_id] = loop.create_future()
            attachments = {t.container_id: t.attachments for t in self._desired.tasks}
            self._kernel_thread.submit(self._count_waiting, loop, attachments)
        return await asyncio.shield(waiting)

    async def verify(self) -> list[Drift]:
        """Return how the kernel differs from what is intended; before anything is, it does not."""
        async with self._applying:
            return await self._in_kernel(self._repairing.verify) if self._applied else []

    async def repair(self, scope: Scope = EVERYTHING) -> list[Drift]:
        """Put right how the kernel differs from what is intended, and return it. Raises TransientError."""
        async with self._applying:
            return await self._change(lambda: self._repairing.repair(scope)) if self._applied else []

    async def audit(self) -> Audited:
        """Look at everything now, put right what is not as intended, and say what that was."""
        earlier = tuple(self._auditor.recent)
        try:
            found = await self.repair()
        except TransientError as error:
            return Audited(tuple(await self.verify()), str(error), earlier)
        self._auditor.note(found)
        async with self._applying:
            stays = await self._in_kernel(self._repairing.beyond_repair) if self._applied else []
        if stays:
            return Audited(tuple(stays), "; ".join(d.what for d in stays), tuple(self._auditor.recent))
        return Audited(tuple(found), "", earlier)

    async def probe(self, network_id: str, peers: Iterable[str]) -> tuple[dict[str, Tally], int]:
        """Try the ways to the VTEPs of peers, given as node ids; return what was found out by node, and the MTU.

        Raises PreconditionError (not carried), TransientError.
        """
        identifier = random.randrange(1, 1 << 16)
        vantage = await self._in_kernel(self._running.vantage, network_id, identifier)
        ways = {n: Way(vantage.mac, names.vtep_mac(network_id, n), vantage.source) for n in peers}
        try:
            return await asyncio.to_thread(Prober(vantage, identifier, ways).run), vantage.mtu
        except OSError as error:
            raise TransientError(f"the ways to other nodes cannot be tried: {error}") from error
        finally:
            vantage.packets.close()

    @property
    def port_problems(self) -> tuple[PortProblem, ...]:
        """What stands in the way of published ports, as of the last `apply` or look at everything."""
        return self._overlay.port_problems if self._overlay else ()

    @property
    def drift(self) -> Mapping[str, int]:
        """How many differences were found and put right since `start`, by network; "" is the host's namespace."""
        return self._auditor.drift

    @property
    def tunnels_by(self) -> tuple[str, str]:
        """What makes tunnels for encrypted networks on this host, else "" and why nothing does; after `start`."""
        return self._running.mesh.tunnels_by, self._running.mesh.no_tunnels

    async def mesh_keys(self) -> tuple[MeshKey, ...]:
        """Return the public keys that this node has from a former life."""
        return await self._in_kernel(lambda: self._running.mesh.keys)

    def launcher_started(self) -> None:
        """Take note that the host has another launcher, which keeps nothing yet."""
        self._launcher_ended.set()

    async def close(self) -> None:
        """End this life: networks, containers' links and argosy-dns stay."""
        await self._end_work()
        if self._dns:
            await self._in_dns(self._dns.close)
        if self._overlay:
            await self._in_kernel(self._overlay.close)
            self._overlay = self._repairs = None
        self._kernel_thread.shutdown()
        self._dns_thread.shutdown()

    async def purge(self) -> None:
        """Remove everything of this node: networks, uplinks, tables, argosy-dns. Works without `start` too."""
        await self._end_work()
        if self._overlay is None:
            await self._open()
        if self._dns:
            # First: its sockets keep namespaces alive.
            await self._in_dns(self._dns.stop)
        await self._in_kernel(self._running.purge)
        self._desired = NetworkState()

    @property
    def _running(self) -> Overlay:
        if self._overlay is None:
            raise RuntimeError("the network plane was not started")
        return self._overlay

    @property
    def _repairing(self) -> Repairs:
        if self._repairs is None:
            raise RuntimeError("the network plane was not started")
        return self._repairs

    async def _open(self) -> None:
        self._overlay = await self._in_kernel(Overlay, self._identity, self._settings)
        self._repairs = Repairs(self._overlay)
        await self._in_kernel(self._overlay.adopt)

    async def _in_kernel(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        loop = asyncio.get_running_loop()
        with _as_transient():
            return await loop.run_in_executor(self._kernel_thread, lambda: function(*args, **kwargs))

    async def _in_dns(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._dns_thread, lambda: function(*args, **kwargs))

    def _detach_waiting(self, loop: asyncio.AbstractEventLoop) -> None:
        """Detach all containers that wait for it; the calls of those that had company find nothing left to do."""
        leaving: dict[str, asyncio.Future[None]] = {}
        while self._leaving:
            container_id, future = self._leaving.popitem()
            leaving[container_id] = future
        if not leaving:
            return
        try:
            self._running.detach(leaving)
        except Exception as error:
            loop.call_soon_threadsafe(_fail, list(leaving.values()), error)
            return
        loop.call_soon_threadsafe(_finish, list(leaving.values()))

    def _count_waiting(self, loop: asyncio.AbstractEventLoop, attachments: Mapping[str, Sequence[Attachment]]) -> None:
        """Count the connections of all containers that wait for it: the kernel walks its table once for all."""
        asking: dict[str, asyncio.Future[int]] = {}
        while self._counting:
            container_id, future = self._counting.popitem()
            asking[container_id] = future
        if not asking:
            return
        try:
            counts = self._running.connections({c: attachments.get(c, ()) for c in asking})
        except Exception as error:
            why = TransientError(f"open connections: {error}") if isinstance(error, OSError) else error
            loop.call_soon_threadsafe(_fail, list(asking.values()), why)
            return
        loop.call_soon_threadsafe(_answer, [(future, counts[c]) for c, future in asking.items()])

    async def _change(self, work: Callable[[], R]) -> R:
        """Do what may change namespaces; what is held in each of them follows, also when that fails.

        One thread hands on to the other, each has one turn: to wake one costs more than a small change. Raises
        TransientError.
        """
        loop, finished = asyncio.get_running_loop(), asyncio.Event()
        listens = self._settings.audit is not None and self._settings.audit.events
        known = frozenset(self._auditor.events.scopes) if listens else None
        desired = self._desired if self._applied else None
        opened = _Opened(dict(self._dns.sockets) if self._dns else {})

        def supply() -> None:
            try:
                self._supply_dns(desired, opened)
            except Exception as error:
                opened.problem = error
            finally:
                loop.call_soon_threadsafe(finished.set)

        worked = self._kernel_thread.submit(self._work_and_open, work, known, opened)
        worked.add_done_callback(lambda _: self._dns_thread.submit(supply))
        try:
            await finished.wait()
        finally:
            self.on_ports(self.port_problems)
            self.on_host(self._running.host_report)
            self._listen(opened.listeners)
            self._watch()
        with _as_transient():
            result = worked.result()
        if opened.problem:
            raise opened.problem
        return result

    def _work_and_open(self, work: Callable[[], R], known: Collection[str] | None, opened: _Opened) -> R:
        try:
            return work()
        finally:
            if self._dns:
                self._open_sockets(opened)
            if known is not None:
                opened.listeners = self._running.listen(known)

    def _open_sockets(self, opened: _Opened) -> None:
        """Have sockets in all namespaces, and none of others; where that fails those there were are kept."""
        held, opened.sockets = opened.sockets, {}
        for network_id, fd in self._running.namespace_descriptors().items():
            pair = held.get(network_id)
            try:
                if pair is None or not dns_sockets.are_in(fd, pair):
                    pair = dns_sockets.open_sockets(self._running.home, fd)
            except OSError as error:
                opened.problem = TransientError(f"cannot answer names on network {network_id}: {error}")
            if pair:
                opened.sockets[network_id] = pair

    def _listen(self, listeners: Mapping[str, Listener]) -> None:
        """Listen in every namespace that there is, and in no other."""
        for scope, listener in listeners.items():
            self._auditor.events.add(scope, listener)
        kept = {"", MESH} if self._desired.mesh else {""}
        for scope in self._auditor.events.scopes - self._desired.networks.keys() - kept:
            self._auditor.events.remove(scope)

    def _supply_dns(self, desired: NetworkState | None, opened: _Opened) -> None:
        """Have argosy-dns know what is desired and hold sockets in all networks. Raises TransientError.

        Before anything is desired it goes on with what it knows.
        """
        if self._dns and desired:
            self._dns.supply(self._records.of(desired), opened.sockets)
        elif self._dns:
            self._dns.keep()

    def _watch(self) -> None:
        """Have the loop tell when the argosy-dns that we talk to ends, and see to a launcher that we do not talk to."""
        self._unwatch()
        if self._dns and not self._dns.knows_launcher:
            self._launcher_ended.set()
        if self._dns is None:
            self._dns_ended.set()
            return
        try:
            # A descriptor of our own: the other thread may close its at any time, and may just have.
            self._watched = os.dup(self._dns.pidfd)
        except OSError:
            self._dns_ended.set()
            return
        asyncio.get_running_loop().add_reader(self._watched, self._on_dns_end)

    def _on_dns_end(self) -> None:
        self._unwatch()
        self._dns_ended.set()

    def _unwatch(self) -> None:
        if self._watched >= 0:
            asyncio.get_running_loop().remove_reader(self._watched)
            os.close(self._watched)
            self._watched = -1

    async def _restore_dns(self) -> None:
        """Start argosy-dns anew if it has ended; it finds its sockets and their queries as they were."""
        async with self._applying:
            await self._change(lambda: None)

    async def _meet_launcher(self) -> None:
        """Have another launcher keep the sockets, and take what it keeps of networks whose sockets we lack."""
        if self._dns:
            async with self._applying:
                await self._in_dns(self._dns.meet_launcher)
                await self._change(lambda: None)

    async def _supervise(self, ended: asyncio.Event, restore: Callable[[], Awaitable[None]]) -> None:
        """Restore what has ended, until that succeeds; never returns."""
        delay = _FIRST_RETRY_S
        while True:
            await ended.wait()
            ended.clear()
            try:
                await restore()
                delay = _FIRST_RETRY_S
            except TransientError:
                ended.set()
                await asyncio.sleep(delay)
                delay = min(delay * 2, _LAST_RETRY_S)

    async def _look_at_tunnels(self) -> Looked:
        return await self._in_kernel(self._running.look_at_tunnels)

    async def _open_echo(self) -> socket.socket:
        return await self._in_kernel(self._running.open_echo)

    async def _silent_changes(self) -> list[str]:
        return await self._in_kernel(self._repairing.silent_changes)

    async def _end_work(self) -> None:
        """Stop what works unasked, and have the threads finish what was begun and nobody waits for any more."""
        await self._stop_auditing()
        await self._stop_supervising()
        await self._in_kernel(lambda: None)
        await self._in_dns(lambda: None)  # which is handed on to while the other still works

    async def _stop_auditing(self) -> None:
        if self._watching:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
            self._watching = None
        if self._auditing:
            self._auditing.cancel()
            with suppress(asyncio.CancelledError):
                await self._auditing
            self._auditing = None
        self._auditor.events.close()

    async def _stop_supervising(self) -> None:
        for supervisor in self._supervisors:
            supervisor.cancel()
            with suppress(asyncio.CancelledError):
                await supervisor
        self._supervisors.clear()
        self._unwatch()


@contextmanager
def _as_transient() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TransientError(f"the node's network: {error}") from error


def _finish(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


def _answer(futures: list[tuple[asyncio.Future[int], int]]) -> None:
    for future, count in futures:
        if not future.done():
            future.set_result(count)


def _fail(futures: Sequence[asyncio.Future[Any]], error: Exception) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)
