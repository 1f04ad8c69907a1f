"""The part of the Control service that is about configs and secrets. What a secret holds goes in and never out."""

import time
from typing import Any, TypeAlias

import grpc

from argosy.controller.changes import files, refs
from argosy.controller.changes.commit import change
from argosy.controller.changes.files import Written
from argosy.controller.changes.refs import project_of
from argosy.controller.secrets.keyring import Keyring
from argosy.controller.store import Cache, Snapshot, Store
from argosy.core.codec import decode, encode, encode_into
from argosy.core.errors import NotFoundError
from argosy.core.files import Config, FileVersion, NamedFile, NewFile, Secret, version_id
from argosy.core.ids import new_id
from argosy.proto.argosy.v1 import control_pb2 as pb
from argosy.proto.argosy.v1 import control_pb2_grpc as rpc
from argosy.proto.argosy.v1 import types_pb2 as tpb

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class FileHandlers(rpc.ControlServicer):
    """Handlers that `ControlServicer` inherits."""

    _store: Store
    _cache: Cache
    _keys: Keyring

    async def CreateConfig(self, request: pb.CreateConfigRequest, context: Context) -> pb.CreateConfigResponse:
        """Create a config, or its next version."""
        done = await self._written(request.project, request.file, secret=False)
        response = pb.CreateConfigResponse(changed=done.changed, services=done.users)
        encode_into(self._stored(done.file), response.config)
        return response

    async def GetConfig(self, request: pb.GetConfigRequest, context: Context) -> pb.GetConfigResponse:
        """Return one config with what a version of it holds."""
        snap = self._cache.snapshot
        config = refs.config(snap, project_of(request.project), request.ref)
        number = request.number or config.number
        version = snap.get(FileVersion, version_id(config.meta.id, number))
        if version is None:
            have = ", ".join(map(str, _numbers(snap, config)))
            raise NotFoundError(f"config {config.name} has no version {number} (any more): it has {have}")
        response = pb.GetConfigResponse(data=version.data, number=number)
        encode_into(config, response.config)
        response.versions.extend(_numbers(snap, config))
        response.services.extend(_users(snap, config))
        return response

    async def ListConfigs(self, request: pb.ListConfigsRequest, context: Context) -> pb.ListConfigsResponse:
        """Return the configs of a project, by name."""
        response = pb.ListConfigsResponse()
        found = self._cache.snapshot.all(Config, project=project_of(request.project))
        for config in sorted(found, key=lambda c: c.name):
            if not config.removing:
                encode_into(config, response.configs.add())
        return response

    async def RemoveConfig(self, request: pb.RemoveConfigRequest, context: Context) -> tpb.Config:
        """Remove a config that no service uses."""
        project = project_of(request.project)
        gone = await change(
            self._store,
            self._cache,
            lambda snap: files.removed(snap, refs.config(snap, project, request.ref), time.time()),
        )
        return encode(gone, tpb.Config)

    async def CreateSecret(self, request: pb.CreateSecretRequest, context: Context) -> pb.CreateSecretResponse:
        """Create a secret, or its next version."""
        done = await self._written(request.project, request.file, secret=True)
        response = pb.CreateSecretResponse(changed=done.changed, services=done.users)
        encode_into(self._stored(done.file), response.secret)
        return response

    async def GetSecret(self, request: pb.GetSecretRequest, context: Context) -> pb.GetSecretResponse:
        """Return one secret, without what it holds."""
        snap = self._cache.snapshot
        secret = refs.secret(snap, project_of(request.project), request.ref)
        version = snap.get(FileVersion, version_id(secret.meta.id, secret.number))
        response = pb.GetSecretResponse(key_id=version.sealed.key_id if version else "")
        encode_into(secret, response.secret)
        response.versions.extend(_numbers(snap, secret))
        response.services.extend(_users(snap, secret))
        return response

    async def ListSecrets(self, request: pb.ListSecretsRequest, context: Context) -> pb.ListSecretsResponse:
        """Return the secrets of a project, by name."""
        response = pb.ListSecretsResponse()
        found = self._cache.snapshot.all(Secret, project=project_of(request.project))
        for secret in sorted(found, key=lambda s: s.name):
            if not secret.removing:
                encode_into(secret, response.secrets.add())
        return response

    async def RemoveSecret(self, request: pb.RemoveSecretRequest, context: Context) -> tpb.Secret:
        """Remove a secret that no service uses."""
        project = project_of(request.project)
        gone = await change(
            self._store,
            self._cache,
            lambda snap: files.removed(snap, refs.secret(snap, project, request.ref), time.time()),
        )
        return encode(gone, tpb.Secret)

    async def _written(self, project: str, message: pb.NewFile, *, secret: bool) -> Written:
        new, name = decode(message, NewFile), project_of(project)
        files.check(new, secret=secret)
        fresh = new_id()
        return await change(
            self._store,
            self._cache,
            lambda snap: files.written(snap, name, new, fresh, self._keys, time.time(), secret=secret),
        )

    def _stored(self, file: NamedFile) -> NamedFile:
        return self._cache.snapshot.get(type(file), file.meta.id) or file


def _numbers(snap: Snapshot, file: NamedFile) -> list[int]:
    return sorted(v.number for v in snap.versions_of_file(file.meta.id))


def _users(snap: Snapshot, file: NamedFile) -> list[str]:
    return sorted(s.spec.name for s in files.users_of(snap, file))
