"""One generic codec between the domain's dataclasses and their protobuf messages, by field name.

Used wherever bytes cross a boundary: the wire and etcd. For every dataclass an encoder and a decoder are compiled
once, on first use, from its type hints; a dataclass and its message have the same fields
(tests/unit/test_codec.py proves it for all), so a new field is one line on each side.
"""

import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import IntEnum
from typing import Any, TypeVar

from google.protobuf.message import Message

from argosy.core.errors import InvalidError

T = TypeVar("T")

Encoder = Callable[[Any, Any], None]
"""(domain object, message to fill) -> None."""
Decoder = Callable[[Any], Any]
"""message -> domain object."""


class UnknownValueError(InvalidError):
    """A message has a value of an enum that this version does not know: its sender is newer, or wrong.

    Of a request it is what is wrong with it; a stored object is refused (store/records.py); an agent leaves out the one
    piece that has it (core/wire.py).
    """


def encode(obj: Any, message_type: Callable[[], T]) -> T:
    """Return `obj` as a message of `message_type`."""
    message = message_type()
    _encoder(type(obj))(obj, message)
    return message


def encode_into(obj: Any, message: Message) -> None:
    """Fill `message` (fresh, or a sub-message) from `obj`."""
    _encoder(type(obj))(obj, message)


def decode(message: Message, cls: type[T]) -> T:
    """Return `message` as a `cls`. Unset sub-messages decode to the field's default where that is None, else empty.

    Raises UnknownValueError.
    """
    result: T = _decoder(cls)(message)
    return result


class _Shape(typing.NamedTuple):
    """How a field's type looks: one of the kinds below, with the type of its items or of the value itself."""

    kind: str  # scalar | enum | message | list | messages | enums | map
    item: Any
    optional: bool


def shape_of(hint: Any) -> _Shape:
    """Classify a type hint of a dataclass field; TypeError for one that no message can have."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        inner = [a for a in typing.get_args(hint) if a is not type(None)]
        if len(inner) != 1:
            raise TypeError(f"a union other than with None cannot be encoded: {hint}")
        return shape_of(inner[0])._replace(optional=True)
    origin = typing.get_origin(hint)
    if origin is tuple:
        item = typing.get_args(hint)[0]
        if is_dataclass(item):
            return _Shape("messages", item, False)
        return _Shape("list", item, False)
    if origin is Mapping or hint is Mapping:
        return _Shape("map", str, False)
    if is_dataclass(hint):
        return _Shape("message", hint, False)
    if isinstance(hint, type) and issubclass(hint, IntEnum):
        return _Shape("enum", hint, False)
    if hint in (str, int, float, bool, bytes):
        return _Shape("scalar", hint, False)
    raise TypeError(f"a field of this type cannot be encoded: {hint}")


_ENCODERS: dict[type[Any], Encoder] = {}
_DECODERS: dict[type[Any], Decoder] = {}


def _encoder(cls: type[Any]) -> Encoder:
    found = _ENCODERS.get(cls)
    if found is None:
        found = _ENCODERS[cls] = _compile_encoder(cls)
    return found


def _decoder(cls: type[Any]) -> Decoder:
    found = _DECODERS.get(cls)
    if found is None:
        found = _DECODERS[cls] = _compile_decoder(cls)
    return found


def _compile_encoder(cls: type[Any]) -> Encoder:
    hints = typing.get_type_hints(cls)
    steps = [_field_encoder(f.name, shape_of(hints[f.name])) for f in fields(cls)]

    def run(obj: Any, message: Any) -> None:
        for step in steps:
            step(obj, message)

    return run


def _field_encoder(name: str, shape: _Shape) -> Encoder:
    get = _getter(name)
    match shape.kind:
        case "scalar" | "enum":

            def scalar(obj: Any, message: Any) -> None:
                value = get(obj)
                if value is not None:
                    setattr(message, name, value)

            return scalar
        case "message":
            inner = shape.item

            def sub(obj: Any, message: Any) -> None:
                value = get(obj)
                if value is not None:
                    target = getattr(message, name)
                    target.SetInParent()
                    _encoder(inner)(value, target)

            return sub
        case "messages":
            inner = shape.item

            def subs(obj: Any, message: Any) -> None:
                values = get(obj)
                if values:
                    target = getattr(message, name)
                    encode_item = _encoder(inner)
                    for value in values:
                        encode_item(value, target.add())

            return subs
        case "list":

            def items(obj: Any, message: Any) -> None:
                values = get(obj)
                if values:
                    getattr(message, name).extend(values)

            return items
        case _:

            def mapping(obj: Any, message: Any) -> None:
                values = get(obj)
                if values:
                    getattr(message, name).update(values)

            return mapping


def _getter(name: str) -> Callable[[Any], Any]:
    import operator

    return operator.attrgetter(name)


def _compile_decoder(cls: type[Any]) -> Decoder:
    hints = typing.get_type_hints(cls)
    steps = [_field_decoder(f.name, shape_of(hints[f.name])) for f in fields(cls)]
    for f in fields(cls):
        if f.default is MISSING and f.default_factory is MISSING:
            raise TypeError(f"{cls.__name__}.{f.name} needs a default: old records lack new fields")

    def run(message: Any) -> Any:
        return cls(*[step(message) for step in steps])

    return run


def _enum_decoder(name: str, enum: type[IntEnum]) -> Decoder:
    get, members = _getter(name), {int(member): member for member in enum}

    def value_of(message: Any) -> IntEnum:
        value = get(message)
        if value not in members:
            known = ", ".join(f"{number} ({member.name})" for number, member in members.items())
            raise UnknownValueError(f"{name} is {value}, and this version knows {known}")
        return members[value]

    return value_of


def _field_decoder(name: str, shape: _Shape) -> Decoder:
    get = _getter(name)
    match shape.kind:
        case "scalar" | "enum":
            if shape.optional:
                return lambda m: get(m) if m.HasField(name) else None
            return get if shape.kind == "scalar" else _enum_decoder(name, shape.item)
        case "message":
            inner = shape.item
            if shape.optional:
                return lambda m: _decoder(inner)(get(m)) if m.HasField(name) else None
            return lambda m: _decoder(inner)(get(m))
        case "messages":
            inner = shape.item
            return lambda m: tuple(map(_decoder(inner), get(m)))
        case "list":
            return lambda m: tuple(get(m))
        case _:
            return lambda m: dict(get(m))
