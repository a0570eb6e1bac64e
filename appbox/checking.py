"""`appbox check`: everything about manifests that can be said without a host and without their images."""

from __future__ import annotations

from collections.abc import Sequence

from appbox import configuration, sources
from appbox.errors import HostLacks, ManifestError, Problem
from appbox.host.facts import EXAMPLE
from appbox.oci import signature
from appbox.oci.public_key import BadKeyError
from appbox.sources import Loaded


def check(arguments: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return (name, version, file) of each manifest; ManifestError with every problem of all of them.

    Templates are rendered with the facts of a made-up host.
    """
    problems: list[Problem] = []
    loaded = sources.load(arguments)
    for one in loaded:
        problems += _keys(one)
        for source in one.configs.values():
            try:
                configuration.render(source, one.manifest.vars, EXAMPLE.for_templates())
            except ManifestError as error:
                problems += error.problems
    if problems:
        raise ManifestError(problems)
    return [(one.manifest.name, one.manifest.version, one.document.file) for one in loaded]


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
