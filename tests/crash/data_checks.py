"""What must hold of snapshots: what a service wrote before and after one is somewhere, and what is listed is whole."""

from __future__ import annotations

from tests.crash.checks import mine, put, settled, whole
from tests.ground.sandbox import Sandbox


def wrote(box: Sandbox) -> None:
    """Have a service write something that no snapshot has."""
    box.apply()
    put(box)


def kept(box: Sandbox) -> None:
    """Have a snapshot of what a service wrote, and something else written since."""
    wrote(box)
    box.appbox("snapshot", "web")
    (box.current() / "data/data/mine").write_text("y")
    (box.current() / "data/data/more").write_text("since")


def listed(box: Sandbox) -> list[str]:
    """Return the ids of the snapshots, the oldest first; each has whole data."""
    found = [one["id"] for one in box.appbox("--json", "snapshot", "--list", "web").data()]
    for one in found:
        assert (box.containers / ".snapshots/web" / one / "data/data/version").exists(), one
        assert (box.containers / ".snapshots/web" / one / "snapshot.toml").exists(), one
    return found


def texts(box: Sandbox) -> list[str]:
    """Return what was written, wherever it is now."""
    return [path.read_text() for path in mine(box)]


def is_untouched(box: Sandbox) -> None:
    """See that a service's own data is where it was, and that what is listed is whole."""
    whole(box, ("1.0",))
    assert (box.current() / "data/data/mine").read_text() == "x"
    listed(box)


def is_kept(box: Sandbox) -> None:
    """See that there is a snapshot of what the service wrote, and nothing else."""
    settled(box, "1.0")
    is_untouched(box)
    found = listed(box)
    assert found
    assert texts(box) == ["x"] * (len(found) + 1)


def is_either(box: Sandbox) -> None:
    """See that a service has the data of the snapshot or its own, and that the other is not lost."""
    whole(box, ("1.0",))
    now = (box.current() / "data/data/mine").read_text()
    assert now in {"x", "y"}
    assert (box.current() / "data/data/more").exists() == (now == "y")
    assert texts(box).count("y") == 1
    assert listed(box)


def is_restored(box: Sandbox) -> None:
    """See that a service has the data of the snapshot, and that a snapshot has what was there before."""
    settled(box, "1.0")
    assert (box.current() / "data/data/mine").read_text() == "x"
    assert not (box.current() / "data/data/more").exists()
    found = {one: (box.containers / ".snapshots/web" / one / "data/data/mine").read_text() for one in listed(box)}
    assert list(found.values()).count("y") == 1
    assert len(texts(box)) == len(found) + 1


def is_listed_or_gone(box: Sandbox) -> None:
    """See that a service's own data is where it was."""
    whole(box, ("1.0",))
    assert (box.current() / "data/data/mine").read_text() == "y"
    listed(box)


def is_purged(box: Sandbox) -> None:
    """See that nothing is left of a snapshot."""
    settled(box, "1.0")
    assert listed(box) == []
    assert texts(box) == ["y"]


def first(box: Sandbox) -> str:
    """Return the id of the oldest snapshot."""
    return listed(box)[0]
