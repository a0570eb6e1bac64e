"""Programs that another process starts, through a real socket: as if this one had started them itself."""

from __future__ import annotations

import errno
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from appbox.errors import AppboxError, HostLacks
from appbox.host import opened, process, starter
from appbox.host.starter import Outside, Started

SH = "/bin/sh"


class Side:
    """The process outside, here a thread, and its client."""

    def __init__(self, answer: starter.Answer | None = None) -> None:
        self.line, theirs = socket.socketpair()
        self.client = Outside(self.line)
        self.wanted: list[Any] | None = None
        self._theirs = theirs
        self._thread = threading.Thread(target=self._serve, args=(answer,))
        self._thread.start()

    def _serve(self, answer: starter.Answer | None) -> None:
        with self._theirs:
            self.wanted = starter.serve(self._theirs, None, answer)

    def end(self) -> list[Any] | None:
        """End the client, as the end of its process does, and return what the process outside is to become."""
        self.line.close()
        self._thread.join(10)
        assert not self._thread.is_alive()
        return self.wanted

    def sh(self, script: str, *words: str, **more: Any) -> Started:
        uses = {"stdin": "null", "stdout": "pipe", "stderr": "pipe", "new_session": True, **more}
        return self.client.start([SH, "-c", script, "sh", *words], {"PATH": "/usr/bin:/bin"}, **uses)


@pytest.fixture
def side() -> Iterator[Side]:
    made = Side()
    yield made
    made.end()


@pytest.fixture
def through(side: Side, monkeypatch: pytest.MonkeyPatch) -> Side:
    """Have `host.process` start its programs there."""
    monkeypatch.setattr(process, "_outside", side.client)
    return side


def said(program: Started) -> tuple[bytes, bytes]:
    assert program.stdout is not None
    assert program.stderr is not None
    with program:
        return program.stdout.read(), program.stderr.read()


def test_what_a_program_says_comes_back(side: Side) -> None:
    program = side.sh('echo "$1"; echo "$2" >&2; exit 3', "out é", "\udcff")
    assert said(program) == ("out é\n".encode(), b"\xff\n")
    assert (program.returncode, program.poll(), program.wait()) == (3, 3, 3)
    assert side.end() is None


def test_it_gets_its_input_and_nothing_of_ours(side: Side) -> None:
    program = side.sh("cat; env; pwd", stdin="pipe")
    assert program.stdin is not None
    program.stdin.write(b"given\n")
    program.stdin.close()
    out, err = said(program)
    assert err == b""
    assert {line.partition(b"=")[0] for line in out.splitlines()} <= {b"given", b"PATH", b"PWD", b"_", b"SHLVL", b"/"}
    assert out.splitlines()[0] == b"given"
    assert out.splitlines()[-1] == b"/"


def test_it_has_no_descriptors_but_three(side: Side) -> None:
    program = side.sh("ls /proc/self/fd")
    numbers = said(program)[0].split()
    assert numbers == [b"0", b"1", b"2", b"3"]  # 3: the directory that ls reads


def test_both_outputs_can_be_one(side: Side) -> None:
    program = side.sh("echo a; echo b >&2; echo c", stderr="out")
    assert program.stderr is None
    assert program.stdout is not None
    with program:
        assert program.stdout.read() == b"a\nb\nc\n"


def test_a_descriptor_of_ours_is_its_input(side: Side, tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"from a file")
    with open(tmp_path / "text", "rb") as file:
        program = side.sh("cat", stdin=file.fileno())
        assert said(program) == (b"from a file", b"")
        assert os.fstat(file.fileno()).st_size == 11  # still ours


def test_the_end_by_a_signal_is_told(side: Side) -> None:
    program = side.sh("kill -9 $$")
    said(program)
    assert program.returncode == -9
    program = side.sh("exec sleep 60", stdout="null", stderr="null")
    assert program.poll() is None
    program.terminate()
    with program:
        assert program.wait(10) == -15
    program.terminate()  # it is gone, and nobody else has its number for us


def test_waiting_has_an_end(side: Side) -> None:
    program = side.sh("read -r _", stdin="pipe", stdout="null", stderr="null")
    begin = time.monotonic()
    with pytest.raises(process.TimeoutExpired):
        program.wait(0.05)
    assert 0.04 < time.monotonic() - begin < 5
    assert program.poll() is None
    with program:
        pass  # closes its input, on which it ends
    assert program.returncode == 1


@pytest.mark.parametrize(
    ("path", "number"), [("/nowhere/program", errno.ENOENT), ("/etc/passwd", errno.EACCES), ("/", errno.EACCES)]
)
def test_a_program_that_cannot_be_started_says_why(side: Side, path: str, number: int) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(OSError, match=r".") as caught:
            side.client.start([path], {}, stdin="pipe", stdout="pipe", stderr="pipe", new_session=True)
        assert (caught.value.errno, caught.value.filename) == (number, path)
    deadline = time.monotonic() + 5
    while sorted(os.listdir("/proc/self/fd")) != before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert said(side.sh("echo on"))[0] == b"on\n"


def test_many_threads_have_their_own_programs(side: Side) -> None:
    def one(number: int) -> bool:
        program = side.sh('cat; echo "$1" >&2; exit "$2"', str(number), str(number % 200), stdin="pipe")
        assert program.stdin is not None
        program.stdin.write(b"%d" % number)
        program.stdin.close()
        return (*said(program), program.returncode) == (b"%d" % number, b"%d\n" % number, number % 200)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(64)))


def test_a_request_may_be_as_long_as_what_a_program_can_get(side: Side) -> None:
    word = "x" * 120_000
    words = [word] * 12
    assert said(side.sh('printf %s "$*" | wc -c', *words))[0].strip() == b"%d" % (12 * 120_000 + 11)


def test_whose_a_descriptor_is_the_other_side_tells(side: Side, tmp_path: Path) -> None:
    for path in (tmp_path, Path("/etc/passwd")):
        fd = os.open(path, os.O_PATH)
        info = os.fstat(fd)
        assert side.client.owner(fd) == (info.st_uid, info.st_gid)
        os.close(fd)


def test_what_it_is_to_become_is_told_at_the_end(side: Side) -> None:
    side.client.become(["/bin/true", "a"], {"A": "b"})
    assert side.end() == [["/bin/true", "a"], {"A": "b"}]


def test_who_has_ended_leaves_programs_that_end_by_themselves(side: Side) -> None:
    program = side.sh("exec sleep 60", stdout="null", stderr="null")
    assert side.end() is None
    os.kill(program.pid, 9)
    assert program.wait(10) == -9


def test_root_is_asked_by_its_own_name_for_it() -> None:
    side = Side(lambda asked: {"result": {**asked, "more": "x" * 100_000}})
    assert side.client.privileged({"task": "é"}) == {"result": {"task": "é", "more": "x" * 100_000}}
    side.end()
    nobody = Side()
    assert nobody.client.privileged({"task": "write"}) == {}
    nobody.end()


@pytest.mark.parametrize("data", [b"", b"\0\0"])
def test_a_client_that_ends_before_it_asks_wants_nothing(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(data)
        ours.shutdown(socket.SHUT_WR)
        assert starter.serve(theirs) is None


def request(text: bytes, size: int | None = None) -> bytes:
    return (len(text) if size is None else size).to_bytes(4, "big") + text


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff",
        request(b"half", 16),
        request(b"{}"),
        request(b"[" * 100_000),
        request(b"[]"),
        request(b'{"do": "shell"}'),
        request(b'{"do": ["start"]}'),
        request(b'{"do": "become"}'),
        request(b'{"do": "start", "argv": ["/bin/true"]}'),
        request(b'{"do": "start", "argv": ["/bin/true"], "env": {}, "session": true}'),
        request(b'{"do": "owner"}'),
    ],
)
def test_what_the_client_never_sends_ends_the_service(data: bytes) -> None:
    before = os.listdir("/proc/self/fd")
    ours, theirs = socket.socketpair()
    answers, asked = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, answers:
        with asked:
            socket.send_fds(ours, [data[:4]], [asked.fileno()])
        ours.sendall(data[4:])
        ours.shutdown(socket.SHUT_WR)
        assert starter.serve(theirs) is None
    assert os.listdir("/proc/self/fd") == before


def test_running_a_program_is_the_same_there(through: Side) -> None:
    found = process.run([SH, "-c", 'cat; echo "$A" >&2; exit 7'], stdin=b"in", extra={"A": "b"})
    assert (found.code, found.out, found.err) == (7, "in", "b\n")
    lines: list[bytes] = []
    assert process.follow([SH, "-c", "echo a; echo b >&2; exit 2"], lines.append, timeout=20) == 2
    assert b"".join(lines) == b"a\nb\n"
    with process.stream([SH, "-c", "echo a; exec sleep 60"]) as out:
        assert out.read(2) == b"a\n"
    with pytest.raises(HostLacks, match=r"(?i)/nowhere: cannot be started: no such file or directory"):
        process.run(["/nowhere"])


def test_a_program_that_takes_too_long_is_ended_there(through: Side, tmp_path: Path) -> None:
    with pytest.raises(AppboxError, match="took longer than"):
        process.run([SH, "-c", 'echo $$ >"$1"; sleep 60; :', "sh", str(tmp_path / "number")], timeout=0.5)
    number = int((tmp_path / "number").read_text())
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{number}") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not os.path.exists(f"/proc/{number}")


def test_a_guard_watches_from_there(through: Side, tmp_path: Path) -> None:
    with process.guard([SH, "-c", ': >"$1"', "sh", str(tmp_path / "done")]):
        pass
    assert not (tmp_path / "done").exists()


def test_files_are_opened_there(through: Side, tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"words")
    with opened.opened(str(tmp_path / "text"), os.O_RDONLY) as fd:
        assert os.read(fd, 10) == b"words"
        assert not os.get_inheritable(fd)
    with pytest.raises(FileNotFoundError), opened.opened(f"{tmp_path}/none", os.O_RDONLY):
        pass
    assert sys.executable
