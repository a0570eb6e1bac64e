"""Runs inside a virtual machine: takes questions from a port, one JSON object a line, and answers each the same way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """Run a command or write a file."""
    if "write" in question:
        path = Path(question["write"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(question["text"], encoding="utf-8", newline="")
        path.chmod(question["mode"])
        return {}
    try:
        done = subprocess.run(
            question["words"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            env=question["env"],
            timeout=question["timeout"],
            cwd="/",
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"code": 127, "out": "", "err": str(error)}
    return {
        "code": done.returncode,
        "out": done.stdout.decode("utf-8", "replace"),
        "err": done.stderr.decode("utf-8", "replace"),
    }


def main() -> None:
    """Answer until the machine ends."""
    port = os.open(sys.argv[1], os.O_RDWR)
    with open(port, "rb", closefd=False, buffering=0) as questions:
        waiting = b""
        while True:
            block = questions.read(1 << 16)
            waiting += block or b""
            while b"\n" in waiting:
                line, waiting = waiting.split(b"\n", 1)
                text = json.dumps(answer(json.loads(line))).encode() + b"\n"
                while text:
                    text = text[os.write(port, text) :]


main()
