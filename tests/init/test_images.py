"""Images in the style of the official ones run with default settings: start as root, chown data, become the user."""

from __future__ import annotations

from typing import Any

import pytest

from tests.ground import images
from tests.init.host import Host


def manifest(name: str, **tables: Any) -> dict[str, Any]:
    """Return the least manifest that runs an image."""
    return {"name": name, "image": f"oci:/var/cache/appbox-dev/images/{name}", "version": "debian", **tables}


def wait_for(host: Host, name: str, words: list[str], answer: str, timeout: float = 60) -> None:
    """Wait until a command in the service's container prints `answer`."""

    def answered() -> bool:
        return answer in host.run(["appbox", "exec", name, *words], check=False).out

    host.machine.wait_until(answered, timeout, f"{answer} from {name}")


@pytest.mark.parametrize("name", ["redis", "valkey"])
@pytest.mark.parametrize("process", [{}, {"user": "image"}], ids=["default", "itself"])
def test_redis_and_valkey(host: Host, name: str, process: dict[str, str]) -> None:
    images.ensure(name)
    process = dict.fromkeys(process, name)
    host.apply(manifest(name, process=process))
    wait_for(host, name, [f"{name}-cli", "ping"], "PONG")
    wait_for(host, name, [f"{name}-cli", "set", "key", "value"], "OK")
    wait_for(host, name, [f"{name}-cli", "save"], "OK")
    host.control("restart", name)
    wait_for(host, name, [f"{name}-cli", "get", "key"], "value")


def test_postgres(host: Host) -> None:
    images.ensure("postgres")
    host.apply(manifest("postgres", process={"env": {"POSTGRES_PASSWORD": "it's a secret", "POSTGRES_DB": "app"}}))
    query = ["psql", "-U", "postgres", "-h", "/var/run/postgresql", "-d", "app", "-tA", "-c"]
    wait_for(host, "postgres", [*query, "SELECT 40 + 2"], "42")
    wait_for(host, "postgres", [*query, "CREATE TABLE t AS SELECT 4711 AS n"], "SELECT 1")
    host.control("restart", "postgres")
    wait_for(host, "postgres", [*query, "SELECT n FROM t"], "4711")
    log = host.appbox("logs", "postgres").out
    assert "database system is shut down" in log
    assert "not properly shut down" not in log


def test_mariadb(host: Host) -> None:
    images.ensure("mariadb")
    host.apply(manifest("mariadb", process={"env": {"MARIADB_ROOT_PASSWORD": "it's a secret"}}))
    query = ["mariadb", "-uroot", "-pit's a secret", "-h", "127.0.0.1", "-N", "-e"]
    wait_for(host, "mariadb", [*query, "SELECT 40 + 2"], "42")
    host.run(["appbox", "exec", "mariadb", *query, "CREATE DATABASE app"])
    host.control("restart", "mariadb")
    wait_for(host, "mariadb", [*query, "SHOW DATABASES"], "app")


def test_nginx_writes_its_logs_to_its_own_output(host: Host) -> None:
    images.ensure("nginx")
    host.apply(manifest("nginx"))
    request = "exec 3<>/dev/tcp/127.0.0.1/80; printf 'GET /?marker HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3"
    wait_for(host, "nginx", ["bash", "-c", request], "Welcome to nginx!")
    host.machine.wait_until(lambda: "GET /?marker" in host.appbox("logs", "nginx").out, 10, "the access log")
    host.control("stop", "nginx")
    host.machine.wait_until(lambda: not host.traces("nginx"), 5, "the end")
    assert "gracefully shutting down" in host.appbox("logs", "nginx").out
