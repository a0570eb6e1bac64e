"""What an exported file says of itself: its first member, with every other member's name, size and digest. Pure.

    appbox.json            this
    appbox.lock            what the versions mean
    services/NAME.toml     manifests, and beside them the files that they name
    rendered/NAME/         what was generated from them on the host that they come from
    oci-layout index.json blobs/    the images: the whole file is an OCI archive, which other tools read
    signatures/            signatures of images that were found good, to be verified again
    data/NAME.tar          the volumes

Members stand in that order and in no other, so that who reads them needs no memory of what came before.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from appbox import constraints, fields
from appbox.errors import Refused
from appbox.fields import BadValueError
from appbox.oci import json_document as doc
from appbox.oci.digest import Digest
from appbox.oci.json_document import DOCUMENT_LIMIT

NAME: Final = "appbox.json"
LOCK: Final = "appbox.lock"
SERVICES: Final = "services/"
RENDERED: Final = "rendered/"
BLOBS: Final = "blobs/"
SIGNATURES: Final = "signatures/"
DATA: Final = "data/"
LAYOUT: Final = ("oci-layout", "index.json")

SCHEMA: Final = 1
MEMBERS: Final = 65536
"""Members of one file: some for each service and one for each layer."""
SMALL: Final = 4 << 20
"""Bytes of any member but blobs and data."""
SMALL_TOTAL: Final = 64 << 20
"""Bytes of all of those, which are in memory at once."""

_WHAT: Final = "the export's index"
_PART: Final = re.compile(r"[^\x00-\x1f\x7f/]{1,255}")
_BLOB: Final = re.compile(r"blobs/(sha256|sha512)/([0-9a-f]+)")
_SIGNATURE: Final = re.compile(r"signatures/(sha256|sha512)-([0-9a-f]+)")


@dataclass(frozen=True, slots=True)
class Entry:
    """A member: its bytes, their digest, and the permissions of the file that is made of it."""

    name: str
    size: int
    sha256: str
    mode: int = 0o644

    @property
    def blob(self) -> Digest | None:
        """The digest that a blob's name says, None for any other member."""
        found = _BLOB.fullmatch(self.name)
        return Digest(found[1], found[2]) if found else None

    @property
    def signed(self) -> Digest | None:
        """The digest of the image that a member has signatures of, None for any other member."""
        found = _SIGNATURE.fullmatch(self.name)
        return Digest(found[1], found[2]) if found else None

    @property
    def is_small(self) -> bool:
        """Whether it is read at once."""
        return self.blob is None and not self.name.startswith(DATA)


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret that the other host has to have: `kind` is file, command or age, `source` where it is looked for."""

    name: str
    kind: str
    source: str


@dataclass(frozen=True, slots=True)
class Exported:
    """A service. `image` is the name that its manifest has in the export, `reference` what it was pulled by.

    `data` are the names of the volumes that came along, `format` what they are written in; `elsewhere` are volumes
    that are no part of a service's data, `requires` the services that it cannot do without.
    """

    name: str
    version: str
    image: str
    reference: str
    digest: str
    index: str
    platform: str
    data: tuple[str, ...] = ()
    format: str = ""
    elsewhere: tuple[str, ...] = ()
    secrets: tuple[Secret, ...] = ()
    requires: tuple[str, ...] = ()

    @property
    def manifest(self) -> str:
        """The member that is its manifest."""
        return f"{SERVICES}{self.name}.toml"

    @property
    def archive(self) -> str:
        """The member that is its data."""
        return f"{DATA}{self.name}.tar"


@dataclass(frozen=True, slots=True)
class ExportIndex:
    """The whole: services sorted by name, members in the order of the file, the index itself left out."""

    services: tuple[Exported, ...]
    members: tuple[Entry, ...]
    appbox: str = ""

    def dumps(self) -> bytes:
        """Return it as JSON: the same value makes the same bytes."""
        data = {
            "kind": "appbox-export",
            "schema": SCHEMA,
            "appbox": self.appbox,
            "services": [asdict(one) for one in self.services],
            "members": [{**asdict(one), "mode": f"{one.mode:04o}"} for one in self.members],
        }
        return (json.dumps(data, indent=1, ensure_ascii=True) + "\n").encode()

    def entry(self, name: str) -> Entry | None:
        """Return the member of that name."""
        return next((one for one in self.members if one.name == name), None)


def parse(data: bytes) -> ExportIndex:
    """Return the index in `data`; raise `Refused` for one whose members no export has, or that is damaged."""
    document = doc.parse_object(data, _WHAT, limit=DOCUMENT_LIMIT)
    if doc.text(document, "kind", _WHAT) != "appbox-export":
        raise Refused("this is no export of appbox")
    if doc.number(document, "schema", _WHAT) != SCHEMA:
        raise Refused("the export is of another kind than this appbox knows", hint="use a newer appbox")
    listed = doc.items(document, "members", _WHAT)
    if len(listed) > MEMBERS:
        raise Refused(f"the export has more than {MEMBERS} members")
    services = tuple(_service(_table(one)) for one in doc.items(document, "services", _WHAT))
    members = tuple(_entry(_table(one)) for one in listed)
    if not services:
        raise Refused("the export has no service")
    _refuse_twice([one.name for one in services], "service")
    _refuse_twice([one.name for one in members], "member")
    index = ExportIndex(services, members, doc.text(document, "appbox", _WHAT))
    _refuse_strangers(index)
    return index


def _table(value: object) -> Mapping[str, Any]:
    return doc.mapping({"an entry": value}, "an entry", _WHAT)


def _refuse_twice(names: Sequence[str], what: str) -> None:
    if len(set(names)) != len(names):
        raise Refused(f"the export has a {what} twice")


def _refuse_strangers(index: ExportIndex) -> None:
    """Refuse members that belong to no service, and services that lack a member."""
    known = {one.name for one in index.services}
    for one in index.services:
        for name in (one.manifest, *([one.archive] if one.data else [])):
            if index.entry(name) is None:
                raise Refused("the export lacks a member", where=name)
    if index.entry(LOCK) is None:
        raise Refused("the export lacks a member", where=LOCK)
    small = sum(one.size for one in index.members if one.is_small)
    if small > SMALL_TOTAL:
        raise Refused(f"the export's manifests and files have more than {SMALL_TOTAL} bytes")
    archives = {one.archive for one in index.services if one.data}
    for entry in index.members:
        if entry.name in LAYOUT or entry.name == LOCK or entry.blob or entry.signed or entry.name in archives:
            continue
        first, _, rest = entry.name.partition("/")
        if f"{first}/" == SERVICES and _is_of_a_service(rest, known):
            continue
        if f"{first}/" == RENDERED and rest.partition("/")[0] in known and "/" in rest:
            continue
        raise Refused("the export has a member that belongs to no service", where=entry.name)


def _is_of_a_service(path: str, known: set[str]) -> bool:
    """Return whether a file may lie beside the manifests: no other manifest, no overlay, which would change some."""
    if "/" not in path and path.endswith(".toml"):
        return path.removesuffix(".toml") in known
    return path.partition("/")[0] not in ("hosts", LOCK) and not path.startswith(".")


def _entry(table: Mapping[str, Any]) -> Entry:
    name, size = doc.text(table, "name", _WHAT), doc.number(table, "size", _WHAT)
    if not all(_PART.fullmatch(part) and part not in (".", "..") for part in name.split("/")) or name == NAME:
        raise Refused("the export has a member with a name that no file can have", where=name[:200])
    Digest("sha256", doc.text(table, "sha256", _WHAT))
    mode = doc.text(table, "mode", _WHAT)
    if not re.fullmatch(r"0[0-7]{3}", mode):
        raise Refused("a member of the export has no permissions", where=name)
    entry = Entry(name, size, table["sha256"], int(mode, 8))
    if entry.blob is not None and entry.blob.algorithm == "sha256" and entry.blob.hex != entry.sha256:
        raise Refused("a blob of the export is not called by its digest", where=name)
    if entry.is_small and size > SMALL:
        raise Refused(f"a member of the export is larger than {SMALL} bytes", where=name)
    return entry


def _service(table: Mapping[str, Any]) -> Exported:
    try:
        name = fields.name(doc.text(table, "name", _WHAT))
        version = fields.version(doc.text(table, "version", _WHAT))
        others = tuple(fields.name(other) for other in doc.texts(table, "requires", _WHAT))
    except BadValueError as error:
        raise Refused("the export has a service that no manifest can describe", why=error.message) from error
    if constraints.is_constraint(version):
        raise Refused("the export has a service without a version", where=name)
    index = doc.text(table, "index", _WHAT, default="")
    return Exported(
        name=name,
        version=version,
        image=doc.text(table, "image", _WHAT),
        reference=doc.text(table, "reference", _WHAT),
        digest=str(Digest.parse(doc.text(table, "digest", _WHAT))),
        index=str(Digest.parse(index)) if index else "",
        platform=doc.text(table, "platform", _WHAT),
        data=doc.texts(table, "data", _WHAT),
        format=doc.text(table, "format", _WHAT, default=""),
        elsewhere=doc.texts(table, "elsewhere", _WHAT),
        secrets=tuple(_secret(_table(one)) for one in doc.items(table, "secrets", _WHAT, obligatory=False)),
        requires=others,
    )


def _secret(table: Mapping[str, Any]) -> Secret:
    return Secret(*(doc.text(table, key, _WHAT) for key in ("name", "kind", "source")))
