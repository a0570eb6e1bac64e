"""A manifest compiled: every file that a service consists of, as text. Pure: the same input gives the same bytes.

Before the unpacking, what only the rootfs can tell is missing; `build` is then called again with the rootfs's facts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final, Literal

import tomli_w

from appbox import (
    __version__,
    cni,
    configuration,
    container,
    health,
    hostnames,
    isolation,
    jobs,
    live,
    needs,
    owner,
    pasta,
    preflight,
    remembered,
    resources,
    secrets,
    sharing,
    supervision,
    unprivileged,
    volumes,
    writable,
)
from appbox.desired_values import UNKNOWN, Desired, File, Upgrade
from appbox.errors import ManifestError, Refused
from appbox.host.facts import Facts, IdRange
from appbox.locked import Locked
from appbox.manifest import as_table
from appbox.oci import runtime_spec
from appbox.oci.rootfs import RootfsFacts
from appbox.oci.runtime_spec import Container, IdMap, Mount
from appbox.oci.users import User
from appbox.secrets import SecretSpec
from appbox.store import paths
from appbox.toml_source import Path
from appbox.units.render import run_script
from appbox.volumes import VolumeSpec

LOADERS: Final = (
    "/lib/ld-linux.so.2",
    "/lib/ld-musl-i386.so.1",
    "/lib/ld-linux-armhf.so.3",
    "/lib/ld-musl-armhf.so.1",
)
"""The dynamic loaders of 32-bit programs, glibc's and musl's."""


def wanted_nodes(locked: Locked) -> tuple[str, ...]:
    """Return the paths of the rootfs whose nodes `build` asks for, sorted."""
    manifest = locked.manifest
    found = {hostnames.RESOLV_CONF, hostnames.HOSTS, hostnames.HOSTNAME, *LOADERS, *manifest.config}
    found |= {volume.path for volume in manifest.volumes.values()} | {container.workdir(locked)}
    found |= {*isolation.wanted_nodes(locked), *writable.wanted_nodes(locked)}
    found |= {health.NOTIFY_PLACE} if manifest.service.notify else set()
    found |= {"/" + path.strip("/") for path in locked.image.config.volumes}
    found |= {secret.target for secret in secrets.build(locked)}
    return tuple(sorted(found))


def build(locked: Locked, facts: Facts, base: int, rootfs: RootfsFacts | None) -> Desired:
    """Return the service that a manifest describes on a host.

    `base` is the first id of the service's range. Raises ManifestError for templates and combinations that cannot
    work, Refused for an image that claims impossible things.
    """
    manifest = locked.manifest
    mapped = container.is_mapped(manifest)
    base = base if mapped else 0
    size = container.id_count(manifest)
    user = container.user(locked, rootfs, size)
    bundle = paths.bundle(manifest.name, manifest.version)
    found = volumes.build(locked, bundle, user, rootfs)
    volumes.refuse_kind(
        locked, container.workdir(locked), volumes.node_at(container.workdir(locked), rootfs), "directory"
    )
    for volume in found:
        if volume.owner is not None and max(volume.owner) >= size:
            raise Refused(f"volume {volume.name} would belong to the id {max(volume.owner)}", where=manifest.name)
    shown = live.build(locked, rootfs, able=live.able(facts))
    configs = _configs(locked, facts, IdRange(base, size), user, rootfs)
    configs += _secrets(locked, IdRange(base, size), user, rootfs)
    unprivileged.refuse_owners(locked, found)
    unit = supervision.unit(locked, facts)
    ids = IdRange(base, size)
    scratch = writable.scratch(locked, found, rootfs)
    script = supervision.script(locked, facts, base, scratch)
    hook = f"{bundle}/run" if script.created else ""
    contained = _container(locked, bundle, mapped, base, user, found, rootfs, hook=hook)
    contained = isolation.complete(contained, locked, facts, found, ids, rootfs)
    if owner.current() and supervision.runtime(facts) == "runc":
        # It takes the same place without a path, and goes on where a user has no cgroups and asks for no limits.
        contained = replace(contained, cgroups_path="")
    files = [*configs, *_identity(locked), _spec(contained, user), *_commands(locked, contained), *_attached(locked)]
    files += [File(path, data, 0o444) for path, data in isolation.files(locked)]
    files += [File("run", run_script(script).encode(), 0o755), _meta(locked, base, mapped, user)]
    if manifest.security.rootfs == "persistent":
        files.append(File(writable.MOUNT_POINTS, writable.mount_points(contained.mounts), 0o600, restarts=False))
    desired = Desired(
        name=manifest.name,
        version=manifest.version,
        reference=locked.image.reference,
        digest=str(locked.image.digest),
        layers=locked.image.manifest.layers,
        base=base,
        size=size,
        mapped=mapped,
        files=tuple(sorted(files, key=lambda file: file.path)),
        units=supervision.render_units(unit, facts),
        link=supervision.link(unit, facts),
        volumes=found,
        enable=manifest.service.enable,
        timed=bool(manifest.service.schedule),
        notes=(
            *_signed(locked),
            *container.notes(locked, mapped=mapped),
            *needs.notes(facts),
            *isolation.notes(locked, facts, found, ids),
            *jobs.notes(manifest, facts),
            *preflight.notes(locked),
            *_overlaid(locked),
            *live.notes(locked, facts),
            *secrets.notes(locked),
            *cni.notes(locked.attachment, facts.abilities.networking if facts.abilities else None),
            *resources.notes(locked, facts),
            *pasta.notes(locked, facts),
            *sharing.notes(locked, facts.abilities.runtime if facts.abilities else None),
            *writable.notes(locked, bundle, scratch),
        ),
        signers=locked.signers,
        live=shown,
        attachment=locked.attachment,
        upgrade=_upgrade(locked),
        complete=rootfs is not None,
        source=os.path.abspath(locked.document.file),
    )
    return remembered.with_record(desired)


def _upgrade(locked: Locked) -> Upgrade:
    table = locked.manifest.upgrade
    migrate, limit = table.migrate or (), table.hook_timeout
    return Upgrade(table.data, table.keep, table.before, table.after, migrate, table.data_format, hook_timeout=limit)


def _signed(locked: Locked) -> list[str]:
    return [f"the image is signed by {one.key} ({one.fingerprint[:19]}…)" for one in locked.signers]


def _configs(locked: Locked, facts: Facts, ids: IdRange, user: User | None, rootfs: RootfsFacts | None) -> list[File]:
    """Render every configuration file; all problems are reported at once."""
    found, problems = [], []
    for path, source in locked.configs.items():
        config = locked.manifest.config[source.table]
        key = ("config", source.table, "owner")
        uid, gid = _owner(locked, key, config.owner, user, rootfs) or (0, 0)
        if max(uid, gid) >= ids.size:
            problems.append(locked.document.problem(key, f"a service has the ids below {ids.size}"))
        try:
            data = configuration.render(source, locked.manifest.vars, facts.for_templates())
        except ManifestError as error:
            problems += error.problems
            continue
        owner = (ids.base + uid, ids.base + gid)
        change = live.on_change(config, able=live.able(facts))
        mode = source.mode(config.mode)
        found.append(File(f"config{path}", data, mode, owner, change == "restart", change == "reload"))
    if problems:
        raise ManifestError(list(dict.fromkeys(problems)))
    return found


def _secrets(locked: Locked, ids: IdRange, user: User | None, rootfs: RootfsFacts | None) -> list[File]:
    """Return what the run script reads the secrets by; no secret is in it."""
    owners, problems = {}, []
    for name, secret in locked.manifest.secrets.items():
        found = _owner(locked, ("secrets", name, "owner"), secret.owner, user, rootfs)
        owners[name] = f"{ids.base + found[0]}:{ids.base + found[1]}" if found else UNKNOWN.replace(" ", "-")
        if max(found or (0,)) >= ids.size:
            message = f"a service has the ids below {ids.size}"
            problems.append(locked.document.problem(("secrets", name, "owner"), message))
    if problems:
        raise ManifestError(problems)
    return [File(path, data, 0o600) for path, data in secrets.files(locked, owners)]


def _owner(
    locked: Locked, key: Path, owner: str, user: User | None, rootfs: RootfsFacts | None
) -> tuple[int, int] | None:
    """Return whom a file belongs to, in ids of the container; None while that is not known."""
    if owner == "image":
        return (user.uid, user.gid) if user else None
    return volumes.lookup(locked, key, owner, rootfs)


def _overlaid(locked: Locked) -> list[str]:
    overlay = locked.document.overlay
    return [f"{overlay.file} says what is different on this host"] if overlay else []


def _identity(locked: Locked) -> list[File]:
    """Return the files by which the service knows itself and others."""
    return [File(path, text.encode(), 0o644) for path, text in hostnames.files(locked)]


def _container(  # noqa: PLR0917
    locked: Locked,
    bundle: str,
    mapped: bool,
    base: int,
    user: User | None,
    found: tuple[VolumeSpec, ...],
    rootfs: RootfsFacts | None,
    *,
    hook: str,
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
        userns=IdMap(base, container.id_count(manifest)) if mapped else None,
        rootless=own.count if (own := owner.current()) else 0,
        network=network,
        network_path=f"{bundle}/{paths.LIVE}/netns" if sharing.target(manifest) else "",
        mounts=_mounts(locked, bundle, found, rootfs),
        seccomp=manifest.security.seccomp,
        architecture=locked.image.platform.architecture,
        cgroups_path=manifest.name,
        programs_32_bit=_has_32_bit_programs(rootfs),
        read_only=manifest.security.rootfs == "read-only",
        resources=resources.oci(resources.limits(manifest.resources)),
        hook=hook,
    )


def _spec(contained: Container, user: User | None) -> File:
    spec = runtime_spec.spec(contained)
    if user is None:
        spec["process"]["user"] = UNKNOWN
    return File("config.json", runtime_spec.dumps(spec).encode(), 0o600)


def _commands(locked: Locked, contained: Container) -> Iterator[File]:
    """Yield the programs that are run beside the service in its container, for `runc exec --process`."""
    commands: dict[str, tuple[str, ...]] = {}
    if isinstance(locked.manifest.service.reload, tuple):
        commands["reload"] = locked.manifest.service.reload
    if locked.manifest.health and locked.manifest.health.exec is not None:
        commands[health.COMMAND] = locked.manifest.health.exec
    for name, words in commands.items():
        text = json.dumps(runtime_spec.command(contained, words), indent=2)
        yield File(f"commands/{name}.json", f"{text}\n".encode(), 0o600, restarts=False)
    for path, data in health.files(locked.manifest.health):
        yield File(path, data, 0o600, restarts=False)


def _has_32_bit_programs(rootfs: RootfsFacts | None) -> bool:
    """Return whether the image can load 32-bit programs: the filter then has to know their system calls too."""
    return rootfs is not None and any(path in rootfs.nodes and rootfs.nodes[path].kind != "missing" for path in LOADERS)


def _mounts(
    locked: Locked, bundle: str, found: tuple[VolumeSpec, ...], rootfs: RootfsFacts | None
) -> tuple[Mount, ...]:
    """Return the service's mounts, outer ones first."""
    sources = {
        **hostnames.sources(locked, bundle),
    }
    options = ("bind", "ro", "nosuid", "nodev", "noexec")
    mounts = {volume.target: volume.mount() for volume in found}
    mounts |= {mount.destination: mount for mount in writable.mounts(bundle, writable.scratch(locked, found, rootfs))}
    for path, source in sources.items():
        node = volumes.resolve(path, rootfs)
        volumes.refuse_kind(locked, path, node, "file")
        place = node.path if node else path
        if place in mounts:
            raise locked.refuse(("config", path), f"a volume or another file is at {place} too")
        mounts[place] = Mount(place, source, "", options)
    mine: list[tuple[Path, Mount]] = [(("config", one.table), one.mount(bundle)) for one in live.build(locked, rootfs)]
    mine += [(("secrets", s.name, "path"), _secret_mount(locked, s, bundle, rootfs)) for s in secrets.build(locked)]
    for key, mount in mine:
        if mount.destination in mounts:
            raise locked.refuse(key, f"a volume or another file is at {mount.destination} too")
        mounts[mount.destination] = mount
    if locked.manifest.service.notify:
        node = volumes.resolve(health.NOTIFY_PLACE, rootfs)
        place = node.path if node else health.NOTIFY_PLACE
        mounts[place] = Mount(place, f"{bundle}/{paths.LIVE}/notify", "", ("rbind", *options[1:]))
    return tuple(mounts[place] for place in sorted(mounts, key=lambda place: place.split("/")))


def _secret_mount(locked: Locked, secret: SecretSpec, bundle: str, rootfs: RootfsFacts | None) -> Mount:
    node = volumes.resolve(secret.target, rootfs)
    volumes.refuse_kind(locked, secret.target, node, "file")
    place = node.path if node else secret.target
    return Mount(place, f"{bundle}/{secret.source}", "", (*live.OPTIONS, "noexec"))


def _attached(locked: Locked) -> Iterator[File]:
    """Yield what attaches the service to its bridge."""
    if locked.attachment is not None:
        names = (locked.manifest.name, container.hostname(locked))
        for path, data in cni.files(locked.attachment, locked.manifest.network.ports, names).items():
            yield File(path, data, 0o644)


def _meta(locked: Locked, base: int, mapped: bool, user: User | None) -> File:
    """Return bundle.toml: where everything came from, and the manifest as it was understood."""
    image, manifest = locked.image, locked.manifest
    data: dict[str, Any] = {
        "schema": 1,
        "appbox": __version__,
        "name": manifest.name,
        "version": manifest.version,
        "uid_base": base,
        **({"uid_size": fixed.size} if (fixed := container.fixed_ids(manifest)) else {}),
        "userns": mapped,
        "user": f"{user.uid}:{user.gid}" if user else UNKNOWN,
        "source": os.path.abspath(locked.document.file),
        **({"overlay": os.path.abspath(locked.document.overlay.file)} if locked.document.overlay else {}),
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
    if locked.attachment is not None:
        data["network"] = locked.attachment.as_dict()
    if locked.signers:
        data["image"]["signed_by"] = [signer.as_dict() for signer in locked.signers]
    return File("bundle.toml", tomli_w.dumps(data, multiline_strings=False).encode(), 0o644)
