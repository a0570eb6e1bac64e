"""What is wrong with an ordinary user's ids, places and home ends in a sentence, and leaves nothing half-done."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.ground import layers
from tests.ground.other_host import AS_USER, HOME, RANGE, UID, World
from tests.ground.sandbox import GROUP, PASSWD, Result, Sandbox

pytestmark = pytest.mark.root

APPLY = '"$@" --init none apply /run/web.toml; echo "ended: $?"'
LEFT = "find /mnt/dora/.local/share/appbox/containers /dev/shm -mindepth 1 2>/dev/null || :"
ADVICE = "appbox doctor says what to do"
NO_IDS = f"33:33 is not within 0 to 0; you have no subordinate ids; {ADVICE}"
DISK = "truncate -s 16M /run/disk; mkfs.ext4 -q -F -m 0 {} /run/disk; mount -o loop /run/disk /mnt"


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return a host with an image and a manifest that everybody may read; its user has no login's directory."""
    (tmp_path / "box").mkdir()
    box = Sandbox(tmp_path / "box")
    box.image(
        "1.0",
        layers.directory(b"etc"),
        layers.file(b"etc/passwd", PASSWD),
        layers.file(b"etc/group", GROUP),
        layers.directory(b"bin"),
        layers.file(b"bin/app", b"#!/bin/sh\n" * 200_000, mode=0o755),
        layers.directory(b"seed", uid=33, gid=33, mode=0o750),
    )
    box.manifest(image="oci:/run/images", network={"mode": "none"})
    world = World(tmp_path)
    world.setup.append(f"cp -R {box.images} {box.services}/web.toml /run/; chmod -R a+rX /run")
    world.setup.append("mount -t tmpfs -o mode=1777 tmpfs /dev/shm")
    return world


def attempt(world: World, script: str = APPLY, **environ: str) -> Result:
    """Run a script there in which "$@" is appbox as dora; what is left of hers stands at its end."""
    words = ["sh", "-c", f"{script}\n{LEFT}", "sh", sys.executable, "-c", AS_USER]
    return world.start(words, environ={"XDG_RUNTIME_DIR": "", **environ})


def ids(world: World, *lines: str) -> None:
    for name in ("subuid", "subgid"):
        world.file(f"/etc/{name}", "".join(f"{line}\n" for line in lines))


def garbage(world: World) -> None:
    world.home()
    ids(world, "rubbish", "\0\0:1", "dora:x:y", "dora:-1:5", "dora:99999999999999999999:1", ":::", "dora:5:0")


def few(world: World) -> None:
    world.home()
    ids(world, "dora:500000:10")


def own(world: World) -> None:
    world.home()
    ids(world, "dora:0:65536")


def no_newuidmap(world: World) -> None:
    world.home()
    world.hide("newuidmap")


def powerless(world: World) -> None:
    world.home()
    world.setup.append("mount --bind /usr/bin/newuidmap /usr/bin/newuidmap")
    world.setup.append("mount -o remount,bind,nosuid /usr/bin/newuidmap")


def no_entry(world: World) -> None:
    world.home()
    world.file("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")


def noexec(world: World) -> None:
    world.home(",noexec")


def read_only(world: World) -> None:
    world.home()
    world.setup.append("mount -o remount,ro /mnt")


def full(world: World) -> None:
    world.setup += [DISK.format("-O ^has_journal"), HOME, "head -c 15M /dev/zero >/mnt/full 2>/dev/null || :"]


def without_inodes(world: World) -> None:
    world.setup += [DISK.format("-N 40"), HOME]


def of_somebody(world: World) -> None:
    world.home()
    world.setup.append("chown 60002 /mnt/dora")


def taken(world: World) -> None:
    world.home()
    world.setup.append("mkdir /dev/shm/appbox-60001")


@pytest.mark.parametrize(
    ("wrong", "code", "words"),
    [
        (garbage, 6, NO_IDS),
        (few, 6, f"33:33 is not within 0 to 10; these are few ids for an image; {ADVICE}"),
        (own, 8, "newuidmap does not map the ids of dora"),
        (no_newuidmap, 8, f"newuidmap is not installed: the subordinate ids of dora are mapped by it; {ADVICE}"),
        (powerless, 8, "newuidmap does not map the ids of dora"),
        (no_entry, 8, f"user {UID} has no home directory: the user has no password entry; set HOME"),
        (noexec, 8, "web.toml:1: /mnt/dora/.local/share/appbox/containers is on a file system from which no program"),
        (read_only, 1, "/mnt/dora/.local: read-only file system"),
        (full, 1, "o space left on device"),
        (without_inodes, 1, "no space left on device; make room and run the same command again"),
        (of_somebody, 1, ": permission denied; this is done as dora"),
        (taken, 8, f"/dev/shm/appbox-{UID}: the directory belongs to the user id 0; {ADVICE}"),
    ],
)
def test_it_ends_in_a_sentence(world: World, wrong: Callable[[World], None], code: int, words: str) -> None:
    wrong(world)
    ended = attempt(world)
    assert words in ended.err
    assert len(ended.err.strip().splitlines()) == 1
    left = [line for line in ended.out.partition(f"ended: {code}\n")[2].splitlines() if "/dev/shm" not in line]
    assert f"ended: {code}\n" in ended.out
    assert left == []


def test_a_runtime_directory_of_somebody_else(world: World) -> None:
    world.home()
    world.setup.append("install -d -m 0700 -o 60002 /run/other")
    ended = attempt(world, XDG_RUNTIME_DIR="/run/other")
    assert f"/run/other: XDG_RUNTIME_DIR belongs to the user id 60002; {ADVICE}" in ended.err
    assert ended.out == "ended: 8\n"


def test_what_is_no_reason_to_refuse(world: World) -> None:
    """Lines of strangers, ranges that overlap, a home without attributes and setuid, an old directory of root's."""
    world.setup += ["mount -t ramfs -o mode=0755,nosuid ramfs /mnt", HOME]
    ids(world, "rubbish", "\0:1", RANGE.strip(), "dora:530000:65536", "max:1:x")
    world.setup.append(f"install -d -m 0700 /run/user/{UID}")
    check = "stat -c '%u:%g' /mnt/dora/.local/share/appbox/containers/web/rootfs/seed"
    done = attempt(world, f"{APPLY}\n{check}\n{APPLY}", XDG_RUNTIME_DIR="not/absolute")
    assert done.err == ""
    assert "ended: 0\n500032:500032\nnothing to do\n" in done.out
    # The doctor knows where appbox keeps what lives in memory instead, and that such a file system is not full.
    said = world.start(
        ["sh", "-c", '"$@" doctor -q || :', "sh", sys.executable, "-c", AS_USER], environ={"XDG_RUNTIME_DIR": ""}
    ).out
    assert f"/run/user/{UID} belongs to the user id 0: appbox uses /dev/shm/appbox-{UID}" in said
    assert "(ramfs) keeps no extended attributes" in said
    assert "is full" not in said


def test_room_makes_an_interrupted_apply_whole(world: World) -> None:
    full(world)
    done = attempt(world, f"{APPLY}; rm /mnt/full; {APPLY}")
    assert "ended: 1\n" in done.out
    assert "done: 1 service changed" in done.out
    assert "/mnt/dora/.local/share/appbox/containers/web-1.0/rootfs/bin/app\n" in done.out
    assert ".staging" not in done.out


@pytest.mark.parametrize(
    ("wrong", "words", "advice"),
    [
        (powerless, "newuidmap is on a file system that is mounted nosuid", "mount -o remount,suid it"),
        (of_somebody, "nothing can be written to /mnt/dora/.local", "or the store elsewhere"),
        (taken, f"and /dev/shm/appbox-{UID} belongs to the user id 0", f"let root delete /dev/shm/appbox-{UID}"),
    ],
)
def test_the_doctor_has_advice(world: World, wrong: Callable[[World], None], words: str, advice: str) -> None:
    wrong(world)
    said = world.run_as_user("doctor", "-q", code=8, XDG_RUNTIME_DIR="").out
    assert words in said
    assert advice in said
