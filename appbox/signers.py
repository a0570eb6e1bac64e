"""Who signed an image: looks for signatures beside it, and has them verified. Keeps nothing, and says why none counts.

A signature counts when one of the keys made it over a payload that claims the very digest, under the image's own name.
One that is damaged does not hide another that is good.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from appbox import policy
from appbox.errors import Missing, Refused
from appbox.oci import evidence, signature, simple_signing
from appbox.oci.cache import Cache
from appbox.oci.digest import Digest
from appbox.oci.model import Descriptor
from appbox.oci.public_key import BadKeyError, PublicKey
from appbox.oci.source import Document
from appbox.policy import Demand, Signer


@runtime_checkable
class Companions(Protocol):
    """A source that can hold signatures beside an image."""

    def companions(self, tag: str) -> list[Document]:
        """Return the manifests under another tag of the same repository or layout. Nothing goes into the cache."""
        ...

    def small_blob(self, descriptor: Descriptor) -> bytes:
        """Return a small blob, verified by size and digest. It does not go into the cache."""
        ...


@dataclass(frozen=True, slots=True)
class _Found:
    """The signatures beside an image, and why what else lies there is none."""

    signatures: list[tuple[Digest, evidence.Evidence]]
    reasons: list[str]


class Search:
    """The search for one image's signatures; each place is looked at once.

    `name` is what policies call the image, `reference` what its user does; `subjects` are the digests of which one must
    be signed.
    """

    def __init__(self, name: str, reference: str, source: object, cache: Cache, subjects: Sequence[Digest]) -> None:
        self._name, self._reference, self._source, self._cache = name, reference, source, cache
        self._subjects = subjects
        self.from_file = name.startswith(policy.FILES)
        self._beside: _Found | None = None

    def signer(self, demand: Demand) -> tuple[Signer, evidence.Evidence]:
        """Return who signed the image for one demand, and the signature."""
        for key in demand.signed_by:
            _usable(key, demand)
        # What a file says of itself is read from it each time: that costs nothing, and it may have changed.
        kept = [] if self.from_file else [(s, one) for s in self._subjects for one in evidence.load(self._cache, s)]
        for subject, one in kept:
            if isinstance(signer := _judged(demand, self._name, subject, one), Signer):
                return signer, one
        found = self._look(demand)
        reasons = list(found.reasons)
        for subject, one in found.signatures:
            judged = _judged(demand, self._name, subject, one)
            if isinstance(judged, Signer):
                return judged, one
            reasons.append(judged)
        raise self._refused(demand, reasons)

    def _look(self, demand: Demand) -> _Found:
        if not isinstance(self._source, Companions):
            why = f"{demand.origin} wants a signature, and this kind of file can hold none"
            hint = "take it from a registry or an oci: layout"
            raise Refused("the image cannot be verified", where=self._reference, why=why, hint=hint)
        if self._beside is None:
            self._beside = _Found([], [])
            for subject in self._subjects:
                try:
                    documents = self._source.companions(simple_signing.tag(subject))
                except Refused as error:
                    self._beside.reasons.append(str(error))
                    continue
                for document in documents:
                    _read_signatures(self._source, subject, document, self._beside)
        return self._beside

    def _refused(self, demand: Demand, reasons: Sequence[str]) -> Refused:
        names = ", ".join(key.name for key in demand.signed_by)
        if not reasons:
            tags = " or ".join(simple_signing.tag(subject) for subject in self._subjects)
            why = f"{demand.origin} wants a signature by {names}, and there is no {tags}"
            return Refused("the image is not signed", where=self._reference, why=why, hint="have it signed with cosign")
        why = f"{demand.origin} wants one by {names}; {'; '.join(dict.fromkeys(reasons))}"
        hint = "take an image that is signed by them, or add the key of who signed this one if you trust it"
        return Refused("no signature of the image counts", where=self._reference, why=why, hint=hint)


def _read_signatures(source: Companions, subject: Digest, document: Document, found: _Found) -> None:
    """Add what a manifest of signatures holds to `found`: a damaged one is a reason, and another may still count."""
    payloads: dict[Digest, bytes] = {}  # signing again makes the same payload
    try:
        listed = simple_signing.parse_signatures(document.data, document.media_type)
    except Refused as error:
        found.reasons.append(f"{simple_signing.tag(subject)} is refused: {error}")
        return
    if not listed:
        found.reasons.append(f"{simple_signing.tag(subject)} holds no signature")
    for one in listed:
        try:
            payload = payloads.get(one.payload.digest) or source.small_blob(one.payload)
        except (Refused, Missing) as error:
            found.reasons.append(f"one is damaged: {error}")
            continue
        payloads[one.payload.digest] = payload
        found.signatures.append((subject, (one.signature, payload)))


def _usable(key: PublicKey, demand: Demand) -> None:
    """Raise unless a key can be used at all: a wrong one must not look like an image that is not signed."""
    try:
        signature.load(key)
    except BadKeyError as error:
        raise Refused(f"the key {key.name} {error.message}", where=demand.origin, hint=error.hint) from error


def _judged(demand: Demand, own: str, subject: Digest, one: evidence.Evidence) -> Signer | str:
    """Return the signer when a signature counts for a demand, and the reason when it does not."""
    signed, payload = one
    key = next((key for key in demand.signed_by if signature.made_by(key, signed, payload)), None)
    if key is None:
        return "one is by another key"
    try:
        claim = simple_signing.parse_claim(payload)
    except Refused as error:
        return f"one by {key.name} is refused: {error}"
    claimed = simple_signing.repository(claim.reference) if claim.reference else ""
    if claim.digest != str(subject):
        return f"one by {key.name} is for another image, {claim.digest[:80]}"
    if not policy.speaks_for(demand, claimed, own):
        return f"one by {key.name} is for {claimed[:200] or 'no name'}, not {demand.signed_as or own}"
    return Signer(key.name, key.fingerprint, str(subject), claimed)
