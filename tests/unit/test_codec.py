"""The codec loses nothing, and no dataclass differs from its message."""

import typing
from dataclasses import fields, is_dataclass, replace
from enum import IntEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.core import assignment
from argosy.core.codec import UnknownValueError, decode, encode, shape_of
from argosy.core.kinds import KINDS
from argosy.core.meta import Meta
from argosy.core.network import Attachment
from argosy.core.task import Task, TaskStatus
from argosy.core.task_state import TaskState
from argosy.proto.argosy.v1 import dispatcher_pb2 as dpb

PAIRS = [(k.domain, k.message) for k in KINDS] + [
    (assignment.TaskAssignment, dpb.TaskAssignment),
    (assignment.RevisionAssignment, dpb.RevisionAssignment),
    (assignment.Succession, dpb.Succession),
    (assignment.NetworkAssignment, dpb.NetworkAssignment),
    (assignment.PeerAssignment, dpb.PeerAssignment),
    (assignment.NamesAssignment, dpb.NamesAssignment),
    (assignment.EndpointAssignment, dpb.EndpointAssignment),
    (assignment.ConfigAssignment, dpb.ConfigAssignment),
    (assignment.SecretAssignment, dpb.SecretAssignment),
    (assignment.LeaderEpoch, dpb.LeaderEpoch),
]


def _reachable(pairs):
    todo, seen = list(pairs), {}
    while todo:
        cls, message = todo.pop()
        if cls in seen:
            continue
        seen[cls] = message.DESCRIPTOR
        hints = typing.get_type_hints(cls)
        for f in fields(cls):
            shape = shape_of(hints[f.name])
            if is_dataclass(shape.item):
                sub = message.DESCRIPTOR.fields_by_name[f.name].message_type
                todo.append((shape.item, type("M", (), {"DESCRIPTOR": sub})))
    return seen


@pytest.mark.parametrize(("cls", "descriptor"), _reachable(PAIRS).items(), ids=lambda x: getattr(x, "__name__", ""))
def test_dataclass_and_message_have_the_same_fields(cls, descriptor):
    assert {f.name for f in fields(cls)} == set(descriptor.fields_by_name)


@pytest.mark.parametrize(("cls", "descriptor"), _reachable(PAIRS).items(), ids=lambda x: getattr(x, "__name__", ""))
def test_enums_have_the_same_values(cls, descriptor):
    hints = typing.get_type_hints(cls)
    for f in fields(cls):
        item = shape_of(hints[f.name]).item
        if isinstance(item, type) and issubclass(item, IntEnum):
            values = descriptor.fields_by_name[f.name].enum_type.values
            assert {v.number for v in values} == {int(v) for v in item}


def _strategy(hint):
    shape = shape_of(hint)
    base = {
        str: st.text(max_size=8),
        int: st.integers(0, 2**31 - 1),
        float: st.floats(0, 1e9),
        bool: st.booleans(),
        bytes: st.binary(max_size=8),
    }
    match shape.kind:
        case "scalar":
            s = base[shape.item]
        case "enum":
            s = st.sampled_from(list(shape.item))
        case "message":
            s = _objects(shape.item)
        case "messages":
            s = st.lists(_objects(shape.item), max_size=2).map(tuple)
        case "list":
            s = st.lists(base[shape.item], max_size=3).map(tuple)
        case _:
            s = st.dictionaries(base[str], base[str], max_size=2)
    return st.none() | s if shape.optional else s


def _objects(cls):
    hints = typing.get_type_hints(cls)
    return st.builds(cls, **{f.name: _strategy(hints[f.name]) for f in fields(cls)})


@pytest.mark.parametrize(("cls", "message"), PAIRS, ids=lambda x: x.__name__)
def test_what_is_encoded_decodes_to_the_same(cls, message):
    @given(_objects(cls))
    def check(obj):
        wire = encode(obj, message).SerializeToString()
        assert decode(message.FromString(wire), cls) == obj

    check()


def test_a_running_task_is_stored_in_under_200_bytes():
    task = Task(
        meta=Meta(id="a" * 13, project="default", created_at=1.7e9, updated_at=1.7e9),
        service_id="b" * 13,
        slot=4000,
        node_id="c" * 13,
        revision=12,
        status=TaskStatus(TaskState.RUNNING, at=1.7e9, pid=123456),
        attachments=(Attachment("d" * 13, 0x0A400021), Attachment("e" * 13, 0x0A410021)),
        running_since=1.7e9,
    )
    from argosy.proto.argosy.v1 import types_pb2 as pb

    assert len(encode(task, pb.Task).SerializeToString()) < 200
    assert replace(task, slot=1) != task


def test_a_value_that_is_not_known_says_which_and_what_is():
    from argosy.proto.argosy.v1 import types_pb2 as pb

    with pytest.raises(UnknownValueError, match=r"state is 77, and this version knows 0 \(NEW\)"):
        decode(pb.TaskStatus(state=77), TaskStatus)


def test_a_stored_object_with_an_unknown_value_is_refused_as_unreadable():
    from argosy.controller.store.errors import UnreadableError
    from argosy.controller.store.records import from_bytes
    from argosy.core.kinds import BY_TYPE
    from argosy.core.service import Service

    kind = BY_TYPE[Service]
    message = kind.message(schema=1)
    message.spec.mode = 99
    with pytest.raises(UnreadableError, match="mode is 99"):
        from_bytes(kind, message.SerializeToString(), 5)
