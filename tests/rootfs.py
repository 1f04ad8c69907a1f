"""Root filesystems and archives for tests, made from Debian's busybox-static: nothing is downloaded."""

import io
import subprocess
import tarfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from argosy.core.image import Image, Layer
from argosy.core.oci.compression import Decompressed, detect
from argosy.core.oci.digests import digest_of

BUSYBOX = Path("/bin/busybox")
DIRECTORIES = ("bin", "dev", "etc", "home", "proc", "root", "run", "sbin", "sys", "usr", "usr/bin", "var", "var/tmp")
FILES: Mapping[str, bytes] = {
    "etc/passwd": b"root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
    "etc/group": b"root:x:0:\nuser:x:1000:\nnogroup:x:65534:\n",
    "etc/hosts": b"127.0.0.1 localhost\n",
}


def busybox_rootfs_tar(path: Path, extra_files: Mapping[str, bytes | tuple[bytes, int]] | None = None) -> Path:
    """Write a root filesystem tar to `path` (suffix .gz or .zst: compressed) and return it.

    It has busybox with all its applets in /bin, passwd and group with root, user (1000) and nobody, and `extra_files`:
    name -> content, or (content, mode). Files are 0644, or 0755 under bin, sbin and usr/bin. The same input gives the
    same bytes.
    """
    plain = path if path.suffix not in (".gz", ".zst") else path.with_suffix("")
    with tarfile.open(plain, "w", format=tarfile.GNU_FORMAT) as archive:
        for name in DIRECTORIES:
            add(archive, name, kind=tarfile.DIRTYPE, mode=0o755)
        add(archive, "tmp", kind=tarfile.DIRTYPE, mode=0o1777)
        add(archive, "bin/busybox", BUSYBOX.read_bytes(), mode=0o755)
        for applet in applets():
            if applet != "busybox":
                add(archive, f"bin/{applet}", kind=tarfile.SYMTYPE, target="busybox", mode=0o777)
        for name, content in {**FILES, **(extra_files or {})}.items():
            in_bin = name.rpartition("/")[0] in ("bin", "sbin", "usr/bin")
            data, mode = content if isinstance(content, tuple) else (content, 0o755 if in_bin else 0o644)
            add(archive, name, data, mode=mode)
    if path.suffix == ".gz":
        subprocess.run(["gzip", "-n", "-f", plain], check=True)
        plain.with_name(plain.name + ".gz").rename(path)
    elif path.suffix == ".zst":
        subprocess.run(["zstd", "-q", "-f", "--rm", plain, "-o", path], check=True)
    return path


@cache
def applets() -> tuple[str, ...]:
    """Return the names of busybox's applets."""
    listed = subprocess.run([BUSYBOX, "--list"], check=True, capture_output=True, text=True)
    return tuple(listed.stdout.split())


def add(
    archive: tarfile.TarFile,
    name: str,
    content: bytes = b"",
    *,
    kind: bytes = tarfile.REGTYPE,
    target: str = "",
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime: int = 1_700_000_000,
    device: tuple[int, int] = (0, 0),
    pax: Mapping[str, str] | None = None,
) -> None:
    """Add one entry, exactly as told: also ones that no honest archive has."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.uid, info.gid, info.mtime = kind, target, mode, uid, gid, mtime
    info.devmajor, info.devminor = device
    info.size = len(content)
    info.pax_headers = dict(pax or {})
    archive.addfile(info, io.BytesIO(content))


def layer_tar(*entries: Mapping[str, object], format: int = tarfile.PAX_FORMAT) -> bytes:
    """Return a plain tar of entries given as the arguments of `add`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for entry in entries:
            add(archive, **entry)  # type: ignore[arg-type]
    return buffer.getvalue()


def stored_image(*layers: bytes, name: str = "test:1") -> tuple[Image, dict[str, bytes]]:
    """Return an image of layer blobs (plain, gzip or zstd tars), base first, and the blobs by digest."""
    blobs = {digest_of(blob): blob for blob in layers}
    described = []
    for blob in layers:
        plain = Decompressed(io.BytesIO(blob), detect(blob[:6]))
        content = b"".join(iter(lambda p=plain: p.read(2**20), b""))
        described.append(
            Layer(digest_of(blob), digest_of(content), len(blob), "application/vnd.oci.image.layer.v1.tar")
        )
    digest = digest_of(repr(described).encode())
    return Image(name=name, digest=digest, layers=tuple(described), size=sum(map(len, layers))), blobs
