"""What there is to say of programs, devices and registries that only some manifests need. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from appbox.doctor import remedies
from appbox.doctor.seen import Seen
from appbox.doctor.values import Finding, Remedy, State
from appbox.doctor.wants import Wants

_SLOW: Final = 5.0
"""Seconds after which an answer of a registry is slow."""


def bridge(seen: Seen, wants: Wants) -> Iterator[Finding]:
    """Yield what a bridge needs: CNI plugins, a firewall, locks."""
    if wants.covers("cni"):
        unused = {"portmap"} if wants.user else set()  # pasta publishes the ports of users
        lacking = [name for name, place in sorted(seen.plugins.items()) if not place and name not in unused]
        if not seen.plugins or lacking:
            names = ", ".join(lacking) or "bridge"
            yield wants.say("cni", "missing", f"there is no CNI plugin {names}", remedies.install(seen, "cni"))
        else:
            places = ", ".join(sorted({place for place in seen.plugins.values() if place}))
            yield wants.say("cni", "ok", f"CNI plugins in {places}", data={"plugins": dict(seen.plugins)})
    for name in ("flock",) if wants.user else ("iptables", "flock"):
        yield from _program(seen, wants, name)


def pasta(seen: Seen, wants: Wants) -> Iterator[Finding]:
    """Yield what connects a service without a bridge of the host: pasta and the device that it opens."""
    if wants.covers("pasta"):
        path, other = seen.programs.get("pasta"), seen.programs.get("slirp4netns")
        if path:
            yield wants.say("pasta", "ok", path)
        elif other and seen.login is not None:
            what = f"pasta is not installed; {other} does the work, more slowly and without IPv6"
            yield wants.say("pasta", "weak", what, remedies.install(seen, "pasta"))
        else:
            yield wants.say("pasta", "missing", "pasta is not installed", remedies.install(seen, "pasta"))
    if wants.covers("tun"):
        yield from _tun(seen, wants)


def _tun(seen: Seen, wants: Wants) -> Iterator[Finding]:
    mode = seen.tun.mode
    if mode is None:
        yield wants.say("tun", "missing", "there is no /dev/net/tun", remedies.module("tun"))
    elif seen.login is not None and mode & 0o006 != 0o006:
        # eudev and systemd-udevd make it 0666 (50-udev-default.rules); mdev and devices of containers do not.
        what = f"/dev/net/tun has the mode {mode:04o}: only root may open it"
        yield wants.say("tun", "missing", what, remedies.open_tun(seen))
    else:
        yield wants.say("tun", "ok", f"/dev/net/tun with the mode {mode:04o}")


def _program(seen: Seen, wants: Wants, name: str, tool: str = "") -> Iterator[Finding]:
    if wants.covers(name):
        if path := seen.programs.get(name):
            yield wants.say(name, "ok", path)
        else:
            yield wants.say(name, "missing", f"{name} is not installed", remedies.install(seen, tool or name))


def programs(seen: Seen, wants: Wants) -> Iterator[Finding]:
    """Yield which programs there are that single keys need."""
    if wants.covers("age") and seen.programs.get("age") and seen.age_key:
        mend = Remedy(words="age-keygen -o makes one; chmod 0400 it")
        yield wants.say("age", "missing" if wants.asked else "weak", seen.age_key, mend)
    else:
        yield from _program(seen, wants, "age")
    if seen.init == "openrc" and wants.covers("cron"):
        if seen.cron:
            yield wants.say("cron", "ok", "there is a cron daemon")
        else:
            yield wants.say("cron", "missing", "there is no cron daemon", remedies.install(seen, "cron"))
    if wants.covers("reaper"):
        if seen.reaper:
            yield wants.say("reaper", "ok", "there is a static init for process 1")
        else:
            what = "there is no static init to start as process 1 (tini-static, catatonit or docker-init)"
            yield wants.say("reaper", "missing", what, remedies.install(seen, "tini"))
    for name in ("git", "buildah", "mmdebstrap"):
        if name != "git" or wants.asked is None:
            yield from _program(seen, wants, name)


def registries(seen: Seen, wants: Wants) -> Iterator[Finding]:
    """Yield which registries answer, of those that were asked."""
    for one in seen.registries:
        said = {"registry": one.name, "seconds": round(one.seconds, 3)}
        if one.problem:
            state: State = "missing" if wants.asked else "weak"
            yield wants.say("registry", state, one.problem, Remedy(words=one.hint), data=said)
        elif one.seconds > _SLOW:
            yield wants.say("registry", "weak", f"{one.name} took {one.seconds:.1f} s to answer", data=said)
        else:
            yield wants.say("registry", "ok", f"{one.name} answers in {one.seconds * 1000:.0f} ms", data=said)
