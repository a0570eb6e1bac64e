"""The secrets of a service: what the run script has to know to read them at each start. Pure; no secret is ever here.

Each secret has a number; the script puts it at `.live/secrets/NUMBER`, in memory, and the container sees it from there.
A generation says how it is found, in `secrets/`: `list` has a line `NUMBER KIND UID:GID MODE NAME` for each, in ids of
the host; `NUMBER.file` has the path of the host's file, `NUMBER.command` the arguments of the host's command, a NUL
after each, and `NUMBER.age` what age is to decrypt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from appbox.fields import quoted
from appbox.locked import Locked
from appbox.store import paths
from appbox.tables import Secret

FOLDER: Final = "secrets"
LIMIT: Final = 1 << 20
"""Bytes of one secret."""

Kind = Literal["file", "command", "age"]


@dataclass(frozen=True, slots=True)
class SecretSpec:
    """A secret: its number, how it is found, where the service finds it, and its permissions there."""

    number: int
    name: str
    kind: Kind
    target: str
    mode: int

    @property
    def source(self) -> str:
        """Where it lies once it has been read, relative to the version's directory."""
        return f"{paths.LIVE}/{FOLDER}/{self.number}"


def build(locked: Locked) -> tuple[SecretSpec, ...]:
    """Return the secrets of a service, sorted by name."""
    tables = sorted(locked.manifest.secrets.items())
    return tuple(
        SecretSpec(number, name, kind_of(table), target(name, table), table.mode)
        for number, (name, table) in enumerate(tables, 1)
    )


def kind_of(secret: Secret) -> Kind:
    """Return how a secret is found."""
    return "file" if secret.file is not None else "command" if secret.command is not None else "age"


def target(name: str, secret: Secret) -> str:
    """Return where the service finds a secret."""
    return secret.path or f"/run/secrets/{name}"


def files(locked: Locked, owners: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    """Yield the generation's files, path and bytes; `owners` maps names to what `list` says of the owner."""
    found = build(locked)
    for one in found:
        yield f"{FOLDER}/{one.number}.{one.kind}", _origin(locked, one)
    if found:
        lines = [f"{one.number} {one.kind} {owners[one.name]} {one.mode:04o} {one.name}\n" for one in found]
        yield f"{FOLDER}/list", "".join(lines).encode()


def _origin(locked: Locked, secret: SecretSpec) -> bytes:
    table = locked.manifest.secrets[secret.name]
    if table.file is not None:
        return f"{table.file}\n".encode()
    if table.command is not None:
        return b"".join(word.encode() + b"\0" for word in table.command)
    return locked.encrypted[secret.name]


def notes(locked: Locked) -> Iterator[str]:
    """Yield where each secret comes from; no value of it is known here."""
    for name, table in sorted(locked.manifest.secrets.items()):
        if table.file is not None:
            how = f"is read from {table.file}"
        elif table.command is not None:
            how = f"is what {quoted(table.command[0])} prints"
        else:
            how = f"is {table.age}, decrypted with {paths.AGE_KEY}"
        yield f"secret {name} {how} at each start; a running service gets a new one when it is restarted"
