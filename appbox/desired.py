"""A manifest compiled: every file that a service consists of, as text. Pure: the same input gives the same bytes.

Before the unpacking, what only the rootfs can tell is missing; `build` is then called again with the rootfs's facts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

import tomli_w

from appbox import __version__, configuration, container, volumes
from appbox.errors import ManifestError, Refused
from appbox.host import ranges
from appbox.host.facts import Facts, IdRange
from appbox.locked import Locked
from appbox.manifest import as_table
from appbox.oci import runtime_spec
from appbox.oci.model import Descriptor
from appbox.oci.rootfs import RootfsFacts
from appbox.oci.runtime_spec import Container, IdMap, Mount
from appbox.oci.users import User
from appbox.policy import Signer
from appbox.store import paths
from appbox.units import openrc, systemd
from appbox.units.model import Link, RestartLimit, RunScript, StopSignal, Unit, UnitFile
from appbox.units.render import run_script
from appbox.volumes import VolumeSpec

UNKNOWN: Final = "known after unpack"

LOADERS: Final = (
    "/lib/ld-linux.so.2",
    "/lib/ld-musl-i386.so.1",
    "/lib/ld-linux-armhf.so.3",
    "/lib/ld-musl-armhf.so.1",
)
"""The dynamic loaders of 32-bit programs, glibc's and musl's."""

RESOLV_CONF: Final = "/etc/resolv.conf"
HOSTS: Final = "/etc/hosts"
HOSTNAME: Final = "/etc/hostname"


@dataclass(frozen=True, slots=True)
class File:
    """A file of a generation: path relative to it, owner in host ids; `restarts`: a running service must restart."""

    path: str
    data: bytes
    mode: int
    owner: tuple[int, int] = (0, 0)
    restarts: bool = True


@dataclass(frozen=True, slots=True)
class Desired:
    """A service as it should be. `base` and `size` are its range of host ids; without a user namespace `base` is 0.

    `units` are the files of the init system, the service's own first, none without one; `link` is what lets it start at
    boot when `enable` is true. `signers` are who signed the image, where a policy asks.
    `complete` is false before the unpacking: `files` then read `UNKNOWN` where a number has to come from the rootfs.
    """

    name: str
    version: str
    reference: str
    digest: str
    layers: tuple[Descriptor, ...]
    base: int
    size: int
    mapped: bool
    files: tuple[File, ...]
    units: tuple[UnitFile, ...]
    volumes: tuple[VolumeSpec, ...]
    link: Link | None
    enable: bool
    notes: tuple[str, ...]
    complete: bool
    signers: tuple[Signer, ...] = ()

    @property
    def directory(self) -> str:
        """The version's directory, relative to the containers."""
        return paths.version_directory(self.name, self.version)


def wanted_nodes(locked: Locked) -> tuple[str, ...]:
    """Return the paths of the rootfs whose nodes `build` asks for, sorted."""
    manifest = locked.manifest
    found = {RESOLV_CONF, HOSTS, HOSTNAME, *LOADERS, *manifest.config}
    found |= {volume.path for volume in manifest.volumes.values()} | {container.workdir(locked)}
    found |= {"/" + path.strip("/") for path in locked.image.config.volumes}
    return tuple(sorted(found))


def build(locked: Locked, facts: Facts, base: int, rootfs: RootfsFacts | None) -> Desired:
    """Return the service that a manifest describes on a host.

    `base` is the first id of the service's range. Raises ManifestError for templates and combinations that cannot
    work, Refused for an image that claims impossible things.
    """
    manifest = locked.manifest
    mapped = manifest.security.userns == "auto"
    base = base if mapped else 0
    size = ranges.SIZE if mapped else ranges.ALL
    user = container.user(locked, rootfs, size)
    bundle = paths.bundle(manifest.name, manifest.version)
    found = volumes.build(locked, bundle, user, rootfs)
    volumes.refuse_kind(
        locked, container.workdir(locked), volumes.node_at(container.workdir(locked), rootfs), "directory"
    )
    for volume in found:
        if volume.owner is not None and max(volume.owner) >= size:
            raise Refused(f"volume {volume.name} would belong to the id {max(volume.owner)}", where=manifest.name)
    configs = _configs(locked, facts, IdRange(base, size), user, rootfs)
    unit = _unit(locked)
    contained = _container(locked, bundle, mapped, base, user, found, rootfs)
    files = [*configs, *_identity(locked), _spec(contained, user), *_commands(locked, contained)]
    files += [_run(locked, base), _meta(locked, base, mapped, user)]
    return Desired(
        name=manifest.name,
        version=manifest.version,
        reference=locked.image.reference,
        digest=str(locked.image.digest),
        layers=locked.image.manifest.layers,
        base=base,
        size=size,
        mapped=mapped,
        files=tuple(sorted(files, key=lambda file: file.path)),
        units=_render_units(unit, facts),
        link=_link(unit, facts),
        volumes=found,
        enable=manifest.service.enable,
        notes=(*_signed(locked), *container.notes(locked, mapped=mapped)),
        signers=locked.signers,
        complete=rootfs is not None,
    )


def _signed(locked: Locked) -> list[str]:
    return [f"the image is signed by {one.key} ({one.fingerprint[:19]}…)" for one in locked.signers]


def _configs(locked: Locked, facts: Facts, ids: IdRange, user: User | None, rootfs: RootfsFacts | None) -> list[File]:
    """Render every configuration file; all problems are reported at once."""
    found, problems = [], []
    for path, config in locked.manifest.config.items():
        owner = (user.uid, user.gid) if config.owner == "image" and user else None
        if config.owner != "image":
            owner = volumes.lookup(locked, ("config", path, "owner"), config.owner, rootfs)
        uid, gid = owner or (0, 0)
        if max(uid, gid) >= ids.size:
            message = f"a service has the ids below {ids.size}"
            problems.append(locked.document.problem(("config", path, "owner"), message))
        try:
            data = configuration.render(locked.configs[path], locked.manifest.vars, facts.for_templates())
        except ManifestError as error:
            problems += error.problems
            continue
        restarts = config.on_change != "none"
        found.append(File(f"config{path}", data, config.mode, (ids.base + uid, ids.base + gid), restarts))
    if problems:
        raise ManifestError(problems)
    return found


def _identity(locked: Locked) -> list[File]:
    """Return /etc/hosts and /etc/hostname: some programs exit when their own host name resolves to nothing."""
    name = container.hostname(locked)
    hosts = f"127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 {name}\n"
    return [File("etc/hosts", hosts.encode(), 0o644), File("etc/hostname", f"{name}\n".encode(), 0o644)]


def _container(  # noqa: PLR0917
    locked: Locked,
    bundle: str,
    mapped: bool,
    base: int,
    user: User | None,
    found: tuple[VolumeSpec, ...],
    rootfs: RootfsFacts | None,
) -> Container:
    manifest = locked.manifest
    host = container.hostname(locked)
    network: Literal["host", "none"] = "host" if manifest.network.mode == "host" else "none"
    return Container(
        args=container.args(locked),
        env=container.env(locked, host),
        cwd=container.workdir(locked),
        user=user or User(0, 0),
        hostname=host,
        capabilities=container.capabilities(locked),
        no_new_privileges=manifest.security.no_new_privileges,
        userns=IdMap(base, ranges.SIZE) if mapped else None,
        network=network,
        mounts=_mounts(locked, bundle, found, rootfs),
        seccomp=manifest.security.seccomp,
        architecture=locked.image.platform.architecture,
        cgroups_path=manifest.name,
        programs_32_bit=_has_32_bit_programs(rootfs),
        hook=f"{bundle}/run" if _script(locked, base).created else "",
    )


def _spec(contained: Container, user: User | None) -> File:
    spec = runtime_spec.spec(contained)
    if user is None:
        spec["process"]["user"] = UNKNOWN
    return File("config.json", runtime_spec.dumps(spec).encode(), 0o600)


def _commands(locked: Locked, contained: Container) -> Iterator[File]:
    """Yield the programs that are run beside the service in its container, for `runc exec --process`."""
    commands: dict[str, tuple[str, ...]] = {}
    del locked
    for name, words in commands.items():
        text = json.dumps(runtime_spec.command(contained, words), indent=2)
        yield File(f"commands/{name}.json", f"{text}\n".encode(), 0o600, restarts=False)


def _has_32_bit_programs(rootfs: RootfsFacts | None) -> bool:
    """Return whether the image can load 32-bit programs: the filter then has to know their system calls too."""
    return rootfs is not None and any(path in rootfs.nodes and rootfs.nodes[path].kind != "missing" for path in LOADERS)


def _mounts(
    locked: Locked, bundle: str, found: tuple[VolumeSpec, ...], rootfs: RootfsFacts | None
) -> tuple[Mount, ...]:
    """Return the service's mounts, outer ones first."""
    sources = {
        RESOLV_CONF: f"{bundle}/{paths.LIVE}/resolv.conf",
        HOSTS: f"{bundle}/{paths.CURRENT}/etc/hosts",
        HOSTNAME: f"{bundle}/{paths.CURRENT}/etc/hostname",
        **{path: f"{bundle}/config{path}" for path in locked.manifest.config},
    }
    options = ("bind", "ro", "nosuid", "nodev", "noexec")
    mounts = {volume.target: volume.mount() for volume in found}
    for path, source in sources.items():
        node = volumes.resolve(path, rootfs)
        volumes.refuse_kind(locked, path, node, "file")
        place = node.path if node else path
        if place in mounts:
            raise locked.refuse(("config", path), f"a volume or another file is at {place} too")
        mounts[place] = Mount(place, source, "", options)
    return tuple(mounts[place] for place in sorted(mounts, key=lambda place: place.split("/")))


def _run(locked: Locked, base: int) -> File:
    return File("run", run_script(_script(locked, base)).encode(), 0o755)


def _script(locked: Locked, base: int) -> RunScript:
    return RunScript(
        name=locked.manifest.name,
        version=locked.manifest.version,
        base=base,
        resolver=locked.manifest.network.mode == "host",
        stop_signal=_stop_signal(locked),
    )


def _unit(locked: Locked) -> Unit:
    manifest = locked.manifest
    service = manifest.service
    return Unit(
        name=manifest.name,
        version=manifest.version,
        restart=service.restart,
        restart_delay=service.restart_delay,
        restart_limit=RestartLimit(service.restart_limit.count, service.restart_limit.seconds),
        stop_signal=_stop_signal(locked),
        stop_timeout=manifest.process.stop_timeout,
        mounts_for=tuple(sorted(v.source for v in manifest.volumes.values() if v.source)),
        network=manifest.network.mode == "host",
    )


def _stop_signal(locked: Locked) -> StopSignal:
    signal = container.stop_signal(locked)
    return StopSignal(signal.name, signal.number)


def _render_units(unit: Unit, facts: Facts) -> tuple[UnitFile, ...]:
    if facts.init == "systemd":
        return systemd.render(unit)
    return openrc.render(unit) if facts.init == "openrc" else ()


def _link(unit: Unit, facts: Facts) -> Link | None:
    if facts.init == "systemd":
        return systemd.link(unit)
    return openrc.link(unit) if facts.init == "openrc" else None


def _meta(locked: Locked, base: int, mapped: bool, user: User | None) -> File:
    """Return bundle.toml: where everything came from, and the manifest as it was understood."""
    image, manifest = locked.image, locked.manifest
    data: dict[str, Any] = {
        "schema": 1,
        "appbox": __version__,
        "name": manifest.name,
        "version": manifest.version,
        "uid_base": base,
        "userns": mapped,
        "user": f"{user.uid}:{user.gid}" if user else UNKNOWN,
        "source": os.path.abspath(locked.document.file),
        "stop_signal": container.stop_signal(locked).name,
        "image": {
            "reference": image.reference,
            "digest": str(image.digest),
            "index": str(image.index_digest or ""),
            "platform": str(image.platform),
            "layers": [
                {"digest": str(d.digest), "size": d.size, "media_type": d.media_type} for d in image.manifest.layers
            ],
        },
        "manifest": as_table(manifest),
    }
    if locked.signers:
        data["image"]["signed_by"] = [signer.as_dict() for signer in locked.signers]
    return File("bundle.toml", tomli_w.dumps(data, multiline_strings=False).encode(), 0o644)
