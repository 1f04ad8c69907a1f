"""Runs one command in a virtual machine that has this host's files and Debian's stock kernel.

Used by `make test-vm` (`python -m tests.vm`) and by `test_smoke.py`. The machine sees the host's root file
system read-only through virtiofs, under an overlay of its own memory: the same Python, the same `.venv`, the same
checkout at the same path, so no image has to be built and none can be stale. What it writes is gone with it.
It has no network device. The emulator is TCG: slow, but it needs nothing from the processor and is never absent.

Results come back over two virtio-serial ports: the command's output as it runs, and its exit status at the end.
The kernel's own console goes to a file, which is part of the outcome when there is no exit status.
"""

import os
import select
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.vm import initramfs

REPO = Path(__file__).resolve().parents[2]
GUEST = Path(__file__).parent / "guest"
VIRTIOFSD_PLACES = ("/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd")
DISK_FILE_SYSTEMS = {"ext4", "xfs", "btrfs", "overlay", "erofs", "squashfs", "zfs", "f2fs"}
# Of the checkout: what the guest sees where it lies on the host, and what it does not need.
KEPT = (".venv", ".cache")
LEFT_OUT = (*KEPT, ".git", "__pycache__", ".*_cache", ".hypothesis", "dist")

# What `make test` runs in the machine; `make test-vm` runs all that `python -m tests.vm` names.
RUNTIME = "tests/kernel/runtime"
SMOKE = (
    "tests/vm/inside",
    f"{RUNTIME}/test_isolation.py::test_root_inside_is_nobody_outside",
    f"{RUNTIME}/test_isolation.py::test_two_containers_with_other_ids_share_a_layer",
    f"{RUNTIME}/test_limits.py::test_limits_are_what_was_asked",
    f"{RUNTIME}/test_limits.py::test_a_memory_hog_ends_alone",
)


class VmUnavailable(Exception):
    """This host lacks something that the machine needs; the message says what and how to get it."""


@dataclass(frozen=True, slots=True)
class Size:
    """The machine's size. Memory is taken from the host only as the guest touches it."""

    cpus: int = 2
    memory_mib: int = 2048
    scratch_mib: int = 4096


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run: `exit_code` is the command's, or None when the machine ended without telling it."""

    exit_code: int | None
    output: str
    console: str
    seconds: float


def run(command: Sequence[str], *, timeout_s: float, size: Size = Size(), echo: bool = False) -> Outcome:
    """Boot, run `command` in the checkout, switch off. With `echo` its output is also printed as it comes.

    Raises VmUnavailable when the machine cannot be started at all. A run past `timeout_s` is killed: its
    outcome has no exit code.
    """
    kernel = _kernel()
    emulator = _program("qemu-system-x86_64")
    started = time.monotonic()
    with ExitStack() as stack:
        # A short path: the socket's may have 107 characters at most.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="argosy-vm-")))
        initrd = folder / "initrd"
        initramfs.write(initrd, _only(kernel / "lib" / "modules"), GUEST / "init")
        _make_scratch(folder, command, size)
        stack.enter_context(_shared_root(folder))
        output = _emulate(_arguments(emulator, kernel, folder, initrd, size), folder, timeout_s, echo)
        status = _text(folder / "status").strip()
        return Outcome(
            exit_code=int(status) if status.isdigit() else None,
            output=output,
            console=_text(folder / "console") + _text(folder / "host.log"),
            seconds=time.monotonic() - started,
        )


def pytest_command(*arguments: str) -> list[str]:
    """Return the command that runs pytest in the guest: with the checkout's Python, and time limits for TCG.

    Only the plugins that the kernel tests need are loaded: each costs seconds under TCG.
    """
    python = str(REPO / ".venv" / "bin" / "python")
    plugins = ["-p", "pytest_asyncio.plugin", "-p", "pytest_timeout", "-p", "no:cacheprovider", "-o", "timeout=900"]
    return ["env", "PYTEST_DISABLE_PLUGIN_AUTOLOAD=1", python, "-m", "pytest", *plugins, *arguments]


def _kernel() -> Path:
    """Return the folder of the unpacked kernel package, fetched when it is not there yet."""
    done = subprocess.run([Path(__file__).parent / "kernel.sh"], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise VmUnavailable("the kernel could not be fetched; the reason is above")
    return Path(done.stdout.strip())


def _only(folder: Path) -> Path:
    """Return the one entry of `folder`."""
    (entry,) = folder.iterdir()
    return entry


def _program(*places: str) -> str:
    """Return the first of `places` that is a program on this host."""
    for place in places:
        if found := shutil.which(place):
            return found
    raise VmUnavailable(f"{places[0]} is not on this host: deploy/install/system-packages.sh vm installs it")


def _make_scratch(folder: Path, command: Sequence[str], size: Size) -> None:
    """Make the guest's ext4 disk, which carries in the command (the file `request`) and the checkout as it is now."""
    content = folder / "content"
    shutil.copytree(REPO, content / "checkout", symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
    for kept in KEPT:
        (content / "checkout" / kept).mkdir()
    (content / "request").write_text(f"exec {shlex.join(command)}\n")
    mkfs = ["mke2fs", "-q", "-t", "ext4", "-d", str(content), str(folder / "scratch"), f"{size.scratch_mib}M"]
    done = subprocess.run(mkfs, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise VmUnavailable(f"mke2fs could not make the scratch disk: {done.stderr.strip()}")


def _disk_mounts() -> list[Path]:
    """Return this host's mount points of disk file systems below the root that the checkout or Python lie on."""
    wanted = [REPO, Path(os.path.realpath(REPO / ".venv" / "bin" / "python")), Path("/usr"), Path("/opt")]
    mounts = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, kind = line.partition(" - ")
        point = Path(fields.split()[4])
        if point != Path("/") and kind.split()[0] in DISK_FILE_SYSTEMS:
            mounts.append(point)
    return [point for point in mounts if any(path.is_relative_to(point) for path in wanted)]


@contextmanager
def _shared_root(folder: Path) -> Iterator[None]:
    """Serve the host's root, read-only, on the socket `folder/fs.sock` while the context lasts.

    The read-only bind mounts live in a mount namespace of the server's own and end with it.
    """
    root = folder / "root"
    root.mkdir()
    binds = [(Path("/"), root), *((point, root / point.relative_to("/")) for point in _disk_mounts())]
    script = "set -e\n"
    for source, target in binds:
        quoted = shlex.quote(str(target))
        script += f"mount --bind {shlex.quote(str(source))} {quoted}\nmount -o remount,bind,ro {quoted}\n"
    script += 'exec "$@"\n'
    with socket.socket(socket.AF_UNIX) as listener, (folder / "host.log").open("wb") as log:
        listener.bind(str(folder / "fs.sock"))
        listener.listen(1)
        fd = listener.fileno()
        server = [_program(*VIRTIOFSD_PLACES), f"--fd={fd}", "-o", f"source={root}", "-o", "cache=always"]
        # The server would raise its limit of open files past what root may do in some containers.
        server += ["-o", "sandbox=namespace", "--rlimit-nofile=0"]
        wrapped = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *server]
        process = subprocess.Popen(wrapped, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[fd])
        try:
            yield
        finally:
            process.kill()
            process.wait()


def _arguments(emulator: str, kernel: Path, folder: Path, initrd: Path, size: Size) -> list[str]:
    """Return the emulator's command line."""
    stuck = "softlockup_panic=1 watchdog_thresh=60"  # 2 min on a processor: told at once, with where
    cmdline = f"console=ttyS0 panic=-1 reboot=t loglevel=5 {stuck} argosy.repo={REPO}"
    memory = f"memory-backend-memfd,id=memory,size={size.memory_mib}M,share=on"
    return [
        *(emulator, "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max"),
        *("-smp", str(size.cpus), "-m", f"{size.memory_mib}M", "-object", memory, "-numa", "node,memdev=memory"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-kernel", str(next((kernel / "boot").glob("vmlinuz-*"))), "-initrd", str(initrd), "-append", cmdline),
        *("-serial", f"file:{folder / 'console'}"),
        *("-chardev", f"socket,id=fs,path={folder / 'fs.sock'}", "-device", "vhost-user-fs-pci,chardev=fs,tag=host"),
        *("-drive", f"if=none,id=scratch,format=raw,cache=unsafe,file={folder / 'scratch'}"),
        *("-device", "virtio-blk-pci,drive=scratch", "-device", "virtio-serial-pci"),
        *(
            "-chardev",
            "file,id=output,path=/proc/self/fd/1",
            "-device",
            "virtserialport,chardev=output,name=argosy.output",
        ),
        *("-chardev", f"file,id=status,path={folder / 'status'}"),
        *("-device", "virtserialport,chardev=status,name=argosy.status"),
    ]


def _emulate(arguments: list[str], folder: Path, timeout_s: float, echo: bool) -> str:
    """Run the emulator to its end, or to `timeout_s`, and return what the guest's command printed."""
    deadline = time.monotonic() + timeout_s
    chunks: list[bytes] = []
    with (folder / "host.log").open("ab") as log:
        process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
    try:
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        while True:
            chunk = _read(process.stdout.fileno(), deadline)
            if not chunk:
                break
            chunks.append(chunk)
            if echo:
                os.write(1, chunk)
        if time.monotonic() < deadline:
            process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        pass  # it closed its output and stays: killed below, and the missing exit status tells
    finally:
        process.kill()
        process.wait()
    return b"".join(chunks).decode(errors="replace")


def _read(fd: int, deadline: float) -> bytes:
    """Return what comes next on `fd`; nothing at its end and when `deadline` has passed."""
    remaining = deadline - time.monotonic()
    ready, _, _ = select.select([fd], [], [], max(remaining, 0))
    return os.read(fd, 65536) if ready else b""


def _text(path: Path) -> str:
    """Return the file's text, or nothing when there is no such file."""
    return path.read_text(errors="replace") if path.exists() else ""
