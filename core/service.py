"""Services: what the user wants to run. The system never edits a spec.

Defaults here are those of docs/semantics (Docker Swarm's where it has one); times are in seconds, sizes in bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from argosy.core.meta import Meta
from argosy.core.network import Attachment
from argosy.core.node import Platform, Resources


@dataclass(frozen=True, slots=True)
class HttpProbe:
    """GET `path` at the task's own address; a status from 200 to 399 is good."""

    port: int = 0
    path: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TcpProbe:
    """Good when a connection can be opened."""

    port: int = 0


@dataclass(frozen=True, slots=True)
class GrpcProbe:
    """Ask grpc.health.v1.Health/Check for `service`; good when it answers SERVING."""

    port: int = 0
    service: str = ""


@dataclass(frozen=True, slots=True)
class Healthcheck:
    """How to ask a task whether it is well: one of `test`, `http`, `tcp`, `grpc`.

    `test` is as in Compose: ["NONE"], ["CMD", …] or ["CMD-SHELL", line].
    """

    test: tuple[str, ...] = ()
    interval: float = 30.0
    timeout: float = 30.0
    retries: int = 3
    start_period: float = 0.0
    start_interval: float = 5.0
    http: HttpProbe | None = None
    tcp: TcpProbe | None = None
    grpc: GrpcProbe | None = None


@dataclass(frozen=True, slots=True)
class Ulimit:
    """A resource limit of setrlimit(2) by its Compose name ("nofile"); -1 means unlimited."""

    name: str = ""
    soft: int = 0
    hard: int = 0


@dataclass(frozen=True, slots=True)
class Tmpfs:
    """A memory file system in the container; size 0 is the kernel's default, mode 0 means 01777."""

    target: str = ""
    size_bytes: int = 0
    mode: int = 0
    options: str = ""


@dataclass(frozen=True, slots=True)
class DnsConfig:
    """What goes into the container's resolv.conf beside, or instead of, the cluster's own resolver."""

    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FileRef:
    """A config or secret as a file in the container; `id` is the version that the controller resolved `name` to.

    A relative `target` counts from / for configs and from /run/secrets for secrets; mode 0 means 0444.
    """

    secret: bool = False
    name: str = ""
    id: str = ""
    target: str = ""
    uid: int = 0
    gid: int = 0
    mode: int = 0


DEFAULT_STOP_GRACE_PERIOD_S = 10.0
DEFAULT_DRAIN_TIMEOUT_S = 10.0


class Interactive(IntEnum):
    """What a program's standard input is. One that is interactive lives as long as somebody is attached to it."""

    NO = 0
    INPUT = 1
    TERMINAL = 2


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """What runs in a task. `entrypoint_set`/`command_set` tell "not given" (the image's) from "given and empty"."""

    image: str = ""
    image_digest: str = ""
    entrypoint: tuple[str, ...] = ()
    entrypoint_set: bool = False
    command: tuple[str, ...] = ()
    command_set: bool = False
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    hostname: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str = ""
    stop_grace_period: float | None = None
    ulimits: tuple[Ulimit, ...] = ()
    read_only: bool = False
    tmpfs: tuple[Tmpfs, ...] = ()
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    init: bool | None = None
    healthcheck: Healthcheck | None = None
    extra_hosts: tuple[str, ...] = ()
    dns: DnsConfig = DnsConfig()
    sysctls: Mapping[str, str] = field(default_factory=dict)
    readiness: Healthcheck | None = None
    files: tuple[FileRef, ...] = ()
    interactive: Interactive = Interactive.NO


class RestartCondition(IntEnum):
    """When an ended task gets a successor."""

    ANY = 0
    ON_FAILURE = 1
    NONE = 2


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """`delay` doubles while failing; `max_attempts` 0 is without limit, counted within `window` (0: ever)."""

    condition: RestartCondition = RestartCondition.ANY
    delay: float = 5.0
    max_attempts: int = 0
    window: float = 0.0


@dataclass(frozen=True, slots=True)
class SpreadPreference:
    """Spread tasks evenly over the values of a node attribute, such as "node.labels.zone"."""

    spread: str = ""


@dataclass(frozen=True, slots=True)
class Affinity:
    """Run near to, or with `anti` away from, tasks of the service of that name (which may be the own one).

    `within` is the node attribute that makes two nodes one place ("node.labels.rack"); "" means the node itself.
    Required unless `preferred`.
    """

    service: str = ""
    anti: bool = False
    preferred: bool = False
    within: str = ""


@dataclass(frozen=True, slots=True)
class Placement:
    """Which nodes may run a task, and how tasks spread over them."""

    constraints: tuple[str, ...] = ()
    preferences: tuple[SpreadPreference, ...] = ()
    max_replicas_per_node: int = 0
    platforms: tuple[Platform, ...] = ()
    affinities: tuple[Affinity, ...] = ()


@dataclass(frozen=True, slots=True)
class NetworkAttachmentSpec:
    """A network that tasks join, by id, and what the service is called there beside its name.

    `address`: the one that its only task has there; "" lets the cluster choose.
    """

    target: str = ""
    aliases: tuple[str, ...] = ()
    address: str = ""


@dataclass(frozen=True, slots=True)
class HostPort:
    """A port of the node that a task wants for itself: published in host mode.

    Part of what tasks run, so that an update moves it with them. `port` 0 lets the cluster choose; `target` 0: it is
    kept for the task and leads nowhere.
    """

    protocol: str = "tcp"
    port: int = 0
    target: int = 0
    host_ip: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """Everything that makes a task; two equal ones need no update."""

    container: ContainerSpec = ContainerSpec()
    limits: Resources = Resources()
    reservations: Resources = Resources()
    restart: RestartPolicy = RestartPolicy()
    placement: Placement = Placement()
    networks: tuple[NetworkAttachmentSpec, ...] = ()
    force_update: int = 0
    host_ports: tuple[HostPort, ...] = ()
    drain_timeout: float | None = None
    weight: int = 0


class ServiceMode(IntEnum):
    """REPLICATED: so many tasks; GLOBAL: one on every eligible node; the job modes: the same, run to completion."""

    REPLICATED = 0
    GLOBAL = 1
    REPLICATED_JOB = 2
    GLOBAL_JOB = 3


JOB_MODES = frozenset({ServiceMode.REPLICATED_JOB, ServiceMode.GLOBAL_JOB})


class FailureAction(IntEnum):
    """What an update does when too many of its tasks fail."""

    PAUSE = 0
    CONTINUE = 1
    ROLLBACK = 2


class UpdateOrder(IntEnum):
    """Whether the old task stops before the new one starts, or after."""

    STOP_FIRST = 0
    START_FIRST = 1


@dataclass(frozen=True, slots=True)
class UpdateConfig:
    """How slots move to a new revision; parallelism 0 means all at once, progress_deadline 0 never."""

    parallelism: int = 1
    delay: float = 0.0
    failure_action: FailureAction = FailureAction.PAUSE
    monitor: float = 5.0
    max_failure_ratio: float = 0.0
    order: UpdateOrder = UpdateOrder.STOP_FIRST
    progress_deadline: float = 600.0


class Overlap(IntEnum):
    """What happens when a job's next run is due while the last one goes on: both run, none is begun, or the new one."""

    ALLOW = 0
    FORBID = 1
    REPLACE = 2


@dataclass(frozen=True, slots=True)
class Cron:
    """When a job runs: crontab(5) fields or @daily and the like, in an IANA time zone ("": UTC)."""

    schedule: str = ""
    time_zone: str = ""
    overlap: Overlap = Overlap.ALLOW


@dataclass(frozen=True, slots=True)
class JobSpec:
    """How often a job's program has to complete, and how many run at once (0: all)."""

    total_completions: int = 1
    max_concurrent: int = 0
    cron: Cron | None = None


class DependencyCondition(IntEnum):
    """What a dependency must have reached."""

    STARTED = 0
    HEALTHY = 1
    COMPLETED = 2


@dataclass(frozen=True, slots=True)
class Dependency:
    """A service, by name, that is waited for; see proto/argosy/v1/types.proto for the flags."""

    service: str = ""
    condition: DependencyCondition = DependencyCondition.STARTED
    optional: bool = False
    restart: bool = False


class Disconnect(IntEnum):
    """What becomes of a task whose node is cut off: replaced, waited for, or ended there first."""

    REPLACE = 0
    KEEP = 1
    FENCE = 2


class EndpointMode(IntEnum):
    """What the service's name stands for: one virtual address, or the tasks' own."""

    VIP = 0
    DNSRR = 1


@dataclass(frozen=True, slots=True)
class PortSpec:
    """A port that every node answers on (ingress mode); `published` 0 lets the cluster choose.

    For host mode there is HostPort.
    """

    name: str = ""
    protocol: str = "tcp"
    target: int = 0
    published: int = 0
    host_ip: str = ""


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """How the service is reached. With `client_affinity` a client's address keeps its task."""

    mode: EndpointMode = EndpointMode.VIP
    client_affinity: bool = False
    ports: tuple[PortSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """What the user declared."""

    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    mode: ServiceMode = ServiceMode.REPLICATED
    replicas: int = 1
    task: TaskSpec = TaskSpec()
    update: UpdateConfig = UpdateConfig()
    rollback: UpdateConfig = UpdateConfig()
    job: JobSpec | None = None
    stopped: bool = False
    max_unavailable: str = ""
    canary: int = 0
    auto_promote: bool = False
    disconnect: Disconnect = Disconnect.REPLACE
    depends_on: tuple[Dependency, ...] = ()
    endpoint: EndpointSpec = EndpointSpec()


PAUSED_BY_HAND = "paused by hand"
ROLLED_BACK_BY_HAND = "rolled back by hand"
"""The message of an update that a person paused, and of a rollback that one began; any other says what failed."""


class UpdateState(IntEnum):
    """Where the latest update of a service stands."""

    NONE = 0
    UPDATING = 1
    PAUSED = 2
    COMPLETED = 3
    ROLLBACK_STARTED = 4
    ROLLBACK_PAUSED = 5
    ROLLBACK_COMPLETED = 6


@dataclass(frozen=True, slots=True)
class UpdateStatus:
    """Progress of the latest update, for people and for the updater after a failover.

    `ready`: its canaries have done well and it waits for a person; `promoted`: it went on to the other tasks.
    """

    state: UpdateState = UpdateState.NONE
    started_at: float = 0.0
    completed_at: float = 0.0
    message: str = ""
    promoted: bool = False
    resumed_at: float = 0.0
    ready: bool = False


class JobState(IntEnum):
    """How the run of a job that was started last goes."""

    NONE = 0
    RUNNING = 1
    COMPLETE = 2
    FAILED = 3


@dataclass(frozen=True, slots=True)
class JobStatus:
    """The run of a job that was started last, and when cron starts the next one (0: never)."""

    iteration: int = 0
    started_at: float = 0.0
    next_at: float = 0.0
    message: str = ""
    state: JobState = JobState.NONE
    finished_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Service:
    """A declared service. `spec` is the user's; the rest is the controller's.

    `ports` are those of the spec that are granted, with their numbers; `port_problems` say why others are not.
    `address_problems` say where it has no virtual address: its name stands for its tasks there.
    """

    meta: Meta = Meta()
    spec: ServiceSpec = ServiceSpec()
    revision: int = 0
    previous_revision: int = 0
    update: UpdateStatus = UpdateStatus()
    removing: bool = False
    job: JobStatus = JobStatus()
    virtual_addresses: tuple[Attachment, ...] = ()
    ports: tuple[PortSpec, ...] = ()
    port_problems: tuple[str, ...] = ()
    address_problems: tuple[str, ...] = ()
    schema: int = 1


@dataclass(frozen=True, slots=True)
class Revision:
    """One version of a service's spec, kept for the tasks that run it and for rollback; never changed.

    `previous`: the last one before it that came through, 0 for none; of a rollback, what its target has there.
    """

    meta: Meta = Meta()
    service_id: str = ""
    number: int = 0
    spec: ServiceSpec = ServiceSpec()
    previous: int = 0
    schema: int = 1


def revision_id(service_id: str, number: int) -> str:
    """Return the id of a service's revision."""
    return f"{service_id}.{number}"
