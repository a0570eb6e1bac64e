"""What the test images consist of, as data: packages, files, configuration. Nothing is built here.

They behave as the official images of the same names do: the entrypoint starts as root, makes the data directory its
user's own and becomes that user. Their packages are Debian's or Alpine's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.ground import cache

OVERLAYS = Path(__file__).parent / "overlays"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FORMAT = 2  # counts up when the way images are built changes


@dataclass(frozen=True, slots=True)
class File:
    """A file of the upper layer. `source` names a file of `overlays/`; `@NAME@` in it becomes the image's name."""

    path: str
    source: str
    mode: int = 0o755


@dataclass(frozen=True, slots=True)
class Recipe:
    """One image. `hooks` are shell lines that run when the packages are in; the root is `$1`."""

    name: str
    packages: tuple[str, ...]
    alpine: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()
    files: tuple[File, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    suites: tuple[str, ...] = ("bookworm", "trixie")

    def text(self, file: File) -> bytes:
        """Return the content of `file`."""
        return (OVERLAYS / file.source).read_bytes().replace(b"@NAME@", self.name.encode())

    def key(self, suite: str) -> str:
        """Return what changes when the image has to be built again."""
        return cache.key(FORMAT, asdict(self), suite, [self.text(file).decode() for file in self.files])


def keyvalue(name: str, packages: tuple[str, ...], suites: tuple[str, ...]) -> Recipe:
    """Return valkey or redis."""
    return Recipe(
        name,
        (*packages, "util-linux"),
        alpine=(name, "setpriv"),
        hooks=(f'chroot "$1" install -d -o {name} -g {name} -m 0755 /data', f'rm -rf "$1"/var/lib/{name}'),
        files=(File("usr/local/bin/docker-entrypoint.sh", "keyvalue.sh"),),
        config={
            "Entrypoint": ["docker-entrypoint.sh"],
            "Cmd": [f"{name}-server"],
            "Env": [f"PATH={PATH}"],
            "ExposedPorts": {"6379/tcp": {}},
            "Volumes": {"/data": {}},
            "WorkingDir": "/data",
        },
        suites=suites,
    )


POSTGRES = Recipe(
    "postgres",
    ("postgresql", "gosu", "bash"),
    alpine=("postgresql", "su-exec", "bash"),
    hooks=(
        # The package makes a database of its own; an image starts without one.
        'rm -rf "$1"/var/lib/postgresql/* "$1"/etc/postgresql/*',
        'ln -s "$(ls "$1"/usr/lib/postgresql | tail -n 1)" "$1"/usr/lib/postgresql/current',
        'chroot "$1" install -d -o postgres -g postgres -m 1777 /var/lib/postgresql/data',
        # Just-in-time compilation is optional and weighs as much as everything else together.
        'rm -rf "$1"/usr/lib/*/libLLVM* "$1"/usr/lib/postgresql/*/lib/llvmjit* "$1"/usr/lib/postgresql/*/lib/bitcode',
    ),
    files=(File("usr/local/bin/docker-entrypoint.sh", "postgres.sh"),),
    config={
        "Entrypoint": ["docker-entrypoint.sh"],
        "Cmd": ["postgres"],
        "Env": [
            f"PATH={PATH}:/usr/lib/postgresql/current/bin",
            "LANG=C.UTF-8",
            "PGDATA=/var/lib/postgresql/data",
        ],
        "ExposedPorts": {"5432/tcp": {}},
        "Volumes": {"/var/lib/postgresql/data": {}},
        "StopSignal": "SIGINT",
    },
)

MARIADB = Recipe(
    "mariadb",
    ("mariadb-server-core", "mariadb-client-core", "gosu", "bash", "passwd"),
    alpine=("mariadb", "mariadb-client", "su-exec", "bash"),
    hooks=(
        'chroot "$1" useradd --system --user-group --uid 999 --home-dir /var/lib/mysql --shell /usr/sbin/nologin mysql',
        'chroot "$1" install -d -o mysql -g mysql -m 0755 /var/lib/mysql /run/mysqld',
    ),
    files=(File("usr/local/bin/docker-entrypoint.sh", "mariadb.sh"),),
    config={
        "Entrypoint": ["docker-entrypoint.sh"],
        "Cmd": ["mariadbd"],
        "Env": [f"PATH={PATH}", "LANG=C.UTF-8"],
        "ExposedPorts": {"3306/tcp": {}},
        "Volumes": {"/var/lib/mysql": {}},
    },
)

NGINX = Recipe(
    "nginx",
    ("nginx-light", "passwd"),
    alpine=("nginx",),
    hooks=(
        'chroot "$1" useradd --system --user-group --uid 101 --no-create-home --shell /bin/false nginx',
        'rm -rf "$1"/etc/nginx/sites-* "$1"/etc/nginx/conf.d "$1"/etc/nginx/modules-enabled "$1"/var/log/nginx/*',
        'mkdir -p "$1"/etc/nginx/conf.d "$1"/usr/share/nginx/html',
        'echo "<h1>Welcome to nginx!</h1>" >"$1"/usr/share/nginx/html/index.html',
        'ln -s /dev/stdout "$1"/var/log/nginx/access.log && ln -s /dev/stderr "$1"/var/log/nginx/error.log',
    ),
    files=(
        File("docker-entrypoint.sh", "nginx.sh"),
        File("docker-entrypoint.d/10-listen-on-ipv6-by-default.sh", "nginx-ipv6.sh"),
        File("etc/nginx/nginx.conf", "nginx.conf", 0o644),
        File("etc/nginx/conf.d/default.conf", "nginx-default.conf", 0o644),
    ),
    config={
        "Entrypoint": ["/docker-entrypoint.sh"],
        "Cmd": ["nginx", "-g", "daemon off;"],
        "Env": [f"PATH={PATH}"],
        "ExposedPorts": {"80/tcp": {}},
        "StopSignal": "SIGQUIT",
    },
)

# A whole Debian, with what few images have: file capabilities (ping), setuid programs, hard links (perl).
DEBIAN = Recipe(
    "debian",
    ("iputils-ping", "passwd", "login", "perl", "tzdata"),
    alpine=("iputils", "shadow", "perl", "tzdata"),
    config={"Cmd": ["sh"], "Env": [f"PATH={PATH}"]},
)

BUSYBOX = Recipe("busybox", (), config={"Cmd": ["sh"], "Env": [f"PATH={PATH}"]})

RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        keyvalue("valkey", ("valkey-server", "valkey-tools"), ("trixie",)),
        keyvalue("redis", ("redis-server", "redis-tools"), ("bookworm", "trixie")),
        POSTGRES,
        MARIADB,
        NGINX,
        BUSYBOX,
        DEBIAN,
    )
}
