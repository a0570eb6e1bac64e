"""Who gets which address."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appbox import addresses
from appbox.addresses import Attachment, Network, Place, Record
from appbox.errors import AppboxError

SUBNET = IPv4Network("10.89.0.0/24")
NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True)


def attach(service: str, name: str = "appbox", record: Record | None = None, **declared: Network) -> Attachment:
    return addresses.attach(service, name, declared, record or Record(), [])


def test_the_first_service_gets_the_first_address_after_the_gateway() -> None:
    found = attach("web")
    assert (found.network.subnet, found.network.gateway) == (SUBNET, IPv4Address("10.89.0.1"))
    assert found.all == ("10.89.0.2",)
    assert found.mac == "02:ab:0a:59:00:02"


def test_an_ipv6_address_has_the_same_place() -> None:
    network = Network("appbox", IPv4Network("10.1.0.0/16"), IPv6Network("fd00::/64"))
    assert Attachment(network, IPv4Address("10.1.1.7")).all == ("10.1.1.7", "fd00::107")
    assert str(network.gateway6) == "fd00::1"


@given(st.lists(NAMES, unique=True, max_size=40), st.lists(NAMES, max_size=20))
def test_no_two_services_ever_have_the_same_address(names: list[str], gone: list[str]) -> None:
    record = Record()
    for name in names:
        record = record.with_(name, attach(name, record=record))
    for name in gone:
        record = record.without(name)
    for name in [*gone, *names]:
        record = record.with_(name, attach(name, record=record))
    found = [place.address for place in record.places.values()]
    assert len(set(found)) == len(found)
    for name in names:
        assert record.holds(name, attach(name, record=record))


def test_an_address_is_kept_until_the_subnet_no_longer_has_it() -> None:
    record = Record({"appbox": SUBNET}, {"web": Place("appbox", IPv4Address("10.89.0.9"))})
    assert attach("web", record=record).all == ("10.89.0.9",)
    moved = attach("web", record=record, appbox=Network("appbox", IPv4Network("10.5.0.0/24")))
    assert moved.all == ("10.5.0.2",)
    assert not record.holds("web", moved)
    gateway = Record({"appbox": SUBNET}, {"web": Place("appbox", IPv4Address("10.89.0.1"))})
    assert attach("web", record=gateway).all == ("10.89.0.2",)


def test_subnets_are_chosen_where_nobody_is() -> None:
    record = Record({"one": SUBNET}, {"a": Place("one", IPv4Address("10.89.0.2"))})
    declared = {"two": Network("two", IPv4Network("10.89.1.0/24"))}
    found = addresses.attach("web", "three", declared, record, [IPv4Network("10.89.2.0/23")])
    assert found.network.subnet == IPv4Network("10.89.4.0/24")
    with pytest.raises(AppboxError, match=r"no free subnet is left in 10\.89\.0\.0/16"):
        addresses.attach("web", "three", {}, record, [IPv4Network("10.0.0.0/8")])


def test_a_full_network_says_so() -> None:
    network = Network("tiny", IPv4Network("10.5.0.0/29"))
    record = Record()
    for name in "abcde":
        record = record.with_(name, attach(name, "tiny", record, tiny=network))
    with pytest.raises(AppboxError, match=r"f: no free address is left in the network tiny \(10.5.0.0/29\)"):
        attach("f", "tiny", record, tiny=network)


def test_networks_without_services_are_forgotten() -> None:
    record = Record().with_("web", attach("web"))
    assert record.networks
    assert record.without("web") == Record()


@given(NAMES)
def test_every_network_has_an_interface_that_the_kernel_takes(name: str) -> None:
    found = addresses.bridge(name)
    assert len(found) <= 15
    assert found.startswith("ab-")


def test_long_names_stay_apart() -> None:
    assert addresses.bridge("appbox") == "ab-appbox"
    assert addresses.bridge("backend-of-one") != addresses.bridge("backend-of-two")


def test_modes_name_networks() -> None:
    modes = ("bridge", "bridge:db", "host", "none", "service:bridge", "pasta")
    assert [addresses.network_of(mode) for mode in modes] == ["appbox", "db", "", "", "", ""]
