"""`argosy agent`: parses the configuration, puts the parts together and runs them until told to stop."""

import asyncio
import contextlib
import errno
import resource
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import click
import grpc
import structlog

from argosy.agent import facts, logging
from argosy.agent.images.fetch import BlobSource
from argosy.agent.images.store import ImageStore
from argosy.agent.logic.assignments import Assignments, advance, check_leader
from argosy.agent.logic.succession import with_successors
from argosy.agent.logs.tunnel import send_logs
from argosy.agent.network.desired import WIREGUARD_PORT, HostReport, MeshReport, NetworkSettings, NodeIdentity
from argosy.agent.network.plane import NetworkPlane
from argosy.agent.runtime.memory import ensure_memory_directory
from argosy.agent.runtime.native import NativeRuntime, leave_words
from argosy.agent.session.network_report import report_networks
from argosy.agent.session.news import NodeNews
from argosy.agent.session.reporter import Reporter
from argosy.agent.session.session import Connect, Session, connect
from argosy.agent.settings import AgentSettings
from argosy.agent.state import Identity, StateDir, TaskRecord, read_update
from argosy.agent.tasks.console_tunnel import serve_console
from argosy.agent.tasks.fence import Fence
from argosy.agent.tasks.files import hold_secrets, take_secrets
from argosy.agent.tasks.guards import GuardProcess
from argosy.agent.tasks.host import Host
from argosy.agent.tasks.id_ranges import IdRanges
from argosy.agent.tasks.probe import Prober
from argosy.agent.tasks.successors import Successors
from argosy.agent.tasks.tasks import Tasks
from argosy.agent.tasks.wiring import Wiring
from argosy.core.ambient import SYSTEM, Ambient
from argosy.core.assignment import LeaderEpoch, UnreadableAssignment
from argosy.core.errors import ArgosyError, TransientError, first_of
from argosy.core.image import Image
from argosy.core.node import NodeDescription
from argosy.proto.argosy.v1 import dispatcher_pb2 as pb

log = structlog.get_logger(__name__)

TIDY_PERIOD_S = 60.0


@click.command(help="Run the agent of this host. It listens on nothing: it calls the controllers.")
@click.option("--controller", "controllers", multiple=True, required=True, help="HOST:PORT; repeat for each.")
@click.option("--name", default="", help="The node's name; default: the host's.")
@click.option("--role", default="worker", show_default=True, type=click.Choice(["worker", "manager"]))
@click.option("--label", "labels", multiple=True, help="KEY=VALUE; counts when the node joins for the first time.")
@click.option(
    "--advertise",
    default="",
    help="Address or interface to which other hosts send VXLAN packets; default: by which the way to the controller "
    "leaves. But for an address, it is followed when it changes.",
)
@click.option("--state-dir", default="/var/lib/argosy", show_default=True, help="What outlives a boot.")
@click.option("--run-dir", default="/run/argosy", show_default=True, help="What must not; a tmpfs.")
@click.option("--cgroup-parent", default="/argosy", show_default=True, help="Where containers' cgroups are made.")
@click.option("--vxlan-port", default=14789, show_default=True)
@click.option(
    "--wireguard-port",
    default=WIREGUARD_PORT,
    show_default=True,
    type=click.IntRange(1, 65534),
    help="UDP port of the tunnels of encrypted networks, with the next one; other hosts must reach both.",
)
@click.option("--id-base", default=2_000_000_000, show_default=True, help="First user id given to containers.")
@click.option("--id-ranges", default=16_384, show_default=True, help="How many ranges of 65,536 ids there are.")
@click.option("--protect-tcp", multiple=True, type=int, help="TCP port that no container may reach outside; repeat.")
@click.option(
    "--log-level", default="info", show_default=True, type=click.Choice(["debug", "info", "warning", "error"])
)
def main(
    controllers: tuple[str, ...],
    name: str,
    role: str,
    labels: tuple[str, ...],
    advertise: str,
    state_dir: str,
    run_dir: str,
    cgroup_parent: str,
    vxlan_port: int,
    wireguard_port: int,
    id_base: int,
    id_ranges: int,
    protect_tcp: tuple[int, ...],
    log_level: str,
) -> None:
    """Entry of `argosy agent` and `python -m argosy.agent`."""
    logging.configure(log_level)
    settings = AgentSettings(
        controllers=controllers,
        node_name=name or socket.gethostname(),
        state_dir=Path(state_dir),
        run_dir=Path(run_dir),
        role=role,
        labels=_labels(labels),
        advertise=advertise,
        vxlan_port=vxlan_port,
        wireguard_port=wireguard_port,
        cgroup_parent=cgroup_parent,
        id_base=id_base,
        id_ranges=id_ranges,
        protect_tcp=protect_tcp,
    )
    import uvloop

    try:
        uvloop.run(_serve(settings))
    except Exception as error:
        words = _last_words(error)
        leave_words(_launcher_socket(settings), words)
        sys.exit(f"argosy agent: {words}")


def _launcher_socket(settings: AgentSettings) -> str:
    return str(settings.run_dir / "launcher" / "launcher.sock")


def _last_words(error: Exception) -> str:
    """Return what to tell the operator of an error that ended the agent; a bug is raised as it is."""
    # Not `except*`: what is raised or exited with in there comes out as a group again in Python before 3.11.4.
    first = first_of(error)
    if isinstance(first, ArgosyError):
        return str(first)
    if isinstance(first, PermissionError):
        return f"{first}: it has to run as root"
    if isinstance(first, OSError) and first.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return f"{first}: make room for --state-dir, and it goes on; containers run meanwhile"
    raise error


def _labels(texts: tuple[str, ...]) -> dict[str, str]:
    labels = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise click.BadParameter(f"{text!r} is no KEY=VALUE", param_hint="--label")
        labels[key] = value
    return labels


async def _serve(settings: AgentSettings) -> None:
    """Run all parts until SIGTERM or SIGINT; containers go on after that."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # three descriptors a container
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    state = StateDir(settings.state_dir / "agent")
    identity = state.identity()
    towards = "" if settings.advertise else facts.locate(settings.controllers)
    description = facts.describe(facts.find_underlay(settings.advertise, towards))
    blobs = BlobSource()
    images = ImageStore(settings.state_dir / "images", blobs.fetch)
    plane = NetworkPlane(_node_identity(identity, settings, description), _network_settings(settings, towards))
    runtime = NativeRuntime(
        _launcher_socket(settings),
        str(settings.state_dir / "containers"),
        settings.cgroup_parent,
    )
    runtime.on_launcher = plane.launcher_started
    await images.open()
    await plane.start()
    tunnels_by, no_tunnels = plane.tunnels_by
    description = replace(description, tunnels_by=tunnels_by, no_tunnels=no_tunnels, mesh_keys=await plane.mesh_keys())
    hold_secrets(settings.run_dir)  # before there is a launcher, which else would not see it where mounts are private
    await runtime.open()
    try:
        async with asyncio.TaskGroup() as group:
            agent = Agent(settings, state, identity, description, blobs, images, plane, runtime, group)
            running = group.create_task(agent.run())
            await stop.wait()
            running.cancel()
            raise asyncio.CancelledError
    except asyncio.CancelledError:
        log.info("stopped; containers go on")
    finally:
        await runtime.close()
        await plane.close()
        await images.close()


def _node_identity(identity: Identity, settings: AgentSettings, description: NodeDescription) -> NodeIdentity:
    return NodeIdentity(identity.node_id, settings.node_name, description.underlay_address)


def _network_settings(settings: AgentSettings, towards: str) -> NetworkSettings:
    ports = {int(c.rpartition(":")[2]) for c in settings.controllers if not c.startswith("unix:")}
    return NetworkSettings(
        state_dir=settings.state_dir / "network",
        run_dir=settings.run_dir,
        vxlan_port=settings.vxlan_port,
        wireguard_port=settings.wireguard_port,
        advertise=settings.advertise,
        towards=towards,
        # Controllers take the hosts' beats there.
        protected_udp=tuple(sorted({settings.wireguard_port, settings.wireguard_port + 1, *ports})),
        protected_tcp=tuple(sorted({2379, 2380, *ports, *settings.protect_tcp})),
        launcher=Path(_launcher_socket(settings)),
    )


class Agent:
    """The node's parts put together: what a session says goes to disk, then to the network and the task owners."""

    def __init__(
        self,
        settings: AgentSettings,
        state: StateDir,
        identity: Identity,
        description: NodeDescription,
        blobs: BlobSource,
        images: ImageStore,
        plane: NetworkPlane,
        runtime: NativeRuntime,
        group: asyncio.TaskGroup,
        connect: Connect = connect,
        ambient: Ambient = SYSTEM,
        ensure_guard: Callable[[], None] | None = None,
        ensure_memory: Callable[[Path], None] = ensure_memory_directory,
    ) -> None:
        guards = settings.run_dir / "guard"
        self._settings = settings
        self._state = state
        self._identity = identity
        self._blobs = blobs
        self._images = images
        self._runtime = runtime
        self._group = group
        self._connect = connect
        self._reporter = Reporter()
        self._images_kept: set[str] = set()
        self._images_changed = asyncio.Event()
        self._setting_beat: asyncio.Task[None] | None = None
        self._plane = plane
        self._news = NodeNews(description)
        self._wiring = Wiring(plane, identity.node_id, description.no_tunnels)
        self._assignments = state.load_assignments()
        self._records = state.load_tasks()
        self._host = Host(
            settings=settings,
            state=state,
            runtime=runtime,
            network=self._wiring,
            images=images,
            reporter=self._reporter,
            prober=Prober(runtime),
            fence=Fence(guards, ambient, ensure_guard or GuardProcess(guards, settings.cgroup_parent).ensure),
            id_ranges=IdRanges(settings.id_base, settings.id_ranges, _ranges_in_use(self._records)),
            node_id=identity.node_id,
            node_name=settings.node_name,
            hostname=description.hostname,
            ambient=ambient,
            assignments=self._assignments,
            preparing=asyncio.Semaphore(settings.prepare_parallelism),
            ensure_memory=ensure_memory,
        )
        self._tasks = Tasks(self._host, group)
        self._successors = Successors(self._host, self._tasks, lambda: self._apply(self._assignments))
        # Last: the plane is at work already, and what it tells is for a whole agent.
        plane.on_mesh = self._mesh_changed
        plane.on_ports = self._news.take_ports
        plane.on_host = self._host_changed

    async def run(self) -> None:
        """Adopt what a former life left, then follow the controller."""
        found = await self._runtime.list()
        self._wiring.adopt(container.id for container in found)
        self._tasks.adopt(self._records, found)
        await self._apply(self._assignments)
        self._group.create_task(self._wiring.run(), name="network")
        self._group.create_task(self._tasks.watch_exits(), name="exits")
        self._group.create_task(self._tidy_images(), name="images")
        self._successors.disconnected()
        self._group.create_task(self._successors.run(), name="successors")
        self._group.create_task(self._host.fence.run(), name="fence")
        await Session(self._settings.controllers, self, self._reporter, self._connect).run()

    async def _apply(self, assignments: Assignments) -> None:
        self._assignments = self._host.assigned = assignments
        self._successors.settle()
        wanted = self._host.assignments = with_successors(assignments, self._host.successions)
        await self._wiring.set(wanted)
        self._host.files.retain(assignments)
        self._tasks.apply(self._host.assignments)  # the newest: others may have come while the network took these
        if (images := {i.digest for i in assignments.of(Image)}) != self._images_kept:
            self._images_kept = images
            self._images_changed.set()

    async def _tidy_images(self) -> None:
        """Delete image layers that neither an assignment nor a container needs; never returns.

        Not while assignments are applied: to delete much takes so long that the session would count as dead. Looks
        also now and then: a container that has ended may have been the last to need a layer.
        """
        while True:
            if self._assignments.synced:
                in_use = {layer for layers in self._host.layers.values() for layer in layers}
                await self._images.retain(list(self._assignments.of(Image)), in_use)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TIDY_PERIOD_S):
                    await self._images_changed.wait()
            self._images_changed.clear()

    # ------------------------------------------------------------ SessionEvents

    def hello(self) -> pb.Hello:
        """Return what this node says of itself."""
        return pb.Hello(
            node_id=self._identity.node_id,
            node_name=self._settings.node_name,
            role=self._settings.role,
            labels=dict(self._settings.labels),
            description=self._news.hello(),
            beat_key=self._identity.beat_key,
        )

    def check_leader(self, leader: LeaderEpoch) -> None:
        """Refuse a leader that was replaced."""
        check_leader(self._assignments.leader, leader)

    def started(self, message: pb.SessionStarted, channel: grpc.aio.Channel) -> None:
        """A session stands: report everything, since nobody has confirmed anything to this leader."""
        self._blobs.use(channel)
        self._successors.connected()
        self._host.fence.new_session()
        self._reporter.restart(self._tasks.reports())
        if self._setting_beat:
            self._setting_beat.cancel()  # else an older period could be set last
        self._setting_beat = self._group.create_task(self._set_beat(message.heartbeat_period), name="beat")

    async def _set_beat(self, period_s: float) -> None:
        settings = {
            "node": self._identity.node_id,
            "key": self._identity.beat_key.hex(),
            "period_s": period_s,
            "controllers": [c for c in self._settings.controllers if not c.startswith("unix:")],
        }
        while True:
            try:
                return await self._runtime.beat(settings)
            except TransientError as e:
                log.warning("the host's own beat is not set yet", why=str(e))
                await asyncio.sleep(1)

    def ended(self) -> None:
        """The session is over: nothing can be fetched until the next one."""
        self._blobs.use(None)
        self._successors.disconnected()

    async def in_force(self) -> None:
        """Wait until what was assigned last is in force in the node's network, too."""
        await self._wiring.in_force()

    async def assigned(self, message: pb.ControllerMessage) -> int:
        """Apply an assignment message: to disk first, then to the parts."""
        secrets = take_secrets(message)  # before anybody stores or shows it
        update = read_update(message)
        for piece in update.put:
            if isinstance(piece, UnreadableAssignment):
                log.warning("a newer controller's assignment cannot be read: upgrade this agent", **asdict(piece))
        assignments = advance(self._assignments, update)
        self._host.files.keep(secrets)
        self._state.save_assignments(message, assignments)
        await self._apply(assignments)
        return assignments.version

    async def news(self) -> pb.AgentMessage:
        """Return what this session has not heard of the node yet, as soon as there is something."""
        return await self._news.next()

    def _mesh_changed(self, report: MeshReport) -> None:
        """Take that the node's keys or tunnels have changed: the controller is told, and so are the tasks."""
        self._news.take(report)
        self._host.tunnel_problems = report.problems
        self._tasks.networks_changed()

    def _host_changed(self, report: HostReport) -> None:
        """Take what the host is like now: the controller is told of its links, and tasks of what is wrong with them."""
        self._news.take_host(report)
        if report.problems != self._host.host_problems:
            self._host.host_problems = report.problems
            self._tasks.networks_changed()

    def beat_sent(self, sequence: int) -> None:
        """Note when a heartbeat was sent: a grant counts from then."""
        self._host.fence.beat_sent(sequence)

    def beat_answered(self, sequence: int, fence_for_s: float) -> None:
        """Take what a controller grants to fenced tasks."""
        self._host.fence.granted(sequence, fence_for_s)

    def open_tunnel(self, request: pb.OpenTunnel, channel: grpc.aio.Channel) -> None:
        """Open a tunnel for the output of tasks."""
        sending = send_logs(request, channel, self._host, self._tasks.released)
        self._group.create_task(sending, name=f"tunnel {request.tunnel_id}")

    def open_console(self, request: pb.OpenConsole, channel: grpc.aio.Channel) -> None:
        """Open a tunnel for the input and output of an interactive task."""
        serving = serve_console(request, channel, self._host.consoles, self._tasks.released)
        self._group.create_task(serving, name=f"console {request.tunnel_id}")

    def verify_networks(self, request: pb.VerifyNetworks, channel: grpc.aio.Channel) -> None:
        """Look at the node's networks, and report what there is."""
        self._group.create_task(report_networks(request, channel, self._plane), name="network report")


def _ranges_in_use(records: list[TaskRecord]) -> list[int]:
    return [r.id_range for r in records if r.id_range >= 0 and not r.status.released]
