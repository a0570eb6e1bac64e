"""What /etc/appbox/networks.toml may say."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

import pytest

from appbox import networks_file
from appbox.addresses import Network
from appbox.errors import ManifestError


def refused(text: str) -> str:
    with pytest.raises(ManifestError) as caught:
        networks_file.parse(text.encode("utf-8", "surrogateescape"), "n.toml")
    return str(caught.value)


def test_everything_that_can_be_said() -> None:
    text = """
[appbox]
subnet = "10.1.0.0/24"
[back-end]
subnet = "192.168.9.0/29"
subnet6 = "fd00:9::/64"
isolate = false
masquerade = false
mtu = 9000
"""
    assert networks_file.parse(text.encode(), "n.toml") == {
        "appbox": Network("appbox", IPv4Network("10.1.0.0/24")),
        "back-end": Network(
            "back-end",
            IPv4Network("192.168.9.0/29"),
            IPv6Network("fd00:9::/64"),
            isolate=False,
            masquerade=False,
            mtu=9000,
        ),
    }
    assert networks_file.parse(b"", "n.toml") == {}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("appbox = 3", "n.toml:1: appbox: expected a table, got"),
        ("[appbox]", "appbox.subnet: is missing; say which addresses it has"),
        ('[Big]\nsubnet = "10.1.0.0/24"', "n.toml:1: Big: "),
        ('[a]\nsubnet = "10.1.0.3/24"', 'n.toml:2: a.subnet: "10.1.0.3/24" is no subnet; write "10.1.0.0/24"'),
        ('[a]\nsubnet = "10.1.0.0/30"', "a /30 is no size for a network of services; take /8 to /29"),
        ('[a]\nsubnet = "10.1.0.7"', "is no subnet for services"),
        ('[a]\nsubnet = "127.0.0.0/8"', "is no subnet for services"),
        ('[a]\nsubnet = "fd00::/64"', "is no IPv4 subnet; IPv6 goes into subnet6"),
        ('[a]\nsubnet = "x\\n"', "n.toml:2: a.subnet: "),
        ("[a]\nsubnet = 3", "n.toml:2: a.subnet: "),
        ('[a]\nsubnet = "10.1.0.0/24"\nsubnet6 = "10.2.0.0/24"', "is no IPv6 subnet"),
        ('[a]\nsubnet = "10.0.0.0/8"\nsubnet6 = "fd00::/112"', "a.subnet6: has less room than subnet (10.0.0.0/8)"),
        ('[a]\nsubnet = "10.1.0.0/24"\nmtu = 68', "68 is out of range"),
        ('[a]\nsubnet = "10.1.0.0/24"\nisolate = "yes"', "expected true or false, got a string"),
        ('[a]\nsubnet = "10.1.0.0/24"\nisolated = true', "unknown key"),
        ('[a]\nsubnet = "10.1.0.0/24"\n[b]\nsubnet = "10.1.0.0/16"', "n.toml:4: b.subnet: overlaps with the network a"),
        ("[a", "n.toml:1"),
        ("a = '\udcff'", "is not UTF-8"),
    ],
)
def test_what_is_wrong_is_said_with_file_line_and_key(text: str, error: str) -> None:
    assert error in refused(text)
