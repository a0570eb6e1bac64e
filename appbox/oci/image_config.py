"""The configuration of an image: what it wants to run and the layers it is made of. Pure: bytes in, values out.

Follows "OCI Image Configuration" of the image specification; Docker's own document has the same fields. Labels are
data for people: nothing in appbox obeys them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as attribute
from typing import Any

from appbox.errors import Refused
from appbox.oci import json_document as field
from appbox.oci.digest import Digest
from appbox.oci.platform import Platform

_WHAT = "the image's configuration"


@dataclass(frozen=True, slots=True)
class History:
    """One step of how the image was made. `empty_layer`: it left no layer."""

    created: str
    created_by: str
    comment: str
    empty_layer: bool


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """`env` has NAME=VALUE strings in the image's order; `volumes` and `exposed_ports` are sorted; times are RFC 3339.

    `diff_ids` are the digests of the uncompressed layers, lowest first.
    """

    platform: Platform
    created: str
    author: str
    user: str
    exposed_ports: tuple[str, ...]
    env: tuple[str, ...]
    entrypoint: tuple[str, ...]
    cmd: tuple[str, ...]
    volumes: tuple[str, ...]
    working_dir: str
    stop_signal: str
    labels: Mapping[str, str] = attribute(hash=False)
    diff_ids: tuple[Digest, ...]
    history: tuple[History, ...]


def parse_config(data: bytes) -> ImageConfig:
    """Return the configuration in `data`; raise `Refused` for what is malformed, mistyped or larger than 4 MiB."""
    document = field.parse_object(data, _WHAT)
    process = field.mapping(document, "config", _WHAT)
    return ImageConfig(
        platform=_platform(document),
        created=field.text(document, "created", _WHAT, default=""),
        author=field.text(document, "author", _WHAT, default=""),
        user=field.text(process, "User", _WHAT, default=""),
        exposed_ports=tuple(sorted(field.mapping(process, "ExposedPorts", _WHAT))),
        env=field.texts(process, "Env", _WHAT),
        entrypoint=field.texts(process, "Entrypoint", _WHAT),
        cmd=field.texts(process, "Cmd", _WHAT),
        volumes=_volumes(process),
        working_dir=field.text(process, "WorkingDir", _WHAT, default=""),
        stop_signal=field.text(process, "StopSignal", _WHAT, default=""),
        labels=field.text_map(process, "Labels", _WHAT),
        diff_ids=_diff_ids(field.mapping(document, "rootfs", _WHAT)),
        history=tuple(map(_history, field.items(document, "history", _WHAT, obligatory=False))),
    )


def healthcheck(data: bytes) -> dict[str, Any]:
    """Return the health check in a configuration as it stands there, empty when there is none.

    People are shown it and nothing obeys it, so that nothing is refused because of it.
    """
    process = field.mapping(field.parse_object(data, _WHAT), "config", _WHAT)
    found = process.get("Healthcheck")
    return found if isinstance(found, dict) else {}


def _platform(document: Mapping[str, Any]) -> Platform:
    os, architecture = (field.text(document, key, _WHAT) for key in ("os", "architecture"))
    return Platform.normal(os, architecture, field.text(document, "variant", _WHAT, default=""))


def _volumes(process: Mapping[str, Any]) -> tuple[str, ...]:
    volumes = sorted(field.mapping(process, "Volumes", _WHAT))
    if any("\0" in path for path in volumes):
        raise Refused(f"a volume of {_WHAT} has a NUL character")
    return tuple(volumes)


def _diff_ids(rootfs: Mapping[str, Any]) -> tuple[Digest, ...]:
    if field.text(rootfs, "type", f"rootfs of {_WHAT}", default="layers") != "layers":
        raise Refused(f"rootfs of {_WHAT} is not made of layers", why=repr(rootfs["type"][:80]))
    return tuple(map(Digest.parse, field.texts(rootfs, "diff_ids", f"rootfs of {_WHAT}")))


def _history(entry: object) -> History:
    what = f"history of {_WHAT}"
    if not isinstance(entry, dict):
        raise Refused(f"an entry in {what} is not an object")
    created, created_by, comment = (
        field.text(entry, key, what, default="") for key in ("created", "created_by", "comment")
    )
    return History(created, created_by, comment, entry.get("empty_layer") is True)
