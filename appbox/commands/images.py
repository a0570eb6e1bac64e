"""The commands for images alone: appbox image copy, unpack, inspect, diff, tags."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from appbox.commands.root import app, options_of

image: Final = typer.Typer(
    no_args_is_help=True,
    help="Work with images alone: copy, unpack and inspect them.",
    epilog="Example: appbox image inspect docker://docker.io/valkey/valkey:9.0.0; each command's --help has its own.",
)
app.add_typer(image, name="image")

_Platform = Annotated[str, typer.Option(metavar="OS/ARCH[/VARIANT]", help="Another platform than this host's.")]


_Policy = Annotated[
    str | None, typer.Option(metavar="FILE", help="A policy that the image must satisfy, beside the host's own.")
]


_TRANSPORTS: Final = "docker://HOST/NAME:TAG, oci:DIR[:REF], oci-archive:FILE[:REF] or docker-archive:FILE[:REF]."


@image.command("unpack", epilog="Example: appbox image unpack docker://docker.io/library/alpine:3.22 rootfs")
def image_unpack(  # noqa: PLR0917
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SRC", help=_TRANSPORTS)],
    directory: Annotated[str, typer.Argument(metavar="DIR", help="A new directory; it becomes the root file system.")],
    id_map: Annotated[str, typer.Option("--map", metavar="BASE:SIZE", help="Add BASE to all owners.")] = "",
    platform: _Platform = "",
    policy: _Policy = None,
) -> None:
    """Unpack an image to a directory, with the image's owners. Nothing is left of a refused one."""
    from appbox import images  # noqa: PLC0415

    images.unpack(options_of(context), source, directory, id_map=id_map, platform=platform, policy=policy)


_SOURCE_HELP: Final = "docker://…, oci:DIR[:REF], oci-archive:FILE[:REF] or docker-archive:FILE[:REF]."


@image.command(
    "copy",
    epilog="Examples: appbox image copy docker://docker.io/library/alpine:3.22 oci:alpine:3.22; "
    "appbox image copy --all oci:alpine:3.22 docker://registry.example/alpine:3.22; "
    "appbox image copy oci:alpine:3.22 docker-archive:alpine.tar:alpine:3.22 && docker load -i alpine.tar",
)
def image_copy(  # noqa: PLR0917
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SRC", help=_TRANSPORTS)],
    destination: Annotated[str, typer.Argument(metavar="DST", help=_TRANSPORTS)],
    every: Annotated[bool, typer.Option("--all", help="Copy all platforms, and all else that an index lists.")] = False,
    preserve_digests: Annotated[
        bool, typer.Option("--preserve-digests", help="Keep the image's digest, or fail.")
    ] = False,
    chunked: Annotated[
        bool, typer.Option("--chunked", help="Send blobs in pieces, for a registry that limits the size of a request.")
    ] = False,
    platform: _Platform = "",
    policy: _Policy = None,
) -> None:
    """Copy an image between registries, layouts and archives. Nothing is left of a copy that failed.

    One platform is copied unless --all is given. Manifests keep their bytes, so digests stay the same, but for two
    cases: in a layout, Docker's manifests get OCI's media types unless --preserve-digests is given, since other tools
    find only those; a docker-archive holds no manifest, only the configuration and the uncompressed layers.

    A layout is made, or the image added to it; an oci-archive is replaced; a docker-archive must be a new file.
    """
    from appbox import copying  # noqa: PLC0415

    how = {"platform": platform, "every": every, "preserve_digests": preserve_digests, "chunked": chunked}
    copying.copy(options_of(context), copying.request(source, destination, **how, policy=policy))


@image.command("inspect", epilog="Example: appbox image inspect docker://docker.io/valkey/valkey:9.0.0")
def image_inspect(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="SRC", help=_SOURCE_HELP)],
    platform: _Platform = "",
    raw: Annotated[bool, typer.Option("--raw", help="Print the index or manifest, byte for byte.")] = False,
    config: Annotated[bool, typer.Option("--config", help="Print the image's configuration, byte for byte.")] = False,
) -> None:
    """Show what an image is and wants.

    Digests, platforms, command, user, volumes, ports, health check, history and layers.
    """
    from appbox import inspecting  # noqa: PLC0415

    inspecting.inspect(options_of(context), source, platform=platform, raw=raw, config=config)


@image.command(
    "diff",
    epilog="Example: appbox image diff docker://docker.io/valkey/valkey:8.1 docker://docker.io/valkey/valkey:9.0",
)
def image_diff(
    context: typer.Context,
    before: Annotated[str, typer.Argument(metavar="A", help=_SOURCE_HELP)],
    after: Annotated[str, typer.Argument(metavar="B", help="The image to compare it with.")],
    platform: _Platform = "",
    exit_code: Annotated[bool, typer.Option("--exit-code", help="End with 4 when they differ.")] = False,
) -> None:
    """Show what changed from image A to B.

    Settings, accounts, setuid files, capabilities, devices and sizes; with -v every path.
    """
    from appbox import inspecting  # noqa: PLC0415

    changed = inspecting.diff(options_of(context), before, after, platform=platform)
    if exit_code and changed:
        raise typer.Exit(4)


@image.command("tags", epilog="Example: appbox image tags docker://docker.io/valkey/valkey | tail")
def image_tags(
    context: typer.Context,
    repository: Annotated[str, typer.Argument(metavar="REPO", help="docker://HOST/REPOSITORY, without a tag.")],
) -> None:
    """List the tags of a repository, the newest version last."""
    from appbox import inspecting  # noqa: PLC0415

    inspecting.tags(options_of(context), repository)
