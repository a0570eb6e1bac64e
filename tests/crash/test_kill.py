"""kill -9 at every system call that changes something: whole is what is current, and the same command again converges.

strace sends the signal before the call takes effect, at the first, second, third… call of each kind until the command
ends by itself. The process is forked from this one, so that nothing has to be imported again.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from appbox import cli
from tests.ground import layers
from tests.ground.rootfs import mounted
from tests.ground.sandbox import BASE, GROUP, PASSWD, Sandbox, run

pytestmark = pytest.mark.root

STRUCTURE = ("rename", "renameat", "renameat2", "symlinkat", "unlinkat", "mkdirat", "syncfs")
"""Calls that make, name or remove something: tried one by one."""
REST = ("fsync", "linkat", "fchown", "fchmod", "fchownat", "fchmodat", "utimensat", "ftruncate", "pwrite64")
"""Calls of which there are many that do not differ: tried one by one at a first apply, else some of them."""


def members(text: bytes) -> tuple[bytes, ...]:
    return (
        layers.file(b"etc/passwd", PASSWD),
        layers.file(b"etc/group", GROUP),
        layers.directory(b"seed", uid=33, gid=33, mode=0o750),
        layers.file(b"seed/version", text, uid=33, gid=33),
        layers.hardlink(b"seed/twin", b"seed/version"),
        layers.symlink(b"app", b"seed/version"),
    )


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """Return a sandbox in memory, in which nothing takes long to become durable."""
    place = tmp_path_factory.mktemp("crash")
    with mounted(place, "tmpfs", "size=64m,mode=0755"):
        box = Sandbox(place)
        for tag, text in (("1.0", b"1"), ("2.0", b"2")):
            box.image(tag, *members(text))
        yield box


@dataclass
class Killing:
    """A sandbox that is put back to where it was before each try; `command` is what is killed."""

    box: Sandbox
    command: tuple[object, ...]

    def __post_init__(self) -> None:
        run(["cp", "-a", str(self.box.root), str(self.box.place / "before")])

    def restore(self) -> None:
        shutil.rmtree(self.box.root)
        run(["cp", "-a", str(self.box.place / "before"), str(self.box.root)])

    def sweep(self, calls: tuple[str, ...], check: Callable[[], None], step: int = 1) -> int:
        """Kill at every `step`th call of each kind, call `check` after each; return how often."""
        killed = 0
        for call in calls:
            number = 1
            while self._killed_at(call, number):
                killed += 1
                try:
                    check()
                except AssertionError as error:
                    error.add_note(f"killed at {call} number {number}")
                    raise
                number += step
        return killed

    def _killed_at(self, call: str, number: int) -> bool:
        self.restore()
        words = [*("--root", str(self.box.root), "--init", self.box.init), *map(str, self.command)]
        ready, go = os.pipe()
        pid = os.fork()
        if pid == 0:
            _become_appbox(words, ready, go)
        os.close(ready)
        inject = f"{call}:signal=KILL:when={number}"
        tracer = subprocess.Popen(
            ["strace", "-f", "-e", f"trace={call}", "-e", f"inject={inject}", "-o", "/dev/null", "-p", str(pid)],
            stderr=subprocess.PIPE,
        )
        try:
            assert tracer.stderr is not None
            assert b"attached" in tracer.stderr.readline()
            os.write(go, b"x")
        finally:
            os.close(go)
            _, status = os.waitpid(pid, 0)
            tracer.communicate()
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL
            return True
        assert os.waitstatus_to_exitcode(status) == 0
        return False


def _become_appbox(words: list[str], ready: int, go: int) -> None:
    """In the child: wait until it is traced, then run the command line and end."""
    code = 99
    try:
        os.close(go)
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - it ends with the process
        if os.read(ready, 1):
            code = cli.run(words)
    finally:
        os._exit(code)


@pytest.fixture
def kill(template: Sandbox) -> Iterator[Callable[..., Killing]]:
    made: list[Killing] = []

    def begin(*command: object) -> Killing:
        made.append(Killing(template, command))
        return made[0]

    run(["cp", "-a", str(template.root), str(template.place / "clean")])
    try:
        yield begin
    finally:
        for path in (template.root, template.place / "before"):
            shutil.rmtree(path, ignore_errors=True)
        for path in template.services.iterdir():
            path.unlink()
        (template.place / "clean").rename(template.root)


def whole(box: Sandbox, versions: tuple[str, ...]) -> None:
    """See that what is current, if anything, is one of these versions, complete, and leads to its data."""
    if not (box.containers / "web").is_symlink():
        assert not versions or "" in versions
        return
    bundle = box.current()
    assert bundle.name.removeprefix("web-") in versions
    assert json.loads((bundle / "config.json").read_text())["linux"]["uidMappings"][0]["hostID"] == BASE
    assert (bundle / "run").stat().st_mode & 0o111
    assert (bundle / "bundle.toml").read_text().startswith("created = ")
    assert (bundle / "rootfs/seed/version").read_text() in "12m"
    data = bundle / "data"
    if (bundle / ".carry").is_symlink() and not data.exists():
        data = bundle / os.readlink(bundle / ".carry")
    assert (data / "data/version").exists()


def mine(box: Sandbox) -> list[Path]:
    return list(box.containers.rglob("mine"))


def settled(box: Sandbox, version: str) -> None:
    """Give the command again, and see that it is as if nothing had happened."""
    box.appbox("apply", box.services)
    assert box.current().name == f"web-{version}"
    assert not (box.current() / ".carry").is_symlink()
    whole(box, (version,))
    box.settled()


def put(box: Sandbox) -> None:
    (box.current() / "data/data/mine").write_text("x")


def data_once(box: Sandbox) -> None:
    (found,) = mine(box)
    assert found.read_text() == "x"


def test_a_first_apply(template: Sandbox, kill: Callable[..., Killing]) -> None:
    killing = kill("apply", template.manifest())

    def check() -> None:
        whole(template, ("", "1.0"))
        settled(template, "1.0")

    assert killing.sweep(STRUCTURE, check) > 40
    assert killing.sweep(REST, check, step=2) > 30


def test_a_change_of_configuration(template: Sandbox, kill: Callable[..., Killing]) -> None:
    template.apply()
    put(template)
    volumes = {"data": {"path": "/seed"}, "more": {"path": "/more"}}
    killing = kill("apply", template.manifest(config={"/c": {"text": "x"}}, volumes=volumes, service={"enable": False}))

    def check() -> None:
        whole(template, ("1.0",))
        data_once(template)
        settled(template, "1.0")
        data_once(template)
        assert (template.current() / "config/c").read_text() == "x"

    assert killing.sweep((*STRUCTURE, *REST), check) > 20


def test_an_upgrade(template: Sandbox, kill: Callable[..., Killing]) -> None:
    template.apply()
    put(template)
    killing = kill("apply", template.manifest(version="2.0"))

    def check() -> None:
        whole(template, ("1.0", "2.0"))
        data_once(template)
        settled(template, "2.0")
        assert mine(template) == [template.current() / "data/data/mine"]

    assert killing.sweep(STRUCTURE, check) > 25
    assert killing.sweep(REST, check, step=5) > 5


def test_a_downgrade(template: Sandbox, kill: Callable[..., Killing]) -> None:
    template.apply()
    template.apply(version="2.0")
    put(template)
    killing = kill("apply", template.manifest(version="1.0"))

    def check() -> None:
        whole(template, ("1.0", "2.0"))
        data_once(template)
        settled(template, "1.0")
        assert mine(template) == [template.current() / "data/data/mine"]

    assert killing.sweep((*STRUCTURE, *REST), check) > 5


def test_a_moved_tag(template: Sandbox, kill: Callable[..., Killing]) -> None:
    template.apply()
    put(template)
    template.image("1.0", *members(b"m"))
    killing = kill("apply", template.manifest())

    def check() -> None:
        whole(template, ("1.0",))
        data_once(template)
        settled(template, "1.0")
        assert mine(template) == [template.current() / "data/data/mine"]
        assert (template.current() / "rootfs/seed/version").read_text() == "m"

    try:
        assert killing.sweep(STRUCTURE, check) > 25
        assert killing.sweep(REST, check, step=5) > 5
    finally:
        template.image("1.0", *members(b"1"))


BRIDGED: dict[str, Any] = {
    "network": {"mode": "bridge", "ports": ["8080:80"]},
    "secrets": {"a": {"file": "/etc/secret"}},
    "health": {"tcp": 80},
    "security": {"rootfs": "persistent"},
}
"""A service that needs an address, units of its health, and a place for what it writes."""
JOB: dict[str, Any] = {"network": {"mode": "none"}, "service": {"schedule": "daily"}}


def test_an_address_health_and_secrets(template: Sandbox, kill: Callable[..., Killing]) -> None:
    killing = kill("apply", template.manifest(**BRIDGED))

    def check() -> None:
        whole(template, ("", "1.0"))
        settled(template, "1.0")
        assert 'web" = { network = "appbox", address = "10.89.0.2" }' in addresses(template)
        assert len(list((template.root / "etc/systemd/system").glob("web*.*"))) == 3

    assert killing.sweep(STRUCTURE, check) > 50


def addresses(box: Sandbox) -> str:
    return (box.root / "var/lib/appbox/addresses.toml").read_text()


def test_a_service_becomes_a_job_in_the_table_of_cron(template: Sandbox, kill: Callable[..., Killing]) -> None:
    (template.root / "usr/sbin").mkdir(parents=True)
    (template.root / "usr/sbin/crond").symlink_to("/bin/busybox")
    table = template.root / "etc/crontabs/root"
    table.parent.mkdir(parents=True)
    theirs = "0 0 * * * theirs\n"
    table.write_text(theirs)
    template.init = "openrc"
    try:
        template.apply(**BRIDGED)
        put(template)
        killing = kill("apply", template.manifest(**JOB))

        def check() -> None:
            whole(template, ("1.0",))
            data_once(template)
            assert table.read_text().startswith(theirs)
            settled(template, "1.0")
            due = "0 0 * * * /opt/containers/web/run due\n"
            assert table.read_text().removeprefix(theirs).splitlines(keepends=True)[1:] == [due]

        assert killing.sweep(STRUCTURE, check) > 10
        assert killing.sweep(REST, check, step=3) > 5
        killing = Killing(template, ("remove", "web"))

        def gone() -> None:
            template.appbox("remove", "web", code=None)
            assert table.read_text() == theirs
            assert not (template.root / "etc/init.d/web").exists()
            data_once(template)

        assert killing.sweep(STRUCTURE, gone) > 10
    finally:
        template.init = "systemd"


def test_writes_go_with_an_image_that_is_unpacked_anew(template: Sandbox, kill: Callable[..., Killing]) -> None:
    template.apply(security={"rootfs": "persistent"})
    put(template)
    upper = template.current() / "upper"
    upper.mkdir()
    (upper / "written").touch()
    shutil.rmtree(template.current() / "rootfs")
    killing = kill("apply", template.manifest(security={"rootfs": "persistent"}))

    def check() -> None:
        assert len(list(template.containers.rglob("written"))) == 1
        data_once(template)
        settled(template, "1.0")
        assert (template.current() / "upper/written").exists()
        assert len(list(template.containers.rglob("written"))) == 1
        data_once(template)

    assert killing.sweep((*STRUCTURE, "fsync"), check) > 30


def removed(box: Sandbox, *words: str) -> None:
    """Give the command again; when nothing at all was left to do, it may say so."""
    result = box.appbox("remove", *words, "web", code=None)
    assert result.code == 0 or "is not installed" in result.err, result
    assert not (box.root / "etc/systemd/system/web.service").exists()
    assert box.appbox("--json", "status").data() == []
    assert not box.debris()


def test_a_removal(template: Sandbox, kill: Callable[..., Killing]) -> None:
    template.apply()
    template.apply(version="2.0")
    put(template)
    killing = kill("remove", "web")

    def check() -> None:
        data_once(template)
        removed(template)
        data_once(template)
        assert os.listdir(template.containers) == ["web-2.0"]
        assert sorted(os.listdir(template.containers / "web-2.0")) == ["bundle.toml", "data"]
        settled(template, "1.0")
        assert mine(template) == [template.current() / "data/data/mine"]

    template.manifest(version="1.0")
    assert killing.sweep((*STRUCTURE, "fsync"), check, step=2) > 20


def test_a_purge(template: Sandbox, kill: Callable[..., Killing]) -> None:
    template.apply()
    put(template)
    killing = kill("remove", "web", "--purge")

    def check() -> None:
        removed(template, "--purge")
        assert os.listdir(template.containers) == []
        assert "web" not in (template.root / "var/lib/appbox/uid-ranges.toml").read_text()

    assert killing.sweep((*STRUCTURE, "fsync", "rmdir"), check) > 20
