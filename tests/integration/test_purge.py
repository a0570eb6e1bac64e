"""What is deleted for good: said or asked before, and nothing is left of it."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
from pathlib import Path

import pytest

from tests.ground.sandbox import Sandbox, members, run

pytestmark = pytest.mark.root


@pytest.fixture
def box(tmp_path: Path) -> Sandbox:
    found = Sandbox(tmp_path)
    found.image("2.0", *members(b"2"))
    found.apply()
    return found


def asked(box: Sandbox, answer: str, *words: str) -> tuple[int, str]:
    """Run appbox on a terminal where somebody types `answer`; return how it ended and what was on the screen."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(box.command(*words), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    os.write(ours, f"{answer}\n".encode())
    shown = b""
    try:
        while data := os.read(ours, 4096):
            shown += data
    except OSError:
        pass  # a terminal whose other side is closed
    finally:
        os.close(ours)
    return process.wait(timeout=60), shown.decode()


def test_a_purge_says_how_much_of_what_it_deletes(box: Sandbox) -> None:
    box.appbox("snapshot", "web")
    box.appbox("snapshot", "web")
    lines = box.appbox("remove", "--purge", "web").out.splitlines()
    assert re.fullmatch(r"web: deleting its data \(13 bytes\) and 2 snapshots \(26 bytes\) for good", lines[0]), lines
    assert "web: deleted 2 snapshots (26 bytes)" in lines
    assert box.appbox("status").out.count("\n") == 1
    # Of one without either nothing need be said.
    box.apply(volumes=None)
    assert "for good" not in box.appbox("remove", "--purge", "web").out


def test_on_a_terminal_it_asks_first(box: Sandbox) -> None:
    box.appbox("snapshot", "web")
    before = box.snapshot()
    code, shown = asked(box, "n", "remove", "--purge", "web")
    assert code == 1
    assert "Delete its data (13 bytes) and 1 snapshot (13 bytes) of web for good? [y/N]: " in shown
    assert "web: was not gone on with, and nothing was removed; --yes asks nothing" in shown
    assert box.snapshot() == before
    assert "is not installed" in asked(box, "y", "remove", "--purge", "nope")[1]
    code, shown = asked(box, "y", "remove", "--purge", "web")
    assert code == 0, shown
    assert not list(box.containers.glob("web*"))


def test_prune_asks_about_data_only_where_there_is_any(box: Sandbox) -> None:
    box.apply(version="2.0", upgrade={"keep": 9, "data": "copy"})
    box.image("3.0", *members(b"3"))
    box.apply(version="3.0", upgrade={"keep": 2, "data": "copy"})
    code, shown = asked(box, "n", "prune", "--purge")
    assert (code, "Delete the data of web-1.0 (" in shown) == (1, True), shown
    assert (box.containers / "web-1.0/data").is_dir()
    code, shown = asked(box, "y", "prune", "--purge")
    assert code == 0, shown
    assert not (box.containers / "web-1.0").exists()
    code, shown = asked(box, "n", "prune", "--purge")
    assert (code, shown.replace("\r", "").endswith("nothing to remove\n")) == (0, True), shown


@pytest.mark.parametrize("purge", [True, False])
def test_what_does_not_say_whose_it_is_any_more_goes_too(box: Sandbox, purge: bool) -> None:
    for text in ("= broken", ""):
        (box.current() / "bundle.toml").write_text(text)
        box.apply()
    replaced = box.containers / ".replaced"
    assert all("@broken" in path.name for path in replaced.iterdir())
    box.appbox("remove", "web", *(["--purge"] if purge else []))
    assert not list(replaced.iterdir())
    left = sorted(str(p.relative_to(box.containers)) for p in box.containers.glob("web*/*"))
    assert left == ([] if purge else ["web-1.0/bundle.toml", "web-1.0/data"])


def test_what_may_be_of_two_services_is_that_of_the_longer_name(box: Sandbox) -> None:
    box.image("2-1", *members(b"2"))
    box.apply(name="web-2", version="2-1")
    (box.current("web-2") / "bundle.toml").write_text("= broken")
    box.apply(name="web-2", version="2-1")
    (broken,) = (box.containers / ".replaced").iterdir()
    box.appbox("remove", "web", "--purge")
    assert broken.is_dir()
    box.appbox("remove", "web-2", "--purge")
    assert not broken.exists()


def test_a_full_disk_can_be_emptied(box: Sandbox) -> None:
    """What is only noted for the next command, should this one be killed, must not keep anybody from making room."""
    box.appbox("remove", "--purge", "web")
    small = box.root / "var/lib/appbox"
    run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)])
    try:
        box.apply()
        with contextlib.suppress(OSError), (small / "fill").open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        journal = f"{box.root}/var/lib/appbox/journal.json"
        error = box.appbox("remove", "web", code=1).err
        assert error == f"appbox: {journal}: no space left on device; make room and run the same command again\n"
        assert (box.containers / "web").is_symlink()
        box.appbox("remove", "--purge", "web", code=None)
        assert not list(box.containers.glob("web*"))
        (small / "fill").unlink()
        box.appbox("remove", "--purge", "web", code=None)
        assert "web" not in (box.root / "var/lib/appbox/uid-ranges.toml").read_text()
    finally:
        run(["umount", str(small)])
