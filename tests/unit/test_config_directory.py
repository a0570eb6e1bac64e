"""Directories of configuration files: read whole, bounded, and nothing but files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from appbox import config_directory, sources
from appbox.errors import AppboxError, ManifestError
from tests.ground.pure import HEAD


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "d"
    (made / "sub/deep").mkdir(parents=True)
    (made / "b").write_bytes(b"\0\xff")
    (made / "sub/deep/a b\\'$").write_bytes(b"")
    (made / "sub/tool").write_bytes(b"#!")
    (made / "sub/tool").chmod(0o755)
    (made / ".hidden").write_bytes(b"h")
    return made


def test_every_file_is_found_by_its_path(folder: Path) -> None:
    found = config_directory.read(str(folder), "d")
    assert [(entry.path, entry.data, entry.executable) for entry in found] == [
        (".hidden", b"h", False),
        ("b", b"\0\xff", False),
        ("sub/deep/a b\\'$", b"", False),
        ("sub/tool", b"#!", True),
    ]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda d: (d / "l").symlink_to("b"), "d/l: is a symlink; put a file there"),
        (lambda d: (d / "sub/l").symlink_to("deep"), "d/sub/l: is a symlink"),
        (lambda d: os.mkfifo(d / "p"), "d/p: is no regular file"),
        (lambda d: (d / "a\nb").touch(), "holds a file called"),
        (lambda d: Path(os.fsdecode(os.fsencode(d) + b"/\xff")).touch(), "holds a file called"),
        (lambda d: (d / "big").write_bytes(bytes((1 << 20) + 1)), "d/big: is larger than 1048576 bytes"),
        (lambda d: [(d / str(n)).write_bytes(bytes(1 << 20)) for n in range(8)], "holds more than 8388608 bytes"),
        (lambda d: [(d / str(n)).touch() for n in range(1000)], "holds more than 1000 files"),
        (lambda d: (d / "/".join("x" * 18)).mkdir(parents=True), "has directories more than 16 deep"),
    ],
)
def test_what_is_no_plain_tree_of_files_is_refused(folder: Path, make: object, words: str) -> None:
    assert callable(make)
    make(folder)
    with pytest.raises(AppboxError) as caught:
        config_directory.read(str(folder), "d")
    assert words in str(caught.value)


def test_a_directory_has_to_hold_something(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    with pytest.raises(AppboxError, match="d: holds no file"):
        config_directory.read(str(tmp_path), "d")
    with pytest.raises(AppboxError, match="d: cannot be read: No such file"):
        config_directory.read(str(tmp_path / "none"), "d")
    (tmp_path / "file").touch()
    with pytest.raises(AppboxError, match="d: cannot be read: Not a directory"):
        config_directory.read(str(tmp_path / "file"), "d")


def load(folder: Path, tables: str) -> sources.Loaded:
    path = folder.parent / "web.toml"
    path.write_text(HEAD + tables)
    (one,) = sources.load([str(path)])
    return one


def test_a_file_of_its_own_takes_the_place_of_the_directorys(folder: Path) -> None:
    one = load(folder, '[config."/etc/d"]\ndirectory = "d/"\n[config."/etc/d/b"]\ntext = "own"\nmode = "0400"\n')
    assert {path: source.data for path, source in one.configs.items()} == {
        "/etc/d/.hidden": b"h",
        "/etc/d/b": b"own",
        "/etc/d/sub/deep/a b\\'$": b"",
        "/etc/d/sub/tool": b"#!",
    }
    assert [one.configs[f"/etc/d/{name}"].table for name in ("b", "sub/tool")] == ["/etc/d/b", "/etc/d"]
    assert [one.configs["/etc/d/sub/tool"].mode(mode) for mode in (0o444, 0o640, 0o400)] == [0o555, 0o750, 0o500]


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ('[config."/d"]\ndirectory = "none"\n', 'web.toml:5: config."/d".directory: none: cannot be read'),
        ('[config."/d"]\ndirectory = "."\n', 'web.toml:5: config."/d".directory: "." is no directory of files'),
        ('[config."/d"]\ndirectory = "d"\ntext = ""\n', 'web.toml:5: config."/d".directory: stands beside text'),
        (
            '[config."/d"]\ndirectory = "d"\n[config."/d/b/c"]\ntext = ""\n',
            'web.toml:5: config."/d".directory: is a file at "/d/b", and "/d/b/c" needs a directory there',
        ),
        (
            '[config."/d"]\ndirectory = "d"\n[volumes.v]\npath = "/d/v"\n',
            'web.toml:7: volumes.v.path: "/d/v" lies in config."/d", which is read-only; move it',
        ),
    ],
)
def test_what_cannot_be_is_named_with_line_and_key(folder: Path, tables: str, words: str) -> None:
    with pytest.raises(ManifestError) as caught:
        load(folder, tables)
    assert str(caught.value).removeprefix(f"{folder.parent}/").startswith(words)
