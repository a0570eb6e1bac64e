"""The command for hosts: doctor."""

from __future__ import annotations

import functools
import sys
from typing import Annotated

import typer

from appbox.commands.root import app, options_of
from appbox.errors import UsageError


@app.command(epilog="Examples: appbox doctor; appbox doctor services/; sudo appbox doctor --user alice --fix")
def doctor(
    context: typer.Context,
    files: Annotated[
        list[str] | None,
        typer.Argument(help="Manifests, or directories of them: only what they need.", metavar="FILE..."),
    ] = None,
    fix: Annotated[
        bool, typer.Option("--fix", help="Mend what is safe to mend; each step is shown and asked.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
    registry: Annotated[
        list[str] | None, typer.Option("--registry", metavar="HOST", help="Ask this registry, too; may be repeated.")
    ] = None,
) -> None:
    """Say what this host lacks, and the command that mends it.

    Root looks at root's services, or with --user NAME at what that user can do; an ordinary user looks at what is
    possible without root. Nothing is changed without --fix, and no registry is asked but those that the manifests, or
    else the installed services, name. Ends with 8 when something that is needed is missing.
    """
    from appbox.doctor import examining  # noqa: PLC0415

    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if fix and not yes and not terminal:
        raise UsageError("nobody can be asked without a terminal", where="--fix", hint="--yes asks nothing")
    if yes and not fix:
        raise UsageError("there is nothing to say yes to", where="--yes", hint="add --fix")
    options = options_of(context)
    ask = None if yes else functools.partial(typer.confirm, err=options.json)
    wish = examining.Wish(tuple(files or ()), options.user, tuple(registry or ()), fix, ask)
    if code := examining.examine(options, wish):
        raise typer.Exit(code)
