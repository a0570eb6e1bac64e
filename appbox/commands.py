"""The commands: arguments and help texts. Each is a few lines; the work is done elsewhere and imported when needed."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated, Final, cast

import typer

from appbox.errors import HostLacks, UsageError, printable
from appbox.session import Options, as_json, require_root_user

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

_Files = Annotated[list[str], typer.Argument(help="Manifests, or directories of manifests.", metavar="FILE...")]


def _installed() -> list[str]:
    """Return the names of installed services, for the shell's completion."""
    from appbox.store import state  # noqa: PLC0415
    from appbox.store.root import Root  # noqa: PLC0415

    with Root() as root:
        return state.names(root)


_Name = Annotated[str, typer.Argument(help="The service.", metavar="NAME", autocompletion=_installed)]
_AnyName = Annotated[str | None, typer.Argument(help="One service.", metavar="[NAME]", autocompletion=_installed)]
_INITS: Final = ("auto", "systemd", "openrc", "none")


def _options(context: typer.Context) -> Options:
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


@app.command(epilog="Example: appbox check services/; appbox check --image services/valkey.toml")
def check(
    context: typer.Context,
    files: _Files,
    image: Annotated[bool, typer.Option("--image", help="Hold them against their images' configurations.")] = False,
) -> None:
    """Validate manifests and templates, without looking at the host.

    With --image the configuration of each image is looked up, too, though no layer: what will fail or surprise is said,
    with what to write instead.
    """
    from appbox import checking  # noqa: PLC0415

    options = _options(context)
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


@app.command(epilog="Example: appbox plan --exit-code services/valkey.toml")
def plan(
    context: typer.Context,
    files: _Files,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="End with 4 when something would change.")] = False,
) -> None:
    """Show what apply would do, and change nothing."""
    from appbox import reconcile  # noqa: PLC0415

    pending = reconcile.show(_options(context), files)
    if exit_code and pending:
        raise typer.Exit(4)


@app.command(epilog="Example: appbox apply services/valkey.toml && rc-service valkey status")
def apply(
    context: typer.Context,
    files: _Files,
    no_start: Annotated[bool, typer.Option("--no-start", help="Start and restart nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for another appbox to finish.")] = False,
) -> None:
    """Make the host as the manifests say. It pulls, unpacks, writes units and starts what changed."""
    from appbox import reconcile  # noqa: PLC0415

    del yes  # nothing that apply does so far is beyond a rollback
    reconcile.apply(_options(context), files, start=not no_start, wait=wait)


@app.command(epilog="Example: appbox status --json valkey")
def status(context: typer.Context, name: _AnyName = None) -> None:
    """Show the installed services: version, state, since when, digest."""
    from appbox import status as states  # noqa: PLC0415

    options = _options(context)
    with options.open_root() as root:
        if name is None:
            found = states.every(root)
            options.result([one.as_dict() for one in found], states.table(found))
        else:
            one = states.of(root, name, usage=True)
            options.result(one.as_dict(), states.details(one))


@app.command(epilog="Example: appbox render services/valkey.toml -o /tmp/out")
def render(
    context: typer.Context,
    files: _Files,
    output: Annotated[str, typer.Option("-o", "--output", metavar="DIR", help="An empty or new directory.")],
    host: Annotated[str, typer.Option(metavar="NAME", help="As the host of that name would have them.")] = "",
) -> None:
    """Write every file that apply would generate to a directory. It needs no root and does not touch the host."""
    from appbox import rendering  # noqa: PLC0415

    options = _options(context)
    written = rendering.render(options, files, output, host)
    options.result({"files": written}, "" if options.verbosity < 0 else "".join(f"{path}\n" for path in written))


@app.command(epilog="Example: appbox remove valkey; its data stays until appbox remove --purge valkey")
def remove(
    context: typer.Context,
    name: _Name,
    purge: Annotated[bool, typer.Option("--purge", help="Delete its data too.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for another appbox to finish.")] = False,
) -> None:
    """Stop a service and remove its unit and versions. Its data stays unless purged."""
    from appbox import reconcile  # noqa: PLC0415

    options = _options(context)
    if purge and not yes and sys.stdin.isatty() and sys.stdout.isatty():
        typer.confirm(f"Delete all data of {name}?", abort=True)
    reconcile.remove(options, name, purge=purge, wait=wait)


@app.command(epilog="Example: appbox start valkey")
def start(context: typer.Context, name: _Name) -> None:
    """Start a service through the init system."""
    _control(context, name, "start")


@app.command(epilog="Example: appbox stop valkey")
def stop(context: typer.Context, name: _Name) -> None:
    """Stop a service through the init system."""
    _control(context, name, "stop")


@app.command(epilog="Example: appbox restart valkey")
def restart(context: typer.Context, name: _Name) -> None:
    """Stop and start a service through the init system."""
    _control(context, name, "restart")


@app.command(epilog="Example: appbox reload nginx")
def reload(context: typer.Context, name: _Name) -> None:
    """Make a running service read its configuration again.

    Its manifest says how, in service.reload.
    """
    from appbox import control  # noqa: PLC0415

    options = _options(context)
    require_root_user("appbox reload")
    said = control.reload(options, name)
    options.result({"name": name, "action": "reload"}, "" if options.verbosity < 0 else said)


def _control(context: typer.Context, name: str, verb: str) -> None:
    from appbox import control  # noqa: PLC0415

    options = _options(context)
    require_root_user(f"appbox {verb}")
    said = control.control(options, name, verb)
    options.result({"name": name, "action": verb}, "" if options.verbosity < 0 else said)


@app.command(epilog="Example: appbox logs -f valkey")
def logs(  # noqa: PLR0917
    context: typer.Context,
    name: _Name,
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
    control.logs(_options(context), name, Wanted(shown, start, follow), stamps=timestamps)


@app.command(
    epilog="Example: appbox exec valkey valkey-cli ping",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
def exec(  # noqa: A001
    context: typer.Context,
    name: _Name,
    command: Annotated[list[str], typer.Argument(metavar="CMD...", help="The program and its arguments.")],
) -> None:
    """Run a program in a running service."""
    from appbox import control  # noqa: PLC0415

    require_root_user("appbox exec")
    control.enter(_options(context), name, command[1:] if command[:1] == ["--"] else command)


@app.command(epilog="Example: appbox shell valkey")
def shell(context: typer.Context, name: _Name) -> None:
    """Open a shell in a running service."""
    from appbox import control  # noqa: PLC0415

    require_root_user("appbox shell")
    control.enter(_options(context), name, ["/bin/sh"])


@app.command(epilog="Example: appbox run valkey; Ctrl-C is passed on to it, appbox stop valkey ends it")
def run(context: typer.Context, name: _Name) -> None:
    """Run a service in the foreground, without an init system."""
    from appbox import control  # noqa: PLC0415

    require_root_user("appbox run")
    control.foreground(_options(context), name)


@app.command(epilog="Example: appbox verify valkey && echo as it was unpacked")
def verify(context: typer.Context, name: _AnyName = None) -> None:
    """Find every file that changed since it was unpacked.

    The exit code is 1 when there is one. Content, type, mode, owner, time, links, devices and extended attributes are
    compared with rootfs.mtree, which was written while the image was unpacked.
    """
    from appbox import verify as verifying  # noqa: PLC0415

    options = _options(context)
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
    name: _Name,
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
    options = _options(context)
    with options.open_root() as root:
        report = writing.of(root, name)
    lines = report.suggestion.text(name, has_security=report.has_security) if suggest else writing.text(report)
    options.result(report.as_dict(suggest=suggest), lines)


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

    beginning.draft(_options(context), image, output)


@app.command(epilog="Example: appbox schema > appbox.schema.json")
def schema(context: typer.Context) -> None:
    """Print the JSON schema of manifests, for editors."""
    from appbox.schema import schema as manifest_schema  # noqa: PLC0415

    del context
    sys.stdout.write(as_json(manifest_schema()))


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

    images.unpack(_options(context), source, directory, id_map=id_map, platform=platform, policy=policy)


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
    copying.copy(_options(context), copying.request(source, destination, **how, policy=policy))


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

    inspecting.inspect(_options(context), source, platform=platform, raw=raw, config=config)


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

    changed = inspecting.diff(_options(context), before, after, platform=platform)
    if exit_code and changed:
        raise typer.Exit(4)


@image.command("tags", epilog="Example: appbox image tags docker://docker.io/valkey/valkey | tail")
def image_tags(
    context: typer.Context,
    repository: Annotated[str, typer.Argument(metavar="REPO", help="docker://HOST/REPOSITORY, without a tag.")],
) -> None:
    """List the tags of a repository, the newest version last."""
    from appbox import inspecting  # noqa: PLC0415

    inspecting.tags(_options(context), repository)
