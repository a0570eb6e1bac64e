"""What all commands share: the application with its global options, the arguments that many take."""

from __future__ import annotations

import re
import sys
from typing import Annotated, Final, cast

import typer

from appbox.errors import UsageError
from appbox.session import Options, as_json, choose_owner, leave_root

app: Final = typer.Typer(
    name="appbox",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Turn container images into plain host services: a manifest in, an OCI bundle and a unit out.",
    epilog="Global options may stand before or after the command. Exit codes: 0 done, 1 failed, 2 usage, 3 manifest "
    "refused, 4 changes pending, 5 image unavailable, 6 refused as unsafe, 7 locked, 8 the host lacks something.",
)

Misuse: Final = cast("type[typer.BadParameter]", typer.BadParameter.__bases__[0])
"""What typer raises for every wrong command line."""

Files = Annotated[list[str], typer.Argument(help="Manifests, or directories of manifests.", metavar="FILE...")]


def _installed() -> list[str]:
    """Return the names of installed services, for the shell's completion."""
    from appbox.store import state  # noqa: PLC0415
    from appbox.store.root import Root  # noqa: PLC0415

    with Root() as root:
        return state.names(root)


Name = Annotated[str, typer.Argument(help="The service.", metavar="NAME", autocompletion=_installed)]
Names = Annotated[list[str], typer.Argument(help="Services.", metavar="NAME...", autocompletion=_installed)]
AnyName = Annotated[str | None, typer.Argument(help="One service.", metavar="[NAME]", autocompletion=_installed)]
Wait = Annotated[
    str, typer.Option("--wait", metavar="[SECONDS]", help="Wait for another appbox to finish, or that long for it.")
]
"""How long to wait for the lock, as `seconds` reads it."""
FOREVER: Final = "forever"
"""What a bare --wait becomes, before the command line is read: an option's value cannot be left out otherwise."""


def seconds(wait: str) -> float | None:
    """Return how long to wait for another appbox: not at all without --wait, None for without end."""
    if wait == FOREVER:
        return None
    number = wait.strip() or "0"
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", number):
        raise UsageError(f"{wait!r} is no number of seconds", where="--wait", hint="write --wait or --wait=SECONDS")
    return float(number)


_INITS: Final = ("auto", "systemd", "openrc", "none")


def options_of(context: typer.Context) -> Options:
    found = context.find_root().obj
    return found if isinstance(found, Options) else Options()


@app.callback()
def _global(  # noqa: PLR0917
    context: typer.Context,
    root: Annotated[str, typer.Option(metavar="DIR", help="Work on the system in DIR and start nothing.")] = "/",
    init: Annotated[str, typer.Option(metavar="|".join(_INITS), help="The init system to make units for.")] = "auto",
    user: Annotated[
        str, typer.Option("--user", metavar="[NAME]", help="Services of an ordinary user; root has to say of whom.")
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print only results and errors.")] = False,
    verbose: Annotated[int, typer.Option("-v", "--verbose", count=True, help="Print more.")] = 0,
    color: Annotated[str, typer.Option(metavar="auto|always|never", help="When to use colours.")] = "auto",
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from appbox import __version__  # noqa: PLC0415

        sys.stdout.write(as_json({"version": __version__}) if json else f"appbox {__version__}\n")
        raise typer.Exit
    if init not in _INITS:
        raise UsageError(f"{init!r} is no init system", where="--init", hint=f"choose one of {', '.join(_INITS)}")
    if color not in {"auto", "always", "never"}:
        raise UsageError(f"{color!r} is not known", where="--color", hint="choose auto, always or never")
    if context.invoked_subcommand != "doctor":  # which says what is wrong with a user for whom nothing can be kept
        choose_owner(user, root)
        leave_root()
    context.obj = Options(root, init, json, -1 if quiet else verbose, color, user)
