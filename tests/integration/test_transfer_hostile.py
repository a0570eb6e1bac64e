"""Exports that somebody made something else of, and transfers that are interrupted: nothing half is left of either."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.ground import layers
from tests.ground.carried import data_of, members_of
from tests.ground.sandbox import BASE, Sandbox, run

pytestmark = pytest.mark.root


@pytest.fixture
def here(tmp_path: Path) -> Sandbox:
    (tmp_path / "here").mkdir()
    return Sandbox(tmp_path / "here")


@pytest.fixture
def there(tmp_path: Path) -> Sandbox:
    """Return another host, which has no image and no manifest."""
    (tmp_path / "there").mkdir()
    box = Sandbox(tmp_path / "there")
    shutil.rmtree(box.images)
    box.services.rmdir()
    return box


# Hostile files


def rewrite(file: Path, change: Callable[[dict[str, bytes], dict[str, Any]], object]) -> None:
    """Change the members of an export, and its index, so that all digests are right again."""
    found = members_of(file)
    index = json.loads(found.pop("appbox.json"))
    change(found, index)
    listed = {entry["name"]: entry for entry in index["members"]}
    for name, data in found.items():
        entry = listed.setdefault(name, {"name": name, "mode": "0644"})
        entry |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    index["members"] = [listed[name] for name in found]
    parts = {"appbox.json": json.dumps(index).encode(), **found}
    file.write_bytes(layers.archive(*(layers.file(name.encode(), data) for name, data in parts.items())))


def _replace(name: str, old: str, new: str) -> Callable[[dict[str, bytes], dict[str, Any]], object]:
    return lambda found, _: found.update({name: found[name].replace(old.encode(), new.encode())})


def _data(*parts: bytes) -> Callable[[dict[str, bytes], dict[str, Any]], object]:
    return lambda found, _: found.update({"data/web.tar": layers.archive(layers.directory(b"data"), *parts)})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda found, _: found.update({"services/evil.toml": b""}), "belongs to no service"),
        (lambda found, _: found.update({"services/hosts/x.toml": b""}), "belongs to no service"),
        (lambda found, _: found.update({"services/../../x": b""}), "name that no file can have"),
        (_replace("services/web.toml", 'name = "web"', 'name = "db"'), "not the manifest that the index says"),
        (_replace("services/web.toml", "oci:images:web-1.0", "oci:/etc:x"), "not the manifest that the index says"),
        (_replace("services/web.toml", "[volumes", "[volums"), "services/web.toml:"),
        (_replace("appbox.lock", "sha256:", "sha256:0"), "appbox.lock"),
        (_replace("appbox.lock", 'name = "web"', 'name = "db"'), "does not lock what is in the export"),
        (lambda found, index: index["services"][0].update(image="oci:/etc:x"), "not the manifest"),
        (lambda found, index: index["services"][0].update(digest=f"sha256:{'0' * 64}"), "is not in it"),
        (lambda found, index: index["services"][0].update(data=["other"]), "the volumes that the index says"),
        (_data(layers.file(b"data/../../x", b"")), "no file can have"),
        (_data(layers.symlink(b"data/s", b"/etc"), layers.file(b"data/s/x", b"")), "before its directory"),
        (_data(layers.header(b"data/disk", flag=b"4", major=8)), "is a block device"),
        (_data(layers.file(b"data/x", b"", uid=70000)), "belongs to the id 70000"),
        (_data(layers.hardlink(b"data/x", b"../../../etc/passwd")), "link to no file"),
    ],
)
def test_a_hostile_export_leaves_nothing(
    here: Sandbox, there: Sandbox, change: Callable[[dict[str, bytes], dict[str, Any]], object], words: str
) -> None:
    here.apply()
    file = here.place / "web.tar"
    here.appbox("export", "web", "--data", "-o", file)
    rewrite(file, lambda *_: None)
    there.appbox("import", file, "-d", there.place / "fine")
    there.appbox("remove", "web", "--purge", code=None)
    rewrite(file, change)
    before = there.snapshot()
    result = there.appbox("import", file, "-d", there.services, code=6)
    assert words in result.err, result.err
    assert len(result.err.splitlines()) == 1
    assert there.snapshot() == before
    assert not there.services.exists()


def test_a_damaged_export_is_refused_wherever_it_is_damaged(here: Sandbox, there: Sandbox) -> None:
    here.apply()
    file = here.place / "web.tar"
    here.appbox("export", "web", "--data", "-o", file)
    whole = file.read_bytes()
    with tarfile.open(file) as archive:
        found = archive.getmembers()
    # In each header, and in the middle of what is behind it.
    places = [place for one in found for place in (one.offset + 10, one.offset_data + one.size // 2)]
    bad = [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in places]
    bad += [whole[:at] for at in range(0, len(whole), len(whole) // 12)]
    bad += [whole[:-1], whole + b"x", whole[:512], b"", whole[512:]]
    there.appbox("import", file, "-d", there.place / "fine", "--no-data")
    before = there.snapshot()
    for data in bad:
        file.write_bytes(data)
        assert there.appbox("import", file, "-d", there.services, code=6).err
        assert not there.services.exists()
    assert there.snapshot() == before


# Interruptions


def test_a_kill_leaves_no_half_file_and_no_half_data(here: Sandbox, there: Sandbox) -> None:
    here.apply()
    with (here.current() / "data/data/large").open("wb") as file:
        file.write(os.urandom(8 << 20))
    os.chown(here.current() / "data/data/large", BASE, BASE)
    target = here.place / "web.tar"
    for delay in (0.3, 0.45, 0.6):
        killed(here.command("export", "web", "--data", "-o", target), delay)
    here.appbox("export", "web", "--data", "-o", target)
    assert sorted(name for name in os.listdir(here.place) if "web" in name) == ["web.tar"]
    for delay in (0.3, 0.4, 0.5, 0.65):
        killed(there.command("import", target, "-d", there.services), delay)
    there.appbox("import", target, "-d", there.services)
    there.appbox("apply", "--locked", there.services)
    assert not there.debris()
    assert data_of(there) == data_of(here)


def killed(words: list[str], delay: float) -> None:
    """Run a program and kill it after some seconds, unless it has ended."""
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.kill()


def test_a_full_disk_leaves_nothing(here: Sandbox, there: Sandbox) -> None:
    here.apply()
    with (here.current() / "data/data/large").open("wb") as file:
        file.write(os.urandom(4 << 20))
    os.chown(here.current() / "data/data/large", BASE, BASE)
    whole = here.place / "web.tar"
    here.appbox("export", "web", "--data", "-o", whole)
    small = there.containers
    small.mkdir(parents=True)
    run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)])
    try:
        result = there.appbox("import", whole, "-d", there.services, code=1)
        assert "web: its data cannot be written: No space left on device" in result.err
        assert os.listdir(small) == []
        result = here.appbox("export", "web", "--data", "-o", small / "web.tar", code=1)
        assert "No space left on device" in result.err
        assert os.listdir(small) == []
    finally:
        run(["umount", str(small)])
    assert "web" not in (there.root / "var/lib/appbox/uid-ranges.toml").read_text()
    there.appbox("import", whole, "-d", there.services)
    there.appbox("apply", "--locked", there.services)
    assert data_of(there) == data_of(here)
