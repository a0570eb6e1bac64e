"""Roots whose PID 1 is a real systemd or a real OpenRC, made once and kept. Booting them is `machine`'s part.

Two directories each: the system, and a layer that holds appbox's dependencies in a virtual environment made with the
system's own Python (one for all systems of a suite). Machines lay a throw-away layer over both.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tests.ground import cache, debian

TREE = Path(__file__).parents[2]
VENV = "/usr/local/appbox"
INSTALL = Path(__file__).with_name("environment.sh")
FORMAT = 1  # counts up when the way roots are built changes

COMMON = (
    "runc",
    "python3",
    "python3-venv",
    "iproute2",
    "procps",
    "redis-tools",
    "busybox-static",
    "util-linux",
    "mount",
    # What keys of a manifest need of their host.
    "age",
    "containernetworking-plugins",
    "cron",
    "curl",
    "iptables",
    "nftables",
    "passt",
    "socat",
    "tini",
    "tzdata",
    # What an ordinary user's services need, and the other runtime.
    "crun",
    "slirp4netns",
    "uidmap",
)
USER = "alice"
USER_ID = 1000
HOOKS = (f'chroot "$1" useradd --create-home --uid {USER_ID} --shell /bin/sh {USER}',)

# In a root that shares the kernel, these would change the real machine, or wait for hardware that is not there.
MASKED = (
    "systemd-sysctl.service",
    "systemd-modules-load.service",
    "systemd-remount-fs.service",
    "systemd-timesyncd.service",
    "systemd-networkd.service",
    "console-getty.service",
    "getty.target",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "dpkg-db-backup.timer",
    "fstrim.timer",
)

# As Gentoo and Alpine have it; Debian's own table never enters the runlevel "boot".
INITTAB = """\
id:2:initdefault:
si::sysinit:/sbin/openrc sysinit
rc::bootwait:/sbin/openrc boot
l2:2:wait:/sbin/openrc default
l0:0:wait:/sbin/openrc shutdown
l0s:0:wait:/sbin/halt -d -f -p
l6:6:wait:/sbin/openrc reboot
l6r:6:wait:/sbin/reboot -d -f
"""

RC_CONF = """
# As Alpine's handbook has it for cgroup v2.
rc_cgroup_mode="unified"
rc_cgroup_controllers="cpuset cpu io memory hugetlb pids"
rc_logger="YES"
rc_log_path="/var/log/rc.log"
"""


@dataclass(frozen=True, slots=True)
class Init:
    """What makes a root one of its kind. `files`: path -> content, `hooks`: shell lines with the root in `$1`."""

    name: str
    packages: tuple[str, ...]
    command: tuple[str, ...]
    files: Mapping[str, str]
    hooks: tuple[str, ...]


SYSTEMD = Init(
    "systemd",
    ("systemd", "systemd-sysv", "dbus", "libpam-systemd"),
    ("/lib/systemd/systemd", "--system"),
    files={},
    hooks=tuple(f'ln -sf /dev/null "$1"/etc/systemd/system/{unit}' for unit in MASKED),
)
OPENRC = Init(
    "openrc",
    ("openrc", "sysvinit-core"),
    ("/sbin/init",),
    files={"etc/inittab": INITTAB},
    hooks=(
        'rm -f "$1"/etc/runlevels/*/*',
        'ln -s /etc/init.d/cgroups "$1"/etc/runlevels/sysinit/cgroups',
        f"cat >>\"$1\"/etc/rc.conf <<'END'{RC_CONF}END",
    ),
)
INITS: Mapping[str, Init] = {init.name: init for init in (SYSTEMD, OPENRC)}

# No release of Debian has an OpenRC with services of users yet (0.60 and later); this one is trixie with that of sid.
USERS = "users"
NEWER = tuple(f"{name}/{debian.NEWEST}" for name in ("openrc", "librc1t64", "libeinfo1"))
OPENRC_OF_USERS = replace(OPENRC, packages=(*NEWER, "sysvinit-core"))

FILES = {
    "etc/hostname": "ground\n",
    "etc/hosts": "127.0.0.1 localhost ground\n::1 localhost\n",
    "etc/resolv.conf": "nameserver 192.0.2.53\n",
    "etc/machine-id": "",
    "etc/fstab": "",
}


@dataclass(frozen=True, slots=True)
class Tools:
    """Programs that stand in a folder inside."""

    folder: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Root:
    """A system and the layers over it, all to be left as they are. `tools` are on no PATH: only tests use them."""

    init: Init
    system: Path
    environment: Path
    over: tuple[Path, ...] = ()  # between the two, uppermost first
    tools: Tools | None = None


def ensure(name: str, suite: str = "bookworm") -> Root:
    """Return the root of init `name` ("systemd", "openrc"), built when it is missing or older than its recipe."""
    init = INITS[name]
    system = build_system(init, suite)
    return Root(init, system, build_environment(system, suite))


def ensure_users() -> Root:
    """Return the root whose OpenRC has services of users, built when it is missing or older than its recipe."""
    suite = "trixie"
    system = build_system(OPENRC_OF_USERS, suite, f"{OPENRC.name}-{USERS}-{suite}-")
    return Root(OPENRC_OF_USERS, system, build_environment(system, suite))


def build_system(init: Init, suite: str, prefix: str = "") -> Path:
    """Return the directory of the system, built when it is missing; `prefix` is what its name begins with."""
    prefix = prefix or f"{init.name}-{suite}-"
    path = cache.root() / "roots" / f"{prefix}{cache.key(FORMAT, asdict(init), FILES, COMMON, HOOKS, suite)}"
    with cache.locked(path):
        if not path.exists():
            cache.say(f"building a root with {init.name} of {suite} in {path}")
            cache.forget_others(path, prefix)
            with cache.replacing(path) as fresh:
                debian.bootstrap(
                    fresh, suite, (*COMMON, *init.packages), variant="minbase", hooks=(*HOOKS, *init.hooks)
                )
                for name, text in {**FILES, **init.files}.items():
                    (fresh / name).write_text(text, encoding="utf-8")
    return path


def dependencies() -> list[str]:
    """Return what appbox needs at run time, as pyproject.toml says."""
    return list(tomllib.loads((TREE / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"])


def build_environment(system: Path, suite: str) -> Path:
    """Return the layer with appbox's dependencies, for the Python of `system`, built when it is missing."""
    prefix = f"environment-{suite}-"
    path = cache.root() / "roots" / f"{prefix}{cache.key(FORMAT, dependencies(), python_version(system))}"
    with cache.locked(path):
        if not path.exists():
            cache.say(f"installing appbox's dependencies for the Python of {suite} in {path}")
            cache.forget_others(path, prefix)
            with cache.replacing(path) as fresh:
                install_dependencies(system, fresh)
    return path


def install_dependencies(system: Path, layer: Path) -> None:
    """Make the virtual environment in `layer`, with `system`'s Python, from wheels that this machine's pip fetches."""
    with cache.scratch("dependencies") as scratch:
        (scratch / "wheels").mkdir()
        download(dependencies(), scratch / "wheels", python_version(system))
        pip_install([system], layer, scratch, dependencies())


def install_appbox(root: Root, layer: Path) -> None:
    """Fill the empty directory `layer` with appbox as this tree has it now, as pip installs its wheel over `root`."""
    with cache.scratch("wheel") as scratch:
        (scratch / "wheels").mkdir()
        build_wheel(scratch / "wheels")
        pip_install([root.environment, root.system], layer, scratch, ["appbox"])


def pip_install(lower: Sequence[Path], layer: Path, scratch: Path, requirements: Sequence[str]) -> None:
    """Install `requirements` from `scratch`/wheels into the environment of the root `lower` (uppermost first)."""
    (scratch / "requirements").write_text("\n".join(requirements), encoding="utf-8")
    words = ["unshare", "--mount", "--propagation", "private", "sh", str(INSTALL)]
    run([*words, ":".join(map(str, lower)), str(layer), str(scratch), VENV])


def download(requirements: Sequence[str], directory: Path, version: str) -> None:
    """Fetch wheels for Python `version` with this machine's pip configuration."""
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", f"--python-version={version}"]
    run([*words, f"--dest={directory}", *requirements])


def build_wheel(directory: Path) -> None:
    """Build appbox's wheel from this tree into `directory`, with the tools of the running environment."""
    words = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    run([*words, f"--wheel-dir={directory}", str(TREE)])


def python_version(system: Path) -> str:
    """Return the version of `system`'s Python, as in "3.11"."""
    return run(["chroot", str(system), "python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]).strip()


def run(words: Sequence[str]) -> str:
    """Run a program that has to succeed; return what it wrote. Its complaints are part of the error."""
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        msg = f"{' '.join(words[:3])}… failed with {done.returncode}: {done.stdout}{done.stderr}"
        raise RuntimeError(msg)
    return done.stdout
