"""The smallest program and the smallest container."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from appbox.doctor import trivial
from appbox.host.facts import IdRange
from appbox.oci import elf
from tests.ground import runtime_schema


@pytest.mark.parametrize(("machine", "architecture"), [("x86_64", "amd64"), ("aarch64", "arm64")])
def test_it_is_a_static_program(machine: str, architecture: str) -> None:
    found = elf.program(trivial.program(machine) or b"")
    assert found is not None
    assert (found.static, found.architecture) == (True, architecture)


def test_it_ends_at_once(tmp_path: Path) -> None:
    data = trivial.program(os.uname().machine)
    assert data is not None, "the machines that test this are known"
    path = tmp_path / "exit"
    path.write_bytes(data)
    path.chmod(0o755)
    assert subprocess.run([path], check=False, timeout=10).returncode == 0


def test_other_machines_are_not_guessed() -> None:
    assert trivial.program("vax") is None


def test_its_specification_is_valid() -> None:
    spec = trivial.spec([(0, IdRange(1000, 1)), (1, IdRange(100_000, 65536))], [(0, IdRange(5, 1))])
    assert not runtime_schema.faults(spec)
    assert spec["linux"]["uidMappings"][1] == {"containerID": 1, "hostID": 100_000, "size": 65536}
