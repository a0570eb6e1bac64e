"""Content digests: an algorithm and its hex. Values only; nothing here reads or writes.

The grammar is that of the OCI image specification ("Descriptors", section "Digests"), narrowed to the two registered
algorithms in their one canonical form, so that equal digests are equal strings and safe as file names.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from appbox.errors import Refused

if TYPE_CHECKING:
    from hashlib import _Hash

HEX_LENGTH = {"sha256": 64, "sha512": 128}
_HEX = re.compile(r"[0-9a-f]+")


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """`algorithm` is sha256 or sha512; `hex` is lower case and of the length that belongs to it."""

    algorithm: str
    hex: str

    def __post_init__(self) -> None:
        length = HEX_LENGTH.get(self.algorithm)
        if length is None:
            raise Refused(f"unknown digest algorithm {self.algorithm[:40]!r}", hint="use sha256 or sha512")
        if len(self.hex) != length or not _HEX.fullmatch(self.hex):
            raise Refused(f"{self.algorithm} digest is not {length} lower-case hex digits", why=repr(self.hex[:130]))

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Return the digest that `text` ("sha256:…") spells; raise `Refused` for anything else."""
        algorithm, colon, digits = text.partition(":")
        if not colon:
            raise Refused(f"{text[:130]!r} is not a digest", hint="write sha256: and 64 lower-case hex digits")
        return cls(algorithm, digits)

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> Digest:
        """Return the digest of `data`."""
        return cls(algorithm, hashlib.new(algorithm, data).hexdigest())

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"

    @property
    def short(self) -> str:
        """The form that people read: the algorithm and twelve digits."""
        return f"{self.algorithm}:{self.hex[:12]}"

    def hasher(self) -> _Hash:
        """Return a fresh hash of this algorithm."""
        return hashlib.new(self.algorithm)

    def matches(self, data: bytes) -> bool:
        """Tell whether `data` has this digest."""
        return hashlib.new(self.algorithm, data).hexdigest() == self.hex
