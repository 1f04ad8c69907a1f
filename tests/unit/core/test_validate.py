"""Validation: what is lawful passes, and each mistake is told where it is and what would be right."""

from dataclasses import replace

import pytest

from argosy.core.errors import InvalidError
from argosy.core.network import NetworkSpec
from argosy.core.node import NodeSpec, Platform, Resources
from argosy.core.problem import check
from argosy.core.service import (
    Affinity,
    ContainerSpec,
    Cron,
    Dependency,
    DnsConfig,
    FailureAction,
    GrpcProbe,
    Healthcheck,
    HostPort,
    HttpProbe,
    JobSpec,
    NetworkAttachmentSpec,
    Placement,
    RestartCondition,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    SpreadPreference,
    TaskSpec,
    TcpProbe,
    Tmpfs,
    Ulimit,
    UpdateConfig,
    UpdateOrder,
)
from argosy.core.validate import validate_network, validate_node_spec, validate_service
from argosy.core.validate_health import asks_nothing
from argosy.core.versions import parse_version

UPDATE = UpdateConfig()
START_FIRST = UpdateConfig(order=UpdateOrder.START_FIRST)
FIXED = (NetworkAttachmentSpec("net", address="10.9.0.70"),)
FIRST_ADDRESS = "task.networks[0].address"
PLAIN = ContainerSpec(image="web:1")
RICH = ContainerSpec(
    image="registry.example:5000/team/web:1.2",
    image_digest="sha256:" + "a" * 64,
    entrypoint=("/bin/web",),
    entrypoint_set=True,
    command=("--fast",),
    command_set=True,
    env=("A=1", "discovery.type=single-node", "EMPTY=", "UNSET"),
    user="1000:1000",
    working_dir="/srv",
    hostname="{{.Service.Name}}-{{.Task.Slot}}",
    labels={"team": "red"},
    stop_signal="SIGRTMIN+3",
    stop_grace_period=30.0,
    ulimits=(Ulimit("nofile", 1024, 2048), Ulimit("core", -1, -1)),
    tmpfs=(Tmpfs("/run", 1 << 20, 0o1777, "noexec,uid=1000"),),
    cap_add=("CAP_NET_ADMIN",),
    cap_drop=("ALL",),
    healthcheck=Healthcheck(("CMD", "true")),
    extra_hosts=("db:192.0.2.7", "v6.internal:fd00::7"),
    dns=DnsConfig(("192.0.2.53", "fd00::53"), ("example.org", "."), ("ndots:2",)),
    sysctls={"net.core.somaxconn": "1024"},
)


def service(container=PLAIN, mode=ServiceMode.REPLICATED, update=UPDATE, rollback=UPDATE, **task):
    return ServiceSpec("web", mode=mode, task=TaskSpec(container=container, **task), update=update, rollback=rollback)


@pytest.mark.parametrize(
    "spec",
    [
        service(),
        service(RICH),
        service(replace(PLAIN, healthcheck=Healthcheck(("NONE",), interval=0))),
        service(mode=ServiceMode.GLOBAL, host_ports=(HostPort("udp", 53),)),
        replace(service(), replicas=0),
        replace(service(), replicas=0, canary=1),
        replace(service(mode=ServiceMode.GLOBAL), canary=2, auto_promote=True),
        service(update=UpdateConfig(progress_deadline=0)),
        service(
            limits=Resources(2, 1 << 30, 100),
            reservations=Resources(0.5, 1 << 29, 100),
            restart=RestartPolicy(delay=0, max_attempts=3, window=120),
            placement=Placement(
                ("node.role == worker",), (SpreadPreference("node.labels.zone"),), 2, (Platform("linux", "amd64"),)
            ),
            networks=(
                NetworkAttachmentSpec("front", ("www", "api.internal", "tasks", "2", "2nd.db", "db.2")),
                NetworkAttachmentSpec("back"),
            ),
            host_ports=(HostPort("tcp", 80), HostPort("udp", 80)),
            update=UpdateConfig(0, 1.0, FailureAction.ROLLBACK, 30.0, 0.5, UpdateOrder.START_FIRST),
        ),
    ],
)
def test_lawful_services_pass(spec):
    assert validate_service(spec) == []


def container(**fields):
    return service(replace(PLAIN, **fields))


@pytest.mark.parametrize(
    ("spec", "where", "says"),
    [
        (replace(service(), name="my web"), "name", 'such as "my-web"'),
        (replace(service(), name=""), "name", "missing"),
        (replace(service(), labels={"": "x"}), "labels", "needs a key"),
        (replace(service(), replicas=-1), "replicas", "from 0 to 100,000"),
        (replace(service(), replicas=10**6), "replicas", "1,000,000"),
        (replace(service(mode=ServiceMode.GLOBAL), replicas=3), "replicas", "mode replicated"),
        (container(image=""), "task.container.image", "image is missing"),
        (container(image="Web:1"), "task.container.image", "lower case"),
        (container(image="web:"), "task.container.image", "web:1"),
        (container(image_digest="sha256:1"), "task.container.image_digest", "64"),
        (container(entrypoint=("a",)), "task.container.entrypoint", "entrypoint_set"),
        (container(command=("a\0",), command_set=True), "task.container.command", "zero byte"),
        (container(env=("=x",)), "task.container.env[0]", "NAME=value"),
        (container(env=("A=1", "B C=2")), "task.container.env[1]", "blank"),
        (container(env=("A=1", "A=2")), "task.container.env", "more than once"),
        (container(user="a b"), "task.container.user", "1000:1000"),
        (container(user="70000"), "task.container.user", "0 to 65535"),
        (container(working_dir="srv"), "task.container.working_dir", '"/srv"'),
        (container(working_dir="/a/../b"), "task.container.working_dir", '".."'),
        (container(hostname="{{.Task.Slt}}"), "task.container.hostname", "did you mean {{.Task.Slot}}"),
        (container(labels={"": ""}), "task.container.labels", "needs a key"),
        (container(stop_signal="SIGTREM"), "task.container.stop_signal", "did you mean SIGTERM"),
        (container(stop_grace_period=-5.0), "task.container.stop_grace_period", "write it like 5s"),
        (container(stop_grace_period=1e9), "task.container.stop_grace_period", "at most 168h"),
        (container(stop_grace_period=float("nan")), "task.container.stop_grace_period", "not a number"),
        (container(ulimits=(Ulimit("nofiles", 1, 1),)), "task.container.ulimits[0]", '"nofile"'),
        (container(ulimits=(Ulimit("nofile", 9, 1),)), "task.container.ulimits[0]", "above the hard one"),
        (container(ulimits=(Ulimit("nofile", -1, 1),)), "task.container.ulimits[0]", "(unlimited) is above"),
        (container(ulimits=(Ulimit("nofile", -2, 1),)), "task.container.ulimits[0]", "out of bounds"),
        (container(ulimits=(Ulimit("core", 1, 1),) * 2), "task.container.ulimits[1]", "more than once"),
        (container(tmpfs=(Tmpfs("run"),)), "task.container.tmpfs[0].target", '"/run"'),
        (container(tmpfs=(Tmpfs(""),)), "task.container.tmpfs[0].target", "missing"),
        (container(tmpfs=(Tmpfs("/"),)), "task.container.tmpfs[0].target", "root cannot"),
        (container(tmpfs=(Tmpfs("/run"), Tmpfs("/run/"))), "task.container.tmpfs[1].target", "more than once"),
        (container(tmpfs=(Tmpfs("/run", -1),)), "task.container.tmpfs[0].size_bytes", "negative"),
        (container(tmpfs=(Tmpfs("/run", 0, 0o10000),)), "task.container.tmpfs[0].mode", "7777"),
        (container(tmpfs=(Tmpfs("/run", options="noexc"),)), "task.container.tmpfs[0].options", '"noexec"'),
        (container(cap_add=("NET_ADMN",)), "task.container.cap_add[0]", '"NET_ADMIN"'),
        (container(cap_add=("KILL",), cap_drop=("CAP_KILL",)), "task.container.cap_drop", "both added and dropped"),
        (container(sysctls={"vm.swappiness": "1"}), "task.container.sysctls[vm.swappiness]", "whole host"),
        (container(sysctls={"kernel.sem": ""}), "task.container.sysctls[kernel.sem]", "needs a value"),
        (container(healthcheck=Healthcheck(("curl",))), "task.container.healthcheck.test", "[CMD, curl, …]"),
        (container(healthcheck=Healthcheck(("CMD",))), "task.container.healthcheck.test", "missing"),
        (container(healthcheck=Healthcheck(("CMD-SHELL", "a", "b"))), "task.container.healthcheck.test", "one line"),
        (container(healthcheck=Healthcheck(("NONE", "x"))), "task.container.healthcheck.test", "nothing may follow"),
        (container(healthcheck=Healthcheck(("CMD", "a"), tcp=TcpProbe(1))), "task.container.healthcheck", "keep one"),
        (container(healthcheck=Healthcheck(("NONE",), tcp=TcpProbe(1))), "task.container.healthcheck", "keep one"),
        (container(healthcheck=Healthcheck(tcp=TcpProbe(0))), "task.container.healthcheck.tcp.port", "from 1"),
        (container(healthcheck=Healthcheck(grpc=GrpcProbe(65536))), "task.container.healthcheck.grpc.port", "65,535"),
        (
            container(healthcheck=Healthcheck(grpc=GrpcProbe(1, "s" * 101))),
            "task.container.healthcheck.grpc.service",
            "longer than 100",
        ),
        (container(readiness=Healthcheck()), "task.container.readiness", "one of test, http, tcp and grpc"),
        (container(readiness=Healthcheck(("NONE",))), "task.container.readiness.test", "leave the readiness check out"),
        (container(readiness=Healthcheck(http=HttpProbe(80, "x"))), "task.container.readiness.http.path", '"/x"'),
        (container(readiness=Healthcheck(http=HttpProbe(80, "/a b"))), "task.container.readiness.http.path", "blank"),
        (
            container(readiness=Healthcheck(http=HttpProbe(80, "/", {"a b": "c"}))),
            "task.container.readiness.http.headers",
            "not the name",
        ),
        (
            container(readiness=Healthcheck(http=HttpProbe(80, "/", {"a": "c\r\nd: e"}))),
            "task.container.readiness.http.headers[a]",
            "one line",
        ),
        (container(healthcheck=Healthcheck(interval=0)), "task.container.healthcheck.interval", "at least 1ms"),
        (container(healthcheck=Healthcheck(timeout=-1)), "task.container.healthcheck.timeout", "negative"),
        (container(healthcheck=Healthcheck(retries=0)), "task.container.healthcheck.retries", "from 1"),
        (container(extra_hosts=("db",)), "task.container.extra_hosts[0]", "NAME:ADDRESS"),
        (container(extra_hosts=("db:there",)), "task.container.extra_hosts[0]", "not an IP address"),
        (container(extra_hosts=("d b:1.2.3.4",)), "task.container.extra_hosts[0]", "use letters"),
        (container(dns=DnsConfig(("dns",))), "task.container.dns.nameservers[0]", "not an IP address"),
        (container(dns=DnsConfig(search=("a..b",))), "task.container.dns.search[0]", "empty part"),
        (container(dns=DnsConfig(options=("a b",))), "task.container.dns.options[0]", "one option"),
        (service(limits=Resources(cpus=-1)), "task.limits.cpus", "from 0.01"),
        (service(limits=Resources(cpus=0.001)), "task.limits.cpus", "0.01"),
        (service(limits=Resources(cpus=float("inf"))), "task.limits.cpus", "use a number"),
        (service(limits=Resources(memory_bytes=512)), "task.limits.memory_bytes", "such as 512m"),
        (service(reservations=Resources(memory_bytes=-1)), "task.reservations.memory_bytes", "negative"),
        (service(limits=Resources(pids=-1)), "task.limits.pids", "from 0"),
        (
            service(limits=Resources(cpus=1), reservations=Resources(cpus=2)),
            "task.reservations.cpus",
            "2 are reserved, but the limit is 1",
        ),
        (
            service(limits=Resources(memory_bytes=1 << 29), reservations=Resources(memory_bytes=1 << 30)),
            "task.reservations.memory_bytes",
            "1 GiB are reserved, but the limit is 512 MiB",
        ),
        (service(restart=RestartPolicy(delay=-1)), "task.restart.delay", "negative"),
        (service(restart=RestartPolicy(max_attempts=-1)), "task.restart.max_attempts", "from 0"),
        (service(restart=RestartPolicy(window=-1)), "task.restart.window", "negative"),
        (service(update=UpdateConfig(parallelism=-1)), "update.parallelism", "from 0"),
        (service(update=UpdateConfig(delay=-1)), "update.delay", "negative"),
        (service(rollback=UpdateConfig(monitor=-1)), "rollback.monitor", "negative"),
        (service(update=UpdateConfig(max_failure_ratio=20)), "update.max_failure_ratio", "0.2 for 20 %"),
        (service(update=UpdateConfig(max_failure_ratio=-0.1)), "update.max_failure_ratio", "from 0 to 1"),
        (
            service(rollback=UpdateConfig(failure_action=FailureAction.ROLLBACK)),
            "rollback.failure_action",
            "pause or continue",
        ),
        (
            service(
                mode=ServiceMode.GLOBAL,
                host_ports=(HostPort("tcp", 80),),
                update=UpdateConfig(order=UpdateOrder.START_FIRST),
            ),
            "update.order",
            "use stop-first",
        ),
        (
            service(
                mode=ServiceMode.GLOBAL,
                placement=Placement(max_replicas_per_node=1),
                rollback=UpdateConfig(order=UpdateOrder.START_FIRST),
            ),
            "rollback.order",
            "use stop-first",
        ),
        (service(placement=Placement(("node.role = x",))), "task.placement.constraints[0]", "node.role == x"),
        (
            service(placement=Placement(preferences=(SpreadPreference("node.id"),))),
            "task.placement.preferences[0]",
            "name a label",
        ),
        (service(update=UpdateConfig(progress_deadline=0.5)), "update.progress_deadline", "at least 1s"),
        (service(rollback=UpdateConfig(progress_deadline=-1)), "rollback.progress_deadline", "negative"),
        (replace(service(), auto_promote=True), "auto_promote", "set canary as well"),
        (replace(service(), replicas=2, canary=3), "canary", "3 canaries cannot try the update of 2 replicas"),
        (
            replace(service(mode=ServiceMode.REPLICATED_JOB, restart=RestartPolicy(RestartCondition.NONE)), canary=1),
            "canary",
            "its next run is the new one",
        ),
        (
            replace(service(update=UpdateConfig(failure_action=FailureAction.CONTINUE)), canary=1),
            "update.failure_action",
            "use pause or rollback",
        ),
        (service(drain_timeout=-1.0), "task.drain_timeout", "negative"),
        (service(weight=101), "task.weight", "from 0 to 100"),
        (service(placement=Placement(max_replicas_per_node=-1)), "task.placement.max_replicas_per_node", "from 0"),
        (service(placement=Placement(platforms=(Platform(),))), "task.placement.platforms[0]", "linux/amd64"),
        (service(networks=(NetworkAttachmentSpec(),)), "task.networks[0].target", "missing"),
        (service(networks=(NetworkAttachmentSpec("a", ("x y",)),)), "task.networks[0].aliases[0]", "use letters"),
        (
            service(networks=(NetworkAttachmentSpec("a", ("b", "Tasks.db")),)),
            "task.networks[0].aliases[1]",
            '"Tasks-db"',
        ),
        (service(networks=(NetworkAttachmentSpec("a", ("2.db",)),)), "task.networks[0].aliases[0]", "slot 2 of db"),
        (service(networks=(NetworkAttachmentSpec("a"),) * 2), "task.networks", "more than once"),
        (replace(service(networks=FIXED), replicas=2), FIRST_ADDRESS, "one replica"),
        (service(networks=FIXED, mode=ServiceMode.GLOBAL), FIRST_ADDRESS, "one replica"),
        (replace(service(networks=FIXED), canary=1), FIRST_ADDRESS, "a canary would need a second address"),
        (service(networks=FIXED, update=START_FIRST), FIRST_ADDRESS, "two tasks would need the address at once"),
        (service(networks=(NetworkAttachmentSpec("net", address="10.9.0"),)), FIRST_ADDRESS, "not an IPv4 address"),
        (service(host_ports=(HostPort("sctp", 80),)), "task.host_ports[0].protocol", "tcp or udp"),
        (service(host_ports=(HostPort("tcp", 0),)), "task.host_ports[0].port", "from 1"),
        (service(host_ports=(HostPort("udp", 14789),)), "task.host_ports[0].port", "VXLAN"),
        (service(host_ports=(HostPort("tcp", 80),) * 2), "task.host_ports[1].port", "more than once"),
        (service(force_update=-1), "task.force_update", "negative"),
    ],
)
def test_a_mistake_in_a_service_is_the_only_problem_and_told_where(spec, where, says):
    problems = validate_service(spec)
    assert [p.where for p in problems] == [where]
    assert says in problems[0].what


def test_all_problems_come_at_once():
    broken = replace(container(image="", user="a b"), name="", replicas=-1)
    with pytest.raises(InvalidError) as caught:
        check("service web", validate_service(broken))
    assert [where for where, _ in caught.value.problems] == [
        "name",
        "replicas",
        "task.container.image",
        "task.container.user",
    ]


@pytest.mark.parametrize(
    ("spec", "where", "says"),
    [
        (NetworkSpec("a b"), "name", "use letters"),
        (NetworkSpec("net", {"": ""}), "labels", "needs a key"),
        (NetworkSpec("net", subnet="10.0.0.0/28"), "subnet", "smallest subnet is a /26"),
        (NetworkSpec("net", subnet="127.0.0.0/16"), "subnet", "loopback"),
        (NetworkSpec("net", subnet="192.0.2.0/24"), "subnet", "the underlay"),
        (NetworkSpec("net", ip_range="10.0.1.0/24"), "ip_range", "a part of which subnet?"),
        (NetworkSpec("net", subnet="10.0.0.0/16", ip_range="10.1.0.0/24"), "ip_range", "such as 10.0.128.0/17"),
        (NetworkSpec("net", subnet="10.0.0.0/16", ip_range="10.0.1.0/28"), "ip_range", "the smallest is a /27"),
        (NetworkSpec("net", subnet="10.0.0.0/16", ip_range="10.0.0.0/27"), "ip_range", "for virtual addresses"),
        (NetworkSpec("net", subnet="10.0.0.0/16", ip_range="nonsense"), "ip_range", "is not a subnet"),
        (NetworkSpec("net", mtu=1279), "mtu", "from 1,280"),
        (NetworkSpec("net", mtu=70_000), "mtu", "to 65,535"),
    ],
)
def test_a_mistake_in_a_network(spec, where, says):
    problems = validate_network(spec, (("192.0.2.0/28", "the underlay"),))
    assert [p.where for p in problems] == [where]
    assert says in problems[0].what


@pytest.mark.parametrize(
    ("spec", "where", "says"),
    [
        (NodeSpec(""), "name", "missing"),
        (NodeSpec("n1", "boss"), "role", "worker or manager"),
        (NodeSpec("n1", labels={"a b": ""}), "labels[a b]", "zone"),
    ],
)
def test_a_mistake_in_a_node(spec, where, says):
    problems = validate_node_spec(spec)
    assert [p.where for p in problems] == [where]
    assert says in problems[0].what


def test_lawful_networks_and_nodes_pass():
    assert validate_network(NetworkSpec("shop_default", {"a": "b"}, "10.200.0.0/16")) == []
    assert validate_network(NetworkSpec("net")) == []
    assert validate_node_spec(NodeSpec("host-1.example.org", "manager", labels={"zone": "eu"})) == []


@pytest.mark.parametrize(
    ("affinities", "says"),
    [
        ([Affinity()], "the service's name is missing"),
        ([Affinity("db", within="node.zone")], 'nodes have no attribute "node.zone"'),
        ([Affinity("db"), Affinity("db")], "db within the node is named more than once"),
        ([Affinity("db"), Affinity("db", anti=True)], "beside db and away from it"),
        ([Affinity(f"s{i}") for i in range(33)], "the number of affinities"),
    ],
)
def test_affinities_that_cannot_be(affinities, says):
    spec = ServiceSpec("web", task=TaskSpec(PLAIN, placement=Placement(affinities=tuple(affinities))))
    assert [p for p in validate_service(spec) if says in p.what]


def test_affinities_that_can_be():
    both = (
        Affinity("db"),
        Affinity("db", anti=True, preferred=True),
        Affinity("db", anti=True, within="node.labels.x"),
    )
    spec = ServiceSpec("web", task=TaskSpec(PLAIN, placement=Placement(affinities=both)))
    assert validate_service(spec) == []


HUGE = "9" * 5000
"""More digits than Python reads."""
_JOB = replace(
    ServiceSpec("nightly", mode=ServiceMode.REPLICATED_JOB, task=TaskSpec(PLAIN)),
    task=TaskSpec(PLAIN, restart=RestartPolicy(RestartCondition.NONE)),
)


def _with(container=PLAIN, **placement):
    return ServiceSpec("web", task=TaskSpec(container, placement=Placement(**placement)))


@pytest.mark.parametrize(
    ("spec", "where"),
    [
        (replace(_JOB, job=JobSpec(cron=Cron(f"{HUGE} * * * *"))), "job.cron.schedule"),
        (replace(_JOB, job=JobSpec(cron=Cron(f"*/{HUGE} * * * *"))), "job.cron.schedule"),
        (_with(constraints=(f"node.labels.kernel >= {HUGE}",)), "task.placement.constraints[0]"),
        (_with(constraints=("node.id != x",) * 101), "task.placement.constraints"),
        (_with(preferences=(SpreadPreference("node.labels.zone"),) * 9), "task.placement.preferences"),
        (_with(affinities=(Affinity("other/db"),)), "task.placement.affinities[0].service"),
        (_with(replace(PLAIN, user=HUGE)), "task.container.user"),
        (_with(replace(PLAIN, user="٣")), "task.container.user"),
        (_with(replace(PLAIN, stop_signal=HUGE)), "task.container.stop_signal"),
        (_with(replace(PLAIN, healthcheck=Healthcheck(("CMD", "a\0")))), "task.container.healthcheck.test"),
        (_with(replace(PLAIN, dns=DnsConfig(options=("a\0b",)))), "task.container.dns.options[0]"),
        (replace(_with(), depends_on=tuple(Dependency(f"s{i}") for i in range(101))), "depends_on"),
        (replace(_with(), labels={"a": "x" * 256 * 1024}), ""),
    ],
)
def test_what_only_a_hostile_caller_sends_is_refused_too(spec, where):
    assert [p.where for p in validate_service(spec)] == [where]


def test_a_label_that_no_number_is_meets_no_comparison():
    assert parse_version(HUGE) is None
    assert parse_version("1.2rc" + HUGE) is not None


@pytest.mark.parametrize("subnet", [f"10.0.0.0/{HUGE}", "10.0.0.0/٣"])
def test_a_prefix_that_is_no_number_is_refused(subnet):
    assert validate_network(NetworkSpec("net", subnet=subnet))


@pytest.mark.parametrize(
    ("check", "image", "idle"),
    [
        (None, None, False),
        (Healthcheck(interval=9.0), None, True),
        (Healthcheck(interval=9.0), Healthcheck(("NONE",)), True),
        (Healthcheck(interval=9.0), Healthcheck(("CMD", "a")), False),
        (Healthcheck(("CMD", "a")), None, False),
        (Healthcheck(("NONE",)), None, False),
        (Healthcheck(tcp=TcpProbe(80)), None, False),
    ],
)
def test_times_of_a_check_have_no_effect_where_nothing_asks(
    check: Healthcheck | None, image: Healthcheck | None, idle: bool
) -> None:
    assert asks_nothing(check, image) is idle
