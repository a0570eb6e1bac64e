"""A root directory, tiny images and manifests, and appbox working on them as its user would have it: by its words."""

from __future__ import annotations

import codecs
import contextlib
import functools
import importlib
import importlib.readers
import io
import json
import os
import pkgutil
import shutil
import stat
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

import appbox
from appbox import cli
from appbox.host import syscalls
from tests.ground import layers
from tests.ground.tiny import Content

BASE = 0x70000000
"""The first host id of the first service."""

NOBODY = 65534

PASSWD = b"root:x:0:0:root:/root:/bin/sh\nwww:x:33:33::/:/bin/false\n"
GROUP = b"root:x:0:\nwww:x:33:\n"


def members(text: bytes = b"1") -> tuple[bytes, ...]:
    """Return what is in the usual image: users, a program, a data directory with something of everything in it."""
    return (
        layers.directory(b"etc"),
        layers.file(b"etc/passwd", PASSWD),
        layers.file(b"etc/group", GROUP),
        layers.directory(b"bin"),
        layers.file(b"bin/app", b"#!/bin/sh\n", mode=0o755),
        layers.directory(b"seed", uid=33, gid=33, mode=0o750),
        layers.file(b"seed/version", text, uid=33, gid=7, mode=0o640),
        layers.hardlink(b"seed/twin", b"seed/version"),
        layers.symlink(b"seed/link", b"version"),
        layers.directory(b"seed/sub", mode=0o1777, mtime=1_000_000_000),
        layers.pax({b"SCHILY.xattr.user.note": b"kept"}),
        layers.file(b"seed/sub/file", b"inner", mode=0o4755, mtime=1_000_000_000),
        layers.directory(b"empty", uid=33, gid=33, mode=0o700),
    )


@dataclass
class Result:
    """How a command ended."""

    words: tuple[str, ...]
    code: int
    out: str
    err: str

    def data(self) -> Any:
        """Return the JSON that was written."""
        return json.loads(self.out)


@dataclass
class Sandbox:
    """Everything is below `place`: `root` is what appbox works on, `services` has the manifests, `images` a layout."""

    place: Path
    init: str = "systemd"
    content: Content = field(default_factory=Content)

    def __post_init__(self) -> None:
        self.root.mkdir()
        self.services.mkdir()
        self.image("1.0", *members())

    @property
    def root(self) -> Path:
        return self.place / "root"

    @property
    def services(self) -> Path:
        return self.place / "services"

    @property
    def images(self) -> Path:
        return self.place / "images"

    @property
    def containers(self) -> Path:
        return self.root / "opt/containers"

    @property
    def units(self) -> Path:
        """Where systemd's units are."""
        return self.root / "etc/systemd/system"

    @property
    def state(self) -> Path:
        return self.root / "var/lib/appbox"

    @property
    def gives_ranges(self) -> bool:
        """Whether each service has a range of ids of its own, which is written down."""
        return True

    @property
    def ranges(self) -> dict[str, int]:
        """The first id of each service that has a range of its own, by its name."""
        found = tomllib.loads((self.state / "uid-ranges.toml").read_text())
        return dict(found.get("ranges", {}))

    def folder(self, path: Path) -> Path:
        """Make a directory in which whoever runs appbox may write, if there is none."""
        path.mkdir(exist_ok=True)
        return path

    def on_disk(self, number: int) -> int:
        """Return the id that a file on disk has which is a container's id `number` in there."""
        return BASE + number

    def image(self, tag: str, *parts: bytes, **config: Any) -> None:
        """Put an image into the layout; one of that tag is replaced."""
        self.content.image(tag, layers=(layers.archive(*parts),), config={"Cmd": ["/bin/app"], **config})
        fresh = self.place / "images.new"
        self.content.write_layout(str(fresh))
        shutil.rmtree(self.images, ignore_errors=True)
        fresh.rename(self.images)

    def manifest(self, name: str = "web", version: str = "1.0", **tables: Any) -> Path:
        """Write a manifest; `tables` replace or add, None takes away."""
        usual = {
            "name": name,
            "image": f"oci:{self.images}",
            "version": version,
            "volumes": {"data": {"path": "/seed"}},
            "network": {"mode": "host"},
        }
        path = self.services / f"{name}.toml"
        text = tomli_w.dumps({key: value for key, value in {**usual, **tables}.items() if value is not None})
        path.write_text(text)
        return path

    def appbox(self, *words: object, code: int | None = 0, root: bool = True) -> Result:
        """Run appbox in this process; it has to end with `code`."""
        line = [*(["--root", str(self.root), "--init", self.init] if root else []), *map(str, words)]
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            ended = cli.run(line)
        result = Result(tuple(line), ended, out.getvalue(), err.getvalue())
        assert code is None or ended == code, result
        assert "Traceback" not in result.err, result
        assert "internal error" not in result.err, result
        return result

    def work(self, *words: object) -> Callable[[], int]:
        """Return what runs appbox in the process that calls it, and returns its exit code."""
        return lambda: cli.run(["--root", str(self.root), "--init", self.init, *map(str, words)])

    def command(self, *words: object) -> list[str]:
        """Return the command line of an appbox process on this root."""
        return [*APPBOX, "--root", str(self.root), "--init", self.init, *map(str, words)]

    def appbox_as_nobody(self, *words: object, code: int = 0) -> Result:
        """Run appbox as a user without any rights, whose home is `place`/home."""
        line = ["--root", str(self.root), "--init", self.init, *map(str, words)]
        home = self.place / "home"
        make_home(home)
        result = run_as_nobody(line, home)
        assert result.code == code, result
        assert "Traceback" not in result.err, result
        return result

    def apply(self, *words: object, code: int | None = 0, **manifest: Any) -> Result:
        """Write a manifest and apply it."""
        return self.appbox("apply", self.manifest(**manifest), *words, code=code)

    def actions(self, **manifest: Any) -> list[str]:
        """Write a manifest and return the kinds of the actions that are planned for it."""
        plan = self.appbox("--json", "plan", self.manifest(**manifest)).data()
        return [action["kind"] for action in plan["actions"]]

    def refuse(self, code: int, words: str, **manifest: Any) -> Result:
        """Apply a manifest that is refused: the exit code, the words in one line, and the host is as it was."""
        path = self.manifest(**manifest)
        before = self.host()
        result = self.appbox("apply", path, code=code)
        assert words in result.err, result.err
        assert len(result.err.splitlines()) == 1, result.err
        assert self.host() == before
        return result

    def host(self) -> dict[str, tuple[object, ...]]:
        """Return the snapshot without the cache, the lock, and the directories that all services share."""
        shared = ("opt", "opt/containers", "var", "var/lib", "var/lib/appbox", "var/lib/appbox/lock", "var/cache")
        return {p: f for p, f in self.snapshot().items() if p not in shared and not p.startswith("var/cache/")}

    def settled(self) -> None:
        """See that applying everything again does nothing, says so and writes nothing."""
        before = self.snapshot(times=True)
        assert self.appbox("apply", self.services).out == "nothing to do\n"
        assert self.snapshot(times=True) == before
        assert not self.debris()

    def debris(self) -> list[str]:
        """Return what an interrupted run may have left."""
        names = [path.rpartition("/")[2] for path in self.snapshot()]
        return [name for name in names if name.startswith((".staging", ".removing")) or name.endswith(".appbox-tmp")]

    def current(self, name: str = "web") -> Path:
        """Return the current version's directory."""
        target = os.readlink(self.containers / name)
        assert target.startswith(f"{name}-")
        return self.containers / target

    def spec(self, name: str = "web") -> Any:
        """Return config.json of the current version."""
        return json.loads((self.current(name) / "config.json").read_text())

    def generation(self, name: str = "web") -> str:
        """Return the number of the current generation."""
        return os.readlink(self.current(name) / ".current").removeprefix(".generations/")

    def snapshot(self, *, times: bool = False) -> dict[str, tuple[object, ...]]:
        """Return everything about every file of the root: with `times` also inode and times."""
        return snapshot(self.root, times=times)


APPBOX = (sys.executable, "-m", "appbox")


def make_home(home: Path) -> None:
    """Make the home of a user without any rights."""
    (home / "run").mkdir(0o700, parents=True, exist_ok=True)
    for path in (home, home / "run"):
        os.chown(path, NOBODY, NOBODY)


def run_as_nobody(line: list[str], home: Path) -> Result:
    """Run appbox as a user without any rights, in a fork of this process."""
    load_everything()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        pid = os.fork()
        if pid == 0:
            code = 99
            try:
                sys.stdout, sys.stderr = out, err
                be_nobody(home)
                code = cli.run(line)
                out.flush()
                err.flush()
            finally:
                os._exit(code)
        ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        out.seek(0)
        err.seek(0)
        return Result(tuple(line), ended, out.read(), err.read())


@functools.cache
def load_everything() -> None:
    """Load every module: a user without any rights may not be able to read where they are."""
    for module in pkgutil.walk_packages(appbox.__path__, "appbox."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for encoding in ("ascii", "utf-8-sig"):
        codecs.lookup(encoding)


def be_nobody(home: Path) -> None:
    """Have this process, which is a fork, give up every right."""
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    syscalls.be_traceable()  # as a process of that user's is from its start
    os.chdir("/")
    os.environ |= {"HOME": str(home), "XDG_CACHE_HOME": str(home), "XDG_RUNTIME_DIR": f"{home}/run"}


def snapshot(top: Path, *, times: bool = False) -> dict[str, tuple[object, ...]]:
    """Return everything about every file below `top`, by relative path."""
    found: dict[str, tuple[object, ...]] = {}
    for path, names, files in os.walk(top):
        below = path[len(str(top)) + 1 :]
        for name in (".", *files, *(n for n in names if os.path.islink(f"{path}/{n}"))):
            entry = f"{path}/{name}"
            info = os.lstat(entry)
            content: object = os.readlink(entry) if stat.S_ISLNK(info.st_mode) else ""
            if stat.S_ISREG(info.st_mode):
                with open(entry, "rb") as file:
                    content = file.read()
            more = (info.st_ino, info.st_mtime_ns, info.st_ctime_ns) if times else ()
            key = (below or ".") if name == "." else os.path.join(below, name)
            found[key] = (info.st_mode, info.st_uid, info.st_gid, content, *more)
    return found


def run(words: list[str], *, code: int | None = 0, **options: Any) -> Result:
    """Run a program to its end."""
    done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False, **options)
    result = Result(tuple(words), done.returncode, done.stdout, done.stderr)
    assert code is None or done.returncode == code, result
    return result
