"""Reading what tasks write for as long as they do, also when the connection to the controllers is lost meanwhile.

When that to a node is, the controller goes on by itself.
"""

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from argosy.cli.errors import UnreachableError
from argosy.core.log_place import LogPlace

if TYPE_CHECKING:
    from argosy.cli.session import Session
    from argosy.proto.argosy.v1 import control_pb2 as pb

_RETRY_S: Final = 0.3
_PAST_S: Final = 5.0
"""What had been written before is read by then: a connection that breaks earlier is repeated from where it began."""


def follow(session: "Session", request: "pb.LogsRequest", on_lost: Callable[[], None]) -> "Iterator[pb.LogEntry]":
    """Yield entries; when the connection breaks, say so by `on_lost` and go on behind the last line of each task.

    Raises grpc.RpcError for what is refused, UnreachableError where no cluster answers from the start.
    """
    import grpc

    place, begun = LogPlace(), False
    while True:
        began = time.monotonic()
        try:
            for entry in session.control.Logs(request):
                begun = True
                if entry.notice or place.is_new(entry.task_id, entry.stderr, entry.at):
                    yield entry
            return
        except UnreachableError:
            if not begun:
                raise
        except grpc.RpcError as error:
            if not isinstance(error, grpc.Call) or error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
        on_lost()
        place.begin_again()
        if time.monotonic() - began >= _PAST_S and place.since():
            request.since = place.since()
            request.ClearField("tail")
        time.sleep(_RETRY_S)
