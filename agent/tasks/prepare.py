"""Prepares a task up to READY: image, files, container, network. Repeating it from the start is always safe."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from argosy.agent.logic import container
from argosy.agent.logic.container import NodeFacts
from argosy.agent.runtime.interface import LogTarget, Rootfs, Take
from argosy.agent.runtime.oci_config import build
from argosy.agent.tasks.console import Console
from argosy.agent.tasks.host import Host
from argosy.core.assignment import RevisionAssignment, TaskAssignment
from argosy.core.errors import ExhaustedError, RejectedError, TransientError
from argosy.core.image import Image
from argosy.core.service import DEFAULT_DRAIN_TIMEOUT_S, DEFAULT_STOP_GRACE_PERIOD_S, Interactive

INIT_PROGRAM = "/usr/bin/tini-static"
"""Debian's package `tini`: a static init for containers that ask for one."""
LAYERS_LABEL = "layers"
"""Of a container: the layers it is mounted on, so that an agent started anew keeps them."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A container that waits to be started; `pid` is its init's."""

    pid: int


def stop_grace_s(revision: RevisionAssignment | None) -> float:
    """Return how long a task may take to end after its stop signal, in seconds."""
    wanted = revision.spec.container.stop_grace_period if revision else None
    return DEFAULT_STOP_GRACE_PERIOD_S if wanted is None else wanted


def drain_timeout_s(revision: RevisionAssignment | None) -> float:
    """Return how long a task's open connections may put its stop signal off, in seconds."""
    wanted = revision.spec.drain_timeout if revision else 0.0
    return DEFAULT_DRAIN_TIMEOUT_S if wanted is None else wanted


def stop_signal(revision: RevisionAssignment | None, image: Image | None) -> int:
    """Return the number of a task's stop signal."""
    return container.stop_signal_of(revision.spec.container if revision else None, image.config if image else None)


async def prepare(host: Host, task: TaskAssignment, id_base: int, *, again: bool) -> Prepared:
    """Make the container of a task; RejectedError when this host cannot, TransientError when it may later.

    `again`: an earlier try, or an earlier agent's, may have left a part of the container.
    """
    revision = host.assignments.revision_of(task)
    if problem := host.assignments.why_unreadable(task):
        raise RejectedError(f"this node's agent is too old for the service's spec ({problem}): upgrade it")
    if revision is None:
        raise TransientError("waiting for its service's spec")
    image = host.image_of(revision)
    if image is None:
        raise TransientError(f"waiting for the image {revision.spec.container.image}")
    unpacked = await host.images.ensure(image)
    host.layers[task.id] = unpacked.layers
    async with host.preparing:
        if again:
            await host.runtime.delete(task.id)
        hostname = container.hostname_of(task, revision, NodeFacts(host.node_id, host.node_name, host.hostname))
        log_path = host.log_path(task.id)
        with _room_for_files():
            files = _write_files(host, task, revision, hostname)
            binds = host.files.prepare(task.id, revision.spec.container.files, host.assignments, id_base)
            log_path.parent.mkdir(parents=True, exist_ok=True)
        spec = container.container_spec(
            task,
            revision,
            image.config,
            id_base=id_base,
            hostname=hostname,
            files=files,
            init=INIT_PROGRAM,
            binds=binds,
        )
        settings = host.settings
        nameservers = revision.spec.container.dns.nameservers
        created = await host.runtime.create(
            task.id,
            build(spec),
            Rootfs(unpacked.layers_root, unpacked.layers, spec.read_only),
            LogTarget(str(log_path), settings.log_max_bytes, settings.log_max_files),
            {"service": task.service_id, "project": task.project, LAYERS_LABEL: " ".join(unpacked.layers)},
            wire=lambda made: host.network.attach(task.id, made.pid, task.attachments, nameservers),
            feed=_feed(host, task, revision),
        )
    return Prepared(created.pid)


@contextmanager
def _room_for_files() -> Iterator[None]:
    """Raise ExhaustedError where a file system of the host is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ExhaustedError(f"this host has no room for the task's files: {error.strerror}") from error


def _feed(host: Host, task: TaskAssignment, revision: RevisionAssignment) -> Take | None:
    interactive = revision.spec.container.interactive
    if interactive is Interactive.NO:
        return None
    return lambda fd: host.consoles.hold(task.id, Console(fd, terminal=interactive is Interactive.TERMINAL))


def _write_files(host: Host, task: TaskAssignment, revision: RevisionAssignment, hostname: str) -> dict[str, str]:
    """Write the files under /etc that the node gives a container; world readable, since its root is nobody here."""
    contents = container.etc_files(revision.spec.container, (a.address for a in task.attachments), hostname)
    directory = host.files.directory(task.id)
    directory.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name, text in (
        ("hosts", contents.hosts),
        ("resolv_conf", contents.resolv_conf),
        ("hostname", contents.hostname),
    ):
        path = directory / name
        _write(path, text)
        paths[name] = str(path)
    return paths


def _write(path: Path, text: str) -> None:
    path.write_text(text)
    os.chmod(path, 0o644)
