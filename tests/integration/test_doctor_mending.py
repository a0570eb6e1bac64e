"""What `doctor --fix` writes: below a root of its own, with the locks of shadow."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from appbox.doctor import becoming, ids_file, mending, probe_host
from appbox.doctor.values import GiveIds, NewFile, Run
from appbox.errors import AppboxError, HostLacks
from appbox.host.facts import IdRange
from appbox.store.root import Root

ALICE = GiveIds("alice", IdRange(100_000, 65536), IdRange(200_000, 65536))


@pytest.fixture
def root(tmp_path: Path) -> Root:
    (tmp_path / "etc").mkdir()
    return Root(str(tmp_path))


def etc(root: Root, name: str) -> Path:
    return Path(root.path) / "etc" / name


def test_lines_are_appended_and_the_rest_is_kept(root: Root) -> None:
    """Mode, owner, comments and a last line without its end stay; what was is kept as shadow keeps it."""
    etc(root, "subuid").write_text("# ours\nbob:300000:65536")
    etc(root, "subuid").chmod(0o640)
    os.chown(etc(root, "subuid"), 0, 42)
    ids_file.give(root, ALICE)
    info = etc(root, "subuid").stat()
    assert etc(root, "subuid").read_text() == "# ours\nbob:300000:65536\nalice:100000:65536\n"
    assert (info.st_mode & 0o7777, info.st_gid) == (0o640, 42)
    assert etc(root, "subuid-").read_text() == "# ours\nbob:300000:65536"
    assert etc(root, "subgid").read_text() == "alice:200000:65536\n"
    assert sorted(os.listdir(etc(root, ""))) == [".pwd.lock", "subgid", "subgid-", "subuid", "subuid-"]


def test_a_range_that_was_given_meanwhile_is_not_given_again(root: Root) -> None:
    etc(root, "subuid").write_text("bob:165535:10\n")
    with pytest.raises(
        AppboxError, match="/etc/subuid: the range from 100000 on is not free: line 1 has given it to bob"
    ):
        ids_file.give(root, ALICE)
    assert etc(root, "subuid").read_text() == "bob:165535:10\n"
    assert not etc(root, "subgid").exists()
    assert not etc(root, "subuid.lock").exists()


def test_what_is_no_file_is_left_alone(root: Root) -> None:
    etc(root, "subuid").symlink_to("/etc/passwd")
    with pytest.raises(AppboxError, match="/etc/subuid: is not a regular file, and so left alone"):
        ids_file.give(root, ALICE)


def test_the_lock_of_shadow_is_waited_for(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = etc(root, "subuid.lock")
    lock.write_text(str(os.getpid()))
    waiter = threading.Thread(target=ids_file.give, args=(root, ALICE))
    waiter.start()
    time.sleep(0.3)
    assert not etc(root, "subuid").exists()
    lock.unlink()
    waiter.join(10)
    assert etc(root, "subuid").exists()
    lock.write_text(str(os.getpid()))
    monkeypatch.setattr(ids_file, "_PATIENCE", 0.2)
    with pytest.raises(AppboxError, match=r"is locked by another program; see /etc/subuid\.lock"):
        ids_file.give(root, GiveIds("bob", IdRange(400_000, 65536), None))


def test_the_lock_of_a_dead_process_is_taken(root: Root) -> None:
    etc(root, "subuid.lock").write_text("999999999")
    ids_file.give(root, ALICE)
    assert not etc(root, "subuid.lock").exists()


def test_files_of_appbox_s_own(tmp_path: Path) -> None:
    step = NewFile(f"{tmp_path}/a/b/appbox.conf", "x = 1\n", 0o755)
    mending.carry_out(step)
    mending.carry_out(step)
    assert (tmp_path / "a/b/appbox.conf").read_text() == "x = 1\n"
    assert (tmp_path / "a/b/appbox.conf").stat().st_mode & 0o7777 == 0o755
    with pytest.raises(AppboxError, match=r"appbox\.conf: is there with other content, and so left alone"):
        mending.carry_out(NewFile(step.path, "x = 2\n"))
    assert (tmp_path / "a/b/appbox.conf").read_text() == "x = 1\n"


def test_the_command_that_is_shown_does_the_same(tmp_path: Path) -> None:
    step = NewFile(f"{tmp_path}/a/x.start", "#!/bin/sh\necho 'it'\"'\"'s %s\\n'\n", 0o755)
    mending.carry_out(Run(("sh", "-c", step.shown)))
    assert (tmp_path / "a/x.start").read_text() == step.text
    assert (tmp_path / "a/x.start").stat().st_mode & 0o7777 == 0o755
    assert GiveIds("a", IdRange(1, 2), None).shown == "echo a:1:2 >>/etc/subuid"


def test_programs_that_fail_say_why() -> None:
    with pytest.raises(AppboxError, match="sh -c 'echo no such thing >&2; exit 3': failed: no such thing"):
        mending.carry_out(Run(("sh", "-c", "echo no such thing >&2; exit 3")))
    with pytest.raises(HostLacks, match="nosuchprogram is not installed"):
        mending.carry_out(Run(("nosuchprogram", "-y")))


def test_settings_of_openrc_are_read_as_openrc_reads_them(root: Root) -> None:
    """The last plain assignment counts, and rc.conf.d comes after rc.conf; what is no such thing is passed over."""
    etc(root, "rc.conf").write_text(
        '#rc_cgroup_mode="hybrid"\nrc_cgroup_mode="legacy" # ours\nrc_cgroup_controllers=\'cpu\nrc_x=$(reboot)\n'
    )
    etc(root, "runlevels/sysinit").mkdir(parents=True)
    found = probe_host.openrc(root)
    assert (found.mode, found.controllers, found.in_runlevel) == ("legacy", "", False)
    etc(root, "rc.conf.d").mkdir()
    etc(root, "rc.conf.d/appbox.conf").write_text('rc_cgroup_mode="unified"\nrc_cgroup_controllers="cpu io"\n')
    etc(root, "runlevels/sysinit/cgroups").symlink_to("/etc/init.d/cgroups")
    found = probe_host.openrc(root)
    assert (found.mode, found.controllers, found.in_runlevel) == ("unified", "cpu io", True)


def test_looking_as_somebody_else() -> None:
    """Root is given up for good; a child that fails, or is ended, is an error of one sentence."""
    assert becoming.as_user(60_001, 60_002, lambda: {"ids": [*os.getresuid(), *os.getresgid(), *os.getgroups()]}) == {
        "ids": [60_001] * 3 + [60_002] * 3
    }

    def refused() -> dict[str, object]:
        os.setuid(0)
        return {}

    with pytest.raises(AppboxError, match=r"what the user id 60001 may do cannot be seen: .*not permitted"):
        becoming.as_user(60_001, 60_001, refused)

    def killed() -> dict[str, object]:
        os.kill(os.getpid(), signal.SIGKILL)
        return {}

    with pytest.raises(AppboxError, match="it was ended by signal 9"):
        becoming.as_user(60_001, 60_001, killed)
