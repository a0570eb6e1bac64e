"""process.init: a small program as process 1, which reaps orphans and hands signals on. Pure.

It is the host's own, mounted read-only, and static: an image's libraries are not the host's.
"""

from __future__ import annotations

from typing import Final

from appbox.oci.runtime_spec import Mount

PATH: Final = "/dev/init"
"""Where the container has it: below a file system that no image can put anything into."""

PROGRAMS: Final = ("tini-static", "catatonit", "docker-init", "tini")
"""All of them take `--` and then the program with its arguments."""

FOLDERS: Final = ("/usr/libexec/podman", "/usr/lib/podman", "/usr/libexec/catatonit", "/usr/libexec/docker")
"""Where distributions put them beside the usual directories of programs."""


def args(command: tuple[str, ...]) -> tuple[str, ...]:
    """Return the argument vector that starts `command` below the init."""
    return (PATH, "--", *command)


def mount(program: str) -> Mount:
    """Return the mount of the host's program."""
    return Mount(PATH, program, "", ("bind", "ro", "nosuid", "nodev"))
