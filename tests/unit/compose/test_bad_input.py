# ruff: noqa: E501 (a case is a line)
"""What is wrong in a file: each thing once, at its line, with what to do instead; all of a file at once."""

import pytest

from tests.unit.compose.files import Files

SERVICE_CASES = [
    (
        "comand: x",
        "compose.yaml:4:5: services.web.comand: there is no key 'comand' in services.web; did you mean 'command'?",
    ),
    ("deploy: {replicas: -1}", "compose.yaml:4:24: services.web.deploy.replicas: -1 is less than 0"),
    ("deploy: {replicas: two}", "services.web.deploy.replicas: this is 'two'; write a whole number"),
    ("deploy: {replicas: [1]}", "services.web.deploy.replicas: this is a list; write a whole number"),
    ("deploy: {replicas: 1.5}", "this is '1.5'; write a whole number"),
    ("deploy: [a]", "services.web.deploy: this is a list; write a mapping"),
    (
        "deploy: {mode: replicatd}",
        "this is 'replicatd'; write 'replicated', 'global', 'replicated-job' or 'global-job'",
    ),
    ("deploy: {mode: global, replicas: 3}", "a global service runs one task on every node"),
    ("deploy: {replicas: 2}\nscale: 3", "'scale' is 3 and 'deploy.replicas' is 2; keep one"),
    ("deploy: {resources: {limits: {memory: 5 parrots}}}", "services.web.deploy.resources.limits.memory"),
    ("deploy: {resources: {limits: {memory: 1k}}}", "nothing runs in less than"),
    ("deploy: {resources: {limits: {cpus: many}}}", "is not a number of CPUs"),
    (
        "mem_limit: 1g\ndeploy: {resources: {limits: {memory: 2g}}}",
        "compose.yaml:4:16: services.web.mem_limit: this differs",
    ),
    ("deploy: {update_config: {delay: 10}}", 'has no unit: did you mean "10s"?'),
    ("deploy: {update_config: {max_failure_ratio: 5}}", "it has to be from 0 to 1"),
    ("deploy: {rollback_config: {failure_action: rollback}}", "write 'pause' or 'continue'"),
    ("deploy: {placement: {constraints: [node.rol == x]}}", 'did you mean "node.role"'),
    ("deploy: {placement: {constraints: [node.role == a, 'node.role = b']}}", "compose.yaml:4:56: services.web.deploy"),
    ("deploy: {placement: {preferences: [node.labels.x]}}", "write a mapping"),
    ("stop_grace_period: soon", 'services.web.stop_grace_period: "soon" is not a duration'),
    ("stop_signal: SIGTREM", "did you mean SIGTERM?"),
    ("user: 'a b'", "services.web.user"),
    ("working_dir: srv", "services.web.working_dir"),
    ("command: 'a \"b'", "the command cannot be split into words"),
    ("command: {a: b}", "services.web.command: this is a mapping"),
    ("environment: [1, {a: b}]", "services.web.environment: this is a list; write a mapping"),
    ("environment: {'': x}", "has no name before"),
    ("environment: {'A=B': x}", "cannot be the name of a variable"),
    ("labels: hello", "services.web.labels"),
    ("networks: one", "services.web.networks: this is 'one'; write a list of names, or a mapping (key: value)"),
    ("networks: [{a: }]", "services.web.networks: this is a list; write a list of names, or a mapping (key: value)"),
    ("depends_on: db", "services.web.depends_on: this is 'db'; write a list of names, or a mapping (key: value)"),
    ("ulimits: {nofile: many}", "services.web.ulimits.nofile: this is 'many'"),
    ("ulimits: {nofiles: 5}", "services.web.ulimits.nofiles"),
    ("ulimits: {nofile: {soft: 5}}", "a limit needs 'soft' and 'hard'"),
    ("cap_add: [NET_ADMN]", "did you mean"),
    ("healthcheck: {test: [curl, x]}", "a test begins with NONE, CMD or CMD-SHELL"),
    ("healthcheck: {interval: 3}", "has no unit"),
    ("extra_hosts: [nonsense]", "an extra host needs a name and an address"),
    ("extra_hosts: ['h:host-gateway']", "there is no gateway to the host"),
    ("sysctls: {kernel.hostname: x}", "services.web.sysctls"),
    ("tmpfs: 'run'", "services.web.tmpfs"),
    ("tmpfs: '/run:size=big'", "is not an amount of bytes"),
    ("platform: amd64", "write OS/ARCHITECTURE"),
    ("restart: sometimes", "is no restart policy"),
    ("read_only: maybe", "this is 'maybe'; write true or false"),
    ("networks: [frnt]", "there is no network 'frnt' in the file"),
    (
        "networks: {default: {aliases: [tasks.db]}}",
        'compose.yaml:4:36: services.web.networks.default.aliases: "tasks.db" means all tasks of db: choose another',
    ),
    ("networks: [default, default]", "compose.yaml:4:25: services.web.networks: 'default' is there twice; remove one"),
    ("extra_hosts: ['h=10.0.0.1', 'h=10.0.0.1']", "4:33: services.web.extra_hosts: 'h=10.0.0.1' is there twice"),
    ("security_opt: [no-new-privileges, no-new-privileges]", "'no-new-privileges' is there twice; remove one"),
    ("networks: [defalt]", "did you mean 'default'?"),
    (
        "networks: {default: {ipv6_address: 'fd00::2'}}",
        "services.web.networks.default.ipv6_address: this is not supported",
    ),
    ("network_mode: host", "would leave the container's isolation"),
    ("network_mode: none", "every container is on a network; remove it, and join one with 'internal: true'"),
    (
        "ports: [http]",
        "compose.yaml:4:13: services.web.ports: 'http' is no port; write 8080:80, 80, or 127.0.0.1:8080:80",
    ),
    ("ports: ['1-2:80']", "2 ports of the hosts and 1 of the container; write as many on both sides"),
    ("ports: ['80:80/sctp']", "there is no protocol 'sctp' for ports; use tcp or udp"),
    ("ports: ['[::1]:80:80']", "ports are published on IPv4 addresses alone"),
    ("ports: ['80:80', '80:81']", "services.web.ports: port 80/tcp is given more than once"),
    ("ports: [{published: 80}]", "the port of the container is missing; add 'target: 80'"),
    ("ports: [{target: 80, mode: nat}]", "services.web.ports.mode: this is 'nat'; write 'ingress' or 'host'"),
    ("ports: [{target: 80, published: 80-81}]", "a range of ports goes in the short form alone"),
    ("ports: [{target: 70000}]", "services.web.ports.target: '70000'; ports are from 1 to 65535"),
    ("volumes: ['data:/x']", "volumes are not there yet"),
    ("configs: [c]", "there is no config 'c' in the file; define it at the top level"),
    ("secrets: [s]", "there is no secret 's' in the file; define it at the top level"),
    ("privileged: true", "services.web.privileged: this is not supported; no container gets the host's rights"),
    ("ipc: host", "every container has an IPC namespace of its own"),
    ("security_opt: ['seccomp:unconfined']", "cannot be set"),
    ("links: ['db:database']", "cannot be given another name"),
    ("depends_on: [nobody]", "services.web.depends_on.nobody: the service 'nobody' is not in the file"),
    ("devices: [/dev/x]", "this is not supported"),
    ("gpus: all", "this is not supported"),
    ("x-argosy: {affinity: [nobody]}", "there is no service 'nobody' in the file; name one of another stack in full"),
    ("x-argosy: {affinity: [{within: node.id}]}", "the service is missing; write a name, or {service: NAME"),
    ("x-argosy: {anti_affinity: [{service: web, within: node.zone}]}", 'nodes have no attribute "node.zone"'),
    ("x-argosy: {affinity: [web], anti_affinity: [web]}", "and away from it, both within the node"),
    ("x-argosy: {canarry: 1}", "there is no key 'canarry' in services.web.x-argosy; did you mean 'canary'?"),
    ("healthcheck: {}\nx-argosy: {liveness: {tcp: {port: 1}}}", "'healthcheck' and 'liveness' ask the same; keep one"),
    ("x-argosy: {liveness: {tcp: {port: 1}, test: a}}", "tcp and test are more than one way to ask; keep one of them"),
    ("x-argosy: {readiness: {interval: 1s}}", "it does not say how to ask the task; add one of http, tcp, grpc, test"),
    ("x-argosy: {readiness: {tcp: {}}}", "the port is missing; add 'port: 8080'"),
    ("x-argosy: {readiness: {http: {port: 70000}}}", "70000 is more than 65535"),
    ("x-argosy: {readiness: {http: {port: 1, path: health}}}", 'has to begin with "/": write "/health"'),
    ("canary: 1", "'canary' is a key of ours: it stands below 'x-argosy' of the service"),
    (
        "x-argosy: {max_unavailable: half}",
        'max_unavailable is "half": write a number of tasks such as 2, or a share such',
    ),
    ("x-argosy: {disconnect: fences}", "this is 'fences'; write 'replace', 'keep' or 'fence'"),
    ("deploy: {drain_timeout: 1s}", "'drain_timeout' is a key of ours: it stands below 'x-argosy' of the service"),
    ("x-argosy: {user: a}", "'user' stands right below the service"),
    ("replicas: 3", "there is no key 'replicas' in services.web; 'replicas' stands below 'deploy'"),
    ("deploy: {image: x}", "'image' stands right below the service: is it indented too far?"),
    ("build: {contxt: .}", "did you mean 'context'?"),
]


@pytest.mark.parametrize(("body", "said"), SERVICE_CASES, ids=[case[0] for case in SERVICE_CASES])
def test_service(files: Files, body: str, said: str) -> None:
    found = files.service_problems(body)
    assert len(found) == 1, found
    assert said in found[0]


FILE_CASES = [
    ("services: {web: {}}", "compose.yaml:1:17: services.web: the service has no 'image'"),
    ("services: {web: {build: .}}", "nothing is built in the cluster, and there is no 'image'"),
    ("services: {web: {imgae: web}}", "did you mean 'image'?"),
    ("services:\n", "there is no service in the file"),
    ("services: [web]", "services: this is a list; write a mapping"),
    ("services: {web: hello}", "services.web: this is 'hello'; write a mapping"),
    ("services: {web: {image: 'A B'}}", "services.web.image"),
    ("services: {w.x: {image: web}}", "services.w.x: the service's name: "),
    ("servces: {web: {image: web}}", "did you mean 'services'?"),
    (
        "services:\n\tweb: {image: web}",
        "compose.yaml:2:1: this is no valid YAML: while scanning for the next token found character "
        "that cannot start any token; a tab is there: indent with spaces",
    ),
    ("image: web\nservices: {web: {image: web}}", "'image' belongs to a service"),
    ("services: {web: {image: web}}\nx-argosy: {a: 1}", "'x-argosy' has no meaning here; put it right below a service"),
    ("services: {web: {image: web}}\nvolumes: {data: }", "volumes are not there yet"),
    ("services: {web: {image: web}}\nnetworks: {default: {driver: macvlan}}", "there is no driver 'macvlan'"),
    (
        "services: {web: {image: web}}\nnetworks: {default: {ipam: {config: [{subnet: 10.0.0.0/30}]}}}",
        "compose.yaml:2:47: networks.default.ipam.config.subnet: ",
    ),
    (
        "services: {web: {image: web}}\nnetworks: {default: {ipam: {config: [{subnet: 'fd00::/64'}]}}}",
        "networks have IPv4 only",
    ),
    (
        "services: {web: {image: web}}\nnetworks: {default: {ipam: {config: [{subnet: 10.1.0.0/16}, {subnet: 10.2.0.0/16}]}}}",
        "a network has one subnet",
    ),
    (
        "services: {web: {image: web}}\nnetworks: {default: {external: true, internal: true}}",
        "has no effect on an external",
    ),
    (
        "services: {web: {image: web}}\nnetworks: {default: {driver_opts: {com.docker.network.bridge.name: br0}}}",
        "the overlay has no option 'com.docker.network.bridge.name'",
    ),
    (
        "services: {web: {image: web}}\nnetworks: {default: {driver_opts: {com.docker.network.driver.mtu: wide}}}",
        "'wide' is no MTU; write a number of bytes, such as 1400",
    ),
    (
        "services: {web: {image: web}}\nnetworks: {default: {ipam: {config: [{aux_addresses: {a: 10.9.0.1}}]}}}",
        "nothing outside the cluster has an address on an overlay; to keep addresses for services, give an 'ip_range'",
    ),
    (
        "services: {web: {image: web}}\nnetworks: {default: {driver_opts: {encrypted: perhaps}}}",
        "write true or false",
    ),
    ("services: {web: {image: web}}\nnetworks: {default: {x-argosy: {a: 1}}}", "'x-argosy' has no meaning here"),
]


@pytest.mark.parametrize(("text", "said"), FILE_CASES, ids=[case[0] for case in FILE_CASES])
def test_file(files: Files, text: str, said: str) -> None:
    found = files.problems(text)
    assert len(found) == 1, found
    assert said in found[0]


def test_a_dependency_that_is_there_twice(files: Files) -> None:
    text = "services:\n  db: {image: db}\n  web: {image: web, depends_on: [db, db]}\n"
    assert files.problems(text) == ["compose.yaml:3:38: services.web.depends_on: 'db' is there twice; remove one"]


NETWORKS = """
services:
  web:
    image: web
    networks:
      nowhere:
      a:
        aliases:
        - web
        - fine
        - fine
        - "not good"
      b:
        ipv4_address: 10.9.0
networks:
  a:
    ipam:
      config:
      - subnet: 10.9.0.0/16
      - ip_range: 10.8.0.0/24
  b:
    driver_opts:
      com.docker.network.driver.mtu: 5
"""


def test_each_problem_of_networks_is_told_at_its_own_line(files: Files) -> None:
    places = [": ".join(problem.split(": ")[:2]) for problem in files.problems(NETWORKS)]
    assert places == [
        "compose.yaml:6:7: services.web.networks.nowhere",
        "compose.yaml:12:11: services.web.networks.a.aliases",
        "compose.yaml:14:23: services.web.networks.b.ipv4_address",
        "compose.yaml:20:19: networks.a.ipam.config.ip_range",
        "compose.yaml:23:38: networks.b.driver_opts.com.docker.network.driver.mtu",
    ]


PORTS = """
services:
  web:
    image: web
    ports:
    - 8000-8003:80-83
    - {target: 53, published: 53, protocol: udp, mode: host}
    - 14789:90/udp
    - target: 91
      published: 14789
      protocol: udp
      mode: host
    - 127.0.0.1:8002:99
    - {target: 8003, published: 8003, mode: host}
    - 8003
    - {target: 8003}
"""


def test_each_problem_of_ports_is_told_at_its_own_line(files: Files) -> None:
    places = [": ".join(problem.split(": ")[:3]).partition(" is ")[0] for problem in files.problems(PORTS)]
    assert places == [
        "compose.yaml:8:7: services.web.ports: port 14789/udp",
        "compose.yaml:10:18: services.web.ports.published: port 14789/udp",
        "compose.yaml:10:18: services.web.ports.published: port 14789/udp",  # and given more than once
        "compose.yaml:13:7: services.web.ports: port 8002/tcp",
        "compose.yaml:14:33: services.web.ports.published: port 8003/tcp",
        "compose.yaml:16:7: services.web.ports: port 8003/tcp of the container",
    ]


def test_all_problems_of_a_file_are_shown_together_in_order(files: Files) -> None:
    text = """
services:
  web:
    image: web
    ports: [http]
    deploy:
      replicas: -2
      updat_config: {}
    stop_signal: NOPE
  db:
    image: db
    ulimits: {nofile: x}
"""
    places = [problem.partition(": ")[0] for problem in files.problems(text)]
    assert places == [
        "compose.yaml:5:13",
        "compose.yaml:7:17",
        "compose.yaml:8:7",
        "compose.yaml:9:18",
        "compose.yaml:12:23",
    ]


NOTICES = [
    (
        "cap_add: [NET_ADMIN, CHOWN, NET_ADMIN]",
        "services.web.cap_add",
        "compose.yaml:4:33: services.web.cap_add: 'NET_ADMIN' is there twice",
    ),
    (
        "networks: {default: {aliases: [a, a]}}",
        "services.web.networks.default.aliases",
        "4:39: services.web.networks.default.aliases: 'a' is there twice",
    ),
    (
        "environment: [A=1, A=1]",
        "services.web.environment",
        "compose.yaml:4:24: services.web.environment: 'A' is there twice; remove one",
    ),
    (
        "ports: [80, '80']",
        "services.web.ports",
        "compose.yaml:4:17: services.web.ports: '80' is there twice; remove one",
    ),
    (
        "ports: [{target: 80}, {target: 80}]",
        "services.web.ports",
        "compose.yaml:4:27: services.web.ports: this is there twice; remove one",
    ),
    (
        "tmpfs: [/run, /run]",
        "services.web.tmpfs",
        "compose.yaml:4:19: services.web.tmpfs: '/run' is there twice; remove one",
    ),
    ("build: .", "services.web.build", "the image of 'image' is used"),
    ("container_name: x", "services.web.container_name", "STACK_NAME.SLOT"),
    ("expose: ['80']", "services.web.expose", "every port is reachable"),
    ("tty: true", "services.web.tty", "a service has no terminal"),
    ("logging: {driver: syslog}", "services.web.logging", "argosy logs"),
    ("links: [web]", "services.web.links", "it has no effect"),
    (
        "restart: always\ndeploy: {restart_policy: {delay: 1s}}",
        "services.web.restart",
        "restart_policy' is used instead",
    ),
    (
        "deploy: {restart_policy: {condition: none, max_attempts: 3}}",
        "services.web.deploy.restart_policy.max_attempts",
        "compose.yaml:4:62: services.web.deploy.restart_policy.max_attempts: what is never restarted makes no attempts",
    ),
    (
        "healthcheck: {disable: true, interval: 5s}",
        "services.web.healthcheck.interval",
        "the check is disabled: it has no effect",
    ),
    (
        "deploy: {restart_policy: {window: 2m}}",
        "services.web.deploy.restart_policy.window",
        "not limited: it has no effect; add max_attempts",
    ),
    (
        "deploy: {restart_policy: {delay: 30s, window: 10s, max_attempts: 3}}",
        "services.web.deploy.restart_policy.max_attempts",
        "take more than 3m30s, and after a window of 10s they are counted anew: what fails is restarted for ever",
    ),
    (
        "deploy: {endpoint_mode: dnsrr}\nx-argosy: {client_affinity: true}",
        "services.web.x-argosy.client_affinity",
        "compose.yaml:5:33: services.web.x-argosy.client_affinity: by 'endpoint_mode: dnsrr' clients choose",
    ),
    (
        "deploy: {endpoint_mode: dnsrr}\nx-argosy: {weight: 3}",
        "services.web.x-argosy.weight",
        "it has no effect; remove it, or publish a port",
    ),
]


@pytest.mark.parametrize(("body", "path", "said"), NOTICES, ids=[case[0] for case in NOTICES])
def test_notices(files: Files, body: str, path: str, said: str) -> None:
    stack = files.load("services:\n  web:\n    image: web\n    " + body.replace("\n", "\n    ") + "\n")
    assert [notice.path for notice in stack.notices] == [path]
    assert said in str(stack.notices[0])


def test_what_ports_are_balanced_by_is_not_noticed(files: Files) -> None:
    body = "deploy: {endpoint_mode: dnsrr}, ports: ['80:80'], x-argosy: {client_affinity: true, weight: 3}"
    assert files.load(f"services: {{web: {{image: web, {body}}}}}").notices == ()


def test_version_is_noticed(files: Files) -> None:
    stack = files.load("version: '3.9'\nservices: {web: {image: web}}")
    assert [notice.path for notice in stack.notices] == ["version"]


def test_a_service_that_is_left_out_is_only_held_against_its_spelling(files: Files) -> None:
    text = "services:\n  web: {image: web}\n  x: {image: x, profiles: [p], ports: ['1:1'], prots: []}\n"
    found = files.problems(text)
    assert len(found) == 1
    assert "did you mean 'ports'?" in found[0]
