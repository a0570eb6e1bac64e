"""The commands for a service's past: history, rollback, prune."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from appbox.commands.root import Name, Wait, app, options_of, seconds


@app.command(epilog="Example: appbox history valkey")
def history(context: typer.Context, name: Name) -> None:
    """List the generations of a service.

    These are on the host, the newest first. A generation is a version with its configuration and its unit. DATA says
    whether the version has data of its own; that of versions which are not current is listed with its size and age.
    """
    from appbox import reverting  # noqa: PLC0415

    reverting.show(options_of(context), name)


@app.command(epilog="Example: appbox rollback valkey; appbox rollback valkey --to 8.1.3 --keep-data")
def rollback(  # noqa: PLR0917
    context: typer.Context,
    name: Name,
    to: Annotated[str, typer.Option("--to", metavar="VERSION|@GENERATION", help="Which, if not the one before.")] = "",
    keep_data: Annotated[
        bool, typer.Option("--keep-data", help="Take the present data along, not what that version had.")
    ] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Only show what would be done.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
    wait: Wait = "",
) -> None:
    """Go back to an earlier generation of a service.

    That is the one before the current one: its version, configuration and unit, and its data.
    If the service does not get well, the present generation is brought back.
    """
    from appbox import reverting  # noqa: PLC0415

    del yes  # what it leaves is kept
    reverting.back(options_of(context), name, to, keep_data=keep_data, only_plan=plan, wait=seconds(wait))


@app.command(epilog="Example: appbox prune --plan; appbox prune valkey")
def prune(  # noqa: PLR0917
    context: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME...]", help="Services; all by default.")] = None,
    purge: Annotated[bool, typer.Option("--purge", help="Delete data of the old versions, too.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Only show what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
    wait: Wait = "",
) -> None:
    """Remove old versions and unused blobs.

    These are versions beyond upgrade.keep, and blobs of the cache that no version needs. What is current, what a
    rollback goes to, and what the lock or a snapshot names stays. So does data, and it is said how much, and how old.
    """
    from appbox import housekeeping  # noqa: PLC0415

    ask = typer.confirm if not yes and sys.stdin.isatty() and sys.stdout.isatty() else None
    wait_for = seconds(wait)
    housekeeping.prune(options_of(context), names or [], purge=purge, only_plan=plan, wait=wait_for, ask=ask)
