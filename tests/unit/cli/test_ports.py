"""Published ports as people write them, and as they are shown."""

import pytest

from argosy.cli.port_rows import nodes_port_problems, port_texts
from argosy.cli.ports import Publication, parse_option, publish, unpublish
from argosy.cli.rows import task_rows
from argosy.core.codec import decode
from argosy.core.errors import InvalidError
from argosy.core.service import ServiceSpec
from argosy.core.validate_ports import ports_problems
from argosy.proto.argosy.v1 import control_pb2 as pb
from argosy.proto.argosy.v1 import types_pb2 as types


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("80", [Publication(80)]),
        ("8080:80", [Publication(80, 8080)]),
        ("8080:80/udp", [Publication(80, 8080, "udp")]),
        ("80/UDP", [Publication(80, 0, "udp")]),
        ("127.0.0.1:8080:80", [Publication(80, 8080, "tcp", "127.0.0.1")]),
        ("127.0.0.1::80", [Publication(80, 0, "tcp", "127.0.0.1")]),
        ("0.0.0.0:8080:80", [Publication(80, 8080)]),
        (":80", [Publication(80)]),
        ("3000-3001", [Publication(3000), Publication(3001)]),
        ("8000-8001:9000-9001/udp", [Publication(9000, 8000, "udp"), Publication(9001, 8001, "udp")]),
        ("published=8080,target=80", [Publication(80, 8080)]),
        ("target=80", [Publication(80)]),
        ("mode=host,published=8080,target=80,protocol=udp", [Publication(80, 8080, "udp", "", True)]),
        ("published=0,target=80,host_ip=127.0.0.1,name=web", [Publication(80, 0, "tcp", "127.0.0.1", False, "web")]),
    ],
)
def test_forms(text, ports):
    assert parse_option(text) == ports


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no port"),
        ("http", "is no port: write 8080:80, 80, or"),
        ("80:http", "is no port"),
        ("0", "ports are from 1 to 65535"),
        ("65536:80", "ports are from 1 to 65535"),
        ("81-80", "ranges go upwards"),
        ("8000-8010:80", "11 ports of the hosts and 1 of the container"),
        ("80/sctp", "no protocol 'sctp'"),
        ("host:80:80", "is no address of a host"),
        ("[::1]:80:80", "IPv4 addresses alone"),
        ("1:2:3:4", "is no port"),
        ("published=80", "is no port"),
        ("target=80,mode=nat", "the mode is ingress or host"),
        ("target=80,port=1", "there are target, published"),
        ("target=80-81", "a range of ports goes in the short form alone"),
    ],
)
def test_what_is_no_port(text, said):
    with pytest.raises(InvalidError, match="(?i)" + said.replace("(", r"\(")):
        parse_option(text)


def spec_with(*texts):
    spec = types.ServiceSpec()
    publish(spec, texts)
    return spec


def written(spec):
    """Return the ports of a spec: those of every node, then those of tasks."""
    everywhere = [(p.host_ip, p.published, p.target, p.protocol) for p in spec.endpoint.ports]
    return everywhere, [(p.host_ip, p.port, p.target, p.protocol) for p in spec.task.host_ports]


def test_ports_are_added_once_and_taken_out_by_the_containers_port():
    spec = spec_with("8080:80", "8080:80", "53:53/udp", "target=82,published=8082,mode=host")
    assert [p.published for p in spec.endpoint.ports] == [8080, 53]
    assert [(p.port, p.target) for p in spec.task.host_ports] == [(8082, 82)]
    service = types.Service(spec=spec)
    unpublish(service, ["80", "8082:82"])
    assert [p.published for p in service.spec.endpoint.ports] == [53]
    assert not service.spec.task.host_ports
    for wrong in ("80", "53", "54:53/udp", "target=53,protocol=udp,mode=host", "target=53,protocol=udp,name=dns"):
        with pytest.raises(InvalidError, match=r"does not publish '.*': it has \*:53->53/udp"):
            unpublish(service, [wrong])


@pytest.mark.parametrize(
    ("there", "added", "everywhere", "own"),
    [
        ("8080:80", "80", [("", 8080, 80, "tcp"), ("", 0, 80, "tcp")], []),
        ("80", "8080:80", [("", 0, 80, "tcp"), ("", 8080, 80, "tcp")], []),
        ("8080:80", "8080:80/udp", [("", 8080, 80, "tcp"), ("", 8080, 80, "udp")], []),
        ("10.0.0.1:8080:80", "10.0.0.2:8080:80", [("10.0.0.1", 8080, 80, "tcp"), ("10.0.0.2", 8080, 80, "tcp")], []),
        ("10.0.0.1::80", "80", [("10.0.0.1", 0, 80, "tcp"), ("", 0, 80, "tcp")], []),
        ("80", "target=80,mode=host", [("", 0, 80, "tcp")], [("", 0, 80, "tcp")]),
        ("target=80,mode=host", "80", [("", 0, 80, "tcp")], [("", 0, 80, "tcp")]),
        ("published=8080,target=80,mode=host", "target=80,mode=host", [], [("", 8080, 80, "tcp"), ("", 0, 80, "tcp")]),
        (
            "published=30000,target=80,mode=host",
            "target=81,mode=host",
            [],
            [("", 30000, 80, "tcp"), ("", 0, 81, "tcp")],
        ),
        # that is there
        ("80", "80", [("", 0, 80, "tcp")], []),
        ("8080:80", "0.0.0.0:8080:80", [("", 8080, 80, "tcp")], []),
        ("published=8080,target=80,name=web", "8080:80", [("", 8080, 80, "tcp")], []),
        # a port of tasks without a number is stored with the one that the cluster chose
        ("published=30000,target=80,mode=host", "target=80,mode=host", [], [("", 30000, 80, "tcp")]),
    ],
)
def test_only_a_port_that_is_there_is_not_added(there, added, everywhere, own):
    spec = spec_with(there)
    publish(spec, [added])
    assert written(spec) == (everywhere, own)
    publish(spec, [added])
    assert written(spec) == (everywhere, own)


def test_a_number_that_one_command_gives_is_none_that_the_cluster_chose():
    spec = spec_with("published=30000,target=80,mode=host", "target=80,mode=host")
    assert [p.port for p in spec.task.host_ports] == [30000, 0]


@pytest.mark.parametrize(
    ("there", "added"),
    [
        ("127.0.0.1:8080:80", "8080:80"),
        ("8080:80", "127.0.0.1:8080:80"),
        ("8080:80", "published=8080,target=80,mode=host"),
        ("published=8080,target=80,mode=host", "8080:80"),
        ("8080:80", "published=8080,target=80,name=web"),
        ("8080:80", "8080:81"),
    ],
)
def test_ports_that_cannot_stand_side_by_side_are_added_and_the_controller_refuses_them(there, added):
    (problem,) = ports_problems(decode(spec_with(there, added), ServiceSpec))
    assert problem.what == "port 8080/tcp is given more than once: keep one"


def test_ports_are_taken_out_by_the_number_that_the_cluster_chose():
    spec = spec_with("80", "30001:80", "81", "10.0.0.1::81", "target=82,published=30004,mode=host")
    granted = [
        types.PortSpec(protocol="tcp", target=80, published=30001),
        types.PortSpec(protocol="tcp", target=80, published=30000),
        types.PortSpec(protocol="tcp", target=81, published=30002),
        types.PortSpec(protocol="tcp", target=81, published=30003, host_ip="10.0.0.1"),
    ]
    service = types.Service(spec=spec, ports=granted)
    with pytest.raises(InvalidError, match=r"it has \*:30000->80/tcp, .*, \*:30004->82/tcp \(host\)"):
        unpublish(service, ["30009:80"])
    with pytest.raises(InvalidError, match="does not publish '30009:80'"):
        unpublish(service, ["30000:80", "30009:80"])
    assert service.spec == spec, "all or nothing"
    unpublish(service, ["30000:80"])
    assert [p.published for p in service.spec.endpoint.ports] == [30001, 0, 0]
    unpublish(service, ["30003:81", "30001:80"])
    assert written(service.spec) == ([("", 0, 81, "tcp")], [("", 30004, 82, "tcp")])


def test_ports_of_both_modes_are_taken_out_but_where_it_is_said_which():
    both = ("8080:80", "target=80,published=8081,mode=host")
    for text, left in (("80", ([], [])), ("target=80,mode=host", ([("", 8080, 80, "tcp")], []))):
        service = types.Service(spec=spec_with(*both))
        unpublish(service, [text])
        assert written(service.spec) == left


def test_ports_are_shown_with_what_is_missing():
    spec = spec_with("8080:80", "81", "127.0.0.1:53:53/udp", "target=82,published=8082,mode=host")
    service = types.Service(spec=spec, ports=list(spec.endpoint.ports)[:1])
    assert port_texts(service) == ["*:8080->80/tcp", "*:8082->82/tcp (host)", "(2 not open)"]
    service.ports.append(types.PortSpec(target=53, published=53, protocol="udp", host_ip="127.0.0.1"))
    assert port_texts(service)[1] == "127.0.0.1:53->53/udp"


def test_a_task_tells_what_its_node_says_of_its_services_ports():
    ready = types.NodeStatus(state=types.NODE_STATE_READY)
    taken = [types.PortProblem(service_id="web", published=n, reason="dropped by chain fw") for n in (80, 81)]
    node = types.Node(meta=types.Meta(id="n"), status=ready, port_problems=taken)
    tasks = [
        types.Task(
            meta=types.Meta(id=service),
            service_id=service,
            node_id="n",
            desired_state=types.TASK_STATE_RUNNING,
            status=types.TaskStatus(state=types.TASK_STATE_RUNNING),
        )
        for service in ("db", "web")
    ]
    rows = task_rows(pb.ListTasksResponse(tasks=tasks, nodes=[node]))
    assert [(row["service_id"], row["note"]) for row in rows] == [("db", ""), ("web", "dropped by chain fw")]


def test_what_nodes_say_is_joined():
    taken = types.PortProblem(service_id="web", reason="port 80/tcp is taken")
    nodes = [
        ("b", types.Node(port_problems=[taken, taken])),
        ("a", types.Node(port_problems=[taken])),
        ("c", types.Node()),
    ]
    assert nodes_port_problems(nodes) == {"web": ["port 80/tcp is taken (a, b)"]}
