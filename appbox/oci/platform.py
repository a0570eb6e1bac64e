"""Platforms: operating system, processor and its variant, and which of them runs which. Values only.

Names are those of Go's GOOS and GOARCH, as the image specification has them ("Image Index", platform), normalised as
containerd does, so that "aarch64", "arm64" and "arm64/v8" are one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from appbox.errors import UsageError

_MACHINES = {  # uname(2)'s machine -> architecture, variant
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "arm64": ("arm64", ""),
    "armv8l": ("arm", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "armv5tel": ("arm", "v5"),
    "armv5tejl": ("arm", "v5"),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "ppc64le": ("ppc64le", ""),
    "ppc64": ("ppc64", ""),
    "s390x": ("s390x", ""),
    "riscv64": ("riscv64", ""),
    "loongarch64": ("loong64", ""),
    "mips64": ("mips64", ""),
    "mips64el": ("mips64le", ""),
}
_ALIASES = {
    ("x86_64", ""): ("amd64", ""),
    ("x86-64", ""): ("amd64", ""),
    ("amd64", "v1"): ("amd64", ""),
    ("aarch64", ""): ("arm64", ""),
    ("aarch64", "v8"): ("arm64", ""),
    ("arm64", "v8"): ("arm64", ""),
    ("arm64", "8"): ("arm64", ""),
    ("arm64", "v8.0"): ("arm64", ""),
    ("arm", ""): ("arm", "v7"),
    ("armhf", ""): ("arm", "v7"),
    ("armel", ""): ("arm", "v6"),
    ("i386", ""): ("386", ""),
}
_BASELINE = {"amd64": 1.0, "arm64": 8.0}  # the level that no variant stands for
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LEVEL = re.compile(r"v?([0-9]{1,2}(?:\.[0-9]{1,2})?)")


@dataclass(frozen=True, slots=True)
class Platform:
    """`variant` is empty for the baseline of an architecture."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def normal(cls, os: str, architecture: str, variant: str = "") -> Platform:
        """Return the platform under its usual names."""
        arch, kind = architecture.lower(), variant.lower()
        if arch == "arm" and kind.isdigit():
            kind = f"v{kind}"
        return cls(os.lower(), *_ALIASES.get((arch, kind), (arch, kind)))

    @classmethod
    def host(cls, machine: str) -> Platform:
        """Return the platform of a Linux host whose uname(2) says `machine`; an unknown machine stands for itself."""
        return cls("linux", *_MACHINES.get(machine, (machine, "")))

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Return the platform that OS/ARCHITECTURE[/VARIANT] spells; raise `UsageError` for anything else."""
        parts = text.split("/")
        if len(parts) not in (2, 3) or not all(_WORD.fullmatch(part) for part in parts):
            raise UsageError(f"{text!r} is not a platform", hint="write one like linux/amd64 or linux/arm/v7")
        return cls.normal(*parts)

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def rank(self, image: Platform) -> float | None:
        """Tell how well an image for `image` suits this host: None not at all, otherwise the higher the better."""
        if (self.os, self.architecture) != (image.os, image.architecture):
            return None
        if self.variant == image.variant:
            return 100.0  # above every level
        own, other = self._level(), image._level()
        return other if own is not None and other is not None and other <= own else None

    def _level(self) -> float | None:
        """Return the level of the instruction set; processors run what is made for lower ones."""
        if not self.variant:
            return _BASELINE.get(self.architecture)
        match = _LEVEL.fullmatch(self.variant)
        return float(match.group(1)) if match else None
