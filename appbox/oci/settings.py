"""What the image sources take from the process and its host, as one value: environment, files, patience.

Not here: which registries may be spoken to how (`registries`), and who may log in (`credentials`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from appbox import owner
from appbox.errors import sentence

Helper: TypeAlias = Callable[[Sequence[str], bytes], str]
"""Runs a credential helper: argument vector and standard input in, standard output back; raises `AppboxError`."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How patient the client is. Seconds, unless it says otherwise."""

    connect: float = 10.0
    read: float = 30.0  # without a single byte
    drip: float = 60.0  # of waiting after which at least `drip_rate` must have been kept up
    drip_rate: int = 1024  # bytes a second; a 9600 baud line has about that
    tries: int = 5  # of one request, and of a download since it last made progress
    first_delay: float = 0.5  # doubled for each further try
    longest_delay: float = 60.0  # also the most that a Retry-After is obeyed for
    sleep: Callable[[float], object] | None = None  # instead of a wait that an abort ends


def look_up(host: str, port: int) -> list[str]:
    """Return the addresses of `host`, in the system's order of preference; raise `OSError` when there is none."""
    import socket  # noqa: PLC0415  (5 ms that a layout or a cached image need not pay)

    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a part of it is empty or longer than 63 characters
        raise socket.gaierror(socket.EAI_NONAME, "this is no name of a host") from error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def tell(text: str) -> None:
    """Say what went on well all the same, for people, beside a command's output."""
    sys.stderr.write(f"appbox: note: {sentence(text)}\n")


def _environ() -> dict[str, str]:
    return dict(os.environ)


def _uid() -> int:
    """Return who asks: within a user's own namespace that is the user, whom the process there takes for root."""
    own = owner.current()
    return os.geteuid() if own is None else own.uid


@dataclass(frozen=True, slots=True)
class Settings:
    """`etc` holds containers/registries.conf, containers/certs.d and docker/certs.d."""

    environ: Mapping[str, str] = field(default_factory=_environ, hash=False)
    uid: int = field(default_factory=_uid)
    etc: str = "/etc"
    helper: Helper | None = None  # instead of running the program
    timing: Timing = field(default_factory=Timing)
    look_up: Callable[[str, int], Sequence[str]] = look_up
    tell: Callable[[str], None] = tell

    def home(self) -> str:
        """Return the home directory, "/root" when the environment names none (cron, init scripts)."""
        own = owner.current()
        return self.environ.get("HOME") or ("/root" if own is None else own.home)

    def certificates(self, names: Iterable[str]) -> list[str]:
        """Return the directories that may have certificates for a host, as podman and docker look for them."""
        bases = (f"{self.config_home()}/containers", f"{self.etc}/containers", f"{self.etc}/docker")
        return [f"{base}/certs.d/{name}" for base in bases for name in names]

    def config_home(self) -> str:
        """Return $XDG_CONFIG_HOME or what stands for it."""
        return self.environ.get("XDG_CONFIG_HOME") or f"{self.home()}/.config"
