"""A sandbox in which everything is done by an ordinary user, who has subordinate ids and no privilege."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from appbox import cli
from tests.ground.sandbox import NOBODY, Result, Sandbox, be_nobody, load_everything, make_home, run_as_nobody

FIRST: Final = 500_000
"""The user's first subordinate id; there are 65,536."""


class OrdinarySandbox(Sandbox):
    """What `Sandbox` is, for a user: the home is `place`/home, and below the root as well."""

    def __post_init__(self) -> None:
        """Make the directories, which are the user's."""
        super().__post_init__()
        load_everything()
        self.place.chmod(0o755)
        make_home(self.home)
        for path in (self.place, self.root, self.services):
            os.chown(path, NOBODY, NOBODY)

    @property
    def home(self) -> Path:
        return self.place / "home"

    @property
    def _inside(self) -> Path:
        return self.root / str(self.home).lstrip("/")

    @property
    def containers(self) -> Path:
        return self._inside / ".local/share/appbox/containers"

    @property
    def units(self) -> Path:
        return self._inside / ".config/systemd/user"

    @property
    def state(self) -> Path:
        return self._inside / ".local/share/appbox/state"

    @property
    def gives_ranges(self) -> bool:
        return False

    @property
    def ranges(self) -> dict[str, int]:
        return {}

    def folder(self, path: Path) -> Path:
        """Make a directory of the user's, if there is none."""
        path.mkdir(exist_ok=True)
        os.chown(path, NOBODY, NOBODY)
        return path

    def on_disk(self, number: int) -> int:
        """Return the user's own id for root's in a container, and the subordinate ones for all others'."""
        return NOBODY if number == 0 else FIRST + number - 1

    def appbox(self, *words: object, code: int | None = 0, root: bool = True) -> Result:
        """Run appbox in a fork of this process; it has to end with `code`."""
        result = run_as_nobody(self._line(words, root=root), self.home)
        assert code is None or result.code == code, result
        assert "Traceback" not in result.err, result
        assert "internal error" not in result.err, result
        return result

    def work(self, *words: object) -> Callable[[], int]:
        """Return what runs appbox in the process that calls it, which must be a fork, and returns its exit code."""

        def work() -> int:
            be_nobody(self.home)
            return cli.run(self._line(words))

        return work

    def _line(self, words: tuple[object, ...], *, root: bool = True) -> list[str]:
        return [*(["--root", str(self.root), "--init", self.init] if root else []), *map(str, words)]


@contextlib.contextmanager
def subordinate_ids(place: Path) -> Iterator[None]:
    """Give the user subordinate ids, as long as this lasts, in the mounts of this process."""
    file = place / "subordinate"
    file.write_text(f"nobody:{FIRST}:65536\n")
    tables = ("/etc/subuid", "/etc/subgid")
    with contextlib.ExitStack() as stack:
        for table in tables:
            subprocess.run(["mount", "--bind", str(file), table], check=True)
            stack.callback(subprocess.run, ["umount", table], check=True)
        yield
