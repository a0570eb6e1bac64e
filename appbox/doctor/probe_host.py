"""Looks at the host: kernel, cgroups, init, programs, disk, clock. What it tries is gone when it returns."""

from __future__ import annotations

import errno
import os
import re
import stat
import tempfile
import time
from typing import Final

import appbox
from appbox.doctor.seen import Clock, Found, Kernel, Node, OpenRC, Place, Tried
from appbox.errors import AppboxError
from appbox.host import cow, mounts, networks, process, syscalls
from appbox.host.openrc import has_users
from appbox.oci import runtimes
from appbox.store.root import Root

PROGRAMS: Final = (
    "age",
    "buildah",
    "flock",
    "git",
    "iptables",
    "mmdebstrap",
    "pasta",
    "slirp4netns",
    "unshare",
)
SWITCHES: Final = (
    "kernel.unprivileged_userns_clone",
    "kernel.apparmor_restrict_unprivileged_userns",
    "user.max_user_namespaces",
)
_SMALL: Final = 64 << 10
_TUN: Final = "/dev/net/tun"
_CGROUPS: Final = "/sys/fs/cgroup"
_CURRENT: Final = -100
"""AT_FDCWD of openat2(2)."""
_NESTED: Final = """
set -e
echo tmpfs; mount -t tmpfs tmpfs /tmp
echo overlay; cd /tmp; mkdir l u w m; echo 1 >l/f
mount -t overlay overlay -o lowerdir=/tmp/l,upperdir=/tmp/u,workdir=/tmp/w,userxattr /tmp/m
echo use; rm /tmp/m/f; [ ! -e /tmp/m/f ]; [ -e /tmp/l/f ]; mkdir /tmp/m/d
echo done
"""
"""Everything that it makes is in a mount namespace of its own, and gone with it."""


def kernel() -> Kernel:
    """Return what the kernel has; namespaces are tried as whoever this process is."""
    switches = {name: text(f"/proc/sys/{name.replace('.', '/')}").strip() for name in SWITCHES}
    start = text("/proc/sys/net/ipv4/ip_unprivileged_port_start").strip()
    return Kernel(
        release=os.uname().release,
        openat2=_has_openat2(),
        overlay="\toverlay\n" in text("/proc/filesystems") or _has_module("overlay"),
        seccomp=os.path.exists("/proc/sys/kernel/seccomp/actions_avail") or "\nSeccomp:" in text("/proc/self/status"),
        namespaces=os.path.exists("/proc/self/ns/user"),
        switches={name: value for name, value in switches.items() if value},
        nested=_nested(),
        port_start=int(start) if start.isdigit() else 1024,
    )


def _has_openat2() -> bool:
    try:
        os.close(syscalls.openat2(_CURRENT, "/", os.O_PATH))
    except OSError:
        return False
    return True


def _has_module(name: str) -> bool:
    modprobe = process.find("modprobe")
    return modprobe is not None and process.run([modprobe, "-n", "-q", name], timeout=20).code == 0


def _nested() -> Tried | None:
    unshare = process.find("unshare")
    if unshare is None:
        return None
    begun = time.monotonic()
    try:
        done = process.run([unshare, "-U", "-r", "-m", "--", "/bin/sh", "-c", _NESTED], timeout=20)
    except AppboxError as error:
        return Tried(error.what, "namespace")
    stages = [line for line in done.out.splitlines() if line in {"tmpfs", "overlay", "use", "done"}]
    stage = stages[-1] if stages else "namespace"
    return Tried("" if stage == "done" else _last(done.err), stage, time.monotonic() - begun)


def _last(text_: str) -> str:
    lines = [line.strip() for line in text_.splitlines() if line.strip()]
    return lines[-1].removeprefix("unshare: ")[:300] if lines else "no reason is given"


def groups_mounted() -> str:
    """Return how cgroups are mounted: unified, hybrid, legacy, or not at all."""
    if os.path.exists(f"{_CGROUPS}/cgroup.controllers"):
        return "unified"
    if os.path.exists(f"{_CGROUPS}/unified/cgroup.procs"):
        return "hybrid"
    return "legacy" if os.path.isdir(f"{_CGROUPS}/pids") or os.path.isdir(f"{_CGROUPS}/memory") else "not mounted"


def openrc(root: Root) -> OpenRC:
    """Return what OpenRC is and how it is set up."""
    program = process.find("openrc") if root.live else None
    found = re.search(r"([0-9]+)\.([0-9]+)", process.run([program, "--version"], timeout=20).out) if program else None
    settings = _rc_conf(root)
    levels = _names(root, "/etc/runlevels")
    return OpenRC(
        version=(int(found[1]), int(found[2])) if found else (0, 0),
        mode=settings.get("rc_cgroup_mode", ""),
        controllers=settings.get("rc_cgroup_controllers", ""),
        in_runlevel=any(root.exists(f"/etc/runlevels/{level}/cgroups") for level in levels),
        users=has_users(root),
    )


def _rc_conf(root: Root) -> dict[str, str]:
    """Return the plain assignments of rc.conf and of what comes after it, as OpenRC's init.sh reads them."""
    files = ["/etc/rc.conf", *(f"/etc/rc.conf.d/{n}" for n in _names(root, "/etc/rc.conf.d") if n.endswith(".conf"))]
    found: dict[str, str] = {}
    for path in files:
        said = (root.read(path, 1 << 20) or b"").decode("utf-8", "replace")
        found |= {one[1]: one[3] for one in re.finditer(r"(?m)^\s*(rc_\w+)=([\"']?)([^\"'\n#]*)\2\s*(?:#.*)?$", said)}
    return found


def _names(root: Root, path: str) -> list[str]:
    try:
        with root.directory(path) as fd:
            return sorted(os.listdir(fd))
    except (FileNotFoundError, NotADirectoryError):
        return []


def found_runtimes() -> dict[str, Found]:
    """Return the runtimes of the host, each asked for its version."""
    found = {}
    for name in ("runc", "crun"):
        if path := process.find(name):
            found[name] = Found(path, runtimes.parse(process.run([path, "--version"], timeout=20).out))
    return found


def programs() -> dict[str, str]:
    """Return the paths of programs that manifests may need."""
    return {name: path for name in PROGRAMS if (path := process.find(name))}


def plugins() -> dict[str, str]:
    """Return where each CNI plugin is, "" for one that is not there."""
    places = networks.PLUGIN_PLACES
    return {
        name: next((place for place in places if os.access(f"{place}/{name}", os.X_OK)), "")
        for name in networks.PLUGINS
    }


def tun() -> Node:
    """Return what /dev/net/tun is."""
    try:
        info = os.stat(_TUN)
    except OSError:
        return Node()
    return Node(stat.S_IMODE(info.st_mode), info.st_uid) if stat.S_ISCHR(info.st_mode) else Node()


_FULL: Final = frozenset({os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT)})
_FLAGS: Final = {os.ST_RDONLY: "ro", os.ST_NOSUID: "nosuid", os.ST_NODEV: "nodev", os.ST_NOEXEC: "noexec"}


def store(path: str) -> Place:
    """Return what there is to say of the file system that has, or will have, a directory."""
    existing = path
    while not os.path.isdir(existing) and existing != "/":
        existing = os.path.dirname(existing) or "/"
    try:
        room, info = os.statvfs(existing), os.stat(existing)
    except OSError as error:
        return Place(path, existing, problem=error.strerror or "")
    xattrs, reflink, problem = _try_writing(existing)
    return Place(
        path=path,
        existing=existing,
        file_system=mounts.file_system(info.st_dev),
        free=room.f_bavail * room.f_frsize if room.f_blocks else -1,
        files=room.f_favail if room.f_files else -1,
        options=frozenset(name for flag, name in _FLAGS.items() if room.f_flag & flag),
        xattrs=xattrs,
        reflink=reflink,
        problem=problem,
        full=problem in _FULL,
    )


def _try_writing(folder: str) -> tuple[bool | None, bool | None, str]:
    """Return whether files there have extended attributes, whether two share blocks, and why nothing can be written."""
    try:
        with tempfile.TemporaryFile(dir=folder) as one, tempfile.TemporaryFile(dir=folder) as other:
            one.write(b"x" * 4096)
            one.flush()
            os.fsync(one.fileno())
            return _keeps_xattrs(one.fileno()), _shares(one.fileno(), other.fileno()), ""
    except OSError as error:
        return None, None, error.strerror or ""


def _keeps_xattrs(fd: int) -> bool:
    try:
        os.setxattr(fd, "user.appbox", b"1")
    except OSError:
        return False
    return True


def _shares(one: int, other: int) -> bool:
    try:
        return cow.clone_file(one, other)
    except OSError:
        return False


def clock() -> Clock:
    """Return what time it is, and what the kernel thinks of it."""
    try:
        synchronised: bool | None = syscalls.clock_is_synchronised()
    except OSError:
        synchronised = None
    return Clock(time.time(), os.stat(appbox.__file__).st_mtime, synchronised)


def text(path: str) -> str:
    """Return a file of /proc or /sys, "" when it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_SMALL)
    except OSError:
        return ""
