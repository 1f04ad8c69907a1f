"""What a task's container is like: its service's spec over its image's configuration, resolved for this node. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from argosy.agent.runtime.oci_config import Bind, ContainerSpec, Limits, Tmpfs, Ulimit
from argosy.core.addresses import format_ipv4
from argosy.core.assignment import RevisionAssignment, TaskAssignment
from argosy.core.hostname import HostnameContext, expand_hostname
from argosy.core.image import ImageConfig
from argosy.core.node import Resources
from argosy.core.service import ContainerSpec as WantedContainer
from argosy.core.service import DnsConfig, Interactive
from argosy.core.service import Tmpfs as WantedTmpfs
from argosy.core.signals import parse_signal

ROUTER_ADDRESS = "169.254.1.1"
"""Where every container finds its router and its name server."""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What of this node goes into containers. `resolv_conf` is the host's, for its search domains."""

    node_id: str
    node_name: str
    hostname: str


@dataclass(frozen=True, slots=True)
class EtcFiles:
    """Contents of the files under /etc that the node writes for a container."""

    hosts: str
    resolv_conf: str
    hostname: str


def argv_of(wanted: WantedContainer, image: ImageConfig) -> tuple[str, ...]:
    """Return entrypoint and command as Compose has it: a given entrypoint clears the image's command too."""
    entrypoint = wanted.entrypoint if wanted.entrypoint_set else image.entrypoint
    if wanted.command_set:
        command = wanted.command
    else:
        command = () if wanted.entrypoint_set else image.command
    return (*entrypoint, *command)


def environment(wanted: Iterable[str], image: Iterable[str]) -> tuple[str, ...]:
    """Return the environment: the service's entries over the image's; one without "=" takes a variable away."""
    merged: dict[str, str] = {}
    for entry in (*image, *wanted):
        name, sign, value = entry.partition("=")
        if sign:
            merged[name] = value
        else:
            merged.pop(name, None)
    return tuple(f"{name}={value}" for name, value in merged.items())


def hostname_of(task: TaskAssignment, revision: RevisionAssignment, node: NodeFacts) -> str:
    """Return the container's host name: as wanted, templates filled in, else the task's id."""
    template = revision.spec.container.hostname
    if not template:
        return task.id
    context = HostnameContext(
        node_id=node.node_id,
        node_hostname=node.hostname,
        service_id=task.service_id,
        service_name=revision.service_name,
        service_labels=revision.service_labels,
        task_id=task.id,
        slot=task.slot,
    )
    return expand_hostname(template, context)


def etc_files(wanted: WantedContainer, addresses: Iterable[int], hostname: str) -> EtcFiles:
    """Return what /etc/hosts, /etc/resolv.conf and /etc/hostname say."""
    own = [format_ipv4(a) for a in addresses]
    hosts = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
    hosts += [f"{address}\t{hostname}" for address in own[:1] or ["127.0.1.1"]]
    for entry in wanted.extra_hosts:
        name, _, address = entry.partition(":") if "=" not in entry else entry.partition("=")
        hosts.append(f"{address.strip('[]')}\t{name}")
    return EtcFiles("\n".join(hosts) + "\n", resolv_conf(wanted.dns, bool(own)), hostname + "\n")


def resolv_conf(dns: DnsConfig, on_network: bool) -> str:
    """Return a resolv.conf. On a network the cluster's name server is asked alone: it asks the user's for the rest.

    Side by side the user's would never be heard: a resolver takes the first one's "no such name" for the answer.
    """
    lines = [f"nameserver {server}" for server in ((ROUTER_ADDRESS,) if on_network else dns.nameservers)]
    if dns.search:
        lines.append(f"search {' '.join(dns.search)}")
    options = [*dns.options]
    if not any(o.startswith("ndots") for o in options):
        options.append("ndots:0")
    lines.append(f"options {' '.join(options)}")
    return "\n".join(lines) + "\n"


def stop_signal_of(wanted: WantedContainer | None, image: ImageConfig | None) -> int:
    """Return the number of the signal that asks the program to end."""
    text = (wanted.stop_signal if wanted else "") or (image.stop_signal if image else "") or "SIGTERM"
    return parse_signal(text)


def container_spec(
    task: TaskAssignment,
    revision: RevisionAssignment,
    image: ImageConfig,
    *,
    id_base: int,
    hostname: str,
    files: Mapping[str, str],
    init: str,
    binds: tuple[Bind, ...] = (),
) -> ContainerSpec:
    """Return the runtime's spec. `files`: host paths of "hosts", "resolv_conf", "hostname"; `init`: the init's."""
    wanted = revision.spec.container
    return ContainerSpec(
        argv=argv_of(wanted, image),
        id_base=id_base,
        env=environment(wanted.env, image.env),
        cwd=wanted.working_dir or image.working_dir or "/",
        user=wanted.user or image.user,
        hostname=hostname,
        binds=binds,
        tmpfs=tuple(map(_tmpfs, wanted.tmpfs)),
        ulimits=tuple(Ulimit(u.name, u.soft, u.hard) for u in wanted.ulimits),
        cap_add=wanted.cap_add,
        cap_drop=wanted.cap_drop,
        sysctls=dict(wanted.sysctls),
        read_only=wanted.read_only,
        init=init if wanted.init else "",
        terminal=wanted.interactive is Interactive.TERMINAL,
        limits=limits_of(revision.spec.limits, revision.spec.reservations),
        hosts_path=files["hosts"],
        resolv_conf_path=files["resolv_conf"],
        hostname_path=files["hostname"],
    )


def _tmpfs(wanted: WantedTmpfs) -> Tmpfs:
    options = tuple(filter(None, wanted.options.split(",")))
    return Tmpfs(wanted.target, wanted.size_bytes or None, wanted.mode or 0o1777, options)


def limits_of(limits: Resources, reservations: Resources) -> Limits:
    """Return the cgroup's limits; a CPU reservation is the container's weight when the CPU is short."""
    defaults = Limits()
    return Limits(
        cpus=limits.cpus or None,
        cpu_shares=max(2, int(reservations.cpus * 1024)) if reservations.cpus else None,
        memory_bytes=limits.memory_bytes or None,
        pids=limits.pids or defaults.pids,
    )
