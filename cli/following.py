"""Reading what tasks write for as long as they do, also when the connection to the controllers is lost meanwhile.

When that to a node is, the controller goes on by itself.
"""

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from argosy.cli.errors import UnreachableError

if TYPE_CHECKING:
    from argosy.cli.session import Session
    from argosy.proto.argosy.v1 import control_pb2 as pb

_RETRY_S: Final = 0.3


def problem(entry: "pb.LogEntry") -> str:
    """Return what is to be said before an entry's output is shown; "" for nothing."""
    if entry.missing:
        return f"{entry.missing:,} bytes of its log were rotated away before they were read"
    return entry.notice


def follow(session: "Session", request: "pb.LogsRequest", on_lost: Callable[[], None]) -> "Iterator[pb.LogEntry]":
    """Yield entries; when the connection breaks, say so by `on_lost` and go on behind what was yielded of each task.

    Raises grpc.RpcError for what is refused, UnreachableError where no cluster answers from the start.
    """
    import grpc

    begun = False
    while True:
        try:
            for entry in session.control.Logs(request):
                begun = True
                yield entry
                if entry.HasField("position"):
                    request.positions[entry.task_id] = entry.position
            return
        except UnreachableError:
            if not begun:
                raise
        except grpc.RpcError as error:
            if not isinstance(error, grpc.Call) or error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
        on_lost()
        time.sleep(_RETRY_S)
