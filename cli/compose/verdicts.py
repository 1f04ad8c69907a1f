"""What becomes of each key of the Compose Specification: the one table, from which docs/compose.md is generated.

    python -m argosy.cli.compose.verdicts > docs/compose.md

A key's path has `*` for names that the user chooses; lists leave no trace in it (`services.*.ports.target`). What is
below a key that is refused or noticed as a whole shares its verdict: `below` names it, so that a misspelt key is
found there as well. tests/unit/compose/test_verdicts.py holds the table against the specification's own list of keys
and wants an end-to-end test for each honoured key (most of them in tests/e2e/test_compose_keys.py).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from typing import Final


class Verdict(Enum):
    """HONOURED: as the specification says. MAPPED: becomes something else of ours. NOTICED: without effect, and the
    user is told. REFUSED: an error that names the alternative. SYNTAX: consumed while files are read."""

    HONOURED = "honoured"
    MAPPED = "mapped"
    NOTICED = "noticed"
    REFUSED = "refused"
    SYNTAX = "syntax"


@dataclass(frozen=True, slots=True)
class Row:
    """`text`: what it becomes, or what is said and what to do instead. `test`: sees the effect inside a container.

    `values`: the verdict concerns some values only, as the text says; the reader of the key decides.
    """

    key: str
    verdict: Verdict
    text: str = ""
    test: str = ""
    below: tuple[str, ...] = ()
    values: bool = False


def _honoured(key: str, test: str, text: str = "") -> Row:
    return Row(key, Verdict.HONOURED, text, test)


def _mapped(key: str, text: str, test: str = "") -> Row:
    return Row(key, Verdict.MAPPED, text, test)


def _noticed(key: str, text: str, *below: str, values: bool = False) -> Row:
    return Row(key, Verdict.NOTICED, text, below=below, values=values)


def _refused(key: str, text: str, *below: str, values: bool = False) -> Row:
    return Row(key, Verdict.REFUSED, text, below=below, values=values)


def _syntax(key: str, text: str) -> Row:
    return Row(key, Verdict.SYNTAX, text)


def _ours(key: str, test: str, text: str) -> Row:
    """Return the row of a key below a service's `x-argosy`."""
    return Row(f"services.*.{EXTENSION}.{key}", Verdict.HONOURED, text, test)


def _probe(key: str, test: str, text: str) -> tuple[Row, ...]:
    """Return the rows of a check below a service's `x-argosy`."""
    ways = {
        "http": "GET; an answer from 200 to 399 is good",
        "tcp": "good when a connection can be opened",
        "grpc": "the standard health service of gRPC",
        "test": "as in 'healthcheck'",
    }
    below = {
        **ways,
        **dict.fromkeys(("http.port", "http.path", "http.headers", "tcp.port", "grpc.port", "grpc.service"), ""),
        **dict.fromkeys(("interval", "retries", "start_interval", "start_period", "timeout"), "as in 'healthcheck'"),
    }
    return (_ours(key, test, text), *(_ours(f"{key}.{name}", test, said) for name, said in below.items()))


EXTENSION: Final = "x-argosy"
"""Where a service says what the specification has no word for. Other extensions (x-…) are the user's own."""

_LATER_VOLUMES: Final = "volumes are not there yet; keep the data in the image, or use 'tmpfs' for what may be lost"
_IO: Final = "limits of block IO are not there yet; limit cpus, memory and pids under 'deploy.resources.limits'"
_PLACE: Final = "reserve whole CPUs with 'deploy.resources.reservations.cpus' instead"
_ISOLATED: Final = "every container keeps a namespace of its own; let the programs talk over a network instead"
_ADDRESSES: Final = "addresses are given by the cluster; reach the service by its name"
_HOOK_KEYS: Final = ("command", "user", "privileged", "working_dir", "environment")
_DEVICE_KEYS: Final = ("capabilities", "count", "device_ids", "driver", "options")


def _files(kind: str, where: str) -> tuple[Row, ...]:
    """Return the rows of a service's configs or secrets."""
    test, key = f"test_{kind}", f"services.*.{kind}"
    return (
        _honoured(key, test, f"read-only files, by default at {where}; a new content updates the service"),
        *(_honoured(f"{key}.{name}", test) for name in ("source", "target", "uid", "gid")),
        _honoured(f"{key}.mode", test, "0444 by default"),
    )


TABLE: Final[tuple[Row, ...]] = (
    # ---- the file
    _noticed("version", "the specification has no versions any more; it is ignored"),
    _mapped("name", "the stack's name, when none is given on the command line"),
    _syntax("include", "other file sets, each with its own directory and .env"),
    _syntax("include.path", "the file, or several that are merged"),
    _syntax("include.env_file", "defaults for the variables of the included files"),
    _syntax("include.project_directory", "what the relative paths of the included files are relative to"),
    _refused(
        "models",
        "language models are not run here; declare the server of one as a service",
        *("*", "*.name", "*.model", "*.context_size", "*.runtime_flags"),
    ),
    # ---- services
    _syntax("services", "what the stack consists of"),
    _syntax("services.*", "becomes the service STACK_NAME, known as NAME on its networks"),
    _noticed("services.*.annotations", "there is nothing that reads annotations here; use 'labels'"),
    _noticed("services.*.attach", "output is kept in any case; see 'argosy logs'"),
    _noticed(
        "services.*.build",
        "nothing is built in the cluster: the image of 'image' is used as it was imported (argosy image import)",
        *("context", "dockerfile", "dockerfile_inline", "entitlements", "args", "ssh", "labels", "cache_from"),
        *("cache_to", "no_cache", "additional_contexts", "network", "pull", "target", "shm_size", "extra_hosts"),
        *("isolation", "privileged", "secrets", "secrets.source", "secrets.target", "secrets.uid", "secrets.gid"),
        *("secrets.mode", "tags", "ulimits", "ulimits.*", "ulimits.*.hard", "ulimits.*.soft", "platforms"),
    ),
    _refused(
        "services.*.blkio_config",
        _IO,
        *("device_read_bps", "device_read_bps.path", "device_read_bps.rate"),
        *("device_read_iops", "device_read_iops.path", "device_read_iops.rate"),
        *("device_write_bps", "device_write_bps.path", "device_write_bps.rate"),
        *("device_write_iops", "device_write_iops.path", "device_write_iops.rate"),
        *("weight", "weight_device", "weight_device.path", "weight_device.weight"),
    ),
    _honoured("services.*.cap_add", "test_cap_add"),
    _honoured("services.*.cap_drop", "test_cap_drop"),
    _refused(
        "services.*.cgroup", "'private' is what every container has; 'host' is refused: " + _ISOLATED, values=True
    ),
    _refused("services.*.cgroup_parent", "cgroups belong to the agent; limit with 'deploy.resources.limits'"),
    _honoured("services.*.command", "test_command", "a text is split as a shell would split it; no shell runs"),
    *_files("configs", "/NAME"),
    _noticed("services.*.container_name", "tasks are many; each is called STACK_NAME.SLOT, and the service NAME"),
    _refused("services.*.cpu_count", "it exists on Windows only; use 'deploy.resources.limits.cpus'"),
    _refused("services.*.cpu_percent", "it exists on Windows only; use 'deploy.resources.limits.cpus'"),
    _mapped("services.*.cpu_period", "with cpu_quota: deploy.resources.limits.cpus", "test_older_resource_keys"),
    _mapped(
        "services.*.cpu_quota", "quota / period (100 ms): deploy.resources.limits.cpus", "test_older_resource_keys"
    ),
    _refused("services.*.cpu_rt_period", "real-time scheduling is not offered; " + _PLACE),
    _refused("services.*.cpu_rt_runtime", "real-time scheduling is not offered; " + _PLACE),
    _refused("services.*.cpu_shares", "relative weights mean nothing across hosts; " + _PLACE),
    _mapped("services.*.cpus", "deploy.resources.limits.cpus", "test_older_resource_keys"),
    _refused("services.*.cpuset", "hosts differ in their CPUs; " + _PLACE),
    _refused("services.*.credential_spec", "it exists on Windows only; remove it", "config", "file", "registry"),
    _honoured(
        "services.*.depends_on",
        "test_depends_on",
        "held at the first deploy, when both change in one deploy, and after hosts restart, one or all (docs/jobs.md)",
    ),
    _honoured("services.*.depends_on.*", "test_depends_on"),
    _honoured("services.*.depends_on.*.condition", "test_depends_on", "one task that has reached it is enough"),
    _honoured("services.*.depends_on.*.required", "test_depends_on"),
    _honoured("services.*.depends_on.*.restart", "test_depends_on_restart", "when a deploy changes the other service"),
    _syntax("services.*.deploy", "see its keys"),
    _honoured(
        "services.*.deploy.endpoint_mode",
        "test_deploy_endpoint_mode",
        "vip: the name is one address, whose connections are spread over the tasks; dnsrr: all the tasks' addresses",
    ),
    _honoured("services.*.deploy.labels", "test_deploy_labels", "labels of the service, not of its containers"),
    _honoured("services.*.deploy.mode", "test_deploy_mode", "replicated, global, replicated-job or global-job"),
    _syntax("services.*.deploy.placement", "see its keys"),
    _honoured("services.*.deploy.placement.constraints", "test_deploy_placement_constraints"),
    _honoured("services.*.deploy.placement.max_replicas_per_node", "test_deploy_placement_max_replicas_per_node"),
    _syntax("services.*.deploy.placement.preferences", "a list of 'spread'"),
    _honoured("services.*.deploy.placement.preferences.spread", "test_deploy_placement_preferences"),
    _honoured("services.*.deploy.replicas", "test_deploy_replicas", "of a job: its completions"),
    _syntax("services.*.deploy.resources", "see its keys"),
    _syntax("services.*.deploy.resources.limits", "see its keys"),
    _honoured("services.*.deploy.resources.limits.cpus", "test_deploy_resources_limits_cpus"),
    _honoured("services.*.deploy.resources.limits.memory", "test_deploy_resources_limits_memory"),
    _honoured("services.*.deploy.resources.limits.pids", "test_deploy_resources_limits_pids"),
    _syntax("services.*.deploy.resources.reservations", "see its keys"),
    _honoured("services.*.deploy.resources.reservations.cpus", "test_deploy_resources_reservations_cpus"),
    _refused(
        "services.*.deploy.resources.reservations.devices",
        "devices are not scheduled yet; label the nodes that have them and use a constraint",
        *_DEVICE_KEYS,
    ),
    _refused(
        "services.*.deploy.resources.reservations.generic_resources",
        "resources of your own are not counted yet; label the nodes that have them and use a constraint",
        *("discrete_resource_spec", "discrete_resource_spec.kind", "discrete_resource_spec.value"),
    ),
    _honoured("services.*.deploy.resources.reservations.memory", "test_deploy_resources_reservations_memory"),
    _syntax("services.*.deploy.restart_policy", "see its keys"),
    _honoured("services.*.deploy.restart_policy.condition", "test_deploy_restart_policy"),
    _honoured("services.*.deploy.restart_policy.delay", "test_deploy_restart_policy", "doubles while a task fails"),
    _honoured(
        "services.*.deploy.restart_policy.max_attempts",
        "test_deploy_restart_policy",
        "a notice where it cannot have an effect",
    ),
    _honoured(
        "services.*.deploy.restart_policy.window",
        "test_deploy_restart_policy",
        "a notice where it cannot have an effect",
    ),
    *(
        _honoured(f"services.*.deploy.{which}.{key}", f"test_deploy_{which}")
        for which in ("rollback_config", "update_config")
        for key in ("delay", "failure_action", "max_failure_ratio", "monitor", "order", "parallelism")
    ),
    _syntax("services.*.deploy.rollback_config", "see its keys"),
    _syntax("services.*.deploy.update_config", "see its keys"),
    _noticed(
        "services.*.develop",
        "it is for working on one machine; deploy again to roll out a change",
        *("watch", "watch.ignore", "watch.include", "watch.path", "watch.action", "watch.target", "watch.exec"),
        *(f"watch.exec.{key}" for key in _HOOK_KEYS),
    ),
    _refused(
        "services.*.device_cgroup_rules", "containers get no devices yet; label the nodes that have one and wait for it"
    ),
    _refused(
        "services.*.devices", "containers get no devices yet; see 'argosy node'", "source", "target", "permissions"
    ),
    _honoured(
        "services.*.dns", "test_dns", "asked for what is no name of the cluster's, instead of the host's servers"
    ),
    _honoured("services.*.dns_opt", "test_dns"),
    _honoured("services.*.dns_search", "test_dns"),
    _refused("services.*.domainname", "write the whole name in 'hostname'"),
    _honoured("services.*.entrypoint", "test_entrypoint", "without 'command' the image's command is not used either"),
    _honoured("services.*.env_file", "test_env_file"),
    _honoured("services.*.env_file.format", "test_env_file", "'raw', or the specification's own"),
    _honoured("services.*.env_file.path", "test_env_file"),
    _honoured("services.*.env_file.required", "test_env_file"),
    _honoured("services.*.environment", "test_environment"),
    _noticed("services.*.expose", "within a network every port is reachable"),
    _syntax("services.*.extends", "another service of this or another file, then overridden by this one"),
    _syntax("services.*.extends.file", "the other file, relative to this one"),
    _syntax("services.*.extends.service", "the service that is extended"),
    _refused("services.*.external_links", "join the other service's network (networks: external: true), use its name"),
    _honoured("services.*.extra_hosts", "test_extra_hosts"),
    _refused("services.*.gpus", "devices are not scheduled yet; label the nodes that have them", *_DEVICE_KEYS),
    _refused(
        "services.*.group_add", "further groups are not given yet; write 'user: UID:GID' or set them in the image"
    ),
    _syntax("services.*.healthcheck", "see its keys"),
    _honoured("services.*.healthcheck.disable", "test_healthcheck_disable"),
    *(
        _honoured(f"services.*.healthcheck.{key}", "test_healthcheck", "a notice where nothing asks")
        for key in ("interval", "retries", "start_interval", "start_period")
    ),
    _honoured("services.*.healthcheck.test", "test_healthcheck"),
    _honoured("services.*.healthcheck.timeout", "test_healthcheck", "a notice where nothing asks"),
    _honoured("services.*.hostname", "test_hostname", "templates such as {{.Task.Slot}} tell replicas apart"),
    _honoured("services.*.image", "test_image"),
    _honoured("services.*.init", "test_init"),
    _refused("services.*.ipc", "'private' and 'shareable' are what a container has; " + _ISOLATED, values=True),
    _refused("services.*.isolation", "it exists on Windows only; only 'default' is taken", values=True),
    _mapped("services.*.label_file", "labels, below those of 'labels'", "test_label_file"),
    _honoured("services.*.labels", "test_labels"),
    _refused(
        "services.*.links",
        "services of a network find each other by name; a link under another name is refused: use "
        "'networks.NETWORK.aliases' of the other service",
        values=True,
    ),
    _noticed("services.*.logging", "output is kept by the node and shown by 'argosy logs'", "driver", "options"),
    _refused("services.*.mac_address", _ADDRESSES),
    _mapped("services.*.mem_limit", "deploy.resources.limits.memory", "test_older_resource_keys"),
    _mapped("services.*.mem_reservation", "deploy.resources.reservations.memory", "test_older_resource_keys"),
    _refused("services.*.mem_swappiness", "swapping is the host's business; limit with 'mem_limit'"),
    _refused("services.*.memswap_limit", "swapping is the host's business; limit with 'mem_limit'"),
    _refused(
        "services.*.models",
        "language models are not run here; declare the server of one as a service",
        "*",
        "*.endpoint_var",
    ),
    _refused(
        "services.*.network_mode",
        "'bridge' becomes the stack's default network; other modes would leave the isolation: use 'networks' "
        "(for 'none' one with 'internal: true')",
        values=True,
    ),
    _honoured("services.*.networks", "test_networks"),
    _honoured("services.*.networks.*", "test_networks"),
    _honoured("services.*.networks.*.aliases", "test_networks_aliases"),
    _refused("services.*.networks.*.driver_opts", "attachments have no options; remove it"),
    _refused(
        "services.*.networks.*.gw_priority", "the default route cannot be chosen yet; join one network with a way out"
    ),
    _refused("services.*.networks.*.interface_name", "links are called eth0, eth1 … in the order of the networks"),
    _mapped(
        "services.*.networks.*.ipv4_address",
        "the address of the service's only replica; from the network's 'ip_range' and its first /27 none can be had",
        "test_static_address",
    ),
    _refused("services.*.networks.*.ipv6_address", _ADDRESSES),
    _refused("services.*.networks.*.link_local_ips", _ADDRESSES),
    _refused("services.*.networks.*.mac_address", _ADDRESSES),
    _noticed("services.*.networks.*.priority", "networks are joined in the order of the file"),
    _refused("services.*.oom_kill_disable", "a container over its memory limit is ended; raise 'mem_limit'"),
    _refused("services.*.oom_score_adj", "the host decides what it ends first; reserve memory with 'mem_reservation'"),
    _refused("services.*.pid", "the processes of a host or of another container stay hidden; " + _ISOLATED),
    _mapped("services.*.pids_limit", "deploy.resources.limits.pids", "test_older_resource_keys"),
    _honoured("services.*.platform", "test_platform", "only nodes of this platform run it"),
    _honoured("services.*.ports", "test_ports", "on every node, with the client's address kept (docs/ports.md)"),
    _noticed("services.*.ports.app_protocol", "packets are passed on as they are, whatever they carry"),
    _honoured("services.*.ports.host_ip", "test_ports_of_one_address", "an IPv4 address; where a host has it"),
    _honoured("services.*.ports.mode", "test_ports_in_host_mode", "'host': on the nodes of its tasks, one task each"),
    _honoured("services.*.ports.name", "test_ports"),
    _honoured("services.*.ports.protocol", "test_ports", "tcp or udp"),
    _honoured(
        "services.*.ports.published",
        "test_ports",
        "without it a number from 30000 to 32767 is chosen; a range for one 'target' is refused",
    ),
    _honoured("services.*.ports.target", "test_ports"),
    _refused("services.*.post_start", "hooks are not run; let the entrypoint do it", *_HOOK_KEYS),
    _refused("services.*.pre_stop", "hooks are not run; let the program act on 'stop_signal'", *_HOOK_KEYS),
    _refused("services.*.privileged", "no container gets the host's rights; add what it needs with 'cap_add'"),
    _syntax("services.*.profiles", "the service is left out unless one of them is active (--profile)"),
    _refused(
        "services.*.provider",
        "nothing outside the cluster is run; declare what it provides as a service",
        *("type", "options"),
    ),
    _noticed("services.*.pull_policy", "an image's name is resolved at each deploy, and nodes fetch what they lack"),
    _noticed("services.*.pull_refresh_after", "an image's name is resolved at each deploy"),
    _honoured("services.*.read_only", "test_read_only"),
    _mapped("services.*.restart", "deploy.restart_policy, which wins over it", "test_restart"),
    _refused("services.*.runtime", "the runtime is chosen for each node (argosy agent --runtime)"),
    _honoured("services.*.scale", "test_scale", "as deploy.replicas"),
    *_files("secrets", "/run/secrets/NAME, in memory only"),
    _refused(
        "services.*.security_opt",
        "'no-new-privileges' is always on; nothing else can be set: seccomp and capabilities are the cluster's",
        values=True,
    ),
    _mapped("services.*.shm_size", "a tmpfs of that size at /dev/shm", "test_shm_size"),
    _noticed("services.*.stdin_open", "nobody is attached to a service: its standard input is empty"),
    _honoured("services.*.stop_grace_period", "test_stop_grace_period"),
    _honoured("services.*.stop_signal", "test_stop_signal"),
    _refused("services.*.storage_opt", "a container's file system has no limit of its own; use 'tmpfs' with a size"),
    _honoured("services.*.sysctls", "test_sysctls"),
    _honoured("services.*.tmpfs", "test_tmpfs"),
    _noticed(
        "services.*.tty", "a service has no terminal: a shell as the command ends at once, 'sleep infinity' stays"
    ),
    _honoured("services.*.ulimits", "test_ulimits"),
    _honoured("services.*.ulimits.*", "test_ulimits"),
    _honoured("services.*.ulimits.*.hard", "test_ulimits"),
    _honoured("services.*.ulimits.*.soft", "test_ulimits"),
    _refused("services.*.use_api_socket", "containers are given no way to command the cluster; remove it"),
    _honoured("services.*.user", "test_user"),
    _refused("services.*.userns_mode", _ISOLATED, values=True),
    _refused("services.*.uts", _ISOLATED),
    _refused(
        "services.*.volumes",
        "type 'tmpfs' becomes 'tmpfs'; with `argosy deploy --ship-files` a bind of a file becomes a config; "
        + _LATER_VOLUMES,
        *("type", "source", "target", "read_only", "consistency"),
        *("bind", "bind.propagation", "bind.create_host_path", "bind.recursive", "bind.selinux"),
        *("volume", "volume.labels", "volume.nocopy", "volume.subpath", "tmpfs", "tmpfs.size", "tmpfs.mode"),
        *("image", "image.subpath"),
        values=True,
    ),
    _refused("services.*.volumes_from", _LATER_VOLUMES),
    _honoured("services.*.working_dir", "test_working_dir"),
    # ---- services: what the specification has no word for (one line a key; read by extension.py)
    _syntax(f"services.*.{EXTENSION}", "what the specification has no word for; its keys are ours"),
    _ours("affinity", "test_argosy_affinity", "services whose tasks it runs beside: names, or mappings"),
    _ours("affinity.preferred", "test_argosy_affinity", "only if it can be; otherwise a task waits"),
    _ours("affinity.service", "test_argosy_affinity", "its name in the file, or STACK_NAME of another stack"),
    _ours("affinity.within", "test_argosy_affinity", "how near: node.labels.rack; the same node by default"),
    _ours("anti_affinity", "test_argosy_anti_affinity", "services whose tasks it keeps away from; may be the own one"),
    _ours("anti_affinity.preferred", "test_argosy_anti_affinity", "as of 'affinity'"),
    _ours("anti_affinity.service", "test_argosy_anti_affinity", "as of 'affinity'"),
    _ours("anti_affinity.within", "test_argosy_anti_affinity", "as of 'affinity'"),
    _ours("auto_promote", "test_argosy_canary", "the update goes on by itself once the canaries did well"),
    _ours("canary", "test_argosy_canary", "an update first tries so many new tasks beside the old ones"),
    _ours("client_affinity", "test_argosy_client_affinity", "a client's address keeps its task while that is there"),
    _ours("cron", "test_argosy_cron", "when a job runs"),
    _ours("cron.overlap", "test_argosy_cron", "the last run still goes on: allow (both), forbid or replace"),
    _ours("cron.schedule", "test_argosy_cron", "five fields of crontab(5), or @daily and the like"),
    _ours("cron.time_zone", "test_argosy_cron", "an IANA name; UTC by default"),
    _ours("disconnect", "test_argosy_disconnect", "tasks of a node that is cut off: replace, keep or fence"),
    _ours("drain_timeout", "test_argosy_drain_timeout", "how long requests may take to end before a task is stopped"),
    _ours("job", "test_argosy_job", "of 'mode: replicated-job' and 'global-job'"),
    _ours("job.max_concurrent", "test_argosy_job", "so many tasks of a run at once; all by default"),
    _ours("job.total_completions", "test_argosy_job", "as deploy.replicas: how often it has to end with 0"),
    *_probe("liveness", "test_argosy_liveness", "'healthcheck' with more ways to ask: what fails it is restarted"),
    _ours("max_unavailable", "test_argosy_max_unavailable", "so many tasks (2), or such a share (25%), may be missing"),
    _ours("progress_deadline", "test_argosy_progress_deadline", "an update without progress for so long has failed"),
    *_probe("readiness", "test_argosy_readiness", "what fails it gets no requests until it passes again"),
    _ours("weight", "test_argosy_weight", "the share of requests that a task gets; 1 by default"),
    # ---- networks
    _syntax("networks", "what services may join; without any they join the stack's default network"),
    _syntax("networks.*", "becomes the network STACK_NAME, if a service joins it"),
    _honoured(
        "networks.*.attachable", "test_network_settings", "a mark for people: single containers may join any network"
    ),
    _mapped("networks.*.driver", "'overlay', 'bridge' and 'default' are the overlay; no other driver", "test_networks"),
    _honoured(
        "networks.*.driver_opts",
        "test_nothing_that_tasks_say_is_on_the_wire",
        "'encrypted: \"true\"' sends what goes from host to host through WireGuard tunnels; "
        "'com.docker.network.driver.mtu' is the containers' links'; there is no other option",
    ),
    _refused("networks.*.enable_ipv4", "'true' is what networks have; without IPv4 there is none", values=True),
    _refused("networks.*.enable_ipv6", "networks have IPv4 only; 'false' is taken", values=True),
    _honoured("networks.*.external", "test_network_external", "the network must exist (argosy network create)"),
    _mapped("networks.*.external.name", "networks.*.name", "test_network_external"),
    _honoured("networks.*.internal", "test_network_internal"),
    _syntax("networks.*.ipam", "see its keys"),
    _syntax("networks.*.ipam.config", "at most one block"),
    _refused(
        "networks.*.ipam.config.aux_addresses",
        "nothing outside the cluster has an address on an overlay; to keep addresses for services, give an 'ip_range'",
    ),
    _refused("networks.*.ipam.config.gateway", "the gateway is 169.254.1.1 in every network; remove it"),
    _honoured(
        "networks.*.ipam.config.ip_range",
        "test_static_address",
        "at least a /27; the rest of the subnet, but for its first /27, is for 'ipv4_address'",
    ),
    _honoured("networks.*.ipam.config.subnet", "test_network_subnet"),
    _refused("networks.*.ipam.driver", "only 'default' is taken: addresses are given by the cluster", values=True),
    _refused("networks.*.ipam.options", "the cluster's address management has none; remove them"),
    _honoured("networks.*.labels", "test_network_settings"),
    _honoured("networks.*.name", "test_network_settings", "as it is, without the stack's name"),
    # ---- what comes later
    _refused(
        "volumes",
        _LATER_VOLUMES,
        *("*", "*.name", "*.driver", "*.driver_opts", "*.external", "*.external.name", "*.labels"),
    ),
    # ---- configs and secrets
    _syntax("configs", "files for containers, in versions that the cluster keeps"),
    _syntax("configs.*", "becomes the config STACK_NAME, if a service uses it"),
    _honoured("configs.*.content", "test_configs"),
    _honoured("configs.*.environment", "test_configs", "the value that the variable has where the command runs"),
    _honoured("configs.*.external", "test_configs", "the config must exist (argosy config create)"),
    _mapped("configs.*.external.name", "configs.*.name", "test_configs"),
    _honoured("configs.*.file", "test_configs", "at most 1000 KiB"),
    _honoured("configs.*.labels", "test_configs"),
    _honoured("configs.*.name", "test_configs", "as it is, without the stack's name"),
    _refused("configs.*.template_driver", "what a file holds is not filled in; use variables in 'content'"),
    _syntax("secrets", "files for containers that nobody else sees"),
    _syntax("secrets.*", "becomes the secret STACK_NAME, if a service uses it"),
    _refused("secrets.*.driver", "secrets are kept by the cluster itself; remove it"),
    _refused("secrets.*.driver_opts", "secrets are kept by the cluster itself; remove it"),
    _honoured("secrets.*.environment", "test_secrets", "the value that the variable has where the command runs"),
    _honoured("secrets.*.external", "test_secrets", "the secret must exist (argosy secret create)"),
    _mapped("secrets.*.external.name", "secrets.*.name", "test_secrets"),
    _honoured("secrets.*.file", "test_secrets", "at most 500 KiB"),
    _honoured("secrets.*.labels", "test_secrets"),
    _honoured("secrets.*.name", "test_secrets", "as it is, without the stack's name"),
    _refused("secrets.*.template_driver", "what a file holds is not filled in"),
)


@dataclass(slots=True)
class Branch:
    """A key in the tree of known keys. No children: whatever is below is the user's own (labels, variables …)."""

    row: Row | None = None
    children: dict[str, "Branch"] = field(default_factory=dict)

    def child(self, key: str) -> "Branch | None":
        """Return what is known of a key below this one."""
        return self.children.get(key) or self.children.get("*")


@cache
def key_tree() -> Branch:
    """Return the table as a tree."""
    root = Branch()
    for key, row in all_keys():
        branch = root
        for part in key.split("."):
            branch = branch.children.setdefault(part, Branch())
        branch.row = row
    return root


def all_keys() -> Iterator[tuple[str, Row]]:
    """Yield each known key with the row that decides it."""
    for row in TABLE:
        yield row.key, row
        for name in row.below:
            yield f"{row.key}.{name}", row


def document() -> str:
    """Return docs/compose.md."""
    lines = [
        "# Compose files: what becomes of each key",
        "",
        "Generated from `cli/compose/verdicts.py`; do not edit. `*` stands for a name of yours. A key that is not",
        "listed is an error with a suggestion; `x-` extensions are ignored, but for `x-argosy`, whose keys are ours.",
        "",
        "- **honoured**: as the Compose Specification says",
        "- **mapped**: becomes something else, with the same effect",
        "- **noticed**: has no effect, and `argosy deploy` says so",
        "- **refused**: an error with file, line, key and what to do instead",
        "- **syntax**: decides how the files are read",
        "",
    ]
    sections = [
        ("The file", ""),
        ("Services", "services"),
        ("Networks", "networks"),
        ("Configs and secrets", "configs"),
        ("Not there yet", "-"),
    ]
    for title, first in sections:
        rows = [row for row in TABLE if _section(row.key) == first]
        lines += [f"## {title}", "", "| key | verdict | what happens | seen by |", "|---|---|---|---|"]
        lines += [
            f"| `{row.key}` | {row.verdict.value}{' (some values)' if row.values else ''} | {row.text} | "
            f"{f'`{row.test}`' if row.test else ''} |"
            for row in sorted(rows, key=lambda row: row.key)
        ]
        lines.append("")
    return "\n".join(lines)


def _section(key: str) -> str:
    first = key.partition(".")[0]
    if first in ("services", "networks"):
        return first
    if first in ("configs", "secrets"):
        return "configs"
    return "-" if first in ("volumes", "models") else ""


if __name__ == "__main__":
    print(document(), end="")
