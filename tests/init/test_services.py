"""The manifests of services/ as they are, on images made of Debian packages: used, changed, killed, stopped."""

from __future__ import annotations

import json
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.ground import images
from tests.init.host import Host
from tests.init.test_share import connect

SERVICES = Path(__file__).parents[2] / "services"
PROVEN = ("caddy", "mariadb", "mosquitto", "nats", "nginx", "postgres", "prometheus", "redis", "syncthing", "valkey")
IMAGES = "oci:/var/cache/appbox-dev/images"

# Redis has valkey's port here.
HOST = """\
[services.valkey.vars]
port = 6380
[services.valkey.health]
exec = ["valkey-cli", "-e", "-p", "6380", "ping"]
"""

# File -> what is changed in it while its service runs, which must see that without a restart.
CHANGES = {
    "nginx.conf.j2": ("    location / {", '    location /new { return 200 "nginx has it\\n"; }\n    location / {'),
    "prometheus.yml": ("scrape_interval: 15s", "scrape_interval: 17s"),
    "Caddyfile": ("\troot * /srv", '\trespond /new "caddy has it"\n\troot * /srv'),
    "nats.conf.j2": ("port: {{ port }}", "port: {{ port }}\nmax_payload: 4711"),
    "postgres.pg_hba.conf": ("scram-sha-256", "scram-sha-256\nhost all all 127.0.0.2/32 reject"),
    "mosquitto.conf.j2": ("allow_anonymous true", "allow_anonymous true\nmax_packet_size 2000"),
}
RELOADED = ("caddy", "mosquitto", "nats", "nginx", "postgres", "prometheus")


def bring(host: Host) -> None:
    """Write all services that can run here into the machine, each with its image and nothing else replaced."""
    for name in PROVEN:
        images.ensure(name)
    for path in SERVICES.rglob("*"):
        inside = path.relative_to(SERVICES)
        if path.is_dir() or inside.parts[0] == "demo" or (path.suffix == ".toml" and path.stem not in PROVEN):
            continue
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".toml":
            text = re.sub(r'(?m)^image = ".*"$', f'image = "{IMAGES}/{path.stem}"', text)
            text = re.sub(r'(?m)^version = "[^"]*"', f'version = "{images.REF}"', text)
        host.write(f"{host.services}/{inside}", text)
    host.write(f"{host.services}/hosts/ground.toml", HOST)


def run(host: Host, *words: str) -> str:
    """Return what a command of the machine prints, "" when it fails."""
    return host.run(list(words), check=False, timeout=30).out


def fetch(host: Host, url: str) -> str:
    """Return what a web server of the machine answers."""
    return run(host, "curl", "-sS", "--max-time", "5", url)


def inside(host: Host, name: str, *words: str) -> str:
    """Return what a command prints that runs in a service's container."""
    return run(host, "appbox", "exec", name, *words)


def psql(host: Host, query: str) -> str:
    """Return what the database answers."""
    return inside(host, "postgres", "psql", "-U", "postgres", "-tA", "-c", query).strip()


def logs(host: Host, name: str) -> str:
    """Return all that a service has written."""
    return host.appbox("logs", "-n", "10000", name).out


def pids(host: Host) -> dict[str, int]:
    """Return the first process of every service that is well."""
    found = json.loads(host.appbox("status", "--json").out)
    return {one["name"]: one["pid"] for one in found if one["health"] == "healthy"}


def restart(host: Host, name: str) -> None:
    """Restart one service, and no other at the same time.

    OpenRC's restart ends with starting everything that ran when it began and does not run now, so that two of them get
    in each other's way (get_started_services in openrc-run.c).
    """
    host.control("restart", name)


def test_the_services_run_as_they_are(host: Host) -> None:
    bring(host)
    if host.ordinary:
        connect(host)
    noted = host.appbox("check", "--image", host.services).out
    assert noted.count(": ok") == len(PROVEN)
    host.appbox("apply", host.services, timeout=400)
    assert sorted(pids(host)) == sorted(PROVEN)
    use(host)
    change(host)
    # All data is there after a restart of all, the database's after a hard one.
    host.machine.kill(min(host.machine.find("postgres")), signal.SIGKILL)
    for name in PROVEN:
        if name != "postgres":
            restart(host, name)
    host.machine.wait_until(lambda: sorted(pids(host)) == sorted(PROVEN), 60, f"health; so far {pids(host)}")
    again(host)
    database(host)
    assert "nothing to do" in host.appbox("apply", host.services).out
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: host.control("stop", name), PROVEN))
    assert not any(map(host.is_active, PROVEN))
    host.machine.wait_until(lambda: not any(map(host.traces, PROVEN)), 10, "the end of all")
    for name in PROVEN:
        assert not re.search(r"(?i)permission denied|not permitted|read-only file system", complaints(host, name)), name


def complaints(host: Host, name: str) -> str:
    """Return what a service says of the privileges that it has, but for what no service of this kernel has."""
    known = re.compile(r"io_uring|receive buffer size|can not modify|GOMAXPROCS|tcmalloc")
    return "\n".join(line for line in logs(host, name).splitlines() if not known.search(line))


def use(host: Host) -> None:
    """Ask each service for what it is there for, and leave something in it."""
    assert inside(host, "redis", "redis-cli", "set", "k", "redis").strip() == "OK"
    assert inside(host, "valkey", "valkey-cli", "-p", "6380", "set", "k", "valkey").strip() == "OK"
    psql(host, "CREATE TABLE t AS SELECT 4711 AS n")
    assert psql(host, "SELECT n FROM t") == "4711"
    assert mariadb(host, "CREATE DATABASE app; SELECT 40 + 2") == "42"
    assert "Welcome to nginx" in fetch(host, "http://127.0.0.1:8080/")
    host.write(f"{host.containers}/caddy-debian/data/site/page.txt", "from the volume\n")
    assert fetch(host, "http://127.0.0.1/page.txt") == "from the volume\n"
    assert "Ready" in fetch(host, "http://127.0.0.1:9090/-/ready")
    assert '"OK"' in fetch(host, "http://127.0.0.1:8384/rest/noauth/health")
    assert '"status":"ok"' in fetch(host, "http://127.0.0.1:8222/healthz")
    inside(host, "mosquitto", "mosquitto_pub", "-h", "127.0.0.1", "-r", "-t", "greeting", "-m", "hello")
    assert heard(host) == "hello"


def again(host: Host) -> None:
    """What was left is still there."""
    assert inside(host, "redis", "redis-cli", "get", "k").strip() == "redis"
    assert inside(host, "valkey", "valkey-cli", "-p", "6380", "get", "k").strip() == "valkey"
    assert psql(host, "SELECT n FROM t") == "4711"
    assert mariadb(host, "SHOW DATABASES LIKE 'app'") == "app"
    assert fetch(host, "http://127.0.0.1/page.txt") == "from the volume\n"
    assert heard(host) == "hello"


def heard(host: Host) -> str:
    """Return the message that the broker keeps."""
    words = ("-h", "127.0.0.1", "-C", "1", "-W", "5", "-t", "greeting")
    return inside(host, "mosquitto", "mosquitto_sub", *words).strip()


def mariadb(host: Host, query: str) -> str:
    """Return what the database answers to root, whose password its first start has written to the log."""
    (password,) = re.findall(r"GENERATED ROOT PASSWORD: (\S+)", logs(host, "mariadb"))
    return inside(host, "mariadb", "mariadb", f"-p{password}", "-N", "-B", "-e", query).strip()


def change(host: Host) -> None:
    """Change the configuration of those that take it without a restart, and see it served by the same processes."""
    before = pids(host)
    for file, (old, new) in CHANGES.items():
        text = host.machine.read(f"{host.services}/{file}")
        assert old in text
        host.write(f"{host.services}/{file}", text.replace(old, new, 1))
    done = host.appbox("apply", host.services).out
    # A user's running container is shown no new file: what would be reloaded is started again, which the plan says.
    assert done.count("restart it" if host.ordinary else "reload it") == len(RELOADED), done
    assert host.ordinary or "restart it" not in done
    served = {
        "nginx": lambda: fetch(host, "http://127.0.0.1:8080/new") == "nginx has it\n",
        "prometheus": lambda: "scrape_interval: 17s" in fetch(host, "http://127.0.0.1:9090/api/v1/status/config"),
        "caddy": lambda: fetch(host, "http://127.0.0.1/new") == "caddy has it",
        "nats": lambda: re.search(r'"max_payload": 4711\b', fetch(host, "http://127.0.0.1:8222/varz")),
        "postgres": lambda: psql(host, "SELECT count(*) FROM pg_hba_file_rules WHERE auth_method = 'reject'") == "1",
        "mosquitto": lambda: host.ordinary or "Reloading config" in logs(host, "mosquitto"),
    }
    assert sorted(served) == sorted(RELOADED)
    for name, seen in served.items():
        host.machine.wait_until(seen, 10, f"{name} to serve what is new")
    assert host.ordinary or pids(host) == before


def database(host: Host) -> None:
    """A killed database recovers and says so; one that was stopped has nothing to recover."""
    first = logs(host, "postgres")
    assert "was not properly shut down" in first
    restart(host, "postgres")
    assert psql(host, "SELECT n FROM t") == "4711"
    host.control("stop", "postgres")
    host.control("start", "postgres")
    assert psql(host, "SELECT n FROM t") == "4711"
    later = logs(host, "postgres").removeprefix(first)
    assert later.count("database system is shut down") == 2
    assert later.count("database system is ready to accept connections") == 2
    assert not re.search(r"not properly shut down|recovery in progress|redo (starts|done)|interrupted", later)


def test_drafts_run_as_they_come(host: Host) -> None:
    if host.ordinary:
        connect(host)
    for name in PROVEN:
        images.ensure(name)
        host.write(f"{host.home}/drafts/{name}.toml", host.appbox("init", f"{IMAGES}/{name}:{images.REF}").out)
    assert host.appbox("check", "--image", f"{host.home}/drafts").out.count(": ok") == len(PROVEN)
    drafts = (f"{host.home}/drafts/nginx.toml", f"{host.home}/drafts/redis.toml")
    host.appbox("apply", *drafts)
    reached(host)
    assert inside(host, "redis", "redis-cli", "set", "k", "v").strip() == "OK"
    for name in ("nginx", "redis"):
        restart(host, name)
    reached(host)
    assert inside(host, "redis", "redis-cli", "get", "k").strip() == "v"
    assert "nothing to do" in host.appbox("apply", *drafts).out


def reached(host: Host) -> None:
    """Wait until both drafts answer at their published ports."""
    # Debian's redis refuses words from elsewhere, unlike the official image's; its refusal is an answer, too.
    host.machine.wait_until(lambda: "protected mode" in host.redis("ping", port=6379), 20, "redis")
    host.machine.wait_until(lambda: "Welcome to nginx" in fetch(host, "http://127.0.0.1:8080/"), 20, "nginx")
