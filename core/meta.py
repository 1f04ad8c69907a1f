"""What all stored objects have in common."""

from dataclasses import dataclass
from enum import IntEnum

from argosy.core.mesh import Mesh


@dataclass(frozen=True, slots=True)
class Meta:
    """Identity of a stored object. `version` is etcd's mod_revision of the read; `project` "" means the cluster's."""

    id: str = ""
    project: str = ""
    version: int = 0
    created_at: float = 0.0
    updated_at: float = 0.0


class Scheduling(IntEnum):
    """Which of the nodes that can run a task gets it: the emptiest, or the fullest."""

    SPREAD = 0
    BINPACK = 1


@dataclass(frozen=True, slots=True)
class Cluster:
    """The cluster itself: one object."""

    meta: Meta = Meta()
    name: str = ""
    next_vni: int = 0
    scheduling: Scheduling = Scheduling.SPREAD
    mesh: Mesh = Mesh()
    schema: int = 1


DEFAULT_PROJECT = "default"
STACK_LABEL = "argosy.stack"
"""Label that says which stack a service or network was deployed by."""
