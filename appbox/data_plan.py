"""Where a service's data is, and how it gets to another version: copied, moved, or left where it is. Pure."""

from __future__ import annotations

from typing import Final, Literal

from appbox.desired_values import Desired
from appbox.host import ranges
from appbox.plan_values import Observed
from appbox.store import paths
from appbox.store.installed import GONE, REMOVED, Installed

Way = Literal["clone", "copy", "move", "share"]

_CLONING: Final = frozenset({"subvolume", "reflink"})


def rebuild_reason(digest: str, base: int, target: Installed | None, size: int = ranges.SIZE) -> str:
    """Return why the version's directory has to be made, or made anew; empty when its rootfs is the right one.

    `base` and `size` are the service's range of ids.
    """
    if target is None:
        return "this version is not on the host"
    if target.problem:
        return f"{target.directory} {target.problem}"
    if target.digest != digest:
        return f"the image has another digest now ({digest[:19]}…)"
    same = target.base == base and (not base or target.size == size)
    return "" if same else "its range of user ids changed"


def rebuilding(desired: Desired, observed: Observed) -> str:
    """Return why the desired version has to be unpacked; a generation that is gone back to never has."""
    if desired.generation:
        return ""
    return rebuild_reason(desired.digest, desired.base, observed.target, desired.size)


def usable(observed: Observed) -> Installed | None:
    """Return the current version, if there is one."""
    return observed.current if observed.current is not None and observed.current.problem != GONE else None


def upgrading(desired: Desired, observed: Observed) -> bool:
    """Return whether a manifest asks for another version, or another image, than the one that is current."""
    current = usable(observed)
    if current is None or desired.generation or not current.digest:
        return False
    return (current.version, current.digest) != (desired.version, desired.digest)


def way(desired: Desired, observed: Observed) -> Way:
    """Return how the data gets to another version."""
    policy = desired.upgrade.data
    if policy == "auto":
        if observed.cloning in _CLONING:
            return "clone"
        return "copy" if migrating(desired, observed) else "move"
    return "clone" if policy == "snapshot" else policy


def data_reason(desired: Desired, observed: Observed) -> str:
    """Return why the data gets there that way."""
    if desired.upgrade.data != "auto":
        return f'upgrade.data is "{desired.upgrade.data}"'
    if observed.cloning in _CLONING:
        return "the file system can clone it"
    return "its format changes" if migrating(desired, observed) else "data goes with the service"


def migrating(desired: Desired, observed: Observed) -> bool:
    """Return whether the data has to be taken to another format, and there is a command for it."""
    changes = bool(desired.upgrade.format) and observed.format != desired.upgrade.format
    known = bool(observed.format) or _first_named(desired, observed)
    return changes and known and bool(desired.upgrade.migrate) and not desired.generation


def _first_named(desired: Desired, observed: Observed) -> bool:
    """Return whether an upgrade names a format for the first time: the data of before is in some other one, or not.

    Where the version stays, the data is in the format that is named: this version has written it.
    """
    return bool(desired.upgrade.format and observed.data) and not observed.format and upgrading(desired, observed)


def format_problem(desired: Desired, observed: Observed) -> str:
    """Return why the desired version must not get the data that it would get; empty when it may."""
    found = observed.own_format if uses_own(desired, observed) else observed.format
    shared = desired.upgrade.data == "share" and not desired.generation
    if found == desired.upgrade.format or shared or migrating(desired, observed) or _was_silent(desired, observed):
        return ""
    if not found:
        named = f"{desired.version} is for the format {desired.upgrade.format}"
        return f"nobody has said which format its data has, and {named}" if _first_named(desired, observed) else ""
    wanted = f"is for the format {desired.upgrade.format}" if desired.upgrade.format else "says no format"
    return f"its data has the format {found}, and {desired.version} {wanted}"


def _was_silent(desired: Desired, observed: Observed) -> bool:
    """Return whether a generation that says no format is gone back to from the same image: what wrote the data can
    read it, and only the manifest said later what it is in.
    """
    current = usable(observed)
    silent = bool(desired.generation) and not desired.upgrade.format
    return silent and current is not None and current.digest == desired.digest


def uses_own(desired: Desired, observed: Observed) -> bool:
    """Return whether a version that is gone back to has data of its own, which it had when it was left."""
    return bool(desired.generation) and observed.own and not desired.upgrade.keep_data


def copy_origin(desired: Desired, observed: Observed) -> str:
    """Return the directory whose volumes the desired version gets a copy of; "" for none."""
    if not upgrading(desired, observed) or not observed.data or way(desired, observed) not in {"clone", "copy"}:
        return ""
    return data_holder(observed, desired.directory)


def carry_origin(desired: Desired, observed: Observed) -> str:
    """Return the directory whose volumes move to the desired version, relative to the containers; empty for none."""
    target = observed.target
    if copy_origin(desired, observed) or uses_own(desired, observed):
        return ""
    holder = data_holder(observed, desired.directory)
    if desired.replaced:
        return {desired.directory: replaced_by(observed), desired.replaced: ""}.get(holder, holder)
    if holder != desired.directory:
        return holder
    if target is None or not rebuilding(desired, observed):
        return ""
    return replaced_path(target, observed)


def replaced_by(observed: Observed) -> str:
    """Return where below the containers that goes which has the place of one that comes back; "" if nothing has it."""
    return "" if observed.displaced is None else replaced_path(observed.displaced, observed)


def replaced_path(target: Installed, observed: Observed) -> str:
    """Return where below the containers a version directory is kept when the same version is built anew.

    It is never where the service's data is waiting to be moved.
    """
    unnamed = "data" if target.problem == REMOVED else "broken"
    path = f"{paths.REPLACED}/{target.directory}@{target.digest.partition(':')[2][:12] or unnamed}"
    return f"{path}+" if data_holder(observed, target.directory) == path else path


def writes_origin(desired: Desired, observed: Observed) -> str:
    """Return whence what a service wrote to its root file system moves when that is unpacked anew; "" for nothing.

    Over another image it would hide what is new there, so it stays with the one that it was written over.
    """
    target = observed.target
    there = observed.writes or bool(observed.writes_origin)
    if target is None or not there or (target.digest, target.base) != (desired.digest, desired.base):
        return ""
    return replaced_path(target, observed)


def data_holder(observed: Observed, directory: str) -> str:
    """Return the directory in which the service's volumes are before the change; empty when it has none yet.

    `directory` is that of the desired version. What another version still waits for has come to it by then.
    """
    current = usable(observed)
    if current is not None:
        return (current.carry if current.directory == directory else "") or current.directory
    return observed.kept or (directory if observed.target is not None else "")


def data_place(observed: Observed, directory: str) -> str:
    """Return the directory in which the service's volumes are now; empty when it has none yet."""
    current = usable(observed)
    if current is not None and current.carry:
        return current.carry
    return data_holder(observed, directory)
