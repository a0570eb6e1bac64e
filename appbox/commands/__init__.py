"""The commands: arguments and help texts. Each is a few lines; the work is done elsewhere and imported when needed."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import typer
from typer.main import get_command_name
from typer.models import CommandInfo

from appbox.commands import data, doctor, images, installed, manifests, past, running, transfer, versions
from appbox.commands.root import Misuse, app

__all__ = [
    "Misuse",
    "app",
    "command",
    "data",
    "doctor",
    "images",
    "installed",
    "manifests",
    "past",
    "running",
    "transfer",
    "versions",
]


@functools.cache
def command(name: str = "") -> Callable[..., Any]:
    """Return what reads a command line and does what it says: made once, however many lines a process is given.

    Making it takes 17 ms, most of what a small command takes; one that has only the command `name` takes a tenth of
    that. Where nothing has that name it has all of them, for help and suggestions.
    """
    commands = [one for one in app.registered_commands if one.callback and _name(one) == name]
    groups = [one for one in app.registered_groups if one.name == name]
    if not commands and not groups:
        return typer.main.get_command(app)
    one = copy.copy(app)
    one.registered_commands, one.registered_groups = commands, groups
    return typer.main.get_command(one)


def _name(command: CommandInfo) -> str:
    return command.name or get_command_name(getattr(command.callback, "__name__", ""))
