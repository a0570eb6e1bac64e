"""The OpenRC root as Alpine has it: busybox is the shell and every tool, and nothing else of a Debian is left.

Not only first on the PATH: coreutils, util-linux, grep, sed, awk, procps, bash, dash and perl are gone, so that what
busybox lacks fails. It is a layer over the root, of links to busybox and of overlayfs's whiteouts.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from tests.ground import cache, roots

FORMAT = 2  # counts up when the way the layer is made changes
FOLDERS = ("usr/bin", "usr/sbin")  # Debian's /bin and /sbin are links to them
TOOLS = roots.Tools("/usr/lib/ground", ("ip", "ss", "pgrep", "perl"))
"""What only tests call, and what some of them install."""

# What busybox is not asked for: on Alpine, too, another package provides it.
KEPT = (
    # OpenRC, and an init and its words. busybox has these, too, but this machine's init is Debian's.
    *("openrc", "openrc-run", "openrc-shutdown", "rc-service", "rc-sstat", "rc-status", "rc-update"),
    *("supervise-daemon", "start-stop-daemon"),
    *("init", "halt", "poweroff", "reboot", "runlevel", "shutdown", "telinit"),
    # What runs services, and what keys of a manifest ask for.
    *("runc", "crun", "tini", "tini-static", "age", "age-keygen", "curl"),
    *("pasta", "pasta.avx2", "passt", "passt.avx2", "slirp4netns", "newuidmap", "newgidmap", "getsubids"),
    *("xtables-nft-multi", "nft"),
    *(f"{name}{suffix}" for name in ("iptables", "ip6tables") for suffix in ("", "-restore", "-save")),
    *(f"{name}-nft{suffix}" for name in ("iptables", "ip6tables") for suffix in ("", "-restore", "-save")),
    # Debian's busybox has no flock; Alpine's has (see tools.toml).
    "flock",
    # appbox itself, until a test removes it, and a client that tests have.
    *("python3", "python3.11", "python3.13", "redis-cli"),
)

# As Alpine's own, which starts it at boot; its table is /etc/crontabs/root.
CROND = """\
#!/sbin/openrc-run
command="/usr/sbin/crond"
command_args="-c /etc/crontabs -f"
command_background=true
pidfile="/run/$RC_SVCNAME.pid"
"""


def ensure(suite: str = "bookworm") -> roots.Root:
    """Return the root, made when it is missing."""
    root = roots.ensure("openrc", suite)
    return roots.Root(root.init, root.system, root.environment, (build(root.system, suite),), TOOLS)


def build(system: Path, suite: str) -> Path:
    """Return the layer that makes an Alpine of `system`, built when it is missing."""
    prefix = f"busybox-{suite}-"
    path = cache.root() / "roots" / f"{prefix}{cache.key(FORMAT, system.name, KEPT, TOOLS.names, CROND)}"
    with cache.locked(path):
        if not path.exists():
            cache.forget_others(path, prefix)
            with cache.replacing(path) as fresh:
                fill(fresh, system)
    return path


def fill(layer: Path, system: Path) -> None:
    """Write the layer: whiteouts and links for programs, the tests' tools, busybox's crond."""
    applets = dict(links(system))
    for folder in FOLDERS:
        (layer / folder).mkdir(parents=True)
        for name in os.listdir(system / folder):
            path = f"{folder}/{name}"
            if name != "busybox" and name not in KEPT and path not in applets:
                os.mknod(layer / path, stat.S_IFCHR, os.makedev(0, 0))
    for path, target in applets.items():
        (layer / path).symlink_to(target)
    (layer / TOOLS.folder[1:]).mkdir(parents=True)
    for name in TOOLS.names:
        shutil.copy2(system / "usr/bin" / name, layer / TOOLS.folder[1:] / name)
    (layer / "etc/init.d").mkdir(parents=True)
    (layer / "etc/init.d/crond").write_text(CROND, encoding="ascii")
    (layer / "etc/init.d/crond").chmod(0o755)
    os.mknod(layer / "etc/init.d/cron", stat.S_IFCHR, os.makedev(0, 0))
    passwd = (system / "etc/passwd").read_text(encoding="utf-8")
    (layer / "etc/passwd").write_text(passwd.replace("/bin/bash", "/bin/sh"), encoding="utf-8")
    (layer / "etc/crontabs").mkdir()
    (layer / "etc/crontabs/root").write_text("# the administrator's own\n", encoding="ascii")


def links(system: Path) -> Iterator[tuple[str, str]]:
    """Yield where busybox is to be found under another name, for every applet that nothing else provides."""
    listed = roots.run(["chroot", str(system), "/bin/busybox", "--list-full"])
    for line in listed.split():
        folder, _, name = line.rpartition("/")
        if name not in KEPT and name != "busybox":
            yield f"{'usr/sbin' if folder.endswith('sbin') else 'usr/bin'}/{name}", "/usr/bin/busybox"
