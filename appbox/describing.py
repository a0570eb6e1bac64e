"""An image as data and in words: what `appbox image inspect` shows. Values in, values out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from appbox.errors import sentence
from appbox.oci.image_config import healthcheck
from appbox.oci.model import INDEX_TYPES, MANIFEST_TYPES, Descriptor, Image, Index
from appbox.sizes import megabytes

_LONGEST: Final = 160
"""Characters of a step of the history that a person is shown; JSON has them all."""
_AGES: Final = (("year", 365 * 86400), ("month", 30 * 86400), ("day", 86400), ("hour", 3600), ("minute", 60))
_COMMANDS: Final = {"entrypoint", "cmd"}
_LISTS: Final = {"env": "env", "volumes": "volume", "ports": "port"}
_TABLES: Final = {"labels": "label", "annotations": "annotation"}


def describe(image: Image, index: Index | None = None) -> dict[str, Any]:
    """Return an image as JSON data, sizes in bytes, as stored. `index` is the one that it was chosen from."""
    config, manifest = image.config, image.manifest
    return {
        "reference": image.reference,
        "digest": str(image.digest),
        "media_type": manifest.media_type,
        "index": str(image.index_digest or ""),
        "index_media_type": index.media_type if index and image.index_digest else "",
        "platform": str(config.platform),
        "platforms": [_offer(entry) for entry in _offered(index)],
        "created": config.created,
        "author": config.author,
        "entrypoint": list(config.entrypoint),
        "cmd": list(config.cmd),
        "user": config.user,
        "workdir": config.working_dir,
        "env": list(config.env),
        "volumes": list(config.volumes),
        "ports": list(config.exposed_ports),
        "stop_signal": config.stop_signal,
        "healthcheck": healthcheck(image.config_bytes),
        "labels": dict(config.labels),
        "annotations": dict(manifest.annotations),
        "config": {"digest": str(manifest.config.digest), "media_type": manifest.config.media_type},
        "size": sum(layer.size for layer in manifest.layers),
        "layers": [
            {"digest": str(d.digest), "diff_id": str(diff), "size": d.size, "media_type": d.media_type}
            for d, diff in zip(manifest.layers, config.diff_ids, strict=True)
        ],
        "history": [
            {"created": one.created, "created_by": one.created_by, "comment": one.comment, "empty": one.empty_layer}
            for one in config.history
        ],
    }


def _offered(index: Index | None) -> list[Descriptor]:
    """Return the entries of an index that are images for some platform; attestations call theirs unknown."""
    entries = index.manifests if index else ()
    return [
        entry
        for entry in entries
        if entry.media_type in INDEX_TYPES | MANIFEST_TYPES and entry.platform and entry.platform.os != "unknown"
    ]


def _offer(entry: Descriptor) -> dict[str, str]:
    return {"platform": str(entry.platform), "digest": str(entry.digest)}


def text(data: dict[str, Any], now: datetime) -> str:
    """Return an image as `key: value` lines; what it does not say has none."""
    return "".join(f"{sentence(line)}\n" for line in _lines(data, now))


def _lines(data: dict[str, Any], now: datetime) -> Iterator[str]:
    for key, value in data.items():
        if key == "platforms":
            others = [one["platform"] for one in value if one["platform"] != data["platform"]]
            yield from [f"other platforms: {', '.join(others)}"] if others else []
        elif key == "created" and value:
            yield f"created: {value}{age(value, now)}"
        elif key == "config":
            yield f"config: {value['digest']}"
        elif key == "size":
            count = len(data["layers"])
            yield f"size: {megabytes(value)} in {count} {'layer' if count == 1 else 'layers'}, as stored"
        elif key == "layers":
            yield from (f"layer: {one['digest']} {megabytes(one['size'])} {one['media_type']}" for one in value)
        elif key == "history":
            yield from (f"history: {_step(one)}" for one in value)
        elif key == "healthcheck" and value:
            yield f"healthcheck: {_health(value)}"
        elif key in _COMMANDS and value:
            yield f"{key}: {json.dumps(value, ensure_ascii=False)}"
        elif key in _LISTS:
            yield from (f"{_LISTS[key]}: {item}" for item in value)
        elif key in _TABLES:
            yield from (f"{_TABLES[key]}: {name}={value[name]}" for name in sorted(value))
        elif value:
            yield f"{key}: {value}"


def _step(one: dict[str, Any]) -> str:
    words = " ".join((one["created_by"] or one["comment"] or "(nothing is said)").split())
    shown = words if len(words) <= _LONGEST else f"{words[:_LONGEST]}…"
    return f"{shown} (no layer)" if one["empty"] else shown


def _health(check: dict[str, Any]) -> str:
    """Return a health check as a command and its times; the image's numbers are nanoseconds."""
    test = check.get("Test")
    words = [" ".join(map(str, test))] if isinstance(test, list) else []
    for key, name in (("Interval", "every"), ("Timeout", "timeout"), ("StartPeriod", "start period")):
        value = check.get(key)
        if isinstance(value, int) and value > 0:
            words.append(f"{name} {value / 1e9:g} s")
    retries = check.get("Retries")
    return ", ".join([*words, f"{retries} retries"] if isinstance(retries, int) and retries > 0 else words)


def age(created: str, now: datetime) -> str:
    """Return how long ago an RFC 3339 time was, in brackets; empty for what is none, not past, or made up.

    Reproducible builds give times such as 1970, which say nothing.
    """
    try:
        then = datetime.fromisoformat(created)
        seconds = (now - then).total_seconds() if then.year > 1980 else -1.0
    except (ValueError, TypeError, OverflowError):
        return ""
    for word, length in _AGES:
        if seconds >= length:
            count = int(seconds // length)
            return f" ({count} {word}{'s' if count > 1 else ''} ago)"
    return " (just now)" if seconds >= 0 else ""
