"""What a version of the OCI runtime is good for. Pure: the text of `runc --version` in, facts out.

- Before 1.0.0, runc had CVE-2021-30465: a mount target that another container exchanges leads out.
- Before 1.1.12 it leaked a descriptor of the host's into the container (CVE-2024-21626), which neither the start of a
  service nor a command in it may meet. Distributions have mended older ones, and say so in their own version.
- CVE-2025-31133, CVE-2025-52565 and CVE-2025-52881 are mended in 1.2.8, 1.3.3 and 1.4.0. They need a link at /dev/null,
  /dev/console or below /proc while the container is made. appbox gives a container its own /dev, /proc and /sys over
  plain directories, mounts nothing there, shares no mount with another container's making, and asks for no terminal.
- Mounts with ids of their own came with 1.2.0; an older one passes them over without a word.

crun (its NEWS file):
- Before 0.10.5 links of an image led its mounts out to the host (CVE-2019-18837).
- Before 1.4.4 what `exec` starts has inheritable capabilities (CVE-2022-27650); it runs nothing but what the service's
  owner asks for.
- Before 1.25.1 files below /proc are opened without seeing that it is the true one, as in runc's faults of 2025; before
  1.28 it follows a link at /dev (CVE-2026-47766). appbox leaves no image a link at /proc or /dev.
- CVE-2026-30892 is about `exec --user`, CVE-2025-24965 about virtual machines: appbox uses neither.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_VERSION: Final = re.compile(r"(runc|crun) version (?:v)?([0-9]{1,4})\.([0-9]{1,4})(?:\.([0-9]{1,4}))?(\S{0,100})")
_COMMIT: Final = re.compile(r"^commit: (\S{1,200})$", re.MULTILINE)

_OLDEST: Final = (1, 0, 0)
_NO_LEAK: Final = (1, 1, 12)
_TWO_STAGES: Final = (1, 2, 2)
_IDMAPPED: Final = (1, 2, 0)
_MENDED_2025: Final = {(1, 2): 8, (1, 3): 3}
_CRUN_OLDEST: Final = (0, 10, 5)
_CRUN_MENDED: Final = (1, 28, 0)

# Debian's DSA-5615 and Ubuntu's USN-6619: what the version begins with, and the least number that follows.
_BACKPORTS: Final = (
    ("1.1.5+ds1-1+deb12u", 1),
    ("1.1.7-0ubuntu1~20.04.", 2),
    ("1.1.7-0ubuntu1~22.04.", 2),
    ("1.1.7-0ubuntu2.", 2),
)


@dataclass(frozen=True, slots=True)
class Runtime:
    """A runtime: its name, its version as numbers, whether that is one before the final one, and as it says itself."""

    name: str
    version: tuple[int, int, int]
    preliminary: bool = False
    text: str = ""

    def __str__(self) -> str:
        return f"{self.name} {'.'.join(map(str, self.version))}{'-rc' if self.preliminary else ''}"

    @property
    def idmapped_mounts(self) -> bool:
        """Whether it can give a mount ids of its own."""
        return self.name == "runc" and self.reaches(_IDMAPPED)

    @property
    def joins_foreign_networks(self) -> bool:
        """Whether `exec` gets into a container whose network another user namespace owns (runc's issue 4390)."""
        return self.name != "runc" or self.reaches(_TWO_STAGES)

    def reaches(self, version: tuple[int, int, int]) -> bool:
        """Return whether it is this version, its final one, or a later one."""
        return self.version > version or (self.version == version and not self.preliminary)


UNKNOWN_CRUN: Final = Runtime("crun", (0, 0, 0))
"""crun as its makers' own builds have it, which do not always know their version."""


def parse(output: str) -> Runtime | None:
    """Return what a runtime says of itself, None when its words are not understood."""
    found = _VERSION.match(output)
    if found is None:
        return None
    name, *numbers, rest = found.groups()
    commit = _COMMIT.search(output)
    version = (int(numbers[0]), int(numbers[1]), int(numbers[2] or 0))
    text = f"{version[0]}.{version[1]}.{version[2]}{rest} {commit[1] if commit else ''}"
    return Runtime(name, version, bool(re.match(r"[-~]?rc", rest)), text)


def unsafe(runtime: Runtime) -> str:
    """Return why no service may be run by it; empty when nothing is known against it."""
    if runtime.name == "crun":
        held = runtime == UNKNOWN_CRUN or runtime.reaches(_CRUN_OLDEST)
        return "" if held else "links of an image lead out of the container (CVE-2019-18837)"
    if not runtime.reaches(_OLDEST):
        return "a volume could lead out of the container (CVE-2021-30465)"
    if not runtime.reaches(_NO_LEAK) and not any(_carries(runtime.text, *backport) for backport in _BACKPORTS):
        return "it lets containers out to the host (CVE-2024-21626)"
    return ""


def note(runtime: Runtime) -> str:
    """Return what the operator should know of a runtime that is not quite up to date; empty for one that is."""
    if runtime.name == "crun":
        return "" if runtime.reaches(_CRUN_MENDED) else _crun_note(runtime)
    least = _MENDED_2025.get(runtime.version[:2], 0 if runtime.version >= (1, 4, 0) else 1 << 30)
    if runtime.version[2] >= least:
        return ""
    return (
        f"{runtime} lacks the fixes of CVE-2025-31133, CVE-2025-52565 and CVE-2025-52881, which 1.2.8, 1.3.3 and 1.4.0 "
        "have; appbox leaves no image a link at /dev, /proc or /sys and gives no service a terminal, which they need"
    )


def _crun_note(runtime: Runtime) -> str:
    said = "crun does not say which version it is, and one before 1.28" if runtime == UNKNOWN_CRUN else f"{runtime}"
    return (
        f"{said} lacks the fix of CVE-2026-47766, which 1.28 has; appbox leaves no image a link at /dev or /proc, "
        "which it needs"
    )


def _carries(text: str, prefix: str, least: int) -> bool:
    found = re.search(rf"(?:^|\s){re.escape(prefix)}([0-9]{{1,4}})", text)
    return found is not None and int(found[1]) >= least
