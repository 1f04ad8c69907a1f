"""Small clusters as snapshots, for tests of what decides over one."""

from dataclasses import replace

from argosy.controller.store import Change, Snapshot
from argosy.core.meta import Meta
from argosy.core.network import Network, NetworkSpec
from argosy.core.node import Node, NodeDescription, NodeSpec, NodeState, NodeStatus, Platform, Resources
from argosy.core.service import ContainerSpec, Revision, Service, ServiceSpec, TaskSpec, revision_id
from argosy.core.task import Task, TaskStatus
from argosy.core.task_state import TaskState

GIB = 1 << 30
PLAIN = TaskSpec()


def node(name, *, cpus=4.0, labels=None, state=NodeState.READY, **spec):
    """Return a node of 4 CPUs whose id is its name."""
    description = NodeDescription(name, Platform("linux", "amd64"), Resources(cpus, 4 * GIB))
    return Node(Meta(name, version=1), NodeSpec(name, labels=labels or {}, **spec), description, NodeStatus(state))


def service(name, replicas=1, task=PLAIN, **spec):
    """Return a service whose id is its name, and its first revision."""
    task = task if task.container.image else replace(task, container=ContainerSpec("app:1", f"sha256:{'1' * 64}"))
    made = ServiceSpec(name, replicas=replicas, task=task, **spec)
    meta = Meta(name, "default", version=1)
    return Service(meta, made, 1), Revision(Meta(revision_id(name, 1), "default", version=1), name, 1, made)


def task(of, slot, node_id="", state=TaskState.RUNNING, **fields):
    """Return a task of a service's first revision."""
    meta = Meta(f"{of}{slot}{node_id}", "default", version=1)
    return Task(meta, of, slot, node_id, 1, status=TaskStatus(state), **fields)


def network(name, subnet="10.9.0.0/26"):
    """Return a network whose id is its name."""
    return Network(Meta(name, "default", version=1), NetworkSpec(name), 4096, subnet)


def changed(snap, *objects, gone=()):
    """Return the next snapshot and the changes that led there; an object may be a tuple of some."""
    new = [o for one in objects for o in (one if isinstance(one, tuple) else (one,))]
    changes = [Change(type(o), o.meta.id, snap.get(type(o), o.meta.id), o) for o in new]
    changes += [Change(type(o), o.meta.id, o, None) for o in gone]
    return snap.apply(snap.revision + 1, changes), changes


def snapshot(*objects):
    """Return a snapshot with these objects."""
    return changed(Snapshot(), *objects)[0]
