"""Where a service's names come from, and what connects it, by the mode of its network."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from appbox import desired as desires
from appbox import hostnames, pasta
from appbox.locked import Shared
from tests.ground.pure import BASE, FACTS, build, locked, rootfs, spec, text

BUNDLE = "/opt/containers/web-1.0"


def network(mode: str, more: str = "") -> str:
    return f'[network]\nmode = "{mode}"\n{more}'


def mounts(found: Any) -> dict[str, str]:
    return {m["destination"]: m["source"] for m in spec(found)["mounts"] if m["destination"].startswith("/etc/")}


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("host", "host"), ("none", "none"), ("pasta", "pasta"), ("bridge:back", "bridge"), ("service:web", "service")],
)
def test_a_mode_is_of_a_kind(mode: str, kind: str) -> None:
    assert hostnames.kind(mode) == kind


@pytest.mark.parametrize(
    ("name", "hostname"),
    [("web", "web"), ("a_b.c-", "a-b.c"), ("x" * 70, "x" * 63), ("a" * 62 + ".b", "a" * 62)],
)
def test_a_service_s_name_becomes_a_host_name(name: str, hostname: str) -> None:
    assert hostnames.default_hostname(name) == hostname


@pytest.mark.parametrize(
    ("mode", "more", "hosts", "resolver"),
    [
        ("none", "", f"{BUNDLE}/.current/etc/hosts", f"{BUNDLE}/.live/resolv.conf"),
        ("host", "", f"{BUNDLE}/.live/hosts", f"{BUNDLE}/.live/resolv.conf"),
        ("host", 'dns = ["9.9.9.9"]', f"{BUNDLE}/.live/hosts", f"{BUNDLE}/.current/etc/resolv.conf"),
        ("pasta", "", "/run/appbox/web/hosts", "/run/appbox/web/resolv.conf"),
        ("pasta", 'dns = ["9.9.9.9"]', "/run/appbox/web/hosts", "/run/appbox/web/resolv.conf"),
    ],
)
def test_where_names_come_from(mode: str, more: str, hosts: str, resolver: str) -> None:
    assert mounts(build(network(mode, more))) == {
        "/etc/hosts": hosts,
        "/etc/resolv.conf": resolver,
        "/etc/hostname": f"{BUNDLE}/.current/etc/hostname",
    }


def test_hosts_and_resolvers_of_the_manifest_are_files_of_the_generation() -> None:
    found = build(network("pasta", 'dns = ["9.9.9.9", "::1"]\nhostname = "front"\nhosts = { db = "10.1.2.3" }'))
    assert text(found, "etc/hosts").splitlines() == [
        "127.0.0.1 localhost",
        "::1 localhost ip6-localhost ip6-loopback",
        "127.0.1.1 front",
        "10.1.2.3 db",
    ]
    assert text(found, "etc/resolv.conf") == "nameserver 9.9.9.9\nnameserver ::1\n"
    assert text(found, "etc/hostname") == "front\n"
    assert 'copy "$bundle/.current/etc/resolv.conf" >"$run/resolv.conf"' in text(found, "run")


@pytest.mark.parametrize(("mode", "own"), [("none", True), ("pasta", True), ("host", False), ("service:db", False)])
def test_low_ports_are_free_in_a_network_of_its_own(mode: str, *, own: bool) -> None:
    found = spec(build(network(mode)))["linux"].get("sysctl", {})
    assert found == ({"net.ipv4.ip_unprivileged_port_start": "0"} if own else {})


def test_the_manifest_s_kernel_parameters_come_last() -> None:
    found = build(f'{network("none")}[security]\nsysctl = {{ "net.ipv4.ip_unprivileged_port_start" = "80" }}\n')
    assert spec(found)["linux"]["sysctl"] == {"net.ipv4.ip_unprivileged_port_start": "80"}


def test_pasta_publishes_what_the_manifest_says_and_nothing_else() -> None:
    ports = 'ports = ["80:8080", "127.0.0.1:81:81/tcp", "[::1]:53:53/udp"]'
    found = pasta.options(locked(network("pasta", ports)))
    assert found is not None
    assert found.options == (
        "--tcp-ports 80:8080 --tcp-ports 127.0.0.1/81:81 --udp-ports ::1/53:53 --dns-forward 169.254.1.1"
    )
    closed = pasta.options(locked(network("pasta", 'dns = ["9.9.9.9"]')))
    assert closed is not None
    assert closed.options == "--tcp-ports none --udp-ports none"
    assert pasta.options(locked(network("none"))) is None


def test_the_runtime_calls_the_script_to_start_pasta() -> None:
    hook = {"path": f"{BUNDLE}/run", "args": [f"{BUNDLE}/run", "created"]}
    assert spec(build(network("pasta")))["hooks"] == {"createRuntime": [hook]}
    assert "hooks" not in spec(build(network("none")))


@pytest.mark.parametrize(
    ("kind", "hosts", "resolver"),
    [
        ("bridge", "/run/appbox/db/hosts", "/run/appbox/db/resolv.conf"),
        ("pasta", "/run/appbox/db/hosts", "/run/appbox/db/resolv.conf"),
        ("none", "/opt/containers/db/.current/etc/hosts", f"{BUNDLE}/.live/resolv.conf"),
    ],
)
def test_a_shared_network_comes_with_its_names(kind: str, hosts: str, resolver: str) -> None:
    shares = replace(locked(network("service:db")), shared=Shared("db", kind, "store"))
    found = desires.build(shares, FACTS, BASE, rootfs())
    config = spec(found)
    assert {"type": "network", "path": f"{BUNDLE}/.live/netns"} in config["linux"]["namespaces"]
    assert config["hostname"] == "store"
    assert next(m for m in config["mounts"] if m["destination"] == "/sys")["options"][0] == "rbind"
    assert (mounts(found)["/etc/hosts"], mounts(found)["/etc/resolv.conf"]) == (hosts, resolver)
    assert any("its network is that of db" in note for note in found.notes)
    unit = found.units[0].text
    assert "Requires=db.service" in unit
    assert "db.service" in unit.split("After=")[1].split("\n")[0]
