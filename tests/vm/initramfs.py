"""The first file system of the virtual machine: busybox, the few modules that lead to the real root, and `init`.

Written as a newc cpio archive (kernel: Documentation/driver-api/early-userspace/buffer-format.rst) by hand,
since 30 lines are less than a package, a staging folder and device nodes would be.
"""

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# What reaches the root (the host's files, by virtiofs), the scratch disk and the result ports.
MODULES = ("virtio_pci", "virtiofs", "virtio_blk", "virtio_console", "overlay")


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the archive: its path without leading slash, its mode with type bits, its content."""

    path: str
    mode: int
    content: bytes = b""

    def packed(self, inode: int) -> bytes:
        """Return header, name and content, each padded to 4 bytes, as newc wants them."""
        name = self.path.encode() + b"\0"
        fields = (inode, self.mode, 0, 0, 1, 0, len(self.content), 0, 0, 0, 0, len(name), 0)
        head = b"070701" + b"".join(b"%08x" % field for field in fields) + name
        return head + b"\0" * (-len(head) % 4) + self.content + b"\0" * (-len(self.content) % 4)


def load_order(modules_dir: Path, wanted: tuple[str, ...]) -> list[str]:
    """Return paths under `modules_dir` of `wanted` and all they need, each after what it needs.

    Raises KeyError for a module that the kernel does not have as a module.
    """
    needs: dict[str, list[str]] = {}
    for line in (modules_dir / "modules.dep").read_text().splitlines():
        path, _, after = line.partition(":")
        needs[path] = after.split()
    by_name = {Path(path).name.removesuffix(".ko"): path for path in needs}
    order: list[str] = []

    def visit(path: str) -> None:
        for need in needs[path]:
            visit(need)
        if path not in order:
            order.append(path)

    for name in wanted:
        visit(by_name[name])
    return order


def entries(modules_dir: Path, init: Path, busybox: Path) -> Iterator[Entry]:
    """Yield the files of the archive; `modules.txt` in it tells `init` what to load, in order."""
    for folder in ("bin", "dev", "proc", "sys", "modules", "host", "writable", "root"):
        yield Entry(folder, stat.S_IFDIR | 0o755)
    order = load_order(modules_dir, MODULES)
    for path in order:
        yield Entry(f"modules/{Path(path).name}", stat.S_IFREG | 0o644, (modules_dir / path).read_bytes())
    listing = "".join(f"/modules/{Path(path).name}\n" for path in order)
    yield Entry("modules.txt", stat.S_IFREG | 0o644, listing.encode())
    yield Entry("bin/busybox", stat.S_IFREG | 0o755, busybox.read_bytes())
    yield Entry("init", stat.S_IFREG | 0o755, init.read_bytes())
    yield Entry("TRAILER!!!", 0)


def write(target: Path, modules_dir: Path, init: Path, busybox: Path = Path("/bin/busybox")) -> None:
    """Write the archive to `target`. `busybox` must be linked statically (Debian: busybox-static)."""
    target.write_bytes(b"".join(e.packed(i) for i, e in enumerate(entries(modules_dir, init, busybox), start=1)))
