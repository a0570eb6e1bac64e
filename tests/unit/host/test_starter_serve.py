"""The side that starts programs, where what asks it may be a process of somebody whom root does not trust."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading

import pytest

from appbox.host import process, starter


def sent(*messages: bytes, fds: int) -> list[object] | None:
    """Return what `serve` returns after these bytes, each message with so many descriptors."""
    ours, theirs = socket.socketpair()
    ends: list[list[object] | None] = []
    identity = process.Identity(os.getuid(), os.getgid(), ())
    with theirs:
        serving = threading.Thread(target=lambda: ends.append(starter.serve(theirs, identity)))
        serving.start()
        with ours:
            for data in messages:
                told, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                with told, other:
                    socket.send_fds(ours, [len(data).to_bytes(4, "big")], [told.fileno()] * fds)
                with contextlib.suppress(BrokenPipeError):  # it may have heard enough
                    ours.sendall(data)
        serving.join(10)
        assert not serving.is_alive()
    return ends[0]


@pytest.mark.parametrize(
    ("data", "fds"),
    [
        (b"", 1),
        (b"{", 1),
        (b"[]", 1),
        (b"{}", 1),
        (b'{"do": "poweroff"}', 1),
        (b'{"do": ["start"]}', 1),
        (b'{"do": "owner"}', 0),
        (b'{"do": "owner"}', 1),
        (b'{"do": "privileged"}', 1),
        (b'{"do": "become", "argv": ["/bin/true"]}', 1),
        (b'{"do": "start", "argv": ["/bin/true"], "env": {}, "session": false}', 1),
        (b'{"do": "\xff"}', 1),
        (b"[" * 100_000, 1),
    ],
)
def test_what_is_no_request_ends_the_service_without_a_word(data: bytes, fds: int) -> None:
    assert sent(data, fds=fds) is None


def test_the_last_program_to_become_is_returned() -> None:
    wanted = json.dumps({"do": "become", "argv": ["/bin/true"], "env": {"A": "b"}}).encode()
    assert sent(wanted, fds=1) == [["/bin/true"], {"A": "b"}]
