"""What a service on a bridge starts with."""

from __future__ import annotations

import json
import re
from ipaddress import IPv4Address, IPv4Network, IPv6Network

from appbox import cni
from appbox.addresses import Attachment, Network
from appbox.host.facts import Networking
from appbox.quantities import Port

NETWORK = Network("appbox", IPv4Network("10.89.0.0/24"), IPv6Network("fd00:89::/64"), mtu=1400)
PLACE = Attachment(NETWORK, IPv4Address("10.89.0.2"))
PORTS = (Port("", 8080, 80, "tcp"), Port("127.0.0.1", 53, 5353, "udp"))


def test_the_plugins_get_what_they_need() -> None:
    files = cni.files(PLACE, PORTS, ("web", "www"))
    assert sorted(files) == [
        *("cni/bridge.json", "cni/hosts.appbox", "cni/portmap.json", "cni/rules4", "cni/rules6"),
    ]
    bridge = json.loads(files["cni/bridge.json"])
    assert (bridge["type"], bridge["bridge"], bridge["mtu"]) == ("bridge", "ab-appbox", 1400)
    assert bridge["ipam"] == {
        "type": "static",
        "addresses": [
            {"address": "10.89.0.2/24", "gateway": "10.89.0.1"},
            {"address": "fd00:89::2/64", "gateway": "fd00:89::1"},
        ],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    }
    portmap = json.loads(files["cni/portmap.json"])
    assert portmap["runtimeConfig"]["portMappings"] == [
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": 53, "containerPort": 5353, "protocol": "udp", "hostIP": "127.0.0.1"},
    ]
    assert [ip["address"] for ip in portmap["prevResult"]["ips"]] == ["10.89.0.2/24", "fd00:89::2/64"]
    assert files["cni/hosts.appbox"] == b"10.89.0.2 web www\nfd00:89::2 web www\n"


def test_a_network_of_ipv4_alone_has_nothing_of_ipv6() -> None:
    place = Attachment(Network("db", IPv4Network("10.89.1.0/24")), IPv4Address("10.89.1.2"))
    files = cni.files(place, (), ("db", "db"))
    assert sorted(files) == ["cni/bridge.json", "cni/hosts.db", "cni/rules4"]
    assert b"::" not in files["cni/bridge.json"]
    assert b"mtu" not in files["cni/bridge.json"]
    assert files["cni/hosts.db"] == b"10.89.1.2 db\n"


def test_rules_are_whole_tables_of_one_chain() -> None:
    text = cni.rules(NETWORK, NETWORK.subnet)
    assert re.findall(r"^\*(\w+)$", text, re.MULTILINE) == ["raw", "mangle", "nat", "filter"]
    assert text.count("COMMIT\n") == 4
    assert set(re.findall(r"^(?::|-A )(\S+)", text, re.MULTILINE)) == {"APPBOX-ab-appbox"}
    assert "-s 10.89.0.0/24 ! -d 224.0.0.0/4 ! -o ab-appbox -j MASQUERADE" in text
    assert "-i ab-appbox -o ab-+ -j DROP" in text
    longest = Network("a" * 63, NETWORK.subnet)
    assert len(cni.chain(longest)) <= 28


def test_an_open_network_forbids_and_hides_nothing() -> None:
    network = Network("open", NETWORK.subnet, isolate=False, masquerade=False)
    text = cni.rules(network, network.subnet)
    assert "DROP" not in text.replace("! -i lo -d 127.0.0.0/8 -j DROP", "")
    assert "MASQUERADE" not in text


def test_what_it_changes_on_the_host_is_said() -> None:
    assert list(cni.notes(None, Networking())) == []
    assert list(cni.notes(PLACE, None)) == []
    assert list(cni.notes(PLACE, Networking())) == []
    first, second = cni.notes(PLACE, Networking(forwards=False, forwards6=False))
    assert "net.ipv4.ip_forward" in first
    assert "accept_ra = 2" in second
