"""The tree, the source archive and the wheel hold the same program, templates included."""

from __future__ import annotations

import os
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from appbox import __version__
from tests.ground.sandbox import Sandbox, run

TREE = Path(__file__).parents[2]
TEMPLATES = sorted(path.relative_to(TREE / "generators") for path in (TREE / "generators").rglob("*.j2"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a source archive made of the tree, and a wheel made of that archive."""
    out = tmp_path_factory.mktemp("dist")
    # Not from the tree itself: a build must not depend on what else lies there, nor leave anything behind.
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(TREE)], cwd=out)
    return out


def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


def test_the_tree_shows_its_templates_to_the_package() -> None:
    assert len(TEMPLATES) > 20
    link = TREE / "appbox/units/templates"
    assert os.readlink(link) == "../../generators"
    for path in TEMPLATES:
        assert (link / path).is_file()


def test_the_wheel_has_everything_and_nothing_twice(built: Path) -> None:
    with zipfile.ZipFile(wheel(built)) as archive:
        names = archive.namelist()
        for path in TEMPLATES:
            assert archive.read(f"appbox/units/templates/{path}") == (TREE / "generators" / path).read_bytes()
    assert len(names) == len(set(names))
    modules = {str(p.relative_to(TREE)) for p in (TREE / "appbox").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == modules
    assert not [name for name in names if "__pycache__" in name or name.startswith("tests/")]
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_source_archive_has_what_a_build_and_its_tests_need(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "dev", "services/valkey.toml"}
    wanted |= {"tests/conftest.py", "appbox/oci/seccomp.py", *(f"appbox/units/templates/{path}" for path in TEMPLATES)}
    assert wanted <= names


def test_an_installed_wheel_renders(built: Path, tmp_path: Path) -> None:
    """Installed elsewhere, with the dependencies of this environment and nothing of this tree."""
    home = tmp_path / "venv"
    run([sys.executable, "-m", "venv", "--without-pip", str(home)])
    pip = [sys.executable, "-m", "pip", "--python", str(home / "bin/python"), "--disable-pip-version-check"]
    run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel(built))])
    (site,) = home.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    box = Sandbox(tmp_path)
    clean = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    program = str(home / "bin/appbox")
    assert run([program, "--version"], env=clean, cwd=tmp_path).out == f"appbox {__version__}\n"
    where = run([str(home / "bin/python"), "-c", "import appbox; print(appbox.__file__)"], env=clean, cwd=tmp_path).out
    assert where.startswith(str(site))
    for init, unit in (("systemd", "etc/systemd/system/web.service"), ("openrc", "etc/init.d/web")):
        out = tmp_path / init
        words = ["--root", str(box.root), "--init", init, "render", str(box.manifest()), "-o", str(out)]
        run([program, *words], env=clean, cwd=tmp_path)
        assert (out / "web-1.0/unit" / unit).is_file()
        assert (out / "web-1.0/run").stat().st_mode & 0o111
    run([program, "--root", str(box.root), "status"], env=clean, cwd=tmp_path)
