"""Sends a local image to the cluster: the blobs that it lacks, then the name. The name comes last and is one write, so
an upload that fails leaves nothing that could be seen; blobs without a name are collected by the controller."""

import random
import time
from collections.abc import Iterator
from typing import BinaryIO, Final

import grpc

from argosy.cli.images.local import LocalImage, LocalLayer, Progress
from argosy.core.codec import decode
from argosy.core.image import Image
from argosy.core.oci.digests import digest_of, short
from argosy.proto.argosy.v1 import content_pb2 as pb
from argosy.proto.argosy.v1.content_pb2_grpc import ContentStub

CHUNK: Final = 512 * 1024
_ATTEMPTS: Final = 5
_LEAST_BYTES_A_SECOND: Final = 200_000
"""Below that an upload is given up: it hangs."""


def upload(stub: ContentStub, project: str, name: str, image: LocalImage, progress: Progress) -> Image:
    """Upload what is missing, name the image, return it as the cluster stored it. grpc.RpcError when it cannot be.

    When the controller changes on the way, the whole is begun again: what arrived is not sent twice.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return _upload_once(stub, project, name, image, progress)
        except grpc.RpcError as error:
            if attempt == _ATTEMPTS or error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            time.sleep(random.uniform(0.1, 0.5) * attempt)
    raise AssertionError("the last attempt returns or raises")


def _upload_once(stub: ContentStub, project: str, name: str, image: LocalImage, progress: Progress) -> Image:
    documents = {digest_of(data): data for data in (image.manifest, image.config)}
    layers = {layer.digest: layer for layer in image.layers}
    digests = [*layers, *documents]
    missing = stub.FindMissing(pb.FindMissingRequest(project=project, digests=digests)).missing
    for digest in missing:
        if digest in layers:
            _send_layer(stub, project, layers[digest], progress)
        else:
            _send(stub, project, digest, len(documents[digest]), iter([documents[digest]]))
    return decode(
        stub.TagImage(pb.TagImageRequest(project=project, name=name, manifest_digest=image.digest), timeout=60.0), Image
    )


def _send_layer(stub: ContentStub, project: str, layer: LocalLayer, progress: Progress) -> None:
    what = f"uploading layer {short(layer.digest)}"
    with layer.open() as file:
        _send(stub, project, layer.digest, layer.size, _pieces(file, what, layer.size, progress))


def _pieces(file: BinaryIO, what: str, size: int, progress: Progress) -> Iterator[bytes]:
    done = 0
    while data := file.read(CHUNK):
        yield data
        done += len(data)
        progress(what, done, size)


def _send(stub: ContentStub, project: str, digest: str, size: int, pieces: Iterator[bytes]) -> None:
    def messages() -> Iterator[pb.PutBlobRequest]:
        yield pb.PutBlobRequest(project=project, digest=digest, size=size)
        for data in pieces:
            yield pb.PutBlobRequest(data=data)

    stub.PutBlob(messages(), timeout=60.0 + size / _LEAST_BYTES_A_SECOND)
