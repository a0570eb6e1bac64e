"""A process that asks before each of its system calls that change something, and is told: go on, fail, or die there.

seccomp(2) with SECCOMP_RET_USER_NOTIF: the kernel stops the calling thread, whichever it is, before the call takes
effect and asks whoever holds the listener. So calls are numbered across all threads in the order in which they are
made, nothing is slowed down but those calls, and what is to happen at the n-th one happens exactly there.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import select
import signal
import socket
import struct
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

ARCHITECTURES: Final = {"x86_64": (0xC000003E, 317, 0), "aarch64": (0xC00000B7, 277, 1)}
"""Machine to AUDIT_ARCH_* of linux/audit.h, the number of seccomp(2), and the column of `NUMBERS`."""

NUMBERS: Final[dict[str, tuple[int | None, int | None]]] = {
    "read": (0, 63),
    "write": (1, 64),
    "open": (2, None),
    "ioctl": (16, 29),
    "pread64": (17, 67),
    "pwrite64": (18, 68),
    "writev": (20, 66),
    "dup": (32, 23),
    "sendfile": (40, 71),
    "socket": (41, 198),
    "fsync": (74, 82),
    "fdatasync": (75, 83),
    "truncate": (76, 45),
    "ftruncate": (77, 46),
    "rename": (82, None),
    "mkdir": (83, None),
    "rmdir": (84, None),
    "link": (86, None),
    "unlink": (87, None),
    "symlink": (88, None),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "mknod": (133, None),
    "sync": (162, 81),
    "mount": (165, 40),
    "umount2": (166, 39),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "getdents64": (217, 61),
    "openat": (257, 56),
    "mkdirat": (258, 34),
    "mknodat": (259, 33),
    "fchownat": (260, 54),
    "unlinkat": (263, 35),
    "renameat": (264, 38),
    "linkat": (265, 37),
    "symlinkat": (266, 36),
    "fchmodat": (268, 53),
    "sync_file_range": (277, 84),
    "utimensat": (280, 88),
    "fallocate": (285, 47),
    "dup3": (292, 24),
    "pipe2": (293, 59),
    "pwritev": (296, 70),
    "syncfs": (306, 267),
    "renameat2": (316, 276),
    "memfd_create": (319, 279),
    "copy_file_range": (326, 285),
    "openat2": (437, 437),
    "fchmodat2": (452, 452),
}
"""System call to its number on x86_64 and on aarch64."""

SYNCING: Final = ("fsync", "fdatasync", "syncfs", "sync")
READING: Final = ("read", "pread64", "getdents64")
OPENING: Final = ("open", "openat", "openat2", "dup", "dup3", "socket", "pipe2", "memfd_create")
"""What needs a new descriptor, whether it changes anything or not."""

CHANGING: Final = tuple(name for name in NUMBERS if name not in {*READING, *OPENING} or name.startswith("open"))
"""What changes a file system or makes a change durable; opening is among it with O_CREAT or O_TRUNC only."""

_MAKING: Final = os.O_CREAT | os.O_TRUNC | (os.O_TMPFILE & ~os.O_DIRECTORY)
_CLONING: Final = 0x9400
"""The type of the ioctls FICLONE, FICLONERANGE and BTRFS_IOC_*, in the second byte of the number."""

_RECEIVE: Final = 0xC0502100
_SEND: Final = 0xC0182101
_NOTIFICATION: Final = struct.Struct("=QIIiIQ6Q")
_ANSWER: Final = struct.Struct("=QqiI")
_GO_ON: Final = 1
_SET_FLAGS: Final = 0x40082104
_WAKE_HERE: Final = 1
"""SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP, since Linux 6.6: who asks and who answers take turns on one processor."""

LIMIT: Final = 60
"""Seconds without any call after which a process counts as stuck."""

KILL: Final = -1
"""What is decided to have the process end by SIGKILL before the call takes effect."""
SKIP: Final = -2
"""What is decided to have the call not made, and the process told that it was."""

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Call:
    """A system call that is about to be made: `number` counts from 1 over all threads, `thread` from 0."""

    number: int
    name: str
    thread: int

    def __str__(self) -> str:
        return f"call {self.number}, {self.name}" + (f" of thread {self.thread}" if self.thread else "")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended: its exit code, negative for a signal, and what it wrote."""

    code: int
    out: str
    err: str


def supervise(
    work: Callable[[], int],
    decide: Callable[[Call], int],
    names: Sequence[str] = CHANGING,
    prepare: Callable[[], None] | None = None,
    *,
    alone: bool = False,
) -> Ended:
    """Fork, call `prepare` and then `work` in the child, and return how it ended; its exit code is what `work` returns.

    `decide` is asked before each call of `names`: 0 to go on, an errno to fail with, `KILL` or `SKIP`. Every thread
    that makes a call waits until it is answered. What goes to the standard streams does not count, nor what `prepare`
    does. `alone`: what other programs do that the process has started does not count, and goes on when it has ended.

    What the process forks is watched like itself. It is killed with it, and has ended when this returns.
    """
    ours, theirs = socket.socketpair()
    life, alive = os.pipe2(os.O_CLOEXEC)  # every fork has its writing end, no program that is started does
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err, ours, theirs:
        pid = os.fork()
        if pid == 0:
            os.close(life)
            _become(work, prepare, theirs, (out.fileno(), err.fileno()), names)
        theirs.close()
        os.close(alive)
        process = os.pidfd_open(pid)
        try:
            _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
            assert descriptors, "the process ended before it could be watched"
            _answer(process, descriptors[0], decide, every_open="dup" in names, alone=pid if alone else 0)
        finally:
            signal.pidfd_send_signal(process, signal.SIGKILL)
            os.close(process)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            ended = select.select([life], [], [], LIMIT)[0]
            os.close(life)
        assert ended, "a fork of the process lives on"
        out.seek(0)
        err.seek(0)
        return Ended(code, out.read(), err.read())


def _become(
    work: Callable[[], int],
    prepare: Callable[[], None] | None,
    channel: socket.socket,
    streams: tuple[int, int],
    names: Sequence[str],
) -> None:
    """In the child: have the listener sent to the parent, do the work and end."""
    code = 99
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, stream in enumerate(streams, start=1):
            os.dup2(stream, number)
        sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115
        if prepare is not None:
            prepare()
        listener = _listen(names)
        socket.send_fds(channel, [b"x"], [listener])
        os.close(listener)
        channel.close()
        code = work()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _answer(process: int, listener: int, decide: Callable[[Call], int], *, every_open: bool, alone: int) -> None:
    """Answer every question until the process has ended. `alone`: the number of the one that counts, 0 for all."""
    column = ARCHITECTURES[os.uname().machine][2]
    by_number = {numbers[column]: name for name, numbers in NUMBERS.items()}
    threads: list[int] = []
    asked = 0
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    poll.register(process, select.POLLIN)
    with contextlib.suppress(OSError):
        fcntl.ioctl(listener, _SET_FLAGS, _WAKE_HERE)
    try:
        while (ready := dict(poll.poll(LIMIT * 1000))) and process not in ready:
            if not ready[listener] & select.POLLIN:
                poll.unregister(listener)  # nobody is left who could ask
                continue
            question = _question(listener)
            if question is None:
                continue
            identity, thread, _, number, _, _, *arguments = question
            name = by_number[number]
            verdict = 0
            counts = not alone or os.path.exists(f"/proc/{alone}/task/{thread}")
            if counts and (name != "openat2" or every_open or _makes(thread, arguments[2])):
                asked += 1
                if thread not in threads:
                    threads.append(thread)
                verdict = decide(Call(asked, name, threads.index(thread)))
            if verdict == KILL:
                # First who asks, which may be a fork: nobody answers it any more.
                os.kill(thread, signal.SIGKILL)
                signal.pidfd_send_signal(process, signal.SIGKILL)
                return
            _reply(listener, identity, verdict)
        assert ready, f"nothing happened for {LIMIT} seconds after call {asked}"
    finally:
        if alone:
            _let_others_go_on(listener)
        os.close(listener)


def _question(listener: int) -> tuple[int, ...] | None:
    """Return what somebody asks, as struct seccomp_notif has it; None when he died meanwhile."""
    question = bytearray(_NOTIFICATION.size)
    try:
        fcntl.ioctl(listener, _RECEIVE, question)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        return None
    return _NOTIFICATION.unpack(question)


def _reply(listener: int, identity: int, verdict: int) -> None:
    answer = _ANSWER.pack(identity, 0, -max(verdict, 0), 0 if verdict else _GO_ON)
    with contextlib.suppress(FileNotFoundError):
        fcntl.ioctl(listener, _SEND, answer)


def _let_others_go_on(listener: int) -> None:
    """Fork what tells everybody to go on, until nobody is left who could ask: a service that was started, for one."""
    if os.fork() != 0:
        return
    try:
        os.setsid()
        os.dup2(listener, 3)
        os.closerange(4, 1 << 16)
        for number in range(3):
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
        poll = select.poll()
        poll.register(3, select.POLLIN)
        while any(event & select.POLLIN for _, event in poll.poll()):
            if question := _question(3):
                _reply(3, question[0], 0)
    finally:
        os._exit(0)


def _makes(thread: int, how: int) -> bool:
    """Return whether the struct open_how of openat2(2) at an address asks for something to be made."""
    try:
        with open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:
            memory.seek(how)
            return bool(int.from_bytes(memory.read(8), sys.byteorder) & _MAKING)
    except FileNotFoundError:
        return False


# The filter: a classic BPF program over struct seccomp_data (linux/seccomp.h, linux/bpf_common.h).

_LOAD, _EQUAL, _GREATER, _ANY_OF, _AND, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x54, 0x06
_ALLOW, _ASK = 0x7FFF0000, 0x7FC00000
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
_NEW_LISTENER = 8


def _instruction(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("=HBBI", code, yes, no, value)


def _ask_when(argument: int, *condition: bytes) -> list[bytes]:
    """Return instructions that ask when the condition on an argument's lower half is met, and allow otherwise."""
    load = _instruction(_LOAD, _ARGUMENTS_AT + 8 * argument)  # little-endian
    return [load, *condition, _instruction(_RETURN, _ASK), _instruction(_RETURN, _ALLOW)]


def _block(name: str, *, every_open: bool) -> list[bytes]:
    """Return what is done for one system call."""
    if name in {"open", "openat"} and not every_open:
        return _ask_when(1 if name == "open" else 2, _instruction(_ANY_OF, _MAKING, 0, 1))
    if name == "ioctl":
        masked = _instruction(_AND, 0xFF00)
        return _ask_when(1, masked, _instruction(_EQUAL, _CLONING, 0, 1))
    if name in {"read", "write", "writev"}:
        return _ask_when(0, _instruction(_GREATER, 2, 0, 1))
    return [_instruction(_RETURN, _ASK)]


def _program(names: Sequence[str]) -> bytes:
    architecture, _, column = ARCHITECTURES[os.uname().machine]
    program = [
        _instruction(_LOAD, _ARCHITECTURE_AT),
        _instruction(_EQUAL, architecture, 1, 0),
        _instruction(_RETURN, _ALLOW),
        _instruction(_LOAD, _NUMBER_AT),
    ]
    for name in names:
        number = NUMBERS[name][column]
        if number is not None:
            block = _block(name, every_open="dup" in names)
            program += [_instruction(_EQUAL, number, 0, len(block)), *block]
    return b"".join([*program, _instruction(_RETURN, _ALLOW)])


def _listen(names: Sequence[str]) -> int:
    """Put this process under a filter and return the descriptor at which its calls are asked about."""
    program = _program(names)
    text = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(text)))
    number = ARCHITECTURES[os.uname().machine][1]
    found = _libc.syscall(number, 1, _NEW_LISTENER, ctypes.byref(header))
    if found < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return int(found)
