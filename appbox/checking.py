"""`appbox check`: everything about manifests that can be said without a host and without their images."""

from __future__ import annotations

from collections.abc import Sequence

from appbox import configuration, sources
from appbox.errors import ManifestError, Problem
from appbox.host.facts import EXAMPLE


def check(arguments: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return (name, version, file) of each manifest; ManifestError with every problem of all of them.

    Templates are rendered with the facts of a made-up host.
    """
    problems: list[Problem] = []
    loaded = sources.load(arguments)
    for one in loaded:
        for source in one.configs.values():
            try:
                configuration.render(source, one.manifest.vars, EXAMPLE.for_templates())
            except ManifestError as error:
                problems += error.problems
    if problems:
        raise ManifestError(problems)
    return [(one.manifest.name, one.manifest.version, one.document.file) for one in loaded]
