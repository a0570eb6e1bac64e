"""Which distribution a root is."""

from __future__ import annotations

from pathlib import Path

import pytest

from appbox.distribution import UNKNOWN
from appbox.host import gather, os_release
from appbox.store.root import Root


@pytest.mark.parametrize("place", ["etc", "usr/lib"])
def test_it_is_among_the_facts(tmp_path: Path, place: str) -> None:
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place / "os-release").write_text("ID=alpine\n")
    with Root(str(tmp_path)) as root:
        assert gather.gather(root, "none").distribution.hint("cni") == "apk add cni-plugins"


def test_a_link_is_followed_inside_the_root(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "lib").mkdir()
    (tmp_path / "etc/os-release").symlink_to("/lib/os-release")
    (tmp_path / "lib/os-release").write_text("ID=arch\n")
    with Root(str(tmp_path)) as root:
        assert os_release.read(root).family == "arch"


def test_nothing_ends_for_the_want_of_it(tmp_path: Path) -> None:
    with Root(str(tmp_path)) as root:
        assert os_release.read(root) == UNKNOWN
        (tmp_path / "etc/os-release").mkdir(parents=True)
        assert os_release.read(root) == UNKNOWN
        (tmp_path / "etc/os-release").rmdir()
        (tmp_path / "etc/os-release").write_text("ID=arch\n" + "#" * (1 << 20))
        assert os_release.read(root) == UNKNOWN
