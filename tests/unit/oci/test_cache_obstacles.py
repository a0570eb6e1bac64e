"""What may be in the way of a blob in the cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from appbox.errors import AppboxError
from appbox.oci.cache import Cache
from appbox.oci.digest import Digest


def test_a_directory_under_the_name_of_a_blob_is_named(tmp_path: Path) -> None:
    digest = Digest.of(b"data")
    place = tmp_path / "cache/blobs/sha256" / digest.hex
    place.mkdir(parents=True)
    cache = Cache(str(tmp_path / "cache"))
    with pytest.raises(AppboxError, match=f"{place}: a directory has the name of a blob; remove it"):
        cache.put(digest, b"data")
    assert list((tmp_path / "cache/.partial").iterdir()) == []
    place.rmdir()
    cache.put(digest, b"data")
    assert cache.document(digest) == b"data"
