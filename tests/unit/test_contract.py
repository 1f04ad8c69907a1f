"""Promises of the wire contract: every request names a project, every RPC says what it takes to call it."""

import pytest

from argosy.proto.argosy.v1 import content_pb2, control_pb2, dispatcher_pb2
from argosy.proto.argosy.v1.options_pb2 import (
    PERMISSION_CLUSTER_READ,
    PERMISSION_READ,
    PERMISSION_UNSPECIFIED,
    permission,
)

METHODS = [
    (service.name, method)
    for module in (control_pb2, content_pb2, dispatcher_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]


def _name(value):
    return value if isinstance(value, str) else value.name


@pytest.mark.parametrize(("service", "method"), METHODS, ids=_name)
def test_every_rpc_carries_a_permission(service, method):
    assert method.GetOptions().Extensions[permission] != PERMISSION_UNSPECIFIED


@pytest.mark.parametrize(("service", "method"), METHODS, ids=_name)
def test_every_request_carries_a_project(service, method):
    assert "project" in method.input_type.fields_by_name


@pytest.mark.parametrize(("service", "method"), METHODS, ids=_name)
def test_the_command_line_knows_reading_calls_by_their_names(service, method):
    from argosy.cli.channel import is_read

    if not (method.client_streaming or method.server_streaming):
        reads = method.GetOptions().Extensions[permission] in (PERMISSION_READ, PERMISSION_CLUSTER_READ)
        assert is_read(f"/{service}/{method.name}") == (reads or method.name in ("FindMissing", "GetPlan"))


def test_stored_objects_carry_a_schema_version_and_meta():
    from argosy.core.kinds import KINDS

    for kind in KINDS:
        assert {"schema", "meta"} <= set(kind.message.DESCRIPTOR.fields_by_name), kind.name
