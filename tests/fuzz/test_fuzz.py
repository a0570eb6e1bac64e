"""The fuzzer in the tests: kept inputs keep the law, a short run finds nothing, and what is there it does find."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import corpus, mutation, repair
from tests.fuzz.targets import TARGETS, Broken, Target

TREE = Path(__file__).parents[2]
INPUTS = [(target, name) for target in TARGETS for name in corpus.seeds(target)]
SECONDS = 20


@pytest.mark.parametrize(("target", "name"), INPUTS)
def test_every_kept_input_keeps_the_law(target: str, name: str) -> None:
    """Crashes that were found once are among them."""
    TARGETS[target].check(corpus.seeds(target)[name])


def test_every_target_has_inputs_to_begin_with() -> None:
    assert {target for target, _ in INPUTS} == set(TARGETS)
    assert len([name for target, name in INPUTS if target == "tar"]) > 20


def test_valid_inputs_get_through() -> None:
    """A corpus that is refused at the first byte would make every run a quiet one."""
    for target in TARGETS:
        said = [TARGETS[target].check(data) for name, data in corpus.seeds(target).items() if "crash" not in name]
        assert [word for word in said if not word.startswith(("Refused", "Unavailable", "UsageError"))], target


def test_a_short_run_finds_nothing(tmp_path: Path) -> None:
    """20 seconds for all targets, in a process of its own because its memory is bounded."""
    words = [
        sys.executable,
        "-m",
        "tests.fuzz",
        "--engine",
        "mutation",
        "--seconds",
        str(SECONDS),
        "--save",
        str(tmp_path),
    ]
    done = subprocess.run(words, cwd=TREE, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = [int(count) for count in re.findall(r": ([0-9]+) inputs from", done.stdout)]
    assert len(counts) == len(TARGETS)
    assert min(counts) > 20
    print(f"{sum(counts)} inputs: {done.stdout}")
    assert os.listdir(tmp_path) == []


class TestTheFuzzerItself:
    """Against parsers with a fault each: what a fuzzer does not find, its silence does not prove absent."""

    def found(self, target: Target, seed: bytes) -> mutation.Crash:
        outcome = mutation.fuzz(target, [seed], seconds=20, seed=1)
        assert outcome.crash is not None
        return outcome.crash

    def test_finds_an_exception_that_is_not_ours(self) -> None:
        def check(data: bytes) -> str:
            return str(b"ab"[len(data)])

        crash = self.found(Target("x", check), b"")
        assert crash.why.startswith("IndexError")

    def test_finds_a_broken_law_behind_a_length(self) -> None:
        def check(data: bytes) -> str:
            length, _, rest = data.partition(b" ")
            if length.isdigit() and int(length) == len(data) and b"evil" in rest:
                raise Broken("evil")
            return "fine"

        assert b"evil" in self.found(Target("x", check, (b"evil",), repair.pax), b"9 a=bcd\n").data

    def test_finds_what_takes_too_long(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(mutation, "CPU_LIMIT", 0.2)

        def check(data: bytes) -> str:
            while data:
                pass
            return "fine"

        assert "processor time" in self.found(Target("x", check), b"").why

    def test_finds_what_takes_too_much_memory(self) -> None:
        program = (
            "from tests.fuzz import mutation; from tests.fuzz.targets import Target\n"
            "t = Target('x', lambda data: str(len(bytearray(len(data) << 29))))\n"
            "print(mutation.fuzz(t, [b''], 20, 1).crash.why)"
        )
        done = subprocess.run([sys.executable, "-c", program], cwd=TREE, capture_output=True, text=True, check=True)
        assert done.stdout.startswith("MemoryError")

    def test_makes_a_crash_smaller_and_keeps_it(self, tmp_path: Path) -> None:
        def check(data: bytes) -> str:
            if b"x" in data:
                raise Broken("x")
            return "fine"

        target = Target("name", check)
        crash = mutation.smaller(target, mutation.Crash(b"aaaaxbbbbbbbbb" * 40, "Broken: x"))
        assert crash.data == b"x"
        path = corpus.keep("name", crash, tmp_path)
        assert corpus.seeds("name", tmp_path) == {path.name: b"x"}

    def test_the_command_ends_with_1_on_a_crash(self, tmp_path: Path) -> None:
        program = (
            "import sys, tests.fuzz.__main__ as m; from tests.fuzz.targets import Target\n"
            "m.TARGETS = {'tar': Target('tar', lambda data: str(1 // (len(data) - 512)))}\n"
            f"sys.exit(m.main(['tar', '--engine', 'mutation', '--seconds', '20', '--save', {str(tmp_path)!r}]))"
        )
        done = subprocess.run([sys.executable, "-c", program], cwd=TREE, capture_output=True, text=True, check=False)
        assert (done.returncode, "CRASH: ZeroDivisionError" in done.stdout) == (1, True)
        assert len(list((tmp_path / "tar").iterdir())) == 1

    def test_an_unknown_target_is_wrong_usage(self) -> None:
        done = subprocess.run([sys.executable, "-m", "tests.fuzz", "tra"], cwd=TREE, capture_output=True, check=False)
        assert (done.returncode, b"no target tra" in done.stderr) == (2, True)


def test_repair_makes_checksums_and_lengths_right() -> None:
    archive = corpus.seeds("tar")["gnu-oldgnu-sparse"]
    broken = bytearray(archive)
    broken[0] ^= 1
    assert TARGETS["tar"].check(bytes(broken)).startswith("Refused")
    assert "file" in TARGETS["tar"].check(repair.tar(bytes(broken)))
    assert repair.tar(archive) == archive
    assert repair.pax(b"99 path=a\nmtime=1") == b"9 path=a\n11 mtime=1\n"
