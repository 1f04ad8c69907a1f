"""The cluster's messages as plain rows: what JSON shows, and what tables are made from. Pure.

Works on protobuf messages as they come, without the domain types: `argosy ps` in a script has to be quick.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from argosy.cli.port_rows import nodes_port_problems, port_text, port_texts
from argosy.proto.argosy.v1 import control_pb2 as pb
from argosy.proto.argosy.v1 import types_pb2 as types

STACK_LABEL = "argosy.stack"
"""As core.meta.STACK_LABEL, which would cost the import of core."""

Row = dict[str, Any]
Slot = tuple[int, str]
"""A number, or in a global service 0 and the id of a node."""


def state_name(number: int) -> str:
    """Return a task state's name: "RUNNING"."""
    try:
        return types.TaskState.Name(number).removeprefix("TASK_STATE_")  # type: ignore[arg-type]
    except ValueError:
        return str(number)


def address_text(address: int) -> str:
    """Return an IPv4 address in host byte order as text."""
    return ".".join(str(address >> shift & 255) for shift in (24, 16, 8, 0))


def node_name(node: types.Node) -> str:
    """Return what people call a node."""
    return node.spec.name or node.description.hostname or node.meta.id


def task_rows(reply: pb.ListTasksResponse) -> list[Row]:
    """Return the tasks joined with their services and nodes, ordered by service, slot and age (newest first).

    Of slots that have no task the one that failed last is among them.
    """
    services = {s.meta.id: s for s in reply.services}
    nodes = {n.meta.id: n for n in reply.nodes}
    revisions = {r.meta.id: r for r in reply.revisions}
    before = {_place(task): _ending(task, nodes) for task in reply.before}
    filled = {_place(task) for task in reply.tasks}
    tasks = [*reply.tasks, *(task for task in reply.before if _place(task) not in filled)]
    rows = [{**_task_row(task, services, nodes, revisions), **_restart(task, before)} for task in tasks]
    for row, task in zip(rows[len(reply.tasks) :], tasks[len(reply.tasks) :], strict=True):
        row["not_before"] = _next_try(task, _spec_of(task, services, revisions))
    rows.sort(key=lambda row: (row["service"], row["slot"], row["node"] if not row["slot"] else "", -row["created"]))
    return rows


def _task_row(
    task: types.Task,
    services: Mapping[str, types.Service],
    nodes: Mapping[str, types.Node],
    revisions: Mapping[str, types.Revision],
) -> Row:
    service = services.get(task.service_id)
    node = nodes.get(task.node_id)
    spec = _spec_of(task, services, revisions)
    name = (service.spec.name if service is not None else "") or spec.name or task.service_id
    labels = service.spec.labels if service is not None else spec.labels
    host = node_name(node) if node is not None else task.node_id
    return {
        "id": task.meta.id,
        "name": f"{name}.{task.slot or host}",
        "service": name,
        "service_id": task.service_id,
        "stack": labels.get(STACK_LABEL, ""),
        "slot": task.slot,
        "node": host,
        "node_id": task.node_id,
        "state": state_name(task.status.state),
        "desired_state": state_name(task.desired_state),
        "ready": task.status.state == types.TASK_STATE_RUNNING and not task.status.unready,
        "since": task.status.at,
        "image": spec.task.container.image,
        "addresses": [address_text(a.address) for a in task.attachments],
        "networks": [a.network_id for a in task.attachments],
        "ports": [port_text(port) for port in spec.task.host_ports if port.target],
        "reason": task.status.reason,
        "note": _note(task, service, node),
        "exit_code": task.status.exit_code if task.status.HasField("exit_code") else None,
        "oom_killed": task.status.oom_killed,
        "pid": task.status.pid,
        "revision": task.revision,
        "canary": task.canary,
        "created": task.meta.created_at,
    }


def _spec_of(
    task: types.Task, services: Mapping[str, types.Service], revisions: Mapping[str, types.Revision]
) -> types.ServiceSpec:
    """Return the spec that a task runs, as far as it is known."""
    known = revisions.get(f"{task.service_id}.{task.revision}") or services.get(task.service_id)
    return known.spec if known is not None else types.ServiceSpec()


def _next_try(task: types.Task, spec: types.ServiceSpec) -> float:
    """Return when the restart policy has a slot tried again whose last task failed; 0 at once, or never."""
    if task.status.state <= types.TASK_STATE_SHUTDOWN or task.desired_state > types.TASK_STATE_RUNNING:
        return 0.0
    from argosy.core.codec import decode
    from argosy.core.restart import Heritage, succeed
    from argosy.core.service import RestartPolicy
    from argosy.core.task import Task

    heritage = succeed(decode(task, Task), decode(spec.task.restart, RestartPolicy), task.status.at)
    return heritage.not_before if isinstance(heritage, Heritage) else 0.0


def _restart(task: types.Task, before: Mapping[tuple[str, int, str, int], Row]) -> Row:
    """Return what a task was restarted after, and until when its start is delayed."""
    ended = task.status.state > types.TASK_STATE_RUNNING
    return {
        "failures": task.failures,
        "not_before": task.not_before,
        "running_since": task.running_since,
        "before": None if ended else before.get(_place(task)),
    }


def _ending(task: types.Task, nodes: Mapping[str, types.Node]) -> Row:
    node = nodes.get(task.node_id)
    return {
        "id": task.meta.id,
        "node": node_name(node) if node is not None else task.node_id,
        "state": state_name(task.status.state),
        "since": task.status.at,
        "reason": task.status.reason,
        "exit_code": task.status.exit_code if task.status.HasField("exit_code") else None,
        "oom_killed": task.status.oom_killed,
    }


def _place(task: types.Task) -> tuple[str, int, str, int]:
    return task.service_id, task.slot, "" if task.slot else task.node_id, task.iteration


def _note(task: types.Task, service: types.Service | None, node: types.Node | None) -> str:
    """Return what a task's node means for it, where that is not as it should be; "" else."""
    if node is None or task.status.state > types.TASK_STATE_RUNNING:
        return ""
    state, wanted = node.status.state, task.desired_state <= types.TASK_STATE_RUNNING
    policy = service.spec.disconnect if service is not None else types.DISCONNECT_REPLACE
    if state == types.NODE_STATE_READY:
        drained = node.spec.availability == types.AVAILABILITY_DRAIN
        if wanted and (task.evict or drained):
            return "it is to leave its node"
        stuck = [p.reason for p in node.port_problems if p.service_id == task.service_id]
        return "; ".join(dict.fromkeys(stuck)) if wanted else ""
    what = f"its node is {types.NodeState.Name(state).removeprefix('NODE_STATE_')}"
    if state == types.NODE_STATE_DOWN and wanted and policy == types.DISCONNECT_KEEP:
        return f"{what}: it is kept until the node is back or removed (disconnect: keep)"
    if wanted and policy == types.DISCONNECT_FENCE:
        return f"{what}: it is replaced once it has surely ended (disconnect: fence)"
    return f"{what}: {node.status.message}" if node.status.message else what


def latest_rows(rows: Iterable[Row]) -> list[Row]:
    """Return, of task rows in `task_rows`' order, those that tell how each slot is.

    These are the tasks that have not ended and, where a slot has none, the one that ended last: it has the reason.
    """
    found = list(rows)
    told = {_slot_of(row) for row in found if not _has_ended(row)}
    latest = []
    for row in found:
        if not _has_ended(row):
            latest.append(row)
        elif _slot_of(row) not in told and row["desired_state"] != "REMOVE":
            told.add(_slot_of(row))
            latest.append(row)
    return latest


def _has_ended(row: Row) -> bool:
    return int(types.TaskState.Value(f"TASK_STATE_{row['state']}")) > types.TASK_STATE_RUNNING


def _slot_of(row: Row) -> tuple[str, int, str]:
    return row["service_id"], row["slot"], "" if row["slot"] else row["node_id"]


def may_finish(spec: types.ServiceSpec) -> bool:
    """Whether tasks of a service may be over for good when they end well, so that those that ended count, too."""
    return is_job(spec) or spec.task.restart.condition != types.RESTART_CONDITION_ANY


def _completed(
    services: Iterable[types.Service], tasks: Iterable[types.Task], nodes: Sequence[types.Node]
) -> dict[str, tuple[int, int]]:
    """Return how many slots of each service (of a job: of its last run) are complete, of how many.

    Of a job a slot is complete once a task of it has ended well; of a service that `may_finish`, while none runs again.
    """
    runs = {service.meta.id: (service.job.iteration, is_job(service.spec)) for service in services}
    down = _down(nodes)
    done: dict[str, set[Slot]] = {service_id: set() for service_id in runs}
    busy: dict[str, set[Slot]] = {service_id: set() for service_id in runs}
    for task in tasks:
        run, of_job = runs.get(task.service_id, (None, False))
        wanted = task.desired_state <= types.TASK_STATE_RUNNING
        if run != task.iteration:
            continue
        slot = (task.slot, "" if task.slot else task.node_id)
        if task.status.state == types.TASK_STATE_COMPLETE and (of_job or wanted):
            done[task.service_id].add(slot)
        elif task.status.state <= types.TASK_STATE_RUNNING and wanted and task.node_id not in down:
            busy[task.service_id].add(slot)
    totals = _job_totals((s for s in services if is_job(s.spec)), nodes, done, busy)
    completed = {}
    for service in services:
        identity, spec = service.meta.id, service.spec
        ended, known = done[identity], done[identity] | busy[identity]
        if is_job(spec):
            completed[identity] = len(ended), totals[identity]
        else:
            finished = len(ended - busy[identity]) if may_finish(spec) else 0
            completed[identity] = finished, len(known) if is_global(spec) else spec.replicas
    return completed


def _job_totals(
    jobs: Iterable[types.Service],
    nodes: Sequence[types.Node],
    done: Mapping[str, set[Slot]],
    busy: Mapping[str, set[Slot]],
) -> dict[str, int]:
    """Return how many completions the last run of each job has."""
    jobs = list(jobs)
    if not jobs:
        return {}
    from argosy.cli.progress.jobs import total_completions
    from argosy.core.codec import decode
    from argosy.core.node import Node
    from argosy.core.service import Service

    known = [decode(node, Node) for node in nodes] if any(is_global(job.spec) for job in jobs) else []
    return {
        job.meta.id: total_completions(decode(job, Service), known, done[job.meta.id], busy[job.meta.id])
        for job in jobs
    }


def _down(nodes: Iterable[types.Node]) -> frozenset[str]:
    return frozenset(node.meta.id for node in nodes if node.status.state == types.NODE_STATE_DOWN)


def service_rows(
    services: Iterable[types.Service], tasks: Iterable[types.Task], nodes: Iterable[types.Node] = ()
) -> list[Row]:
    """Return services with how many of their tasks run. `tasks`: of those that `may_finish` also what has ended.

    `nodes`: where published ports may be in trouble, where global services run, and what is kept while it is cut off.
    """
    services, tasks, nodes = list(services), list(tasks), list(nodes)
    stuck = nodes_port_problems((node_name(node), node) for node in nodes)
    completed = _completed(services, tasks, nodes)
    everywhere, down = {s.meta.id for s in services if is_global(s.spec)}, _down(nodes)
    keeping = {service.meta.id for service in services if keeps(service)}
    kept: dict[str, int] = {}
    running: dict[str, int] = {}
    wanted: dict[str, int] = {}
    canaries: dict[str, int] = {}
    for task in tasks:
        if task.node_id in down and task.service_id in everywhere:
            continue
        if task.canary:
            running_now = task.status.state == types.TASK_STATE_RUNNING
            canaries[task.service_id] = canaries.get(task.service_id, 0) + running_now
        elif task.desired_state <= types.TASK_STATE_RUNNING and task.status.state <= types.TASK_STATE_RUNNING:
            wanted[task.service_id] = wanted.get(task.service_id, 0) + 1
            if task.service_id in keeping and task.node_id in down:
                kept[task.service_id] = kept.get(task.service_id, 0) + 1
            elif task.status.state == types.TASK_STATE_RUNNING and not task.status.unready:
                running[task.service_id] = running.get(task.service_id, 0) + 1
    rows = []
    for service in services:
        spec, identity = service.spec, service.meta.id
        complete, completions = completed[identity]
        rows.append(
            {
                "id": identity,
                "name": spec.name,
                "stack": spec.labels.get(STACK_LABEL, ""),
                "mode": mode_name(spec),
                "replicas": wanted.get(identity, 0) if is_global(spec) or is_job(spec) else spec.replicas,
                "running": running.get(identity, 0),
                "kept": kept.get(identity, 0),
                "completed": complete,
                "completions": completions,
                "image": spec.task.container.image,
                "ports": port_texts(service),
                "problems": [*service.address_problems, *service.port_problems, *stuck.get(identity, ())],
                "revision": service.revision,
                "update": update_state(service),
                "update_message": service.update.message,
                "removing": service.removing,
                "stopped": spec.stopped,
                "canaries": canaries.get(identity, 0),
                "to_promote": service.update.ready,
                "job": job_fields(service) if is_job(spec) else None,
            }
        )
    return sorted(rows, key=lambda row: str(row["name"]))


def keeps(service: types.Service) -> bool:
    """Whether a service's tasks are kept on nodes that are DOWN."""
    return service.spec.disconnect == types.DISCONNECT_KEEP


def mode_name(spec: types.ServiceSpec) -> str:
    """Return a service's mode as Compose files write it: "replicated-job"."""
    return types.ServiceMode.Name(spec.mode).removeprefix("SERVICE_MODE_").lower().replace("_", "-")


def is_job(spec: types.ServiceSpec) -> bool:
    """Whether a service runs to completion."""
    return spec.mode in (types.SERVICE_MODE_REPLICATED_JOB, types.SERVICE_MODE_GLOBAL_JOB)


def is_global(spec: types.ServiceSpec) -> bool:
    """Whether a service runs, or completes, once on every node."""
    return spec.mode in (types.SERVICE_MODE_GLOBAL, types.SERVICE_MODE_GLOBAL_JOB)


def job_fields(service: types.Service) -> Row:
    """Return how a job's last run went, and when the next one is due (0: never)."""
    job, cron = service.job, service.spec.job.cron
    return {
        "run": job.iteration,
        "state": types.JobState.Name(job.state).removeprefix("JOB_STATE_").replace("NONE", ""),
        "message": job.message,
        "started": job.started_at,
        "finished": job.finished_at,
        "next": job.next_at,
        "schedule": cron.schedule,
        "time_zone": cron.time_zone or ("UTC" if cron.schedule else ""),
    }


def job_rows(
    services: Iterable[types.Service], tasks: Iterable[types.Task], nodes: Iterable[types.Node] = ()
) -> list[Row]:
    """Return the jobs among services, with how much of the last run is complete, and what keeps it from going on.

    `tasks`: also those that ended. `nodes`: where global jobs are to complete.
    """
    jobs, tasks = [service for service in services if is_job(service.spec)], list(tasks)
    completed = _completed(jobs, tasks, list(nodes))
    waits: dict[tuple[str, int], str] = {}
    for task in tasks:
        if task.status.state < types.TASK_STATE_RUNNING and task.status.reason:
            waits.setdefault((task.service_id, task.iteration), task.status.reason)
    rows = []
    for service in jobs:
        complete, total = completed[service.meta.id]
        row = {"id": service.meta.id, "name": service.spec.name, "mode": mode_name(service.spec)}
        fields = job_fields(service)
        fields["message"] = fields["message"] or waits.get((service.meta.id, service.job.iteration), "")
        rows.append({**row, "complete": complete, "total": total, **fields})
    return sorted(rows, key=lambda row: str(row["name"]))


def update_state(service: types.Service) -> str:
    """Return the state of a service's latest update; "" when there was none."""
    name = types.UpdateState.Name(service.update.state).removeprefix("UPDATE_STATE_")
    return "" if name == "NONE" else name


def node_rows(nodes: Iterable[types.Node], tasks: Iterable[types.Task]) -> list[Row]:
    """Return nodes with how many tasks they run."""
    counts: dict[str, int] = {}
    for task in tasks:
        if types.TASK_STATE_ASSIGNED <= task.status.state <= types.TASK_STATE_RUNNING:
            counts[task.node_id] = counts.get(task.node_id, 0) + 1
    rows = []
    for node in nodes:
        have = node.description.resources
        rows.append(
            {
                "id": node.meta.id,
                "name": node_name(node),
                "role": node.spec.role,
                "state": types.NodeState.Name(node.status.state).removeprefix("NODE_STATE_"),
                "availability": types.Availability.Name(node.spec.availability).removeprefix("AVAILABILITY_"),
                "address": node.description.underlay_address,
                "cpus": have.cpus,
                "memory_bytes": have.memory_bytes,
                "tasks": counts.get(node.meta.id, 0),
                "labels": dict(node.spec.labels),
                "version": node.description.agent_version,
                "message": node.status.message or node.description.underlay_problem,
                "since": node.status.since,
            }
        )
    return sorted(rows, key=lambda row: str(row["name"]))


def network_rows(networks: Iterable[types.Network]) -> list[Row]:
    """Return networks."""
    rows = [
        {
            "id": network.meta.id,
            "name": network.spec.name,
            "stack": network.spec.labels.get(STACK_LABEL, ""),
            "subnet": network.subnet or network.spec.subnet,
            "vni": network.vni,
            "internal": network.spec.internal,
            "attachable": network.spec.attachable,
            "encrypted": network.spec.encrypted,
            "removing": network.removing,
        }
        for network in networks
    ]
    return sorted(rows, key=lambda row: str(row["name"]))
