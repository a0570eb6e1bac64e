"""Pulling and unpacking, side by side: the same images, the same registry, the same file system, in turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench import disk, images
from tests.bench.measure import Cost, Costs
from tests.bench.peers import CTR, OURS, PODMAN, SKOPEO_UMOCI, Peer
from tests.bench.shapes import SHAPES
from tests.bench.table import MEGABYTE, Pull
from tests.ground import cache
from tests.ground.registry import RealRegistry

EVERYONE = (OURS, SKOPEO_UMOCI, PODMAN, CTR)


@dataclass(frozen=True, slots=True)
class Row:
    """An image and its budgets: see `table.Pull`."""

    ratios: Mapping[str, float]
    peers: Sequence[Peer] = EVERYONE
    memory: int = 120 * MEGABYTE


ROWS: Mapping[str, Row] = {
    "one": Row({SKOPEO_UMOCI.name: 5, PODMAN.name: 6}),
    "six": Row({SKOPEO_UMOCI.name: 4, PODMAN.name: 4}),
    "zstd": Row({PODMAN.name: 4}),
    "many": Row({}),
    "huge": Row({}),
    "hundred": Row({}),
    "million": Row({}, peers=(OURS,), memory=256 * MEGABYTE),
}


def pull(name: str, peers: Sequence[Peer], registry: RealRegistry, scratch: Path, rounds: int) -> Pull:
    """Measure one image with those of `peers` who are in its row: each once, then each again, `rounds` times."""
    row, shape = ROWS[name], SHAPES[name]
    wanted = [peer for peer in row.peers if peer in peers]
    registry.push(f"oci:{images.ensure(name)}:{images.REF}", f"{name}:1")
    able = [peer for peer in wanted if shape.codec in peer.codecs]
    runs: dict[str, list[Cost]] = {peer.name: [] for peer in able}
    for number in range(rounds):
        for peer in able:
            cache.say(f"{name}: {peer.name}, {number + 1} of {rounds}")
            runs[peer.name].append(once(peer, f"{registry.host}/{name}:1", scratch / "disk"))
    costs = {peer.name: Costs(tuple(runs[peer.name])) if peer in able else None for peer in wanted}
    return Pull(name, shape.what, costs, row.ratios, row.memory)


def once(peer: Peer, reference: str, backing: Path) -> Cost:
    """Return what one run costs, on a file system that nobody else writes to."""
    with disk.empty(backing) as place:
        return peer.pull(place, reference)
