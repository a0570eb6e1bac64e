"""What runs in a service's container: an image's configuration, the manifest over it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from appbox import health, hostnames, owner, quantities, reaper
from appbox.errors import Refused
from appbox.fields import ARGUMENT_LIMIT, COMPONENT_LIMIT, TARGET_LIMIT, BadValueError
from appbox.host import ranges
from appbox.host.facts import IdRange
from appbox.locked import Locked
from appbox.manifest import Manifest
from appbox.oci import users
from appbox.oci.capabilities import ALL_CAPABILITIES, DEFAULT_CAPABILITIES
from appbox.oci.rootfs import RootfsFacts
from appbox.oci.users import User
from appbox.quantities import Signal

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""PATH of a container whose image names none, as other runtimes set it."""

_PRIVILEGED_PORT: Final = 1024
_LOW_PORTS: Final = "net.ipv4.ip_unprivileged_port_start"


def is_mapped(manifest: Manifest) -> bool:
    """Return whether the service has ids of the host that are its own; those of an ordinary user have the user's."""
    return manifest.security.userns != "host" and owner.current() is None


def fixed_ids(manifest: Manifest) -> IdRange | None:
    """Return the range of the host's ids that the manifest names, None when it names none."""
    userns = manifest.security.userns
    return None if isinstance(userns, str) or owner.current() else IdRange(userns.base, userns.size)


def id_count(manifest: Manifest) -> int:
    """Return how many ids the service has, from 0 on."""
    fixed, own = fixed_ids(manifest), owner.current()
    if own is not None:
        return own.count
    return fixed.size if fixed else ranges.SIZE if is_mapped(manifest) else ranges.ALL


def user(locked: Locked, rootfs: RootfsFacts | None, size: int) -> User | None:
    """Return whom the process starts as, None before the unpacking. The service has the ids below `size`.

    Raises ManifestError or Refused when the image does not know the user, or the service has no such id.
    """
    if rootfs is None:
        return None
    wanted = locked.manifest.process.user
    name = locked.image.config.user if wanted == "image" else wanted
    try:
        found = users.lookup(name, rootfs.passwd, rootfs.group)
    except Refused as error:
        if wanted == "image":
            raise
        raise locked.refuse(("process", "user"), error.what, error.why) from error
    for number in (found.uid, found.gid, *found.groups):
        if number >= size and wanted != "image":
            raise locked.refuse(("process", "user"), f"has the id {number}, and a service has those below {size}")
        if number >= size:
            raise Refused(f"user {name!r} has the id {number}", why=f"a service has the ids below {size}")
    return replace(found, groups=tuple(dict.fromkeys((*found.groups, *_groups(locked, rootfs, size)))))


def _groups(locked: Locked, rootfs: RootfsFacts, size: int) -> Iterator[int]:
    """Yield the supplementary groups that the manifest adds."""
    for index, name in enumerate(locked.manifest.process.groups):
        key = ("process", "groups", index)
        try:
            number = users.group_id(name, rootfs.group)
        except Refused as error:
            raise locked.refuse(key, f"{error.what}: {name}", error.why) from error
        if number >= size:
            raise locked.refuse(key, f"has the id {number}, and a service has those below {size}")
        yield number


def args(locked: Locked) -> tuple[str, ...]:
    """Return the argument vector. An entrypoint of the manifest leaves nothing of the image's command, as elsewhere."""
    process, config = locked.manifest.process, locked.image.config
    if process.entrypoint is not None:
        found = (*process.entrypoint, *(process.args or ()))
    else:
        found = (*config.entrypoint, *(config.cmd if process.args is None else process.args))
    if not found or not found[0]:
        raise locked.refuse(("process",), "the image names nothing to run", "set entrypoint or args in [process]")
    _refuse_long(found, "an argument", "set entrypoint or args in [process]")
    return reaper.args(found) if process.init else found


def _refuse_long(found: Iterable[str], what: str, hint: str) -> None:
    """Raise Refused for a string of the image with which no program can be started; a manifest has none."""
    if any(len(one.encode()) >= ARGUMENT_LIMIT for one in found):
        why = f"Linux takes strings of less than {ARGUMENT_LIMIT} bytes"
        raise Refused(f"the image starts its program with {what} that is too long", why=why, hint=hint)


def env(locked: Locked, hostname: str) -> tuple[str, ...]:
    """Return the environment: the usual PATH, the image's variables, the manifest's over them; each name once."""
    merged = {"PATH": _PATH, "HOSTNAME": hostname}
    for entry in locked.image.config.env:
        name, separator, value = entry.partition("=")
        if not name or not separator:
            raise Refused(f"the image's environment has {entry[:60]!r}", why="it is no NAME=VALUE")
        # It would go before the file that process.timezone brings.
        if name != "TZ" or locked.manifest.process.timezone is None:
            merged[name] = value
    merged |= dict(locked.manifest.process.env)
    if locked.manifest.service.notify:
        merged["NOTIFY_SOCKET"] = health.NOTIFY_SOCKET
    found = tuple(f"{name}={value}" for name, value in merged.items())
    _refuse_long(found, "a variable", "set it in process.env")
    return found


def workdir(locked: Locked) -> str:
    """Return the working directory; Refused when the image's is no path of the container.

    A path below /proc leads out of the container by a descriptor that the runtime has open (CVE-2024-21626).
    """
    found = locked.manifest.process.workdir or locked.image.config.working_dir or "/"
    parts = [part for part in found.split("/") if part not in {"", "."}]
    long = len(found.encode()) > TARGET_LIMIT or any(len(part.encode()) > COMPONENT_LIMIT for part in parts)
    if "\0" in found or ".." in parts or parts[:1] == ["proc"] or long:
        raise Refused(f"the working directory {found[:100]!r} is not one of the container", hint="set process.workdir")
    return "/" + "/".join(parts)


def stop_signal(locked: Locked) -> Signal:
    """Return the signal that stops the service: the manifest's, the image's, or SIGTERM."""
    chosen = locked.manifest.process.stop_signal
    if chosen is not None:
        return chosen
    text = locked.image.config.stop_signal
    try:
        number = text.isascii() and text.isdigit() and len(text) < 4
        return quantities.signal(int(text) if number else text or "SIGTERM")
    except BadValueError as error:
        raise Refused(f"STOPSIGNAL {text[:40]!r} of the image is no signal", hint="set process.stop_signal") from error


def hostname(locked: Locked) -> str:
    """Return the host name inside the container: the manifest's, or the service's name as far as it can be one."""
    return hostnames.hostname(locked)


def capabilities(locked: Locked) -> frozenset[str]:
    """Return the capabilities that the container has at most."""
    changes = locked.manifest.security.capabilities
    add = ALL_CAPABILITIES if "ALL" in changes.add else frozenset(changes.add)
    drop = ALL_CAPABILITIES if "ALL" in changes.drop else frozenset(changes.drop)
    # What is added by name survives `drop = ["ALL"]`, which is how least privilege is written.
    return ((DEFAULT_CAPABILITIES - drop) | add) if "ALL" in changes.drop else (DEFAULT_CAPABILITIES | add) - drop


def ambient(locked: Locked) -> frozenset[str]:
    """Return the capabilities that a user who is not root holds too: those that the manifest adds by name."""
    return frozenset(locked.manifest.security.capabilities.add) & ALL_CAPABILITIES


def sysctl(locked: Locked) -> dict[str, str]:
    """Return the kernel parameters of the container's namespaces.

    In a network of its own a service may open any port, whoever it runs as: the ports are nobody else's.
    """
    own = hostnames.kind(locked.manifest.network.mode) not in {"host", "service"}
    wanted = {**({_LOW_PORTS: "0"} if own else {}), **locked.manifest.security.sysctl}
    return dict(sorted(wanted.items()))


def notes(locked: Locked, *, mapped: bool) -> Iterator[str]:
    """Yield what the operator should know of a combination that works otherwise than hoped for, or not at all."""
    manifest, config = locked.manifest, locked.image.config
    if "network" not in manifest.model_fields_set:
        yield 'there is no [network] table: the service has no network (mode = "none")'
    low = [port for port in config.exposed_ports if _port(port) < _PRIVILEGED_PORT]
    if low and mapped and manifest.network.mode == "host":
        yield (
            f"the image listens on port {', '.join(low)}: on the host's network a service with user ids of its own may "
            'bind only ports from 1024 on; configure another port, or set security.userns = "host"'
        )


def _port(text: str) -> int:
    number = text.partition("/")[0].partition("-")[0]
    return int(number) if number.isascii() and number.isdigit() and len(number) < 6 else _PRIVILEGED_PORT
