"""Names of the kernel: the same as the launcher's, and mistakes get the nearest one."""

import pytest

from argosy.agent.launcher.capability import NAMES
from argosy.core.kernel_names import (
    CAPABILITIES,
    ULIMITS,
    capability_problem,
    sysctl_problem,
    tmpfs_option_problem,
    ulimit_problem,
)


def test_the_launcher_knows_the_same_capabilities():
    assert frozenset(NAMES) == CAPABILITIES


def test_python_knows_the_same_ulimits():
    import resource

    theirs = {n.removeprefix("RLIMIT_").lower() for n in dir(resource) if n.startswith("RLIMIT_")} - {"ofile"}
    assert theirs <= ULIMITS


@pytest.mark.parametrize("name", ["NET_ADMIN", "cap_net_raw", "CAP_SYS_PTRACE", "all"])
def test_capabilities(name):
    assert capability_problem(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "net.core.somaxconn",
        "net.ipv4.conf.eth0/1.forwarding",
        "kernel.shmmax",
        "kernel.shm_rmid_forced",
        "kernel.msgmax",
        "kernel.sem",
        "fs.mqueue.msg_max",
    ],
)
def test_sysctls_of_a_container(name):
    assert sysctl_problem(name) is None


@pytest.mark.parametrize(
    ("problem", "says"),
    [
        (capability_problem("NET_ADMN"), 'did you mean "NET_ADMIN"'),
        (capability_problem("zzz"), "there are AUDIT_CONTROL"),
        (ulimit_problem("nofiles"), 'did you mean "nofile"'),
        (ulimit_problem("RLIMIT_NOFILE"), 'did you mean "nofile"'),
        (sysctl_problem("vm.swappiness"), "belongs to the whole host"),
        (sysctl_problem("kernel.panic"), "belongs to the whole host"),
        (sysctl_problem("kernel.hostname"), 'use "hostname"'),
        (sysctl_problem("kernel/sem"), '"kernel.sem"'),
        (sysctl_problem("net..ipv4"), "belongs to the whole host"),
        (sysctl_problem("net.ipv4.x y"), "belongs to the whole host"),
        (tmpfs_option_problem("noexc"), 'did you mean "noexec"'),
        (tmpfs_option_problem("size=1m"), "fields of their own"),
        (tmpfs_option_problem("uid=root"), "needs a number"),
    ],
)
def test_mistakes_are_told_what_would_be_right(problem, says):
    assert problem is not None
    assert says in problem
