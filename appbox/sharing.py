"""Services that have the network namespace of another one, `network.mode = "service:NAME"`. Pure.

The other one is installed or among the manifests, and has a network of its own: the host's can be had without it, and
one that it shares itself would make it unclear who waits for whom.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from appbox import container
from appbox.document import Document
from appbox.errors import ManifestError, Problem
from appbox.fields import quoted
from appbox.hostnames import default_hostname, kind
from appbox.locked import Locked, Shared
from appbox.manifest import Manifest
from appbox.oci.runtimes import Runtime
from appbox.toml_source import Path

_MODE: Path = ("network", "mode")


def target(manifest: Manifest) -> str:
    """Return the name of the service whose network `manifest` shares, "" for none."""
    mode = manifest.network.mode
    return mode.removeprefix("service:") if mode.startswith("service:") else ""


def of_manifest(manifest: Manifest) -> Shared:
    """Return what another service would share with this one."""
    return Shared(
        manifest.name, kind(manifest.network.mode), manifest.network.hostname or default_hostname(manifest.name)
    )


def of_table(name: str, table: Mapping[str, object]) -> Shared:
    """Return what another service would share with an installed one; `table` is the manifest in its bundle.toml."""
    network = table.get("network")
    network = network if isinstance(network, Mapping) else {}
    mode, hostname = network.get("mode", "none"), network.get("hostname") or default_hostname(name)
    return Shared(name, kind(str(mode)), str(hostname))


def find(manifest: Manifest, document: Document, known: Mapping[str, Shared | None]) -> Shared | None:
    """Return what `manifest` shares, None if nothing.

    `known` are the services of the host and of the run by their names. Raises ManifestError when the other service
    cannot be shared with, or is in neither.
    """
    name = target(manifest)
    if not name:
        return None
    other = known.get(name)
    if other is None:
        message = f"{name} is neither installed nor among the manifests"
        raise ManifestError([document.problem(_MODE, message, "apply its manifest, too, or correct the name")])
    if problem := _problem(other, document):
        raise ManifestError([problem])
    return other


def problems(pairs: Sequence[tuple[Manifest, Document]]) -> Iterator[Problem]:
    """Yield what is wrong with the services that share the network of another one of `pairs`."""
    known = {manifest.name: of_manifest(manifest) for manifest, _ in pairs}
    for manifest, document in pairs:
        other = known.get(target(manifest))
        if other is not None and other.name != manifest.name and (problem := _problem(other, document)):
            yield problem


def _problem(other: Shared, document: Document) -> Problem | None:
    if other.kind == "host":
        return document.problem(_MODE, f"{other.name} has the host's network", 'set mode = "host" here, too')
    if other.kind == "service":
        message = f"{other.name} shares the network of another service itself"
        return document.problem(_MODE, message, f"name the service that {quoted(other.name)} names")
    return None


def sharers(name: str, modes: Mapping[str, str]) -> tuple[str, ...]:
    """Return which services have the network of `name`, sorted; `modes` are those of all services by their names."""
    return tuple(sorted(other for other, mode in modes.items() if mode == f"service:{name}"))


def notes(locked: Locked, runtime: Runtime | None) -> Iterator[str]:
    """Yield what the operator should know of a service that has another one's network."""
    name = target(locked.manifest)
    if not name:
        return
    yield f"its network is that of {name}: it stops with {name}, and starts again when {name} does"
    if runtime is not None and not runtime.joins_foreign_networks and container.is_mapped(locked.manifest):
        yield f"{runtime} cannot enter it (appbox exec, runc exec): that takes runc 1.2.2 or later"
