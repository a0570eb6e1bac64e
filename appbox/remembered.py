"""What a generation remembers of its service beside its own files, so that it can be gone back to exactly. Pure.

`service.json` of a generation holds the units, the links that start it at boot, its volumes and its place in a network,
and the digest of every other file: a generation that somebody changed on disk is not what was applied.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import Any, Final

from appbox.addresses import Attachment, Network
from appbox.desired_values import Desired, File, Upgrade
from appbox.errors import AppboxError
from appbox.json_text import indented
from appbox.live import LiveMount
from appbox.store.installed import Installed, Stored
from appbox.units.files import Link, UnitFile
from appbox.volumes import VolumeSpec

NAME: Final = "service.json"
_SCHEMA: Final = 1
_UNSIGNED: Final = frozenset({NAME, "bundle.toml"})
"""Files without a digest: this one, and the one to which an apply adds lines."""


def with_record(desired: Desired) -> Desired:
    """Return a service with what its generation has to remember among its files."""
    record = File(NAME, _text(desired), 0o600, restarts=False)
    files = [file for file in desired.files if file.path != NAME]
    return replace(desired, files=tuple(sorted([*files, record], key=lambda file: file.path)))


def _text(desired: Desired) -> bytes:
    data = {
        "schema": _SCHEMA,
        "mapped": desired.mapped,
        "size": desired.size,
        "enable": desired.enable,
        "timed": desired.timed,
        "link": asdict(desired.link) if desired.link else None,
        "units": [asdict(unit) for unit in desired.units],
        # Whether one is still to be made is the host's state: a service that has made it would seem to have changed.
        "volumes": [asdict(replace(volume, make=False, take=False)) for volume in desired.volumes],
        "live": [asdict(mount) for mount in desired.live],
        "upgrade": asdict(desired.upgrade),
        "attachment": _attachment(desired.attachment),
        "files": {
            file.path: [hashlib.sha256(file.data).hexdigest(), file.mode, *file.owner, file.on_change]
            for file in desired.files
            if file.path not in _UNSIGNED
        },
    }
    return f"{indented(data, 1, ensure_ascii=False)}\n".encode("utf-8", "surrogateescape")


def _attachment(attachment: Attachment | None) -> dict[str, Any] | None:
    if attachment is None:
        return None
    network = attachment.network
    return {
        "address": str(attachment.address),
        "name": network.name,
        "subnet": str(network.subnet),
        "subnet6": str(network.subnet6) if network.subnet6 else None,
        "isolate": network.isolate,
        "masquerade": network.masquerade,
        "mtu": network.mtu,
    }


def no_way_back(current: Installed | None) -> str:
    """Return why the current generation cannot be gone back to once it is left; "" when it can, or is none."""
    if current is None or not current.files or NAME in current.files:
        return ""
    return f"there is no way back to generation {current.generation}, which an older appbox made without a record of it"


def recall(stored: Installed) -> Desired:
    """Return the service as the generation has it that was read.

    Raises AppboxError for one that was written before there were records, or that was changed since.
    """
    try:
        data = json.loads(stored.files[NAME].data)
        if data["schema"] != _SCHEMA:
            raise ValueError(f"schema {data['schema']}")
        desired = _desired(stored, data)
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise AppboxError(
            "does not say all that is needed to go back to it",
            where=f"generation {stored.generation} of {stored.name}",
            why=f"{NAME}: {type(error).__name__}",
            hint="apply its manifest instead",
        ) from error
    if changed := differing(stored, data["files"]):
        raise AppboxError(
            "was changed on disk since it was applied",
            where=f"generation {stored.generation} of {stored.name}",
            why=", ".join(changed[:5]),
            hint="apply its manifest instead",
        )
    return desired


def _desired(stored: Installed, data: Mapping[str, Any]) -> Desired:
    asked = {path: row[4] for path, row in data["files"].items()}
    files = (_file(path, file, asked.get(path, "none")) for path, file in stored.files.items())
    image = stored.meta["image"]
    return Desired(
        name=stored.name,
        version=stored.version,
        reference=str(image["reference"]),
        digest=stored.digest,
        layers=(),
        base=stored.base,
        size=int(data["size"]),
        mapped=bool(data["mapped"]),
        files=tuple(sorted(files, key=lambda file: file.path)),
        units=tuple(UnitFile(str(u["path"]), str(u["text"]), int(u["mode"])) for u in data["units"]),
        volumes=tuple(_volume(v) for v in data["volumes"]),
        link=Link(str(data["link"]["path"]), str(data["link"]["target"])) if data["link"] else None,
        enable=bool(data["enable"]),
        notes=(),
        complete=True,
        timed=bool(data["timed"]),
        live=tuple(LiveMount(**mount) for mount in data["live"]),
        attachment=_recalled(data["attachment"]),
        upgrade=_upgrade(data["upgrade"]),
        generation=stored.generation,
    )


def _upgrade(data: Mapping[str, Any]) -> Upgrade:
    before, after = (tuple(tuple(words) for words in data[key]) for key in ("before", "after"))
    limit = int(data["hook_timeout"])
    return Upgrade(
        data["data"], int(data["keep"]), before, after, tuple(data["migrate"]), str(data["format"]), hook_timeout=limit
    )


def _file(path: str, stored: Stored, asked: str) -> File:
    return File(path, stored.data, stored.mode, stored.owner, asked == "restart", asked == "reload")


def _volume(data: Mapping[str, Any]) -> VolumeSpec:
    owner = data["owner"]
    # A path of the host that was to be made then is there now, or is gone with what was in it.
    return VolumeSpec(**{**data, "owner": tuple(owner) if owner else None, "make": False, "take": False})


def _recalled(data: Mapping[str, Any] | None) -> Attachment | None:
    if data is None:
        return None
    network = Network(
        data["name"],
        IPv4Network(data["subnet"]),
        IPv6Network(data["subnet6"]) if data["subnet6"] else None,
        bool(data["isolate"]),
        bool(data["masquerade"]),
        int(data["mtu"]),
    )
    return Attachment(network, IPv4Address(data["address"]))


def differing(stored: Installed, record: Mapping[str, list[Any]]) -> list[str]:
    """Return the files of a generation that are not what its record says, sorted."""
    there = {path: file for path, file in stored.files.items() if path not in _UNSIGNED}
    return sorted(path for path in {*there, *record} if not _same(there.get(path), record.get(path)))


def _same(file: Stored | None, row: list[Any] | None) -> bool:
    if file is None or row is None:
        return False
    return [hashlib.sha256(file.data).hexdigest(), file.mode, *file.owner] == row[:4]
