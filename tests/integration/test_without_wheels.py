"""Machines for which there is no isal and no zstd: the first costs time and is said once, the second is a sentence."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.ground import unpackers
from tests.ground.faulty import Faulty, serve
from tests.ground.layers import archive, file
from tests.ground.sandbox import Result, Sandbox, run

pytestmark = pytest.mark.root

SLOW = "note: gzip layers are inflated by zlib"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Python of an environment that has all that this one has, but isal and zstd."""
    home = tmp_path_factory.mktemp("bare") / "venv"
    run([sys.executable, "-m", "venv", "--without-pip", str(home)])
    (site,) = home.glob("lib/python*/site-packages")
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not path.name.startswith(("isal", "backports", "_distutils", "distutils-precedence")):
            (site / path.name).symlink_to(path)
    return home / "bin/python"


def appbox(python: Path, box: Sandbox, *words: object, code: int = 0) -> Result:
    """Run appbox with that Python."""
    clean = {"PATH": os.environ["PATH"], "HOME": str(box.place)}
    _, *rest = box.command(*words)
    assert Path(box.command()[0]).samefile(sys.executable)
    return run([str(python), *rest], env=clean, code=code)


def test_gzip_goes_through_zlib_and_that_is_said_once(python: Path, tmp_path: Path) -> None:
    assert run([str(python), "-c", "import isal"], code=1).err
    box = Sandbox(tmp_path)
    box.image("2.0", file(b"f", b"2"))
    with serve(Faulty(box.content)) as host:
        for name, version in (("one", "1.0"), ("two", "2.0")):
            volumes = {"volumes": None} if version == "2.0" else {}
            box.manifest(name, version, image=f"{host}/any/repository", **volumes)
        assert SLOW not in appbox(python, box, "plan", box.services).err
        done = appbox(python, box, "apply", box.services)
    assert done.err.count(SLOW) == 1
    assert (box.containers / "one/rootfs/etc/passwd").exists()
    assert (box.containers / "two/rootfs/f").read_bytes() == b"2"
    assert SLOW not in appbox(python, box, "apply", box.services).err
    box.appbox("verify")


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="this Python has zstd itself")
def test_zstd_is_refused_in_a_sentence(python: Path, tmp_path: Path) -> None:
    box = Sandbox(tmp_path)
    image = unpackers.layout(tmp_path / "mixed", [archive(file(b"f"))], ["zstd"])
    error = appbox(python, box, "image", "unpack", f"oci:{image}", tmp_path / "out", code=8).err
    assert "what is compressed with zstd cannot be read or written: this Python has no zstd" in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()
