"""`appbox init`: looks an image up and writes the manifest that its configuration suggests."""

from __future__ import annotations

import os

from appbox import drafting
from appbox.errors import AppboxError
from appbox.oci import source as sources
from appbox.oci.cache import Cache
from appbox.oci.reference import parse_transport
from appbox.session import Options, cache_path, wanted_platform


def draft(options: Options, text: str, output: str) -> None:
    """Print a manifest for an image, or write it to the new file `output`.

    Raises UsageError for a name that is none, Unavailable, and AppboxError for a file that is there.
    """
    reference = parse_transport(text)
    with options.open_root(services=False) as root:
        cache = Cache(cache_path(root))
    with sources.open_source(reference, cache) as source:
        image = source.resolve(reference.tag, reference.digest, wanted_platform(""))
    manifest = drafting.draft(reference, image)
    if output:
        _write(output, manifest)
    data = {"name": drafting.name_of(reference), "image": image.reference, "file": output, "manifest": manifest}
    options.result(data, "" if output else manifest)


def _write(path: str, text: str) -> None:
    try:
        with open(path, "x", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise AppboxError("is there already", where=path, hint="name a new file") from error
    except OSError as error:
        raise AppboxError("cannot be written", where=path, why=os.strerror(error.errno or 0)) from error
