"""Several services at once: what fails with one leaves the others, and images are unpacked side by side."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ground import faulty, layers
from tests.ground.faulty import Answer, Fault, Faulty, Request
from tests.ground.sandbox import Sandbox, members

pytestmark = pytest.mark.root


@pytest.fixture
def box(tmp_path: Path) -> Sandbox:
    return Sandbox(tmp_path)


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith(" ")]


# Failures


@pytest.fixture
def four(box: Sandbox) -> Sandbox:
    """Return manifests of which that of `b` fails when it is unpacked; `c` requires `b`, `d` requires `c`."""
    box.image("bad", *members(), User="nobody")
    box.manifest("a")
    box.manifest("b", version="bad", volumes=None)
    box.manifest("c", service={"requires": ["b"]})
    box.manifest("d", service={"requires": ["c"]})
    box.manifest("e")
    return box


def test_what_fails_leaves_the_others(four: Sandbox) -> None:
    result = four.appbox("apply", four.services, code=6)
    assert sorted(os.listdir(four.containers)) == ["a", "a-1.0", "e", "e-1.0"]
    (error,) = result.err.splitlines()
    assert error.startswith("appbox: ")
    assert "b" in error
    *_, a, b, c, d, e, last = _lines(result.out)
    assert (a, e) == ("a: done", "e: done")
    assert b.startswith("b: failed: ")
    assert c == "c: not begun: it requires b, which failed"
    assert d == "d: not begun: it requires c, which was not begun"
    assert last == "2 services changed, 1 service failed, 2 services not begun"
    four.manifest("b")
    four.appbox("apply", four.services)
    four.settled()


def test_what_failed_as_json(four: Sandbox) -> None:
    data = four.appbox("--json", "apply", four.services, code=6).data()
    results = {one["name"]: (one["result"], one["error"] and one["error"]["exit"]) for one in data["results"]}
    assert results == {
        "a": ("done", None),
        "b": ("failed", 6),
        "c": ("not begun", None),
        "d": ("not begun", None),
        "e": ("done", None),
    }
    assert (data["done"], data["error"]["exit"]) == (False, 6)


def test_fail_fast(four: Sandbox) -> None:
    result = four.appbox("apply", "--fail-fast", four.services, code=6)
    assert "e: not begun: b failed" in result.out
    assert not any(name.startswith((".", "e")) for name in os.listdir(four.containers))


def test_different_failures_are_failure(four: Sandbox) -> None:
    four.manifest("e", image="oci:/nowhere")
    result = four.appbox("apply", four.services, code=1)
    assert "/nowhere" in result.err
    assert "e: failed: " in result.out
    assert (four.containers / "a-1.0").is_dir()


def test_an_image_that_is_not_there_is_one_service_s_failure(box: Sandbox) -> None:
    box.manifest("a")
    box.manifest("b", version="9")
    assert "b" in box.appbox("plan", box.services, code=5).err
    assert "b: failed" in box.appbox("apply", box.services, code=5).out
    assert (box.containers / "a").is_symlink()
    path = box.place / "x.plan"
    box.appbox("plan", "-o", path, box.services, code=5)
    assert not path.exists(), "a plan of a part is no plan"


def test_nothing_is_removed_after_a_failure(box: Sandbox) -> None:
    for name in ("a", "b"):
        box.manifest(name)
    box.appbox("apply", box.services)
    (box.services / "a.toml").unlink()
    box.image("bad", *members(), User="nobody")
    box.manifest("c", version="bad", volumes=None)
    said = box.appbox("apply", "--prune", box.services, code=6).out
    assert "a: not begun: c failed" in said
    assert (box.containers / "a").is_symlink()


# Side by side


@pytest.fixture
def shop(box: Sandbox) -> Iterator[Faulty]:
    registry = Faulty(box.content)
    with faulty.serve(registry):
        yield registry


def _big(number: int) -> bytes:
    return layers.archive(*members(), layers.file(b"big", os.urandom(3 << 20)), layers.file(b"n", b"%d" % number))


def test_a_layer_of_several_images_is_brought_once(box: Sandbox, shop: Faulty) -> None:
    shared = _big(0)
    for number in range(4):
        own = layers.archive(layers.file(b"own", b"%d" % number))
        box.content.image(f"v{number}", layers=(shared, own), config={"Cmd": ["/bin/app"]})
        box.manifest(f"s{number}", image=f"{shop.host}/team/app", version=f"v{number}")
    box.appbox("apply", box.services)
    blobs = Counter(r.path.rpartition("/")[2] for r in shop.seen("GET", "/blobs/"))
    assert set(blobs.values()) == {1}, blobs
    for number in range(4):
        assert (box.current(f"s{number}") / "rootfs/own").read_bytes() == b"%d" % number
        assert (box.current(f"s{number}") / "rootfs/big").stat().st_size == 3 << 20
    box.settled()


def test_images_are_brought_side_by_side(box: Sandbox, shop: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each download waits until another one is under way, too, on two cores and more."""
    meeting = threading.Barrier(2, timeout=20)

    def wait(request: Request, answer: Answer) -> Answer:
        meeting.wait()
        return answer

    for number in range(2):
        layer = _big(number)
        box.content.image(f"v{number}", layers=(layer,), config={"Cmd": ["/bin/app"]})
        box.manifest(f"s{number}", image=f"{shop.host}/team/app", version=f"v{number}")
    monkeypatch.setattr("appbox.several.workers", lambda: 2)
    box.appbox("plan", box.services)
    shop.break_next("GET blobs", _outside(shop, wait), _outside(shop, wait))
    box.appbox("apply", box.services)
    assert not meeting.broken


def _outside(shop: Faulty, act: Fault) -> Fault:
    """Return a fault that lets go of the registry's lock while it acts: others may be answered meanwhile."""

    def fault(request: Request, answer: Answer) -> Answer:
        shop.lock.release()
        try:
            return act(request, answer)
        finally:
            shop.lock.acquire()

    return fault


def test_an_interrupted_preparation_leaves_nothing(box: Sandbox) -> None:
    for number in range(3):
        box.image(f"v{number}", *members(), *(layers.file(b"f%d" % n, bytes(1 << 16)) for n in range(300)))
        box.manifest(f"s{number}", version=f"v{number}")
    for number in (signal.SIGINT, signal.SIGTERM):
        process = subprocess.Popen(
            box.command("apply", box.services), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + 30
        while not any(box.containers.glob(".staging.*")):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.001)
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
        assert process.returncode == (130 if number == signal.SIGINT else 128 + number)
        assert "not done because of that: s0, s1, s2" in err
        assert list(box.containers.iterdir()) == []
    box.appbox("apply", box.services)
    box.settled()
