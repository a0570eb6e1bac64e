"""What must hold, after whatever happened: one function for each promise, for all operations and all faults."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.ground.calls import Ended
from tests.ground.sandbox import Sandbox

Versions = tuple[str, ...]


def whole(box: Sandbox, versions: Versions) -> None:
    """See that what is current, if anything, is one of these versions, complete, and leads to its data.

    "" stands for nothing being current. Whoever only looks gets an answer, too.
    """
    if not (box.containers / "web").is_symlink():
        assert "" in versions, "nothing is current any more"
        return
    bundle = box.current()
    assert bundle.name.removeprefix("web-") in versions, f"{bundle.name} is current"
    assert json.loads((bundle / "config.json").read_text())["process"]
    assert (bundle / "rootfs/seed").stat().st_uid == box.on_disk(33)
    assert (bundle / "run").stat().st_mode & 0o111
    assert (bundle / "bundle.toml").read_text().startswith("created = ")
    assert (bundle / "rootfs/seed/version").read_text() in "123m"
    assert (bundle / "rootfs/etc/passwd").read_bytes().startswith(b"root:")
    data = bundle / "data"
    if (bundle / ".carry").is_symlink() and not data.exists():
        data = bundle / os.readlink(bundle / ".carry")
    assert (data / "data/version").exists(), "the data is neither here nor where it was"
    assert [one["name"] for one in box.appbox("--json", "status").data()] == ["web"]


def put(box: Sandbox, name: str = "mine", text: str = "x") -> None:
    """Have the service write something."""
    path = box.current() / "data/data" / name
    path.write_text(text)
    os.chown(path, box.on_disk(33), box.on_disk(33))


def mine(box: Sandbox) -> list[Path]:
    """Return where what the service wrote is now."""
    return list(box.containers.rglob("mine"))


def data_once(box: Sandbox) -> None:
    """See that what the service wrote is there, once."""
    found = mine(box)
    assert len(found) == 1, f"what was written is in {found}"
    assert found[0].read_text() == "x"


def data_at_home(box: Sandbox) -> None:
    """See that what the service wrote is in the data of its current version, and only there."""
    data_once(box)
    assert mine(box) == [box.current() / "data/data/mine"]


def data_at_hand(box: Sandbox) -> None:
    """See that what the service wrote is in the data that its current version is going to start with."""
    bundle = box.current()
    data = bundle / "data"
    if (bundle / ".carry").is_symlink() and not data.exists():
        data = bundle / os.readlink(bundle / ".carry")
    assert (data / "data/mine").read_text() == "x"


def tidy(box: Sandbox) -> None:
    """See that nothing lies around that a command was in the midst of."""
    assert not box.debris(), box.debris()
    assert not (box.state / "journal.json").exists()
    marks = {".copied", ".migrating", ".new"}
    found = [path for path in box.containers.rglob(".*") if path.name in marks or path.name.startswith(".gone-")]
    assert not found, found


def settled(box: Sandbox, version: str) -> None:
    """See that nothing is left to do: this version is current, its rootfs is what was unpacked, nothing lies around."""
    assert box.current().name == f"web-{version}"
    assert not (box.current() / ".carry").is_symlink()
    whole(box, (version,))
    box.settled()
    tidy(box)
    box.appbox("verify", "web")


def gone(box: Sandbox) -> None:
    """See that nothing of the service starts or lies around any more."""
    assert not (box.units / "web.service").exists()
    assert not (box.root / "etc/init.d/web").exists()
    assert box.appbox("--json", "status").data() == []
    tidy(box)


def said(ended: Ended, services: int = 1) -> None:
    """See that a command which failed said so as it has to: an exit code, and one sentence for each service."""
    assert 0 < ended.code < 99, f"it ended with {ended.code}: {ended.err}"
    assert "Traceback" not in ended.err + ended.out, ended.err
    assert "internal error" not in ended.err, ended.err
    sentences = [line for line in ended.err.splitlines() if line.startswith("appbox: ")]
    most = 1 if services == 1 else services + 1  # and one for the run
    assert 0 < len(sentences) <= most, f"more sentences than failures: {ended.err!r}"
    others = [line for line in ended.err.splitlines() if not line.startswith(("appbox: ", "note: ", "not done "))]
    assert not others, f"more than a sentence: {others}"
