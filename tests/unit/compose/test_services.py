# ruff: noqa: E501 (a case is a line)
"""Each honoured or mapped key of a service, in its forms, to the core's spec."""

from collections.abc import Callable
from typing import Any

import pytest

from argosy.core.node import Platform, Resources
from argosy.core.service import (
    Affinity,
    DnsConfig,
    FailureAction,
    GrpcProbe,
    Healthcheck,
    HttpProbe,
    NetworkAttachmentSpec,
    RestartCondition,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    SpreadPreference,
    TcpProbe,
    Tmpfs,
    Ulimit,
    UpdateConfig,
    UpdateOrder,
)
from tests.unit.compose.files import Files, by_name

Get = Callable[[ServiceSpec], Any]


def container(field: str) -> Get:
    return lambda spec: getattr(spec.task.container, field)


def command(spec: ServiceSpec) -> Any:
    c = spec.task.container
    return c.entrypoint, c.entrypoint_set, c.command, c.command_set


CASES: list[tuple[str, Get, Any]] = [
    ("command: [a, 'b c']", command, ((), False, ("a", "b c"), True)),
    ("command: a 'b c' \"d\"", command, ((), False, ("a", "b c", "d"), True)),
    ("command: []", command, ((), False, (), True)),
    ("command: ''", command, ((), False, (), True)),
    ("command:", command, ((), False, (), False)),
    ("entrypoint: /x -y", command, (("/x", "-y"), True, (), True)),
    ("entrypoint: []\ncommand: [z]", command, ((), True, ("z",), True)),
    (
        "environment: {A: 1, B: yes, C: 1.10, D: 'x=y', E: ''}",
        container("env"),
        ("A=1", "B=yes", "C=1.10", "D=x=y", "E="),
    ),
    ("environment: [A=1, B=, C=x=y]", container("env"), ("A=1", "B=", "C=x=y")),
    ("environment: [HERE, NOWHERE]", container("env"), ("HERE=shell",)),
    ("environment: {HERE: , NOWHERE: }", container("env"), ("HERE=shell",)),
    ("user: 1000:1000", container("user"), "1000:1000"),
    ("working_dir: /srv", container("working_dir"), "/srv"),
    ("hostname: 'h-{{.Task.Slot}}'", container("hostname"), "h-{{.Task.Slot}}"),
    ("labels: {a: b, c: }", container("labels"), {"a": "b", "c": ""}),
    ("labels: [a=b, c]", container("labels"), {"a": "b", "c": ""}),
    ("stop_signal: SIGQUIT", container("stop_signal"), "SIGQUIT"),
    ("stop_grace_period: 1m30s", container("stop_grace_period"), 90.0),
    ("stop_grace_period: 0s", container("stop_grace_period"), 0.0),
    ("ulimits: {nofile: 1024}", container("ulimits"), (Ulimit("nofile", 1024, 1024),)),
    (
        "ulimits: {nofile: {soft: 1, hard: 2}, core: -1}",
        container("ulimits"),
        (Ulimit("nofile", 1, 2), Ulimit("core", -1, -1)),
    ),
    ("read_only: true", container("read_only"), True),
    ("read_only: 'false'", container("read_only"), False),
    ("tmpfs: /run", container("tmpfs"), (Tmpfs("/run"),)),
    (
        "tmpfs: ['/run:size=64m,mode=1700,noexec', /tmp]",
        container("tmpfs"),
        (Tmpfs("/run", 64 << 20, 0o1700, "noexec"), Tmpfs("/tmp")),
    ),
    (
        "volumes: [{type: tmpfs, target: /x, read_only: true, tmpfs: {size: 1m, mode: 0755}}]",
        container("tmpfs"),
        (Tmpfs("/x", 1 << 20, 0o755, "ro"),),
    ),
    ("shm_size: 128m", container("tmpfs"), (Tmpfs("/dev/shm", 128 << 20),)),
    (
        "cap_add: [NET_ADMIN]\ncap_drop: [ALL]",
        lambda s: (s.task.container.cap_add, s.task.container.cap_drop),
        (("NET_ADMIN",), ("ALL",)),
    ),
    ("init: true", container("init"), True),
    ("init: ", container("init"), None),
    (
        "healthcheck: {test: [CMD, a], interval: 1s, timeout: 2s, retries: 4, start_period: 5s, start_interval: 500ms}",
        container("healthcheck"),
        Healthcheck(("CMD", "a"), 1.0, 2.0, 4, 5.0, 0.5),
    ),
    (
        "healthcheck: {test: curl -f x || exit 1}",
        container("healthcheck"),
        Healthcheck(("CMD-SHELL", "curl -f x || exit 1")),
    ),
    ("healthcheck: {disable: true}", container("healthcheck"), Healthcheck(("NONE",))),
    (
        "x-argosy: {liveness: {http: {port: 80, path: /ok, headers: {Host: a}}, retries: 1}, readiness: {tcp: {port: 5}}}",
        lambda s: (s.task.container.healthcheck, s.task.container.readiness),
        (Healthcheck(retries=1, http=HttpProbe(80, "/ok", {"Host": "a"})), Healthcheck(tcp=TcpProbe(5))),
    ),
    (
        "x-argosy: {readiness: {grpc: {port: 7, service: shop.Cart}, interval: 1s}}",
        container("readiness"),
        Healthcheck(interval=1.0, grpc=GrpcProbe(7, "shop.Cart")),
    ),
    ("x-argosy: {readiness: {test: [CMD, a]}}", container("readiness"), Healthcheck(("CMD", "a"))),
    ("healthcheck: {interval: 9s}", container("healthcheck"), Healthcheck((), 9.0)),
    (
        "extra_hosts: ['a=10.0.0.1', 'b:10.0.0.2', 'c=[::1]', 'd:::2']",
        container("extra_hosts"),
        ("a:10.0.0.1", "b:10.0.0.2", "c:::1", "d:::2"),
    ),
    (
        "extra_hosts: {a: 10.0.0.1, b: [10.0.0.2, 10.0.0.3]}",
        container("extra_hosts"),
        ("a:10.0.0.1", "b:10.0.0.2", "b:10.0.0.3"),
    ),
    (
        "dns: 10.0.0.1\ndns_search: [a.b, c]\ndns_opt: ['ndots:2']",
        container("dns"),
        DnsConfig(("10.0.0.1",), ("a.b", "c"), ("ndots:2",)),
    ),
    ("sysctls: {net.core.somaxconn: 1024}", container("sysctls"), {"net.core.somaxconn": "1024"}),
    ("sysctls: ['net.core.somaxconn=1024']", container("sysctls"), {"net.core.somaxconn": "1024"}),
    ("deploy: {labels: {a: b}}", lambda s: s.labels, {"a": "b", "argosy.stack": "shop"}),
    ("deploy: {mode: global}", lambda s: s.mode, ServiceMode.GLOBAL),
    ("deploy: {replicas: 0}", lambda s: s.replicas, 0),
    ("deploy: {replicas: '7'}", lambda s: s.replicas, 7),
    ("scale: 3", lambda s: s.replicas, 3),
    (
        "deploy: {resources: {limits: {cpus: '0.5', memory: 50M, pids: 9}, reservations: {cpus: 0.25, memory: 20M}}}",
        lambda s: (s.task.limits, s.task.reservations),
        (Resources(0.5, 50 << 20, 9), Resources(0.25, 20 << 20, 0)),
    ),
    (
        "cpus: 1.5\nmem_limit: 1g\nmem_reservation: 512m\npids_limit: 100",
        lambda s: (s.task.limits, s.task.reservations),
        (Resources(1.5, 1 << 30, 100), Resources(0.0, 512 << 20, 0)),
    ),
    ("pids_limit: -1", lambda s: s.task.limits.pids, 0),
    ("cpu_quota: 50000", lambda s: s.task.limits.cpus, 0.5),
    ("cpu_quota: 30ms\ncpu_period: 20ms", lambda s: s.task.limits.cpus, 1.5),
    (
        "deploy: {restart_policy: {condition: on-failure, delay: 3s, max_attempts: 4, window: 2m}}",
        lambda s: s.task.restart,
        RestartPolicy(RestartCondition.ON_FAILURE, 3.0, 4, 120.0),
    ),
    ("restart: 'no'", lambda s: s.task.restart.condition, RestartCondition.NONE),
    ("restart: no", lambda s: s.task.restart.condition, RestartCondition.NONE),
    ("restart: always", lambda s: s.task.restart.condition, RestartCondition.ANY),
    ("restart: unless-stopped", lambda s: s.task.restart.condition, RestartCondition.ANY),
    ("restart: on-failure:3", lambda s: s.task.restart, RestartPolicy(RestartCondition.ON_FAILURE, max_attempts=3)),
    (
        "deploy: {update_config: {parallelism: 0, delay: 10s, failure_action: rollback, monitor: 1s, max_failure_ratio: 0.3, order: start-first}}",
        lambda s: s.update,
        UpdateConfig(0, 10.0, FailureAction.ROLLBACK, 1.0, 0.3, UpdateOrder.START_FIRST),
    ),
    (
        "deploy: {rollback_config: {parallelism: 2, failure_action: continue}}",
        lambda s: s.rollback,
        UpdateConfig(2, failure_action=FailureAction.CONTINUE),
    ),
    (
        "deploy: {placement: {constraints: [node.role==worker], preferences: [{spread: node.labels.z}], max_replicas_per_node: 2}}",
        lambda s: (s.task.placement.constraints, s.task.placement.preferences, s.task.placement.max_replicas_per_node),
        (("node.role==worker",), (SpreadPreference("node.labels.z"),), 2),
    ),
    ("platform: linux/x86_64", lambda s: s.task.placement.platforms, (Platform("linux", "amd64"),)),
    ("platform: linux/arm64/v8", lambda s: s.task.placement.platforms, (Platform("linux", "arm64"),)),
    ("networks: []", lambda s: s.task.networks, (NetworkAttachmentSpec("shop_default", ("web",)),)),
    ("networks: [default]", lambda s: s.task.networks, (NetworkAttachmentSpec("shop_default", ("web",)),)),
    (
        "networks: {default: {aliases: [w, web, x]}}",
        lambda s: s.task.networks,
        (NetworkAttachmentSpec("shop_default", ("web", "w", "x")),),
    ),
    ("network_mode: bridge", lambda s: s.task.networks, (NetworkAttachmentSpec("shop_default", ("web",)),)),
    ("security_opt: ['no-new-privileges:true']", lambda s: s.name, "shop_web"),
    ("privileged: false\nports: []\ntty: false\nvolumes:", lambda s: s.name, "shop_web"),
    (
        "x-argosy: {affinity: [web, other_db], anti_affinity: [{service: web, within: node.labels.rack, preferred: true}]}",
        lambda s: s.task.placement.affinities,
        (Affinity("shop_web"), Affinity("other_db"), Affinity("shop_web", True, True, "node.labels.rack")),
    ),
    ("x-argosy: {canary: 1, auto_promote: true}", lambda s: (s.canary, s.auto_promote), (1, True)),
    (
        "x-argosy: {progress_deadline: 1m, drain_timeout: 0s, weight: 3}",
        lambda s: (s.update.progress_deadline, s.rollback.progress_deadline, s.task.drain_timeout, s.task.weight),
        (60.0, 60.0, 0.0, 3),
    ),
    ("x-argosy:", lambda s: (s.canary, s.task.drain_timeout, s.task.weight), (0, None, 0)),
    ("x-mine: {anything: [1]}", lambda s: s.name, "shop_web"),
    ("deploy:", lambda s: s.replicas, 1),
]


@pytest.mark.parametrize(("body", "get", "wanted"), CASES, ids=[case[0] for case in CASES])
def test_keys(files: Files, body: str, get: Get, wanted: Any) -> None:
    assert get(files.service(body, env={"HERE": "shell"})) == wanted


def test_defaults(files: Files) -> None:
    assert files.service("") == ServiceSpec(
        name="shop_web",
        labels={"argosy.stack": "shop"},
        task=files.service("").task,
    )
    task = files.service("").task
    assert task.restart == RestartPolicy()
    assert task.container.stop_grace_period is None


def test_env_file_and_environment(files: Files) -> None:
    files.write("a.env", "A=a\nB=a\nFROM=$HERE\nHERE\nUNSET\n")
    files.write("b.env", "B=b\n")
    body = "env_file: [a.env, {path: b.env}, {path: none.env, required: false}]\nenvironment: {C: c, A: own}"
    assert files.service(body, env={"HERE": "shell"}).task.container.env == (
        "A=own",
        "B=b",
        "FROM=shell",
        "HERE=shell",
        "C=c",
    )
    files.write("raw.env", "A='$x'\n")
    assert files.service("env_file: [{path: raw.env, format: raw}]").task.container.env == ("A='$x'",)
    assert files.service_problems("env_file: none.env")[0].startswith("compose.yaml:4:15: there is no file")
    assert "/dev/zero is longer than 16 Mi characters" in files.service_problems("env_file: /dev/zero")[0]


def test_label_file(files: Files) -> None:
    files.write("l", "a=1\nb=2\n")
    assert files.service("label_file: l\nlabels: {b: '3'}").task.container.labels == {"a": "1", "b": "3"}


def test_two_services_share_what_an_anchor_says(files: Files) -> None:
    text = """
    x-base: &base {image: web, deploy: {replicas: 2}}
    services:
      a: *base
      b: {<<: *base, user: root}
    """
    services = by_name(files.load(text))
    assert (services["a"].replicas, services["b"].replicas) == (2, 2)
    assert services["b"].task.container.user == "root"


# ---------------------------------------------------------------- networks


def test_networks(files: Files) -> None:
    text = """
    services:
      web: {image: web, networks: [front, own, out]}
    networks:
      front:
        driver: overlay
        internal: true
        attachable: 'true'
        labels: [a=b]
        ipam: {driver: default, config: [{subnet: 10.80.0.0/16}]}
      own: {name: exactly}
      out: {external: true, name: theirs}
      unused:
    """
    stack = files.load(text)
    assert [(n.name, n.subnet, n.internal, n.attachable, dict(n.labels)) for n in stack.networks] == [
        ("shop_front", "10.80.0.0/16", True, True, {"a": "b", "argosy.stack": "shop"}),
        ("exactly", "", False, False, {"argosy.stack": "shop"}),
    ]
    assert [(n.name, n.position.line) for n in stack.external_networks] == [("theirs", 12)]
    assert [n.target for n in stack.services[0].task.networks] == ["shop_front", "exactly", "theirs"]
    assert [n.path for n in stack.notices] == ["networks.unused"]


@pytest.mark.parametrize(
    ("options", "encrypted"),
    [
        ("{encrypted: 'true'}", True),
        ("{encrypted: ''}", True),
        ("{encrypted: }", True),
        ("{encrypted: 'false'}", False),
    ],
)
def test_a_network_is_encrypted_as_docker_writes_it(files: Files, options: str, encrypted: bool) -> None:
    stack = files.load(f"services: {{web: {{image: web}}}}\nnetworks: {{default: {{driver_opts: {options}}}}}")
    assert [n.encrypted for n in stack.networks] == [encrypted]


def test_addresses_that_services_ask_for_and_where_the_cluster_chooses(files: Files) -> None:
    text = """
    services:
      web: {image: web, networks: {back: {ipv4_address: 10.80.9.70, aliases: [w]}}}
    networks:
      back:
        driver_opts: {com.docker.network.driver.mtu: '1300'}
        ipam: {config: [{subnet: 10.80.0.0/16, ip_range: 10.80.128.0/17}]}
    """
    stack = files.load(text)
    assert [(n.subnet, n.ip_range, n.mtu) for n in stack.networks] == [("10.80.0.0/16", "10.80.128.0/17", 1300)]
    assert stack.services[0].task.networks == (NetworkAttachmentSpec("shop_back", ("web", "w"), "10.80.9.70"),)


def test_the_default_network_can_be_configured(files: Files) -> None:
    stack = files.load("services: {web: {image: web}}\nnetworks: {default: {internal: true}}")
    assert [(n.name, n.internal) for n in stack.networks] == [("shop_default", True)]


def test_an_external_network_is_called_as_its_key_or_as_its_old_name_says(files: Files) -> None:
    text = "services: {web: {image: web, networks: [a, b]}}\nnetworks: {a: {external: true}, b: {external: {name: c}}}"
    assert [n.name for n in files.load(text).external_networks] == ["a", "c"]
