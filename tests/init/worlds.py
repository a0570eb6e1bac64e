"""The worlds that services live in: which init, whose they are, and what runs them. The behaviour is one."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Final

from tests.ground import roots

RUNTIMES: Final = ("runc", "crun")


@dataclass(frozen=True, slots=True)
class World:
    """`init` is one of `roots.INITS` or "busybox"; `ordinary`: an ordinary user's; `runtime`: the only one there is.

    `own`: an OpenRC that has services of users, whose own one runs them; systemd always has.
    """

    init: str
    ordinary: bool = False
    runtime: str = "runc"
    own: bool = False

    @property
    def name(self) -> str:
        """What tests call it: root and runc go without saying."""
        named = (("user", self.ordinary), ("own", self.own), (self.runtime, self.runtime != "runc"))
        return "-".join([self.init, *(word for word, said in named if said)])

    @property
    def suite(self) -> str:
        """The least Debian in which this can be shown on CI machines, "" for any.

        Root's crun raises its limit of locked memory, which root lacks the right to there; since 1.14.1 it goes on.
        """
        return "trixie" if self.runtime == "crun" and not self.ordinary else ""

    @property
    def bare(self) -> bool:
        """Whether its machines have no cgroup controllers (see `machine.Machine`); CI machines have next to none."""
        return self.init == "openrc" and self.runtime == "crun"

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
        World("openrc", ordinary=True, own=True),
        World("busybox"),
    )
}

_BRIDGES: Final = "bridges of the host (a user's have tests of their own)"
ROOTS_OWN: Final = {
    "test_services_on_bridges_find_each_other_and_are_reached": _BRIDGES,
    "test_ports_that_somebody_has_and_hosts_that_lack_something_are_refused": _BRIDGES,
    "test_drafts_run_as_they_come": _BRIDGES,
    "test_a_bare_user_is_prepared_step_by_step": "what root's `doctor --fix` mends",
    "test_a_manifest_says_what_root_lacks": "what root's `doctor --fix` mends",
    "test_text_arrives_byte_for_byte_and_is_never_executed": (
        "hostile text at the keys for the host's devices, kernel parameters and files of others"
    ),
}
"""Tests that ask for what only root has, and what that is: they are run for root's services alone."""
