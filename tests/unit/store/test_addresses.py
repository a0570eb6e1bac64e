"""The record of addresses on disk."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from appbox.addresses import Place, Record
from appbox.errors import AppboxError, ManifestError
from appbox.store import addresses
from appbox.store.root import Root

RECORD = Record({"appbox": IPv4Network("10.89.0.0/24")}, {"web": Place("appbox", IPv4Address("10.89.0.2"))})
FILE = "var/lib/appbox/addresses.toml"


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
def test_a_record_that_cannot_be_trusted_is_refused(tmp_path: Path, text: str) -> None:
    write(tmp_path, text)
    with Root(str(tmp_path)) as root, pytest.raises(AppboxError, match=r"addresses.toml: cannot be used"):
        addresses.load(root)


def test_networks_are_read_from_their_own_file(tmp_path: Path) -> None:
    with Root(str(tmp_path)) as root:
        assert addresses.declared(root) == {}
        write(tmp_path, '[db]\nsubnet = "10.5.0.0/24"\n', "etc/appbox/networks.toml")
        assert addresses.declared(root)["db"].subnet == IPv4Network("10.5.0.0/24")
        write(tmp_path, "[db]\n", "etc/appbox/networks.toml")
        with pytest.raises(ManifestError, match=r"/etc/appbox/networks.toml"):
            addresses.declared(root)
