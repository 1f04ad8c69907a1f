"""One command's connection to its cluster; made by `main`, used by all commands through `@pass_session`."""

import os
from functools import cached_property
from typing import TYPE_CHECKING

import click

from argosy.cli.context import Target, dev_name, resolve

if TYPE_CHECKING:
    from argosy.cli.channel import FailoverChannel
    from argosy.proto.argosy.v1.control_pb2_grpc import ControlStub


class Session:
    """Resolves the target on first use only, so that commands without a cluster do not care about contexts."""

    def __init__(self, host: str = "", context: str = "", project: str = "") -> None:
        self._options = (host, context, project)

    def choose(self, host: str, context: str, project: str) -> None:
        """Take the command line's options; before the first use of the target."""
        self._options = (host, context, project)

    @cached_property
    def target(self) -> Target:
        """The endpoints and the project."""
        return resolve(*self._options, os.environ)

    @property
    def dev_name(self) -> str:
        """The dev cluster that is meant when none is named."""
        return dev_name(self._options[1], os.environ)

    @property
    def project(self) -> str:
        """The project that all requests carry."""
        return self.target.project

    @property
    def hosts(self) -> tuple[str, ...]:
        """The controllers' endpoints."""
        return self.target.hosts

    @cached_property
    def channel(self) -> "FailoverChannel":
        """A channel that fails over between the controllers."""
        from argosy.cli.channel import FailoverChannel

        return FailoverChannel(self.hosts)

    @property
    def changes_sent(self) -> bool:
        """Whether a call that may change the cluster has begun."""
        found = self.__dict__.get("channel")
        return found is not None and found.changes_sent

    @cached_property
    def control(self) -> "ControlStub":
        """The cluster's Control service."""
        from argosy.proto.argosy.v1.control_pb2_grpc import ControlStub

        return ControlStub(self.channel)


pass_session = click.make_pass_decorator(Session, ensure=True)
