"""The worlds that services live in: which init, whose they are, and what runs them. The behaviour is one."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Final

from tests.ground import roots

RUNTIMES: Final = ("runc", "crun")


@dataclass(frozen=True, slots=True)
class World:
    """`init` is one of `roots.INITS` or "busybox"; `ordinary`: an ordinary user's; `runtime`: the only one there is."""

    init: str
    ordinary: bool = False
    runtime: str = "runc"

    @property
    def name(self) -> str:
        """What tests call it: root and runc go without saying."""
        named = (("user", self.ordinary), (self.runtime, self.runtime != "runc"))
        return "-".join([self.init, *(word for word, said in named if said)])

    @property
    def suite(self) -> str:
        """The least Debian in which this can be shown on CI machines, "" for any.

        Root's crun raises its limit of locked memory, which root lacks the right to there; since 1.14.1 it goes on.
        """
        return "trixie" if self.runtime == "crun" and not self.ordinary else ""

    @property
    def places(self) -> Places:
        """Where the owner's services and their files are."""
        return OF_USER if self.ordinary else OF_HOST


@dataclass(frozen=True, slots=True)
class Places:
    """Directories as the README names them. `home` is the login's, `states` has those of each runtime."""

    home: str
    containers: str
    state: str
    cache: str
    runs: str
    states: str
    logs: str
    config: str

    @property
    def services(self) -> str:
        """The manifests of the tests."""
        return f"{self.home}/services"


OF_HOST: Final = Places(
    home="/root",
    containers="/opt/containers",
    state="/var/lib/appbox",
    cache="/var/cache/appbox",
    runs="/run/appbox",
    states="/run",
    logs="/var/log/appbox",
    config="/etc/appbox",
)
_HOME: Final = f"/home/{roots.USER}"
RUNTIME_DIRECTORY: Final = f"/run/user/{roots.USER_ID}"
OF_USER: Final = Places(
    home=_HOME,
    containers=f"{_HOME}/.local/share/appbox/containers",
    state=f"{_HOME}/.local/share/appbox/state",
    cache=f"{_HOME}/.cache/appbox",
    runs=f"{RUNTIME_DIRECTORY}/appbox",
    states=RUNTIME_DIRECTORY,
    logs=f"{_HOME}/.local/share/appbox/log",
    config=f"{_HOME}/.config/appbox",
)

WORLDS: Final = {
    world.name: world
    for world in (
        *(World(init, ordinary, runtime) for runtime, ordinary, init in product(RUNTIMES, (False, True), roots.INITS)),
        World("busybox"),
    )
}
