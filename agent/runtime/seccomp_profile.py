"""The default seccomp profile: which system calls a container may make. Pure data in the OCI form.

An allow list: a call that is not in it fails with EPERM. Left out are the calls that act on the host as a whole
(modules, kexec, clocks, swap, quotas, accounting, reboot), those that widen the kernel's attack surface without a use
in services (bpf, perf_event_open, userfaultfd, io_uring, keyrings), and mounting; these are let through by the
capability that the kernel asks for as well. Our own judgement, guided by what Docker's and Podman's defaults allow.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

_FILES: Final = """
access chdir chmod chown close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64 fallocate
fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr
fstat fstatfs fsync ftruncate futimesat getcwd getdents getdents64 getxattr getxattrat inotify_add_watch inotify_init
inotify_init1 inotify_rm_watch ioctl lchown lgetxattr link linkat listxattr listxattrat llistxattr lremovexattr lseek
lsetxattr lstat mkdir mkdirat mknod mknodat name_to_handle_at newfstatat open openat openat2 pread64 preadv preadv2
pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv removexattr removexattrat rename renameat renameat2
rmdir sendfile setxattr setxattrat splice stat statfs statx symlink symlinkat sync sync_file_range syncfs tee truncate
umask unlink unlinkat ustat utime utimensat utimes vmsplice write writev cachestat fanotify_mark
"""
_MEMORY: Final = """
brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mprotect mremap
mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect process_mrelease remap_file_pages
set_mempolicy_home_node
"""
_PROCESSES: Final = """
alarm arch_prctl capget capset execve execveat exit exit_group fork futex futex_requeue futex_wait futex_waitv
futex_wake get_robust_list getcpu getegid geteuid getgid getgroups getitimer getpgid getpgrp getpid getppid getpriority
getresgid getresuid getrlimit getrusage getsid gettid getuid ioprio_get ioprio_set kill nanosleep pause
pidfd_getfd pidfd_open pidfd_send_signal prctl prlimit64 restart_syscall rseq rt_sigaction rt_sigpending rt_sigprocmask
rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max
sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp set_robust_list
set_tid_address setfsgid setfsuid setgid setgroups setitimer setpgid setpriority setregid setresgid setresuid setreuid
setrlimit setsid setuid sigaltstack tgkill time times tkill uname vfork wait4 waitid process_madvise
ptrace process_vm_readv process_vm_writev landlock_add_rule landlock_create_ruleset landlock_restrict_self
clock_getres clock_gettime clock_nanosleep gettimeofday timer_create timer_delete timer_getoverrun timer_gettime
timer_settime timerfd_create timerfd_gettime timerfd_settime getrandom sysinfo
"""
_EVENTS_AND_IPC: Final = """
epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2
io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit mq_getsetattr mq_notify mq_open mq_timedreceive
mq_timedsend mq_unlink msgctl msgget msgrcv msgsnd pipe pipe2 poll ppoll pselect6 select semctl semget semop semtimedop
shmat shmctl shmdt shmget signalfd signalfd4
"""
_NETWORK: Final = """
accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg recvmsg sendmmsg sendmsg sendto
setsockopt shutdown socketpair
"""
#: Calls that the kernel allows a capability's holder only: allowed here to a container that was given it.
_BY_CAPABILITY: Final = {
    "CAP_SYS_ADMIN": (
        "clone clone3 fsconfig fsmount fsopen fspick mount mount_setattr move_mount open_tree pivot_root setdomainname "
        "sethostname setns umount umount2 unshare bpf perf_event_open statmount listmount quotactl quotactl_fd"
    ),
    "CAP_SYS_CHROOT": "chroot",
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_SYS_NICE": "get_mempolicy mbind migrate_pages move_pages set_mempolicy",
    "CAP_SYS_PTRACE": "kcmp",
    "CAP_SYS_TTY_CONFIG": "vhangup",
    "CAP_SYSLOG": "syslog",
    "CAP_BPF": "bpf",
    "CAP_PERFMON": "perf_event_open",
}
#: The namespace flags of clone(2): a process may be cloned, a namespace not (a new user namespace gives its maker every
#: capability inside it, and with them the kernel's least tested paths).
_CLONE_NAMESPACE_FLAGS: Final = 0x7E020080
#: personality(2): 0xFFFFFFFF asks; 0 is Linux, 8 PER_LINUX32, 0x20000 UNAME26 and both together.
_PERSONALITIES: Final = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
_AF_VSOCK: Final = 40
_ENOSYS: Final = 38


def default_profile(capabilities: Collection[str]) -> dict[str, Any]:
    """Return the profile for a container with the given bounding capabilities (`CAP_` names)."""
    names = f"{_FILES} {_MEMORY} {_PROCESSES} {_EVENTS_AND_IPC} {_NETWORK}".split()
    for capability, calls in _BY_CAPABILITY.items():
        if capability in capabilities:
            names += calls.split()
    rules: list[dict[str, Any]] = [_allow(sorted(set(names)))]
    if "CAP_SYS_ADMIN" not in capabilities:
        no_namespaces = {"index": 0, "value": _CLONE_NAMESPACE_FLAGS, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
        rules.append(_allow(["clone"], no_namespaces))
        # A filter cannot see clone3's flags, which are in memory: without it C libraries use clone.
        rules.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS})
    rules.append(_allow(["socket"], {"index": 0, "value": _AF_VSOCK, "op": "SCMP_CMP_NE"}))
    rules += [_allow(["personality"], {"index": 0, "value": value, "op": "SCMP_CMP_EQ"}) for value in _PERSONALITIES]
    return {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "architectures": [], "syscalls": rules}


def _allow(names: list[str], *arguments: dict[str, Any]) -> dict[str, Any]:
    rule: dict[str, Any] = {"names": names, "action": "SCMP_ACT_ALLOW"}
    return {**rule, "args": list(arguments)} if arguments else rule
