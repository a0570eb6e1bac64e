"""Paths inside the root: links lead to where they will lead once it is booted, never out of it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from appbox.errors import AppboxError
from appbox.store.root import Root


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    (tmp_path / "root").mkdir()
    (tmp_path / "secret").write_text("outside")
    with Root(str(tmp_path / "root")) as found:
        yield found


def test_a_root_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name, why in (("none", "No such file"), ("file", "Not a directory")):
        with pytest.raises(AppboxError, match=f"the root cannot be opened: {why}.*; make the directory first"):
            Root(str(tmp_path / name))


def test_only_the_running_system_is_live(root: Root) -> None:
    assert not root.live
    with Root("//") as slash:
        assert slash.live


def test_no_link_leads_out(tmp_path: Path, root: Root) -> None:
    top = tmp_path / "root"
    (top / "absolute").symlink_to("/secret")
    (top / "relative").symlink_to("../secret")
    (top / "up").symlink_to("../../..")
    for path in ("/absolute", "/relative", "/../secret", "/up/secret"):
        assert root.read(path, 100) is None
    (top / "secret").write_text("inside")
    for path in ("/absolute", "/relative", "/../secret", "/up/secret"):
        assert root.read(path, 100) == b"inside"


def test_missing_parents_are_made(tmp_path: Path, root: Root) -> None:
    before = os.umask(0o077)
    try:
        root.make("/a/b/c", 0o700)
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / "root" / path).stat().st_mode) for path in ("a", "a/b", "a/b/c")]
    assert modes == [0o755, 0o755, 0o700]
    root.make("/a/b/c", 0o755)
    assert stat.S_IMODE((tmp_path / "root/a/b/c").stat().st_mode) == 0o700


def test_directories_are_made_where_a_link_leads(tmp_path: Path, root: Root) -> None:
    """/var/run is a link to /run on most systems."""
    (tmp_path / "root/run").mkdir()
    (tmp_path / "root/var").mkdir()
    (tmp_path / "root/var/run").symlink_to("/run")
    root.make("/var/run/appbox")
    assert (tmp_path / "root/run/appbox").is_dir()
    assert root.host_path("/var/run/appbox") == str(tmp_path / "root/run/appbox")


def test_what_is_there(tmp_path: Path, root: Root) -> None:
    (tmp_path / "root/file").write_text("")
    (tmp_path / "root/dangling").symlink_to("none")
    assert [root.exists(p) for p in ("/file", "/dangling", "/none", "/file/x")] == [True, True, False, False]
    assert [root.is_directory(p) for p in ("/", "/file", "/dangling", "/none")] == [True, False, False, False]
    with pytest.raises(FileNotFoundError), root.directory("/none"):
        pass
