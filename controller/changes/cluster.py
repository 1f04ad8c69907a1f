"""Changes of the cluster itself."""

from dataclasses import replace

from argosy.controller.changes.networks import CLUSTER_ID
from argosy.controller.store import Op, Put, Snapshot
from argosy.core.meta import Cluster, Meta, Scheduling


def updated(snap: Snapshot, scheduling: Scheduling, now: float) -> tuple[list[Op], Cluster]:
    """Let tasks be placed another way from now on; those that run stay where they are."""
    cluster = snap.get(Cluster, CLUSTER_ID) or Cluster(Meta(CLUSTER_ID, created_at=now))
    if cluster.scheduling is scheduling:
        return [], cluster
    changed = replace(cluster, scheduling=scheduling, meta=replace(cluster.meta, updated_at=now))
    return [Put(changed, expect=cluster.meta.version)], changed
