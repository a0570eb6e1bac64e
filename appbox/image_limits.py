"""How much an image may ask for on this host: what `/etc/appbox/limits.toml` says instead of the usual limits.

size = "1T"          # uncompressed bytes of an image
entries = 4_000_000  # files, directories and links of all its layers
ratio = 400          # uncompressed over compressed bytes, beyond
ratio_from = "16G"   # what any image may have, whatever its ratio
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from appbox.oci.limits import Limits
from appbox.store import paths
from appbox.store.root import Root

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE_LIMIT: Final = 1 << 16
"""Bytes of the file."""


def load(root: Root) -> Limits:
    """Return the limits of this host. Raises ManifestError with every problem, AppboxError when it cannot be read."""
    data = root.read(paths.LIMITS, SIZE_LIMIT)
    return Limits() if data is None else parse(data, paths.LIMITS)


def parse(data: bytes, file: str) -> Limits:
    """Return the limits in the bytes of `file`; raise ManifestError with every problem, each with line and key."""
    # Most hosts have no such file, and need not load what reads it.
    from appbox import toml_source  # noqa: PLC0415
    from appbox.document import Document  # noqa: PLC0415
    from appbox.errors import ManifestError, Problem  # noqa: PLC0415
    from appbox.fields import BadValueError, nearest  # noqa: PLC0415
    from appbox.quantities import SIZE_LIMIT as MOST  # noqa: PLC0415
    from appbox.quantities import size, whole  # noqa: PLC0415

    known: dict[str, Callable[[object], int]] = {
        "entries": lambda value: whole(value, 1, MOST),
        "size": size,
        "ratio": lambda value: whole(value, 1, MOST),
        "ratio_from": size,
    }
    try:
        text = data.decode("utf-8-sig")
        table = toml_source.load(text)
    except UnicodeDecodeError:
        raise ManifestError([Problem(file, 1, "", "is not UTF-8", "save it as UTF-8")]) from None
    except toml_source.SourceError as error:
        key = toml_source.dotted(error.path)
        raise ManifestError([Problem(file, error.line, key, error.message, error.hint)]) from None
    document, problems, found = Document(file, text), [], {}
    for key, value in table.items():
        try:
            if key not in known:
                raise BadValueError("unknown key", nearest(key, known) or f"known here: {', '.join(sorted(known))}")
            found[key] = known[key](value)
        except BadValueError as error:
            problems.append(document.problem((key,), error.message, error.hint))
    if problems:
        raise ManifestError(problems)
    return replace(Limits(), **found)
