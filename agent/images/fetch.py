"""Fetches blobs from the controllers: the image store's source of content on this node."""

import asyncio
from collections.abc import AsyncIterator

import grpc

from argosy.core.errors import RejectedError, TransientError
from argosy.proto.argosy.v1 import content_pb2 as pb
from argosy.proto.argosy.v1 import content_pb2_grpc as rpc

STALLED_S = 30.0
"""A transfer that brings nothing for so long has failed."""


class BlobSource:
    """Reads blobs over the channel of the present session; without a session nothing can be fetched."""

    def __init__(self) -> None:
        self._channel: grpc.aio.Channel | None = None

    def use(self, channel: grpc.aio.Channel | None) -> None:
        """Take the channel of a session that has begun, or None when it has ended."""
        self._channel = channel

    async def fetch(self, digest: str, offset: int) -> AsyncIterator[bytes]:
        """Yield a blob's bytes from `offset` on; TransientError when it cannot be had now."""
        if self._channel is None:
            raise TransientError("no controller can be reached to fetch the image from")
        call = rpc.ContentStub(self._channel).GetBlob(pb.GetBlobRequest(digest=digest, offset=offset))
        try:
            while True:
                async with asyncio.timeout(STALLED_S):
                    part = await call.read()
                if not isinstance(part, pb.GetBlobResponse):
                    if await call.code() is not grpc.StatusCode.OK:
                        raise await _ended(call)
                    return
                yield part.data
        except TimeoutError:
            raise TransientError(f"fetching {digest} from the controller: nothing came for {STALLED_S:.0f} s") from None
        except grpc.aio.AioRpcError as e:
            if e.code() is grpc.StatusCode.NOT_FOUND:
                raise RejectedError(f"the controllers have lost the content {digest}: import the image again") from e
            raise TransientError(f"fetching {digest} from the controller failed: {e.details()}") from e
        finally:
            call.cancel()


async def _ended(call: "grpc.aio.UnaryStreamCall[pb.GetBlobRequest, pb.GetBlobResponse]") -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(
        await call.code(), await call.initial_metadata(), await call.trailing_metadata(), await call.details()
    )
