"""The Control service: what users do. Thin: find the objects, decide (services.py, stacks.py, …), commit, answer.

Any controller serves it: reads come from its cache, writes are guarded by the versions of what they touch. Only what
needs the agents' sessions (logs, consoles) is passed on to the leader.
"""

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterable
from dataclasses import replace
from typing import Any, TypeAlias

import grpc

from argosy.controller.api import task_list
from argosy.controller.api.attach import AttachHandlers
from argosy.controller.api.files import FileHandlers
from argosy.controller.api.jobs import JobHandlers
from argosy.controller.api.logs import LogRelay
from argosy.controller.api.network_usage import add_mtu, add_usage
from argosy.controller.api.placement import PlacementHandlers
from argosy.controller.api.tunnels import tunnels_between
from argosy.controller.api.updates import UpdateHandlers
from argosy.controller.api.verification import VerificationHandlers
from argosy.controller.api.watch import watch
from argosy.controller.changes import (
    dependencies,
    images,
    networks,
    nodes,
    published_ports,
    refs,
    services,
    stacks,
    static_addresses,
    updates,
)
from argosy.controller.changes.commit import change
from argosy.controller.changes.refs import project_of
from argosy.controller.cluster import ClusterView
from argosy.controller.secrets.keyring import Keyring
from argosy.controller.sparing import in_turns
from argosy.controller.store import Cache, Op, Snapshot, Store
from argosy.core.codec import decode, encode, encode_into
from argosy.core.errors import InvalidError
from argosy.core.files import NamedFile, NewFile, Secret
from argosy.core.ids import new_id
from argosy.core.image import Image
from argosy.core.meta import STACK_LABEL, Cluster
from argosy.core.network import Network, NetworkSpec
from argosy.core.node import Node, NodeSpec, NodeState
from argosy.core.service import Revision, Service, ServiceSpec, revision_id
from argosy.core.task import Task
from argosy.core.task_state import TaskState
from argosy.proto.argosy.v1 import control_pb2 as pb
from argosy.proto.argosy.v1 import types_pb2 as tpb

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class ControlServicer(
    UpdateHandlers, FileHandlers, JobHandlers, PlacementHandlers, VerificationHandlers, AttachHandlers
):
    """Handlers of the Control service; errors are raised and mapped by the interceptor."""

    def __init__(
        self, store: Store, cache: Cache, view: ClusterView, logs: LogRelay, keys: Keyring | None = None
    ) -> None:
        self._store = store
        self._cache = cache
        self._view = view
        self._logs = logs
        self._dispatcher = logs.dispatcher
        self._keys = keys or Keyring()

    # ------------------------------------------------------------ cluster

    async def GetCluster(self, request: pb.GetClusterRequest, context: Context) -> pb.GetClusterResponse:
        """Describe the cluster and who leads it."""
        snap = self._cache.snapshot
        nodes_known = snap.all(Node)
        response = pb.GetClusterResponse(
            controller_version=self._view.version,
            leader=self._view.leader_name,
            epoch=self._view.epoch,
            nodes=len(nodes_known),
            nodes_ready=sum(n.status.state is NodeState.READY for n in nodes_known),
        )
        cluster = snap.get(Cluster, networks.CLUSTER_ID) or Cluster()
        encode_into(replace(cluster, name=self._view.cluster), response.cluster)
        return response

    # ------------------------------------------------------------ stacks

    async def ApplyStack(self, request: pb.ApplyStackRequest, context: Context) -> pb.ApplyStackResponse:
        """Apply a stack, all or nothing."""
        planned = await self.check_plan("apply_stack", request, context)
        wanted = stacks.StackRequest(
            project=project_of(request.project),
            stack=request.stack,
            networks=[decode(n, NetworkSpec) for n in request.networks],
            services=[decode(s, ServiceSpec) for s in request.services],
            prune=request.prune,
            ids=[
                new_id()
                for wanted in (request.networks, request.services, request.configs, request.secrets)
                for _ in wanted
            ],
            configs=[decode(c, NewFile) for c in request.configs],
            secrets=[decode(s, NewFile) for s in request.secrets],
            keys=self._keys,
        )
        if not wanted.stack:
            raise InvalidError("the stack needs a name")
        result = await change(self._store, self._cache, lambda snap: stacks.applied(snap, wanted, time.time()), planned)
        response = pb.ApplyStackResponse(changed_service_ids=result.changed, notices=result.notices)
        snap = self._cache.snapshot
        for network in result.networks:
            encode_into(snap.get(Network, network.meta.id) or network, response.networks.add())
        for service in result.services:
            encode_into(snap.get(Service, service.meta.id) or service, response.services.add())
        for service in result.removed:
            encode_into(service, response.removed.add())
        _add_files(result.files, response)
        return response

    async def RemoveStack(self, request: pb.RemoveStackRequest, context: Context) -> pb.RemoveStackResponse:
        """Begin to remove a stack."""
        project, response = project_of(request.project), pb.RemoveStackResponse()
        while True:  # what is begun twice is harmless, so it need not be one transaction
            result = await change(
                self._store, self._cache, lambda snap: stacks.removed(snap, project, request.stack, time.time())
            )
            for service in result.services:
                encode_into(service, response.services.add())
            for network in result.networks:
                encode_into(network, response.networks.add())
            _add_files(result.files, response)
            if stacks.is_gone(self._cache.snapshot, project, request.stack):
                return response

    # ------------------------------------------------------------ services

    async def CreateService(self, request: pb.CreateServiceRequest, context: Context) -> tpb.Service:
        """Create a service."""
        planned = await self.check_plan("create_service", request, context)
        project, spec, service_id = project_of(request.project), decode(request.spec, ServiceSpec), new_id()
        services.check(spec)

        def decide(snap: Snapshot) -> tuple[list[Op], Service]:
            compared = dependencies.check(snap, project, [spec])
            resolved = services.resolve(snap, project, spec, {})
            (resolved,) = published_ports.with_numbers(snap, project, [resolved])
            published_ports.check(snap, project, [resolved])
            now = time.time()
            ops, service = services.created(snap, project, service_id, resolved, now)
            claimed = static_addresses.claims(snap, [(service_id, resolved)], {}, now)
            return [*ops, *compared, *claimed], service

        return self._service(await change(self._store, self._cache, decide, planned))

    async def GetService(self, request: pb.GetServiceRequest, context: Context) -> tpb.Service:
        """Return one service."""
        return encode(refs.service(self._cache.snapshot, project_of(request.project), request.ref), tpb.Service)

    async def ListServices(self, request: pb.ListServicesRequest, context: Context) -> pb.ListServicesResponse:
        """Return the services of a project or stack, by name."""
        response = pb.ListServicesResponse()
        found = self._cache.snapshot.all(Service, project=project_of(request.project))
        for service in sorted(found, key=lambda s: s.spec.name):
            if not request.stack or service.spec.labels.get(STACK_LABEL) == request.stack:
                encode_into(service, response.services.add())
        return response

    async def UpdateService(self, request: pb.UpdateServiceRequest, context: Context) -> tpb.Service:
        """Give a service another spec, under a version check."""
        planned = await self.check_plan("update_service", request, context)
        project, spec = project_of(request.project), decode(request.spec, ServiceSpec)
        services.check(spec)

        def decide(snap: Snapshot) -> tuple[list[Op], Service]:
            present, now = refs.service(snap, project, request.ref), time.time()
            resolved = services.resolve(snap, project, spec, {}, present)
            (resolved,) = published_ports.with_numbers(snap, project, [resolved])
            ops, changed = services.updated(snap, present, resolved, now, request.version)
            if not ops:
                updates.refuse_to_repeat(present)
                return [], changed
            published_ports.check(snap, project, [resolved])
            compared = dependencies.check(snap, project, [resolved])
            claimed = static_addresses.claims(snap, [(present.meta.id, resolved)], {}, now)
            return [*ops, *compared, *claimed, *dependencies.restarts(snap, project, resolved, now)], changed

        return self._service(await change(self._store, self._cache, decide, planned))

    async def ScaleServices(self, request: pb.ScaleServicesRequest, context: Context) -> pb.ScaleServicesResponse:
        """Set numbers of replicas, all or none."""
        planned = await self.check_plan("scale_services", request, context)
        project, wanted = project_of(request.project), dict(request.replicas)
        scaled = await change(
            self._store, self._cache, lambda snap: services.scaled(snap, project, wanted, time.time()), planned
        )
        response = pb.ScaleServicesResponse()
        for service in scaled:
            response.services.append(self._service(service))
        return response

    async def RollbackService(self, request: pb.RollbackServiceRequest, context: Context) -> tpb.Service:
        """Return a service to an earlier revision."""
        planned = await self.check_plan("rollback_service", request, context)
        project = project_of(request.project)

        def decide(snap: Snapshot) -> tuple[list[Op], Service]:
            now = time.time()
            ops, back = services.rolled_back(snap, refs.service(snap, project, request.ref), request.to_revision, now)
            return [*ops, *dependencies.restarts(snap, project, back.spec, now)], back

        return self._service(await change(self._store, self._cache, decide, planned))

    async def RemoveService(self, request: pb.RemoveServiceRequest, context: Context) -> tpb.Service:
        """Begin to remove a service."""
        project = project_of(request.project)
        service = await change(
            self._store,
            self._cache,
            lambda snap: services.removed(refs.service(snap, project, request.ref), time.time()),
        )
        return self._service(service)

    def _service(self, service: Service) -> tpb.Service:
        return encode(self._cache.snapshot.get(Service, service.meta.id) or service, tpb.Service)

    # ------------------------------------------------------------ tasks

    async def GetTask(self, request: pb.GetTaskRequest, context: Context) -> tpb.Task:
        """Return one task."""
        return encode(refs.task(self._cache.snapshot, project_of(request.project), request.ref), tpb.Task)

    async def ListTasks(self, request: pb.ListTasksRequest, context: Context) -> pb.ListTasksResponse:
        """Return tasks with the services, nodes and revisions that they refer to."""
        snap, project = self._cache.snapshot, project_of(request.project)
        response = pb.ListTasksResponse()
        matching = task_list.matching(snap, project, request)
        tasks = matching if request.all else [t for t in matching if t.status.state <= TaskState.RUNNING]
        of_service: defaultdict[str, list[Task]] = defaultdict(list)
        for task in tasks:
            of_service[task.service_id].append(task)
        for service_id in sorted(of_service):  # some at a time: sessions must not wait for a long list
            of_service[service_id].sort(key=lambda t: (t.slot, -t.meta.created_at, t.meta.id))
            for some in in_turns(of_service[service_id]):
                for task in some:
                    encode_into(task, response.tasks.add())
                await asyncio.sleep(0)
        before = task_list.before(snap, matching)
        for task in before:
            encode_into(task, response.before.add())
        shown = [*tasks, *before]
        for service_id in sorted({t.service_id for t in shown}):
            if found := snap.get(Service, service_id):
                encode_into(found, response.services.add())
        for rev in sorted({revision_id(t.service_id, t.revision) for t in shown}):
            if revision := snap.get(Revision, rev):
                encode_into(revision, response.revisions.add())
        for node_id in sorted({t.node_id for t in shown if t.node_id}):
            if node := snap.get(Node, node_id):
                encode_into(node, response.nodes.add())
        return response

    # ------------------------------------------------------------ nodes

    async def GetNode(self, request: pb.GetNodeRequest, context: Context) -> tpb.Node:
        """Return one node."""
        return encode(refs.node(self._cache.snapshot, request.ref), tpb.Node)

    async def ListNodes(self, request: pb.ListNodesRequest, context: Context) -> pb.ListNodesResponse:
        """Return all nodes, by name."""
        response = pb.ListNodesResponse()
        for node in sorted(self._cache.snapshot.all(Node), key=lambda n: n.spec.name):
            encode_into(node, response.nodes.add())
        return response

    async def UpdateNode(self, request: pb.UpdateNodeRequest, context: Context) -> tpb.Node:
        """Give a node another spec (availability, labels), under a version check."""
        planned = await self.check_plan("update_node", request, context)
        spec = decode(request.spec, NodeSpec)
        node = await change(
            self._store,
            self._cache,
            lambda snap: nodes.updated(
                refs.node(snap, request.ref), spec, time.time(), request.version, request.drain_for
            ),
            planned,
        )
        return encode(self._cache.snapshot.get(Node, node.meta.id) or node, tpb.Node)

    async def RemoveNode(self, request: pb.RemoveNodeRequest, context: Context) -> tpb.Node:
        """Forget a node for good: the operator's word that nothing runs there any more."""
        node = await change(self._store, self._cache, lambda snap: nodes.removed(snap, refs.node(snap, request.ref)))
        return encode(node, tpb.Node)

    # ------------------------------------------------------------ networks

    async def CreateNetwork(self, request: pb.CreateNetworkRequest, context: Context) -> tpb.Network:
        """Create a network."""
        project, spec, network_id = project_of(request.project), decode(request.spec, NetworkSpec), new_id()
        networks.check(spec)
        created = await change(
            self._store,
            self._cache,
            lambda snap: networks.created(snap, project, [(network_id, spec)], time.time()),
        )
        return encode(self._cache.snapshot.get(Network, network_id) or created[0], tpb.Network)

    async def GetNetwork(self, request: pb.GetNetworkRequest, context: Context) -> pb.GetNetworkResponse:
        """Return one network with the use of its addresses."""
        snap = self._cache.snapshot
        network = refs.network(snap, project_of(request.project), request.ref)
        response = pb.GetNetworkResponse()
        encode_into(network, response.network)
        for piece in sorted(snap.slices_of_network(network.meta.id), key=lambda s: s.index):
            encode_into(piece, response.slices.add())
        add_usage(snap, network, response)
        add_mtu(snap, network, response)
        if network.spec.encrypted:
            response.tunnels.extend(tunnels_between(snap, network))
        return response

    async def ListNetworks(self, request: pb.ListNetworksRequest, context: Context) -> pb.ListNetworksResponse:
        """Return the networks of a project, by name."""
        response = pb.ListNetworksResponse()
        found = self._cache.snapshot.all(Network, project=project_of(request.project))
        for network in sorted(found, key=lambda n: n.spec.name):
            encode_into(network, response.networks.add())
        return response

    async def RemoveNetwork(self, request: pb.RemoveNetworkRequest, context: Context) -> tpb.Network:
        """Begin to remove a network that no service uses."""
        project = project_of(request.project)
        network = await change(
            self._store,
            self._cache,
            lambda snap: networks.removed(snap, refs.network(snap, project, request.ref), time.time()),
        )
        return encode(network, tpb.Network)

    # ------------------------------------------------------------ images

    async def GetImage(self, request: pb.GetImageRequest, context: Context) -> tpb.Image:
        """Return one image."""
        return encode(refs.image(self._cache.snapshot, project_of(request.project), request.ref), tpb.Image)

    async def ListImages(self, request: pb.ListImagesRequest, context: Context) -> pb.ListImagesResponse:
        """Return the named images of a project, by name."""
        response = pb.ListImagesResponse()
        found = self._cache.snapshot.all(Image, project=project_of(request.project))
        for image in sorted(found, key=lambda i: i.name):
            if image.name:
                encode_into(image, response.images.add())
        return response

    async def RemoveImage(self, request: pb.RemoveImageRequest, context: Context) -> tpb.Image:
        """Take an image's name away; its content goes when no revision needs it."""
        project = project_of(request.project)
        image = await change(
            self._store,
            self._cache,
            lambda snap: images.removed(snap, refs.image(snap, project, request.ref), request.force),
        )
        return encode(image, tpb.Image)

    # ------------------------------------------------------------ streams

    async def Watch(self, request: pb.WatchRequest, context: Context) -> AsyncGenerator[pb.WatchResponse, None]:
        """Stream changes."""
        async with contextlib.aclosing(watch(self._cache, request)) as responses:
            async for response in responses:
                yield response

    async def Logs(self, request: pb.LogsRequest, context: Context) -> AsyncGenerator[pb.LogEntry, None]:
        """Stream the output of tasks."""
        async with contextlib.aclosing(self._logs.entries(request)) as entries:
            async for entry in entries:
                yield entry


def _add_files(files: Iterable[NamedFile], response: pb.ApplyStackResponse | pb.RemoveStackResponse) -> None:
    for file in files:
        encode_into(file, response.secrets.add() if isinstance(file, Secret) else response.configs.add())
