"""Reports of agents on their networks, matched to whoever asked for them by the number of the request."""

import asyncio

from argosy.core.errors import NotFoundError
from argosy.core.ids import new_id
from argosy.proto.argosy.v1 import dispatcher_pb2 as pb


class NetworkReports:
    """The reports that were asked for and have not come yet."""

    def __init__(self) -> None:
        self._expected: dict[str, asyncio.Future[pb.NetworkReport]] = {}

    def expect(self) -> tuple[str, "asyncio.Future[pb.NetworkReport]"]:
        """Return the number for a request, and what will hold the report."""
        request_id = new_id()
        future: asyncio.Future[pb.NetworkReport] = asyncio.get_running_loop().create_future()
        self._expected[request_id] = future
        future.add_done_callback(lambda _: self._expected.pop(request_id, None))
        return request_id, future

    def receive(self, report: pb.NetworkReport) -> None:
        """Hand a report over. NotFoundError when nobody waits for it any more."""
        future = self._expected.get(report.request_id)
        if future is None or future.done():
            raise NotFoundError("nobody waits for this report any more")
        future.set_result(report)
