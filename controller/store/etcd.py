"""A thin client of etcd's v3 API over grpc.aio, for exactly what the store needs.

The Python clients there are either cannot be used with a current protobuf, lose events of a watch, or repeat
transactions that may have been applied (docs/store.md). This one sends a transaction once: when its outcome is
unknown it raises AmbiguousError and leaves it to the caller, who knows how to find out (controller/store/settle.py).
Reads, and calls that may be repeated, go to the next endpoint until the request timeout is over.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

from argosy.controller.store.endpoints import Connect, Endpoint, Endpoints, EtcdConfig, connect, connect_blocking
from argosy.controller.store.errors import AmbiguousError, LeaseGoneError, StoreFullError, StoreUnavailableError
from argosy.controller.store.keys import end_of_prefix
from argosy.controller.store.outcome import NEEDS_LEADER, Failure, failure_of, refusal, words_of
from argosy.controller.store.watch import Watch, WatchStream
from argosy.core.errors import ArgosyError
from argosy.proto.etcd import rpc_pb2 as pb

PAGE = 5000
"""Keys in a page of a range. etcd walks the index to the end of the whole range for every page: few large ones."""


class EtcdClient:
    """A connection to an etcd cluster. Made and closed in one event loop; connects on first use."""

    def __init__(self, config: EtcdConfig, connect: Connect = connect) -> None:
        self._config = config
        self.endpoints = Endpoints(config, connect)
        self._watches = WatchStream(self.endpoints)
        self.full = asyncio.Event()
        """Set when a write was refused because etcd's database is full."""

    async def __aenter__(self) -> "EtcdClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End the watches and the connections. Calls under way end with StoreUnavailableError."""
        await self._watches.close()
        await self.endpoints.close()

    def blocking_channel(self, endpoint: Endpoint) -> grpc.Channel:
        """Make a further connection to a member, for a thread. The caller closes it."""
        return connect_blocking(endpoint.address, self._config)

    # ---- keys

    async def range(self, key: bytes, range_end: bytes = b"", **fields: Any) -> pb.RangeResponse:
        """Read a key, or the range up to `range_end`; `fields` are those of RangeRequest. Linearizable by default.

        Raises CompactedError when `revision` is not there (any more, or yet).
        """
        request = pb.RangeRequest(key=key, range_end=range_end, **fields)
        response: pb.RangeResponse = await self._repeatable("/etcdserverpb.KV/Range", request, pb.RangeResponse)
        return response

    async def pages(
        self, prefix: bytes, *, revision: int = 0, keys_only: bool = False, limit: int = PAGE
    ) -> AsyncIterator[pb.RangeResponse]:
        """Read all keys with a prefix at one revision, page by page in the order of the keys.

        With `revision` 0 that is the newest; every page's `header.revision` may be higher than it, except the
        first's, which is it.
        """
        key, end = prefix, end_of_prefix(prefix)
        while True:
            page = await self.range(key, end, revision=revision, keys_only=keys_only, limit=limit)
            revision = revision or page.header.revision
            yield page
            if not page.more:
                return
            key = page.kvs[-1].key + b"\0"

    async def txn(self, request: pb.TxnRequest, *, timeout: float | None = None) -> pb.TxnResponse:
        """Run a transaction, sent at most once.

        Raises AmbiguousError when it may have been applied, StoreUnavailableError when it surely was not.
        """
        response: pb.TxnResponse = await self._once("/etcdserverpb.KV/Txn", request, pb.TxnResponse, timeout)
        return response

    def watch(self, prefix: bytes, start_revision: int, *, single_key: bool = False) -> Watch:
        """Watch a prefix (or one key) from a revision on, across reconnections, without a loss or a repetition."""
        return self._watches.add(prefix, b"" if single_key else end_of_prefix(prefix), start_revision)

    async def request_progress(self) -> None:
        """Ask for the revision that all watches have reached; it comes to them as WatchProgress."""
        await self._watches.request_progress()

    async def compact(self, revision: int) -> None:
        """Forget all that was overwritten before `revision`. CompactedError when that has happened already."""
        request = pb.CompactionRequest(revision=revision)
        await self._repeatable("/etcdserverpb.KV/Compact", request, pb.CompactionResponse)

    # ---- leases

    async def lease_grant(self, ttl_s: int) -> pb.LeaseGrantResponse:
        """Make a lease; etcd may raise its time to live. A repeated grant leaves one that expires by itself."""
        request = pb.LeaseGrantRequest(TTL=ttl_s)
        response: pb.LeaseGrantResponse = await self._repeatable(
            "/etcdserverpb.Lease/LeaseGrant", request, pb.LeaseGrantResponse
        )
        return response

    async def lease_revoke(self, lease_id: int) -> None:
        """End a lease and delete its keys; nothing happens when there is none."""
        request = pb.LeaseRevokeRequest(ID=lease_id)
        try:
            await self._repeatable("/etcdserverpb.Lease/LeaseRevoke", request, pb.LeaseRevokeResponse)
        except LeaseGoneError:
            return

    # ---- members

    async def status(self, endpoint: Endpoint, *, timeout: float = 5.0) -> pb.StatusResponse:
        """Ask one member how it is."""
        answer: pb.StatusResponse = await self._member(
            endpoint, "Status", pb.StatusRequest(), pb.StatusResponse, timeout
        )
        return answer

    async def defragment(self, endpoint: Endpoint, *, timeout: float = 120.0) -> None:
        """Let one member give freed space back to its disk. It answers nothing else meanwhile."""
        await self._member(endpoint, "Defragment", pb.DefragmentRequest(), pb.DefragmentResponse, timeout)

    async def alarms(self) -> list[pb.AlarmMember]:
        """Return the alarms that are raised."""
        request = pb.AlarmRequest(action=pb.AlarmRequest.GET)
        response: pb.AlarmResponse = await self._repeatable(
            "/etcdserverpb.Maintenance/Alarm", request, pb.AlarmResponse
        )
        return list(response.alarms)

    async def disarm(self, alarm: pb.AlarmMember) -> None:
        """Clear an alarm. etcd raises it again when its cause is still there."""
        request = pb.AlarmRequest(action=pb.AlarmRequest.DEACTIVATE, memberID=alarm.memberID, alarm=alarm.alarm)
        await self._repeatable("/etcdserverpb.Maintenance/Alarm", request, pb.AlarmResponse)

    # ---- calls

    async def _once(self, path: str, request: Any, response: Any, timeout: float | None) -> Any:
        """Send until it was sent once: a failure to connect leads to the next endpoint, any other failure ends it."""
        patience = _Patience(timeout or self._config.request_timeout_s)
        while True:
            endpoint = self.endpoints.current
            try:
                return await self._send(endpoint, path, request, response, patience)
            except grpc.aio.AioRpcError as error:
                failure = failure_of(error)
                if failure is Failure.REFUSED:
                    raise self._refused(error) from error
                self.endpoints.failed(endpoint)
                if failure is Failure.UNKNOWN:
                    raise AmbiguousError(
                        f"etcd at {endpoint.address} was sent a write and did not answer ({words_of(error)}): "
                        "it may or may not have been applied"
                    ) from error
                await patience.after(endpoint, error)

    async def _repeatable(self, path: str, request: Any, response: Any) -> Any:
        """Send until it is answered; for what may be done twice."""
        patience = _Patience(self._config.request_timeout_s)
        while True:
            endpoint = self.endpoints.current
            try:
                return await self._send(endpoint, path, request, response, patience)
            except grpc.aio.AioRpcError as error:
                if failure_of(error) is Failure.REFUSED:
                    raise self._refused(error) from error
                self.endpoints.failed(endpoint)
                await patience.after(endpoint, error)

    def _refused(self, error: grpc.aio.AioRpcError) -> ArgosyError:
        refused = refusal(error)
        if isinstance(refused, StoreFullError):
            self.full.set()
        return refused

    async def _send(self, endpoint: Endpoint, path: str, request: Any, response: Any, patience: "_Patience") -> Any:
        timeout = min(self._config.attempt_timeout_s, patience.left())
        return await endpoint.unary(path, response)(request, timeout=timeout, metadata=NEEDS_LEADER)

    async def _member(self, endpoint: Endpoint, method: str, request: Any, response: Any, timeout: float) -> Any:
        try:
            return await endpoint.unary(f"/etcdserverpb.Maintenance/{method}", response)(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            if failure_of(error) is Failure.REFUSED:
                raise refusal(error) from error
            raise StoreUnavailableError(f"etcd at {endpoint.address} does not answer: {words_of(error)}") from error


class _Patience:
    """How long a call may still take, and the growing, jittered pauses between its attempts."""

    def __init__(self, timeout_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + timeout_s
        self._pause_s = 0.02

    def left(self) -> float:
        """Return the seconds left, never less than a moment: a timeout of 0 would mean none to gRPC."""
        return max(self._deadline - self._loop.time(), 0.001)

    async def after(self, endpoint: Endpoint, error: grpc.aio.AioRpcError) -> None:
        """Wait until the next attempt; StoreUnavailableError when there is no time for one."""
        pause = self._pause_s * random.uniform(0.5, 1.5)
        if pause >= self._deadline - self._loop.time():
            raise StoreUnavailableError(
                f"etcd does not answer (asked last: {endpoint.address}: {words_of(error)}): is it running?"
            ) from error
        self._pause_s = min(self._pause_s * 2, 0.5)
        await asyncio.sleep(pause)
