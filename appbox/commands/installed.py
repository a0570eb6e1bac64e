"""The commands that look at installed services, or remove them: status, verify, writes, remove."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from appbox.commands.root import AnyName, Name, Wait, app, options_of, seconds
from appbox.session import require_root_user


@app.command(epilog="Example: appbox status --json valkey")
def status(
    context: typer.Context,
    name: AnyName = None,
    verify: Annotated[bool, typer.Option("--verify", help="Compare every file of the root file systems, too.")] = False,
) -> None:
    """Show the installed services.

    Version, state, health, since when, digest, what is not as it was applied, and what failed and is not tried again.
    """
    from appbox import status as states  # noqa: PLC0415

    options = options_of(context)
    with options.open_root() as root:
        if name is None:
            found = states.every(root, verify=verify)
            options.result([one.as_dict() for one in found], states.table(found))
        else:
            one = states.of(root, name, usage=True, verify=verify)
            options.result(one.as_dict(), states.details(one))


@app.command(epilog="Example: appbox remove valkey; its data stays until appbox remove --purge valkey")
def remove(
    context: typer.Context,
    name: Name,
    purge: Annotated[bool, typer.Option("--purge", help="Delete its data and its snapshots, too.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
    wait: Wait = "",
) -> None:
    """Stop a service and remove its unit and versions. Its data stays unless purged."""
    from appbox import reconcile  # noqa: PLC0415

    ask = typer.confirm if not yes and sys.stdin.isatty() and sys.stdout.isatty() else None
    reconcile.remove(options_of(context), name, purge=purge, wait=seconds(wait), ask=ask)


@app.command(epilog="Example: appbox verify valkey && echo as it was unpacked")
def verify(context: typer.Context, name: AnyName = None) -> None:
    """Find every file that changed since it was unpacked.

    The exit code is 1 when there is one. Content, type, mode, owner, time, links, devices and extended attributes are
    compared with rootfs.mtree, which was written while the image was unpacked.
    """
    from appbox import verify as verifying  # noqa: PLC0415

    options = options_of(context)
    with options.open_root() as root:
        verdicts = list(verifying.every(root)) if name is None else [verifying.of(root, name)]
    sound = all(one.sound for one in verdicts)
    data = {"ok": sound, "services": [one.as_dict() for one in verdicts]}
    options.result(data, verifying.text(verdicts, quiet=options.verbosity < 0))
    if not sound:
        raise typer.Exit(1)


@app.command(epilog="Example: appbox writes --suggest nginx >>services/nginx.toml")
def writes(
    context: typer.Context,
    name: Name,
    suggest: Annotated[
        bool, typer.Option("--suggest", help="Print what to add to the manifest for a read-only root file system.")
    ] = False,
) -> None:
    """Show what a service wrote outside its volumes.

    These are added, changed and deleted files, with their sizes. What is written to an overlay is gone
    when the service stops, so that it has to be running.
    """
    from appbox import writes as writing  # noqa: PLC0415

    require_root_user("appbox writes")
    options = options_of(context)
    with options.open_root() as root:
        report = writing.of(root, name)
    lines = report.suggestion.text(name, has_security=report.has_security) if suggest else writing.text(report)
    options.result(report.as_dict(suggest=suggest), lines)
