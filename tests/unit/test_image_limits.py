"""`/etc/appbox/limits.toml`: what it may say, and how what is wrong with it is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from appbox import image_limits
from appbox.errors import ManifestError
from appbox.oci.limits import Limits
from appbox.store.root import Root


def test_a_host_without_the_file_has_the_usual_limits(tmp_path: Path) -> None:
    with Root(str(tmp_path)) as root:
        assert image_limits.load(root) == Limits()


def test_every_limit_can_be_set(tmp_path: Path) -> None:
    (tmp_path / "etc/appbox").mkdir(parents=True)
    (tmp_path / "etc/appbox/limits.toml").write_text(
        'size = "1T"\nentries = 4_000_000\nratio = 400\nratio_from = "16G"\n'
    )
    with Root(str(tmp_path)) as root:
        assert image_limits.load(root) == Limits(entries=4_000_000, size=1 << 40, ratio=400, ratio_from=16 << 30)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("entires = 5", r'f:1: entires: unknown key.*"?entries'),
        ('entries = "5"', "f:1: entries: expected a whole number, got"),
        ("\nratio = 0", "f:2: ratio: 0 is out of range"),
        ("size = true", "f:1: size: expected a size"),
        ("size = -1", "f:1: size: -1 is out of range"),
        ("[size]\na = 1", "f:1: size: expected a size"),
        ("size = ", "f:1"),
    ],
)
def test_what_is_wrong_names_line_and_key(text: str, words: str) -> None:
    with pytest.raises(ManifestError, match=words):
        image_limits.parse(text.encode(), "f")


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(ManifestError, match="UTF-8"):
        image_limits.parse(b"size = 1 # \xff", "f")
