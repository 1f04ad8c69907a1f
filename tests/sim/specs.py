"""What users declare in the simulator: specs by chance, all of them such as the API takes."""

from dataclasses import replace

from argosy.core.files import Config, Secret
from argosy.core.node import Resources
from argosy.core.service import (
    JOB_MODES,
    ContainerSpec,
    Cron,
    Dependency,
    DependencyCondition,
    Disconnect,
    FailureAction,
    FileRef,
    Healthcheck,
    HostPort,
    JobSpec,
    NetworkAttachmentSpec,
    Overlap,
    Placement,
    RestartCondition,
    RestartPolicy,
    Service,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
    UpdateOrder,
    UpdateState,
)
from tests.sim.cluster import World
from tests.sim.kernel import READY

FILE_NAMES = ("settings", "password")
"""Of the config and of the secret that there may be."""
EVERY_MINUTE = "* * * * *"
NEVER_NOW = "0 0 29 2 *"
"""A schedule that no run of the simulator lives to see."""


class Specs:
    """Draws specs from the world's chance."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.chance = world.chance

    def service(self, name: str) -> ServiceSpec:
        """Return what somebody wants to have run."""
        chance = self.chance
        if chance.random() < 0.2:
            return self._job(name)
        mode = ServiceMode.GLOBAL if chance.random() < 0.15 else ServiceMode.REPLICATED
        replicated = mode is ServiceMode.REPLICATED
        spec = ServiceSpec(
            name=name,
            mode=mode,
            replicas=chance.randint(1, 5) if replicated else 1,
            task=self.task(),
            update=self.update_config(),
            rollback=self._rollback_config(),
            max_unavailable=chance.choice(("", "", "1", "1", "50%", "0")) if replicated else "",
            depends_on=self._dependencies(),
        )
        if replicated and chance.random() < 0.3:
            return _cut_off(spec, chance.choice((Disconnect.KEEP, Disconnect.FENCE)))
        if chance.random() < 0.25:
            return self._with_canaries(spec)
        return spec

    def task(self) -> TaskSpec:
        """Return what tasks of a service run."""
        chance = self.chance
        cpus = chance.choice((0.0, 0.5, 1.0))
        env = [f"CPUS={cpus}", f"VERSION={chance.randint(1, 10**6)}"]
        if chance.random() < 0.12:
            env.append(f"FATE={chance.choice(('crashes', 'cannot'))}")
        ports = ()
        if chance.random() < 0.15:
            port = chance.choice((8080, 8081))
            ports, env = (HostPort("tcp", port),), [*env, f"PORT={port}"]
        check = None
        if chance.random() < 0.25:
            check = Healthcheck(("CMD", "true"), interval=chance.choice((1.0, 2.0)), timeout=1, retries=1)
        readiness = None
        if chance.random() < 0.2:
            readiness = Healthcheck(("CMD", READY), interval=2.0, timeout=1, retries=2, start_interval=0.5)
        joined = chance.random() < 0.8
        networks_of = list(self.world.watcher.networks.values()) if joined else []
        return TaskSpec(
            container=ContainerSpec(
                image=chance.choice(("one:1", "two:1")),
                env=tuple(env),
                stop_grace_period=chance.choice((0.5, 2.0)),
                healthcheck=check,
                readiness=readiness,
                files=self._files(),
            ),
            reservations=Resources(cpus=cpus),
            restart=RestartPolicy(delay=chance.choice((0.1, 1.0))),
            placement=Placement(constraints=("node.labels.zone == a",) if chance.random() < 0.1 else ()),
            networks=tuple(NetworkAttachmentSpec(n.meta.id) for n in networks_of if not n.removing),
            host_ports=ports,
        )

    def task_for(self, spec: ServiceSpec) -> TaskSpec:
        """Return another task spec for a service, fit for its mode."""
        return self._to_complete(self.task()) if spec.mode in JOB_MODES else self.task()

    def update_config(self) -> UpdateConfig:
        """Return how a service may be updated."""
        chance = self.chance
        return UpdateConfig(
            parallelism=chance.choice((1, 1, 2, 0)),
            delay=chance.choice((0.0, 0.0, 0.5)),
            failure_action=chance.choice(list(FailureAction)),
            monitor=chance.choice((0.2, 1.0)),
            max_failure_ratio=chance.choice((0.0, 0.3)),
            order=chance.choice(list(UpdateOrder)),
        )

    def update_for(self, spec: ServiceSpec) -> UpdateConfig:
        """Return other update settings for a service that it may have."""
        config = self.update_config()
        if spec.disconnect is Disconnect.FENCE:
            config = replace(config, order=UpdateOrder.STOP_FIRST)
        if spec.canary and config.failure_action is FailureAction.CONTINUE:
            config = replace(config, failure_action=FailureAction.PAUSE)
        return config

    def _rollback_config(self) -> UpdateConfig:
        config = self.update_config()
        return replace(config, failure_action=self.chance.choice((FailureAction.PAUSE, FailureAction.CONTINUE)))

    def _with_canaries(self, spec: ServiceSpec) -> ServiceSpec:
        canary = self.chance.randint(1, min(2, spec.replicas))
        spec = replace(spec, canary=canary, auto_promote=self.chance.random() < 0.4)
        action = self.chance.choice((FailureAction.PAUSE, FailureAction.ROLLBACK))
        return replace(spec, update=replace(spec.update, failure_action=action))

    def _job(self, name: str) -> ServiceSpec:
        chance = self.chance
        mode = ServiceMode.GLOBAL_JOB if chance.random() < 0.25 else ServiceMode.REPLICATED_JOB
        completions = chance.randint(1, 4) if mode is ServiceMode.REPLICATED_JOB else 1
        cron = Cron(EVERY_MINUTE, overlap=chance.choice(list(Overlap))) if chance.random() < 0.5 else None
        return ServiceSpec(
            name=name,
            mode=mode,
            task=self._to_complete(self.task()),
            job=JobSpec(completions, max_concurrent=chance.choice((0, 1, 2)), cron=cron),
            depends_on=self._dependencies() if cron is None else (),
        )

    def _to_complete(self, task: TaskSpec) -> TaskSpec:
        chance = self.chance
        env = tuple(e for e in task.container.env if not e.startswith(("CPUS=", "PORT=")))
        attempts = chance.choice((0, 0, 2))
        if any(entry.startswith("FATE=") for entry in env):
            attempts = 2  # a run that no changed spec mends has to come to an end
        else:
            env = (*env, f"FATE={chance.choice(('completes', 'completes', 'completes', 'works'))}")
        return replace(
            task,
            container=replace(task.container, env=env),
            restart=RestartPolicy(RestartCondition.ON_FAILURE, chance.choice((0.1, 1.0)), attempts),
            reservations=Resources(),
            placement=Placement(),
            host_ports=(),
        )

    def _dependencies(self) -> tuple[Dependency, ...]:
        found = [s for s in self.world.watcher.services.values() if not s.removing]
        if not found or self.chance.random() > 0.35:
            return ()
        wanted = self.chance.choice(found)
        conditions = [DependencyCondition.STARTED, DependencyCondition.HEALTHY]
        if wanted.spec.mode in JOB_MODES:
            conditions = [DependencyCondition.COMPLETED]
        optional, restart = self.chance.random() < 0.3, self.chance.random() < 0.3
        return (Dependency(wanted.spec.name, self.chance.choice(conditions), optional=optional, restart=restart),)

    def _files(self) -> tuple[FileRef, ...]:
        watcher = self.world.watcher
        if self.chance.random() > 0.3:
            return ()
        files = [f for kind in (Config, Secret) for f in watcher.files[kind].values() if not f.removing]
        return tuple(FileRef(secret=isinstance(f, Secret), name=f.name, target=f"/etc/{f.name}") for f in files)


def _cut_off(spec: ServiceSpec, policy: Disconnect) -> ServiceSpec:
    """Give a service a policy for tasks that are cut off."""
    if policy is not Disconnect.FENCE:
        return replace(spec, disconnect=policy)
    stop_first = UpdateOrder.STOP_FIRST
    update, rollback = replace(spec.update, order=stop_first), replace(spec.rollback, order=stop_first)
    budget = "1" if spec.max_unavailable in ("0", "50%") else spec.max_unavailable
    return replace(spec, disconnect=policy, update=update, rollback=rollback, max_unavailable=budget)


def mended(present: Service, services: dict[str, Service]) -> ServiceSpec:
    """Return a spec that can run on these hosts, whatever the service was given before."""
    spec = present.spec
    is_job = spec.mode in JOB_MODES
    env = [e for e in spec.task.container.env if not e.startswith(("FATE=", "PORT=", "CPUS="))]
    env += ["FATE=completes"] if is_job else []
    task = replace(
        spec.task,
        container=replace(spec.task.container, env=tuple(env)),
        host_ports=(),
        reservations=Resources(),
        placement=replace(spec.task.placement, constraints=()),
        restart=replace(spec.task.restart, max_attempts=0),
    )
    stuck = present.update.state in (UpdateState.PAUSED, UpdateState.ROLLBACK_PAUSED)
    if stuck or is_job:
        task = replace(task, force_update=task.force_update + 1)
    spec = replace(
        spec,
        task=task,
        update=replace(spec.update, failure_action=FailureAction.CONTINUE),
        canary=0,
        auto_promote=False,
        depends_on=tuple(d for d in spec.depends_on if d.service in services and comes_true(services[d.service])),
    )
    if spec.job is not None and spec.job.cron is not None:
        spec = replace(spec, job=replace(spec.job, cron=replace(spec.job.cron, schedule=NEVER_NOW)))
    return spec


def comes_true(wanted: Service) -> bool:
    """Whether others may wait for a service: it runs something, or comes to its end."""
    spec = wanted.spec
    if wanted.removing or spec.stopped:
        return False
    if spec.mode in JOB_MODES:
        return spec.job is None or spec.job.cron is None
    return spec.mode is ServiceMode.GLOBAL or spec.replicas > 0
