"""Layers land on disk as written, and nowhere else whatever they say."""

import gzip
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest
import zstandard

from argosy.core.errors import RejectedError
from tests.kernel.images.conftest import overlay
from tests.rootfs import layer_tar, stored_image

D, L, H, C, B, F = (
    tarfile.DIRTYPE,
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.FIFOTYPE,
)


async def unpacked_root(store, blobs, *layers):
    image, content = stored_image(*layers)
    blobs.content.update(content)
    unpacked = await store.ensure(image)
    return unpacked, Path(unpacked.layers_root) / unpacked.layers[0]


async def test_everything_a_layer_can_have(store, blobs):
    long = "d/" + "n" * 120 + "/" + "m" * 120
    layer = layer_tar(
        {"name": "./", "kind": D, "mode": 0o711},
        {"name": "d", "kind": D, "mode": 0o2775, "gid": 50, "mtime": 1_600_000_000},
        {"name": "d/su", "content": b"#!/bin/sh\n", "mode": 0o4755, "uid": 0, "gid": 12},
        {"name": "d/cap", "content": b"x", "mode": 0o755, "pax": {
            "SCHILY.xattr.security.capability": "\x01\0\0\x02\0\x04" + "\0" * 14,
            "SCHILY.xattr.user.colour": "blue",
        }},
        {"name": "d/link", "kind": L, "target": "/etc/shadow", "uid": 7},
        {"name": "d/same", "kind": H, "target": "d/su"},
        {"name": "d/fifo", "kind": F, "mode": 0o620},
        {"name": long, "content": b"long"},
        {"name": "ünïcode", "content": b"u", "uid": 65535, "mtime": 12},
    )  # fmt: skip
    _, root = await unpacked_root(store, blobs, layer)
    assert stat.S_IMODE(root.stat().st_mode) == 0o711
    d = (root / "d").stat()
    assert (stat.S_IMODE(d.st_mode), d.st_gid, d.st_mtime) == (0o2775, 50, 1_600_000_000)
    su = (root / "d/su").stat()
    assert (stat.S_IMODE(su.st_mode), su.st_gid, su.st_nlink) == (0o4755, 12, 2)
    assert os.getxattr(root / "d/cap", "security.capability")[4:6] == b"\x00\x04"
    assert os.getxattr(root / "d/cap", "user.colour") == b"blue"
    assert os.readlink(root / "d/link") == "/etc/shadow"
    assert (root / "d/link").lstat().st_uid == 7
    assert stat.S_ISFIFO((root / "d/fifo").stat().st_mode)
    assert stat.S_IMODE((root / "d/fifo").stat().st_mode) == 0o620
    assert (root / long).read_bytes() == b"long"
    assert ((root / "ünïcode").stat().st_uid, (root / "ünïcode").stat().st_mtime) == (65535, 12)


@pytest.mark.parametrize("pack", [lambda b: b, gzip.compress, zstandard.ZstdCompressor().compress,
                                  lambda b: gzip.compress(b[:5000]) + gzip.compress(b[5000:]) + b"\0" * 512],
                         ids=["plain", "gzip", "zstd", "gzip in members"])  # fmt: skip
async def test_layers_may_be_packed(store, blobs, pack):
    _, root = await unpacked_root(store, blobs, pack(layer_tar({"name": "f", "content": b"x" * 300_000})))
    assert (root / "f").read_bytes() == b"x" * 300_000


def _sparse_tar(file: Path, format: str) -> bytes:
    with open(file, "wb") as f:
        for i in range(40):  # more segments than fit a header
            f.seek(i * 2**20)
            f.write(bytes([i + 1]) * 5000)
        f.truncate(50 * 2**20)
    name, *more = format.split()
    command = ["tar", "-cS", f"--format={name}", *more, "-C", file.parent, file.name]
    return subprocess.run(command, check=True, capture_output=True).stdout


@pytest.mark.parametrize(
    "format", ["gnu", "pax --sparse-version=1.0", "pax --sparse-version=0.1", "pax --sparse-version=0.0"]
)
async def test_sparse_files_stay_sparse(store, blobs, tmp_path, format):
    file = tmp_path / "holes"
    tar = _sparse_tar(file, format)
    assert len(tar) < 2**20
    _, root = await unpacked_root(store, blobs, tar)
    assert (root / "holes").read_bytes() == file.read_bytes()
    assert (root / "holes").stat().st_blocks * 512 < 2**20


async def test_nothing_lands_outside(store, blobs, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_text("mine")
    up = "../" * 12
    layer = layer_tar(
        {"name": "abs", "kind": L, "target": str(outside)},
        {"name": "abs/planted", "content": b"1"},
        {"name": "rel", "kind": L, "target": up + str(outside).lstrip("/")},
        {"name": "rel/planted", "content": b"2"},
        {"name": "victim", "kind": L, "target": str(outside / "victim")},
        {"name": "victim", "content": b"overwritten"},
        {"name": "/etc/absolute", "content": b"3"},
        {"name": "abs", "kind": D, "mode": 0o777},
        {"name": "abs/after", "content": b"4"},
    )
    # The links lead to places inside the image that do not exist: what goes through them is refused.
    image, content = stored_image(layer)
    blobs.content.update(content)
    with pytest.raises(RejectedError, match="abs"):
        await store.ensure(image)
    assert [p.name for p in outside.iterdir()] == ["victim"]
    assert (outside / "victim").read_text() == "mine"
    # With such places made first, everything lands beneath the layer's own root.
    inside = str(outside).lstrip("/")
    made = layer_tar({"name": inside, "kind": D}, {"name": "etc", "kind": D})
    whole = made[: len(made) // 512 * 512].rstrip(b"\0")
    whole += b"\0" * (-len(whole) % 512) + layer
    _, root = await unpacked_root(store, blobs, whole)
    assert [p.name for p in outside.iterdir()] == ["victim"]
    assert (outside / "victim").read_text() == "mine"
    assert (root / inside / "planted").read_bytes() == b"2"
    assert (root / "victim").read_bytes() == b"overwritten"
    assert not (root / "victim").is_symlink()
    assert (root / "abs/after").read_bytes() == b"4"
    assert (root / "etc/absolute").read_bytes() == b"3"


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ([{"name": "../evil", "content": b""}], "leads out"),
        ([{"name": "a/../../evil", "content": b""}], "leads out"),
        ([{"name": "..", "kind": D}], "leads out"),
        ([{"name": "h", "kind": H, "target": "/etc/passwd"}], "which the layer has not"),
        ([{"name": "h", "kind": H, "target": "../../etc/passwd"}], "leads out"),
        ([{"name": "s", "kind": L, "target": "/"}, {"name": "h", "kind": H, "target": "s/etc/passwd"}], "has not"),
        ([{"name": "d", "kind": D}, {"name": "h", "kind": H, "target": "d"}], "no file"),
        ([{"name": "x" * 300, "content": b""}], "name too long"),
        ([{"name": "y/" * 2500 + "z", "content": b""}], "longer than 4096"),
        ([{"name": "f", "content": b""}, {"name": "f/g", "content": b""}], "Not a directory"),
        ([{"name": "l", "kind": L, "target": "l"}, {"name": "l/g", "content": b""}], "cannot be made"),
        ([{"name": ".wh.", "content": b""}], "hides no name"),
        ([{"name": ".wh...", "content": b""}], "hides no name"),
        ([{"name": "f", "kind": b"M", "content": b""}], "cannot be unpacked"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_is_refused(store, blobs, entries, says):
    image, content = stored_image(layer_tar(*entries))
    blobs.content.update(content)
    with pytest.raises(RejectedError, match=f"(?i)image test:1: layer sha256:.*{says}"):
        await store.ensure(image)
    assert os.listdir(store._directory.layers) == []


async def test_devices_and_dangerous_attributes_are_left_out(store, blobs):
    layer = layer_tar(
        {"name": "dev/sda", "kind": B, "device": (8, 0)},
        {"name": "dev/null", "kind": C, "device": (1, 3)},
        {"name": "hidden", "kind": C, "device": (0, 0)},
        {"name": "f", "content": b"", "uid": 4_000_000_000 // 2, "pax": {"SCHILY.xattr.trusted.overlay.redirect": "/x",
                                                                       "SCHILY.xattr.user.overlay.opaque": "y"}},
    )  # fmt: skip
    unpacked, root = await unpacked_root(store, blobs, layer)
    assert sorted(os.listdir(root)) == ["f"]
    assert os.listxattr(root / "f") == []
    assert (root / "f").stat().st_uid == 65534
    notes = " ".join(unpacked.notes)
    assert "device nodes are left out: dev/sda and 2 more" in notes
    assert "owners above 65535" in notes
    assert "extended attributes trusted.*" in notes


async def test_entries_may_replace_earlier_ones(store, blobs):
    deep = "a/" * 1500
    layer = layer_tar(
        {"name": deep + "f", "content": b"deep"},
        {"name": "link", "kind": L, "target": deep.rstrip("/")},
        {"name": "link/" + "b/" * 1500 + "f", "content": b"deeper than any path"},
        {"name": "a", "content": b"now a file"},
        {"name": "x", "content": b"1"},
        {"name": "x", "kind": L, "target": "a"},
        {"name": "x", "kind": D},
        {"name": "x/y", "content": b"2"},
        {"name": "self", "content": b"3"},
        {"name": "self", "kind": H, "target": "self"},
    )
    _, root = await unpacked_root(store, blobs, layer)
    assert (root / "a").read_bytes() == b"now a file"
    assert (root / "x/y").read_bytes() == b"2"
    assert (root / "self").read_bytes() == b"3"
    assert os.listdir(store._directory.root / "trash") == []


@pytest.mark.parametrize("option", ["", "userxattr,"])
async def test_whiteouts_as_a_container_sees_them(store, blobs, tmp_path, option):
    base = layer_tar(
        {"name": "gone", "content": b"1"},
        {"name": "dir", "kind": D}, {"name": "dir/old", "content": b"1"},
        {"name": "opaque", "kind": D}, {"name": "opaque/old", "content": b"1"},
        {"name": "again", "kind": D}, {"name": "again/old", "content": b"1"},
        {"name": "again2", "kind": D}, {"name": "again2/old", "content": b"1"},
        {"name": "kept", "content": b"kept"},
    )  # fmt: skip
    top = layer_tar(
        {"name": ".wh.gone", "content": b""},
        {"name": ".wh.dir", "content": b""},
        {"name": "opaque", "kind": D}, {"name": "opaque/.wh..wh..opq", "content": b""},
        {"name": "opaque/new", "content": b"2"},
        {"name": ".wh.again", "content": b""}, {"name": "again", "kind": D}, {"name": "again/new", "content": b"2"},
        {"name": "again2", "kind": D}, {"name": "again2/new", "content": b"2"}, {"name": ".wh.again2", "content": b""},
        {"name": ".wh..wh.plnk/x", "content": b""},
        {"name": ".wh.neverthere", "content": b""},
    )  # fmt: skip
    unpacked, _ = await unpacked_root(store, blobs, base, top)
    with overlay(unpacked, tmp_path / "ov", option) as merged:
        assert sorted(os.listdir(merged)) == ["again", "again2", "kept", "opaque"]
        assert os.listdir(merged / "opaque") == ["new"]
        assert os.listdir(merged / "again") == ["new"]
        assert os.listdir(merged / "again2") == ["new"]


async def test_directories_a_layer_does_not_describe_keep_their_attributes(store, blobs, tmp_path):
    base = layer_tar(
        {"name": "tmp", "kind": D, "mode": 0o1777},
        {"name": "srv", "kind": D, "mode": 0o750, "uid": 5},
        {"name": "srv/data", "kind": D, "mode": 0o700, "uid": 6},
        {"name": "opt", "kind": D, "mode": 0o700},
    )
    top = layer_tar(
        {"name": "tmp/f", "content": b"1"},
        {"name": "srv/data/g", "content": b"2"},
        {"name": "new/h", "content": b"3"},
        {"name": ".wh.opt", "content": b""},
    )
    third = layer_tar({"name": "opt/i", "content": b"4"})
    unpacked, _ = await unpacked_root(store, blobs, base, top, third)
    assert len(unpacked.layers) == 4
    again = await store.ensure(stored_image(base, top, third)[0])
    assert again == unpacked
    with overlay(unpacked, tmp_path / "ov") as merged:
        assert stat.S_IMODE((merged / "tmp").stat().st_mode) == 0o1777
        assert ((merged / "srv").stat().st_uid, (merged / "srv/data").stat().st_uid) == (5, 6)
        assert stat.S_IMODE((merged / "srv/data").stat().st_mode) == 0o700
        assert stat.S_IMODE((merged / "new").stat().st_mode) == 0o755
        assert stat.S_IMODE((merged / "opt").stat().st_mode) == 0o755  # deleted in between
        assert (merged / "tmp/f").read_bytes() == b"1"
        assert (merged / "opt/i").read_bytes() == b"4"


async def test_no_user_of_the_host_reaches_setuid_files(store, blobs):
    _, root = await unpacked_root(store, blobs, layer_tar({"name": "su", "content": b"", "mode": 0o4755}))
    assert (root / "su").exists()
    assert _stat_as(65534, root / "su") != 0


def _stat_as(user: int, path: Path) -> int:
    return subprocess.run(["stat", path], user=user, group=user, extra_groups=[], capture_output=True).returncode


@pytest.mark.parametrize("pack", [lambda b: zstandard.ZstdCompressor().compress(b), lambda b: gzip.compress(b, 9)])
async def test_a_bomb_is_stopped_at_the_limit(store, blobs, pack):
    bomb = layer_tar({"name": "zeros", "content": bytes(40 * 2**20)})
    image, content = stored_image(pack(bomb))
    blobs.content.update(content)
    assert sum(map(len, content.values())) < 2**20
    with pytest.raises(RejectedError, match=r"zeros.* alone has|unpacks to more than"):
        await store.ensure(image)


async def test_too_many_entries(store, blobs):
    image, content = stored_image(layer_tar(*({"name": f"f{i}", "content": b""} for i in range(5001))))
    blobs.content.update(content)
    with pytest.raises(RejectedError, match="more than 5000 entries"):
        await store.ensure(image)
