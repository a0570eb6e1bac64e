"""One target under atheris, guided by coverage: `python -m tests.fuzz.guided TARGET DIRECTORY… [libFuzzer's options]`.

libFuzzer ends the process itself, so this is a program of its own; `tests.fuzz` starts it and reads what it left.
"""

from __future__ import annotations

import random
import sys

import atheris  # type: ignore[import-untyped, import-not-found, unused-ignore]

with atheris.instrument_imports(include=["appbox"]):
    from tests.fuzz.targets import TARGETS, Target


def main() -> None:
    """Fuzz until libFuzzer's options say stop, or an input crashes."""
    target = TARGETS[sys.argv[1]]

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        changed = bytes(atheris.Mutate(data, most))
        # The half of the inputs is mended, so that it gets past checksums and lengths.
        return target.repair(changed)[:most] if random.Random(seed).random() < 0.5 else changed  # noqa: S311

    atheris.Setup([sys.argv[0], *sys.argv[2:]], once(target), custom_mutator=mutate)
    atheris.Fuzz()


def once(target: Target) -> object:
    """Return what libFuzzer calls with each input."""

    def one(data: bytes) -> None:
        target.check(data)

    return one


if __name__ == "__main__":
    main()
