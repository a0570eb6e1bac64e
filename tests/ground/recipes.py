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
    files=(
        File("usr/local/bin/docker-entrypoint.sh", "mariadb.sh"),
        File("usr/local/bin/healthcheck.sh", "mariadb-healthcheck.sh"),
    ),
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
        # The image's nginx is built to keep bodies of requests and answers there.
        'mkdir -p "$1"/var/cache/nginx && rm -rf "$1"/var/lib/nginx && ln -s ../cache/nginx "$1"/var/lib/nginx',
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

CADDY = Recipe(
    "caddy",
    ("passwd", "caddy", "libcap2-bin"),
    alpine=("caddy",),
    hooks=(
        'rm -rf "$1"/etc/caddy "$1"/usr/share/caddy "$1"/var/lib/caddy',
        'mkdir -p "$1"/config/caddy "$1"/data/caddy "$1"/etc/caddy "$1"/usr/share/caddy "$1"/srv',
        'echo "<h1>Caddy works!</h1>" >"$1"/usr/share/caddy/index.html',
        'chroot "$1" setcap cap_net_bind_service=+ep /usr/bin/caddy',
    ),
    files=(File("etc/caddy/Caddyfile", "Caddyfile", 0o644),),
    config={
        "Cmd": ["caddy", "run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"],
        "Env": [f"PATH={PATH}", "XDG_CONFIG_HOME=/config", "XDG_DATA_HOME=/data"],
        "ExposedPorts": {"80/tcp": {}, "443/tcp": {}, "443/udp": {}, "2019/tcp": {}},
        "WorkingDir": "/srv",
    },
)

PROMETHEUS = Recipe(
    "prometheus",
    ("prometheus",),
    alpine=("prometheus",),
    hooks=(
        # The image's user is nobody, and the program stands in /bin.
        '[ -e "$1"/bin/prometheus ] || ln -s ../usr/bin/prometheus "$1"/bin/prometheus',
        'rm -rf "$1"/etc/prometheus "$1"/var/lib/prometheus',
        'mkdir -p "$1"/etc/prometheus "$1"/prometheus && chown 65534:65534 "$1"/prometheus "$1"/etc/prometheus',
    ),
    files=(File("etc/prometheus/prometheus.yml", "prometheus.yml", 0o644),),
    config={
        "Entrypoint": ["/bin/prometheus"],
        "Cmd": ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"],
        "Env": [f"PATH={PATH}"],
        "User": "nobody",
        "ExposedPorts": {"9090/tcp": {}},
        "Volumes": {"/prometheus": {}},
        "WorkingDir": "/prometheus",
    },
)

SYNCTHING = Recipe(
    "syncthing",
    ("syncthing", "util-linux", "ca-certificates", "curl"),
    alpine=("syncthing", "setpriv", "curl"),
    hooks=(
        '[ -e "$1"/bin/syncthing ] || ln -s ../usr/bin/syncthing "$1"/bin/syncthing',
        'install -d -o 1000 -g 1000 -m 0755 "$1"/var/syncthing',
    ),
    files=(File("bin/entrypoint.sh", "syncthing.sh"),),
    config={
        "Entrypoint": ["/bin/entrypoint.sh", "/bin/syncthing", "-home", "/var/syncthing/config"],
        "Env": [f"PATH={PATH}", "PUID=1000", "PGID=1000", "HOME=/var/syncthing", "STGUIADDRESS=0.0.0.0:8384"],
        "ExposedPorts": {"8384/tcp": {}, "22000/tcp": {}, "22000/udp": {}, "21027/udp": {}},
        "Volumes": {"/var/syncthing": {}},
        "Healthcheck": {
            "Test": [
                "CMD-SHELL",
                "curl -fkLsS -m 2 127.0.0.1:8384/rest/noauth/health | grep -o --color=never OK || exit 1",
            ],
            "Interval": 60 * 10**9,
            "Timeout": 10 * 10**9,
        },
    },
    suites=("trixie",),  # the one of bookworm is too old for the image's own health check
)

MOSQUITTO = Recipe(
    "mosquitto",
    ("mosquitto", "mosquitto-clients"),
    alpine=("mosquitto", "mosquitto-clients"),
    hooks=(
        'mkdir -p "$1"/mosquitto/config "$1"/mosquitto/data "$1"/mosquitto/log',
        'mv "$1"/etc/mosquitto/mosquitto.conf "$1"/mosquitto/config/',
        'chroot "$1" chown -R mosquitto:mosquitto /mosquitto',
    ),
    files=(File("docker-entrypoint.sh", "mosquitto.sh"),),
    config={
        "Entrypoint": ["/docker-entrypoint.sh"],
        "Cmd": ["/usr/sbin/mosquitto", "-c", "/mosquitto/config/mosquitto.conf"],
        "Env": [f"PATH={PATH}"],
        "ExposedPorts": {"1883/tcp": {}},
        "Volumes": {"/mosquitto/data": {}, "/mosquitto/log": {}},
    },
)

NATS = Recipe(
    "nats",
    ("nats-server",),
    alpine=("nats-server",),
    hooks=('mkdir -p "$1"/etc/nats',),
    files=(
        File("usr/local/bin/docker-entrypoint.sh", "nats.sh"),
        File("etc/nats/nats-server.conf", "nats.conf", 0o644),
    ),
    config={
        "Entrypoint": ["docker-entrypoint.sh"],
        "Cmd": ["nats-server", "--config", "/etc/nats/nats-server.conf"],
        "Env": [f"PATH={PATH}"],
        "ExposedPorts": {"4222/tcp": {}, "6222/tcp": {}, "8222/tcp": {}},
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
        CADDY,
        PROMETHEUS,
        SYNCTHING,
        MOSQUITTO,
        NATS,
        BUSYBOX,
        DEBIAN,
    )
}
