"""Images for tests and for the demonstration, as OCI layouts: `python -m tests.ground.images redis [--out DIR]`.

Built from this machine's package archive (mmdebstrap on Debian, apk on Alpine) without Docker or anything outside the
standard library; kept in the cache and built anew only when the recipe changes. The one image of a layout has the
reference name "debian" (also on Alpine: manifests name it).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.ground import cache, debian
from tests.ground.oci_image import Layer, Member, add_layer, finish, tar_of
from tests.ground.recipes import RECIPES, Recipe

REF = "debian"
KEY = "dev.appbox.recipe"
ALPINE = "alpine"


def ensure(name: str, suite: str | None = None, out: Path | None = None) -> Path:
    """Return the layout of image `name`, built when it is missing or older than its recipe.

    `out` takes a directory other than the cache's; an image of another suite than the usual one has its own directory.
    """
    recipe = RECIPES[name]
    usual = default_suite(recipe)
    suite = suite or usual
    layout = out or cache.root() / "images" / (name if suite == usual else f"{name}-{suite}")
    with cache.locked(layout):
        if built_key(layout) != recipe.key(suite):
            cache.say(f"building image {name} from {suite} packages in {layout}")
            with cache.replacing(layout) as fresh:
                build(recipe, suite, fresh)
    return layout


def default_suite(recipe: Recipe) -> str:
    """Return the suite that this machine runs if it has the software, else the oldest that has it."""
    if debian.os_release().get("ID") == "alpine":
        return ALPINE
    host = debian.host_suite()
    return host if host in recipe.suites else recipe.suites[0]


def built_key(layout: Path) -> str:
    """Return the key of the recipe that `layout` was built from, or "" when there is none."""
    try:
        entry = json.loads((layout / "index.json").read_text(encoding="utf-8"))["manifests"][0]
    except FileNotFoundError:
        return ""
    return str(entry["annotations"].get(KEY, ""))


def build(recipe: Recipe, suite: str, layout: Path) -> None:
    """Fill the empty directory `layout`."""
    finish(layout, layers(recipe, suite, layout), recipe.config, REF, {KEY: recipe.key(suite)})


def layers(recipe: Recipe, suite: str, layout: Path) -> Iterator[Layer]:
    """Store the layers and yield them, lowest first: the packages, then the recipe's own files."""
    if recipe.name == "busybox":
        yield add_layer(layout, tar_of(busybox_members()))
        return
    with cache.scratch("image") as scratch:
        tar = scratch / "root.tar"
        if suite == ALPINE:
            alpine_root(recipe, scratch / "root", tar)
        else:
            debian.bootstrap(tar, suite, recipe.packages, variant="essential", hooks=recipe.hooks)
        with tar.open("rb") as stream:
            yield add_layer(layout, stream)
    yield add_layer(layout, tar_of(Member(f.path, f.mode, recipe.text(f)) for f in recipe.files))


def alpine_root(recipe: Recipe, root: Path, tar: Path) -> None:
    """Make a root of Alpine packages with this machine's apk, keys and repositories, and write it to `tar`."""
    root.mkdir()
    apk = ["apk", "--root", str(root), "--initdb", "--no-cache", "--keys-dir", "/etc/apk/keys"]
    apk += [
        "--repositories-file",
        "/etc/apk/repositories",
        "add",
        "alpine-baselayout",
        "busybox",
        "findutils",
        "coreutils",
    ]
    subprocess.run([*apk, "shadow", *recipe.alpine], check=True, stdout=subprocess.DEVNULL)
    if "su-exec" in recipe.alpine:
        (root / "usr/local/bin").mkdir(parents=True, exist_ok=True)
        (root / "usr/local/bin/gosu").symlink_to("/sbin/su-exec")
    for hook in alpine_hooks(recipe):
        subprocess.run(["sh", "-ec", hook, "hook", str(root)], check=True)
    subprocess.run(["tar", "-C", str(root), "--exclude=./dev/*", "-cf", str(tar), "."], check=True)


def alpine_hooks(recipe: Recipe) -> Sequence[str]:
    """Return the lines that prepare an Alpine root: users come with its packages, paths differ."""
    user = {"mariadb": "mysql"}.get(recipe.name, recipe.name)
    volumes = [*recipe.config.get("Volumes", {}), *(["/run/mysqld"] if recipe.name == "mariadb" else [])]
    own = [f'chroot "$1" install -d -o {user} -g {user} {path}' for path in volumes]
    links = [
        f'ln -sf /dev/{std} "$1"/var/log/nginx/{log}.log' for std, log in (("stdout", "access"), ("stderr", "error"))
    ]
    site = ['rm -rf "$1"/etc/nginx/http.d', 'mkdir -p "$1"/etc/nginx/conf.d "$1"/usr/share/nginx/html', *links]
    site += [
        'rm -rf "$1"/var/lib/nginx/tmp',
        'mkdir -p "$1"/var/cache/nginx',
        'ln -s ../../cache/nginx "$1"/var/lib/nginx/tmp',
    ]
    path = ['mkdir -p "$1"/usr/lib/postgresql && ln -s ../../libexec/postgresql "$1"/usr/lib/postgresql/current']
    return own + {"nginx": site, "postgres": path}.get(recipe.name, [])


def busybox_members() -> Iterator[Member]:
    """Yield a root that consists of one static binary, its applets as links, and the files that programs expect."""
    program, applets = static_busybox()
    for path, mode in (
        ("bin", 0o755),
        ("etc", 0o755),
        ("root", 0o700),
        ("tmp", 0o1777),
        ("usr/bin", 0o755),
        ("var/www", 0o755),
    ):
        yield Member(path, mode)
    yield Member("bin/busybox", 0o755, program)
    for applet in applets:
        yield Member(f"bin/{applet}", 0o777, link="busybox")
    yield Member("usr/bin/env", 0o777, link="../../bin/busybox")
    yield Member(
        "etc/passwd",
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\nwww:x:33:33:www:/var/www:/bin/false\nnobody:x:65534:65534::/:/bin/false\n",
    )
    yield Member("etc/group", 0o644, b"root:x:0:\nusers:x:100:www\nwww:x:33:\nnogroup:x:65534:\n")


def static_busybox() -> tuple[bytes, list[str]]:
    """Return the bytes of a busybox that needs no library, and the names of its applets."""
    for path in ("/bin/busybox.static", "/bin/busybox", "/usr/bin/busybox"):
        if Path(path).exists() and not is_dynamic(Path(path).read_bytes()):
            return Path(path).read_bytes(), applets_of(path)
    with tempfile.TemporaryDirectory(prefix="appbox-busybox.") as scratch:
        Path(scratch).chmod(0o755)
        subprocess.run(
            ["apt-get", "-q", "download", "busybox-static"], cwd=scratch, check=True, stdout=subprocess.DEVNULL
        )
        package = next(Path(scratch).glob("*.deb"))
        subprocess.run(["dpkg-deb", "--extract", str(package), scratch], check=True)
        path = next(
            str(found) for found in (Path(scratch) / "bin/busybox", Path(scratch) / "usr/bin/busybox") if found.exists()
        )
        return Path(path).read_bytes(), applets_of(path)


def is_dynamic(elf: bytes) -> bool:
    """Tell whether an ELF program asks for a dynamic loader."""
    return b"/lib64/ld-linux" in elf[:4096] or b"/lib/ld-" in elf[:4096]


def applets_of(busybox: str) -> list[str]:
    """Return the applets of a busybox, without the one that is named like itself."""
    words = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    return sorted(set(words) - {"busybox"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the images that are named; print where each one is."""
    parser = argparse.ArgumentParser(prog="python -m tests.ground.images", description="Build OCI images for tests.")
    parser.add_argument("names", nargs="+", choices=sorted(RECIPES), metavar="NAME", help=", ".join(sorted(RECIPES)))
    parser.add_argument("--out", type=Path, help="the layout's directory; one NAME only (default: the cache)")
    parser.add_argument("--suite", choices=debian.SUITES, help="the Debian suite of the packages")
    options = parser.parse_args(arguments)
    if options.out and len(options.names) > 1:
        parser.error("--out takes one image")
    for name in options.names:
        print(ensure(name, options.suite, options.out and options.out.absolute()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
