"""Manifests found and read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from appbox import sources
from appbox.errors import AppboxError, ManifestError, UsageError
from tests.ground.pure import HEAD


def write(folder: Path, name: str, tables: str = "", file: str = "") -> Path:
    path = folder / (file or f"{name}.toml")
    path.write_text(HEAD.replace('name = "web"', f'name = "{name}"') + tables)
    return path


def test_a_directory_means_its_manifests(tmp_path: Path) -> None:
    write(tmp_path, "b")
    write(tmp_path, "a", file="z.toml")
    write(tmp_path, "hidden", file=".hidden.toml")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "dir.toml").mkdir()
    assert [one.manifest.name for one in sources.load([str(tmp_path)])] == ["a", "b"]


def test_each_manifest_counts_once_however_it_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "web")
    (tmp_path / "link").symlink_to(path)
    named = [str(tmp_path), str(path), f"{tmp_path}/./web.toml", f"{tmp_path}/link"]
    assert sources.find(named) == [str(path)]


def test_two_manifests_of_one_service_are_refused(tmp_path: Path) -> None:
    first, second = write(tmp_path, "web"), write(tmp_path, "web", file="x.toml")
    with pytest.raises(ManifestError) as caught:
        sources.load([str(tmp_path)])
    assert str(caught.value) == f"{second}:1: name: {first} describes web too"


def test_the_problems_of_all_manifests_come_at_once(tmp_path: Path) -> None:
    write(tmp_path, "a", "x = 1\n")
    write(tmp_path, "b", '[config."/c"]\nfile = "missing"\n')
    with pytest.raises(ManifestError) as caught:
        sources.load([str(tmp_path)])
    found = str(caught.value).splitlines()
    assert found[0].startswith(f"{tmp_path}/a.toml:4: x: unknown key; ")
    assert found[1] == f'{tmp_path}/b.toml:5: config."/c".file: missing: cannot be read: No such file or directory'


def test_what_config_names_is_read(tmp_path: Path) -> None:
    (tmp_path / "c").write_bytes(b"\0\xff")
    (tmp_path / "t.j2").write_text("{{ x }}")
    (one,) = sources.load(
        [str(write(tmp_path, "web", '[config."/a"]\nfile = "c"\n[config."/b"]\ntemplate = "t.j2"\n'))]
    )
    assert (one.configs["/a"].data, one.configs["/a"].template) == (b"\0\xff", False)
    assert (one.configs["/b"].data, one.configs["/b"].template) == (b"{{ x }}", True)
    assert one.folder == str(tmp_path)


@pytest.mark.parametrize(("size", "fine"), [(1 << 20, True), ((1 << 20) + 1, False)])
def test_files_are_bounded(tmp_path: Path, size: int, fine: bool) -> None:
    (tmp_path / "c").write_bytes(bytes(size))
    path = str(write(tmp_path, "web", '[config."/a"]\nfile = "c"\n'))
    if fine:
        assert len(sources.load([path])) == 1
    else:
        with pytest.raises(ManifestError, match="larger than 1048576 bytes"):
            sources.load([path])


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(AppboxError, match="is not a regular file"):
        sources.load([str(tmp_path / "pipe")])
    with pytest.raises(ManifestError, match="pipe: is not a regular file"):
        sources.load([str(write(tmp_path, "web", '[config."/a"]\nfile = "pipe"\n'))])
    with pytest.raises(AppboxError, match="cannot be read: No such file"):
        sources.load([str(tmp_path / "none.toml")])


def test_an_empty_directory_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no manifest in the directory; manifests end in \.toml"):
        sources.load([str(tmp_path)])
