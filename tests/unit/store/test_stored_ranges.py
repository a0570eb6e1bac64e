"""The file of ranges, read with distrust."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from appbox.host.facts import IdRange
from appbox.host.ranges import FIRST, SIZE
from appbox.store import ranges
from appbox.store.root import Root


def load(tmp_path: Path, text: str | bytes | None) -> dict[str, IdRange]:
    path = tmp_path / "var/lib/appbox/uid-ranges.toml"
    if text is not None:
        path.parent.mkdir(parents=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with Root(str(tmp_path)) as root:
        assert ranges.recorded(root) is (text is not None)
        return ranges.load(root)


def test_what_was_given_is_read(tmp_path: Path) -> None:
    assert load(tmp_path, f'[ranges]\n"a.b" = {FIRST}\n"c" = {FIRST + SIZE}\n') == {
        "a.b": IdRange(FIRST, SIZE),
        "c": IdRange(FIRST + SIZE, SIZE),
    }


def test_fixed_ranges_are_kept_beside_the_others(tmp_path: Path) -> None:
    given = {"a": IdRange(FIRST, SIZE), "b": IdRange(200_000, 1000), "c": IdRange(FIRST + SIZE + 1, SIZE)}
    with Root(str(tmp_path)) as root:
        ranges.save(root, given)
        assert ranges.load(root) == given
        ranges.save(root, {"b": given["b"]})
        assert ranges.load(root) == {"b": given["b"]}


def test_a_directory_of_nobody_keeps_its_ids(tmp_path: Path) -> None:
    given = {"web-1.1.0RC_1@broken+": IdRange(FIRST, SIZE)}
    with Root(str(tmp_path)) as root:
        ranges.save(root, given)
        assert ranges.load(root) == given
        found = tmp_path / "var/lib/appbox/uid-ranges.toml"
        found.write_text(found.read_text() + "[torn")
        assert ranges.load(root) == given


@pytest.mark.parametrize("text", [None, "", "[ranges]\n", "[other]\na = 1\n"])
def test_nothing_was_given_yet(tmp_path: Path, text: str | None) -> None:
    assert load(tmp_path, text) == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[ranges", "Expected ']'"),
        (b"\xff", "utf-8"),
        ("ranges = 3\n", "not a multiple of 65536"),
        ("[ranges]\na = 0\n", "not a multiple of 65536"),
        ("[ranges]\na = true\n", "not a multiple"),
        (f'[ranges]\na = "{FIRST}"\n', "not a multiple"),
        (f"[ranges]\na = {FIRST + 1}\n", "not a multiple"),
        (f"[ranges]\na = {FIRST - SIZE}\n", "not a multiple"),
        ("[ranges]\na = 2147483648\n", "not a multiple"),
        (f"[ranges]\na = {FIRST}\nb = {FIRST}\n", "two services have the same range"),
        (f"[ranges]\na = {FIRST}\n[fixed]\nb = [{FIRST - 1}, 2]\n", "two services have the same range"),
        (f"[ranges]\na = {FIRST}\n[fixed]\na = [5, 2]\n", "one has two"),
        ("[fixed]\na = [0, 2]\n", "not one of base and size"),
        ("[fixed]\na = [1, 4294967295]\n", "not one of base and size"),
        ("[fixed]\na = 5\n", "not one of base and size"),
        ("fixed = 5\n", "not one of base and size"),
        ('[fixed]\n"/" = [1, 1]\n', "not that of a service"),
        ("#" * ((1 << 20) + 1), "larger than 1048576 bytes"),
    ],
)
def test_a_file_that_cannot_be_trusted_is_made_up_for_and_kept(tmp_path: Path, text: str | bytes, words: str) -> None:
    bundle(tmp_path, "z-1", f'name = "z"\nversion = "1"\nuid_base = {FIRST + 7 * SIZE}\nuserns = true\n')
    data = text if isinstance(text, bytes) else text.encode()
    found = load(tmp_path, text)
    assert found["z"] == IdRange(FIRST + 7 * SIZE, SIZE)
    with Root(str(tmp_path)) as root:
        ledger = ranges.read(root)
        assert words in ledger.problem
        assert ledger.written == {}
        for _ in range(2):
            ranges.save(root, found)
            assert ranges.read(root) == ranges.Ledger(found, found)
            assert (tmp_path / "var/lib/appbox/uid-ranges.toml.broken").read_bytes() == data
    assert not (tmp_path / "var/lib/appbox/uid-ranges.toml.broken.2").exists()


def test_what_is_whole_of_a_torn_file_is_kept(tmp_path: Path) -> None:
    """A service that was removed without its data has no bundle any more, and files elsewhere may have its ids."""
    bundle(tmp_path, "z-1", f'name = "z"\nversion = "1"\nuid_base = {FIRST}\nuserns = true\n')
    text = f'[ranges]\n"a" = {FIRST + SIZE}\n"b" = {FIRST}\n"z" = {FIRST + 9 * SIZE}\n'
    text += '[fixed]\n"c" = [5, 9]\n"d" = 18790'
    assert load(tmp_path, text + "\x00") == {
        "a": IdRange(FIRST + SIZE, SIZE),
        "c": IdRange(5, 9),
        "z": IdRange(FIRST, SIZE),
    }


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.symlink_to(path.name)])
def test_something_else_in_its_place_is_put_aside(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "var/lib/appbox/uid-ranges.toml"
    path.parent.mkdir(parents=True)
    make(path)
    with Root(str(tmp_path)) as root:
        assert "cannot be used" in ranges.read(root).problem
        ranges.save(root, {"a": IdRange(FIRST, SIZE)})
        assert ranges.load(root) == {"a": IdRange(FIRST, SIZE)}
    assert path.with_name("uid-ranges.toml.broken").exists() or path.with_name("uid-ranges.toml.broken").is_symlink()


def bundle(tmp_path: Path, directory: str, text: str) -> None:
    path = tmp_path / "opt/containers" / directory
    path.mkdir(parents=True)
    (path / "bundle.toml").write_text(text)


def test_a_lost_file_is_made_up_for_by_the_bundles(tmp_path: Path) -> None:
    bundle(tmp_path, "a-1", f'name = "a"\nversion = "1"\nuid_base = {FIRST + SIZE}\nuserns = true\n')
    bundle(tmp_path, ".replaced/b-1@0", f'name = "b"\nversion = "1"\nuid_base = {FIRST}\nuserns = true\n')
    bundle(tmp_path, "c-1", 'name = "c"\nversion = "1"\nuid_base = 0\nuserns = false\n')
    bundle(tmp_path, "d-1", 'name = "d"\nversion = "1"\nuid_base = 5\nuserns = true\n')
    bundle(tmp_path, "e-1", "broken")
    (tmp_path / "opt/containers/a").symlink_to("a-1")
    (tmp_path / "opt/containers/file").write_text("")
    bundle(tmp_path, "f-1", 'name = "f"\nversion = "1"\nuid_base = 7\nuid_size = 9\nuserns = true\n')
    assert load(tmp_path, None) == {
        "a": IdRange(FIRST + SIZE, SIZE),
        "b": IdRange(FIRST, SIZE),
        "f": IdRange(7, 9),
    }
