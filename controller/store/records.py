"""Objects as bytes: what is stored as the value of an object's key.

The value is the object's protobuf message with the schema it was written in. `meta.version` is not stored: it is
etcd's mod_revision of the key, put in on read.
"""

from typing import Any, TypeVar, cast

from google.protobuf.message import DecodeError

from argosy.controller.store.errors import NewerSchemaError, UnreadableError
from argosy.core.codec import UnknownValueError, decode, encode
from argosy.core.kinds import BY_TYPE, SCHEMA_VERSION, Kind, StoredObject

K = TypeVar("K", bound=StoredObject)
"""A domain type that is stored."""


def to_bytes(obj: StoredObject) -> bytes:
    """Return the value to store for an object."""
    message: Any = encode(obj, BY_TYPE[type(obj)].message)
    message.meta.ClearField("version")
    message.schema = SCHEMA_VERSION
    value: bytes = message.SerializeToString()
    return value


def from_bytes(kind: Kind, value: bytes, version: int) -> StoredObject:
    """Return the stored object with its version.

    Raises NewerSchemaError when this program is too old for it, UnreadableError when it is damaged.
    """
    try:
        message: Any = kind.message.FromString(value)
        if message.schema <= SCHEMA_VERSION:
            message.meta.version = version
            return cast(StoredObject, decode(message, kind.domain))
    except (DecodeError, ValueError, UnknownValueError) as error:
        raise UnreadableError(f"a stored {kind.name} (version {version}) cannot be read: {error}") from error
    raise NewerSchemaError(
        f"the {kind.name} {message.meta.id} was stored in schema {message.schema}, and this controller knows up to "
        f"{SCHEMA_VERSION}: run the newer version, or restore a backup from before the upgrade"
    )
