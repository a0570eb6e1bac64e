"""The record of addresses on disk."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from appbox.addresses import Place, Record
from appbox.errors import ManifestError
from appbox.store import addresses
from appbox.store.root import Root

RECORD = Record({"appbox": IPv4Network("10.89.0.0/24")}, {"web": Place("appbox", IPv4Address("10.89.0.2"))})
FILE = "var/lib/appbox/addresses.toml"
BUNDLE = """name = "db"
version = "1"
userns = false
[network]
network = "appbox"
subnet = "10.89.0.0/24"
address = "10.89.0.7"
"""


def write(root: Path, text: str, path: str = FILE) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    with Root(str(tmp_path)) as root:
        assert addresses.load(root) == Record()
        assert not addresses.recorded(root)
        addresses.save(root, RECORD)
        assert addresses.load(root) == RECORD
        assert addresses.recorded(root)
    assert 'web" = { network = "appbox", address = "10.89.0.2" }' in (tmp_path / FILE).read_text()


@pytest.mark.parametrize(
    "text",
    [
        "[",
        "networks = 3",
        '[networks]\nappbox = "x"',
        '[addresses]\nweb = "10.89.0.2"',
        '[addresses]\nweb = { network = "appbox" }',
        '[addresses]\nweb = { network = "../x", address = "10.89.0.2" }',
        '[addresses]\n"../x" = { network = "appbox", address = "10.89.0.2" }',
        '[addresses]\na = { network = "n", address = "10.89.0.2" }\nb = { network = "n", address = "10.89.0.2" }',
    ],
)
def test_a_record_that_cannot_be_trusted_is_made_up_for_and_kept(tmp_path: Path, text: str) -> None:
    write(tmp_path, text)
    write(tmp_path, BUNDLE, "opt/containers/db-1/.generations/1/bundle.toml")
    (tmp_path / "opt/containers/db").symlink_to("db-1")
    (tmp_path / "opt/containers/db-1/.current").symlink_to(".generations/1")
    (tmp_path / "opt/containers/db-1/.generations/1/cni").mkdir()
    found = Record({"appbox": IPv4Network("10.89.0.0/24")}, {"db": Place("appbox", IPv4Address("10.89.0.7"))})
    with Root(str(tmp_path)) as root:
        assert "cannot be used" in addresses.problem(root)
        assert addresses.written(root) == Record()
        assert addresses.load(root) == found
        addresses.save(root, found)
        assert addresses.problem(root) == ""
        assert addresses.load(root) == addresses.written(root) == found
    assert (tmp_path / f"{FILE}.broken").read_text() == text


def test_networks_are_read_from_their_own_file(tmp_path: Path) -> None:
    with Root(str(tmp_path)) as root:
        assert addresses.declared(root) == {}
        write(tmp_path, '[db]\nsubnet = "10.5.0.0/24"\n', "etc/appbox/networks.toml")
        assert addresses.declared(root)["db"].subnet == IPv4Network("10.5.0.0/24")
        write(tmp_path, "[db]\n", "etc/appbox/networks.toml")
        with pytest.raises(ManifestError, match=r"/etc/appbox/networks.toml"):
            addresses.declared(root)
