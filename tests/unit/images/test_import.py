"""Importing what tar, umoci and skopeo make, and what is broken, through the real command and service."""

import asyncio
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from argosy.cli.commands.image import command
from argosy.cli.errors import CliError
from argosy.cli.images.platforms import host_platform
from argosy.cli.session import Session
from argosy.core.oci.digests import digest_of
from tests.rootfs import add, busybox_rootfs_tar, layer_tar

RUN = Callable[..., Result]


@pytest.fixture
def run(server):
    """Run `argosy image …` beside the server; a CliError is an assertion failure unless it is asked for."""

    async def run(*args: str, stdin: bytes = b"") -> Result:
        def call() -> Result:
            session = Session(host=server.address)
            return CliRunner().invoke(command, [*map(str, args)], obj=session, input=stdin, standalone_mode=False)

        result = await asyncio.to_thread(call)
        if result.exception is not None:
            raise result.exception
        return result

    return run


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return busybox_rootfs_tar(tmp_path_factory.mktemp("rootfs") / "rootfs.tar", {"etc/motd": b"hello"})


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory, rootfs: Path) -> Path:
    """An OCI layout of two gzip layers and a configuration, made by umoci."""
    directory = tmp_path_factory.mktemp("oci")
    made = directory / "layout"
    bundle = directory / "bundle"

    def umoci(*args: object) -> None:
        subprocess.run(["umoci", *map(str, args)], check=True, capture_output=True)

    umoci("init", "--layout", made)
    umoci("new", "--image", f"{made}:web")
    umoci("unpack", "--image", f"{made}:web", bundle)
    subprocess.run(["tar", "-xf", rootfs, "-C", bundle / "rootfs"], check=True)
    umoci("repack", "--image", f"{made}:web", "--refresh-bundle", bundle)
    (bundle / "rootfs/etc/motd").unlink()
    (bundle / "rootfs/etc/second").write_text("2")
    umoci("repack", "--image", f"{made}:web", bundle)
    umoci("config", "--image", f"{made}:web", "--config.cmd", "sh", "--config.env", "A=1", "--config.user", "1000")
    umoci("gc", "--layout", made)
    return made


@pytest.fixture(scope="module")
def docker_archive(tmp_path_factory: pytest.TempPathFactory, layout: Path) -> Path:
    made = tmp_path_factory.mktemp("docker") / "saved.tar"
    skopeo("copy", f"oci:{layout}:web", f"docker-archive:{made}:web:1")
    return made


def skopeo(*args: str) -> None:
    subprocess.run(["skopeo", "--insecure-policy", *args], check=True, capture_output=True)


async def content(server, image) -> list[str]:
    """Return the names in all layers of a stored image, having checked every digest."""
    names = []
    for layer in image.layers:
        blob = await server.blobs.read(layer.digest, 2**30)
        assert digest_of(blob) == layer.digest
        assert len(blob) == layer.size
        tool = {b"\x1f\x8b": "gzip", b"\x28\xb5": "zstd"}[blob[:2]]
        plain = _piped(tool, "-dc", data=blob)
        assert digest_of(plain) == layer.diff_id
        with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
            names += archive.getnames()
    return names


def _piped(*command: object, data: bytes = b"") -> bytes:
    """Return what a program makes of `data`."""
    return subprocess.run([*map(str, command)], input=data, capture_output=True, check=True).stdout


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize("by", ["file", "stdin", "misleading name"])
async def test_a_root_filesystem(run, server, tmp_path, suffix, by):
    path = busybox_rootfs_tar(tmp_path / f"rootfs.tar{suffix}")
    if by == "stdin":
        result = await run("import", "web:1", "-", stdin=path.read_bytes())
    else:
        if by == "misleading name":
            path = path.rename(tmp_path / "x.zip")
        result = await run("import", "web:1", path)
    image = server.images["web:1"]
    assert f"imported web:1: 1 layer, {image.size / 1e6:.3g} MB, {image.digest}" in result.output
    assert "bin/sh" in await content(server, image)
    assert (image.platform.os, image.platform.architecture) == ("linux", host_platform().architecture)
    assert image.config.env[0].startswith("PATH=/usr/local/sbin")


async def test_the_same_input_is_the_same_image(run, server, rootfs):
    await run("import", "a:1", rootfs)
    before = await server.blobs.du()
    await run("import", "b:1", rootfs)
    assert server.images["a:1"].digest == server.images["b:1"].digest
    assert await server.blobs.du() == before


async def test_options_and_changes(run, server, rootfs):
    await run(
        "import", "web:1", rootfs, "-c", 'CMD ["x"]', "-c", "ENV A=1", "--entrypoint", "/bin/httpd -f", "--command",
        '["-p", "80"]', "--env", "B=2", "-w", "/srv", "-u", "1000", "-l", "team=a b", "--platform", "linux/arm64",
    )  # fmt: skip
    image = server.images["web:1"]
    assert image.config.entrypoint == ("/bin/httpd", "-f")
    assert image.config.command == ("-p", "80")
    assert image.config.env[1:] == ("A=1", "B=2")
    assert (image.config.working_dir, image.config.user, image.config.labels) == ("/srv", "1000", {"team": "a b"})
    assert image.platform.architecture == "arm64"


async def test_an_oci_layout_in_a_directory_keeps_its_digest(run, server, layout):
    result = await run("import", "web:1", layout, "--format", "json")
    index = json.loads((layout / "index.json").read_text())
    assert json.loads(result.output)["digest"] == index["manifests"][0]["digest"]
    image = server.images["web:1"]
    assert len(image.layers) == 2
    names = await content(server, image)
    assert "bin/busybox" in names
    assert "etc/.wh.motd" in names
    assert (image.config.command, image.config.user) == (("sh",), "1000")
    assert "A=1" in image.config.env


@pytest.mark.parametrize("packed", [None, "gzip", "zstd"])
async def test_an_oci_layout_in_a_tar(run, server, layout, tmp_path, packed):
    data = _piped("tar", "-cf", "-", "-C", layout, ".")
    if packed:
        data = _piped(packed, "-c", data=data)
    await run("import", "web:1", "-", stdin=data)
    assert "bin/busybox" in await content(server, server.images["web:1"])


async def test_a_docker_archive(run, server, docker_archive):
    await run("import", "web:1", docker_archive)
    image = server.images["web:1"]
    assert [layer.media_type.rpartition("+")[2] for layer in image.layers] == ["zstd", "zstd"]
    assert "etc/.wh.motd" in await content(server, image)
    assert image.config.command == ("sh",)


async def test_docker_save_with_a_layout_inside(run, server, layout, docker_archive, tmp_path):
    """What Docker writes since version 25: both forms in one tar."""
    both = tmp_path / "both"
    both.mkdir()
    _piped("tar", "-xf", docker_archive, "-C", both)
    _piped("cp", "-a", f"{layout}/.", both)
    path = tmp_path / "both.tar"
    _piped("tar", "-cf", path, "-C", both, ".")
    await run("import", "web:1", path)
    assert server.images["web:1"].layers[0].media_type.endswith("+gzip")


async def test_legacy_docker_archives_with_links(run, server, tmp_path):
    layer = layer_tar({"name": "f", "content": b"1"})
    config = json.dumps({
        "os": "linux", "architecture": host_platform().architecture,
        "rootfs": {"type": "layers", "diff_ids": [digest_of(layer)] * 3},
    }).encode()  # fmt: skip
    path = tmp_path / "saved.tar"
    with tarfile.open(path, "w") as archive:
        add(archive, "aa/layer.tar", layer)
        add(archive, "bb/layer.tar", kind=tarfile.SYMTYPE, target="../aa/layer.tar")
        add(archive, "cc/layer.tar", kind=tarfile.LNKTYPE, target="aa/layer.tar")
        add(archive, "c.json", config)
        listed = {"Config": "c.json", "RepoTags": None, "Layers": ["aa/layer.tar", "bb/layer.tar", "cc/layer.tar"]}
        add(archive, "manifest.json", json.dumps([listed]).encode())
    await run("import", "web:1", path)
    assert [layer_.diff_id for layer_ in server.images["web:1"].layers] == [digest_of(layer)] * 3


async def test_one_of_several_images_by_its_name(run, server, layout, docker_archive, tmp_path):
    members = {name: data for name, data in _members(docker_archive).items() if name != "repositories"}
    listed = json.loads(members["manifest.json"])
    other = {**listed[0], "RepoTags": ["docker.io/library/other:2"]}
    members["manifest.json"] = json.dumps([*listed, other]).encode()
    path = _tar(tmp_path / "two.tar", members)
    await run("import", "other:2", path)
    with pytest.raises(CliError, match=r"2 images, none of them named third:1: .*other:2.*web:1"):
        await run("import", "third:1", path)
    assert set(server.images) == {"other:2"}


async def test_a_platform_of_several(run, server, layout, tmp_path):
    index = json.loads((layout / "index.json").read_text())
    manifest = index["manifests"][0]
    here = host_platform().architecture
    blobs = {f"blobs/sha256/{p.name}": p.read_bytes() for p in (layout / "blobs/sha256").iterdir()}
    attestation = {**manifest, "platform": {"os": "unknown", "architecture": "unknown"}}
    inner = json.dumps({"schemaVersion": 2, "manifests": [
        {**manifest, "platform": {"os": "linux", "architecture": "s390x"}, "digest": "sha256:" + "0" * 64},
        {**manifest, "platform": {"os": "linux", "architecture": here}},
        attestation,
    ]}).encode()  # fmt: skip
    outer = {"mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest_of(inner), "size": len(inner)}
    members = {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [outer]}).encode(),
        f"blobs/sha256/{digest_of(inner)[7:]}": inner,
        **blobs,
    }
    path = _tar(tmp_path / "multi.tar", members)
    await run("import", "web:1", path)
    assert server.images["web:1"].digest == manifest["digest"]
    with pytest.raises(CliError, match=f"no image for linux/riscv64, only for linux/{here}, linux/s390x.*--platform"):
        await run("import", "web:2", path, "--platform", "linux/riscv64")
    with pytest.raises(CliError, match=r"is missing: it has no blobs/sha256/0000"):
        await run("import", "web:2", path, "--platform", "linux/s390x")


def _members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {
            m.name: archive.extractfile(m).read()  # type: ignore[union-attr]
            for m in archive.getmembers() if m.isfile()
        }  # fmt: skip


def _tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            add(archive, name, data)
    return path


def _layout_members(layout: Path) -> dict[str, bytes]:
    return {str(p.relative_to(layout)): p.read_bytes() for p in layout.rglob("*") if p.is_file()}


def _biggest(members: dict[str, bytes]) -> str:
    return max(members, key=lambda name: len(members[name]))


BROKEN = {
    "nothing": (lambda t, r, o, d: b"", "it is empty"),
    "text": (lambda t, r, o, d: b"hello " * 1000, "it is not a tar archive"),
    "short": (lambda t, r, o, d: b"hello", "not a tar archive"),
    "zip": (lambda t, r, o, d: b"PK\x03\x04" + bytes(1000), "it is a zip file"),
    "xz": (lambda t, r, o, d: b"\xfd7zXZ\x00" + bytes(1000), "an xz file: unpack it"),
    "zeros": (lambda t, r, o, d: r[:0] + b"\x1f\x8b" + bytes(100), "compressed data are damaged"),
    "truncated tar": (lambda t, r, o, d: r[:100_000], "truncated"),
    "an endless file": (lambda t, r, o, d: _endless(), "truncated"),
    "truncated gzip": (lambda t, r, o, d: _pack("gzip", r)[:-1000], "gzip data end early"),
    "truncated zstd": (lambda t, r, o, d: _pack("zstd", r)[:-100_000], "truncated"),
    "damaged gzip": (lambda t, r, o, d: _flip(_pack("gzip", r), 50_000), "compressed data are damaged"),
    "damaged zstd": (lambda t, r, o, d: _flip(_pack("zstd -C", r), 50_000), "compressed data are damaged"),
    "damaged header": (lambda t, r, o, d: _flip(r, 512 * 3 + 10), "checksum is wrong"),
    "climbing": (lambda t, r, o, d: layer_tar({"name": "../x", "content": b""}), "leads out"),
    "OCI without its layer": (lambda t, r, o, d: _without(t, o), "layer 1 of 2 is missing: it has no blobs/sha256/"),
    "OCI with a wrong layer": (lambda t, r, o, d: _spoiled(t, o), "layer 1 of 2"),
    "OCI with a wrong manifest": (lambda t, r, o, d: _spoiled_manifest(t, o), "does not match its digest"),
    "OCI with a bad index": (lambda t, r, o, d: _with(t, o, "index.json", b"{"), "index.json is no JSON"),
    "OCI with nothing": (lambda t, r, o, d: _with(t, o, "index.json", b'{"manifests": []}'), "it has no image"),
    "docker without its layer": (lambda t, r, o, d: _without(t, d), "it has no .*tar"),
    "docker with a wrong layer": (lambda t, r, o, d: _swapped(t, d, r), "has the digest sha256:.*the image says"),
}  # fmt: skip


def _pack(tool: str, data: bytes) -> bytes:
    return _piped(*tool.split(), "-c", data=data)


def _endless() -> bytes:
    header = tarfile.TarInfo("endless")
    header.size = 1 << 60
    return header.tobuf(tarfile.GNU_FORMAT) + bytes(10_000)


def _flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]


def _with(t: Path, members: dict[str, bytes], name: str, data: bytes) -> bytes:
    return _tar(t / "made.tar", {**members, name: data}).read_bytes()


def _without(t: Path, members: dict[str, bytes]) -> bytes:
    return _tar(t / "made.tar", {k: v for k, v in members.items() if k != _biggest(members)}).read_bytes()


def _spoiled(t: Path, members: dict[str, bytes]) -> bytes:
    name = _biggest(members)
    return _with(t, members, name, _flip(members[name], 5000))


def _spoiled_manifest(t: Path, members: dict[str, bytes]) -> bytes:
    digest = json.loads(members["index.json"])["manifests"][0]["digest"]
    name = f"blobs/sha256/{digest[7:]}"
    return _with(t, members, name, members[name].replace(b"schemaVersion", b"schemaversion"))


def _swapped(t: Path, members: dict[str, bytes], rootfs: bytes) -> bytes:
    return _with(t, members, _biggest(members), layer_tar({"name": "other", "content": b""}))


@pytest.mark.parametrize("kind", BROKEN)
async def test_what_is_broken_says_so_and_leaves_nothing(run, server, tmp_path, rootfs, layout, docker_archive, kind):
    make, says = BROKEN[kind]
    path = tmp_path / "given"
    data = make(tmp_path, rootfs.read_bytes(), _layout_members(layout), _members(docker_archive))
    path.write_bytes(data)
    with pytest.raises(CliError, match=f"(?s)cannot import '{path}': .*{says}") as caught:
        await run("import", "web:1", path)
    assert "accepted are a tar of a root filesystem" in caught.value.hint
    assert caught.value.status == 2
    assert server.images == {}
    assert await server.blobs.du() == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("Web:1", "ROOTFS"), "did you mean web:1"),
        (("web:1", "/nowhere"), "there is no file '/nowhere'"),
        (("web:1", "/proc/1"), "it is a directory, but no OCI layout"),
        (("sha256:" + "0" * 64, "ROOTFS"), "is a digest, not a name"),
        (("web:1", "ROOTFS", "-c", "RUN x"), "no change that can be made"),
        (("web:1", "ROOTFS", "-e", "A"), "is no environment variable"),
        (("web:1", "ROOTFS", "--platform", "linux"), "is no platform"),
    ],
)
async def test_wrong_arguments(run, server, rootfs, arguments, says):
    with pytest.raises(CliError, match=says):
        await run("import", *(rootfs if a == "ROOTFS" else a for a in arguments))
    assert server.images == {}


async def test_an_archive_named_manifest_is_still_a_root_filesystem(run, server, tmp_path):
    path = _tar(tmp_path / "r.tar", {"manifest.json": b'{"name": "my app"}', "index.json": b"[]", "bin/app": b"x"})
    await run("import", "web:1", path)
    assert "bin/app" in await content(server, server.images["web:1"])


async def test_no_temporary_files_stay(run, server, tmp_path, monkeypatch, layout):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    data = _piped("tar", "-czf", "-", "-C", layout, ".")
    await run("import", "web:1", "-", stdin=data)
    assert [p for p in os.listdir(tmp_path) if p.startswith("argosy-import-")] == []
