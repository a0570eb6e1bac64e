"""Manifests held against the lock beside them."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from appbox import lock_file, pins, sources
from appbox.errors import AppboxError, ManifestError
from appbox.lock_file import Entry

WEB = Entry(
    name="web",
    image="docker.io/library/nginx",
    version="~1.29",
    tag="1.29.3",
    digest=f"sha256:{'ab' * 32}",
    platforms=("linux/amd64",),
    locked=datetime(2026, 1, 31, tzinfo=UTC),
)
DIGEST = f"sha256:{'1' * 64}"


def manifest(folder: Path, version: str, **keys: str) -> Path:
    path = folder / "web.toml"
    values = {"name": "web", "image": WEB.image, "version": version, **keys}
    path.write_text("".join(f'{key} = "{value}"\n' for key, value in values.items()))
    return path


def lock(folder: Path, *entries: Entry) -> None:
    (folder / "appbox.lock").write_text(lock_file.lock_file("", entries).text())


def load(path: Path, *, strict: bool = False) -> tuple[str, str | None, str]:
    (one,) = sources.load([str(path)], strict=strict)
    return one.manifest.version, one.digest, one.note


def refused(path: Path, *, strict: bool = False) -> str:
    with pytest.raises(ManifestError) as caught:
        sources.load([str(path)], strict=strict)
    return str(caught.value)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("version", ["~1.29", ">=1", "*", "1.29.3", "!=1.28"])
def test_what_is_locked_is_taken(tmp_path: Path, version: str, *, strict: bool) -> None:
    lock(tmp_path, WEB)
    assert load(manifest(tmp_path, version), strict=strict) == ("1.29.3", WEB.digest, "")


def test_a_tag_needs_no_lock_unless_all_must_be_locked(tmp_path: Path) -> None:
    path = manifest(tmp_path, "1.28")
    assert load(path) == ("1.28", None, "")
    said = (
        f"{path}:3: version: {WEB.image} 1.28 is not locked: {tmp_path}/appbox.lock does not have it; run appbox lock"
    )
    assert refused(path, strict=True) == f"{said} {path}"
    lock(tmp_path, WEB)
    other = f"{tmp_path}/appbox.lock is for {WEB.image} ~1.29 (1.29.3)"
    assert load(path) == ("1.28", None, f"{other} and is not used; appbox lock brings it up to date")
    assert f"is not locked: {other}; " in refused(path, strict=True)


def test_a_constraint_needs_its_entry(tmp_path: Path) -> None:
    path = manifest(tmp_path, "~1.28")
    assert "~1.28 is not locked" in refused(path)
    for other in (WEB, replace(WEB, name="db", version="~1.28", tag="1.28.0"), replace(WEB, image="docker.io/a/b")):
        lock(tmp_path, other)
        assert "~1.28 is not locked" in refused(path)


def test_the_manifest_s_digest_decides(tmp_path: Path) -> None:
    lock(tmp_path, WEB)
    assert load(manifest(tmp_path, "1.29.3", digest=DIGEST), strict=True) == ("1.29.3", DIGEST, "")
    assert load(manifest(tmp_path, "1.29.3", digest=WEB.digest), strict=True) == ("1.29.3", WEB.digest, "")


def test_layouts_need_no_lock_for_a_tag(tmp_path: Path) -> None:
    assert load(manifest(tmp_path, "1", image="oci:x"), strict=True) == ("1", None, "")
    assert "~1 is not locked" in refused(manifest(tmp_path, "~1", image="oci:x"))


def test_a_lock_that_cannot_be_read(tmp_path: Path) -> None:
    assert pins.read(str(tmp_path)).entries == ()
    path = tmp_path / "appbox.lock"
    os.mkfifo(path)
    with pytest.raises(AppboxError, match="not a regular file"):
        pins.read(str(tmp_path))
    path.unlink()
    path.symlink_to("/dev/null")
    with pytest.raises(AppboxError, match=r"services/appbox\.lock: cannot be read: it is a symlink"):
        pins.read(str(tmp_path), "services")
    path.unlink()
    path.write_bytes(b"#" * (lock_file.SIZE_LIMIT + 1))
    with pytest.raises(AppboxError, match="is larger than"):
        pins.read(str(tmp_path))
