"""The ordinary user who runs appbox: what the environment says, what is used where it says nothing, what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from appbox.errors import AppboxError, HostLacks, UsageError
from appbox.host import ordinary
from appbox.owner import Extent

ME = os.getuid()
NOBODY = 2_000_000_011
"""A number that no user has."""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    (tmp_path / "runtime").mkdir(mode=0o700)
    return tmp_path / "runtime"


@pytest.fixture
def environ(home: Path, runtime: Path) -> dict[str, str]:
    return {"HOME": str(home), "XDG_RUNTIME_DIR": str(runtime)}


def test_without_a_word_everything_is_at_home(environ: dict[str, str], home: Path, runtime: Path) -> None:
    found = ordinary.find(environ)
    assert (found.uid, found.home, found.runtime) == (ME, str(home), str(runtime))
    assert (found.data, found.config, found.cache) == (f"{home}/.local/share", f"{home}/.config", f"{home}/.cache")
    assert found.uids[0] == Extent(0, ME, 1)
    assert not found.by_root


def test_absolute_directories_of_the_environment_count(environ: dict[str, str], tmp_path: Path) -> None:
    named = {key: f"{tmp_path}//x/../{key}/" for key in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")}
    found = ordinary.find({**environ, **named})
    assert [found.data, found.config, found.cache] == [f"{tmp_path}/{key}" for key in named]


@pytest.mark.parametrize("value", ["", "data", "./data", "~/data"])
def test_relative_directories_of_the_environment_are_ignored(environ: dict[str, str], home: Path, value: str) -> None:
    named = dict.fromkeys(("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"), value)
    found = ordinary.find({**environ, **named})
    assert (found.data, found.config, found.cache) == (f"{home}/.local/share", f"{home}/.config", f"{home}/.cache")


def test_a_home_that_is_missing_is_said(environ: dict[str, str], home: Path) -> None:
    with pytest.raises(HostLacks, match="no home directory"):
        ordinary.find({**environ, "HOME": f"{home}/none"})
    with pytest.raises(HostLacks, match=r"user 2000000011 has no home directory: .* no password entry; set HOME"):
        ordinary.find({**environ, "HOME": ""}, NOBODY)
    with pytest.raises(HostLacks, match="no home directory"):
        ordinary.find({**environ, "HOME": "relative"})


@pytest.mark.parametrize("variable", ["XDG_DATA_HOME", "XDG_CONFIG_HOME", "HOME", "XDG_RUNTIME_DIR"])
@pytest.mark.parametrize("name", ["a b", "a:b", "ä", "a\nb", "a'b", "a%b", "a$b"])
def test_what_no_script_can_carry_is_refused(environ: dict[str, str], tmp_path: Path, variable: str, name: str) -> None:
    odd = tmp_path / name
    odd.mkdir(mode=0o700)
    with pytest.raises(AppboxError, match="cannot be written into a unit or script") as caught:
        ordinary.find({**environ, variable: str(odd)})
    assert caught.value.where.startswith(str(odd))


def test_a_cache_may_be_anywhere(environ: dict[str, str], tmp_path: Path) -> None:
    assert ordinary.find({**environ, "XDG_CACHE_HOME": f"{tmp_path}/a b"}).cache == f"{tmp_path}/a b"


def test_what_is_wrong_with_a_runtime_directory_is_said(runtime: Path) -> None:
    assert ordinary.runtime_fault(str(runtime), ME) == ""
    assert ordinary.runtime_fault(str(runtime), ME + 1) == f"belongs to the user id {ME}"
    assert ordinary.runtime_fault(f"{runtime}/none", ME) == "cannot be used (No such file or directory)"
    file, link = runtime / "file", runtime / "link"
    file.touch(0o600)
    link.symlink_to(runtime)
    assert ordinary.runtime_fault(str(file), ME) == "is no directory"
    assert ordinary.runtime_fault(str(link), ME) == "is no directory"
    for mode in (0o710, 0o701, 0o777, 0o1777):
        runtime.chmod(mode)
        assert ordinary.runtime_fault(str(runtime), ME) == f"is open to others: its mode is {mode:04o}"


def test_a_runtime_directory_that_is_named_has_to_be_a_good_one(environ: dict[str, str], runtime: Path) -> None:
    runtime.chmod(0o755)
    with pytest.raises(HostLacks, match="XDG_RUNTIME_DIR is open to others") as caught:
        ordinary.find(environ)
    assert caught.value.where == str(runtime)
    runtime.rmdir()
    with pytest.raises(HostLacks, match="No such file"):
        ordinary.find(environ)


@pytest.mark.parametrize("named", ["", "run"])
def test_where_no_login_made_one_it_is_made_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.setattr(ordinary, "SHARED_MEMORY", str(tmp_path))
    made = tmp_path / f"appbox-{NOBODY}"
    # As if this process were that user's: what it makes would belong to it.
    with pytest.raises(HostLacks, match=f"the directory belongs to the user id {ME}"):
        ordinary.runtime({"XDG_RUNTIME_DIR": named}, NOBODY)
    assert (made.stat().st_mode & 0o7777, made.stat().st_uid) == (0o700, ME)
    if not ordinary.runtime_fault(f"/run/user/{ME}", ME):
        assert ordinary.runtime({}, ME) == f"/run/user/{ME}"
        return
    for _ in range(2):
        assert ordinary.runtime({"XDG_RUNTIME_DIR": named}, ME) == f"{tmp_path}/appbox-{ME}"


@pytest.mark.parametrize("kind", ["file", "link", "open"])
def test_what_somebody_else_put_in_its_place_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(ordinary, "SHARED_MEMORY", str(tmp_path))
    place = tmp_path / f"appbox-{NOBODY}"
    if kind == "file":
        place.touch()
    elif kind == "link":
        place.symlink_to(tmp_path)
    else:
        place.mkdir(mode=0o755)
    words = "the directory belongs to the user id" if kind == "open" else "the directory is no directory"
    with pytest.raises(HostLacks, match=words):
        ordinary.runtime({}, NOBODY)


def test_where_nothing_can_be_made_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordinary, "SHARED_MEMORY", f"{tmp_path}/none")
    with pytest.raises(HostLacks, match=r"there is no XDG_RUNTIME_DIR, and none can be made: (?i:no such file)"):
        ordinary.runtime({}, NOBODY)


@pytest.mark.parametrize("name", ["root", "0", "000"])
def test_root_is_no_ordinary_user(name: str) -> None:
    with pytest.raises(UsageError, match="root is no ordinary user; leave --user out"):
        ordinary.named(name)


@pytest.mark.parametrize("name", ["no-such-user", str(NOBODY)[:9], str(NOBODY), "", "a\nb", "٣"])
def test_a_user_whom_the_host_does_not_know_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="this host has no such user"):
        ordinary.named(name)
