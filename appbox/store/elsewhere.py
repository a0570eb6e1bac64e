"""Whether an ordinary user's service is run by another unit than the one that this process knows.

Root's init system may run it (`--user NAME`), or the user's own; both have the same data, and two servers on it
would be its end. And a unit may be of services in another place, where XDG_DATA_HOME was when it was made.
"""

from __future__ import annotations

import re
from typing import Final

from appbox import owner
from appbox.errors import AppboxError
from appbox.host.facts import InitKind
from appbox.owner import Owner
from appbox.store import paths
from appbox.store.root import Root
from appbox.units import declared, files, places

_LIMIT: Final = 1 << 20
_SYSTEM: Final = ("/etc/systemd/system/{}.service", "/etc/init.d/{}")


def refuse(root: Root, kind: InitKind, name: str) -> None:
    """Raise AppboxError for a service of an ordinary user that is run by something else; nothing happens for root's."""
    own = owner.current()
    if own is None:
        return
    if own.by_root:
        _refuse_users(root, own, name)  # whose a unit of the system is, root's side says
        return
    _refuse_roots(root, own, name)
    for path in places.files_of(kind, name)[:1]:
        text = _text(root, path)
        place = _place(text, name) if text is not None else paths.CONTAINERS
        if place != paths.CONTAINERS and root.exists(f"{place}/{name}"):
            raise AppboxError(
                f"the unit name {name} is taken",
                where=path,
                why=f"it runs the service in {place}",
                hint="set XDG_DATA_HOME as it was then, or remove the service there",
            )


def _refuse_users(root: Root, own: Owner, name: str) -> None:
    for init, unit in (("systemd", f"systemd/user/{name}.service"), ("OpenRC", f"rc/init.d/{name}")):
        path = f"{own.config}/{unit}"
        if _text(root, path) is not None:
            what = f"is run by the own {init} of {own.name}"
            hint = f"let {own.name} do it: appbox remove {name} keeps its data, and then root's can take over"
            raise AppboxError(what, where=name, why=f"{path} is its unit", hint=hint)


def _refuse_roots(root: Root, own: Owner, name: str) -> None:
    for path in (place.format(name) for place in _SYSTEM):
        text = _text(root, path)
        if text is None or not _runs_for(text, own):
            continue
        hint = f"let root do it: appbox --user {own.name}"
        raise AppboxError("is run by the init system of the host", where=name, why=f"{path} is its unit", hint=hint)


def _runs_for(text: str, own: Owner) -> bool:
    try:
        return declared.unit_of(text).user == own.name
    except ValueError:
        # Another version of appbox made it, or somebody has changed it: whom it runs for is told by its place.
        return f'="{paths.CONTAINERS}/' in text or f"={paths.CONTAINERS}/" in text


def _text(root: Root, path: str) -> str | None:
    """Return what appbox has written there, None for anything else."""
    data = root.read(path, _LIMIT) if root.exists(path) else None
    text = None if data is None else data.decode("utf-8", "replace")
    return text if text is not None and files.owner(text) else None


def _place(text: str, name: str) -> str:
    """Return the directory of the services that a unit runs one of; the usual one where that cannot be told."""
    found = re.search(rf'^(?:ExecStart=|command=")(/[^ "]+)/{re.escape(name)}/run\b', text, re.MULTILINE)
    return found[1] if found else paths.CONTAINERS
