"""Whether a generation that somebody goes back to may still be used: the policies of now, and signatures found before.

Nobody is asked: a rollback has to work without a registry. Who signed an image stands in its bundle.toml, and
signatures that were found good are kept beside the cache; they are verified again with the keys of now.
"""

from __future__ import annotations

import os
from typing import Final

from appbox import admission, policy
from appbox.errors import Refused
from appbox.oci.cache import Cache
from appbox.oci.digest import Digest
from appbox.oci.model import Descriptor
from appbox.oci.reference import parse_image
from appbox.oci.source import Document
from appbox.store import paths, state
from appbox.store.installed import Installed
from appbox.store.root import Root

_HINT: Final = "apply a manifest whose image the policy admits; where its registry answers, apply looks for signatures"


class _Nobody:
    """A source that is not asked: whatever is beside the image there was found before, or does not count."""

    def companions(self, tag: str) -> list[Document]:
        """Return nothing."""
        del tag
        return []

    def small_blob(self, descriptor: Descriptor) -> bytes:
        """Raise Refused: there is none."""
        raise Refused("is not here", where=str(descriptor.digest))


def admit(root: Root, cache: Cache, name: str, directory: str, number: int) -> None:
    """Raise Refused when the host's policy does not admit the image of a generation by now.

    `directory` is the version's below the containers. ManifestError or AppboxError for a policy that cannot be used.
    """
    policies = admission.load(root)
    if not policies.files:
        return
    with root.directory(paths.CONTAINERS) as containers:
        found = state.stored(containers, name, directory, number)
    try:
        _admit(policies, cache, found)
    except Refused as error:
        where = f"generation {number} of {name}"
        why = f"{error.where}: {error.why}" if error.why else error.where
        raise Refused(error.what, where=where, why=why, hint=_HINT) from error


def _admit(policies: admission.Policies, cache: Cache, found: Installed) -> None:
    image = found.meta["image"]
    named = found.meta.get("manifest", {}).get("image")
    if not isinstance(named, str):
        raise Refused("does not say which image it was made from", where=found.directory)
    demands = policies.demands(parse_image(named), pinned=True, base_dir=os.path.dirname(found.source) or ".")
    index = str(image.get("index", ""))
    digests = [Digest.parse(digest) for digest in (index, found.digest) if digest]
    if demands.recorded(policy.signers_of(image), digests) is None:
        demands.verify(_Nobody(), str(image.get("reference", "")), digests, cache)
