"""A message of the cluster in full, as plain values: what `inspect` and `events` print as JSON."""

from typing import Any, Final

from google.protobuf.message import Message

from argosy.cli.rows import address_text

_ADDRESSES: Final = frozenset({"argosy.v1.Attachment.address", "argosy.v1.StaticAddress.address"})
_PERMISSIONS: Final = frozenset({"argosy.v1.FileRef.mode", "argosy.v1.Tmpfs.mode"})


def plain(message: Message) -> dict[str, Any]:
    """Return a message as a dict with the contract's field names; what is not set is None.

    Enumerations are their names without the prefix, addresses are text, bytes are hexadecimal, permissions octal as
    files say them ("0444").
    """
    return {field.name: _value(message, field) for field in message.DESCRIPTOR.fields}


def _value(message: Message, field: Any) -> Any:
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return dict(value)
    if field.is_repeated:
        return [_single(item, field) for item in value]
    if field.has_presence and not message.HasField(field.name):
        return None
    return _single(value, field)


def _single(value: Any, field: Any) -> Any:
    if isinstance(value, Message):
        return plain(value)
    if field.enum_type is not None:
        return _enum_name(field, value)
    if field.full_name in _ADDRESSES:
        return address_text(value)
    if field.full_name in _PERMISSIONS:
        return f"{value:04o}" if value else None
    return value.hex() if isinstance(value, bytes) else value


def _enum_name(field: Any, number: int) -> str:
    """Return "RUNNING" for TASK_STATE_RUNNING: the prefix is what all names of the enumeration begin with."""
    names = field.enum_type.values_by_number
    if number not in names:
        return str(number)
    words = [value.name.split("_") for value in field.enum_type.values]
    common = 0
    while all(len(parts) > common + 1 and parts[common] == words[0][common] for parts in words):
        common += 1
    return "_".join(names[number].name.split("_")[common:])
