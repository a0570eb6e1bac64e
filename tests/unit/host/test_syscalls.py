"""The system calls against the real kernel."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from appbox.host import syscalls


@pytest.fixture
def here(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


class TestOpenat2:
    def test_a_link_out_of_the_root_leads_inside(self, tmp_path: Path, here: int) -> None:
        (tmp_path / "f").write_text("inside")
        (tmp_path / "up").symlink_to("../../../../f")
        for path in ("up", b"up", "/f", "../f"):
            fd = syscalls.openat2(here, path, os.O_RDONLY, resolve=syscalls.RESOLVE_IN_ROOT)
            with open(fd) as file:
                assert file.read() == "inside"

    def test_is_close_on_exec(self, here: int) -> None:
        fd = syscalls.openat2(here, ".", os.O_PATH)
        assert not os.get_inheritable(fd)
        os.close(fd)

    def test_creates_with_a_mode(self, tmp_path: Path, here: int) -> None:
        os.close(syscalls.openat2(here, "f", os.O_WRONLY | os.O_CREAT, mode=0o600))
        assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o600

    @pytest.mark.parametrize(
        ("path", "resolve", "code"),
        [
            ("missing", 0, errno.ENOENT),
            ("link", syscalls.RESOLVE_NO_SYMLINKS, errno.ELOOP),
            ("../x", syscalls.RESOLVE_BENEATH, errno.EXDEV),
            ("magic", syscalls.RESOLVE_NO_MAGICLINKS, errno.ELOOP),
            (".", 1 << 40, errno.EINVAL),
        ],
    )
    def test_errors_are_the_kernels(self, tmp_path: Path, here: int, path: str, resolve: int, code: int) -> None:
        (tmp_path / "link").symlink_to(".")
        (tmp_path / "magic").symlink_to("/proc/self/exe")
        with pytest.raises(OSError, match=os.strerror(code)) as caught:
            syscalls.openat2(here, path, os.O_RDONLY, resolve=resolve)
        assert (caught.value.errno, caught.value.filename) == (code, path)

    def test_nul(self, here: int) -> None:
        with pytest.raises(ValueError, match="null byte"):
            syscalls.openat2(here, "a\0b", os.O_RDONLY)


class TestRenameat2:
    def test_exchange(self, tmp_path: Path, here: int) -> None:
        (tmp_path / "a").write_text("a")
        (tmp_path / "b").mkdir()
        syscalls.renameat2(here, "a", here, b"b", syscalls.RENAME_EXCHANGE)
        assert (tmp_path / "b").read_text() == "a"
        assert (tmp_path / "a").is_dir()

    def test_noreplace(self, tmp_path: Path, here: int) -> None:
        (tmp_path / "a").touch()
        (tmp_path / "b").touch()
        with pytest.raises(FileExistsError):
            syscalls.renameat2(here, "a", here, "b", syscalls.RENAME_NOREPLACE)
        syscalls.renameat2(here, "a", here, "c", syscalls.RENAME_NOREPLACE)
        assert (tmp_path / "c").exists()

    def test_missing(self, here: int) -> None:
        with pytest.raises(FileNotFoundError):
            syscalls.renameat2(here, "a", here, "b", syscalls.RENAME_EXCHANGE)

    def test_a_machine_without_a_number(self, here: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(syscalls, "_NR_RENAMEAT2", {})
        with pytest.raises(OSError, match=os.strerror(errno.ENOSYS)):
            syscalls.renameat2(here, "a", here, "b", syscalls.RENAME_EXCHANGE)


def test_syncfs(here: int) -> None:
    syscalls.syncfs(here)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        syscalls.syncfs(-1)


@pytest.mark.parametrize("number", [452, 100_000])
def test_fchmod_path_with_and_without_fchmodat2(tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscalls, "_NR_FCHMODAT2", number)
    os.mkfifo(tmp_path / "p")
    fd = os.open(tmp_path / "p", os.O_PATH)
    syscalls.fchmod_path(fd, 0o4711)
    assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o4711
    os.close(fd)
    with pytest.raises(OSError, match=r"Bad file descriptor|No such file"):
        syscalls.fchmod_path(-1, 0o600)
