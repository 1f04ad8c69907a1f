"""The kinds of stored objects: their key names, domain types and messages. One row each; everything else derives."""

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from google.protobuf.message import Message

from argosy.core.files import Config, FileVersion, Secret
from argosy.core.image import Image
from argosy.core.meta import Cluster
from argosy.core.network import Network, Slice
from argosy.core.node import BeatKey, Node
from argosy.core.service import Revision, Service
from argosy.core.task import Task
from argosy.proto.argosy.v1 import types_pb2 as pb

StoredObject: TypeAlias = (
    Cluster | Node | BeatKey | Service | Revision | Task | Network | Slice | Image | Config | Secret | FileVersion
)


@dataclass(frozen=True, slots=True)
class Kind:
    """`name` stands in etcd keys and Watch; `scoped` kinds have a project in their key."""

    name: str
    domain: type[Any]
    message: type[Message]
    scoped: bool


KINDS: Final[tuple[Kind, ...]] = (
    Kind("cluster", Cluster, pb.Cluster, False),
    Kind("node", Node, pb.Node, False),
    Kind("beat_key", BeatKey, pb.BeatKey, False),
    Kind("service", Service, pb.Service, True),
    Kind("revision", Revision, pb.Revision, True),
    Kind("task", Task, pb.Task, True),
    Kind("network", Network, pb.Network, True),
    Kind("slice", Slice, pb.Slice, False),
    Kind("image", Image, pb.Image, True),
    Kind("config", Config, pb.Config, True),
    Kind("secret", Secret, pb.Secret, True),
    Kind("file_version", FileVersion, pb.FileVersion, True),
)
BY_NAME: Final[dict[str, Kind]] = {k.name: k for k in KINDS}
BY_TYPE: Final[dict[type[Any], Kind]] = {k.domain: k for k in KINDS}

SCHEMA_VERSION: Final = 1
"""Of all stored objects; a controller refuses to read a newer one (it would lose what it does not know)."""
