"""From a Compose file set to what the cluster is asked for: the entry to this package.

    files ─► tree (files.py: variables, extends, merge, include) ─► table of keys (check.py) ─► specs ─► core validation

Everything that is wrong is collected over all steps and raised at once; nothing is sent before a file is whole.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from argosy.cli.compose.affinities import affinities
from argosy.cli.compose.check import check_keys
from argosy.cli.compose.container import container_spec
from argosy.cli.compose.cursor import Cursor
from argosy.cli.compose.deployment import (
    endpoint_mode,
    find,
    placement,
    resources,
    restart_policy,
    service_mode,
    update_config,
)
from argosy.cli.compose.document import Map
from argosy.cli.compose.extension import (
    canary,
    client_affinity,
    disconnect,
    drain_timeout,
    max_unavailable,
    notice_unbalanced,
    weight,
)
from argosy.cli.compose.files import Reader, combine
from argosy.cli.compose.jobs import awaited, check_order, depends_on, job_spec
from argosy.cli.compose.mounted import ExternalFile, MountedFiles
from argosy.cli.compose.networks import DefinedNetwork, attachments, defined_networks
from argosy.cli.compose.ports import published_ports
from argosy.cli.compose.problems import ComposeError, Findings, Position, Problem
from argosy.cli.compose.where import place_in_network, place_of
from argosy.cli.ports import split_modes
from argosy.core.files import NewFile
from argosy.core.meta import STACK_LABEL
from argosy.core.names import service_name_problem, stack_name, unstacked_name
from argosy.core.network import NetworkSpec
from argosy.core.service import JOB_MODES, DependencyCondition, EndpointSpec, RestartCondition, ServiceSpec, TaskSpec
from argosy.core.validate import validate_network, validate_service

FILE_NAMES: Final = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
OVERRIDE_NAMES: Final = ("compose.override.yaml", "compose.override.yml")


@dataclass(frozen=True, slots=True)
class ExternalNetwork:
    """A network that the stack joins and that must exist already; `position` is where the file says so."""

    name: str
    position: Position


@dataclass(frozen=True, slots=True)
class Stack:
    """What a file set asks for.

    `origins`: where the files say it of what they define, by kind ("service", "network") and name in the cluster.
    """

    name: str
    services: tuple[ServiceSpec, ...]
    networks: tuple[NetworkSpec, ...]
    external_networks: tuple[ExternalNetwork, ...]
    notices: tuple[Problem, ...]
    configs: tuple[NewFile, ...] = ()
    secrets: tuple[NewFile, ...] = field(default=(), repr=False)
    external_files: tuple[ExternalFile, ...] = ()
    origins: Mapping[tuple[str, str], Cursor] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Input:
    """Where a stack is read from. `stack` "" means: as the files' `name` says. `stdin` is the file "-".

    `ship_files`: binds of files become configs.
    """

    files: Sequence[str]
    stack: str = ""
    env_files: Sequence[str] = ()
    profiles: Sequence[str] = ()
    stdin: str = ""
    ship_files: bool = False


def default_files(directory: Path, environ: Mapping[str, str]) -> list[str]:
    """Return the files to read when none is named: those of COMPOSE_FILE, else the usual names in `directory`."""
    if environ.get("COMPOSE_FILE"):
        return environ["COMPOSE_FILE"].split(environ.get("COMPOSE_PATH_SEPARATOR") or ":")
    found = [name for name in FILE_NAMES if (directory / name).is_file()][:1]
    return found + [name for name in OVERRIDE_NAMES if found and (directory / name).is_file()][:1]


def load_stack(given: Input, environ: Mapping[str, str]) -> Stack:
    """Return the stack that a file set asks for. Raises ComposeError with everything that is wrong with it."""
    findings = Findings()
    reader = Reader(findings, given.stdin)
    directory = Path(given.files[0]).parent if given.files[0] != "-" else Path()
    env = _environment(reader, given, directory, environ)
    sets = reader.read_set([Path(file) for file in given.files], directory, env)
    if not sets:
        raise ComposeError(findings.problems)
    enabled = _enabled([one.root for one in sets], given, env)
    for one in sets:
        check_keys(Cursor(one.root, "", findings), enabled=enabled)
    root = Cursor(combine(sets, findings), "", findings)
    name = _stack_name(root, given, env)
    if name:
        stack = _Builder(root, name, env, enabled, reader, MountedFiles(root, name, env, given.ship_files)).build()
    problems = [*findings.problems, *reader.repeats.problems]
    if problems or not name:
        raise ComposeError(problems)
    return stack


def _environment(reader: Reader, given: Input, directory: Path, environ: Mapping[str, str]) -> dict[str, str]:
    env_files = [str(Path(name).absolute()) for name in given.env_files]
    env = {**reader.environment(env_files, directory, environ, Position("--env-file")), **environ}
    if given.stack:
        env["COMPOSE_PROJECT_NAME"] = given.stack
    return env


def _stack_name(root: Cursor, given: Input, env: Mapping[str, str]) -> str:
    name_at = root.get("name")
    name = given.stack or env.get("COMPOSE_PROJECT_NAME", "") or ((name_at.text() or "") if name_at is not None else "")
    if not name:
        root.problem("the stack has no name", "give one: argosy deploy -c FILE NAME, or 'name: NAME' in the file")
        return ""
    problem = service_name_problem(name)
    if problem:
        (name_at if name_at is not None and not given.stack else root).problem(f"the stack's name: {problem}")
        return ""
    return name


def _enabled(roots: Sequence[Map], given: Input, env: Mapping[str, str]) -> frozenset[str]:
    """Return the names of the services that are not left out by their profiles."""
    active = set(given.profiles) or {p.strip() for p in env.get("COMPOSE_PROFILES", "").split(",") if p.strip()}
    names = set()
    for root in roots:
        services = Cursor(root, "", Findings()).get("services")
        for name, service in services.own_entries() if services is not None else ():
            profiles = service.get("profiles")
            wanted = profiles.texts() if profiles is not None else ()
            if not wanted or "*" in active or active.intersection(wanted):
                names.add(name)
    return frozenset(names)


class _Builder:
    """Turns the combined tree into specs."""

    def __init__(
        self,
        root: Cursor,
        stack: str,
        env: Mapping[str, str],
        enabled: frozenset[str],
        reader: Reader,
        files: MountedFiles,
    ) -> None:
        self._root = root
        self._stack = stack
        self._env = env
        self._enabled = enabled
        self._reader = reader
        self._files = files
        self._used: set[str] = set()
        self._awaited: frozenset[str] = frozenset()
        self._names: frozenset[str] = frozenset()
        self._origins: dict[tuple[str, str], Cursor] = {}

    def build(self) -> Stack:
        findings = self._root.findings
        defined = defined_networks(self._root, self._stack)
        services = self._root.get("services")
        everything = dict(services.own_entries()) if services is not None and services.mapping() else {}
        deployed = {name: at for name, at in everything.items() if name in self._enabled and at.mapping()}
        self._awaited = awaited(deployed)
        self._names = frozenset(deployed)
        specs = [self._service(name, at, defined) for name, at in deployed.items()]
        if not specs and not findings.problems:
            self._root.problem(*self._nothing(services))
        check_order(deployed, everything)
        self._check_completions(deployed, specs)
        networks = self._networks(defined)
        self._files.unused()
        external = [n for n in defined.values() if n.external and n.key in self._used]
        return Stack(
            name=self._stack,
            services=tuple(specs),
            networks=tuple(networks),
            external_networks=tuple(ExternalNetwork(n.spec.name, n.position) for n in external),
            notices=tuple(sorted([*findings.notices, *self._reader.repeats.notices], key=lambda n: n.position)),
            configs=tuple(self._files.configs.values()),
            secrets=tuple(self._files.secrets.values()),
            external_files=tuple(self._files.external.values()),
            origins=self._origins,
        )

    def _nothing(self, services: Cursor | None) -> tuple[str, str]:
        if services is None or not isinstance(services.node, Map) or not services.node.entries:
            return "there is no service in the file", "declare one below 'services:'"
        return "every service is left out by its profiles", "activate one with --profile NAME"

    def _service(self, name: str, at: Cursor, defined: Mapping[str, DefinedNetwork]) -> ServiceSpec:
        problem = service_name_problem(name)
        if problem:
            at.findings.problem(at.key_position, at.path, f"the service's name: {problem}")
        mode, replicas = service_mode(at)
        is_job = mode in JOB_MODES
        limits, reservations = resources(at)
        labels = at.get("deploy")
        labels = labels.get("labels") if labels is not None else None
        _reject_values(at)
        canaries = canary(at)
        everywhere, own_ports = split_modes(published_ports(at))
        spec = ServiceSpec(
            name=stack_name(self._stack, name),
            labels={**(labels.text_map() if labels is not None else {}), STACK_LABEL: self._stack},
            mode=mode,
            replicas=1 if is_job or replicas is None else replicas,
            task=TaskSpec(
                container=replace(container_spec(at, self._env, self._read), files=self._files.of(name, at)),
                limits=limits,
                reservations=reservations,
                restart=restart_policy(at, self._restarts(name, at, is_job)),
                placement=replace(placement(at), affinities=affinities(at, self._stack, self._names)),
                networks=attachments(at, name, defined, self._used),
                host_ports=own_ports,
                drain_timeout=drain_timeout(at),
                weight=weight(at),
            ),
            update=update_config(at, "update_config"),
            rollback=update_config(at, "rollback_config"),
            canary=canaries.count,
            auto_promote=canaries.auto_promote,
            max_unavailable=max_unavailable(at),
            disconnect=disconnect(at),
            job=job_spec(at, mode, replicas if is_job else None),
            depends_on=depends_on(at, self._stack),
            endpoint=EndpointSpec(endpoint_mode(at), client_affinity(at), everywhere),
        )
        self._origins["service", spec.name] = at
        notice_unbalanced(at, spec.endpoint)
        told = at.problems_below()
        for wrong in validate_service(spec):
            place = place_of(at, wrong.where)
            if wrong.where == "task.container.image" and not spec.task.container.image:
                continue  # said already, with what to do
            if not any(p.position == place.position or p.path == place.path for p in told):
                place.problem(wrong.what)
        return spec

    def _read(self, path: Path, name: str, at: Cursor) -> str | None:
        shown = str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else name
        return self._reader.read_text(path, shown, at.position)

    def _networks(self, defined: Mapping[str, DefinedNetwork]) -> list[NetworkSpec]:
        networks = self._root.get("networks")
        found = []
        for network in defined.values():
            at = networks.find(network.key) if networks is not None else None
            if network.key not in self._used:
                if at is not None:
                    at.findings.notice(at.key_position, at.path, "no service joins it: it is not made")
                continue
            if network.external:
                continue
            found.append(network.spec)
            if at is not None:
                self._origins["network", network.spec.name] = at
            where = at if at is not None else self._root
            for wrong in validate_network(network.spec):
                place_in_network(where, wrong.where).problem(wrong.what)
        return found

    def _restarts(self, name: str, at: Cursor, is_job: bool) -> RestartCondition:
        """Return when a service restarts that does not say so: one that others wait to complete is not run again."""
        if is_job:
            return RestartCondition.ON_FAILURE
        given = find(at, "deploy", "restart_policy", "condition") or at.get("restart")
        if name not in self._awaited or given is not None:
            return RestartCondition.ANY
        at.findings.notice(
            at.key_position,
            at.path,
            "others wait for it to complete, so it is not run again once it has ended with 0",
            "write restart: on-failure, or mode: replicated-job, to say so yourself",
        )
        return RestartCondition.ON_FAILURE

    def _check_completions(self, deployed: Mapping[str, Cursor], specs: Sequence[ServiceSpec]) -> None:
        """Report what waits for the end of a service that is told to restart whenever it ends."""
        endless = {
            s.name for s in specs if s.mode not in JOB_MODES and s.task.restart.condition is RestartCondition.ANY
        }
        for at, spec in zip(deployed.values(), specs, strict=True):
            for wanted in spec.depends_on:
                if wanted.condition is DependencyCondition.COMPLETED and wanted.service in endless:
                    name = unstacked_name(self._stack, wanted.service)
                    place = find(at, "depends_on", name, "condition")
                    (place or at).problem(
                        f"'{name}' restarts whenever it ends, so it never completes",
                        f"give '{name}' restart: on-failure, or mode: replicated-job",
                    )


def _reject_values(service: Cursor) -> None:
    """Report the keys of which the table refuses some values only, and that no other reader looks at."""
    rules: tuple[tuple[str, tuple[str, ...], str, str], ...] = (
        ("cgroup", ("private",), "the host's cgroups stay hidden", "remove it"),
        (
            "ipc",
            ("private", "shareable"),
            "every container has an IPC namespace of its own",
            "let them talk over a network",
        ),
        ("isolation", ("default",), "it exists on Windows only", "remove it"),
        ("userns_mode", (), "every container has a user namespace of its own", "remove it"),
    )
    for key, allowed, what, instead in rules:
        at = service.get(key)
        if at is not None and at.text() not in allowed:
            at.problem(what, instead)
    options = service.get("security_opt")
    for item in options.items() if options is not None else ():
        if item.text() not in ("no-new-privileges", "no-new-privileges:true", "no-new-privileges=true"):
            item.problem(
                f"'{item.text()}' cannot be set: seccomp and capabilities are the cluster's",
                "remove it ('no-new-privileges' is always on)",
            )
    links = service.get("links")
    for item in links.items() if links is not None else ():
        other, colon, alias = (item.text() or "").partition(":")
        if colon and alias != other:
            item.problem(
                f"'{other}' cannot be given another name for this service only", "use 'networks.NETWORK.aliases' there"
            )
        else:
            item.notice("services of a network find each other by name: it has no effect")
