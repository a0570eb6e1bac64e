"""The manifests of services/ as they are, on images made of Debian packages: used, restarted, killed, stopped."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

from tests.ground import images
from tests.init.host import Host

SERVICES = Path(__file__).parents[2] / "services"
PROVEN = ("caddy", "mariadb", "mosquitto", "nats", "nginx", "postgres", "prometheus", "redis", "syncthing", "valkey")

# Redis has valkey's port here, and the images' one tag is "debian".
HOST = """\
[services.valkey.vars]
port = 6380
[services.valkey.health]
exec = ["valkey-cli", "-e", "-p", "6380", "ping"]
"""


def bring(host: Host) -> None:
    """Write all services that can run here into the machine, each with its image and nothing else replaced."""
    for path in SERVICES.rglob("*"):
        inside = path.relative_to(SERVICES)
        if path.is_dir() or inside.parts[0] == "demo" or (path.suffix == ".toml" and path.stem not in PROVEN):
            continue
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".toml":
            text = re.sub(r'(?m)^image = ".*"$', f'image = "oci:/var/cache/appbox-dev/images/{path.stem}"', text)
            text = re.sub(r'(?m)^version = "[^"]*"', 'version = "debian"', text)
        host.machine.write(f"/root/services/{inside}", text)
    host.machine.write("/root/services/hosts/ground.toml", HOST)


def run(host: Host, *words: str) -> str:
    """Return what a command of the machine prints, "" when it fails."""
    return host.machine.run(list(words), check=False, timeout=30).out


def fetch(host: Host, url: str) -> str:
    """Return what a web server of the machine answers."""
    return run(host, "curl", "-sS", "--max-time", "5", url)


def inside(host: Host, name: str, *words: str) -> str:
    """Return what a command prints that runs in a service's container."""
    return run(host, "appbox", "exec", name, *words)


def psql(host: Host, query: str) -> str:
    return inside(host, "postgres", "psql", "-U", "postgres", "-tA", "-c", query)


def states(host: Host) -> dict[str, str]:
    """Return the health of every service."""
    return {one["name"]: one["health"] for one in json.loads(host.appbox("status", "--json").out)}


def test_the_services_run_as_they_are(host: Host) -> None:
    for name in PROVEN:
        images.ensure(name)
    bring(host)
    host.appbox("apply", "/root/services", timeout=400)
    host.machine.wait_until(
        lambda: states(host) == dict.fromkeys(PROVEN, "healthy"), 120, f"health; it is {states(host)}"
    )
    use(host)
    # All data is there again after a restart of all, one of them hard.
    before = host.machine.find("postgres")
    host.machine.kill(min(before), signal.SIGKILL)
    for name in PROVEN:
        if name != "postgres":
            host.control("restart", name)
    host.machine.wait_until(
        lambda: states(host) == dict.fromkeys(PROVEN, "healthy"), 120, f"health after it; it is {states(host)}"
    )
    again(host)
    log = host.appbox("logs", "-n", "1000", "postgres").out
    assert "was not properly shut down" in log  # it was killed
    host.control("restart", "postgres")
    host.machine.wait_until(lambda: psql(host, "SELECT n FROM t") == "4711\n", 30, "postgres")
    later = host.appbox("logs", "-n", "1000", "postgres").out.removeprefix(log)
    assert "database system is shut down" in later
    assert "not properly shut down" not in later
    assert "nothing to do" in host.appbox("apply", "/root/services").out
    for name in PROVEN:
        host.control("stop", name)
        assert not host.is_active(name)
    host.machine.wait_until(lambda: not any(map(host.traces, PROVEN)), 10, "the end of all")


def use(host: Host) -> None:
    """Ask each service for what it is there for, and leave something in it."""
    assert inside(host, "redis", "redis-cli", "set", "k", "redis").strip() == "OK"
    assert inside(host, "valkey", "valkey-cli", "-p", "6380", "set", "k", "valkey").strip() == "OK"
    psql(host, "CREATE TABLE t AS SELECT 4711 AS n")
    assert psql(host, "SELECT n FROM t") == "4711\n"
    assert "GENERATED ROOT PASSWORD" in host.appbox("logs", "-n", "1000", "mariadb").out
    assert "Welcome to nginx" in fetch(host, "http://127.0.0.1:8080/")
    html = "/opt/containers/caddy/data/site/page.txt"
    host.machine.write(html, "from the volume\n")
    assert fetch(host, "http://127.0.0.1/page.txt") == "from the volume\n"
    assert "Prometheus" in fetch(host, "http://127.0.0.1:9090/-/ready")
    assert fetch(host, "http://127.0.0.1:8384/rest/noauth/health").strip().startswith("{")
    assert '"status":"ok"' in fetch(host, "http://127.0.0.1:8222/healthz")
    inside(host, "mosquitto", "mosquitto_pub", "-h", "127.0.0.1", "-r", "-t", "greeting", "-m", "hello")
    assert heard(host) == "hello\n"


def again(host: Host) -> None:
    """What was left is still there."""
    assert inside(host, "redis", "redis-cli", "get", "k").strip() == "redis"
    assert inside(host, "valkey", "valkey-cli", "-p", "6380", "get", "k").strip() == "valkey"
    assert psql(host, "SELECT n FROM t") == "4711\n"
    assert fetch(host, "http://127.0.0.1/page.txt") == "from the volume\n"
    assert heard(host) == "hello\n"


def heard(host: Host) -> str:
    """Return the message that the broker keeps."""
    return inside(host, "mosquitto", "mosquitto_sub", "-h", "127.0.0.1", "-C", "1", "-W", "5", "-t", "greeting")
