"""One command on a host in some state, as a value, and the words that operations are described with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.crash.checks import data_at_home, put, settled, whole
from tests.ground import layers
from tests.ground.sandbox import GROUP, PASSWD, Sandbox

Words = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Operation:
    """One command on a host in some state.

    `before` makes that state and `command` returns the words, after it has written the manifest. `between` holds
    wherever the command was cut off; `after` when it was given again and has ended, and `done` when it ended with 0.
    `kept` holds besides when it has failed by itself and said so: what was current is so still. `finished`: giving the
    command again may fail because there is nothing left to do; `instead` is given then, if it cannot be given again at
    all. `by_any`: whatever next command may change something cleans up after it, too. `for_users`: an ordinary user
    can have it, too.
    """

    name: str
    before: Callable[[Sandbox], None]
    command: Callable[[Sandbox], Words]
    between: Callable[[Sandbox], None]
    done: Callable[[Sandbox], None]
    kept: Callable[[Sandbox], None] | None = None
    finished: str = ""
    init: str = "systemd"
    kinds: tuple[str, ...] = ("tmpfs", "ext4", "xfs", "btrfs")
    instead: Callable[[Sandbox], Words] | None = None
    by_any: bool = True
    for_users: bool = True

    def again(self, box: Sandbox, words: Words) -> None:
        """Give the command again, and see that it is as if nothing had happened."""
        result = box.appbox(*words, code=None if self.finished else 0)
        assert result.code == 0 or (self.finished and self.finished in result.err), result
        if result.code and self.instead is not None:
            box.appbox(*self.instead(box))
        self.done(box)


def members(text: bytes) -> tuple[bytes, ...]:
    """Return what is in an image that says of itself which one it is."""
    return (
        layers.file(b"etc/passwd", PASSWD),
        layers.file(b"etc/group", GROUP),
        layers.directory(b"seed", uid=33, gid=33, mode=0o750),
        layers.file(b"seed/version", text, uid=33, gid=33),
        layers.hardlink(b"seed/twin", b"seed/version"),
        layers.symlink(b"app", b"seed/version"),
    )


def images(box: Sandbox) -> None:
    """Put the images of two versions into the layout."""
    for tag, text in (("1.0", b"1"), ("2.0", b"2")):
        box.image(tag, *members(text))


def applying(**tables: Any) -> Callable[[Sandbox], Words]:
    return lambda box: ("apply", box.manifest(**tables))


def both(*checks: Callable[[Sandbox], None]) -> Callable[[Sandbox], None]:
    def check(box: Sandbox) -> None:
        for one in checks:
            one(box)

    return check


def is_whole(*versions: str) -> Callable[[Sandbox], None]:
    return lambda box: whole(box, versions)


def is_still(version: str, text: str) -> Callable[[Sandbox], None]:
    """Return what sees that this version is current, of the image that says so, with its data."""

    def check(box: Sandbox) -> None:
        whole(box, (version,))
        data_at_home(box)
        assert (box.current() / "rootfs/seed/version").read_text() == text

    return check


def is_settled(version: str) -> Callable[[Sandbox], None]:
    return lambda box: settled(box, version)


def nothing(box: Sandbox) -> None:
    """Leave a host as it is."""


def used(**tables: Any) -> Callable[[Sandbox], None]:
    """Return what installs a service and has it write something."""

    def install(box: Sandbox) -> None:
        box.apply(**tables)
        put(box)

    return install
