"""The journal: what is written is read, and what nobody wrote is nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from appbox.store import journal
from appbox.store.journal import Entry, Place
from appbox.store.root import Root

ENTRY = Entry("web", Place("web-1", 1), Place("web-2", 2), running=True, made=True, others=("api",))


def row(**more: object) -> dict[str, object]:
    places = {"origin": {"directory": "web-1", "generation": 1}, "target": {"directory": "web-2", "generation": 2}}
    return {"service": "web", **places, "running": True, "made": True, "others": ["api"], **more}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    with Root(str(tmp_path)) as root:
        journal.write(root, ENTRY)
        assert journal.load(root) == [ENTRY]
        journal.remove(root, "web")
        assert journal.load(root) == []
    assert not (tmp_path / "var/lib/appbox/journal.json").exists()


@pytest.mark.parametrize(
    "more",
    [
        {"service": "../../etc"},
        {"others": ["-x"]},
        {"target": {"directory": "../x", "generation": 1}},
        {"origin": {"directory": "/x", "generation": 1}},
        {"origin": 3},
        {"others": 3},
    ],
)
def test_names_and_paths_that_appbox_does_not_write_are_not_followed(tmp_path: Path, more: dict[str, object]) -> None:
    place = tmp_path / "var/lib/appbox"
    place.mkdir(parents=True)
    (place / "journal.json").write_text(json.dumps({"schema": 1, "services": [row(**more)]}))
    with Root(str(tmp_path)) as root:
        assert journal.load(root) == []
