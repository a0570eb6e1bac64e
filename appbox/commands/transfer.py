"""The commands that carry services to other hosts: export, import."""

from __future__ import annotations

from typing import Annotated

import typer

from appbox.commands.root import Names, Wait, app, options_of, seconds


@app.command(
    epilog="Examples: appbox export web db --data -o shop.tar.zst; appbox export web -o - | ssh HOST appbox import -"
)
def export(  # noqa: PLR0917
    context: typer.Context,
    names: Names,
    output: Annotated[
        str,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="The file, replaced if it is there; compressed if called .gz or .zst; - for a pipe.",
        ),
    ],
    data: Annotated[bool, typer.Option("--data", help="Take their data along.")] = False,
    live: Annotated[bool, typer.Option("--live", help="Let running services run on while it is read.")] = False,
    wait: Wait = "",
) -> None:
    """Write services into one file, for a host without a registry.

    It holds the images that are installed, the manifests with the files that they name, what was generated from them,
    and a lock; with --data the volumes, too. For those a running service is paused where the file system can share
    blocks (xfs, btrfs); elsewhere it is stopped while they are copied, unless --live is given.

    Secrets stay here: what the other host must have is said. Other tools read the images as those of an oci-archive.
    """
    from appbox import exporting  # noqa: PLC0415

    exporting.export(options_of(context), exporting.Request(names, output, data=data, live=live, wait=seconds(wait)))


@app.command("import", epilog="Example: appbox import shop.tar.zst -d services && appbox apply --locked services")
def import_(  # noqa: PLR0917
    context: typer.Context,
    file: Annotated[str, typer.Argument(help="What appbox export wrote; - for standard input.", metavar="FILE")],
    folder: Annotated[
        str, typer.Option("-d", "--directory", metavar="DIR", help="Where the manifests go.")
    ] = "services",
    apply: Annotated[bool, typer.Option("--apply", help="Apply them, too.")] = False,
    no_data: Annotated[bool, typer.Option("--no-data", help="Leave the data in the file.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace manifests and files that are there.")] = False,
    wait: Wait = "",
) -> None:
    """Bring services that another host exported here. Applying them asks no registry.

    Everything is verified before anything is written. Images go into the cache, manifests with their files and lock
    into a directory, and data becomes that of the service if it has none.
    """
    from appbox import importing  # noqa: PLC0415

    options = options_of(context)
    asked = importing.Request(file, folder, force=force, data=not no_data, apply=apply, wait=seconds(wait))
    done = importing.run(options, asked)
    if not (apply and options.json):
        options.result(importing.as_dict(asked, done), importing.text(asked, done) if options.verbosity >= 0 else "")
    if apply:
        from appbox import reconcile  # noqa: PLC0415
        from appbox.plan_file import Wish  # noqa: PLC0415

        wish = Wish(tuple(done.manifests.values()), options.root, options.init, locked=True)
        if code := reconcile.apply(options, wish, wait=seconds(wait)):
            raise typer.Exit(code)
