"""A registry's list of tags, as data (OCI distribution specification, "Listing Tags"). Pure: bytes in, names out."""

from __future__ import annotations

import re
from collections.abc import Iterable

from appbox.oci import json_document as fields
from appbox.oci.reference import TAG_PATTERN

LIMIT = 200_000
"""Tags of one repository, ten times what the largest public ones have."""
# Possessive throughout: a header of 100 KiB must not take more than one look at each of its bytes.
_TARGET = re.compile(r"[\s,]*+<([^<>]*+)>")
_PARAMETER = re.compile(r"\s*+;\s*+([!#$%&'*+.^_`|~0-9A-Za-z-]++)\s*+(?:=\s*+(?:\"([^\"]*+)\"|([^\s\";,]++)))?+")


def parse(data: bytes, what: str) -> list[str]:
    """Return the tags in one answer; raise `Refused` for what is no such list.

    A name that no reference can have is left out: nobody could ask for it.
    """
    document = fields.parse_object(data, what)
    names = fields.items(document, "tags", what, obligatory=False)  # null for a repository without tags
    return [name for name in names if isinstance(name, str) and re.fullmatch(TAG_PATTERN, name)]


def next_link(headers: Iterable[str]) -> str | None:
    """Return the target of the link to the next page (RFC 8288), as it stands there; None on the last page."""
    for header in headers:
        position = 0
        while target := _TARGET.match(header, position):
            position, relations = target.end(), ""
            while parameter := _PARAMETER.match(header, position):
                position = parameter.end()
                if parameter[1].lower() == "rel":
                    relations = parameter[2] or parameter[3] or ""
            if "next" in relations.lower().split():
                return target[1]
    return None
