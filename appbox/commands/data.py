"""The commands for the data of services: snapshot, restore."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from appbox.commands.root import AnyName, Name, Wait, app, options_of, seconds
from appbox.errors import UsageError


@app.command(
    epilog="Examples: appbox snapshot --note 'before the import' valkey; appbox snapshot --list; "
    "appbox snapshot --purge 20260131T143000Z valkey"
)
def snapshot(  # noqa: PLR0917
    context: typer.Context,
    name: AnyName = None,
    stop: Annotated[
        bool, typer.Option("--stop", help="Stop the service for it, so that it writes everything.")
    ] = False,
    live: Annotated[bool, typer.Option("--live", help="Let the service run on meanwhile.")] = False,
    note: Annotated[str, typer.Option("--note", metavar="TEXT", help="What it is for; shown in the list.")] = "",
    list_: Annotated[bool, typer.Option("--list", help="List the snapshots of NAME, or of all services.")] = False,
    purge: Annotated[str, typer.Option("--purge", metavar="ID", help="Delete a snapshot for good.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
    wait: Wait = "",
    scheduled: Annotated[bool, typer.Option("--scheduled", hidden=True)] = False,
) -> None:
    """Keep the present data of a service, to be restored later.

    Where the file system can share blocks (xfs, btrfs), the service is paused for the moment that it takes, and the
    snapshot is what a power cut would have left. Elsewhere its data is copied, and the service is stopped for that time
    unless --live is given. Volumes that are paths of the host, or in memory, are not in it.
    """
    from appbox import keeping  # noqa: PLC0415

    options = options_of(context)
    if list_:
        keeping.listing(options, name)
        return
    if name is None:
        raise UsageError("no service is named", where="NAME", hint="appbox snapshot --list shows those of all services")
    if purge:
        if not yes and sys.stdin.isatty() and sys.stdout.isatty():
            typer.confirm(f"Delete snapshot {purge} of {name}?", abort=True)
        keeping.purge(options, name, purge, wait=seconds(wait))
        return
    keeping.snapshot(options, name, keeping.Wish(stop, live, note, scheduled), wait=seconds(wait))


@app.command(epilog="Example: appbox restore valkey 20260131T143000Z; appbox snapshot --list valkey shows the ids")
def restore(
    context: typer.Context,
    name: Name,
    wanted: Annotated[str, typer.Argument(metavar="ID", help="The snapshot.")],
    force: Annotated[bool, typer.Option("--force", help="Also when the data has another format.")] = False,
    wait: Wait = "",
) -> None:
    """Give a service the data of a snapshot.

    The service is down for a moment, and started again if it ran. Its present data becomes a snapshot, so that this can
    be undone in the same way.
    """
    from appbox import keeping  # noqa: PLC0415

    keeping.restore(options_of(context), name, wanted, force=force, wait=seconds(wait))
