"""Another host than this one: mounts in a namespace of its own hide and replace what this one has."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.ground.sandbox import Result, run

UID = 60_001
PASSWD = f"root:x:0:0:root:/root:/bin/sh\ndora:x:{UID}:{UID}::/mnt/dora:/bin/sh\nmax:x:60002:60002::/mnt/max:/bin/sh\n"
HOME = f"install -d -m 0700 -o {UID} -g {UID} /mnt/dora"
RANGE = "dora:500000:65536\n"
AS_USER = (
    "import encodings.utf_8_sig, importlib, os, pkgutil, sys, appbox\n"  # later that user could not read them
    "from appbox import cli\n"
    "from appbox.host import syscalls\n"
    "for module in pkgutil.walk_packages(appbox.__path__, 'appbox.'):\n"
    "    module.name.endswith('__main__') or importlib.import_module(module.name)\n"
    "os.setgroups([])\n"
    f"os.setresgid({UID}, {UID}, {UID})\n"
    f"os.setresuid({UID}, {UID}, {UID})\n"
    "syscalls.be_traceable()\n"  # as a process of that user's is from its start
    "os.environ.pop('HOME', None)\n"
    "sys.exit(cli.run(sys.argv[1:]))\n"
)


class World:
    """A host in which files are replaced by others, as long as the doctor looks."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.setup = ["mount --make-rprivate /", "mount -t tmpfs -o mode=0755 tmpfs /run", "mkdir /run/user"]
        self.file("/etc/passwd", PASSWD)
        self.file("/etc/subuid", RANGE)
        self.file("/etc/subgid", RANGE)
        self.file("/etc/os-release", "ID=debian\n")

    def file(self, path: str, text: str, mode: int = 0o644) -> Path:
        """Have `path`, which must be there, say `text`."""
        source = self.place / path.strip("/").replace("/", "-")
        if not source.exists():
            self.setup.append(f"mount --bind {source} {path}")
        source.write_text(text)
        source.chmod(mode)
        return source

    def hide(self, *programs: str) -> None:
        """Make programs be none, wherever they are."""
        for name in programs:
            found = (f"/usr/{folder}/{name}" for folder in ("sbin", "bin", "local/sbin", "local/bin"))
            self.setup += [f"mount --bind /dev/null {path}" for path in found if os.path.exists(path)]

    def home(self, options: str = "") -> None:
        """Give dora a home on a tmpfs of its own."""
        self.setup += [f"mount -t tmpfs -o mode=0755{options} tmpfs /mnt", HOME]

    def run(self, *words: str, code: int = 0, **environ: str) -> Result:
        """Run appbox there as root."""
        return self.start([sys.executable, "-m", "appbox", *words], code, environ)

    def run_as_user(self, *words: str, code: int = 0, **environ: str) -> Result:
        """Run appbox there as dora."""
        return self.start([sys.executable, "-c", AS_USER, *words], code, environ)

    def start(self, words: list[str], code: int = 0, environ: Mapping[str, str] | None = None) -> Result:
        """Run a program there."""
        script = "\n".join(("set -e", *self.setup, 'exec "$@"'))
        result = run(
            ["unshare", "--mount", "sh", "-c", script, "sh", *words], code=code, env={**os.environ, **(environ or {})}
        )
        assert "Traceback" not in result.err, result
        assert "internal error" not in result.err, result
        return result

    def findings(self, *words: str, code: int = 0, **environ: str) -> dict[str, list[dict[str, Any]]]:
        """Return what is not well by subject."""
        found: dict[str, list[dict[str, Any]]] = {}
        for one in self.run("--json", "doctor", *words, code=code, **environ).data()["findings"]:
            if one["state"] != "ok":
                found.setdefault(one["subject"], []).append(one)
        return found
