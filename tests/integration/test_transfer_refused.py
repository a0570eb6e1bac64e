"""What export and import refuse: words that are wrong, and whatever would replace what is there."""

from __future__ import annotations

import io
import os
import shutil
import sys
from pathlib import Path

import pytest

from appbox import lock_file
from tests.ground.carried import fill
from tests.ground.sandbox import Sandbox, snapshot

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


def test_nothing_is_replaced_unasked(here: Sandbox, there: Sandbox) -> None:
    here.apply()
    fill(here)
    file = here.place / "web.tar"
    here.appbox("export", "web", "--data", "-o", file)
    there.services.mkdir()
    (there.services / "web.toml").write_text("mine")
    before = there.snapshot(), snapshot(there.services)
    result = there.appbox("import", file, "-d", there.services, code=1)
    assert "web.toml: is there already, and says something else" in result.err
    assert (outside_of_the_cache(there), snapshot(there.services)) == (without_cache(before[0]), before[1])
    there.appbox("import", file, "-d", there.services, "--force")
    # Doing it again does nothing, and a service that is installed keeps its data.
    again = there.appbox("import", file, "-d", there.services)
    assert "with its data" not in again.out
    there.appbox("apply", "--locked", there.services)
    (there.current() / "data/data/mine").write_text("newer")
    result = there.appbox("import", file, "-d", there.services, code=1)
    assert "web: is installed, and keeps its own data" in result.err
    there.appbox("import", file, "-d", there.services, "--no-data")
    there.appbox("remove", "web")
    result = there.appbox("import", file, "-d", there.services, code=1)
    assert "web-1.0: has data already" in result.err
    assert (there.containers / "web-1.0/data/data/mine").read_text() == "newer"
    there.appbox("remove", "web", "--purge")
    there.appbox("import", file, "-d", there.services)
    there.appbox("apply", "--locked", there.services)
    assert (there.current() / "data/data/mine").read_text() == "written"


def outside_of_the_cache(box: Sandbox) -> dict[str, tuple[object, ...]]:
    return without_cache(box.snapshot())


def without_cache(found: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    """Leave out what every command makes: the lock, the cache's directory, and what is around them."""
    own = ("var/lib/appbox/lock", "var/cache/appbox", "var", "var/lib", "var/lib/appbox", "var/cache")
    return {path: info for path, info in found.items() if path not in own}


def test_a_lock_that_says_something_else(here: Sandbox, there: Sandbox) -> None:
    here.apply()
    file = here.place / "web.tar"
    here.appbox("export", "web", "-o", file)
    there.appbox("import", file, "-d", there.services)
    lock = there.services / "appbox.lock"
    whole = lock.read_text()
    lock.write_text(whole.replace(here.content.tags["1.0"], f"sha256:{'0' * 64}").replace('"web"', '"db"', 1) + "")
    there.appbox("import", file, "-d", there.services)
    assert [e.name for e in lock_file.parse(lock.read_text(), "").entries] == ["db", "web"]
    lock.write_text(whole.replace(here.content.tags["1.0"], f"sha256:{'0' * 64}"))
    result = there.appbox("import", file, "-d", there.services, code=1)
    assert "appbox.lock: locks web to another image" in result.err
    there.appbox("import", file, "-d", there.services, "--force")
    assert lock.read_text() == whole


@pytest.mark.parametrize(
    ("code", "words", "said"),
    [
        (1, "export none -o x.tar", "none: is not installed"),
        (2, "export -o x.tar", "NAME"),
        (2, "export web", "-o"),
        (2, "export web -o x.tar --live", "--data"),
        (5, "import none.tar", "none.tar: no archive"),
        (2, "import", "FILE"),
        (2, "import x.tar -d ", "-d"),
    ],
)
def test_wrong_words(here: Sandbox, code: int, words: str, said: str) -> None:
    result = here.appbox(*words.split(" "), code=code)
    assert said.lower() in result.err.lower()
    assert not os.path.exists("x.tar")


def test_data_that_belongs_to_nobody_in_the_service(here: Sandbox) -> None:
    here.apply()
    (here.current() / "data/data/stray").touch()
    file = here.place / "web.tar"
    result = here.appbox("export", "web", "--data", "-o", file, code=1)
    assert "data/stray: belongs to 0:0, who is nobody in the service" in result.err
    assert not file.exists()
    here.appbox("export", "web", "-o", file)


def test_standard_output_is_no_terminal(here: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    here.apply()
    monkeypatch.setattr(sys, "stdout", Terminal())
    from appbox import exporting
    from appbox.errors import UsageError
    from appbox.session import Options

    with pytest.raises(UsageError, match="no text for a terminal"):
        exporting.export(Options(str(here.root)), exporting.Request(["web"], "-"))
