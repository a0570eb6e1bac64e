"""Starting programs: the only place that does. No shell, no inherited input, bounded output and time."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, NoReturn

from appbox import owner
from appbox.errors import AppboxError, HostLacks

if TYPE_CHECKING:
    from appbox.host.starter import Outside, Started, Use

OUTPUT_LIMIT = 1 << 20
"""Bytes kept of each of a program's outputs; the rest is read and dropped, so that it never blocks."""

_GLANCE = 0.2
"""Seconds after which a program that prints nothing is looked at: it may have ended while another holds its output."""

_outside: Outside | None = None

SEARCH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
"""Where programs are looked for: fixed, because appbox runs as root and PATH may hold a user's directory."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a program ended: exit code (negative: the signal), standard output and error as text."""

    code: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """The last non-empty line that the program printed, for an error's reason."""
        lines = [line.strip() for line in (self.err + "\n" + self.out).splitlines() if line.strip()]
        return lines[-1] if lines else f"exit code {self.code}"


def find(program: str) -> str | None:
    """Return the absolute path of a program, or None."""
    for folder in SEARCH:
        path = f"{folder}/{program}"
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    return None


def need(program: str, why: str, hint: str = "") -> str:
    """Return the absolute path of a program; HostLacks when the host has none."""
    path = find(program)
    if path is None:
        raise HostLacks(f"{program} is not installed", why=why, hint=hint or f"install the package that has {program}")
    return path


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return a small clean environment for programs of the host."""
    own = owner.current()
    if own is not None and own.by_root and _outside is None:
        own = None  # root's own programs, which may start services of others
    kept = {key: os.environ[key] for key in ("TERM", "LANG", "TZ") if key in os.environ}
    home = {"HOME": own.home, "USER": own.name, "XDG_RUNTIME_DIR": own.runtime} if own else {"HOME": "/root"}
    return {**kept, "PATH": ":".join(SEARCH), "LC_ALL": "C", **home, **(extra or {})}


def use_outside(started: Outside) -> None:
    """Have all programs of this process started outside its user namespace from now on."""
    global _outside  # noqa: PLW0603 - a process enters one, once
    _outside = started


def outside() -> Outside | None:
    """Return what starts programs outside the user namespace of this process; None when it is in none of its own."""
    return _outside


TimeoutExpired = subprocess.TimeoutExpired


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose process a program is: user, group and further groups by number."""

    uid: int
    gid: int
    groups: tuple[int, ...]


def become_user(identity: Identity) -> None:
    """Make this process, which is root's, a user's for good."""
    os.setgroups(identity.groups)
    os.setresgid(identity.gid, identity.gid, identity.gid)
    os.setresuid(identity.uid, identity.uid, identity.uid)


def spawn(  # noqa: PLR0917
    argv: Sequence[str],
    env: Mapping[str, str],
    stdin: int | None,
    stdout: int | None,
    stderr: int | None,
    new_session: bool,
    own: Identity | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program with the given descriptors, as a user's if root says whose; OSError as execve(2)."""
    return subprocess.Popen(
        list(argv),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=env,
        cwd="/",
        start_new_session=new_session,
        user=own.uid if own else None,
        group=own.gid if own else None,
        extra_groups=own.groups if own else None,
    )


def _popen(
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    stdin: Use = "null",
    stdout: Use = "pipe",
    stderr: Use | None = "pipe",
    new_session: bool = True,
    own: Identity | None = None,
) -> subprocess.Popen[bytes] | Started:
    """Start a program where programs are started; HostLacks when it cannot be."""
    uses = {"pipe": subprocess.PIPE, "null": subprocess.DEVNULL, "out": subprocess.STDOUT, None: None}
    try:
        if _outside is not None:
            return _outside.start(argv, env, stdin=stdin, stdout=stdout, stderr=stderr, new_session=new_session)
        return spawn(argv, env, uses[stdin], uses[stdout], uses[stderr], new_session, own)
    except OSError as error:
        raise HostLacks("cannot be started", where=argv[0], why=error.strerror or str(error)) from error


def run(
    argv: Sequence[str],
    *,
    timeout: float = 120.0,
    stdin: bytes = b"",
    extra: Mapping[str, str] | None = None,
    own: Identity | None = None,
) -> Result:
    """Run a program to its end and return how it ended.

    `timeout` is in seconds; a program that takes longer is killed and AppboxError raised. HostLacks when the
    program cannot be started. `extra` is added to its environment. `own`:
    root has it run as a user.
    """
    process = _popen(argv, environment(extra), stdin="pipe" if stdin else "null", own=own)
    with process:
        try:
            out, err = _communicate(process, stdin, timeout)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):  # it has ended
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return Result(process.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))


def _communicate(process: subprocess.Popen[bytes] | Started, stdin: bytes, timeout: float) -> tuple[bytes, bytes]:
    """Feed and drain a process; keep `OUTPUT_LIMIT` bytes of each output."""
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):  # one that does not read its input may be right
            process.stdin.write(stdin)  # callers pass less than a pipe holds
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
    outputs: dict[object, bytearray] = {process.stdout: bytearray(), process.stderr: bytearray()}
    deadline = time.monotonic() + timeout
    with selectors.DefaultSelector() as selector:
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                raise AppboxError(f"took longer than {timeout:g} s and was stopped", where=str(process.args[0]))  # type: ignore[index]
            for key, _ in selector.select(left):
                data = os.read(key.fd, 65536)
                if not data:
                    selector.unregister(key.fileobj)
                kept = outputs[key.fileobj]
                kept += data[: max(0, OUTPUT_LIMIT - len(kept))]
    try:
        process.wait(max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired as error:
        raise AppboxError(f"took longer than {timeout:g} s and was stopped", where=str(error.cmd[0])) from error
    return bytes(outputs[process.stdout]), bytes(outputs[process.stderr])


def follow(
    argv: Sequence[str], sink: Callable[[bytes], None], *, timeout: float, admit: Callable[[int], None] | None = None
) -> int:
    """Run a program to its end, hand what it prints to `sink` as it comes, and return how it ended, as `Result.code`.

    `admit` is given the number of its process, which waits for that to return before it becomes the program.

    Raises AppboxError when it takes longer than `timeout` seconds, HostLacks when it cannot be started. What it leaves
    behind and what still holds its outputs is not waited for.
    """
    waiting = [need("sh", "every host has one"), "-c", 'read -r _ && exec "$@" </dev/null', "sh"] if admit else []
    process = _popen([*waiting, *argv], environment(), stdin="pipe" if admit else "null", stderr="out")
    with process:
        try:
            if admit is not None:
                assert process.stdin is not None  # noqa: S101
                admit(process.pid)
                with contextlib.suppress(BrokenPipeError):  # it has ended
                    process.stdin.write(b"go\n")
                    process.stdin.flush()
            _hand_on(process, sink, timeout)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):  # it has ended
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode


def _hand_on(process: subprocess.Popen[bytes] | Started, sink: Callable[[bytes], None], timeout: float) -> None:
    assert process.stdout is not None  # noqa: S101
    deadline = time.monotonic() + timeout
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise AppboxError(f"took longer than {timeout:g} s and was stopped")
            ready = selector.select(min(left, _GLANCE))
            data = os.read(process.stdout.fileno(), 65536) if ready else b""
            if data:
                sink(data)
            elif ready:
                break
            elif process.poll() is not None:
                return
    try:
        process.wait(max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired as error:
        raise AppboxError(f"took longer than {timeout:g} s and was stopped") from error


@contextlib.contextmanager
def stream(argv: Sequence[str]) -> Iterator[IO[bytes]]:
    """Start a program and give its standard output as it comes; it is ended when the caller has seen enough.

    Its complaints go where ours do. HostLacks when it cannot be started.
    """
    process = _popen(argv, environment(), stderr=None, new_session=False)
    with process:
        assert process.stdout is not None  # noqa: S101
        try:
            yield process.stdout
        finally:
            process.terminate()


@contextlib.contextmanager
def guard(argv: Sequence[str]) -> Iterator[None]:
    """Run a program if this process dies before the block ends, however it dies: a small shell waits for that.

    It waits for the end of a pipe, which only this process can write to; after the block it is told to go home.
    """
    waiting = [need("sh", "every host has one"), "-c", 'read -r _ || exec "$@"', "sh", *argv]
    process = _popen(waiting, environment(), stdin="pipe", stdout="null", stderr="null")
    with process:
        assert process.stdin is not None  # noqa: S101
        try:
            yield
        finally:
            with contextlib.suppress(BrokenPipeError):  # somebody has ended it
                process.stdin.write(b"done\n")
                process.stdin.flush()


def start_with(argv: Sequence[str], *, stdin: int) -> Started:
    """Start a program outside the user namespace of this process, with a descriptor of ours as its standard input.

    HostLacks when it cannot be started.
    """
    assert _outside is not None  # noqa: S101
    try:
        return _outside.start(argv, environment(), stdin=stdin, stdout="null", stderr="null", new_session=True)
    except OSError as error:
        raise HostLacks("cannot be started", where=argv[0], why=error.strerror or str(error)) from error


_kept: list[subprocess.Popen[bytes]] = []


def keep(argv: Sequence[str]) -> None:
    """Start a program that reads its input to the end, which comes with the end of this process."""
    _kept.append(
        subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(),
            cwd="/",
            start_new_session=True,
        )
    )


def become(argv: Sequence[str], extra: Mapping[str, str] | None = None) -> NoReturn:
    """Replace this process by a program, so that nothing of appbox stays behind."""
    if _outside is not None:
        _outside.become(argv, environment(extra))
        sys.stdout.flush()
        os._exit(0)
    try:
        os.execve(argv[0], list(argv), environment(extra))  # noqa: S606  # that is the point
    except OSError as error:
        raise HostLacks("cannot be started", where=argv[0], why=error.strerror or str(error)) from error
