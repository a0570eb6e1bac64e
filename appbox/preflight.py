"""What an image says of itself, held against its manifest: what will fail, and what to write instead. Pure.

It knows the image's configuration and nothing of its files, so that it can speak before anything is downloaded.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

from appbox import toml_text
from appbox.fields import is_below
from appbox.locked import Locked
from appbox.oci.capabilities import DEFAULT_CAPABILITIES
from appbox.oci.image_config import ImageConfig, healthcheck

_SECOND: Final = 10**9
_DAY: Final = 86_400
_SHELL: Final = "/bin/sh"

_STEPPING_DOWN: Final = frozenset({"CAP_CHOWN", "CAP_SETGID", "CAP_SETUID"})
"""What an entrypoint needs that starts as root, gives the data to its user and goes on as that user."""

_ENTERING: Final = frozenset({"CAP_DAC_OVERRIDE", "CAP_FOWNER"})
"""What only some of them need, too: to look into directories that are closed, and to change their modes."""

_OWN_INITS: Final = frozenset({"tini", "tini-static", "dumb-init", "catatonit", "docker-init", "s6-svscan"})
_SYSTEMS: Final = frozenset({"/sbin/init", "/lib/systemd/systemd", "/usr/lib/systemd/systemd", "/usr/sbin/init"})

_NEEDED: Final[Mapping[str, tuple[str, tuple[str, ...], str]]] = {
    "PG_MAJOR": (
        "postgres",
        ("POSTGRES_PASSWORD", "POSTGRES_PASSWORD_FILE", "POSTGRES_HOST_AUTH_METHOD"),
        'a secret, and env = { POSTGRES_PASSWORD_FILE = "/run/secrets/password" }',
    ),
    "MARIADB_VERSION": (
        "mariadb",
        (
            "MARIADB_ROOT_PASSWORD",
            "MARIADB_ROOT_PASSWORD_FILE",
            "MARIADB_ROOT_PASSWORD_HASH",
            "MARIADB_ALLOW_EMPTY_ROOT_PASSWORD",
            "MARIADB_RANDOM_ROOT_PASSWORD",
            "MYSQL_ROOT_PASSWORD",
            "MYSQL_ROOT_PASSWORD_FILE",
            "MYSQL_ALLOW_EMPTY_PASSWORD",
            "MYSQL_RANDOM_ROOT_PASSWORD",
        ),
        'env = { MARIADB_RANDOM_ROOT_PASSWORD = "1" }',
    ),
    "MYSQL_MAJOR": (
        "mysql",
        (
            "MYSQL_ROOT_PASSWORD",
            "MYSQL_ROOT_PASSWORD_FILE",
            "MYSQL_ALLOW_EMPTY_PASSWORD",
            "MYSQL_RANDOM_ROOT_PASSWORD",
        ),
        'env = { MYSQL_RANDOM_ROOT_PASSWORD = "1" }',
    ),
}
"""Official images whose first start ends unless one of these variables is set: by a variable that only they have."""


def notes(locked: Locked) -> Iterator[str]:
    """Yield a sentence for each thing that will fail or surprise, with what to write instead."""
    for rule in _RULES:
        yield from rule(locked)


def command(config: ImageConfig, locked: Locked) -> tuple[str, ...]:
    """Return the words that the service starts with, as far as image and manifest say; empty when neither does."""
    process = locked.manifest.process
    if process.entrypoint is not None:
        return (*process.entrypoint, *(process.args or ()))
    return (*config.entrypoint, *(config.cmd if process.args is None else process.args))


def health(data: bytes) -> dict[str, Any]:
    """Return the [health] table that does what the HEALTHCHECK of an image does; empty when it has none.

    `data` is the image's configuration. Times are nanoseconds there, and 0 means Docker's default.
    """
    found = healthcheck(data)
    test = found.get("Test")
    words = [word for word in test if isinstance(word, str)] if isinstance(test, list) else []
    if not words or words != test or words[0] not in {"CMD", "CMD-SHELL"} or len(words) < 2:
        return {}
    exec_ = words[1:] if words[0] == "CMD" else [_SHELL, "-c", words[1]]
    if not exec_[0] or any("\0" in word for word in exec_):
        return {}
    table: dict[str, Any] = {"exec": exec_}
    for key, name in (("interval", "Interval"), ("timeout", "Timeout"), ("start_period", "StartPeriod")):
        value = found.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            table[key] = min(_DAY, max(1, value // _SECOND))
    retries = found.get("Retries")
    if isinstance(retries, int) and not isinstance(retries, bool) and 0 < retries <= 1000:
        table["retries"] = retries
    # What would take longer than a day to be seen is refused in a manifest.
    slow = table.get("retries", 3) * table.get("interval", 30) + table.get("timeout", 5)
    if table.get("start_period", 0) + slow > _DAY:
        table.pop("start_period", None)
    return table if slow <= _DAY else {"exec": exec_}


def _network(locked: Locked) -> Iterator[str]:
    network, exposed = locked.manifest.network, locked.image.config.exposed_ports
    listed = ", ".join(exposed)
    if network.mode in {"none"} and exposed and "network" in locked.manifest.model_fields_set:
        yield f'the image listens on {listed}, and mode = "none" lets nobody reach it'
    if network.mode.partition(":")[0] in {"bridge", "pasta"} and exposed and not network.ports:
        first = exposed[0].partition("/")
        number = int(first[0]) if first[0].isascii() and first[0].isdigit() and len(first[0]) < 6 else 0
        example = f'"127.0.0.1:{max(number, 1024) if number >= 1024 else number + 8000}:{number}/{first[2] or "tcp"}"'
        yield f"the image listens on {listed}, and no port is published; write ports = [{example}] if the host needs it"
    declared = {_port(one) for one in exposed}
    for port in network.ports:
        if declared and (port.container_port, port.protocol) not in declared:
            yield f"the image does not declare port {port.container_port}/{port.protocol}; it declares {listed}"


def _port(text: str) -> tuple[int, str]:
    number, _, protocol = text.partition("/")
    return (int(number) if number.isascii() and number.isdigit() and len(number) < 6 else 0), protocol or "tcp"


def _health(locked: Locked) -> Iterator[str]:
    if locked.manifest.health is not None:
        return
    if keys := _health_keys(locked.image.config_bytes):
        yield f"the image has a HEALTHCHECK, and only what a manifest says is run; write [health] {keys}"


@lru_cache(maxsize=64)
def _health_keys(data: bytes) -> str:
    """Return what `health` returns, as TOML. Many services may have one image."""
    return ", ".join(f"{key} = {toml_text.value(value)}" for key, value in health(data).items())


def _capabilities(locked: Locked) -> Iterator[str]:
    process, changes = locked.manifest.process, locked.manifest.security.capabilities
    user = locked.image.config.user if process.user == "image" else process.user
    if user.partition(":")[0] not in {"", "root", "0"} or not locked.image.config.volumes or not changes.drop:
        return
    if process.entrypoint is not None:
        return
    dropped = DEFAULT_CAPABILITIES if "ALL" in changes.drop else frozenset(changes.drop)
    added = frozenset(changes.add)
    lost = (dropped & _STEPPING_DOWN) - added
    if lost:
        wanted = lost | (dropped & _ENTERING) - added
        names = ", ".join(toml_text.value(name.removeprefix("CAP_")) for name in sorted(wanted))
        yield (
            "the image starts as root, gives its data to its own user and goes on as that user; without "
            f"{', '.join(sorted(lost))} it cannot: write add = [{names}], or set process.user to that user"
        )


def _init(locked: Locked) -> Iterator[str]:
    words = command(locked.image.config, locked)
    if not words:
        return
    if locked.manifest.process.init and posixpath.basename(words[0]) in _OWN_INITS:
        yield f"the image brings an init of its own, {words[0]}; take process.init out"
    if words[0] in _SYSTEMS:
        yield f"the image starts {words[0]}, an init system that wants a whole machine; set process.entrypoint"


def _variables(locked: Locked) -> Iterator[str]:
    given = {entry.partition("=")[0] for entry in locked.image.config.env}
    if locked.manifest.process.entrypoint is not None:
        return
    for mark, (what, wanted, instead) in _NEEDED.items():
        if mark in given and not (given | set(locked.manifest.process.env)) & set(wanted):
            yield f"{what} ends at its first start unless {wanted[0]} or its like is set; write {instead}"


def _working_directory(locked: Locked) -> Iterator[str]:
    wanted = locked.manifest.process.workdir
    for name, volume in locked.manifest.volumes.items():
        if wanted is None and volume.tmpfs and is_below(locked.image.config.working_dir or "/", volume.path):
            yield f"the image works in {locked.image.config.working_dir}, which volume {name} empties at each start"


def unmapped_volumes(locked: Locked) -> Iterator[str]:
    """Yield a sentence for each VOLUME of the image that the manifest does not cover; a plan has actions for it."""
    covered = [volume.path for volume in locked.manifest.volumes.values()]
    for path in locked.image.config.volumes:
        place = "/" + path.strip("/")
        if not any(is_below(place, other) for other in covered):
            name = toml_text.key(posixpath.basename(place).lower() or "data")
            shown = toml_text.value(place)
            yield f"VOLUME {shown} gets a directory of the bundle; write [volumes.{name}] path = {shown} to name it"


_RULES: Final[tuple[Callable[[Locked], Iterator[str]], ...]] = (
    _network,
    _variables,
    _capabilities,
    _init,
    _working_directory,
    _health,
)
