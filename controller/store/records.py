"""Objects as bytes: what is stored as the value of an object's key.

The value is the object's protobuf message with the schema it was written in. `meta.version` is not stored: it is
etcd's mod_revision of the key, put in on read.
"""

from typing import TypeVar, cast

from argosy.controller.store.errors import NewerSchemaError
from argosy.core.codec import decode, encode
from argosy.core.kinds import BY_TYPE, SCHEMA_VERSION, Kind, StoredObject

K = TypeVar("K", bound=StoredObject)
"""A domain type that is stored."""


def to_bytes(obj: StoredObject) -> bytes:
    """Return the value to store for an object."""
    message = encode(obj, BY_TYPE[type(obj)].message)
    message.meta.ClearField("version")  # type: ignore[attr-defined]
    message.schema = SCHEMA_VERSION  # type: ignore[attr-defined]
    return message.SerializeToString()


def from_bytes(kind: Kind, value: bytes, version: int) -> StoredObject:
    """Return the stored object with its version; NewerSchemaError when this program is too old for it."""
    message = kind.message.FromString(value)
    schema = message.schema  # type: ignore[attr-defined]
    if schema > SCHEMA_VERSION:
        raise NewerSchemaError(
            f"the {kind.name} {message.meta.id} was stored in schema {schema}; this controller knows up to "  # type: ignore[attr-defined]
            f"{SCHEMA_VERSION}: run the newer version, or restore a backup from before the upgrade"
        )
    message.meta.version = version  # type: ignore[attr-defined]
    return cast(StoredObject, decode(message, kind.domain))
