"""Programs are started outside the user namespace in which appbox works for an ordinary user.

There a program is the user's own process, as if typed at a shell: it may talk to the user's init system, end whatever
runs in a container of the user's, and enter its namespaces; from within appbox's own namespace it could do none of it.

`serve` is the process outside. It takes requests from `Outside`, the client within, at a socket: one JSON object each,
with the descriptors that the program gets and one through which its end is told (unix(7), SCM_RIGHTS). Both are the
same program of the same user, so that neither has to distrust the other; where root serves a user, it starts programs
as that user, and `host.privileged` judges what else is asked of it.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, Final, Literal

from appbox.host import process

_LIMIT: Final = 4 << 20
"""Bytes of a request: all arguments and variables of a program, which the kernel bounds at 2 MiB."""
_FDS: Final = 4


class Started:
    """A program that runs outside, with as much of subprocess.Popen as this package needs."""

    def __init__(self, argv: Sequence[str], pid: int, told: socket.socket, pipes: Mapping[str, IO[bytes]]) -> None:
        self.args = list(argv)
        self.pid = pid
        self.returncode = 0
        self.stdin = pipes.get("stdin")
        self.stdout = pipes.get("stdout")
        self.stderr = pipes.get("stderr")
        self._told: socket.socket | None = told

    def poll(self) -> int | None:
        """Return how the program ended, None while it runs."""
        with contextlib.suppress(process.TimeoutExpired):
            return self.wait(0.0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end of the program, for `timeout` seconds at most; process.TimeoutExpired after them."""
        if self._told is not None:
            # A timeout of zero would make the socket one that does not block, which is told by another exception.
            self._told.settimeout(None if timeout is None else max(timeout, 0.001))
            try:
                answer = self._told.recv(64)
            except TimeoutError as error:
                raise process.TimeoutExpired(self.args, timeout or 0.0) from error
            self._told.close()
            self._told = None
            self.returncode = int(answer or b"-9")  # whoever waited for it is gone, and the program with it
        return self.returncode

    def terminate(self) -> None:
        """Ask the program to end."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has ended, and that was not told yet
                os.kill(self.pid, 15)

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self.stdout, self.stderr, self.stdin):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self.wait()


Use = Literal["pipe", "null", "out"]
"""What one of a program's descriptors is: a pipe to us, /dev/null, or the same as its standard output."""


class Outside:
    """The client: starts programs through the process outside."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._turn = threading.Lock()

    def start(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        *,
        stdin: Use | int,
        stdout: Use | None,
        stderr: Use | None,
        new_session: bool,
    ) -> Started:
        """Start a program; OSError as execve(2) when it cannot be started. None: ours; or one by its number."""
        pipes: dict[str, IO[bytes]] = {}
        given: list[int] = []
        with contextlib.ExitStack() as stack:
            for name, use in (("stdin", stdin), ("stdout", stdout), ("stderr", stderr)):
                if use == "pipe":
                    reader, writer = os.pipe2(os.O_CLOEXEC)
                    mine, theirs = (writer, reader) if name == "stdin" else (reader, writer)
                    pipes[name] = os.fdopen(mine, "wb" if name == "stdin" else "rb", buffering=0)
                    stack.callback(os.close, theirs)
                elif use == "null":
                    theirs = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
                    stack.callback(os.close, theirs)
                elif isinstance(use, int):
                    theirs = use
                else:
                    theirs = given[1] if use == "out" else ("stdin", "stdout", "stderr").index(name)
                given.append(theirs)
            request = {"do": "start", "argv": list(argv), "env": dict(env), "session": new_session}
            told = self._ask(request, given)
        answer = json.loads(told.recv(4096) or b'{"errno": 5}')
        if "errno" in answer:
            for pipe in pipes.values():
                pipe.close()
            told.close()
            raise OSError(answer["errno"], os.strerror(answer["errno"]), argv[0])
        return Started(argv, int(answer["pid"]), told, pipes)

    def become(self, argv: Sequence[str], env: Mapping[str, str]) -> None:
        """Have the process outside become a program once this one has ended."""
        self._ask({"do": "become", "argv": list(argv), "env": dict(env)}, []).close()

    def owner(self, fd: int) -> tuple[int, int]:
        """Return the true user and group ids of what a descriptor refers to: here all that are not ours look alike."""
        told = self._ask({"do": "owner"}, [fd])
        with told:
            uid, gid = json.loads(told.recv(64))
        return int(uid), int(gid)

    def privileged(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Ask root, who serves this user, for what only root can do, and return the answer."""
        told = self._ask({"do": "privileged", "asked": dict(asked)}, [])
        with told:
            return dict(json.loads(told.recv(_LIMIT)))

    def _ask(self, request: Mapping[str, Any], given: Sequence[int]) -> socket.socket:
        """Send a request, and return where the answer to it comes."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            data = json.dumps(request).encode()
            size = len(data).to_bytes(4, "big")
            fds = array.array("i", [theirs.fileno(), *given])
            with self._turn:
                self._line.sendmsg([size], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
                self._line.sendall(data)
        return ours


Answer = Callable[[Mapping[str, Any]], dict[str, Any]]
"""What root does for a user: a request to its answer, both data for JSON."""


def serve(line: socket.socket, own: process.Identity | None = None, answer: Answer | None = None) -> list[Any] | None:
    """Answer requests until the client has ended; return the program and environment to become, None if nothing.

    Where root serves a user, programs are started as `own`, and `answer` does what only root can.
    """
    wanted: list[Any] | None = None
    while True:
        size, fds, _, _ = socket.recv_fds(line, 4, _FDS, socket.MSG_CMSG_CLOEXEC)
        if len(size) < 4:
            return wanted
        try:
            request = json.loads(_exactly(line, int.from_bytes(size, "big")))
            _refuse_half(request, fds)
            told = socket.socket(fileno=fds[0])
        except (ValueError, LookupError, TypeError, RecursionError, OSError):
            for fd in fds:
                os.close(fd)
            line.shutdown(socket.SHUT_RDWR)  # nothing of ours sends that
            return None
        if request["do"] == "become":
            wanted = [request["argv"], request["env"]]
            told.close()
        elif request["do"] == "owner":
            with told:
                info = os.fstat(fds[1])
                os.close(fds[1])
                with contextlib.suppress(BrokenPipeError):
                    told.send(json.dumps([info.st_uid, info.st_gid]).encode())
        elif request["do"] == "privileged":
            threading.Thread(target=_answer, args=(request["asked"], told, answer), daemon=True).start()
        else:
            threading.Thread(target=_start, args=(request, told, fds[1:], own), daemon=True).start()


def _refuse_half(request: Mapping[str, Any], fds: Sequence[int]) -> None:
    """Raise for a request without what its kind needs."""
    needed = {"start": ("argv", "env", "session"), "become": ("argv", "env"), "privileged": ("asked",), "owner": ()}
    missing = [key for key in needed[request["do"]] if key not in request]
    if missing or len(fds) < {"start": 4, "owner": 2}.get(request["do"], 1):
        raise ValueError("half a request")


def _answer(asked: Mapping[str, Any], told: socket.socket, answer: Answer | None) -> None:
    with told:
        found = answer(asked) if answer else {}
        with contextlib.suppress(BrokenPipeError):
            told.sendall(json.dumps(found).encode())


def _exactly(line: socket.socket, size: int) -> bytes:
    if size > _LIMIT:
        raise ValueError(f"a request of {size} bytes")
    data = b""
    while len(data) < size:
        more = line.recv(size - len(data))
        if not more:
            raise ValueError("half a request")
        data += more
    return data


def _start(request: Mapping[str, Any], told: socket.socket, fds: Sequence[int], own: process.Identity | None) -> None:
    with told:
        try:
            session = request["session"] or own is not None  # nobody else is to write into root's terminal
            child = process.spawn(request["argv"], request["env"], fds[0], fds[1], fds[2], session, own)
        except OSError as error:
            told.send(json.dumps({"errno": error.errno}).encode())
            return
        finally:
            for fd in fds:
                os.close(fd)
        told.send(json.dumps({"pid": child.pid}).encode())
        code = child.wait()
        with contextlib.suppress(BrokenPipeError):  # nobody waits for it any more
            told.send(str(code).encode())
