"""os-release in, commands out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appbox import distribution
from appbox.distribution import Distribution, parse

ALPINE = 'NAME="Alpine Linux"\nID=alpine\nVERSION_ID=3.21.0\nPRETTY_NAME="Alpine Linux v3.21"\n'


@pytest.mark.parametrize(
    ("text", "family"),
    [
        (ALPINE, "alpine"),
        ("ID=debian\n", "debian"),
        ("ID=ubuntu\nID_LIKE=debian\n", "debian"),
        ('ID="devuan"\nID_LIKE="debian"\n', "debian"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "fedora"),
        ("ID=fedora\n", "fedora"),
        ('ID="opensuse-tumbleweed"\nID_LIKE="opensuse suse"\n', "suse"),
        ("ID=manjaro\nID_LIKE=arch\n", "arch"),
        ("ID=nixos\n", "other"),
        ("", "other"),
        ("garbage\n=\nID='open\nID_LIKE=\x1b\n", "other"),
    ],
)
def test_families(text: str, family: str) -> None:
    assert parse(text).family == family


def test_what_is_shown() -> None:
    assert parse(ALPINE) == Distribution("alpine", "Alpine Linux v3.21", "3.21.0", "alpine")
    assert parse("").name == "Linux"


@pytest.mark.parametrize(
    ("family", "command"),
    [
        ("alpine", "apk add cni-plugins passt shadow-uidmap"),
        ("debian", "apt-get install -y containernetworking-plugins passt uidmap"),
        ("fedora", "dnf install -y containernetworking-plugins passt shadow-utils"),
        ("suse", "zypper --non-interactive install cni-plugins passt shadow"),
        ("arch", "pacman -S --needed --noconfirm cni-plugins passt shadow"),
    ],
)
def test_commands_are_exact(family: distribution.Family, command: str) -> None:
    words = Distribution(family=family).install(["pasta", "newuidmap", "cni", "pasta"])
    assert words is not None
    assert " ".join(words) == command


def test_nobody_knows_every_distribution() -> None:
    assert Distribution().install(["runc"]) is None
    assert Distribution().hint("newuidmap") == "apt install uidmap, or apk add shadow-uidmap"
    assert Distribution(family="alpine").hint("newuidmap") == "apk add shadow-uidmap"


@given(st.text(max_size=200))
def test_any_text_is_read(text: str) -> None:
    assert parse(text).family in {"alpine", "debian", "fedora", "suse", "arch", "other"}
