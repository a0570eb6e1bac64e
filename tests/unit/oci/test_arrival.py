"""A blob on its way, and those who read it."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from appbox.oci.arrival import Arrival


def test_who_has_begun_to_read_is_not_sent_to_another_file(tmp_path: Path) -> None:
    """A manifest that lists a blob twice has it brought twice; the second time it is there already."""
    data = os.urandom(1000)
    arrival = Arrival()
    with (tmp_path / "blob").open("w+b") as file:
        file.write(data)
        file.flush()
        arrival.begin(file.fileno())
    arrival.advance(len(data))
    with arrival.open() as reader:
        read = reader.read(300)
        arrival.finish()
        arrival.stored(lambda: io.BytesIO(data))
        while block := reader.read(300):
            read += block
    arrival.close()
    assert read == data


def test_what_is_begun_twice_leaves_no_descriptor_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    arrival = Arrival()
    for at in range(3):
        with (tmp_path / f"blob{at}").open("wb") as file:
            arrival.begin(file.fileno())
    arrival.close()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("how", ["fail", "cancel"])
def test_who_waits_is_woken(tmp_path: Path, how: str) -> None:
    arrival = Arrival()
    with (tmp_path / "blob").open("wb") as file:
        arrival.begin(file.fileno())
    reader = arrival.open()
    if how == "fail":
        arrival.fail(OSError(5, "it broke"))
    else:
        reader.cancel()  # type: ignore[attr-defined]
    with pytest.raises(OSError, match="it broke" if how == "fail" else "cancel"):
        reader.read(10)
    reader.close()
    arrival.close()
