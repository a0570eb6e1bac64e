"""Distributions of Linux: which one a host is, and how its administrator installs what appbox needs. Pure.

os-release(5) in; a family and exact command lines out. A family is told by ID, else by the first known word of ID_LIKE.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

Family = Literal["alpine", "debian", "fedora", "suse", "arch", "other"]
Command = tuple[str, ...]
"""The words of a command line."""

OS_RELEASE: Final = ("/etc/os-release", "/usr/lib/os-release")

_FAMILIES: Final[Mapping[str, Family]] = {
    "alpine": "alpine",
    "postmarketos": "alpine",
    "arch": "arch",
    "archlinux": "arch",
    "centos": "fedora",
    "debian": "debian",
    "fedora": "fedora",
    "opensuse": "suse",
    "raspbian": "debian",
    "rhel": "fedora",
    "sles": "suse",
    "suse": "suse",
    "ubuntu": "debian",
}

_INSTALL: Final[Mapping[Family, Command]] = {
    "alpine": ("apk", "add"),
    "arch": ("pacman", "-S", "--needed", "--noconfirm"),
    "debian": ("apt-get", "install", "-y"),
    "fedora": ("dnf", "install", "-y"),
    "suse": ("zypper", "--non-interactive", "install"),
}

_PACKAGES: Final[Mapping[str, Mapping[Family, str]]] = {
    "age": {},
    "buildah": {},
    "cni": {
        "alpine": "cni-plugins",
        "arch": "cni-plugins",
        "debian": "containernetworking-plugins",
        "fedora": "containernetworking-plugins",
        "suse": "cni-plugins",
    },
    "cron": {"alpine": "cronie", "arch": "cronie", "fedora": "cronie", "suse": "cronie"},
    "crun": {},
    "curl": {},
    "flock": {"alpine": "flock", "arch": "util-linux", "debian": "util-linux", "fedora": "util-linux-core"},
    "git": {},
    "iptables": {},
    "mmdebstrap": {},
    "newuidmap": {
        "alpine": "shadow-uidmap",
        "arch": "shadow",
        "debian": "uidmap",
        "fedora": "shadow-utils",
        "suse": "shadow",
    },
    "nsenter": {"alpine": "util-linux-misc", "arch": "util-linux", "debian": "util-linux", "fedora": "util-linux-core"},
    "pasta": dict.fromkeys(_INSTALL, "passt"),
    "perl": {},
    "runc": {},
    "slirp4netns": {},
    "tini": {"alpine": "tini-static", "fedora": "catatonit", "suse": "catatonit"},
    "tzdata": {"suse": "timezone"},
    "unshare": {"alpine": "util-linux-misc", "arch": "util-linux", "debian": "util-linux", "fedora": "util-linux-core"},
}
"""What package has a tool, where it is not called as the tool is."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """A host's distribution: `name` is for people."""

    id: str = ""
    name: str = "Linux"
    version: str = ""
    family: Family = "other"

    def package(self, tool: str) -> str:
        """Return the package that has a tool."""
        return _PACKAGES.get(tool, {}).get(self.family, tool)

    def install(self, tools: Sequence[str]) -> Command | None:
        """Return the command that installs tools, sorted and each package once; None where nobody knows it."""
        words = _INSTALL.get(self.family)
        return None if words is None else (*words, *sorted({self.package(tool) for tool in tools}))

    def hint(self, tool: str) -> str:
        """Return what to do so that a tool is there, as an imperative."""
        command = self.install([tool])
        return shlex.join(command) if command else either(tool)


UNKNOWN: Final = Distribution()


def either(tool: str) -> str:
    """Return how a tool is installed where the distribution is not known."""
    debian, alpine = Distribution(family="debian").package(tool), Distribution(family="alpine").package(tool)
    return f"apt install {debian}, or apk add {alpine}"


def parse(text: str) -> Distribution:
    """Return what the text of os-release says; lines that are no assignments are passed over, as a shell would not."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and key.isidentifier() and key.isupper():
            fields[key] = _unquoted(value)
    own = fields.get("ID", "").lower()
    names = (own, *fields.get("ID_LIKE", "").lower().split())
    # ID=opensuse-tumbleweed and the like have their family in ID_LIKE.
    family: Family = next((_FAMILIES[name] for name in names if name in _FAMILIES), "other")
    name = fields.get("PRETTY_NAME") or fields.get("NAME") or "Linux"
    return Distribution(own, name, fields.get("VERSION_ID", ""), family)


def _unquoted(value: str) -> str:
    try:
        return " ".join(shlex.split(value))
    except ValueError:
        return value.strip("\"'")
