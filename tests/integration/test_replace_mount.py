"""Files and directories replaced in a running container: seen at once and whole, whatever the container does."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from appbox.errors import AppboxError
from appbox.host import replace_mount, runc, syscalls
from appbox.host.replace_mount import Replacement
from appbox.oci import runtime_spec
from appbox.store import paths

pytestmark = [pytest.mark.root, pytest.mark.runc]

BASE = 1_879_048_192
STAY = "while :; do sleep 0.05; done"
OPTIONS = ("bind", "ro", "nosuid", "nodev", "noexec")


@pytest.fixture
def bundle(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make a bundle of busybox below a directory that stands for /opt/containers."""
    folder = Path(f"/var/tmp/appbox-replace-{os.getpid()}")
    made = folder / f"r{os.getpid()}-1"
    (made / "rootfs/bin").mkdir(parents=True)
    for directory in ("etc/app/real", "proc", "sys", "dev"):
        (made / "rootfs" / directory).mkdir(parents=True)
    shutil.copy("/bin/busybox", made / "rootfs/bin/busybox")
    for applet in ("sh", "cat", "sleep", "mv", "ln", "grep", "mkdir", "touch", "umount"):
        (made / "rootfs/bin" / applet).symlink_to("busybox")
    for path in (made / "rootfs", *(made / "rootfs").rglob("*")):
        os.lchown(path, BASE, BASE)
    os.chown(made, 0, BASE)
    made.chmod(0o710)
    for number in (1, 2):
        (made / f"{number}/d").mkdir(parents=True)
        (made / f"{number}/file").write_text(f"{number}\n" * 1000)
        (made / f"{number}/d/inside").write_text(f"{number}\n")
    monkeypatch.setattr(paths, "CONTAINERS", str(folder))
    yield made
    subprocess.run(["runc", "delete", "--force", made.name[:-2]], capture_output=True, check=False)
    shutil.rmtree(folder)


def start(bundle: Path, script: str = STAY, *, mapped: bool = True) -> str:
    """Start the container with the first file and directory in it; return its name."""
    name = bundle.name[:-2]
    contained = runtime_spec.Container(
        args=("sh", "-c", script),
        env=("PATH=/bin",),
        userns=runtime_spec.IdMap(BASE) if mapped else None,
        mounts=(
            runtime_spec.Mount("/etc/app/real/file", f"{bundle}/1/file", "", OPTIONS),
            runtime_spec.Mount("/etc/app/real/d", f"{bundle}/1/d", "", OPTIONS),
        ),
        cgroups_path=name,
    )
    (bundle / "config.json").write_text(runtime_spec.dumps(runtime_spec.spec(contained)))
    words = ["runc", "run", "--detach", "-b", str(bundle), name]
    subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    assert runc.running(name) is not None
    return name


def inside(name: str, *words: str) -> str:
    return subprocess.run(["runc", "exec", name, *words], capture_output=True, text=True, check=False).stdout


def replacements(bundle: Path, number: int, top: str = "/etc/app/real") -> list[Replacement]:
    opened = [(leaf, os.open(bundle / str(number) / leaf, os.O_PATH | os.O_CLOEXEC)) for leaf in ("file", "d")]
    return [Replacement(fd, f"{top}/{leaf}") for leaf, fd in opened]


def replace(name: str, found: list[Replacement]) -> bool:
    try:
        return replace_mount.replace(name, found)
    finally:
        for one in found:
            os.close(one.source)


@pytest.mark.parametrize("mapped", [True, False], ids=["user namespace", "host ids"])
def test_the_new_ones_are_seen_at_once_and_the_old_ones_are_gone(bundle: Path, *, mapped: bool) -> None:
    name = start(bundle, mapped=mapped)
    before = inside(name, "cat", "/proc/self/mountinfo").count("\n")
    for number in (2, 1, 2):
        assert replace(name, replacements(bundle, number))
        seen = inside(name, "cat", "/etc/app/real/file", "/etc/app/real/d/inside")
        assert seen == f"{number}\n" * 1001
    mounts = inside(name, "cat", "/proc/self/mountinfo").splitlines()
    assert len(mounts) == before
    ours = [line.split() for line in mounts if "/etc/app/real" in line]
    assert {words[5].split(",")[:4] == ["ro", "nosuid", "nodev", "noexec"] for words in ours} == {True}
    assert inside(name, "sh", "-c", "touch /etc/app/real/d/x || echo refused") == "refused\n"


def test_a_reader_sees_the_old_or_the_new_one_whole(bundle: Path) -> None:
    whole = '[ "$(grep -c . /seen)" = 1000 ]'
    reading = f"while cat /etc/app/real/file >/seen; do {whole} || echo torn >/torn; echo >/read; done"
    name = start(bundle, f"{reading}; echo gone >/torn; {STAY}")
    for number in (2, 1) * 20:
        assert replace(name, replacements(bundle, number))
    assert inside(name, "sh", "-c", "[ -e /read ] && cat /torn || echo whole") == "whole\n"


def test_a_container_that_redirects_the_path_harms_only_itself(bundle: Path) -> None:
    name = start(bundle)
    inside(name, "sh", "-c", "mv /etc/app /etc/moved && ln -s /proc /etc/app")
    with pytest.raises(AppboxError, match="/etc/app/real/file: cannot be replaced in the running container: Too many"):
        replace(name, replacements(bundle, 2))
    inside(name, "sh", "-c", "mv /etc/app /etc/link && mkdir -p /etc/app/real")
    with pytest.raises(AppboxError, match=f"No such file or directory; appbox restart {name}"):
        replace(name, replacements(bundle, 2))
    assert inside(name, "cat", "/etc/moved/real/d/inside") == "1\n"
    host = Path("/proc/self/mountinfo").read_text()
    assert str(bundle) not in host


def test_a_race_of_renames_leaves_what_covers_the_kernels_files(bundle: Path) -> None:
    swap = "mv /etc/app /etc/a; ln -s /proc /etc/app; mv /etc/app /etc/l; mv /etc/a /etc/app"
    name = start(bundle, f"while :; do {swap}; done")
    masked = inside(name, "grep", "-c", " /proc/", "/proc/self/mountinfo")
    ended = time.monotonic() + 2
    while time.monotonic() < ended:
        try:
            replace(name, replacements(bundle, 2))
        except AppboxError:
            continue
    assert inside(name, "grep", "-c", " /proc/", "/proc/self/mountinfo") == masked
    assert str(bundle) not in Path("/proc/self/mountinfo").read_text()


def test_a_service_that_does_not_run_is_left_alone(bundle: Path) -> None:
    assert not replace(bundle.name[:-2], replacements(bundle, 2))
    assert replace_mount.possible()


def test_an_older_kernels_way_puts_it_on_top(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attach = syscalls.attach_mount

    def without_beneath(mount: int, target: int, *, beneath: bool) -> None:
        if beneath:
            raise OSError(22, "as Linux before 6.5 says")
        attach(mount, target, beneath=False)

    monkeypatch.setattr(syscalls, "attach_mount", without_beneath)
    name = start(bundle)
    for number in (2, 1, 2):
        assert replace(name, replacements(bundle, number))
        assert inside(name, "cat", "/etc/app/real/d/inside") == f"{number}\n"


def test_no_thread_and_no_directory_stays_in_the_container(bundle: Path) -> None:
    before = os.getcwd(), threading.active_count(), os.readlink("/proc/self/ns/mnt"), len(os.listdir("/proc/self/fd"))
    name = start(bundle)
    assert replace(name, replacements(bundle, 2))
    after = os.getcwd(), threading.active_count(), os.readlink("/proc/self/ns/mnt"), len(os.listdir("/proc/self/fd"))
    assert after == before
