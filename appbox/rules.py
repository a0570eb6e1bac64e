"""What goes together in a manifest: the rules that concern more than one key. Each is a function of the manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from appbox.fields import quoted
from appbox.findings import Finding
from appbox.quantities import ANYWHERE, Port
from appbox.tables import Manifest, Table, Volume
from appbox.toml_source import Path, dotted

# appbox makes these at each start.
_OWN_FILES = {
    "/etc/hostname": "set network.hostname",
    "/etc/hosts": "set network.hosts",
    "/etc/resolv.conf": "set network.dns",
}


def broken(manifest: Manifest) -> Iterator[Finding]:
    """Yield a finding for each rule that `manifest` breaks."""
    for rule in _RULES:
        yield from rule(manifest)


def _image_or_build(manifest: Manifest) -> Iterator[Finding]:
    if not manifest.image and manifest.build is None:
        hint = 'say where the image is, as in image = "docker.io/valkey/valkey"'
        yield Finding(("image",), "is missing", hint, (("build",),))
    if manifest.image and manifest.build is not None:
        yield Finding(("build",), "the image is both pulled and made", "keep either image or [build]", (("image",),))


def _exactly_one(manifest: Manifest) -> Iterator[Finding]:
    """Some tables say what they are by which of some keys they have."""
    tables: list[tuple[Path, Table, tuple[str, ...]]] = [
        *((("config", path), table, ("text", "file", "template")) for path, table in manifest.config.items()),
        *((("secrets", name), table, ("file", "command", "age")) for name, table in manifest.secrets.items()),
    ]
    if manifest.health:
        tables.append((("health",), manifest.health, ("exec", "tcp", "http")))
    if manifest.build:
        tables.append((("build",), manifest.build, ("packages", "containerfile")))
    for path, table, keys in tables:
        given = [key for key in keys if getattr(table, key) is not None]
        listed = f"{', '.join(keys[:-1])} or {keys[-1]}"
        if not given:
            yield Finding(path, f"has none of {listed}", "give one of them")
        for extra in given[1:]:
            yield Finding((*path, extra), f"stands beside {given[0]}", f"give only one of {listed}")


def _process(manifest: Manifest) -> Iterator[Finding]:
    process = manifest.process
    if process.entrypoint == () and process.args == ():
        yield Finding(("process", "args"), "nothing is left to run", "give the program in entrypoint or args")
    for key, words in (("entrypoint", process.entrypoint), ("args", process.args if not process.entrypoint else None)):
        if words and not words[0] and (key == "entrypoint" or process.entrypoint == ()):
            yield Finding(("process", key, 0), "the program's name is empty", "name the program")


def _volumes(manifest: Manifest) -> Iterator[Finding]:
    for name, volume in manifest.volumes.items():
        at = ("volumes", name)
        if volume.tmpfs:
            yield from _tmpfs(at, volume)
            continue
        for key in ("size", "mode"):
            if getattr(volume, key) is not None:
                yield Finding((*at, key), "needs tmpfs = true", "take it out, or make the volume a tmpfs")


def _tmpfs(at: Path, volume: Volume) -> Iterator[Finding]:
    if volume.source is not None:
        yield Finding((*at, "source"), "a tmpfs has no source", "keep either source or tmpfs = true")
    if volume.read_only:
        yield Finding((*at, "read_only"), "nothing could ever be in a read-only tmpfs", "take it out")
    if "seed" in volume.model_fields_set and volume.seed != "never":
        yield Finding((*at, "seed"), "a tmpfs is not seeded", "take it out")


def _targets(manifest: Manifest) -> dict[Path, str]:
    """Return every path in the container over which something is mounted, by the key that says so."""
    found: dict[Path, str] = {("volumes", name, "path"): volume.path for name, volume in manifest.volumes.items()}
    found |= {("config", path): path for path in manifest.config}
    for name, secret in manifest.secrets.items():
        found["secrets", name, "path"] = secret.path or f"/run/secrets/{name}"
    return found


def _mounts(manifest: Manifest) -> Iterator[Finding]:
    targets = _targets(manifest)
    for path, target in targets.items():
        if hint := _OWN_FILES.get(target):
            yield Finding(path, f"{quoted(target)} is made by appbox at each start", hint)
    taken: dict[str, Path] = {}
    for path, target in targets.items():
        first = taken.setdefault(target, path)
        if first != path:
            message = f"{quoted(target)} is taken by {dotted(first)}"
            yield Finding(path, message, "mount them at different paths", (first,))
    for path, target in targets.items():
        for outer in _parents(target):
            if outer in taken:
                yield from _nested(manifest, taken[outer], path, target)


def _parents(target: str) -> Iterator[str]:
    while target := target.rpartition("/")[0]:
        yield target


def _nested(manifest: Manifest, outer: Path, inner: Path, target: str) -> Iterator[Finding]:
    if outer[0] != "volumes":
        yield Finding(inner, f"{quoted(target)} lies below {dotted(outer)}, which is a file", "move it", (outer,))
        return
    if manifest.volumes[str(outer[1])].read_only:
        because = (outer, (*outer[:2], "read_only"))
        message = f"{quoted(target)} lies in the read-only volume {outer[1]}, where no mount point can be made"
        yield Finding(inner, message, "move it, or make the volume writable", because)


def _network(manifest: Manifest) -> Iterator[Finding]:
    network = manifest.network
    mode = (("network", "mode"),)
    if network.mode in ("host", "none"):
        why = {
            "host": ("the host network has no port mapping: the service opens its ports itself", "take ports out"),
            "none": ("without a network there are no ports", 'set mode = "bridge" or "pasta"'),
        }
        if network.ports:
            yield Finding(("network", "ports"), *why[network.mode], mode)
    if network.mode.startswith("service:"):
        if network.ports:
            yield Finding(("network", "ports"), "the network's ports belong to the service that has it", "", mode)
        if network.mode == f"service:{manifest.name}":
            yield Finding(("network", "mode"), "the service cannot share its own network", "", (("name",),))
    yield from _port_clashes(network.ports)


def _port_clashes(ports: tuple[Port, ...]) -> Iterator[Finding]:
    """Every address of the host clashes with itself and with "all addresses"."""
    taken: dict[tuple[int, str], dict[str, int]] = {}
    for index, port in enumerate(ports):
        others = taken.setdefault((port.host_port, port.protocol), {})
        anywhere = port.address in ANYWHERE
        rivals = [*others.values()][:1] if anywhere else [others[a] for a in (port.address, *ANYWHERE) if a in others]
        if rivals:
            message = f"port {port.host_port}/{port.protocol} of the host is taken by ports[{rivals[0]}]"
            yield Finding(("network", "ports", index), message, "take another port")
        others.setdefault(port.address, index)


def _security(manifest: Manifest) -> Iterator[Finding]:
    security = manifest.security
    both = set(security.capabilities.add) & set(security.capabilities.drop)
    for name in sorted(both):
        yield Finding(("security", "capabilities"), f"{name} is both added and dropped", "keep one of them")
    if manifest.network.mode == "host":
        for name in sorted(name for name in security.sysctl if name.startswith("net.")):
            message = "belongs to the host while the network is the host's"
            yield Finding(("security", "sysctl", name), message, "set it on the host", (("network", "mode"),))


def _ids(manifest: Manifest) -> Iterator[Finding]:
    """With a user namespace, ids above 65535 exist neither for processes nor for files."""
    if manifest.security.userns != "auto":
        return
    owners: dict[Path, str] = {("process", "user"): manifest.process.user}
    owners |= {("volumes", name, "owner"): volume.owner for name, volume in manifest.volumes.items()}
    owners |= {("config", path, "owner"): table.owner for path, table in manifest.config.items()}
    owners |= {("secrets", name, "owner"): secret.owner for name, secret in manifest.secrets.items()}
    for path, owner in owners.items():
        if any(part.isdigit() and int(part) > 65535 for part in owner.split(":")):
            message = f"{quoted(owner)} is outside the service's ids (0 to 65535)"
            yield Finding(path, message, 'take a lower id, or set security.userns = "host"', (("security", "userns"),))


def _service(manifest: Manifest) -> Iterator[Finding]:
    service = manifest.service
    for key in ("requires", "after", "wants"):
        if manifest.name in getattr(service, key):
            yield Finding(("service", key), "the service cannot wait for itself", "take it out", (("name",),))
    if service.schedule and service.restart == "always":
        message = "a timed job that always restarts would never wait for its time"
        yield Finding(("service", "restart"), message, 'set restart = "no" or "on-failure"', (("service", "schedule"),))
    if service.reload is None:
        for path, config in manifest.config.items():
            if config.on_change == "reload":
                where = ("config", path, "on_change")
                yield Finding(where, "needs service.reload", "say there how to reload", (("service", "reload"),))


def _policy(manifest: Manifest) -> Iterator[Finding]:
    policy = manifest.policy
    for key in ("registries", "signed_by"):
        if key in policy.model_fields_set and not getattr(policy, key):
            yield Finding(("policy", key), "is empty, which could mean all or none", "take it out, or name something")
    if policy.signed_as is not None and not policy.signed_by:
        yield Finding(("policy", "signed_as"), "stands without signed_by", "say whose signatures are meant")


_RULES: tuple[Callable[[Manifest], Iterator[Finding]], ...] = (
    _image_or_build,
    _exactly_one,
    _process,
    _volumes,
    _mounts,
    _network,
    _security,
    _ids,
    _service,
    _policy,
)
