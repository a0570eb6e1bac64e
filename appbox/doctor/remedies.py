"""What mends a host: exact commands and files for its distribution. Pure."""

from __future__ import annotations

from typing import Final

from appbox import subids
from appbox.distribution import either
from appbox.doctor.seen import Login, Seen
from appbox.doctor.values import GiveIds, NewFile, Remedy, Run, Step
from appbox.host.facts import IdRange

CONTROLLERS: Final = ("cpu", "cpuset", "io", "memory", "pids")
"""What a user's systemd should be given: all that [resources] has keys for, and the processors themselves."""
_OF_USER: Final = 'rc_use="localmount logger net dns"\nretry="TERM/90/KILL/5"\n'
"""What services of a user come after, and the seconds that all of them get for their end; systemd gives as many."""
DELEGATE: Final = "/etc/systemd/system/user@.service.d/appbox.conf"
RC_CONF: Final = "/etc/rc.conf.d/appbox.conf"


def install(seen: Seen, *tools: str, words: str = "") -> Remedy:
    """Return the remedy that installs tools."""
    command = seen.distribution.install(tools)
    if command is None:
        return Remedy(words=words or f"install {', '.join(tools)}: {either(tools[0])}")
    first = (Run(("apt-get", "update")),) if seen.no_lists and seen.distribution.family == "debian" else ()
    return Remedy((*first, Run(command)), words)


def sysctl(name: str, value: str) -> Remedy:
    """Return the remedy that sets a kernel parameter, now and at each boot (sysctl.d(5))."""
    path = f"/etc/sysctl.d/60-appbox-{name.rpartition('.')[2].replace('_', '-')}.conf"
    return Remedy((NewFile(path, f"{name} = {value}\n"), Run(("sysctl", "-p", path))))


def module(name: str) -> Remedy:
    """Return the remedy that loads a kernel module, now and at each boot (modules-load.d(5); OpenRC reads it, too)."""
    return Remedy((NewFile(f"/etc/modules-load.d/appbox-{name}.conf", f"{name}\n"), Run(("modprobe", name))))


def give_ids(login: Login) -> Remedy:
    """Return the remedy that gives a user the lowest ranges that nobody has, in whichever file he has none."""
    if not login.name or login.source != "files":
        where = "no password entry" if not login.name else f"sub-ids from {login.source}"
        return Remedy(words=f"this user has {where}: ask whoever administrates them for 65,536 ids")
    ranges = []
    for table, own in zip(login.tables, (login.uids, login.gids), strict=True):
        users = [IdRange(number, 1) for number in login.names.values()]
        lacking = subids.together(own) < subids.LEAST
        ranges.append(subids.free([*table.entries, *users]) if lacking else None)
    uids, gids = ranges
    if uids is None and gids is None:
        return Remedy(words="no range of 65,536 ids is free in /etc/subuid and /etc/subgid: take one from somebody")
    return Remedy((GiveIds(login.name, uids, gids),))


def setuid(path: str) -> Remedy:
    """Return the remedy that makes a program of shadow what it has to be."""
    return Remedy((Run(("chown", "root:root", path)), Run(("chmod", "4755", path))))


def linger(login: Login) -> Remedy:
    """Return the remedy that has a user's systemd start at boot."""
    return Remedy((Run(("loginctl", "enable-linger", login.name)),))


def start_openrc_of(seen: Seen, login: Login) -> Remedy:
    """Return the remedy that has root's OpenRC start and stop the user's (its user guide, "Launching at boot").

    Without a runtime directory it starts nothing. It gives the stop of everything five seconds unless it is told
    otherwise. It asks its services anew for what they depend on, or one that came in the same second as another is
    not stopped when the machine goes down.
    """
    name = f"user.{login.name}"
    steps = () if login.runtime.there else runtime_directory(seen, login).steps
    told = () if login.settings else (NewFile(f"/etc/conf.d/{name}", _OF_USER),)
    commands = (
        ("ln", "-sf", "user", f"/etc/init.d/{name}"),
        ("rc-update", "add", name, "default"),
        ("rc-service", name, "start"),
        ("rc-update", "--update"),
    )
    return Remedy((*steps, *told, *map(Run, commands)))


def delegate(login: Login) -> Remedy:
    """Return the remedy that gives the systemd of every user the controllers of cgroups."""
    text = f"[Service]\nDelegate={' '.join(CONTROLLERS)}\n"
    steps = (NewFile(DELEGATE, text), Run(("systemctl", "daemon-reload")))
    return Remedy(steps, f"log {login.name or 'in'} out and in again, or reboot: it counts for a new session")


def unified_openrc(seen: Seen) -> Remedy:
    """Return the remedy that has OpenRC mount cgroup v2 alone, with every controller."""
    controllers = "cpuset cpu io memory hugetlb pids"
    text = f'rc_cgroup_mode="unified"\nrc_cgroup_controllers="{controllers}"\n'
    steps: list[Step] = []
    if seen.openrc and (seen.openrc.mode != "unified" or seen.openrc.controllers != controllers):
        steps.append(NewFile(RC_CONF, text))
    if seen.openrc and not seen.openrc.in_runlevel:
        steps.append(Run(("rc-update", "add", "cgroups", "sysinit")))
    more = "" if seen.cgroups and seen.cgroups.unified else "; reboot: cgroups of a running system stay as they are"
    return Remedy(tuple(steps), f"some kernels want cgroup_enable=memory on their command line{more}")


def more_controllers(seen: Seen) -> Remedy:
    """Return what has to be told the kernel: no command of a running host changes it."""
    if seen.cgroups and seen.cgroups.unified:
        words = "see cgroup_disable= on the kernel's command line; some kernels want cgroup_enable=memory there"
    else:
        words = "boot with systemd.unified_cgroup_hierarchy=1 on the kernel's command line"
    return Remedy(words=words)


def runtime_directory(seen: Seen, login: Login) -> Remedy:
    """Return the remedy that makes a user's runtime directory at each boot and tells logins (XDG base directory)."""
    if seen.init == "systemd":
        start = (Run(("loginctl", "enable-linger", login.name)),) if login.name else ()
        return Remedy(start, "systemd-logind makes it at login, where libpam-systemd is installed")
    if seen.init != "openrc":
        return Remedy(words="it is made by whatever starts sessions here; the one in /dev/shm does as well")
    who = f"{login.uid}:{login.gid}"
    lines = ("checkpath -d -m 0755 /run/user", f"checkpath -d -m 0700 -o {who} /run/user/{login.uid}")
    profile = (
        'if [ -z "$XDG_RUNTIME_DIR" ] && [ -O "/run/user/$(id -u)" ]; then\n'
        '    export XDG_RUNTIME_DIR="/run/user/$(id -u)"\n'
        "fi\n"
    )
    told = NewFile("/etc/profile.d/appbox-runtime-dir.sh", profile)
    steps = (*at_boot(f"appbox-run-user-{login.uid}", *lines), told)
    return Remedy(steps, "a login that is open does not know of it yet")


def open_tun(seen: Seen) -> Remedy:
    """Return the remedy that lets users make interfaces: each is in a network namespace that is the user's own."""
    if seen.init == "openrc":
        return Remedy(at_boot("appbox-tun", "chmod 0666 /dev/net/tun"))
    words = "at each boot it is made anew: a rule of udev keeps it (50-udev-default.rules has one)"
    return Remedy((Run(("chmod", "0666", "/dev/net/tun")),), words)


def at_boot(name: str, *lines: str) -> tuple[Step, ...]:
    """Return the steps that have OpenRC do something now and at each boot (openrc-run(8))."""
    text = "#!/sbin/openrc-run\nstart() {\n" + "".join(f"    {line}\n" for line in lines) + "}\n"
    script = NewFile(f"/etc/init.d/{name}", text, 0o755)
    return (script, Run(("rc-update", "add", name, "boot")), Run(("rc-service", name, "start")))


def clock(seen: Seen) -> Remedy:
    """Return the remedy that has somebody keep the clock right: who that is, its administrator decides."""
    if seen.init == "systemd":
        return Remedy((Run(("timedatectl", "set-ntp", "true")),), safe=False)
    if seen.distribution.family == "alpine":
        steps = (Run(("apk", "add", "chrony")), Run(("rc-update", "add", "chronyd", "default")))
        return Remedy((*steps, Run(("rc-service", "chronyd", "start"))), safe=False)
    return Remedy(words="install and start chrony, or whatever sets the clock here")
