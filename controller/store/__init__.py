"""The store: a cluster's objects in etcd, a cache of them in memory, and who of the controllers leads.

Nobody outside this package talks to etcd. docs/store.md tells how the parts fit together and what they promise.
"""

from argosy.controller.store.cache import Cache
from argosy.controller.store.collector import tune_collector
from argosy.controller.store.election import Candidate, Election, LeaderRecord, Leadership
from argosy.controller.store.endpoints import EtcdConfig, Tls
from argosy.controller.store.errors import (
    AmbiguousError,
    NewerSchemaError,
    StoreFullError,
    StoreUnavailableError,
    TooLargeError,
    UnreadableError,
    VersionTooOldError,
)
from argosy.controller.store.etcd import EtcdClient
from argosy.controller.store.maintenance import Maintenance, MaintenanceConfig, keep_room
from argosy.controller.store.ops import (
    Check,
    Claim,
    Delete,
    Fence,
    Op,
    Put,
    Release,
    check,
    create,
    delete,
    update,
)
from argosy.controller.store.snapshot import Change, Snapshot
from argosy.controller.store.store import Outcome, Store
from argosy.controller.store.subscription import ChangeBatch, Subscription
from argosy.controller.store.txn import MAX_OPS

__all__ = [
    "MAX_OPS",
    "AmbiguousError",
    "Cache",
    "Candidate",
    "Change",
    "ChangeBatch",
    "Check",
    "Claim",
    "Delete",
    "Election",
    "EtcdClient",
    "EtcdConfig",
    "Fence",
    "LeaderRecord",
    "Leadership",
    "Maintenance",
    "MaintenanceConfig",
    "NewerSchemaError",
    "Op",
    "Outcome",
    "Put",
    "Release",
    "Snapshot",
    "Store",
    "StoreFullError",
    "StoreUnavailableError",
    "Subscription",
    "Tls",
    "TooLargeError",
    "UnreadableError",
    "VersionTooOldError",
    "check",
    "create",
    "delete",
    "keep_room",
    "tune_collector",
    "update",
]
