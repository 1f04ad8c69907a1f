"""A controller for the commands' tests: a real gRPC server over a small model of a cluster in memory.

Tasks start and stop at once, unless the image's name says otherwise: `crash…` fails whenever it runs, `reject…` cannot
be prepared, `pending…` finds no node, `slow…` stays STARTING until `finish_starting`, `once…` ends with 0. An update
to a `crash…` image is paused, or rolled back when the spec's failure action says so.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from argosy.core.errors import PLACES_KEY
from argosy.proto.argosy.v1 import control_pb2 as pb
from argosy.proto.argosy.v1 import control_pb2_grpc as rpc
from argosy.proto.argosy.v1 import types_pb2 as types

Stored = Any
STACK = "argosy.stack"
FAILS = ("crash", "reject")


class FakeCluster(rpc.ControlServicer):
    """The model and its API. `calls` counts requests by name; `meanwhile` runs in a method; `fail` makes it abort."""

    def __init__(self, nodes: int = 3) -> None:
        self._lock = threading.RLock()
        self._version = 1
        self._clock = 1000.0
        self._ids = 0
        self._objects: dict[tuple[str, str], Stored] = {}
        self._watchers: list[queue.SimpleQueue[pb.WatchResponse | None]] = []
        self._history: list[pb.WatchResponse] = []
        self.calls: dict[str, int] = {}
        self.fail: dict[str, list[tuple[Any, ...]]] = {}  # code, text, and then each place (kind, name, field)
        self.meanwhile: dict[str, Callable[[], object]] = {}
        self.logs: list[pb.LogEntry] = []
        self.last_logs = pb.LogsRequest()
        self.cut_watches = 0
        for number in range(1, nodes + 1):
            node = types.Node(
                spec=types.NodeSpec(name=f"host-{number}", role="worker"),
                description=types.NodeDescription(
                    hostname=f"host-{number}",
                    platform=types.Platform(os="linux", architecture="amd64"),
                    resources=types.Resources(cpus=4, memory_bytes=8 << 30),
                    underlay_address=f"172.30.0.{number}",
                ),
                status=types.NodeStatus(state=types.NODE_STATE_READY),
            )
            self._put("node", node, f"node{number}")

    # ------------------------------------------------------------------ the model

    def _put(self, kind: str, obj: Stored, identity: str = "") -> Stored:
        self._version += 1
        self._clock += 1
        if not obj.meta.id:
            self._ids += 1
            obj.meta.id = identity or f"{kind[0]}{self._ids:012}"
            obj.meta.created_at = self._clock
        obj.meta.version = self._version
        obj.meta.updated_at = self._clock
        self._objects[kind, obj.meta.id] = obj
        self._tell(kind, obj, removed=False)
        return obj

    def _drop(self, kind: str, obj: Stored) -> None:
        self._version += 1
        del self._objects[kind, obj.meta.id]
        self._tell(kind, obj, removed=True)

    def _tell(self, kind: str, obj: Stored, *, removed: bool) -> None:
        response = pb.WatchResponse(version=self._version)
        change = response.changes.add(removed=removed)
        getattr(change, kind).CopyFrom(obj)
        self._history.append(response)
        for watcher in self._watchers:
            watcher.put(response)

    def all(self, kind: str) -> list[Stored]:
        """Return the objects of a kind, oldest first."""
        return [obj for (k, _), obj in self._objects.items() if k == kind]

    def find(self, kind: str, ref: str) -> Stored | None:
        """Return an object by id, the beginning of an id, or name."""
        for obj in self.all(kind):
            if ref in (obj.meta.id, getattr(getattr(obj, "spec", None), "name", None)):
                return obj
        near = [obj for obj in self.all(kind) if ref and obj.meta.id.startswith(ref)]
        return near[0] if len(near) == 1 else None

    def _get(self, kind: str, ref: str, context: Any) -> Stored:
        found = self.find(kind, ref)
        if found is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"there is no {kind} {ref!r}")
        return found

    def tasks_of(self, service: Stored) -> list[Stored]:
        """Return a service's tasks."""
        return [task for task in self.all("task") if task.service_id == service.meta.id]

    def _live(self, service: Stored) -> list[Stored]:
        return [t for t in self.tasks_of(service) if t.status.state <= types.TASK_STATE_RUNNING]

    def reconcile(self, service: Stored) -> None:
        """Make the tasks what the service wants, at once."""
        live = self._live(service)
        replicas = 0 if service.spec.stopped else service.spec.replicas
        for task in live[replicas:]:
            self._stop(task)
        for task in live[:replicas]:
            if task.revision != service.revision:
                self._stop(task)
                self._start(service, task.slot)
        used = {task.slot for task in self._live(service)}
        for slot in range(1, replicas + 1):
            if slot not in used:
                self._start(service, slot)

    def _stop(self, task: Stored) -> None:
        task.desired_state = types.TASK_STATE_REMOVE
        task.status.state = types.TASK_STATE_SHUTDOWN
        self._put("task", task)

    def _start(self, service: Stored, slot: int) -> None:
        image = service.spec.task.container.image
        nodes = [n for n in self.all("node") if n.spec.availability == types.AVAILABILITY_ACTIVE]
        node = nodes[slot % len(nodes)]
        task = types.Task(
            service_id=service.meta.id,
            slot=slot,
            revision=service.revision,
            desired_state=types.TASK_STATE_RUNNING,
            status=types.TaskStatus(state=types.TASK_STATE_PENDING, at=self._clock),
        )
        if image.startswith("pending"):
            task.status.reason = "no node has 99 CPUs free"
            self._put("task", task)
            return
        task.node_id = node.meta.id
        task.attachments.add(network_id="n1", address=(10 << 24) + slot)
        if image.startswith("reject"):
            task.status.state, task.status.reason = types.TASK_STATE_REJECTED, "the limit of open files is too high"
        elif image.startswith("slow"):
            task.status.state = types.TASK_STATE_STARTING
        else:
            task.status.state, task.running_since = types.TASK_STATE_RUNNING, self._clock
            task.status.pid = 100 + slot
        self._put("task", task)
        if image.startswith(("crash", "once")):
            if service.update.state == types.UPDATE_STATE_UPDATING:  # it is waited for until that is over
                threading.Timer(0.05, self._end, (service.meta.id, task.meta.id)).start()
            else:
                self._end(service.meta.id, task.meta.id)
        elif image.startswith("reject"):
            self._again(service.meta.id, slot)

    def _end(self, service_id: str, task_id: str) -> None:
        """Let a task's program end by itself."""
        with self._lock:
            service, task = self.find("service", service_id), self.find("task", task_id)
            if service is None or task is None or task.status.state != types.TASK_STATE_RUNNING:
                return
            crashed = service.spec.task.container.image.startswith("crash")
            task.status.state = types.TASK_STATE_FAILED if crashed else types.TASK_STATE_COMPLETE
            task.status.exit_code = 3 if crashed else 0
            task.status.reason = "exited with code 3" if crashed else ""
            task.status.at = self._clock
            self._put("task", task)
            if crashed and service.update.state == types.UPDATE_STATE_UPDATING:
                self._give_in(service)
            elif service.spec.task.restart.condition == types.RESTART_CONDITION_ANY:
                self._again(service_id, task.slot)

    def _again(self, service_id: str, slot: int) -> None:
        with self._lock:
            service = self.find("service", service_id)
            if service is not None and len(self.tasks_of(service)) < 8:
                self._start(service, slot)

    def _give_in(self, service: Stored) -> None:
        """Pause a failing update, or roll it back."""
        if service.spec.update.failure_action != types.FAILURE_ACTION_ROLLBACK:
            service.update.state = types.UPDATE_STATE_PAUSED
            service.update.message = "the only replica failed"
            self._put("service", service)
            return
        service.update.message = "the only replica failed"
        self._set_spec(service, self._spec_of(service, service.previous_revision), types.UPDATE_STATE_ROLLBACK_STARTED)
        service.update.state = types.UPDATE_STATE_ROLLBACK_COMPLETED
        self._put("service", service)

    def _spec_of(self, service: Stored, number: int) -> Stored:
        return self._objects["revision", f"{service.meta.id}.{number}"].spec

    def _set_spec(self, service: Stored, spec: Stored, state: int) -> bool:
        """Give a service another spec; return whether its tasks are to be replaced."""
        before = service.spec.task.SerializeToString(deterministic=True)
        service.spec.CopyFrom(spec)
        if before == spec.task.SerializeToString(deterministic=True) and service.revision:
            self._put("service", service)
            self.reconcile(service)
            return False
        service.previous_revision, service.revision = service.revision, service.revision + 1
        if service.previous_revision:
            service.update.state = state  # type: ignore[assignment]
            service.update.started_at = self._clock
        self._put("service", service)
        revision = types.Revision(service_id=service.meta.id, number=service.revision, spec=spec)
        self._put("revision", revision, f"{service.meta.id}.{service.revision}")
        if spec.canary and state == types.UPDATE_STATE_UPDATING and service.previous_revision:
            service.update.ready, service.update.message = True, "1 canary did well"
            self._put("service", service)
            return True
        self.reconcile(service)
        if service.previous_revision and not spec.task.container.image.startswith(FAILS):
            done = {types.UPDATE_STATE_UPDATING: types.UPDATE_STATE_COMPLETED}
            service.update.state = done.get(state, types.UPDATE_STATE_ROLLBACK_COMPLETED)
            self._put("service", service)
        return True

    def finish_starting(self) -> None:
        """Let tasks that are STARTING run."""
        with self._lock:
            for task in self.all("task"):
                if task.status.state == types.TASK_STATE_STARTING:
                    task.status.state = types.TASK_STATE_RUNNING
                    self._put("task", task)

    # ------------------------------------------------------------------ the API

    def _enter(self, name: str, context: Any) -> None:
        self.calls[name] = self.calls.get(name, 0) + 1
        self.meanwhile.get(name, lambda: None)()
        if self.fail.get(name):
            code, text, *places = self.fail[name].pop(0)
            found = pb.RefusedPlaces(places=[pb.RefusedPlace(kind=k, name=n, field=f) for k, n, f in places])
            context.set_trailing_metadata(((PLACES_KEY, found.SerializeToString()),) if places else ())
            context.abort(code, text)

    def GetCluster(self, request: Any, context: Any) -> Any:
        self._enter("GetCluster", context)
        return pb.GetClusterResponse(controller_version="0.1.0", leader="c1", cluster=types.Cluster(name="fake"))

    def ApplyStack(self, request: Any, context: Any) -> Any:
        with self._lock:
            self._enter("ApplyStack", context)
            reply = pb.ApplyStackResponse()
            for spec in request.networks:
                found = self.find("network", spec.name)
                reply.networks.append(
                    found or self._put("network", types.Network(spec=spec, subnet="10.64.0.0/16", vni=7))
                )
            for spec in request.services:
                service = self.find("service", spec.name)
                acknowledged = types.Service()
                if service is not None and service.spec == spec:
                    acknowledged.CopyFrom(service)
                else:
                    service = service or types.Service()
                    self._set_spec(service, spec, types.UPDATE_STATE_UPDATING)
                    acknowledged.CopyFrom(service)
                    reply.changed_service_ids.append(service.meta.id)
                reply.services.append(acknowledged)
            if request.prune:
                names = {spec.name for spec in request.services}
                for service in [s for s in self.all("service") if s.spec.labels.get(STACK) == request.stack]:
                    if service.spec.name not in names:
                        reply.removed.append(service)
                        self._remove_service(service)
            return reply

    def GetPlan(self, request: Any, context: Any) -> Any:
        self._enter("GetPlan", context)
        return pb.GetPlanResponse(id="0" * 16, notices=["the cluster's"])

    def _remove_service(self, service: Stored) -> None:
        for task in self.tasks_of(service):
            self._drop("task", task)
        self._drop("service", service)

    def RemoveStack(self, request: Any, context: Any) -> Any:
        with self._lock:
            self._enter("RemoveStack", context)
            services = [s for s in self.all("service") if s.spec.labels.get(STACK) == request.stack]
            networks = [n for n in self.all("network") if n.spec.labels.get(STACK) == request.stack]
            if not services and not networks:
                context.abort(grpc.StatusCode.NOT_FOUND, f"no stack {request.stack!r}")
            for service in services:
                self._remove_service(service)
            for network in networks:
                self._drop("network", network)
            return pb.RemoveStackResponse(services=services, networks=networks)

    def ListServices(self, request: Any, context: Any) -> Any:
        self._enter("ListServices", context)
        found = [s for s in self.all("service") if not request.stack or s.spec.labels.get(STACK) == request.stack]
        return pb.ListServicesResponse(services=found)

    def GetService(self, request: Any, context: Any) -> Any:
        self._enter("GetService", context)
        return self._get("service", request.ref, context)

    def UpdateService(self, request: Any, context: Any) -> Any:
        with self._lock:
            self._enter("UpdateService", context)
            service = self._get("service", request.ref, context)
            if request.version != service.meta.version:
                context.abort(grpc.StatusCode.ABORTED, "the service was changed: read it again")
            self._set_spec(service, self._with_networks(request.spec), types.UPDATE_STATE_UPDATING)
            return service

    def _with_networks(self, spec: Stored) -> Stored:
        """Put the networks' ids into a spec, for their names."""
        ids = {network.spec.name: network.meta.id for network in self.all("network")}
        for joined in spec.task.networks:
            joined.target = ids.get(joined.target, joined.target)
        return spec

    def GetImage(self, request: Any, context: Any) -> Any:
        self._enter("GetImage", context)
        found = [i for i in self.all("image") if request.ref in (i.meta.id, i.name, i.digest)]
        return found[0] if found else context.abort(grpc.StatusCode.NOT_FOUND, f"there is no image {request.ref!r}")

    def RemoveImage(self, request: Any, context: Any) -> Any:
        with self._lock:
            self._enter("RemoveImage", context)
            image = next((i for i in self.all("image") if request.ref in (i.meta.id, i.name)), None)
            if image is None:
                context.abort(grpc.StatusCode.NOT_FOUND, f"there is no image {request.ref!r}")
            if not request.force and any(s.spec.task.container.image == image.name for s in self.all("service")):
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"services use the image {image.name}")
            self._drop("image", image)
            return image

    def ScaleServices(self, request: Any, context: Any) -> Any:
        with self._lock:
            self._enter("ScaleServices", context)
            services = [self._get("service", ref, context) for ref in request.replicas]
            for service, number in zip(services, request.replicas.values(), strict=True):
                service.spec.replicas = number
                self._put("service", service)
                self.reconcile(service)
            return pb.ScaleServicesResponse(services=services)

    def RollbackService(self, request: Any, context: Any) -> Any:
        with self._lock:
            self._enter("RollbackService", context)
            service = self._get("service", request.ref, context)
            if not service.previous_revision:
                context.abort(
                    grpc.StatusCode.FAILED_PRECONDITION, f"service {service.spec.name} has no earlier revision"
                )
            spec = self._spec_of(service, request.to_revision or service.previous_revision)
            self._set_spec(service, spec, types.UPDATE_STATE_ROLLBACK_STARTED)
            return service

    def CreateService(self, request: Any, context: Any) -> Any:
        with self._lock:
            self._enter("CreateService", context)
            service = types.Service()
            self._set_spec(service, self._with_networks(request.spec), types.UPDATE_STATE_NONE)
            return service

    def PauseUpdate(self, request: Any, context: Any) -> Any:
        return self._change_update("PauseUpdate", request, context, types.UPDATE_STATE_PAUSED)

    def ResumeUpdate(self, request: Any, context: Any) -> Any:
        return self._change_update("ResumeUpdate", request, context, types.UPDATE_STATE_COMPLETED)

    def PromoteUpdate(self, request: Any, context: Any) -> Any:
        return self._change_update("PromoteUpdate", request, context, types.UPDATE_STATE_COMPLETED)

    def _change_update(self, name: str, request: Any, context: Any, state: Any) -> Any:
        with self._lock:
            self._enter(name, context)
            service = self._get("service", request.ref, context)
            service.update.state, service.update.ready, service.update.message = state, False, ""
            self._put("service", service)
            if state == types.UPDATE_STATE_COMPLETED:
                self.reconcile(service)
            return service

    def ListRevisions(self, request: Any, context: Any) -> Any:
        self._enter("ListRevisions", context)
        service = self._get("service", request.ref, context)
        found = [r for r in self.all("revision") if r.service_id == service.meta.id]
        return pb.ListRevisionsResponse(service=service, revisions=found)

    def RemoveService(self, request: Any, context: Any) -> Any:
        with self._lock:
            self._enter("RemoveService", context)
            service = self._get("service", request.ref, context)
            self._remove_service(service)
            return service

    def GetTask(self, request: Any, context: Any) -> Any:
        self._enter("GetTask", context)
        return self._get("task", request.ref, context)

    def ListTasks(self, request: Any, context: Any) -> Any:
        self._enter("ListTasks", context)
        tasks = self.all("task")
        if request.service:
            service = self._get("service", request.service, context)
            tasks = [t for t in tasks if t.service_id == service.meta.id]
        if request.node:
            node = self._get("node", request.node, context)
            tasks = [t for t in tasks if t.node_id == node.meta.id]
        if not request.all:
            tasks = [t for t in tasks if t.status.state <= types.TASK_STATE_RUNNING]
        kinds = {kind: self.all(kind) for kind in ("service", "node", "revision")}
        return pb.ListTasksResponse(
            tasks=tasks, services=kinds["service"], nodes=kinds["node"], revisions=kinds["revision"]
        )

    def GetNode(self, request: Any, context: Any) -> Any:
        self._enter("GetNode", context)
        return self._get("node", request.ref, context)

    def ListNodes(self, request: Any, context: Any) -> Any:
        self._enter("ListNodes", context)
        return pb.ListNodesResponse(nodes=self.all("node"))

    def UpdateNode(self, request: Any, context: Any) -> Any:
        with self._lock:
            self._enter("UpdateNode", context)
            node = self._get("node", request.ref, context)
            node.spec.CopyFrom(request.spec)
            self._put("node", node)
            if node.spec.availability == types.AVAILABILITY_DRAIN:
                for task in [t for t in self.all("task") if t.node_id == node.meta.id]:
                    self._stop(task)
                for service in self.all("service"):
                    self.reconcile(service)
            return node

    def RemoveNode(self, request: Any, context: Any) -> Any:
        with self._lock:
            self._enter("RemoveNode", context)
            node = self._get("node", request.ref, context)
            self._drop("node", node)
            return node

    def CreateNetwork(self, request: Any, context: Any) -> Any:
        with self._lock:
            self._enter("CreateNetwork", context)
            return self._put("network", types.Network(spec=request.spec, subnet=request.spec.subnet or "10.65.0.0/16"))

    def GetNetwork(self, request: Any, context: Any) -> Any:
        self._enter("GetNetwork", context)
        return pb.GetNetworkResponse(network=self._get("network", request.ref, context), addresses_total=65000)

    def ListNetworks(self, request: Any, context: Any) -> Any:
        self._enter("ListNetworks", context)
        return pb.ListNetworksResponse(networks=self.all("network"))

    def RemoveNetwork(self, request: Any, context: Any) -> Any:
        with self._lock:
            self._enter("RemoveNetwork", context)
            network = self._get("network", request.ref, context)
            self._drop("network", network)
            return network

    def Watch(self, request: Any, context: Any) -> Iterator[Any]:
        watcher: queue.SimpleQueue[pb.WatchResponse | None] = queue.SimpleQueue()
        with self._lock:
            self._enter("Watch", context)
            self._watchers.append(watcher)
            first = pb.WatchResponse(version=self._version, synced=True)
            if not request.after_version:
                for (kind, _), obj in self._objects.items():
                    getattr(first.changes.add(), kind).CopyFrom(obj)
            missed = [r for r in self._history if r.version > request.after_version] if request.after_version else []
            cut = self.cut_watches > 0
            self.cut_watches -= cut
        context.add_callback(lambda: watcher.put(None))
        if not request.after_version:
            yield first
        if cut:
            context.abort(grpc.StatusCode.UNAVAILABLE, "this controller does not lead any more")
        yield from missed
        while (response := watcher.get()) is not None:
            yield response

    def Logs(self, request: Any, context: Any) -> Iterator[Any]:
        self._enter("Logs", context)
        self.last_logs = request
        yield from self.logs


@contextmanager
def serving(cluster: FakeCluster, socket: Path) -> Iterator[str]:
    """Serve a cluster on a unix socket; yield its address."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
    rpc.add_ControlServicer_to_server(cluster, server)
    server.add_insecure_port(f"unix://{socket}")
    server.start()
    try:
        yield f"unix://{socket}"
    finally:
        server.stop(None).wait()
