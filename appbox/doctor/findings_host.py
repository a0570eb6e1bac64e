"""What there is to say of the host itself: kernel, cgroups, init, runtime, disk, clock. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from appbox.demands import CONTROLLERS
from appbox.doctor import remedies
from appbox.doctor.seen import Place, Seen
from appbox.doctor.values import Finding, Remedy, State
from appbox.doctor.wants import Wants
from appbox.oci import runtimes
from appbox.sizes import megabytes

LITTLE: Final = 1 << 30
"""Free bytes below which an image may not fit."""
NOTHING_LEFT: Final = 64 << 20
"""Free bytes below which none does."""
_FEW_FILES: Final = 20_000
"""Inodes below which an image may not fit; a small distribution has some thousands of files."""
_NO_COPY_ON_WRITE: Final = "the data of a service is copied for a snapshot, and moved for an upgrade"
_SLOW: Final = 1.0
"""Seconds after which the start of an empty container is slow."""
_HARDENED: Final = {
    "kernel.unprivileged_userns_clone": ("0", "1"),
    "kernel.apparmor_restrict_unprivileged_userns": ("1", "0"),
    "user.max_user_namespaces": ("0", "15000"),
}
"""Kernel parameters that forbid user namespaces: the value that does, and the one that does not."""


def kernel(seen: Seen, wants: Wants) -> Iterator[Finding]:
    """Yield what the kernel has and has not."""
    if not seen.live:
        return
    name = f"Linux {seen.kernel.release}"
    if seen.kernel.openat2:
        yield wants.say("kernel", "ok", f"{name} has openat2")
    else:
        yield wants.say("kernel", "missing", f"{name} has no openat2", Remedy(words="boot Linux 5.6 or later"))
    if wants.covers("overlay"):
        if seen.kernel.overlay:
            yield wants.say("overlay", "ok", "the kernel has overlay")
        else:
            yield wants.say("overlay", "missing", "the kernel has no overlay", remedies.module("overlay"))
    if wants.covers("seccomp"):
        if seen.kernel.seccomp:
            yield wants.say("seccomp", "ok", "the kernel has seccomp")
        else:
            mend = Remedy(words='boot a kernel with CONFIG_SECCOMP_FILTER, or set security.seccomp = "unconfined"')
            yield wants.say("seccomp", "missing", "the kernel has no filters for system calls", mend)


def namespaces(seen: Seen, wants: Wants) -> Iterator[Finding]:
    """Yield whether user namespaces can be made, and an overlay in one of them."""
    subject, nested = "user namespaces", seen.kernel.nested
    if not seen.live or not wants.covers(subject):
        return
    if not seen.kernel.namespaces:
        mend = Remedy(words='boot a kernel with CONFIG_USER_NS, or set security.userns = "host" for root\'s services')
        yield wants.say(subject, "missing", "the kernel has no user namespaces", mend)
        return
    # The two of distributions forbid them to users only; the kernel's own counts for root, too.
    names = _HARDENED if seen.login else ("user.max_user_namespaces",)
    closed = [name for name in names if seen.kernel.switches.get(name) == _HARDENED[name][0]]
    if nested is not None and nested.stage == "namespace":
        yield _forbidden(seen, wants, closed, nested.problem)
    elif nested is None and closed:
        yield _forbidden(seen, wants, closed, "")
    elif nested is None:
        yield wants.say(
            subject,
            "unknown",
            "whether a user namespace can be made was not tried",
            Remedy(words=f"install unshare: {seen.distribution.hint('unshare')}"),
        )
    else:
        yield wants.say(subject, "ok", "a user namespace was made")
    if nested is not None and nested.stage != "namespace" and seen.login and wants.covers("overlay"):
        if nested.problem:
            what = f"an overlay with userxattr cannot be mounted in a user namespace ({nested.problem})"
            mend = Remedy(words="boot Linux 5.11 or later; until then each service gets a copy of its rootfs")
            yield wants.say("overlay", "weak", what, mend)
        else:
            yield wants.say("overlay", "ok", "an overlay with userxattr was mounted in a user namespace")


def _forbidden(seen: Seen, wants: Wants, closed: list[str], problem: str) -> Finding:
    because = " and ".join(f"{name} = {seen.kernel.switches[name]}" for name in closed)
    steps = tuple(step for name in closed for step in remedies.sysctl(name, _HARDENED[name][1]).steps)
    why = f"{because} forbids it" if because else problem
    words = "" if steps else "see the kernel's log (dmesg) for a security module that forbids it"
    return wants.say("user namespaces", "missing", f"no user namespace can be made: {why}", Remedy(steps, words))


def cgroups(seen: Seen, wants: Wants) -> Iterator[Finding]:
    """Yield which version of cgroups there is, and which controllers."""
    found = seen.cgroups
    if found is None or not wants.covers("cgroups"):
        return
    openrc = seen.init == "openrc"
    mend = remedies.unified_openrc(seen) if openrc else remedies.more_controllers(seen)
    wanted = {CONTROLLERS[one.key.rpartition(".")[2]] for one in wants.keys("cgroups")} or set(CONTROLLERS.values())
    lacking = sorted(wanted - found.controllers)
    listed = " ".join(sorted(found.controllers)) or "none"
    data: dict[str, Any] = {"version": 2 if found.unified else 1, "controllers": sorted(found.controllers)}
    if not found.unified and seen.login:
        what = f"cgroups are those of version 1 ({seen.groups_mounted}), which no user can be given a part of"
        yield wants.say("cgroups", "missing" if wants.asked else "weak", what, mend, data=data)
    elif lacking:
        what = f"there is no cgroup controller {', '.join(lacking)} ({seen.groups_mounted}; there are: {listed})"
        yield wants.say("cgroups", "missing" if wants.asked else "weak", what, mend, data=data)
    elif not found.unified:
        yield wants.say("cgroups", "weak", f"cgroups are those of version 1 ({seen.groups_mounted})", mend, data=data)
    elif openrc and seen.openrc and not seen.openrc.in_runlevel:
        what = "OpenRC's service cgroups, which mounts them, is in no runlevel"
        yield wants.say("cgroups", "weak", what, remedies.unified_openrc(seen), data=data)
    else:
        yield wants.say("cgroups", "ok", f"cgroup v2 with the controllers {listed}", data=data)


def init(seen: Seen, wants: Wants) -> Iterator[Finding]:
    """Yield which init system runs."""
    if seen.init == "none":
        mend = Remedy(words="without one, appbox run NAME starts a service in the foreground")
        yield wants.say("init", "weak", "neither systemd nor OpenRC is the init of this host", mend)
    elif seen.openrc is not None:
        yield wants.say("init", "ok", str(seen.openrc))
    else:
        yield wants.say("init", "ok", seen.init)


def runtime(seen: Seen, wants: Wants) -> Iterator[Finding]:
    """Yield which runtimes there are, and what is known against them."""
    if not seen.runtimes:
        yield wants.say("runtime", "missing", "neither runc nor crun is installed", remedies.install(seen, "runc"))
    for name, found in sorted(seen.runtimes.items()):
        version = found.version
        newer = Remedy(words=f"install a later {name}, or what your distribution's security updates have")
        if version is None:
            yield wants.say("runtime", "unknown", f"{found.path} does not say which version it is")
        elif why := runtimes.unsafe(version):
            # Another one that is sound does the work.
            others = [one.version for key, one in seen.runtimes.items() if key != name and one.version]
            state: State = "weak" if any(not runtimes.unsafe(one) for one in others) else "missing"
            yield wants.say("runtime", state, f"{version} is too old to run anything safely: {why}", newer)
        elif note := runtimes.note(version):
            yield wants.say("runtime", "weak", f"{found.path}: {note}", newer, data={"version": str(version)})
        else:
            yield wants.say("runtime", "ok", f"{version} in {found.path}", data={"version": str(version)})


def first_start(seen: Seen, wants: Wants) -> Iterator[Finding]:
    """Yield how long an empty container takes, or why it does not start."""
    tried = seen.first
    if tried is None:
        return
    took = f"{tried.seconds * 1000:.0f} ms"
    if tried.problem:
        mend = Remedy(words="mend what stands above first; the words are the runtime's own")
        yield wants.say("first start", "missing", f"an empty container does not start: {tried.problem}", mend)
    elif tried.seconds > _SLOW:
        yield wants.say(
            "first start", "weak", f"an empty container takes {took}", data={"seconds": round(tried.seconds, 3)}
        )
    else:
        yield wants.say(
            "first start", "ok", f"an empty container takes {took}", data={"seconds": round(tried.seconds, 3)}
        )


def store(seen: Seen, wants: Wants) -> Iterator[Finding]:
    """Yield what is to be said of the file system on which bundles are."""
    place = seen.store
    if not place.path:
        return
    data: dict[str, Any] = {"path": place.path, "file_system": place.file_system, "free": place.free}
    room = f"{megabytes(place.free)} free" if place.free >= 0 else "which does not say how much is free"
    known = f"{place.path} ({place.file_system or 'of an unknown kind'}, {room}"
    full = Remedy(words=f"make room below {place.existing}; appbox prune removes what nobody needs")
    if place.problem:
        what = f"nothing can be written to {place.path}: {place.problem}"
        yield wants.say("store", "missing", what, full if place.full else _elsewhere(place), data=data)
    elif 0 <= place.free < NOTHING_LEFT or 0 <= place.files < _FEW_FILES // 100:
        what = f"{place.existing} is full: {megabytes(place.free)} and {_files(place)} are left"
        yield wants.say("store", "missing", what, full, data=data)
    elif 0 <= place.free < LITTLE or 0 <= place.files < _FEW_FILES:
        what = f"there is little room in {place.existing}: {megabytes(place.free)} and {_files(place)} are left"
        yield wants.say("store", "weak", what, full, data=data)
    else:
        shares = "files share blocks" if place.reflink else f"no file shares blocks: {_NO_COPY_ON_WRITE}"
        yield wants.say("store", "ok", f"{known}; {shares})", data={**data, "reflink": bool(place.reflink)})
    yield from _mounted(seen, wants)


def _elsewhere(place: Place) -> Remedy:
    return Remedy(words=f"have {place.existing} writable for who runs services, or the store elsewhere")


def _files(place: Place) -> str:
    return f"{place.files} files" if place.files >= 0 else "any number of files"


_OPTIONS: Final[dict[str, tuple[State, str, str]]] = {
    "ro": ("missing", "is mounted read-only", "every service"),
    "noexec": ("missing", "is mounted noexec: no program of an image would run", "every service"),
    "nosuid": (
        "weak",
        "is mounted nosuid: sudo, ping and the like in images gain nothing",
        "security.no_new_privileges",
    ),
}


def _mounted(seen: Seen, wants: Wants) -> Iterator[Finding]:
    place = seen.store
    for option, (state, what, why) in _OPTIONS.items():
        if option in place.options:
            mend = Remedy(
                words=f"mount -o remount,{_OPPOSITE[option]} it, and in /etc/fstab, or have the store elsewhere"
            )
            yield wants.say("store", state, f"{place.existing} {what}", mend, why=why)
    if place.xattrs is False:
        what = f"the file system of {place.existing} ({place.file_system}) keeps no extended attributes"
        mend = Remedy(words="have it on ext4, xfs or btrfs, or mount it with user_xattr")
        why = "deletions in an overlay of a user, images with file capabilities"
        yield wants.say("store", "weak", what, mend, why=why)


_OPPOSITE: Final = {"ro": "rw", "noexec": "exec", "nosuid": "suid"}


def clock(seen: Seen, wants: Wants) -> Iterator[Finding]:
    """Yield whether the time of day can be right."""
    now, built = seen.clock.now, seen.clock.built
    if not now:
        return
    shown = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M UTC")
    start = remedies.clock(seen)
    if now < built:
        what = f"the clock says {shown}, which is before this appbox was installed: certificates will be refused"
        yield wants.say("clock", "missing", what, start)
    elif seen.clock.synchronised is False:
        yield wants.say("clock", "weak", f"{shown}; nobody keeps the clock right", start)
    else:
        yield wants.say("clock", "ok", f"{shown}{', kept right' if seen.clock.synchronised else ''}")
