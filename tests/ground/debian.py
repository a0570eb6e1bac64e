"""Debian roots, made with mmdebstrap from where this machine's own apt gets its packages. No images, no mounts.

Mirrors and proxies come from the machine's apt configuration; `deb.debian.org` is only what remains when it names none.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.ground import cache

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
FALLBACK = "http://deb.debian.org"
SUITES = ("bookworm", "trixie")
NEWEST = "sid"  # where a package comes from that is asked for as NAME/sid, all that it needs coming from the suite
# What a person reads is not needed in a test; it is a third of a small root.
EXCLUDED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/lintian/*")
# What mmdebstrap takes over from this machine.
FORGET_HOST = (
    'cd "$1" && rm -rf etc/apt/apt.conf.d/99mmdebstrap etc/dpkg/dpkg.cfg.d/99mmdebstrap etc/resolv.conf etc/hostname'
    " var/cache/debconf/*-old var/log/*.log var/log/apt"
)


def os_release() -> dict[str, str]:
    """Return this machine's os-release(5) as a dictionary; empty when there is none."""
    path = Path("/etc/os-release")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {name: value.strip("\"'") for name, sep, value in (line.partition("=") for line in lines) if sep}


def host_suite() -> str:
    """Return the Debian suite of this machine, or the oldest one that is supported when it runs something else."""
    codename = os_release().get("VERSION_CODENAME", "")
    return codename if codename in SUITES else SUITES[0]


def sources(suite: str) -> list[str]:
    """Return sources.list(5) lines for `suite`, from the mirrors that this machine uses."""
    uris = host_mirrors() or {
        "": f"{FALLBACK}/debian",
        "-updates": f"{FALLBACK}/debian",
        "-security": f"{FALLBACK}/debian-security",
    }
    return [f"deb [signed-by={KEYRING}] {uri} {suite}{pocket} main" for pocket, uri in sorted(uris.items())]


def newest(suite: str) -> tuple[list[str], list[str]]:
    """Return lines of apt.conf(5) and sources.list(5) with which single packages of `NEWEST` join those of `suite`."""
    uri = host_mirrors().get("", f"{FALLBACK}/debian")
    return [f'APT::Default-Release "{suite}";'], [f"deb [signed-by={KEYRING}] {uri} {NEWEST} main"]


def host_mirrors() -> dict[str, str]:
    """Return pocket ("", "-updates", "-security") -> URI as this machine's apt has them; empty without Debian."""
    words = ["apt-get", "indextargets", "--format", "$(RELEASE) $(COMPONENT) $(REPO_URI)", "Created-By: Packages"]
    names = {os_release().get("VERSION_CODENAME", ""), *SUITES, "stable", "oldstable", "testing"}
    found: dict[str, str] = {}
    for line in subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines():
        release, component, uri = line.split(" ", 2)
        name, dash, pocket = release.partition("-")
        if component == "main" and name in names and dash + pocket in ("", "-updates", "-security"):
            found.setdefault(dash + pocket, uri.rstrip("/"))
    return found if "" in found else {}


def acquire_options() -> Iterator[str]:
    """Yield how this machine's apt reaches its mirrors (proxies, certificates, clocks), as apt.conf(5) lines."""
    wanted = ("Acquire::http", "Acquire::https", "Acquire::Check-", "Acquire::Retries", "Acquire::ForceIPv")
    for line in subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout.splitlines():
        if line.startswith(wanted) and not line.endswith(' "";'):
            yield line


def bootstrap(target: Path, suite: str, packages: Sequence[str], *, variant: str, hooks: Sequence[str] = ()) -> None:
    """Make a root of `suite` with `packages` in `target`: an empty directory, or the name of a tar file to write.

    `variant` is mmdebstrap's: "essential" has no apt, "minbase" has it. `hooks` are shell lines, with the root in `$1`.
    """
    mode = "root" if os.geteuid() == 0 else "unshare"
    form = "directory" if target.is_dir() else "tar"
    settings, more = newest(suite) if any(name.endswith(f"/{NEWEST}") for name in packages) else ([], [])
    options = [f"--aptopt={line}" for line in (*acquire_options(), *settings)]
    options += ["--aptopt=Acquire::Languages none;", "--dpkgopt=force-unsafe-io"]
    options += [f"--dpkgopt=path-exclude={pattern}" for pattern in EXCLUDED]
    options += [f"--customize-hook={hook}" for hook in (*hooks, FORGET_HOST)]
    words = ["mmdebstrap", "--quiet", f"--mode={mode}", f"--format={form}", "--skip=output/dev", f"--variant={variant}"]
    words += [*options, f"--include={','.join(packages)}", suite, str(target), *sources(suite), *more]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        cache.say(done.stderr)
        msg = f"mmdebstrap of {suite} with {', '.join(packages)} failed with {done.returncode}; its words are above"
        raise RuntimeError(msg)
