"""The commands for running services: start, stop, restart, reload, logs, exec, shell, run."""

from __future__ import annotations

from typing import Annotated

import typer

from appbox.commands.root import Name, app, options_of
from appbox.session import require_root_user


@app.command(epilog="Example: appbox start valkey")
def start(context: typer.Context, name: Name) -> None:
    """Start a service through the init system."""
    _control(context, name, "start")


@app.command(epilog="Example: appbox stop valkey")
def stop(context: typer.Context, name: Name) -> None:
    """Stop a service through the init system."""
    _control(context, name, "stop")


@app.command(epilog="Example: appbox restart valkey")
def restart(context: typer.Context, name: Name) -> None:
    """Stop and start a service through the init system."""
    _control(context, name, "restart")


@app.command(epilog="Example: appbox reload nginx")
def reload(context: typer.Context, name: Name) -> None:
    """Make a running service read its configuration again.

    Its manifest says how, in service.reload.
    """
    from appbox import control  # noqa: PLC0415

    options = options_of(context)
    require_root_user("appbox reload")
    said = control.reload(options, name)
    options.result({"name": name, "action": "reload"}, "" if options.verbosity < 0 else said)


def _control(context: typer.Context, name: str, verb: str) -> None:
    from appbox import control  # noqa: PLC0415

    options = options_of(context)
    require_root_user(f"appbox {verb}")
    said = control.control(options, name, verb)
    options.result({"name": name, "action": verb}, "" if options.verbosity < 0 else said)


@app.command(epilog="Example: appbox logs -f valkey")
def logs(  # noqa: PLR0917
    context: typer.Context,
    name: Name,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with new lines.")] = False,
    lines: Annotated[
        int | None,
        typer.Option("-n", "--lines", min=0, help="How many lines from the end; 100, or all with --since."),
    ] = None,
    since: Annotated[
        str,
        typer.Option("--since", metavar="TIME", help='Only what is younger: "10m", "today", "2026-01-31T14:30:00Z".'),
    ] = "",
    timestamps: Annotated[
        bool, typer.Option("-t", "--timestamps", help="Begin each line with its time, in UTC.")
    ] = False,
    hooks: Annotated[bool, typer.Option("--hooks", help="What the commands of its upgrades printed instead.")] = False,
) -> None:
    """Show what a service wrote. It comes from the journal, or from its log files under OpenRC.

    With --json each line is an object of time and line.
    """
    from datetime import datetime  # noqa: PLC0415

    from appbox import control  # noqa: PLC0415
    from appbox.logs import Wanted  # noqa: PLC0415
    from appbox.since import moment  # noqa: PLC0415

    start = moment(since, datetime.now().astimezone()) if since else None
    shown = 100 if lines is None and not since else lines
    control.logs(options_of(context), name, Wanted(shown, start, follow), stamps=timestamps, hooks=hooks)


@app.command(
    epilog="Example: appbox exec valkey valkey-cli ping",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
def exec(  # noqa: A001
    context: typer.Context,
    name: Name,
    command: Annotated[list[str], typer.Argument(metavar="CMD...", help="The program and its arguments.")],
) -> None:
    """Run a program in a running service."""
    from appbox import control  # noqa: PLC0415

    require_root_user("appbox exec")
    control.enter(options_of(context), name, command[1:] if command[:1] == ["--"] else command)


@app.command(epilog="Example: appbox shell valkey")
def shell(context: typer.Context, name: Name) -> None:
    """Open a shell in a running service."""
    from appbox import control  # noqa: PLC0415

    require_root_user("appbox shell")
    control.enter(options_of(context), name, ["/bin/sh"])


@app.command(epilog="Example: appbox run valkey; Ctrl-C is passed on to it, appbox stop valkey ends it")
def run(context: typer.Context, name: Name) -> None:
    """Run a service in the foreground, without an init system."""
    from appbox import control  # noqa: PLC0415

    require_root_user("appbox run")
    control.foreground(options_of(context), name)
