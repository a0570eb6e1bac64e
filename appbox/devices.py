"""The devices of a service: what [security] devices says, and how config.json gives them. Pure.

With a user namespace a runtime cannot make device nodes and binds the host's, which keep their owner and mode there.
The service's cgroup says what may be done with which numbers (runtime-spec, config-linux.md, Devices).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from appbox.fields import BadValueError, path, quoted, text
from appbox.oci.runtime_spec import Device

_FORM: Final = re.compile(r"(/dev/[^:]+)(?::(/dev/[^:]+))?(?::([rwm]{1,3}))?")
_NAMES: Final = "console core fd full init mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
_OWN: Final = frozenset(_NAMES.split())
"""What every container has of its own below /dev."""

NUMBERS: Final = {
    "/dev/fuse": (10, 229),
    "/dev/kvm": (10, 232),
    "/dev/net/tun": (10, 200),
    "/dev/ppp": (108, 0),
    "/dev/vhost-net": (10, 238),
    "/dev/uinput": (10, 223),
}
"""Character devices with the same numbers everywhere (Linux, admin-guide/devices.txt), for where none can be asked."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A device of the host, where the container has it, and what may be done: r(ead), w(rite), m(ake a node)."""

    source: str
    target: str
    access: str


@dataclass(frozen=True, slots=True)
class Node:
    """A device node of the host: its path and what stat(2) says of it."""

    path: str
    type: Literal["b", "c"]
    major: int
    minor: int
    mode: int = 0o666
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """What is at the path of a wish: the node, or the nodes of a directory; `problem` says why it is none of these."""

    nodes: tuple[Node, ...] = ()
    problem: str = ""


def parse(value: object) -> Wish:
    """Read "/dev/a", "/dev/a:/dev/b" or "/dev/a:/dev/b:rwm"; raises BadValueError."""
    found = text(value, "a device", r"/dev/.*")
    form = _FORM.fullmatch(found)
    if form is None:
        raise BadValueError(
            f'{quoted(found)} is not a device (as in "/dev/fuse" or "/dev/ttyUSB0:/dev/modem:rw")',
            f"write {quoted('/dev/' + found)}" if re.fullmatch(r"[a-zA-Z0-9]+", found) else "",
        )
    source, target, access = form[1], form[2] or form[1], form[3] or "rwm"
    for place in (source, target):
        path(place, "a device")
    if target.split("/")[2] in _OWN:
        raise BadValueError(f"{quoted(target)} is the container's own", "take another path in the container")
    if len(set(access)) < len(access):
        raise BadValueError(f"{quoted(access)} names an access twice", 'write some of "rwm"')
    return Wish(source, target, "".join(letter for letter in "rwm" if letter in access))


def valid(value: object) -> str:
    """Return a device as the manifest has it; raises BadValueError."""
    parse(value)
    return str(value)


def given(devices: tuple[str, ...], found: tuple[Found, ...]) -> tuple[Device, ...]:
    """Return the devices for config.json; a directory's come under the same names below the wished path."""
    result = []
    for wish, there in zip(map(parse, devices), found, strict=True):
        for node in there.nodes:
            target = wish.target + node.path.removeprefix(wish.source) if len(there.nodes) > 1 else wish.target
            result.append(
                Device(node.path, target, node.type, node.major, node.minor, wish.access, node.mode, node.uid, node.gid)
            )
    return tuple(result)


def notes(given: tuple[Device, ...], *, mapped: bool) -> Iterator[str]:
    """Yield what the operator should know: a mapped service is nobody among the host's users."""
    for device in given if mapped else ():
        wanted = sum(bit for letter, bit in (("r", 4), ("w", 2)) if letter in device.access)
        if wanted & ~device.mode & 0o7:
            yield (
                f"{device.source} belongs to {device.uid}:{device.gid} with mode {device.mode:04o}, and a service with "
                "user ids of its own may do with it only what everybody may; let everybody with a udev rule, or set "
                'security.userns = "host"'
            )
