"""What the runtime, the kernel and process 1 of a running host allow a service. It only reads."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from typing import Final

from appbox import container, owner
from appbox.host import mounts, process, runc
from appbox.manifest import Manifest
from appbox.oci import runtimes
from appbox.oci.runtimes import Runtime

_LIMITS: Final = {
    "Max address space": "as",
    "Max core file size": "core",
    "Max cpu time": "cpu",
    "Max data size": "data",
    "Max file size": "fsize",
    "Max file locks": "locks",
    "Max locked memory": "memlock",
    "Max msgqueue size": "msgqueue",
    "Max nice priority": "nice",
    "Max open files": "nofile",
    "Max processes": "nproc",
    "Max resident set": "rss",
    "Max realtime priority": "rtprio",
    "Max realtime timeout": "rttime",
    "Max pending signals": "sigpending",
    "Max stack size": "stack",
}
"""The lines of proc_pid_limits(5), and what a manifest calls them."""

_CAP_SYS_RESOURCE: Final = 24
_PROFILES: Final = "/sys/kernel/security/apparmor/profiles"
_LOOK: Final = 'for path; do [ -e "$path" ] && [ -w "$path" ] || echo "$path"; done'
_NO_OVERLAY: Final = 9
_OVERLAY: Final = f"""
mount -n -t tmpfs appbox "$1" && mkdir "$1/u" "$1/w" "$1/m" || exit 1
options=lowerdir=$2,upperdir=$1/u,workdir=$1/w,userxattr,index=off,xino=off
mount -n -i -t overlay -o "$options" appbox "$1/m" || exit {_NO_OVERLAY}
"""
_INTERFACE: Final = re.compile(r"net\.(ipv4|ipv6|mpls)\.(conf|neigh)\.(?!all\.|default\.)")
"""Parameters of one network interface, which the container gets only when it starts."""


def runtime() -> tuple[Runtime | None, bool]:
    """Return the runtime that services are given, None when it does not say what it is; and whether there is none.

    Of several it is the first, if nothing is known against that.
    """
    there = runc.there()
    first: Runtime | None = None
    for name, path in there.items():
        found = _asked(name, path)
        if found is None or not runtimes.unsafe(found):
            return found, False
        first = first or found
    return first, not there


def _asked(name: str, path: str) -> Runtime | None:
    told = runtimes.parse(process.run([path, "--version"]).out)
    return runtimes.UNKNOWN_CRUN if told is None and name == "crun" else told


def version() -> tuple[int, int]:
    """Return the kernel's major and minor version."""
    found = re.match(r"([0-9]+)\.([0-9]+)", os.uname().release)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def profiles() -> frozenset[str] | None:
    """Return the AppArmor profiles that are loaded, None when the kernel has no AppArmor or it is off."""
    if _text("/sys/module/apparmor/parameters/enabled").strip() != "Y":
        return None
    lines = _text(_PROFILES).splitlines()
    return frozenset(line.rpartition(" (")[0] for line in lines if " (" in line)


def hard_limits() -> dict[str, int]:
    """Return the hard limits of who starts services, which theirs are at most; unlimited ones are left out.

    That is process 1, or an ordinary user's systemd; without one, whoever starts them by hand.
    """
    found = {}
    for line in _text(f"/proc/{_starter()}/limits").splitlines():
        name = _LIMITS.get(line[:26].strip())
        numbers = line[26:].split()
        if name is not None and len(numbers) > 1 and numbers[1].isdigit():
            found[name] = int(numbers[1])
    return found


def _starter() -> str:
    """Return the number of the process that starts services; systemd's own group is init.scope (systemd.special(7))."""
    own = owner.current()
    if own is None or own.by_root:
        return "1"
    group = f"/sys/fs/cgroup/user.slice/user-{own.uid}.slice/user@{own.uid}.service/init.scope"
    return next(iter(_text(f"{group}/cgroup.procs").split()), "self")


def first_port() -> int:
    """Return the lowest port on which an ordinary user may listen (ip-sysctl.rst, ip_unprivileged_port_start)."""
    text = _text("/proc/sys/net/ipv4/ip_unprivileged_port_start").strip()
    return int(text) if text.isdigit() else 1024


def raises_limits() -> bool:
    """Return whether services may be given higher limits than process 1 has (CAP_SYS_RESOURCE); a user's may not."""
    if owner.current() is not None:
        return False
    for line in _text("/proc/1/status").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_SYS_RESOURCE & 1)
    return True


def open_files() -> int | None:
    """Return the most open files that any process may have."""
    text = _text("/proc/sys/fs/nr_open").strip()
    return int(text) if text.isdigit() else None


def no_sysctls(manifests: Sequence[Manifest]) -> frozenset[str]:
    """Return the kernel parameters of manifests that new namespaces do not have, or whose root may not set them.

    Namespaces are made for the question and are gone with it; nothing is set. What cannot be asked is not among them.
    """
    lacking: set[str] = set()
    for mapped in (True, False):
        names = {n for one in manifests if container.is_mapped(one) is mapped for n in one.security.sysctl}
        lacking |= _not_settable({name for name in names if not _INTERFACE.match(name)}, mapped=mapped)
    return frozenset(lacking)


def _not_settable(names: Collection[str], *, mapped: bool) -> set[str]:
    unshare = process.find("unshare")
    if not names or unshare is None:
        return set()
    paths = {f"/proc/sys/{name.replace('.', '/')}": name for name in sorted(names)}
    words = [unshare, "--net", "--ipc", "--uts", *(["--user", "--map-root-user"] if mapped or owner.current() else [])]
    done = process.run([*words, "--", "/bin/sh", "-c", _LOOK, "sh", *paths])
    return {paths[line] for line in done.out.splitlines() if line in paths} if done.code == 0 else set()


def no_overlay(folder: str) -> str:
    """Return why an ordinary user can mount no overlay over what is in a directory, "" if it can be done or for root.

    It is tried in namespaces that are made for the question and are gone with it. What cannot be asked is no.
    """
    own, unshare = owner.current(), process.find("unshare")
    if own is None or unshare is None:
        return ""
    folder = _existing(folder)
    done = process.run([unshare, "-U", "-r", "-m", "/bin/sh", "-c", _OVERLAY, "sh", own.runtime, folder])
    if done.code != _NO_OVERLAY:
        return ""
    return f"the kernel lets you mount none over {mounts.file_system(os.stat(folder).st_dev) or 'what is there'}"


def no_programs(folder: str) -> bool:
    """Return whether the file system of a directory is mounted noexec: the run scripts are there."""
    return bool(os.statvfs(_existing(folder)).f_flag & os.ST_NOEXEC)


def _existing(folder: str) -> str:
    """Return the lowest directory on the way to one that is there."""
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return folder


def throttles() -> tuple[str, ...]:
    """Return the directories of processors that tell when they were too hot: a channel between containers."""
    folder = "/sys/devices/system/cpu"
    try:
        names = sorted((n for n in os.listdir(folder) if re.fullmatch("cpu[0-9]+", n)), key=lambda name: int(name[3:]))
    except OSError:
        return ()
    return tuple(path for name in names if os.path.isdir(path := f"{folder}/{name}/thermal_throttle"))


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return ""
