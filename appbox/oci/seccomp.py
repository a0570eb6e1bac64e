"""The default seccomp profile: which system calls a container may make. A table and the function that picks from it.

The table follows what container runtimes have agreed on (moby's and containers-common's default profiles): what an
unprivileged program needs is allowed, the rest is EPERM, and calls that the kernel itself guards by a capability are
added with that capability.
- `socket` of any family but AF_ALG, AF_VSOCK and the unused ones; vsock is not held by a network namespace;
- `clone` without new namespaces; `clone3`, whose flags a filter cannot see, is ENOSYS, so that libc falls back to it;
- `personality` only with values that switch no protection off.
Names that the host's libseccomp does not know are passed over by the runtime.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any, Final

from appbox.errors import HostLacks

ARCHITECTURES: Final[Mapping[str, tuple[str, ...]]] = {
    "amd64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86"),
    "arm64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
}
"""The system call tables of an image's platform: its own, then the one of its 32-bit programs."""

_ALWAYS: Final = """
    access cachestat chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat
    faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32
    fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr fstat fstat64 fstatat64
    fstatfs fstatfs64 fsync ftruncate ftruncate64 futimesat getcwd getdents getdents64 getxattr getxattrat
    inotify_add_watch inotify_init inotify_init1 inotify_rm_watch ioctl lchown lchown32 lgetxattr link linkat
    listmount listxattr listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 mkdir mkdirat
    mknod mknodat name_to_handle_at newfstatat open openat openat2 pread64 preadv preadv2 pwrite64 pwritev pwritev2
    read readahead readlink readlinkat readv removexattr removexattrat rename renameat renameat2 rmdir sendfile
    sendfile64 setxattr setxattrat splice stat stat64 statfs statfs64 statmount statx symlink symlinkat sync
    sync_file_range syncfs tee truncate truncate64 umask unlink unlinkat utime utimensat utimensat_time64 utimes
    vmsplice write writev

    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd
    eventfd2 io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit _newselect poll
    ppoll ppoll_time64 pselect6 pselect6_time64 select signalfd signalfd4

    accept accept4 bind connect getpeername getsockname getsockopt listen pipe pipe2 recv recvfrom recvmmsg
    recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair

    brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2
    mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect process_mrelease
    remap_file_pages

    adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
    clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time timer_create timer_delete
    timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime
    timerfd_gettime64 timerfd_settime timerfd_settime64 times

    futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake get_robust_list ipc mq_getsetattr mq_notify
    mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink msgctl msgget msgrcv
    msgsnd semctl semget semop semtimedop semtimedop_time64 set_robust_list shmat shmctl shmdt shmget

    capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getpgid getpid getppid
    getresgid getresgid32 getresuid getresuid32 getsid gettid getuid getuid32 setfsgid setfsgid32 setfsuid
    setfsuid32 setgid setgid32 setgroups setgroups32 setpgid setregid setregid32 setresgid setresgid32 setresuid
    setresuid32 setreuid setreuid32 setsid setuid setuid32

    execve execveat exit exit_group fork get_thread_area getcpu getpgrp getpriority getrandom getrlimit getrusage
    ioprio_get ioprio_set kill landlock_add_rule landlock_create_ruleset landlock_restrict_self pause pidfd_open
    pidfd_send_signal prctl prlimit64 process_vm_readv process_vm_writev ptrace restart_syscall rseq rt_sigaction
    rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64
    rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam
    sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr
    sched_setparam sched_setscheduler sched_yield seccomp set_thread_area set_tid_address setpriority setrlimit
    sigaltstack sigprocmask sigreturn sysinfo tgkill tkill ugetrlimit uname uretprobe vfork wait4 waitid waitpid
"""
ALWAYS: Final = frozenset(_ALWAYS.split())
"""Allowed to everyone: files, readiness, sockets, memory, time, IPC, identity and processes, in this order."""

BY_ARCHITECTURE: Final[Mapping[str, tuple[str, ...]]] = {
    "amd64": ("arch_prctl", "modify_ldt"),
    "arm64": (
        "arm_fadvise64_64",
        "arm_sync_file_range",
        "breakpoint",
        "cacheflush",
        "set_tls",
        "sync_file_range2",
    ),
}

BY_CAPABILITY: Final[Mapping[str, tuple[str, ...]]] = {
    capability: tuple(names.split())
    for capability, names in {
        "CAP_BPF": "bpf",
        "CAP_DAC_READ_SEARCH": "open_by_handle_at",
        "CAP_PERFMON": "perf_event_open",
        "CAP_SYSLOG": "syslog",
        "CAP_SYS_ADMIN": """
            bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr
            lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl
            quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare
        """,
        "CAP_SYS_BOOT": "reboot",
        "CAP_SYS_CHROOT": "chroot",
        "CAP_SYS_MODULE": "delete_module finit_module init_module",
        "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
        "CAP_SYS_PACCT": "acct",
        "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise",
        "CAP_SYS_RAWIO": "ioperm iopl",
        "CAP_SYS_TIME": "clock_settime clock_settime64 settimeofday stime",
        "CAP_SYS_TTY_CONFIG": "vhangup",
    }.items()
}

_OLDEST_FAMILIES: Final = 12
_FAMILIES: Final = (*range(13, 19), 21, 22, 24, *range(26, 34), 35, 36, 39, *range(41, 46))
# PER_LINUX, UNAME26, PER_LINUX32, both, and the question what is set; never ADDR_NO_RANDOMIZE or READ_IMPLIES_EXEC.
_PERSONALITIES: Final = (0x0, 0x20000, 0x8, 0x20008, 0xFFFFFFFF)
# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET.
_CLONE_NAMESPACES: Final = 0x7E020000
_ENOSYS: Final = 38


def profile(architecture: str, capabilities: Collection[str], *, programs_32_bit: bool = False) -> dict[str, Any]:
    """Return the default profile as runtime-spec, config-linux.md, Seccomp, wants it.

    `architecture` is an image platform's (`amd64`, `arm64`); raises `HostLacks` for one that has no table here.
    Without `programs_32_bit` a system call of the other table ends the process. Translating a second table takes the
    runtime longer than everything else it does at a start (12 ms of 25, measured with libseccomp 2.5).
    """
    if architecture not in ARCHITECTURES:
        hint = 'set [security] seccomp = "unconfined" to run without a filter'
        raise HostLacks("no seccomp profile for this architecture", where=architecture, hint=hint)
    granted = {name for capability in capabilities for name in BY_CAPABILITY.get(capability, ())}
    names = _sorted(frozenset((*BY_ARCHITECTURE[architecture], *granted)))
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": list(ARCHITECTURES[architecture][: 2 if programs_32_bit else 1]),
        "syscalls": [{"names": list(names), "action": "SCMP_ACT_ALLOW"}, *_conditional(granted)],
    }


@lru_cache(maxsize=16)
def _sorted(more: frozenset[str]) -> tuple[str, ...]:
    return tuple(sorted(ALWAYS | more))


def _conditional(granted: Collection[str]) -> list[dict[str, Any]]:
    """The rules that look at an argument, and the answer to `clone3`."""
    rules = [_allow_if("socket", "SCMP_CMP_LT", _OLDEST_FAMILIES)]
    rules += [_allow_if("socket", "SCMP_CMP_EQ", family) for family in _FAMILIES]
    rules += [_allow_if("personality", "SCMP_CMP_EQ", value) for value in _PERSONALITIES]
    if "clone" not in granted:
        rules.append(_allow_if("clone", "SCMP_CMP_MASKED_EQ", _CLONE_NAMESPACES))
        rules.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS})
    return rules


def _allow_if(name: str, comparison: str, value: int) -> dict[str, Any]:
    # With MASKED_EQ `value` is the mask, and the masked argument has to equal valueTwo, which is 0 when left out.
    return {
        "names": [name],
        "action": "SCMP_ACT_ALLOW",
        "args": [{"index": 0, "value": value, "op": comparison}],
    }
