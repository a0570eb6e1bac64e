"""What the hosts of tests/vm consist of: a Debian as its packages leave it, and what it installs appbox from.

Each is made once and kept: per init a file system with kernel and initramfs, built by mmdebstrap; and, as no host has a
network, the store of a registry.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tests.ground import cache, debian, images, recipes, registry, roots, vm

SUITE = "trixie"
USER = "ada"  # somebody without any privilege
FORMAT = 1  # counts up when the way these are built changes

PACKAGES = (
    # appbox's own needs, as the README has them.
    "runc",
    "python3",
    "python3-venv",
    # For services of users.
    "passt",
    "uidmap",
    # What a minimal root lacks of a host; the registry is there to be asked. No udev: two disks are all the hardware,
    # and to look for more would take half the time of a boot.
    "docker-registry",
    "iproute2",
    "kmod",
    "mount",
    "procps",
    "redis-tools",
    "util-linux",
)

# $1: the root. The kernel without what would make an initramfs of its own: ours holds two modules.
KERNEL = """\
chroot "$1" sh -euc '
    cd /tmp
    package=$(apt-cache depends linux-image-cloud-amd64 | sed -n "s/.*Depends: \\(linux-image-\\)/\\1/p")
    apt-get --quiet --quiet download "$package"
    dpkg-deb --extract ./*.deb kernel
    cp -a kernel/usr/lib/modules /usr/lib/
    cp kernel/boot/vmlinuz-* /boot/vmlinuz
    rm -r kernel ./*.deb
    depmod "$(ls /usr/lib/modules)"'
"""
HOOKS = (
    KERNEL,
    f'chroot "$1" useradd --create-home --shell /bin/sh {USER}',
    # The registry runs when a test asks for it: no service needs one to start.
    'rm -f "$1"/etc/runlevels/*/docker-registry "$1"/etc/systemd/system/*/docker-registry.service',
)

FILES = {
    "etc/hostname": "host\n",
    "etc/hosts": "127.0.0.1 localhost host\n::1 localhost\n",
    "etc/resolv.conf": "nameserver 192.0.2.53\n",
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",  # without one systemd enables all that there is
    "etc/fstab": "/dev/vda / ext4 defaults 0 0\n",
}


@dataclass(frozen=True, slots=True)
class System:
    """A Debian with one init. `command`: the first program; `files`: path -> content; `hooks`: lines of shell."""

    init: str
    packages: tuple[str, ...]
    command: str
    files: Mapping[str, str]
    hooks: tuple[str, ...] = ()


SYSTEMS: Mapping[str, System] = {
    system.init: system
    for system in (
        System(
            "systemd",
            ("systemd", "systemd-sysv", "dbus", "dbus-user-session", "libpam-systemd"),
            "/lib/systemd/systemd",
            files={},
            # Nothing can be fetched, nothing has been written for long, and nobody is at the console.
            hooks=(
                'rm -f "$1"/etc/systemd/system/timers.target.wants/* "$1"/etc/systemd/system/getty.target.wants/*',
                'ln -s /dev/null "$1"/etc/systemd/system/serial-getty@ttyS0.service',
            ),
        ),
        System(
            "openrc",
            ("openrc", "sysvinit-core", "ifupdown"),
            "/sbin/init",
            files={"etc/network/interfaces": "auto lo\niface lo inet loopback\n"},
            # sysvinit-core's table waits for people on six terminals that this machine does not have.
            hooks=('sed -i "/getty/d" "$1"/etc/inittab',),
        ),
    )
}

# A registry that gives what is on the disk and takes nothing.
REGISTRY = {
    "version": "0.1",
    "log": {"level": "error"},
    "storage": {
        "filesystem": {"rootdirectory": "/media/registry"},
        "maintenance": {"readonly": {"enabled": True}},
    },
    "http": {"addr": "127.0.0.1:5000", "secret": "tests"},
}
# An emulated processor takes half a second for each megabyte of an image; these are not needed to run redis.
SLIM = (
    'cd "$1" && rm -rf usr/share/* usr/lib/*/perl* usr/lib/*/libperl* usr/lib/*/gconv usr/bin/perl* usr/lib/locale'
    " usr/lib/*/libmvec* usr/bin/redis-benchmark usr/bin/redis-check-aof var/lib/dpkg/info"
)
IMAGE, VERSION = "127.0.0.1:5000/ground/redis", "7"


def host(init: str) -> Path:
    """Return a directory with `disk` (ext4), `vmlinuz` and `initramfs` of a host, made when it is missing."""
    system = SYSTEMS[init]
    recipe = (asdict(system), PACKAGES, HOOKS, FILES, roots.dependencies(), vm.MODULES)
    scripts = [path.read_text() for path in (vm.INITRAMFS, vm.AGENT, roots.INSTALL)]
    path = cache.root() / "machines" / f"host-{init}-{cache.key(FORMAT, SUITE, recipe, scripts)}"
    with cache.locked(path):
        if not path.exists():
            cache.say(f"building a host with {init} of {SUITE} in {path}")
            cache.forget_others(path, f"host-{init}-")
            with cache.replacing(path) as fresh, cache.scratch("host") as scratch:
                build_host(system, scratch, fresh)
    return path


def build_host(system: System, scratch: Path, target: Path) -> None:
    """Make the root in `scratch`, and `disk`, `vmlinuz` and `initramfs` of it in `target`."""
    root, environment = scratch / "root", scratch / "environment"
    root.mkdir()
    environment.mkdir()
    packages, hooks = (*PACKAGES, *system.packages), (*HOOKS, *system.hooks)
    debian.bootstrap(root, SUITE, packages, variant="minbase", hooks=hooks)
    for name, text in {**FILES, **system.files, "ground/init": system.command}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    shutil.copy(vm.AGENT, root / "ground/agent.py")
    shutil.copy(root / "boot/vmlinuz", target / "vmlinuz")
    vm.pack_initramfs(next(root.glob("usr/lib/modules/*")), scratch / "first", target / "initramfs")
    roots.install_dependencies(root, environment)
    vm.make_disk((environment, root), target / "disk", "4G", journal=True)


def supplies(directory: Path) -> Path:
    """Make a disk in `directory`: the wheel of appbox as this tree has it, and a registry's configuration and store."""
    top = directory / "top"
    top.mkdir()
    roots.build_wheel(top)
    (top / "registry.yml").write_text(json.dumps(REGISTRY))  # JSON is YAML
    shutil.copytree(store(), top / "registry")
    vm.make_disk((top,), directory / "more", "256M")
    shutil.rmtree(top)
    return directory / "more"


def store() -> Path:
    """Return the store of a registry that has the image, built and pushed when it is missing."""
    recipe = recipes.RECIPES["redis"]
    recipe = replace(recipe, hooks=(*recipe.hooks, SLIM))
    suite = images.default_suite(recipe)
    path = cache.root() / "machines" / f"registry-{cache.key(FORMAT, recipe.key(suite), IMAGE, VERSION)}"
    with cache.locked(path):
        if not path.exists():
            cache.say(f"building {IMAGE} from {suite} packages, and pushing it into {path}")
            cache.forget_others(path, "registry-")
            with cache.replacing(path) as fresh, cache.scratch("registry") as scratch:
                (scratch / "image").mkdir()
                images.build(recipe, suite, scratch / "image")
                with registry.start(str(scratch)) as running:
                    running.push(f"oci:{scratch}/image:{images.REF}", f"{IMAGE.partition('/')[2]}:{VERSION}")
                (scratch / "data/docker").rename(fresh / "docker")
    return path
