"""What goes together in a manifest: the rules that concern more than one key. Each is a function of the manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import ip_address

from appbox import devices, health, rlimits
from appbox.constraints import is_constraint
from appbox.fields import quoted
from appbox.findings import Finding
from appbox.quantities import ANYWHERE, Port
from appbox.tables import Manifest, Table, Volume
from appbox.toml_source import Path, dotted
from appbox.units.limits import LARGEST, LEAST_MEMORY, LEAST_QUOTA, PERIOD

# appbox makes these at each start.
_OWN_FILES = {
    "/etc/hostname": "set network.hostname",
    "/etc/hosts": "set network.hosts",
    "/etc/resolv.conf": "set network.dns",
}

_SECRET_COMMAND = 64 << 10
"""Bytes of a command that prints a secret: xargs of busybox and of GNU take as much in one go."""


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


def _version(manifest: Manifest) -> Iterator[Finding]:
    if manifest.digest is not None and is_constraint(manifest.version):
        hint = "take it out: appbox lock writes down the digest"
        yield Finding(("digest",), "a constraint has no digest of its own", hint, (("version",),))


def _exactly_one(manifest: Manifest) -> Iterator[Finding]:
    """Some tables say what they are by which of some keys they have."""
    tables: list[tuple[Path, Table, tuple[str, ...]]] = [
        *(
            (("config", path), table, ("text", "file", "template", "directory"))
            for path, table in manifest.config.items()
        ),
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
    if outer[0] == "config" and manifest.config[str(outer[1])].directory is not None:
        # A file of its own below a directory joins the directory's files.
        if inner[0] != "config":
            yield Finding(inner, f"{quoted(target)} lies in {dotted(outer)}, which is read-only", "move it", (outer,))
        return
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
        for key in ("hostname", "dns", "hosts"):
            if getattr(network, key):
                message = f"belongs to the service whose network this is, {network.mode.removeprefix('service:')}"
                yield Finding(("network", key), message, "set it there", mode)
    if network.mode == "none" and network.dns:
        yield Finding(("network", "dns"), "without a network no name server can be reached", "take it out", mode)
    if network.mode == "pasta":
        yield from ports_of_pasta(network.ports)
    if network.mode.partition(":")[0] == "bridge":
        for index, port in enumerate(network.ports):
            if ":" in port.address and ip_address(port.address).is_loopback:
                message = "a bridge cannot publish a port on the loopback address of IPv6"
                hint = "take 127.0.0.1, or the mode pasta"
                yield Finding(("network", "ports", index), message, hint, mode)
    yield from _port_clashes(network.ports)


def ports_of_pasta(ports: tuple[Port, ...]) -> Iterator[Finding]:
    """pasta has one table of ports for all addresses of the host."""
    first: dict[tuple[int, str], int] = {}
    for index, port in enumerate(ports):
        earlier = first.setdefault((port.host_port, port.protocol), index)
        addresses = {port.address, ports[earlier].address}
        if len(addresses) == 2 and not addresses & set(ANYWHERE):
            message = f"pasta publishes a port of the host once, and ports[{earlier}] has {port.host_port} already"
            yield Finding(("network", "ports", index), message, 'take another port, all addresses, or mode = "bridge"')


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
    other = manifest.network.mode.partition("service:")[2]
    whose = (other, f"{other}'s", "set it there") if other else ("the host", "the host's", "set it on the host")
    if other or manifest.network.mode == "host":
        for name in sorted(name for name in security.sysctl if name.startswith("net.")):
            message = f"belongs to {whose[0]} while the network is {whose[1]}"
            yield Finding(("security", "sysctl", name), message, whose[2], (("network", "mode"),))


def _isolation(manifest: Manifest) -> Iterator[Finding]:
    yield from rlimits.findings(manifest.resources)
    security, process = manifest.security, manifest.process
    taken: dict[str, int] = {}
    for index, device in enumerate(security.devices):
        target = devices.parse(device).target
        if taken.setdefault(target, index) != index:
            message = f"{quoted(target)} is taken by devices[{taken[target]}]"
            yield Finding(("security", "devices", index), message, "name another path in the container")
    for name in sorted(security.sysctl):
        if name == "kernel.domainname" and security.userns != "host":
            message = "the kernel lets no user namespace set it"
            yield Finding(("security", "sysctl", name), message, 'set security.userns = "host"')
    if process.timezone is not None and "TZ" in process.env:
        message = "stands beside process.timezone, which it would override"
        yield Finding(("process", "env", "TZ"), message, "keep one of them", (("process", "timezone"),))


def _ids(manifest: Manifest) -> Iterator[Finding]:
    """With a user namespace, ids from its size on exist neither for processes nor for files."""
    userns = manifest.security.userns
    if userns == "host":
        return
    size = 65536 if isinstance(userns, str) else userns.size
    owners: dict[Path, str] = {("process", "user"): manifest.process.user}
    owners |= {("volumes", name, "owner"): volume.owner for name, volume in manifest.volumes.items()}
    owners |= {("config", path, "owner"): table.owner for path, table in manifest.config.items()}
    owners |= {("secrets", name, "owner"): secret.owner for name, secret in manifest.secrets.items()}
    owners |= {("process", "groups", index): group for index, group in enumerate(manifest.process.groups)}
    for path, owner in owners.items():
        if any(part.isdigit() and int(part) >= size for part in owner.split(":")):
            message = f"{quoted(owner)} is outside the service's ids (0 to {size - 1})"
            yield Finding(path, message, 'take a lower id, or set security.userns = "host"', (("security", "userns"),))


def _service(manifest: Manifest) -> Iterator[Finding]:
    service = manifest.service
    for key in ("requires", "after", "wants"):
        if manifest.name in getattr(service, key):
            yield Finding(("service", key), "the service cannot wait for itself", "take it out", (("name",),))
    if service.schedule and manifest.snapshots.schedule:
        message = "a timed job is not running when the clock asks for a snapshot"
        hint = "take it out, and call appbox snapshot where it suits the job"
        yield Finding(("snapshots", "schedule"), message, hint, (("service", "schedule"),))
    if service.schedule and service.restart == "always":
        message = "a timed job that always restarts would never wait for its time"
        yield Finding(("service", "restart"), message, 'set restart = "no" or "on-failure"', (("service", "schedule"),))
    if service.reload is None:
        for path, config in manifest.config.items():
            if config.on_change == "reload":
                where = ("config", path, "on_change")
                yield Finding(where, "needs service.reload", "say there how to reload", (("service", "reload"),))


def _resources(manifest: Manifest) -> Iterator[Finding]:
    """Limits that no kernel takes."""
    asked = manifest.resources
    if asked.memory is not None and asked.memory < LEAST_MEMORY:
        yield Finding(("resources", "memory"), "is too little to start anything in", 'the least is "6M"')
    if asked.cpus is not None and round(asked.cpus * PERIOD) < LEAST_QUOTA:
        yield Finding(("resources", "cpus"), "is less than the kernel can give", f"the least is {LEAST_QUOTA / PERIOD}")
    swap = ("resources", "memory_swap")
    if asked.memory_swap is not None and asked.memory is None:
        message = "stands without memory, and swap is limited only beside memory"
        yield Finding(swap, message, "set resources.memory, too")
    elif asked.memory_swap is not None and asked.memory is not None and asked.memory + asked.memory_swap > LARGEST:
        yield Finding(swap, "is too much together with memory", "take less", (("resources", "memory"),))


def _secrets(manifest: Manifest) -> Iterator[Finding]:
    for name, secret in manifest.secrets.items():
        size = sum(len(word.encode()) + 1 for word in secret.command or ())
        if size > _SECRET_COMMAND:
            message = f"is {size} bytes long with the ends of its words; a command may have {_SECRET_COMMAND}"
            yield Finding(("secrets", name, "command"), message, "put it into a script on the host")


def _policy(manifest: Manifest) -> Iterator[Finding]:
    policy = manifest.policy
    for key in ("registries", "signed_by"):
        if key in policy.model_fields_set and not getattr(policy, key):
            yield Finding(("policy", key), "is empty, which could mean all or none", "take it out, or name something")
    if policy.signed_as is not None and not policy.signed_by:
        yield Finding(("policy", "signed_as"), "stands without signed_by", "say whose signatures are meant")


def _upgrade(manifest: Manifest) -> Iterator[Finding]:
    upgrade = manifest.upgrade
    for key in ("before", "after"):
        if getattr(upgrade, key) and manifest.service.schedule:
            message = "is run in the container of the service, and that of a timed job is not there between its times"
            yield Finding(("upgrade", key), message, "take it out", (("service", "schedule"),))
    if upgrade.migrate and not upgrade.data_format:
        message = "is run when data_format changes, and there is none"
        yield Finding(
            ("upgrade", "migrate"), message, "name the format of the data, too", (("upgrade", "data_format"),)
        )


_RULES: tuple[Callable[[Manifest], Iterator[Finding]], ...] = (
    _image_or_build,
    _version,
    _exactly_one,
    _process,
    _volumes,
    _mounts,
    _network,
    _security,
    _isolation,
    _ids,
    _service,
    _upgrade,
    _secrets,
    health.rules,
    _resources,
    _policy,
)
