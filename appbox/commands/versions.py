"""The commands for versions: lock, outdated."""

from __future__ import annotations

from typing import Annotated

import typer

from appbox.commands.root import Files, Wait, app, options_of, seconds
from appbox.errors import UsageError


@app.command(epilog="Examples: appbox lock services/; appbox lock --update valkey services/valkey.toml")
def lock(
    context: typer.Context,
    files: Files,
    update: Annotated[
        list[str] | None, typer.Option("--update", metavar="NAME", help="Look this service up anew; may be repeated.")
    ] = None,
    update_all: Annotated[bool, typer.Option("--update-all", help="Look every service up anew.")] = False,
    wait: Wait = "",
) -> None:
    """Write down which image each version means.

    That is in appbox.lock beside the manifests.

    A constraint (~9.0, ">=9,<10", *) is resolved to the newest tag that answers it, and every tag to its digest. What
    is locked and still answers its manifest stays as it is, also when its tag has moved, unless it is to be updated.
    """
    from appbox import locking  # noqa: PLC0415

    if update and update_all:
        raise UsageError("--update and --update-all exclude each other", hint="give one of them")
    locking.lock(options_of(context), files, update=update or (), every=update_all, wait=seconds(wait))


@app.command(epilog="Example: appbox outdated --exit-code services/ || appbox lock --update-all services/")
def outdated(
    context: typer.Context,
    files: Files,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="End with 4 when something is newer.")] = False,
) -> None:
    """Show what newer versions registries offer.

    CURRENT is what the lock or the manifest names. NEWEST answers the manifest, and appbox lock --update takes it;
    BEYOND does not. A tag that means another image than the locked one by now is shown, too. With -v also what is up to
    date.
    """
    from appbox import outdated as looking  # noqa: PLC0415

    newer, failed = looking.outdated(options_of(context), files)
    if failed:
        raise typer.Exit(failed)
    if exit_code and newer:
        raise typer.Exit(4)
