"""Who is measured: appbox and what else pulls and unpacks images, each from nothing to a durable root file system.

Each gets an empty directory for all that it writes, and each pays for what makes its result durable: appbox does so by
itself; the others are followed by `sync --file-system`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.bench import measure
from tests.bench.measure import Cost

APPBOX = str(Path(sys.executable).with_name("appbox"))
_START_LIMIT = 15.0  # seconds


@dataclass(frozen=True, slots=True)
class Peer:
    """`pull` takes an empty directory and a reference (HOST:PORT/NAME:TAG on loopback, plain HTTP)."""

    name: str
    pull: Callable[[Path, str], Cost]
    programs: tuple[tuple[str, ...], ...]
    """The commands that say the versions."""
    codecs: tuple[str, ...] = ("gzip", "zstd")

    def versions(self) -> Iterator[str]:
        """Yield the programs and their versions."""
        for words in self.programs:
            said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
            found = re.search(r"\d+\.\d+[\w.+~-]*", said)
            yield f"{Path(words[0]).name} {found.group() if found else said.strip()}"


def appbox(place: Path, reference: str) -> Cost:
    """Unpack with appbox and an empty cache."""
    return measure.run(
        [APPBOX, "--root", str(place), "image", "unpack", f"docker://{reference}", str(place / "rootfs")]
    )


def skopeo_umoci(place: Path, reference: str) -> Cost:
    """Copy to a layout with skopeo, and unpack that to a bundle with umoci."""
    layout = f"{place}/layout:1"
    copied = measure.run(
        [
            "skopeo",
            "--insecure-policy",
            "copy",
            "--quiet",
            "--src-tls-verify=false",
            f"docker://{reference}",
            f"oci:{layout}",
        ],
        TMPDIR=str(place),
    )
    unpacked = measure.run(["umoci", "unpack", "--image", layout, str(place / "bundle")])
    return copied + unpacked + measure.sync(place)


def podman(place: Path, reference: str) -> Cost:
    """Pull with podman into a store of its own."""
    with podman_words(place) as words:
        pulled = measure.run([*words, "pull", "--quiet", "--tls-verify=false", reference], TMPDIR=str(place))
        return pulled + measure.sync(place)


@contextlib.contextmanager
def podman_words(place: Path) -> Iterator[list[str]]:
    """Yield podman's command with all that it keeps below `place`; what it keeps while the machine runs is in /run."""
    with tempfile.TemporaryDirectory(prefix="appbox-bench.", dir="/run") as state:  # of at most 50 characters
        try:
            yield [
                "podman", "--root", f"{place}/store", "--runroot", f"{state}/run", "--tmpdir", f"{state}/tmp",
                "--storage-driver", "overlay", "--events-backend", "file", "--cgroup-manager", "cgroupfs",
            ]  # fmt: skip
        finally:
            # Its store is a mount of its own from the first container on.
            for directory in (str(place), state):
                unmount(directory)


def unmount(directory: str) -> None:
    """Unmount what is mounted below a directory."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()]
    for point in reversed(mounts):
        if point.startswith(f"{directory}/"):
            subprocess.run(["umount", point], check=True)


def ctr(place: Path, reference: str) -> Cost:
    """Pull with ctr through a containerd of its own, whose start does not count but whose work does."""
    with containerd(place) as (address, pid):
        before = measure.of_process(pid)
        pulled = measure.run(
            ["ctr", "--address", address, "images", "pull", "--plain-http", "--snapshotter", "overlayfs", reference]
        )
        durable = measure.sync(place)
        after = measure.of_process(pid)
    return pulled + durable + Cost(0, after.processor - before.processor, after.memory)


@contextlib.contextmanager
def containerd(place: Path) -> Iterator[tuple[str, int]]:
    """Run a containerd with all that it keeps below `place`; yield its address and its number."""
    address = f"/run/appbox-bench.{os.getpid()}.sock"  # the name of a socket is at most 107 bytes long
    config = place / "containerd.toml"
    config.write_text(_containerd_config(place, address), encoding="utf-8")
    with (place / "containerd.log").open("wb") as log:
        process = subprocess.Popen(["containerd", "--config", str(config)], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + _START_LIMIT
        while not _answers(address):
            if process.poll() is not None or time.monotonic() > deadline:
                msg = f"containerd does not start: {(place / 'containerd.log').read_text(encoding='utf-8')}"
                raise measure.Failed(msg)
            time.sleep(0.05)
        yield address, process.pid
    finally:
        process.terminate()
        process.wait(20)
        for left in (address, f"{address}.ttrpc"):
            Path(left).unlink(missing_ok=True)


def _answers(address: str) -> bool:
    return subprocess.run(["ctr", "--address", address, "version"], capture_output=True, check=False).returncode == 0


def _containerd_config(place: Path, address: str) -> str:
    values = {
        "version": 2,
        "root": f"{place}/containerd",
        "state": f"{place}/containerd-state",
        "disabled_plugins": ["io.containerd.grpc.v1.cri"],
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    return "\n".join([*lines, "[grpc]", f"address = {json.dumps(address)}", ""])


OURS = Peer("appbox", appbox, ((APPBOX, "--version"),))
SKOPEO_UMOCI = Peer("skopeo + umoci", skopeo_umoci, (("skopeo", "--version"), ("umoci", "--version")), ("gzip",))
PODMAN = Peer("podman", podman, (("podman", "--version"),))
CTR = Peer("ctr", ctr, (("containerd", "--version"),))
PEERS: Mapping[str, Peer] = {peer.name: peer for peer in (OURS, SKOPEO_UMOCI, PODMAN, CTR)}
