"""`argosy controller`: parses the configuration, puts the parts together and runs them until told to stop."""

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import structlog
import uvloop

from argosy.controller import logging
from argosy.controller.api.content import ContentServicer
from argosy.controller.api.control import ControlServicer
from argosy.controller.api.logs import LogRelay
from argosy.controller.changes import images
from argosy.controller.changes.commit import change
from argosy.controller.cluster import ClusterView
from argosy.controller.content.blobs import BlobStore
from argosy.controller.content.replicas import Replicas
from argosy.controller.leader_watch import watch_leader
from argosy.controller.loops.images import collect
from argosy.controller.secrets.keyring import Keyring
from argosy.controller.secrets.keyring import load as load_keys
from argosy.controller.server import check_address, serve, set_health
from argosy.controller.session.dispatcher import DispatcherServicer, LogTunnels
from argosy.controller.session.heard import BeatProtocol
from argosy.controller.session.tunnels import Tunnels
from argosy.controller.settings import ControllerSettings
from argosy.controller.store import Cache, Candidate, Election, EtcdClient, EtcdConfig, Store, keep_room, tune_collector
from argosy.controller.term import Leader
from argosy.core.errors import ArgosyError, InvalidError, first_of
from argosy.core.image import Image

log = structlog.get_logger(__name__)


@click.command(help="Run a controller of a cluster. Several may run: etcd elects the one that leads.")
@click.option("--etcd", multiple=True, default=("127.0.0.1:2379",), show_default=True, help="HOST:PORT; repeat.")
@click.option(
    "--listen",
    multiple=True,
    default=("unix:///run/argosy/controller.sock",),
    show_default=True,
    help="unix:///PATH or ADDRESS:PORT; repeat.",
)
@click.option("--advertise", default="", help="HOST:PORT at which agents and other controllers reach this one.")
@click.option("--peer", multiple=True, help="HOST:PORT of another controller; repeat for each of the others.")
@click.option("--trusted-network", multiple=True, help="CIDR where listening without TLS is allowed; repeat.")
@click.option(
    "--data-dir", default="/var/lib/argosy/controller", show_default=True, help="Where image content is kept."
)
@click.option(
    "--secrets-key", default="", help="File of the keys that encrypt secrets (mode 0600), the same on all controllers."
)
@click.option("--cluster", default="argosy", show_default=True, help="The cluster's name in etcd.")
@click.option("--name", default="", help="This controller's name; default: what it advertises.")
@click.option("--lease-ttl", default=2.0, show_default=True, help="Seconds after which a silent leader is replaced.")
@click.option(
    "--log-level", default="info", show_default=True, type=click.Choice(["debug", "info", "warning", "error"])
)
def main(
    etcd: tuple[str, ...],
    listen: tuple[str, ...],
    advertise: str,
    peer: tuple[str, ...],
    trusted_network: tuple[str, ...],
    data_dir: str,
    secrets_key: str,
    cluster: str,
    name: str,
    lease_ttl: float,
    log_level: str,
) -> None:
    """Entry of `argosy controller` and `python -m argosy.controller`."""
    logging.configure(log_level)
    tune_collector()
    tcp = next((a for a in listen if not a.startswith("unix:")), "")
    settings = ControllerSettings(
        etcd=etcd,
        listen=listen,
        advertise=advertise or tcp,
        data_dir=Path(data_dir),
        peers=peer,
        cluster=cluster,
        name=name or advertise or tcp or "controller",
        trusted_networks=trusted_network,
        lease_ttl_s=lease_ttl,
        secrets_key=Path(secrets_key) if secrets_key else None,
    )
    try:
        for address in listen:
            check_address(address, trusted_network)
        uvloop.run(_serve(settings))
    except Exception as error:
        sys.exit(f"argosy controller: {_last_words(error)}")


def _last_words(error: Exception) -> str:
    """Return what to tell the operator of an error that ended the controller; a bug is raised as it is."""
    # Not `except*`: what is raised or exited with in there comes out as a group again in Python before 3.11.4.
    first = first_of(error)
    if isinstance(first, ArgosyError):
        return str(first)
    if isinstance(first, PermissionError):
        return f"{first.filename}: permission denied: run it as root, or choose --data-dir and --listen"
    raise error


async def _serve(settings: ControllerSettings) -> None:
    """Run all parts until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    keys = load_keys(settings.secrets_key) if settings.secrets_key else Keyring()
    view = ClusterView(settings.cluster, version("argosy"), settings.name)
    async with EtcdClient(EtcdConfig(endpoints=settings.etcd)) as client, _Background() as background:
        store = Store(client, settings.cluster)
        cache = Cache(store)
        background.run(cache.run(), "cache")
        if await background.first(stop.wait(), cache.ready()) == 0:
            return  # told to stop while etcd is away
        blobs = BlobStore(settings.data_dir / "blobs")
        await blobs.open()
        tunnels: LogTunnels = Tunnels()
        dispatcher = DispatcherServicer(store, cache, view, tunnels)
        control = ControlServicer(store, cache, view, LogRelay(cache, view, dispatcher, tunnels), keys)

        async def store_image(image: Image) -> Image:
            return await change(store, cache, lambda snap: images.tagged(snap, image, time.time()))

        replicas = Replicas(blobs, settings.peers)
        content = ContentServicer(blobs, store_image, replicas.replicate, replicas.fetch)
        beats = BeatProtocol()
        with contextlib.closing(await _listen_for_beats(settings, beats)):
            server, health = await serve(settings.listen, settings.trusted_networks, control, dispatcher, content)
            try:
                await set_health(health, leads=False)
                log.info("listening", addresses=settings.listen)
                candidate = Candidate(id=settings.name, address=settings.advertise)
                election = Election(client, settings.cluster, candidate, ttl_s=settings.lease_ttl_s)
                background.run(election.run(Leader(client, store, cache, dispatcher, beats, keys=keys).run), "election")
                background.run(keep_room(client), "room in etcd")
                background.run(watch_leader(election, view), "leader watch")
                background.run(collect(cache, blobs), "content")
                background.run(_observe(election, view, lambda leads: set_health(health, leads=leads)), "observer")
                await background.first(stop.wait())
                log.info("stopping")
                await background.cancel()
            finally:
                await server.stop(grace=0.5)


async def _listen_for_beats(settings: ControllerSettings, beats: BeatProtocol) -> asyncio.BaseTransport:
    """Listen for the hosts' beats on the UDP port that has the number of the first TCP one."""
    tcp = next((a for a in settings.listen if not a.startswith("unix:")), "127.0.0.1:0")
    host, _, port = tcp.rpartition(":")
    try:
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: beats, local_addr=(host.strip("[]"), int(port))
        )
    except OSError as e:
        raise InvalidError(
            f"--listen {tcp}: hosts beat to the UDP port of the same number, which cannot be had: {e.strerror}"
        ) from None
    return transport


async def _observe(election: Election, view: ClusterView, tell: Callable[[bool], Awaitable[None]]) -> None:
    async for leader in election.observe():
        view.follow(leader)
        await tell(view.leads)


class _Background:
    """The process's long-running parts: if one ends, the process does."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "_Background":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cancel()

    def run(self, part: Coroutine[Any, Any, None], name: str) -> None:
        """Start a part."""
        self._tasks.append(asyncio.create_task(part, name=name))

    async def first(self, *events: Coroutine[Any, Any, Any]) -> int:
        """Wait for one of the events and return which; raise what a part died of, if one does before."""
        waiting = [asyncio.ensure_future(event) for event in events]
        try:
            done, _ = await asyncio.wait({*waiting, *self._tasks}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waiting:
                one.cancel()
        for task in self._tasks:
            if task in done:
                task.result()
                raise AssertionError(f"a part ended by itself: {task.get_name()}")
        return next(number for number, one in enumerate(waiting) if one in done)

    async def cancel(self) -> None:
        """End all parts, the last started first."""
        while self._tasks:
            task = self._tasks.pop()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
