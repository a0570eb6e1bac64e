"""What this host can do, as far as manifests ask for it: programs, kernel, runtime. It only reads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal

from appbox import health, owner
from appbox.addresses import by_pasta, network_of
from appbox.host import cgroups, kernel, networks, openrc, process, replace_mount, secret_sources
from appbox.host.facts import Abilities
from appbox.manifest import Manifest
from appbox.resources import limits
from appbox.store import paths


def gather(manifests: Sequence[Manifest]) -> Abilities:
    """Return what the running host has of what `manifests` ask for; no program is started for what nobody asks."""
    runtime, no_runtime = kernel.runtime()
    through = any(by_pasta(one.network.mode, user=owner.current() is not None) for one in manifests)
    return Abilities(
        runtime=runtime,
        no_runtime=no_runtime,
        kernel=kernel.version(),
        apparmor=kernel.profiles() if any(one.security.apparmor for one in manifests) else None,
        hard_limits=kernel.hard_limits(),
        raises_limits=kernel.raises_limits(),
        open_files=kernel.open_files(),
        no_sysctls=kernel.no_sysctls(manifests),
        networking=networks.abilities() if any(network_of(one.network.mode) for one in manifests) else None,
        pasta=_pasta() if through else "",
        cgroups=cgroups.gather() if any(limits(manifest.resources) for manifest in manifests) else None,
        manager=_manager(),
        slirp=_slirp() if through else False,
        first_port=kernel.first_port() if owner.current() else 0,
        no_overlay=kernel.no_overlay(paths.CONTAINERS),
        noexec=kernel.no_programs(paths.CONTAINERS),
        live_mounts=replace_mount.possible() if any(map(_calm, manifests)) else True,
        secrets=secret_sources.gather(manifests),
        programs=_programs() if any(one.health or one.service.notify for one in manifests) else None,
    )


def _manager() -> Literal["", "missing", "brief"]:
    """Return what is wrong with the user's own init system; "" where there is none, or it does not matter.

    systemd's is in user@.service(5) and loginctl(1), OpenRC's in its user guide, "Launching at boot".
    """
    own = owner.current()
    if own is None or own.by_root:
        return ""
    if not os.path.isdir("/run/systemd/system"):
        return "" if openrc.starts_at_boot(own.name) else "brief"
    if not os.path.exists(f"{own.runtime}/systemd/private"):
        return "missing"
    return "" if os.path.exists(f"/var/lib/systemd/linger/{own.name}") else "brief"


def _pasta() -> str:
    if process.find("pasta") is None and not _slirp():
        return "pasta is not installed"
    if not os.path.exists("/dev/net/tun"):
        return "there is no /dev/net/tun, with which pasta makes the service's interface"
    if owner.current() is not None and not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "you may not open /dev/net/tun, with which pasta makes the service's interface"
    return ""


def _slirp() -> bool:
    """Return whether slirp4netns has to take pasta's place: for an ordinary user it can."""
    return owner.current() is not None and process.find("pasta") is None and process.find("slirp4netns") is not None


def _calm(manifest: Manifest) -> bool:
    return any(config.on_change != "restart" for config in manifest.config.values())


def _programs() -> frozenset[str]:
    return frozenset(name for name in health.PROGRAMS if process.find(name) is not None)
