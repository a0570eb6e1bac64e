"""`appbox render`: every generated file, written to a directory, without root and without touching the host.

What the rootfs has to tell is read from the headers of the image's layers, so nothing is unpacked.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from appbox import admission, container, image_limits, planning, resolve, sources
from appbox import desired as desires
from appbox.desired_values import Desired
from appbox.errors import AppboxError
from appbox.host import gather, ranges
from appbox.host.facts import Facts, IdRange
from appbox.layers import layers_of
from appbox.locked import Locked
from appbox.networking import Addresses
from appbox.oci.cache import Cache
from appbox.oci.limits import Limits
from appbox.oci.rootfs import Node, RootfsFacts
from appbox.oci.unpack import list_image
from appbox.session import Options, cache_path
from appbox.sources import Loaded
from appbox.store import files
from appbox.store import ranges as stored_ranges
from appbox.store.root import Root


def render(options: Options, arguments: Sequence[str], output: str, host: str = "") -> list[str]:
    """Write the files of every manifest below `output` and return their paths relative to it, sorted.

    They are those of the host called `host`, of this one by default. Raises AppboxError when `output` is not empty.
    """
    with options.open_root(services=False) as root:
        loaded = sources.load(arguments, host or gather.hostname(root))
        allocated = stored_ranges.load(root)
        facts = gather.gather(root, options.init, allocated)
        facts = replace(facts, hostname=host or facts.hostname)
        cache = Cache(cache_path(root))
        images = resolve.Images(cache, facts.platform, admission.load(root), watching=False)
        rendered, given = [], Addresses(root, fresh=True)
        for one in loaded:
            name = one.manifest.name
            ids = container.fixed_ids(one.manifest) or IdRange(0, ranges.SIZE)
            if one.manifest.security.userns == "auto":
                ids = allocated[name] = ranges.allocate(name, allocated, facts.taken)
            rendered.append(_render(root, one, facts, images, cache, ids, given))
    return _write(rendered, output)


def _render(  # noqa: PLR0917
    root: Root, loaded: Loaded, facts: Facts, images: resolve.Images, cache: Cache, ids: IdRange, given: Addresses
) -> Desired:
    locked = replace(resolve.resolve(loaded, images, root, None, ids, facts.ranges), attachment=given.attach(loaded))
    planning.refuse_what_the_host_lacks(locked, facts)
    return desires.build(locked, facts, ids.base, _facts_of_layers(loaded, locked, cache, image_limits.load(root)))


def _facts_of_layers(loaded: Loaded, locked: Locked, cache: Cache, limits: Limits) -> RootfsFacts:
    with resolve.open_image(loaded, cache) as source:
        source.fetch(locked.image)
        layers = layers_of(locked.image, partial(source.layer, locked.image))
        listing = list_image(layers, ("etc/passwd", "etc/group"), limits=limits)
    return RootfsFacts(
        passwd=listing.read("etc/passwd"),
        group=listing.read("etc/group"),
        nodes={p: listing.locate(p) or Node(p, "below a file") for p in desires.wanted_nodes(locked)},
    )


def _write(rendered: Sequence[Desired], output: str) -> list[str]:
    os.makedirs(output, mode=0o755, exist_ok=True)
    if os.listdir(output):
        raise AppboxError("is not empty", where=output, hint="name a new directory")
    written = []
    for desired in rendered:
        texts = {f"{desired.directory}/{file.path}": (file.data, file.mode) for file in desired.files}
        for unit in desired.units:
            texts[f"{desired.directory}/unit{unit.path}"] = (unit.text.encode(), unit.mode)
        for path, (data, mode) in texts.items():
            folder, _, name = os.path.join(output, path).rpartition("/")
            os.makedirs(folder, mode=0o755, exist_ok=True)
            with files.directory(folder) as fd:
                files.create(
                    name, data, mode=mode | 0o200, dir_fd=fd, owner=(os.geteuid(), os.getegid()), durable=False
                )
            written.append(path)
    return sorted(written)
