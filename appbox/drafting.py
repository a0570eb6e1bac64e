"""`appbox init`: a commented manifest drawn from an image's configuration. Values in, text out.

All that is from the image is written as TOML strings on one line, in comments too: nothing in it can become a key.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from appbox import preflight
from appbox.errors import UsageError
from appbox.fields import BadValueError, target, version
from appbox.fields import name as service_name
from appbox.oci.image_config import ImageConfig
from appbox.oci.model import Image
from appbox.oci.reference import DockerArchive, ImageRef, OciArchive, OciLayout, RegistryImage
from appbox.toml_text import key, value

_NOT_IN_NAMES: Final = re.compile(r"[^a-z0-9]+")
_PRIVILEGED: Final = 1024
_WIDTH: Final = 36
"""Columns before a comment that stands beside a key."""


def name_of(reference: ImageRef) -> str:
    """Return the name that a service of an image gets: the last word of its repository, layout or archive."""
    image = reference.image
    path = image.repository if isinstance(image, RegistryImage) else image.path
    word = posixpath.basename(path.rstrip("/")).lower()
    for ending in (".gz", ".zst", ".tar", ".oci"):
        word = word.removesuffix(ending)
    found = _NOT_IN_NAMES.sub("-", word).strip("-")[:63].strip("-") or "service"
    try:
        return service_name(found)
    except BadValueError:
        return f"my-{found}"[:63]


def draft(reference: ImageRef, image: Image) -> str:
    """Return a manifest for an image; it passes `check` as it is. Raises UsageError when the reference has no tag."""
    place = reference.image
    tag = reference.tag if isinstance(place, RegistryImage) else place.ref
    if tag and isinstance(place, DockerArchive):
        tag = tag.rpartition(":")[2] if ":" in tag else "archive"
    if not tag:
        hint = "name the tag, too: it is the service's version"
        raise UsageError("the image is named without its tag", where=image.reference, hint=hint)
    try:
        version(tag)
    except BadValueError as error:
        hint = "copy the image to a name that is one: appbox image copy"
        raise UsageError("the image's name cannot be a version", where=tag, why=error.message, hint=hint) from error
    return "".join(f"{line}\n" if line else "\n" for line in _lines(reference, tag, image))


def _lines(reference: ImageRef, tag: str, image: Image) -> Iterator[str]:
    config = image.config
    yield from _head(reference, tag, image)
    yield from _process(config)
    yield from _volumes(config)
    yield from _network(config)
    yield from _health(image)
    yield from (
        "",
        "[service]",
        _said('restart = "on-failure"', "no, on-failure or always"),
    )


def _head(reference: ImageRef, tag: str, image: Image) -> Iterator[str]:
    name = name_of(reference)
    place = reference.image
    if isinstance(place, OciLayout | OciArchive):
        place = replace(place, ref=None)
    yield f"# {name}, drawn from {value(image.reference)}"
    yield "#"
    yield "#   appbox check --image FILE      # is it right, and does it go with the image?"
    yield "#   appbox plan FILE               # what would happen?"
    yield "#   appbox apply FILE"
    yield ""
    yield _said(f"name = {value(name)}", "the unit, the container and /opt/containers/NAME")
    yield f"image = {value(str(place))}"
    yield _said(f"version = {value(tag)}", "the image's tag")
    yield f"# digest = {value(str(image.index_digest or image.digest))}"
    yield "#   pins what the tag means now"


def _said(line: str, comment: str) -> str:
    return f"{line.ljust(_WIDTH - 2)}  # {comment}"


def _process(config: ImageConfig) -> Iterator[str]:
    yield ""
    yield "[process]                           # what stands in comments is what the image says"
    if config.entrypoint:
        yield f"# entrypoint = {value(config.entrypoint)}"
    if config.cmd:
        yield f"# args = {value(config.cmd)}"
    if not (config.entrypoint or config.cmd):
        yield _said('args = ["/bin/sh"]', "the image names nothing to run: name its program")
    if config.working_dir:
        yield f"# workdir = {value(config.working_dir)}"
    yield f"# user = {value(config.user or 'root')}"
    if config.stop_signal:
        yield f"# stop_signal = {value(config.stop_signal)}"
    yield '# env = { NAME = "value" }'
    for entry in config.env:
        yield f"#   the image sets {value(entry)}"


def _volumes(config: ImageConfig) -> Iterator[str]:
    taken: set[str] = set()
    for path in config.volumes:
        place = "/" + path.strip("/")
        try:
            target(place)
        except BadValueError as error:
            yield ""
            yield f"# The image's VOLUME {value(path)} cannot be mapped: {value(error.message)}"
            continue
        word = _NOT_IN_NAMES.sub("-", posixpath.basename(place).lower()).strip("-")[:48] or "data"
        name = _free(word, taken)
        yield ""
        yield f"[volumes.{key(name)}]"
        yield _said(f"path = {value(place)}", "a VOLUME of the image")
        yield f'# source = "/srv/{name}"            # a directory of the host instead of one in the bundle'
    if not taken:
        yield ""
        yield "# [volumes.data]                    # the image declares no VOLUME; what it writes is discarded at stop"
        yield '# path = "/data"'


def _free(word: str, taken: set[str]) -> str:
    name, number = word, 2
    while name in taken:
        name, number = f"{word}-{number}", number + 1
    taken.add(name)
    return name


def _network(config: ImageConfig) -> Iterator[str]:
    ports = [found for found in map(_number, config.exposed_ports) if found]
    yield ""
    yield "[network]"
    if not ports:
        yield _said('mode = "none"', "host, none, bridge, pasta or service:NAME; the image names no port")
        return
    yield _said('mode = "bridge"', "host, none, bridge, pasta or service:NAME")
    yield _said(f"ports = {value(list(_published(ports)))}", "reachable from this host only")


def _number(text: str) -> tuple[int, str] | None:
    number, _, protocol = text.partition("/")
    usable = number.isascii() and number.isdigit() and len(number) < 6 and 0 < int(number) < 65536
    return (int(number), protocol or "tcp") if usable and protocol in {"", "tcp", "udp"} else None


def _published(ports: list[tuple[int, str]]) -> Iterator[str]:
    """Ports of the host for those of the image: the same number, or one that no other program has by custom."""
    taken: set[tuple[int, str]] = set()
    for number, protocol in sorted(ports, key=lambda port: port[0] < _PRIVILEGED):
        found = number if number >= _PRIVILEGED else number + 8000
        while (found, protocol) in taken:
            found += 1
        taken.add((found, protocol))
        yield f"127.0.0.1:{found}:{number}/{protocol}"


def _health(image: Image) -> Iterator[str]:
    table = preflight.health(image.config_bytes)
    yield ""
    if table:
        yield "[health]                            # the image's HEALTHCHECK"
        yield from (f"{name} = {value(found)}" for name, found in table.items())
        return
    ports = [found for found in map(_number, image.config.exposed_ports) if found and found[1] == "tcp"]
    yield "# [health]                          # how to see that it is well"
    yield f"# tcp = {ports[0][0] if ports else 8080}"
