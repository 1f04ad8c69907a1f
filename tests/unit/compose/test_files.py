"""File sets: variables, .env, merging, extends, include, profiles, names."""

import os
from pathlib import Path

import pytest

from argosy.cli.compose.problems import ComposeError
from argosy.cli.compose.stack import Input, default_files, load_stack
from tests.unit.compose.files import Files, by_name


def env_of(spec: object) -> dict[str, str]:
    return dict(entry.split("=", 1) for entry in spec.task.container.env)  # type: ignore[attr-defined]


# ---------------------------------------------------------------- variables


def test_variables_come_from_the_shell_then_from_dotenv(files: Files) -> None:
    files.write(".env", "TAG=dotenv\nUSERNAME=dotenv\n")
    text = "services: {web: {image: 'web:${TAG}', user: $USERNAME}}"
    container = files.load(text, env={"TAG": "shell"}).services[0].task.container
    assert (container.image, container.user) == ("web:shell", "dotenv")


def test_env_file_options_replace_dotenv(files: Files) -> None:
    files.write(".env", "TAG=dotenv\n")
    one, two = files.write("one.env", "TAG=one\nWHO=one\n"), files.write("two.env", "TAG=two\n")
    text = "services: {web: {image: 'web:${TAG}', user: $WHO}}"
    container = files.load(text, env_files=(one, two)).services[0].task.container
    assert (container.image, container.user) == ("web:two", "one")


def test_keys_are_not_interpolated(files: Files) -> None:
    spec = files.service("labels: {$KEY: $KEY}", env={"KEY": "v"})
    assert spec.task.container.labels == {"$KEY": "v"}


def test_an_unset_variable_is_noticed(files: Files) -> None:
    stack = files.load("services:\n  web:\n    image: web\n    user: x$NOBODY\n")
    assert [(n.position.line, n.path) for n in stack.notices] == [(4, "services.web.user")]
    assert "NOBODY is not set" in str(stack.notices[0])


def test_a_required_variable_is_a_problem_with_its_place(files: Files) -> None:
    found = files.problems("services:\n  web:\n    image: web:${TAG:?which one}\n")
    assert found[0].startswith("compose.yaml:3:12: services.web.image: the variable TAG is empty or not set: which one")


def test_interpolated_values_are_typed_by_their_key(files: Files) -> None:
    spec = files.service("deploy: {replicas: $N}\nread_only: ${RO}", env={"N": "4", "RO": "true"})
    assert spec.replicas == 4
    assert spec.task.container.read_only


def test_the_stack_s_name_is_a_variable(files: Files) -> None:
    assert files.service("hostname: h-$COMPOSE_PROJECT_NAME").task.container.hostname == "h-shop"


# ---------------------------------------------------------------- merging

BASE = """
services:
  web:
    image: web:1
    command: [a, b]
    environment: {A: base, B: base}
    labels: [l=base, m=base]
    dns: 1.1.1.1
    cap_add: [NET_ADMIN]
    networks: [front]
    healthcheck: {test: [CMD, a], interval: 1s}
    deploy: {replicas: 2, resources: {limits: {cpus: '1', memory: 64m}}}
    extra_hosts: ["h=10.0.0.1", "k=10.0.0.2"]
    tmpfs: /run
networks:
  front: {labels: {a: '1'}}
  back:
"""


def test_later_files_are_merged_over_earlier_ones(files: Files) -> None:
    over = """
    services:
      web:
        image: web:2
        command: [c]
        environment: [B=over, C=over]
        labels: {m: over}
        dns: [8.8.8.8, 1.1.1.1]
        cap_add: [NET_ADMIN, SYS_TIME]
        networks: {back: {aliases: [w]}}
        healthcheck: {test: [CMD, b]}
        deploy: {resources: {limits: {memory: 128m}}}
        extra_hosts: {h: 10.9.9.9}
        tmpfs: [/tmp]
      db: {image: db}
    """
    services = by_name(files.load(BASE, over))
    container = services["web"].task.container
    assert container.image == "web:2"
    assert container.command == ("c",)
    assert env_of(services["web"]) == {"A": "base", "B": "over", "C": "over"}
    assert container.labels == {"l": "base", "m": "over"}
    assert container.dns.nameservers == ("1.1.1.1", "8.8.8.8")
    assert container.cap_add == ("NET_ADMIN", "SYS_TIME")
    assert [(n.target, n.aliases) for n in services["web"].task.networks] == [
        ("shop_front", ("web",)),
        ("shop_back", ("web", "w")),
    ]
    assert container.healthcheck is not None
    assert (container.healthcheck.test, container.healthcheck.interval) == (("CMD", "b"), 1.0)
    assert services["web"].replicas == 2
    assert services["web"].task.limits.cpus == 1.0
    assert services["web"].task.limits.memory_bytes == 128 << 20
    assert container.extra_hosts == ("h:10.9.9.9", "k:10.0.0.2")
    assert [t.target for t in container.tmpfs] == ["/run", "/tmp"]
    assert set(services) == {"web", "db"}


def test_reset_removes_and_override_replaces(files: Files) -> None:
    over = """
    services:
      web:
        command: !reset null
        environment: {A: !reset null, D: new}
        dns: !override [9.9.9.9]
        deploy: !override {replicas: 5}
        healthcheck: !reset
        networks: !reset []
    """
    stack = files.load(BASE, over)
    web = stack.services[0]
    assert not web.task.container.command_set
    assert env_of(web) == {"B": "base", "D": "new"}
    assert web.task.container.dns.nameservers == ("9.9.9.9",)
    assert (web.replicas, web.task.limits.cpus) == (5, 0.0)
    assert web.task.container.healthcheck is None
    assert [n.target for n in web.task.networks] == ["shop_default"]


def test_what_a_third_file_sets_again_after_a_reset_is_there(files: Files) -> None:
    second = "services: {web: {command: !reset null}}"
    third = "services: {web: {command: [z]}}"
    assert files.load(BASE, second, third).services[0].task.container.command == ("z",)


def test_an_empty_section_in_a_later_file_changes_nothing(files: Files) -> None:
    over = "services:\n  web:\n    deploy:\n    labels:\n"
    assert files.load(BASE, over).services[0].replicas == 2


def test_problems_name_the_file_they_are_in(files: Files) -> None:
    found = files.problems(BASE, "services:\n  web:\n    deploy: {replicas: -1}\n")
    assert found == ["compose-1.yaml:3:24: services.web.deploy.replicas: -1 is less than 0; write a number from 0 up"]


# ---------------------------------------------------------------- extends


def test_extends_in_a_chain(files: Files) -> None:
    text = """
    services:
      base: {image: busybox, user: root, environment: {TZ: utc, PORT: '80'}, cap_add: [KILL]}
      common: {extends: base, image: common}
      cli: {extends: {service: common}, environment: {PORT: '8080'}, cap_add: [KILL, CHOWN]}
    """
    cli = by_name(files.load(text))["cli"]
    assert (cli.task.container.image, cli.task.container.user) == ("common", "root")
    assert env_of(cli) == {"TZ": "utc", "PORT": "8080"}
    assert cli.task.container.cap_add == ("KILL", "CHOWN")


def test_extends_from_another_file_brings_that_file_s_paths(files: Files) -> None:
    files.write(
        "shared/common.yml", "services:\n  app:\n    extends: {file: deeper/x.yml, service: x}\n    env_file: a.env\n"
    )
    files.write("shared/a.env", "A=shared\n")
    files.write("shared/deeper/x.yml", "services: {x: {image: deep, env_file: b.env}}")
    files.write("shared/deeper/b.env", "B=deep\n")
    text = "services: {web: {extends: {file: shared/common.yml, service: app}}}"
    web = files.load(text).services[0]
    assert web.task.container.image == "deep"
    assert env_of(web) == {"A": "shared", "B": "deep"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("services: {a: {image: i, extends: b}, b: {image: i, extends: a}}", "circle: a → b → a"),
        ("services: {a: {image: i, extends: a}}", "circle: a → a"),
        ("services: {a: {image: i, extends: nobody}}", "no service 'nobody' to extend; there are: a"),
        ("services: {a: {image: i, extends: {file: no.yml, service: x}}}", "there is no file"),
        ("services: {a: {image: i, extends: {file: compose.yaml, service: x}}}", "no service 'x' in compose.yaml"),
        ("services: {a: {image: i, extends: {servcie: x}}}", "there is no key 'servcie'"),
    ],
)
def test_extends_that_cannot_be(files: Files, text: str, said: str) -> None:
    assert any(said in problem for problem in files.problems(text))


# ---------------------------------------------------------------- include


def test_include_brings_services_with_their_own_directory_and_dotenv(files: Files) -> None:
    files.write(
        "db/compose.yaml",
        "services: {db: {image: 'db:$TAG', env_file: db.env, networks: [back]}}\nnetworks: {back: }\n",
    )
    files.write("db/.env", "TAG=theirs\n")
    files.write("db/db.env", "WHO=$TAG\n")
    text = "include: [db/compose.yaml]\nservices: {web: {image: 'web:${TAG:-mine}', networks: [back]}}\n"
    services = by_name(files.load(text))
    assert services["db"].task.container.image == "db:theirs"
    assert services["web"].task.container.image == "web:mine"
    assert services["web"].task.networks[0].target == "shop_back"
    assert by_name(files.load(text, env={"TAG": "ours"}))["db"].task.container.image == "db:ours"


def test_include_in_its_long_form_merges_its_files(files: Files) -> None:
    files.write("x/a.yaml", "services: {db: {image: 'a:$T', env_file: e.env}}")
    files.write("x/b.yaml", "services: {db: {user: root}}")
    files.write("home/e.env", "E=1\n")
    files.write("vars.env", "T=7\n")
    text = """
    include:
      - path: [x/a.yaml, x/b.yaml]
        project_directory: home
        env_file: vars.env
    services: {web: {image: web}}
    """
    db = by_name(files.load(text))["db"]
    assert (db.task.container.image, db.task.container.user) == ("a:7", "root")
    assert env_of(db) == {"E": "1"}


def test_include_of_a_different_definition_is_a_conflict(files: Files) -> None:
    files.write("other.yaml", "services:\n  web: {image: other}\n  same: {image: same}\n")
    text = "include: [other.yaml]\nservices:\n  web: {image: web}\n  same: {image: same}\n"
    found = files.problems(text)
    assert len(found) == 1
    assert "other.yaml:2:3: services.web: 'web' is defined by" in found[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("include: [compose.yaml]\nservices: {a: {image: i}}", "the file includes itself"),
        ("include: [none.yaml]\nservices: {a: {image: i}}", "there is no such file"),
        ("include: [{pth: x}]\nservices: {a: {image: i}}", "there is no key 'pth'"),
        ("include: {a: b}\nservices: {a: {image: i}}", "write a list"),
    ],
)
def test_include_that_cannot_be(files: Files, text: str, said: str) -> None:
    assert any(said in problem for problem in files.problems(text))


# ---------------------------------------------------------------- profiles, names

PROFILES = """
services:
  web: {image: web}
  debug: {image: debug, profiles: [debug, all]}
  other: {image: other, profiles: [other], ports: ["80:80"]}
"""


@pytest.mark.parametrize(
    ("profiles", "env", "names"),
    [
        ((), {}, {"web"}),
        (("debug",), {}, {"web", "debug"}),
        ((), {"COMPOSE_PROFILES": "x, all"}, {"web", "debug"}),
        (("none",), {"COMPOSE_PROFILES": "all"}, {"web"}),
    ],
)
def test_profiles(files: Files, profiles: tuple[str, ...], env: dict[str, str], names: set[str]) -> None:
    assert set(by_name(files.load(PROFILES, profiles=profiles, env=env))) == names


def test_all_services_left_out_is_a_problem(files: Files) -> None:
    found = files.problems("services: {web: {image: web, profiles: [x]}}")
    assert found == ["compose.yaml:1:1: every service is left out by its profiles; activate one with --profile NAME"]


def test_the_stack_s_name(files: Files) -> None:
    text = "name: mine\nservices: {web: {image: web}}"
    assert files.load(text, stack="").name == "mine"
    assert files.load(text, stack="given").name == "given"
    assert "the stack has no name" in files.problems("services: {web: {image: web}}", stack="")[0]
    assert "is not a name" in files.problems("name: 'a b'\nservices: {web: {image: web}}", stack="")[0]


def test_default_files(tmp_path: Path) -> None:
    assert default_files(tmp_path, {}) == []
    for name in ("docker-compose.yml", "compose.yml", "compose.override.yml"):
        (tmp_path / name).touch()
    assert default_files(tmp_path, {}) == ["compose.yml", "compose.override.yml"]
    assert default_files(tmp_path, {"COMPOSE_FILE": f"a{os.pathsep}b"}) == ["a", "b"]


def test_a_file_that_cannot_be_read(files: Files, tmp_path: Path) -> None:
    with pytest.raises(ComposeError, match="no such file"):
        load_stack(Input([str(tmp_path / "none.yaml")], "s"), {})
    with pytest.raises(ComposeError, match="is a directory"):
        load_stack(Input([str(tmp_path)], "s"), {})
    (tmp_path / "latin.yaml").write_bytes(b"services: {web: {image: \xe9}}")
    with pytest.raises(ComposeError, match="UTF-8"):
        load_stack(Input([str(tmp_path / "latin.yaml")], "s"), {})


def test_stdin() -> None:
    stack = load_stack(Input(["-"], "s", stdin="services: {web: {image: web}}"), {})
    assert stack.services[0].name == "s_web"
    with pytest.raises(ComposeError, match=r"<stdin>:1:18: services\.web\.imag: "):
        load_stack(Input(["-"], "s", stdin="services: {web: {imag: web}}"), {})
