"""What all commands share: the application with its global options, the arguments that many take."""

from __future__ import annotations

import sys
from typing import Annotated, Final, cast

import typer

from appbox.errors import HostLacks, UsageError
from appbox.session import Options, as_json

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
_INITS: Final = ("auto", "systemd", "openrc", "none")


def options_of(context: typer.Context) -> Options:
    found = context.find_root().obj
    return found if isinstance(found, Options) else Options()


@app.callback()
def _global(  # noqa: PLR0917
    context: typer.Context,
    root: Annotated[str, typer.Option(metavar="DIR", help="Work on the system in DIR and start nothing.")] = "/",
    init: Annotated[str, typer.Option(metavar="|".join(_INITS), help="The init system to make units for.")] = "auto",
    user: Annotated[bool, typer.Option("--user", help="Services of the ordinary user (not supported yet).")] = False,
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
    if user:
        raise HostLacks("services of ordinary users are not supported yet", where="--user")
    context.obj = Options(root, init, json, -1 if quiet else verbose, color)
