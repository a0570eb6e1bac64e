"""What a user without subordinate ids, who is nobody else's root, can unpack; and whom an ordinary user trusts."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ground import layers
from tests.ground.sandbox import NOBODY, Sandbox, run

pytestmark = pytest.mark.root

TREE = Path(__file__).parents[2]


@pytest.fixture
def box() -> Iterator[Sandbox]:
    """Return a sandbox that everybody may enter, unlike pytest's own directories, with a root that is the user's."""
    with tempfile.TemporaryDirectory(prefix="appbox-test.") as place:
        Path(place).chmod(0o755)
        made = Sandbox(Path(place))
        os.chown(made.root, NOBODY, NOBODY)
        yield made


def test_devices_become_empty_files(box: Sandbox) -> None:
    box.image(
        "devices",
        layers.directory(b"dev"),
        layers.device(b"dev/null", 1, 3, mode=0o666),
        layers.device(b"dev/disk", 8, 0, flag=b"4"),
        layers.header(b"pipe", flag=b"6", mode=0o620),
    )
    target = box.place / "home/unpacked"
    box.appbox_as_nobody("image", "unpack", f"oci:{box.images}:devices", target)
    for name, mode in (("dev/null", 0o666), ("dev/disk", 0o644), ("pipe", 0o620)):
        found = (target / name).stat()
        assert (found.st_mode, found.st_size) == (stat.S_IFREG | mode, 0)


def test_files_of_others_need_subordinate_ids(box: Sandbox) -> None:
    box.image("others", layers.file(b"www", b"", uid=33))
    target = box.place / "home/unpacked"
    found = box.appbox_as_nobody("image", "unpack", f"oci:{box.images}:others", target, code=6)
    assert "33:0 is not within 0 to 0; you have no subordinate ids; appbox doctor says what to do" in found.err
    assert not target.exists()


_ALONE = """
mount -t tmpfs -o mode=755 none /run
{ cat /etc/passwd; echo "dora:x:70123:70123::$1:/bin/sh"; } >/run/passwd
mount --bind /run/passwd /etc/passwd
shift
exec "$@"
"""
"""In a mount namespace of its own: there is a user dora, whose directory below /run is made there."""


def as_root_for_dora(box: Sandbox, *words: str, code: int, path: Path = TREE) -> str:
    home = box.place / "dora"
    home.mkdir(exist_ok=True)
    os.chown(home, 70123, 70123)
    command = [sys.executable, "-m", "appbox", "--user", "dora", *words]
    alone = ["unshare", "--mount", "sh", "-ec", _ALONE, "sh", str(home), *command]
    return run(alone, code=code, env={**os.environ, "PYTHONPATH": str(path)}, cwd=box.place).err


def test_what_root_alone_can_read_is_not_read_for_a_user(box: Sandbox) -> None:
    box.manifest()
    box.services.chmod(0o700)
    file = box.services / "web.toml"
    assert as_root_for_dora(box, "plan", str(file), code=1) == (
        f"appbox: {file}: cannot be read: Permission denied; it is read as dora: let this user read it\n"
    )
    assert as_root_for_dora(box, "plan", str(box.services), code=1) == (
        f"appbox: {box.services}: permission denied; this is done as dora\n"
    )


def test_an_appbox_that_root_alone_can_read_works_for_no_user(box: Sandbox) -> None:
    own = box.place / "own"
    for part in ("appbox", "generators"):
        shutil.copytree(TREE / part, own / part, ignore=shutil.ignore_patterns("__pycache__"))
    own.chmod(0o700)
    found = as_root_for_dora(box, "status", code=8, path=own)
    assert f"{own}/appbox/host: dora cannot read appbox's own files; install it where everybody can" in found


def test_what_is_rendered_is_roots_or_with_user_the_users_own(box: Sandbox) -> None:
    home = box.place / "home"
    for words, place in (((), "etc/systemd/system"), (("--user",), f"{home}/.config/systemd/user")):
        out = home / f"out{len(words)}"
        box.appbox_as_nobody(*words, "render", box.manifest(volumes=None), "-o", out)
        (unit,) = out.rglob("web.service")
        assert str(unit.parent).endswith(place)
        assert (str(home) in unit.read_text()) == bool(words)
