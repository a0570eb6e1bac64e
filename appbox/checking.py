"""`appbox check`: everything about manifests that can be said without a host and without their images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from appbox import configuration, ordering, sharing, sources
from appbox.errors import HostLacks, ManifestError, Problem
from appbox.host.facts import EXAMPLE
from appbox.oci import signature
from appbox.oci.public_key import BadKeyError
from appbox.sources import Loaded


def check(arguments: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return (name, version, file) of each manifest; ManifestError with every problem of all of them.

    Templates are rendered with the facts of a made-up host; where there are overlays, once for each of their hosts.
    """
    problems: list[Problem] = []
    pairs = sources.load_for_all_hosts(arguments)
    loaded = [one for host, one in pairs if not host]
    for one in loaded:
        problems += _keys(one)
    problems += sharing.problems([(one.manifest, one.document) for one in loaded])
    overlaid = {one.folder for host, one in pairs if host}
    for host, one in pairs:
        if host or one.folder not in overlaid:
            problems += _templates(one, host)
    problems += ordering.cycles(loaded)
    problems += _locks(loaded)
    if problems:
        raise ManifestError(list(dict.fromkeys(problems)))
    return [(one.manifest.name, one.manifest.version, one.document.file) for one in loaded]


def _templates(loaded: Loaded, host: str) -> Iterator[Problem]:
    facts = replace(EXAMPLE, hostname=host or EXAMPLE.hostname)
    for source in loaded.configs.values():
        try:
            configuration.render(source, loaded.manifest.vars, facts.for_templates())
        except ManifestError as error:
            where = f" (on the host {host})" if host else ""
            yield from (replace(problem, message=f"{problem.message}{where}") for problem in error.problems)


def _locks(loaded: Sequence[Loaded]) -> Iterator[Problem]:
    """Yield what is wrong with the locks beside the manifests."""
    for one in {one.folder: one for one in loaded}.values():
        try:
            sources.read_lock(one)
        except ManifestError as error:
            yield from error.problems


def _keys(loaded: Loaded) -> list[Problem]:
    """Return what is wrong with the numbers of keys. Without cryptography installed only their form was looked at."""
    problems = []
    for index, key in enumerate(loaded.keys):
        try:
            signature.load(key)
        except BadKeyError as error:
            where = ("policy", "signed_by", index)
            problems.append(loaded.document.problem(where, f"{key.name} {error.message}", error.hint))
        except HostLacks:
            break
    return problems
