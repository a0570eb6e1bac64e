"""What every command shares: the global options, the root, the cache, and the way to print."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TextIO

from appbox import owner
from appbox.errors import HostLacks, UsageError
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
    user: str = ""

    def say(self, text: str, *, stream: TextIO | None = None) -> None:
        """Write text for people, unless -q or --json."""
        if self.verbosity >= 0 and not self.json:
            (stream or sys.stdout).write(text)
            (stream or sys.stdout).flush()

    def result(self, data: Any, text: str) -> None:
        """Write a command's result: as JSON, or as text also with -q."""
        sys.stdout.write(as_json(data) if self.json else text)

    def open_root(self, *, services: bool = True) -> Root:
        """Open the root that the options name.

        Where services are looked at, an ordinary user is root from then on, in a namespace of the user's own. HostLacks
        when the user's ids are not those any more to which the files of the services belong.
        """
        if services:
            _become_owner()
        root = Root(self.root)
        if services and owner.current() is not None:
            from appbox.store import id_map  # noqa: PLC0415 - root does without

            id_map.refuse_changed(root)
        return root

    def colored(self, stream: TextIO) -> bool:
        """Return whether to write colours to a stream (https://no-color.org)."""
        if self.color == "auto":
            return stream.isatty() and not os.environ.get("NO_COLOR")
        return self.color == "always"


def as_json(data: Any) -> str:
    """Return data as stable, indented JSON that ends in a newline."""
    return json.dumps(data, indent=2, ensure_ascii=True) + "\n"


def require_root_user(what: str) -> None:
    """Raise HostLacks unless this process may give files away: root of the host, or of a user's own namespace."""
    _become_owner()
    if os.geteuid() != 0:
        raise HostLacks(f"{what} needs root", hint="use sudo or doas")


MYSELF: Final = "."
"""The user who has started this process, as the command line has it."""


def choose_owner(user: str, root: str = "/") -> None:
    """Have this process work for the host, or for an ordinary user: the one who has started it, or whom root names.

    Raises UsageError for a user who is not one, and what `host.ordinary.find` does.
    """
    if not user:
        owner.use(None)
        return
    from appbox.host import ordinary  # noqa: PLC0415 - root does without

    if os.geteuid() == 0:
        if user == MYSELF:
            raise UsageError("root is no ordinary user", where="--user", hint="name one: --user NAME")
        if root != "/":
            raise UsageError("a user's services are made on the running host", where="--root", hint="leave it out")
        owner.use(ordinary.named(user))
    else:
        found = ordinary.find(os.environ)
        if user not in {MYSELF, found.name}:
            raise UsageError("only root can work for another user", where=f"--user {user}")
        owner.use(found)


def leave_root() -> None:
    """Be the user for whom root works, from now on: nothing that is in the user's places is read or written as root."""
    found = owner.current()
    if found is not None and found.by_root:
        _become_owner()


def _become_owner() -> None:
    """Make an ordinary user root in a namespace of the user's own; nothing happens to root, unless for one."""
    if os.geteuid() != 0 and owner.current() is None:
        choose_owner(MYSELF)
    found = owner.current()
    if found is not None:
        from appbox.host import userns  # noqa: PLC0415 - root does without

        userns.enter(found)


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
