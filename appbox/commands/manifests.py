"""The commands that take manifests: check, plan, apply, render; init and schema, which help to write them."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated, cast

import typer

from appbox.commands.root import Files, Wait, app, options_of, seconds
from appbox.errors import UsageError, printable
from appbox.session import as_json

Locked = Annotated[
    bool, typer.Option("--locked", help="Take only what is in appbox.lock; ask no registry what a tag means.")
]
Verify = Annotated[
    bool, typer.Option("--verify", help="Compare every file of the root file systems; changed ones are unpacked anew.")
]
Prune = Annotated[
    bool, typer.Option("--prune", help="Remove the services whose manifests are gone from the directories; data stays.")
]
Retry = Annotated[bool, typer.Option("--retry", help="Try again what did not get well before.")]
NoStart = Annotated[bool, typer.Option("--no-start", help="Start and restart nothing.")]


@app.command(epilog="Example: appbox check services/; appbox check --image services/valkey.toml")
def check(
    context: typer.Context,
    files: Files,
    image: Annotated[bool, typer.Option("--image", help="Hold them against their images' configurations.")] = False,
) -> None:
    """Validate manifests and templates, without looking at the host.

    With --image the configuration of each image is looked up, too, though no layer: what will fail or surprise is said,
    with what to write instead.
    """
    from appbox import checking  # noqa: PLC0415

    options = options_of(context)
    found = checking.check(files)
    services: list[dict[str, object]] = [{"name": n, "version": v, "file": f} for n, v, f in found]
    if image:
        from appbox import image_check  # noqa: PLC0415

        services = [asdict(one) for one in image_check.check(options, files)]
    for one in services:
        options.say(f"{one['file']}: {one['name']} {one['version']}: ok\n")
        for note in cast("tuple[str, ...]", one.get("notes", ())):
            options.say(printable(f"  note: {note}\n"))
    options.result({"ok": True, "services": services}, "")


@app.command(epilog="Example: appbox plan -o today.plan services/ && appbox apply today.plan")
def plan(  # noqa: PLR0917
    context: typer.Context,
    files: Files,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="End with 4 when something would change.")] = False,
    locked: Locked = False,
    verify: Verify = False,
    prune: Prune = False,
    retry: Retry = False,
    no_start: NoStart = False,
    output: Annotated[str, typer.Option("-o", "--output", metavar="FILE", help="Write it down for apply FILE.")] = "",
) -> None:
    """Show what apply would do, and change nothing.

    What -o writes is carried out by apply as it is, or refused when anything has changed since. FILE may be such a
    plan: it is shown as it was written down.
    """
    from appbox import reconcile  # noqa: PLC0415
    from appbox.plan_file import Wish  # noqa: PLC0415

    options = options_of(context)
    wish = Wish(tuple(files), options.root, options.init, not no_start, prune, locked, verify, retry)
    pending, failed = reconcile.show(options, wish, output=output)
    if failed or (exit_code and pending):
        raise typer.Exit(failed or 4)


@app.command(epilog="Example: appbox apply services/valkey.toml && rc-service valkey status")
def apply(  # noqa: PLR0917
    context: typer.Context,
    files: Files,
    no_start: NoStart = False,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
    wait: Wait = "",
    locked: Locked = False,
    verify: Verify = False,
    prune: Prune = False,
    retry: Retry = False,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Begin nothing more after a failure.")] = False,
) -> None:
    """Make the host as the manifests say. It pulls, unpacks, writes units and starts what changed.

    What fails with one service leaves the others, but for those that require it. FILE may be what plan -o has written.
    """
    from appbox import reconcile  # noqa: PLC0415
    from appbox.plan_file import Wish  # noqa: PLC0415

    ask = typer.confirm if not yes and sys.stdin.isatty() and sys.stdout.isatty() else None
    options = options_of(context)
    wish = Wish(tuple(files), options.root, options.init, not no_start, prune, locked, verify, retry)
    if code := reconcile.apply(options, wish, wait=seconds(wait), fail_fast=fail_fast, ask=ask):
        raise typer.Exit(code)


@app.command(epilog="Example: appbox render services/valkey.toml -o /tmp/out")
def render(
    context: typer.Context,
    files: Files,
    output: Annotated[str, typer.Option("-o", "--output", metavar="DIR", help="An empty or new directory.")],
    host: Annotated[str, typer.Option(metavar="NAME", help="As the host of that name would have them.")] = "",
) -> None:
    """Write every file that apply would generate to a directory. It needs no root and does not touch the host."""
    from appbox import rendering  # noqa: PLC0415

    options = options_of(context)
    written = rendering.render(options, files, output, host)
    options.result({"files": written}, "" if options.verbosity < 0 else "".join(f"{path}\n" for path in written))


@app.command("init", epilog="Example: appbox init docker.io/valkey/valkey:9.0.0 > valkey.toml")
def begin(
    context: typer.Context,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="HOST/NAME:TAG, oci:DIR:REF or an archive.")],
    output: Annotated[str, typer.Option("-o", "--output", metavar="FILE", help="A new file to write it to.")] = "",
) -> None:
    """Print a manifest that is drawn from an image.

    It has the volumes, ports, health check and whatever else the image's configuration says, with comments.
    """
    from appbox import beginning  # noqa: PLC0415

    beginning.draft(options_of(context), image, output)


@app.command(epilog="Example: appbox schema > appbox.schema.json")
def schema(
    context: typer.Context,
    what: Annotated[str, typer.Argument(metavar="[manifest|plan]", help="Of what.")] = "manifest",
) -> None:
    """Print the JSON schema of manifests or plans.

    That of manifests is for editors, that of plans says what plan --json prints.
    """
    del context
    if what == "plan":
        from appbox.plan_schema import schema as plan_schema  # noqa: PLC0415

        sys.stdout.write(as_json(plan_schema()))
        return
    if what != "manifest":
        raise UsageError(f"there is no schema of {what!r}", hint="choose manifest or plan")
    from appbox.schema import schema as manifest_schema  # noqa: PLC0415

    sys.stdout.write(as_json(manifest_schema()))
