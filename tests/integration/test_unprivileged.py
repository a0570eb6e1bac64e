"""What a user without subordinate ids, who is nobody else's root, can unpack; and whom an ordinary user trusts."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ground import layers
from tests.ground.sandbox import NOBODY, Sandbox

pytestmark = pytest.mark.root


@pytest.fixture
def box() -> Iterator[Sandbox]:
    """Return a sandbox that everybody may enter, unlike pytest's own directories, with a root that is the user's."""
    with tempfile.TemporaryDirectory(prefix="appbox-test.") as place:
        Path(place).chmod(0o755)
        made = Sandbox(Path(place))
        os.chown(made.root, NOBODY, NOBODY)
        yield made


def test_devices_become_empty_files(box: Sandbox) -> None:
    box.image(
        "devices",
        layers.directory(b"dev"),
        layers.device(b"dev/null", 1, 3, mode=0o666),
        layers.device(b"dev/disk", 8, 0, flag=b"4"),
        layers.header(b"pipe", flag=b"6", mode=0o620),
    )
    target = box.place / "home/unpacked"
    box.appbox_as_nobody("image", "unpack", f"oci:{box.images}:devices", target)
    for name, mode in (("dev/null", 0o666), ("dev/disk", 0o644), ("pipe", 0o620)):
        found = (target / name).stat()
        assert (found.st_mode, found.st_size) == (stat.S_IFREG | mode, 0)


def test_files_of_others_need_subordinate_ids(box: Sandbox) -> None:
    box.image("others", layers.file(b"www", b"", uid=33))
    target = box.place / "home/unpacked"
    found = box.appbox_as_nobody("image", "unpack", f"oci:{box.images}:others", target, code=6)
    assert "33:0 is not within 0 to 0; you have no subordinate ids; appbox doctor says what to do" in found.err
    assert not target.exists()
