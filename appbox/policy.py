"""Which images may run: what policies demand of an image, as values, and whether a name satisfies it. Pure.

A manifest's `[policy]` and the host's policy file each make a `Demand`, and an image has to satisfy all of them: so the
host can only ask for more than a manifest does, and a manifest for more than the host.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from appbox.errors import Refused
from appbox.oci.digest import Digest
from appbox.oci.public_key import PublicKey

FILES: Final = ("oci:", "oci-archive:", "docker-archive:")
"""How the names of images begin that come from a file or a directory and not from a registry."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What one policy wants of one image.

    `origin` is who wants it, for its user's eyes. `registries`: prefixes of names, of which one must cover the image's
    (empty: any). `signed_by`: keys, of which one must have signed it (empty: no signature is wanted). `signed_as`: the
    prefix of the name that the signature must be for, "" for the image's own. `refused`: it may not run at all.
    """

    origin: str
    registries: tuple[str, ...] = ()
    signed_by: tuple[PublicKey, ...] = ()
    signed_as: str = ""
    require_digest: bool = False
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """What a policy file says of the images below `prefix`; None where it says nothing."""

    prefix: str
    signed_by: tuple[PublicKey, ...] | None = None
    signed_as: str | None = None
    require_digest: bool | None = None


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """A policy file: what holds for every image, and tables for some. Of those that cover a name the longest counts."""

    origin: str
    registries: tuple[str, ...] = ()
    signed_by: tuple[PublicKey, ...] = ()
    signed_as: str = ""
    require_digest: bool = False
    refuse: bool = False
    images: tuple[Table, ...] = ()

    def demand(self, name: str) -> Demand:
        """Return what the file wants of the image `name`: its table's word, and the file's where that has none."""
        covering = [table for table in self.images if covers(table.prefix, name)]
        table = max(covering, key=lambda one: len(one.prefix)) if covering else Table("")
        return Demand(
            origin=self.origin,
            # Whoever refuses all that nothing names has named this one.
            registries=() if self.refuse and covering else self.registries,
            signed_by=self.signed_by if table.signed_by is None else table.signed_by,
            signed_as=self._signed_as(table),
            require_digest=self.require_digest if table.require_digest is None else table.require_digest,
            refused=self.refuse and not covering and not self.registries,
        )

    def _signed_as(self, table: Table) -> str:
        """Whose keys they are decides which names those may sign for."""
        if table.signed_as is not None:
            return table.signed_as
        return self.signed_as if table.signed_by is None else ""


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signed an image: the key, by name and fingerprint, and the digest and the repository that it signed.

    `name` is "" where the signature names no repository.
    """

    key: str
    fingerprint: str
    digest: str
    name: str = ""

    def as_dict(self) -> dict[str, str]:
        """Return it as it stands in bundle.toml and in JSON."""
        return {"key": self.key, "fingerprint": self.fingerprint, "digest": self.digest, "name": self.name}


def covers(prefix: str, name: str) -> bool:
    """Tell whether `name` is `prefix` or lies below it: docker.io/a covers docker.io/a/b, and not docker.io/ab."""
    return name == prefix or name.startswith(prefix if prefix.endswith((":", "/")) else f"{prefix}/")


def file_prefix(text: str) -> str | None:
    """Return the normal form of a prefix of images in files, `oci:` or `oci:/DIR`; None when `text` is none."""
    for transport in FILES:
        path = text.removeprefix(transport)
        if path != text and (not path or path.startswith("/")):
            return transport + (posixpath.normpath("/" + path.lstrip("/")) if path else "")
    return None


def admit(demands: Sequence[Demand], name: str, *, pinned: bool) -> None:
    """Raise `Refused` unless an image's name satisfies every demand; nothing of the image is needed for that.

    `name` is registry/repository as the user named it, before any mirror, or the path of a file behind its transport.
    `pinned` tells whether a digest was asked for.
    """
    for demand in demands:
        if demand.refused:
            hint = f"add an [[image]] table for it to {demand.origin}, if it is to be trusted"
            raise Refused(
                "the image may not be used", where=name, why=f"{demand.origin} names no such image", hint=hint
            )
        if demand.registries and not any(covers(prefix, name) for prefix in demand.registries):
            why = f"{demand.origin} allows {', '.join(demand.registries)}"
            hint = "take the image from there, or change registries"
            raise Refused("the image is not from an allowed registry", where=name, why=why, hint=hint)
        if demand.require_digest and not pinned:
            hint = 'run appbox lock, or pin it with digest = "sha256:…" in the manifest or NAME@sha256:…'
            raise Refused("the image is not pinned to a digest", where=name, why=f"{demand.origin} wants it", hint=hint)


def speaks_for(demand: Demand, claimed: str, own: str) -> bool:
    """Tell whether a signature for the repository `claimed` ("" for none) counts for the image `own`.

    cosign does not look at the name. Here it must be the image's own, so that what a key signed as one thing cannot be
    passed off as another; `signed_as` is for images that were copied. An image in a file has no such name.
    """
    if demand.signed_as:
        return covers(demand.signed_as, claimed)
    return not claimed or claimed == own or own.startswith(FILES)


def recorded(
    demands: Sequence[Demand], signers: Sequence[Signer], digests: Sequence[Digest], own: str
) -> tuple[Signer, ...] | None:
    """Return who signed, if what was found out before satisfies every demand; None if it has to be looked at anew."""
    known = {str(digest) for digest in digests}
    found = []
    for demand in demands:
        if not demand.signed_by:
            continue
        keys = {key.fingerprint: key.name for key in demand.signed_by}
        fitting = (s for s in signers if s.fingerprint in keys and s.digest in known)
        match = next((s for s in fitting if speaks_for(demand, s.name, own)), None)
        if match is None:
            return None
        found.append(replace(match, key=keys[match.fingerprint]))
    return tuple(dict.fromkeys(found))


def signers_of(meta: Mapping[str, Any]) -> tuple[Signer, ...]:
    """Return who signed an image by its table in bundle.toml; () for anything else than what `as_dict` writes."""
    tables = meta.get("signed_by")
    return tuple(
        Signer(*(str(table.get(key, "")) for key in ("key", "fingerprint", "digest", "name")))
        for table in (tables if isinstance(tables, list) else [])
        if isinstance(table, dict)
    )
