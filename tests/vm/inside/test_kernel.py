"""What the virtual machine must offer, or the kernel tests inside it would prove nothing.

Each test makes the thing for real; a failure here is a fault of the harness (or of the kernel), not of Argosy.
"""

import ctypes
import os
import signal
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

CGROUP = Path("/sys/fs/cgroup")
SYS_CLONE3 = 435
CLONE_INTO_CGROUP = 0x2_0000_0000
CLONE_NEWPID = 0x2000_0000
LIBC = ctypes.CDLL(None, use_errno=True)


def sh(command: str) -> str:
    """Run `command`, which must succeed, and return its output."""
    done = subprocess.run(["bash", "-ec", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def netns() -> Iterator[str]:
    """A network namespace of this test's own."""
    name = f"vmtest-{os.getpid()}"
    sh(f"ip netns add {name}")
    yield name
    sh(f"ip netns del {name}")


def test_kernel_is_debians() -> None:
    assert "Debian" in os.uname().version


def test_cgroup_v2_is_the_only_hierarchy_with_all_controllers() -> None:
    kinds = [line.split()[2] for line in Path("/proc/mounts").read_text().splitlines()]
    assert "cgroup" not in kinds
    enabled = set((CGROUP / "cgroup.subtree_control").read_text().split())
    assert {"cpu", "cpuset", "io", "memory", "pids"} <= enabled


def test_clone3_starts_a_process_in_its_cgroup_and_pid_namespace() -> None:
    group = CGROUP / "vmtest-clone3"
    group.mkdir()
    directory = os.open(group, os.O_RDONLY | os.O_DIRECTORY)
    read_end, write_end = os.pipe()
    try:
        # struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
        # set_tid_size, cgroup
        flags = CLONE_INTO_CGROUP | CLONE_NEWPID
        args = struct.pack("11Q", flags, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, directory)
        pid = LIBC.syscall(SYS_CLONE3, args, len(args))
        assert pid >= 0, os.strerror(ctypes.get_errno())
        if pid == 0:
            # glibc caches no pid: getpid asks the kernel, which answers for the new namespace.
            os.write(write_end, f"{os.getpid()} {Path('/proc/self/cgroup').read_text()}".encode())
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        # /proc here belongs to the outer pid namespace, and says so.
        assert os.read(read_end, 1000).decode() == "1 0::/vmtest-clone3\n"
    finally:
        for fd in (directory, read_end, write_end):
            os.close(fd)
        group.rmdir()


def test_overlayfs_has_a_file_system_for_its_upper_layer(tmp_path: Path) -> None:
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower" / "file").write_text("below")
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    sh(f"mount -t overlay -o {options} vmtest {tmp_path}/merged")
    try:
        (tmp_path / "merged" / "file").write_text("above")
        assert (tmp_path / "upper" / "file").read_text() == "above"
        assert (tmp_path / "lower" / "file").read_text() == "below"
    finally:
        sh(f"umount {tmp_path}/merged")


@pytest.mark.parametrize("kind", ["vxlan id 7 dstport 14789", "veth", "dummy", "wireguard", "bridge"])
def test_device_can_be_made(netns: str, kind: str) -> None:
    sh(f"ip -n {netns} link add vmtest0 type {kind}")
    assert "vmtest0" in sh(f"ip -n {netns} -br link show dev vmtest0")


def test_netem_and_nftables_work(netns: str) -> None:
    sh(f"tc -n {netns} qdisc add dev lo root netem delay 10ms loss 5%")
    rules = "table ip t { chain c { type nat hook postrouting priority 100; masquerade; }; }"
    sh(f"ip netns exec {netns} nft '{rules}'")
    assert "masquerade" in sh(f"ip netns exec {netns} nft list ruleset")
