"""etcd behind TLS with client certificates: the client gets in with its own, and nobody else does."""

import asyncio
import subprocess

import pytest

from argosy.controller.store import EtcdClient, EtcdConfig, Store, StoreUnavailableError, Tls, create
from argosy.core.task import Task

from .conftest import a_task
from .etcd_server import EtcdServer


def openssl(folder, *arguments):
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def authority(tmp_path):
    """A folder with ca.pem, and NAME.pem and NAME.key for the server and a client."""
    folder = tmp_path / "pki"
    folder.mkdir()
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl(folder, "req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-days", "1", "-subj", "/CN=ca")
    for name in ("server", "client"):
        extensions = ("-addext", "subjectAltName=IP:127.0.0.1", "-addext", "extendedKeyUsage=serverAuth,clientAuth")
        openssl(
            folder, "req", *curve, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}", *extensions
        )
        sign = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "1", "-copy_extensions", "copy")
        openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *sign)
    return folder


async def test_client_certificates(tmp_path, authority, cluster):
    tls = {
        "cert-file": "server.pem",
        "key-file": "server.key",
        "trusted-ca-file": "ca.pem",
    }
    options = {name: str(authority / file) for name, file in tls.items()} | {"client-cert-auth": "true"}
    server = EtcdServer(tmp_path / "etcd", scheme="https", options=options)
    try:
        await asyncio.to_thread(server.start)
        ca = (authority / "ca.pem").read_bytes()
        mine = Tls(ca, (authority / "client.pem").read_bytes(), (authority / "client.key").read_bytes())
        async with EtcdClient(EtcdConfig((server.endpoint,), mine)) as client:
            store = Store(client, cluster)
            revision = await store.commit([create(a_task("t1"))])
            assert (await store.get(Task, "default", "t1")).meta.version == revision
        for wrong in (Tls(ca), None):
            async with EtcdClient(EtcdConfig((server.endpoint,), wrong, request_timeout_s=1.0)) as client:
                with pytest.raises(StoreUnavailableError):
                    await Store(client, cluster).get(Task, "default", "t1")
    finally:
        server.kill()
