"""What cannot be read at the moment is not taken for what is not there."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from appbox.store import state


@pytest.fixture
def bundle(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "bundle.toml").write_text('name = "web"\nversion = "1.0"\n')
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def test_a_process_without_descriptors_knows_no_service_of_a_version(bundle: int) -> None:
    assert state.meta_of(bundle) == {"name": "web", "version": "1.0"}
    free = os.dup(bundle)
    os.close(free)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
            state.meta_of(bundle)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_file_that_is_no_toml_says_nothing(bundle: int, tmp_path: Path) -> None:
    (tmp_path / "bundle.toml").write_text("torn = ")
    assert state.meta_of(bundle) == {}
    (tmp_path / "bundle.toml").unlink()
    assert state.meta_of(bundle) == {}
