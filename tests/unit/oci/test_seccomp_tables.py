"""The default filter against libseccomp's own tables of system calls: what each architecture has is allowed or denied.

libseccomp2 is there wherever runc is; where it is not, there is nothing to compare with.
"""

from __future__ import annotations

import ctypes
import ctypes.util

import pytest

from appbox.oci import seccomp
from appbox.oci.capabilities import ALL_CAPABILITIES, DEFAULT_CAPABILITIES

LIBRARY = ctypes.util.find_library("seccomp")
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="libseccomp is not installed")

TOKENS = {"amd64": 0xC000003E, "arm64": 0xC00000B7}
"""AUDIT_ARCH_X86_64 and AUDIT_ARCH_AARCH64 of linux/audit.h."""
LAST = 600

# Nobody gets these: what only the host's administrator has a use for, what is obsolete, and what moby and
# containers-common leave out for their record of faults.
_NEVER = """
    _sysctl add_key afs_syscall create_module get_kernel_syms getpmsg io_uring_enter io_uring_register io_uring_setup
    kexec_file_load kexec_load keyctl migrate_pages move_pages nfsservctl pivot_root putpmsg query_module request_key
    security swapoff swapon sysfs tuxcall uselib userfaultfd ustat vserver
"""
NEVER = frozenset(_NEVER.split())


def known(architecture: str) -> set[str]:
    """Return every system call that libseccomp knows on an architecture."""
    library = ctypes.CDLL(LIBRARY)
    resolve = library.seccomp_syscall_resolve_num_arch
    resolve.restype = ctypes.c_void_p
    names = set()
    for number in range(LAST):
        pointer = resolve(ctypes.c_uint32(TOKENS[architecture]), ctypes.c_int(number))
        if pointer:
            names.add(ctypes.string_at(pointer).decode())
    return names


def allowed(architecture: str, capabilities: frozenset[str]) -> set[str]:
    """Return the system calls that the filter lets pass, with some arguments at least."""
    rules = seccomp.profile(architecture, capabilities)["syscalls"]
    return {name for rule in rules if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]}


@pytest.mark.parametrize("architecture", sorted(TOKENS))
def test_every_call_is_allowed_to_somebody_or_denied_on_purpose(architecture: str) -> None:
    names = known(architecture)
    assert len(names) > 250
    most = allowed(architecture, ALL_CAPABILITIES)
    assert names - most - NEVER == set()
    assert most & NEVER == set()


def test_both_architectures_get_the_same_where_they_have_the_same() -> None:
    both = known("amd64") & known("arm64")
    for capabilities in (DEFAULT_CAPABILITIES, ALL_CAPABILITIES, frozenset[str]()):
        assert allowed("amd64", capabilities) & both == allowed("arm64", capabilities) & both


@pytest.mark.parametrize("architecture", sorted(TOKENS))
def test_what_every_program_needs_is_there(architecture: str) -> None:
    """The calls by which a program of C starts, waits, talks and ends, by the names that the architecture has."""
    needed = """
        brk clone close connect dup3 epoll_pwait execve exit_group fcntl fstat futex getdents64 getrandom ioctl lseek
        mmap mprotect munmap openat pipe2 ppoll prctl pread64 prlimit64 read recvmsg rseq rt_sigaction rt_sigreturn
        sendmsg set_robust_list set_tid_address setuid socket statx unlinkat wait4 write
    """
    names = set(needed.split())
    assert names <= known(architecture)
    assert names <= allowed(architecture, DEFAULT_CAPABILITIES)
