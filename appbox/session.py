"""What every command shares: the global options, the root, the cache, and the way to print."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from appbox.errors import HostLacks
from appbox.store import paths
from appbox.store.root import Root

if TYPE_CHECKING:
    from appbox.oci.platform import Platform


@dataclass(frozen=True, slots=True)
class Options:
    """The global options; `verbosity` is -1 with -q, and counts -v."""

    root: str = "/"
    init: str = "auto"
    json: bool = False
    verbosity: int = 0
    color: str = "auto"

    def say(self, text: str, *, stream: TextIO | None = None) -> None:
        """Write text for people, unless -q or --json."""
        if self.verbosity >= 0 and not self.json:
            (stream or sys.stdout).write(text)
            (stream or sys.stdout).flush()

    def result(self, data: Any, text: str) -> None:
        """Write a command's result: as JSON, or as text also with -q."""
        sys.stdout.write(as_json(data) if self.json else text)

    def open_root(self) -> Root:
        """Open the root that the options name."""
        return Root(self.root)

    def colored(self, stream: TextIO) -> bool:
        """Return whether to write colours to a stream (https://no-color.org)."""
        if self.color == "auto":
            return stream.isatty() and not os.environ.get("NO_COLOR")
        return self.color == "always"


def as_json(data: Any) -> str:
    """Return data as stable, indented JSON that ends in a newline."""
    return json.dumps(data, indent=2, ensure_ascii=True) + "\n"


def require_root_user(what: str) -> None:
    """Raise HostLacks unless this process may act for the whole host."""
    if os.geteuid() != 0:
        raise HostLacks(f"{what} needs root", hint="use sudo or doas; services of ordinary users are not supported yet")


def cache_path(root: Root) -> str:
    """Return the directory of the blob cache: the host's for root, the user's own otherwise."""
    if os.geteuid() == 0:
        root.make(paths.CACHE, 0o700)  # images may be private
        return root.host_path(paths.CACHE)
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(home, "appbox")


def wanted_platform(text: str) -> Platform:
    """Return the platform that an option names, or this machine's."""
    from appbox.oci.platform import Platform  # noqa: PLC0415 - `status` does without

    return Platform.parse(text) if text else Platform.host(os.uname().machine)
