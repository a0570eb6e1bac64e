"""Which ports clash."""

from __future__ import annotations

import sys

import pytest

from appbox import ports
from appbox.ports import Claim, Claims, Socket


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        ("", "127.0.0.1", True),
        ("", "::1", True),
        ("", "", True),
        ("0.0.0.0", "127.0.0.1", True),
        ("0.0.0.0", "::1", False),
        ("::", "::1", True),
        ("::", "0.0.0.0", False),
        ("127.0.0.1", "127.0.0.2", False),
        ("127.0.0.1", "127.0.0.1", True),
    ],
)
def test_addresses_overlap(one: str, other: str, *, clash: bool) -> None:
    first, second = Claim("a", one, 80, "tcp"), Claim("b", other, 80, "tcp")
    assert (first.clashes(second), second.clashes(first)) == (clash, clash)
    assert not first.clashes(Claim("b", other, 80, "udp"))
    assert not first.clashes(Claim("b", other, 81, "tcp"))


def test_clashes_name_the_first_other_owner() -> None:
    mine = Claim("web", "", 80, "tcp")
    taken = [
        Claim("web", "", 80, "tcp"),
        Claim("b", "", 81, "tcp"),
        Claim("c", "::1", 80, "tcp"),
        Claim("d", "", 80, "tcp"),
    ]
    assert Claims(taken).rival(mine) == taken[2]
    assert Claims(taken[:2]).rival(mine) is None
    assert str(mine) == "port 80/tcp"


TCP = """\
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0000000000000000 100
   1: 0100007F:1F91 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0000000000000000 100
   2: bad
"""
TCP6 = """\
   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 4713 1 0 100
   1: B80D0120000000000000000001000000:0051 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 4714 1 0 100
   2: 0000000000000000FFFF00000100007F:0052 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 4715 1 0 100
"""


@pytest.mark.skipif(sys.byteorder != "little", reason="the kernel prints addresses in the machine's order of bytes")
def test_sockets_are_read_as_the_kernel_prints_them() -> None:
    assert list(ports.sockets(TCP.splitlines(), "tcp")) == [Socket("127.0.0.1", 8080, "tcp", 4711)]
    found = list(ports.sockets(TCP6.splitlines(), "tcp"))
    assert [(one.address, one.port) for one in found] == [("::", 80), ("2001:db8::1", 81), ("127.0.0.1", 82)]
    assert found[0].claim("x") == Claim("x", "", 80, "tcp")
