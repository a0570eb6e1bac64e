"""Whom a process runs as: the rules of images, and files that are hostile."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appbox.errors import Refused
from appbox.oci import users
from appbox.oci.users import User

PASSWD = b"""root:x:0:0:root:/root:/bin/sh
valkey:x:999:1000::/data:/sbin/nologin
1234:x:77:78::/:/bin/sh
twice:x:5:5::/:/bin/sh
twice:x:6:6::/:/bin/sh
"""
GROUP = b"""root:x:0:
valkey:x:1000:
tls:x:50:valkey,root
wheel:x:10:root
staff:x:20:other, valkey
"""


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", User(0, 0, (50, 10))),
        ("root", User(0, 0, (50, 10))),
        ("0", User(0, 0, (50, 10))),
        ("valkey", User(999, 1000, (50, 20))),
        ("999", User(999, 1000, (50, 20))),
        ("999:999", User(999, 999)),
        ("valkey:tls", User(999, 50)),
        ("valkey:7", User(999, 7)),
        ("valkey:", User(999, 1000, (50, 20))),
        (":tls", User(0, 50)),
        ("4000", User(4000, 0)),
        ("4000:staff", User(4000, 20)),
        ("1234", User(1234, 0)),
        ("77", User(77, 78)),
        ("twice", User(5, 5)),
    ],
)
def test_a_user_is_looked_up_as_images_expect(user: str, expected: User) -> None:
    assert users.lookup(user, PASSWD, GROUP) == expected


@pytest.mark.parametrize(("user", "expected"), [("", User(0, 0)), ("0", User(0, 0)), ("5:6", User(5, 6))])
def test_numbers_need_no_files(user: str, expected: User) -> None:
    assert users.lookup(user, None, None) == expected


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ("nobody", "nobody: no such user: /etc/passwd of the image does not list it"),
        ("valkey:nobody", "nobody: no such group: /etc/group of the image does not list it"),
        ("4294967295", "the largest is 2147483647"),
        ("0:2147483648", "the largest is 2147483647"),
        ("-1", "-1: no such user"),
        ("+5", "+5: no such user"),
        ("12345678901", "12345678901: no such user"),
        ("５", "５: no such user"),
    ],
)
def test_what_names_nobody_is_refused(user: str, words: str) -> None:
    with pytest.raises(Refused, match=r"no such|not a user") as caught:
        users.lookup(user, PASSWD, GROUP)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        b"bad",
        b"bad:x",
        b"bad:x:y:0",
        b"bad:x::",
        b"bad:x:0",
        b"bad:x:-5:0",
        b"bad:x:9999999999:0",
        b"#bad:x:5:5",
        b":x:0:0",
    ],
)
def test_malformed_lines_are_passed_over_and_never_root(line: bytes) -> None:
    with pytest.raises(Refused):
        users.lookup("bad", line + b"\n", GROUP)


def test_windows_ends_of_lines_and_odd_bytes_do_no_harm() -> None:
    passwd = b"a\xff:x:1:1::/:\r\nb:x:2:3:\xe2\x80\xa8:/:\r\n\x00:x:4:4\r\n"
    assert users.lookup("b", passwd, b"g:x:7:b\r\n") == User(2, 3, (7,))


def test_a_file_that_is_too_large_is_refused() -> None:
    with pytest.raises(Refused, match="too large"):
        users.lookup("root", b"#" * (users.MAX_BYTES + 1), None)


@pytest.mark.parametrize(
    ("user", "named"),
    [("", True), ("5", True), ("5:6", False), ("a:6", True), ("5:g", True), ("a", True), (":5", True)],
)
def test_what_needs_the_files_is_known_before(user: str, named: bool) -> None:
    assert users.named(user) is named


@given(st.text(max_size=20), st.binary(max_size=200), st.binary(max_size=200))
def test_nothing_else_than_a_refusal_comes_of_any_input(user: str, passwd: bytes, group: bytes) -> None:
    try:
        found = users.lookup(user, passwd, group)
    except Refused:
        return
    assert all(0 <= number < 2**31 for number in (found.uid, found.gid, *found.groups))
