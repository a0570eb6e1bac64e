"""Challenges, credentials, registries.conf, addresses, proxies, waiting: the pure parts of talking to a registry."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appbox.errors import Unavailable
from appbox.oci import addresses, credentials, registries, retry
from appbox.oci.challenge import Challenge, parse_challenges
from appbox.oci.proxies import proxy_for
from appbox.oci.reference import RegistryImage
from appbox.oci.settings import Settings, Timing

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("values", "challenges"),
    [
        (["Basic"], [("basic", {})]),
        (['Basic realm="a, b"'], [("basic", {"realm": "a, b"})]),
        (['Bearer realm="r",service="s",scope="x:y:pull,push"'],
         [("bearer", {"realm": "r", "service": "s", "scope": "x:y:pull,push"})]),
        (['Negotiate, Bearer realm="r", Basic realm="b"'],
         [("negotiate", {}), ("bearer", {"realm": "r"}), ("basic", {"realm": "b"})]),
        (['Negotiate YWJj==, Basic realm=x'], [("negotiate", {}), ("basic", {"realm": "x"})]),
        (['Digest realm="d", nonce="n, Basic realm=\\"no\\"", Basic realm="yes"'],
         [("digest", {"realm": "d", "nonce": 'n, Basic realm="no"'}), ("basic", {"realm": "yes"})]),
        (["Basic realm=a", "BEARER REALM = b"], [("basic", {"realm": "a"}), ("bearer", {"realm": "b"})]),
        ([' , ,Basic realm="a" ,, '], [("basic", {"realm": "a"})]),
        (['Bearer realm="a",realm="b"'], [("bearer", {"realm": "a"})]),
        (['Bearer realm="a\\"b\\\\"'], [("bearer", {"realm": 'a"b\\'})]),
        (['Bearer realm="open'], [("bearer", {}), ("realm", {})]),
        ([""], []),
        (['"quoted"'], []),
        ([";"], []),
    ],
)  # fmt: skip
def test_challenges(values: list[str], challenges: list[tuple[str, dict[str, str]]]) -> None:
    assert parse_challenges(values) == tuple(Challenge(*challenge) for challenge in challenges)


@given(st.lists(st.one_of(st.text(), st.text(alphabet='Bearer realm=",\\ \t'))))
def test_any_header_is_read_to_its_end(values: list[str]) -> None:
    for challenge in parse_challenges(values):
        assert challenge.scheme == challenge.scheme.lower()


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("8.8.8.8", "public"),
        ("2606:4700::1", "public"),
        ("127.0.0.1", "loopback"),
        ("127.255.0.1", "loopback"),
        ("::1", "loopback"),
        ("0.0.0.0", "loopback"),
        ("::", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:10.0.0.1", "private"),
        ("64:ff9b::7f00:1", "loopback"),
        ("2002:7f00:1::", "loopback"),
        ("169.254.169.254", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("10.1.2.3", "private"),
        ("192.168.0.1", "private"),
        ("100.64.0.1", "private"),
        ("fd00::1", "private"),
        ("224.0.0.1", "private"),
        ("255.255.255.255", "private"),
        ("64:ff9b:1::7f00:1", "private"),
        ("64:ff9b:1:a:b:c:8.8.8.8", "private"),
        ("::127.0.0.1", "loopback"),
        ("::a9fe:a9fe", "link-local"),
        ("::ffff:0:10.0.0.1", "private"),
        ("fec0::1", "private"),
    ],
)
def test_kinds_of_addresses(address: str, kind: str) -> None:
    assert addresses.kind(address) == kind


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("LOCALHOST", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("127.0.0.1.example.com", False),
        ("localhost.example.com", False),
        ("::ffff:127.0.0.1", False),
        ("127.1", False),
        ("0x7f000001", False),
    ],
)
def test_what_may_speak_plain_http_unasked(host: str, loopback: bool) -> None:
    assert addresses.is_loopback(host) is loopback
    name = f"[{host}]:5000" if host.count(":") > 1 and not host.startswith("[") else host
    assert registries.Rules().plain_http(name) is loopback


BEYOND = (
    "Mon, 01 Jan 99999999999 00:00:00 GMT",
    "Mon, 01 Jan 2020 99999999999999999999:00:00 GMT",
    "Mon, 01 Jan 2020 00:00:00 +99999999999999999999",
)


def test_retry_after() -> None:
    assert retry.retry_after("7", NOW) == 7
    assert retry.retry_after("Thu, 01 Jan 2026 00:00:30 GMT", NOW) == 30
    assert retry.retry_after("Thu, 01 Jan 2025 00:00:30 GMT", NOW) == 0
    for nothing in (None, "", "soon", "-1", "1.5", "\u0661", "Thu, 99 Jan 2026", *BEYOND):
        assert retry.retry_after(nothing, NOW) is None


@given(st.one_of(st.none(), st.text()))
def test_any_retry_after_is_a_number_or_nothing(value: str | None) -> None:
    seconds = retry.retry_after(value, NOW)
    assert seconds is None or seconds >= 0


def test_delays_grow_and_are_bounded() -> None:
    timing = Timing()
    assert [retry.delay(n, None, timing, 0.0) for n in range(4)] == [0.5, 1, 2, 4]
    assert retry.delay(0, 7, timing, 1.0) == 10.5
    assert retry.delay(9, None, timing, 1.0) == retry.delay(0, 1e9, timing, 0.0) == 60


@pytest.mark.parametrize(
    ("host", "environ", "proxy"),
    [
        ("a.test", {}, None),
        ("a.test", {"https_proxy": "http://p:1"}, "http://p:1"),
        ("a.test", {"HTTPS_PROXY": "p:1"}, "http://p:1"),
        ("a.test", {"all_proxy": "http://p:1"}, "http://p:1"),
        ("a.test", {"http_proxy": "http://p:1"}, None),
        ("127.0.0.1", {"https_proxy": "http://p:1"}, None),
        ("localhost", {"https_proxy": "http://p:1"}, None),
        ("::1", {"https_proxy": "http://p:1"}, None),
        ("a.test", {"https_proxy": "http://p:1", "no_proxy": "a.test"}, None),
        ("b.a.test", {"https_proxy": "http://p:1", "NO_PROXY": "x, .a.test"}, None),
        ("b.a.test", {"https_proxy": "http://p:1", "no_proxy": "*.a.test"}, None),
        ("ba.test", {"https_proxy": "http://p:1", "no_proxy": "a.test"}, "http://p:1"),
        ("a.test", {"https_proxy": "http://p:1", "no_proxy": "*"}, None),
        ("10.1.2.3", {"https_proxy": "http://p:1", "no_proxy": "10.0.0.0/8"}, None),
        ("11.1.2.3", {"https_proxy": "http://p:1", "no_proxy": "10.0.0.0/8"}, "http://p:1"),
        ("fd00::1", {"https_proxy": "http://p:1", "no_proxy": "fd00::/8"}, None),
        ("a.test", {"https_proxy": "http://p:1", "no_proxy": "a.test:443"}, None),
        ("a.test", {"https_proxy": "http://p:1", "no_proxy": "a.test:80"}, "http://p:1"),
        ("fd00::1", {"https_proxy": "http://p:1", "no_proxy": "[fd00::1]:443"}, None),
        ("fd00::1", {"https_proxy": "http://p:1", "no_proxy": "[fd00::1]"}, None),
        ("a.test", {"https_proxy": "http://p:1", "no_proxy": "a.test:\u00b2"}, "http://p:1"),
    ],
)
def test_proxies(host: str, environ: dict[str, str], proxy: str | None) -> None:
    assert proxy_for("https", host, 443, environ) == proxy


def _auth(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _find(folder: Path, image: str, *files: tuple[str, object], **environ: str) -> credentials.Found:
    for name, document in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(document if isinstance(document, str) else json.dumps(document))
    registry, _, repository = image.partition("/")
    settings = Settings(environ={"HOME": str(folder), "XDG_RUNTIME_DIR": str(folder / "run"), **environ})
    return credentials.find(RegistryImage(registry, repository), settings)


def _user(found: credentials.Found) -> str:
    return found.credentials.user if found.credentials else ""


def test_the_longest_name_counts(tmp_path: Path) -> None:
    auths = {"h:1": "host", "h:1/team": "team", "h:1/team/app": "app", "h:1/te": "no", "https://i/v1/": "url"}
    document = {"auths": {name: {"auth": _auth(f"{user}:p:w")} for name, user in auths.items()}}
    for image, user in (
        ("h:1/team/app", "app"),
        ("h:1/team/x", "team"),
        ("h:1/tea/x", "host"),
        ("i/x", "url"),
        ("h/x", ""),
    ):
        assert _user(_find(tmp_path, image, (".docker/config.json", document))) == user
    found = _find(tmp_path, "h:1/x", (".docker/config.json", document)).credentials
    assert found == credentials.Credentials("host", "p:w")
    assert "p:w" not in repr(found)


def test_the_order_of_the_files(tmp_path: Path) -> None:
    names = ["run/containers/auth.json", ".config/containers/auth.json", ".docker/config.json"]
    for name in reversed(names):
        document = {"auths": {"h": {"auth": _auth(f"{name}:p")}}}
        assert _user(_find(tmp_path, "h/x", (name, document))) == name
    own = {"auths": {"h": {"username": "own", "password": "p"}}}
    path = str(tmp_path / "own.json")
    assert _user(_find(tmp_path, "h/x", ("own.json", own), REGISTRY_AUTH_FILE=path)) == "own"
    assert _user(_find(tmp_path, "i/x", REGISTRY_AUTH_FILE=path)) == ""
    docker = {"auths": {"i": {"auth": _auth("d:p")}}}
    assert _user(_find(tmp_path, "i/x", ("d/config.json", docker), DOCKER_CONFIG=str(tmp_path / "d"))) == "d"


def test_docker_hub_has_an_old_name(tmp_path: Path) -> None:
    document = {"auths": {"https://index.docker.io/v1/": {"auth": _auth("hub:p")}}}
    assert _user(_find(tmp_path, "docker.io/library/x", (".docker/config.json", document))) == "hub"


def test_identity_tokens(tmp_path: Path) -> None:
    document = {"auths": {"h": {"identitytoken": "t"}}}
    assert _find(tmp_path, "h/x", (".docker/config.json", document)).credentials == credentials.Credentials("", "", "t")


@pytest.mark.parametrize(
    "document",
    [
        "{",
        "[]",
        {"auths": {"h": {"auth": "!"}}},
        {"auths": {"h": {"auth": _auth("no colon")}}},
        {"auths": {"h": {"auth": 1}}},
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, document: object) -> None:
    with pytest.raises(Unavailable, match=r"\.docker/config\.json"):
        _find(tmp_path, "h/x", (".docker/config.json", document))


@pytest.mark.parametrize(
    "document", ["", {}, {"auths": {}}, {"auths": None}, {"auths": {"h": {}}}, {"auths": {"h": None}}]
)
def test_a_file_without_credentials(tmp_path: Path, document: object) -> None:
    assert _find(tmp_path, "h/x", (".docker/config.json", document)) == credentials.Found()


def test_a_helper_with_a_path_for_a_name_is_not_run(tmp_path: Path) -> None:
    found = _find(tmp_path, "h/x", (".docker/config.json", {"credHelpers": {"h": "../../x"}}))
    assert found.credentials is None
    assert "malformed" in found.note


def test_registries_conf(tmp_path: Path) -> None:
    (tmp_path / "etc/containers/registries.conf.d").mkdir(parents=True)
    (tmp_path / "etc/containers/registries.conf").write_text(
        'unqualified-search-registries = ["docker.io"]\n'
        '[[registry]]\nprefix = "a.test/x"\ninsecure = true\n'
        '[[registry]]\nlocation = "b.test:5000"\ninsecure = true\n'
        '[[registry]]\nprefix = "*.c.test"\nblocked = true\n'
    )
    (tmp_path / "etc/containers/registries.conf.d/50-x.conf").write_text(
        '[[registry]]\nprefix = "a.test/x"\ninsecure = false\n[[registry]]\nprefix = "d.test"\nlocation = "e.test/m"\n'
    )
    rules = registries.load(Settings(environ={"HOME": str(tmp_path)}, etc=str(tmp_path / "etc")))
    assert not rules.insecure("a.test/x/y")
    assert rules.insecure("b.test:5000/x")
    assert rules.insecure("b.test:5000")
    assert not rules.insecure("b.test/x")
    assert not rules.insecure("b.test:50001/x")
    assert rules.place(RegistryImage("d.test", "a/b")).image == RegistryImage("e.test", "m/a/b")
    assert rules.place(RegistryImage("dd.test", "a/b")).image == RegistryImage("dd.test", "a/b")
    with pytest.raises(Unavailable, match="blocked"):
        rules.place(RegistryImage("x.c.test:1", "a"))
    rules.place(RegistryImage("c.test", "a"))


@pytest.mark.parametrize(
    "text",
    [
        "[",
        "registry = 1",
        "[[registry]]\ninsecure = true",
        '[[registry]]\nprefix = "a"\ninsecure = "true"',
        "registry = [1]",
    ],
)
def test_a_bad_registries_conf_is_named(text: str) -> None:
    with pytest.raises(Unavailable, match=r"^/etc/x"):
        registries.parse(text.encode(), "/etc/x")


def test_a_registries_conf_is_read_whole_or_not_at_all(tmp_path: Path) -> None:
    """What is blocked behind the limit would be let through."""
    (tmp_path / "etc/containers").mkdir(parents=True)
    rule = '[[registry]]\nprefix = "b.test"\nblocked = true\n'
    (tmp_path / "etc/containers/registries.conf").write_text("# filler\n" * 120_000 + rule)
    with pytest.raises(Unavailable, match="larger than"):
        registries.load(Settings(environ={"HOME": str(tmp_path)}, etc=str(tmp_path / "etc")))


def test_a_registries_conf_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "CONTAINERS_REGISTRIES_CONF": str(tmp_path / "none.conf")}
    with pytest.raises(Unavailable, match=r"none\.conf: cannot be read"):
        registries.load(Settings(environ=environ, etc=str(tmp_path / "etc")))


@pytest.mark.parametrize("port", [80, 443])
def test_insecure_counts_with_the_usual_port_written_out(port: int) -> None:
    scheme, other = ("http", "https") if port == 80 else ("https", "http")
    assert set(registries.spellings(scheme, "a.test")) == {"a.test", f"a.test:{port}"}
    assert set(registries.spellings(scheme, f"[::1]:{port}")) == {"[::1]", f"[::1]:{port}"}
    assert registries.spellings(other, f"a.test:{port}") == (f"a.test:{port}",)
    assert registries.spellings(scheme, "a.test:5000") == ("a.test:5000",)


def test_a_location_that_is_none_is_named() -> None:
    rules = registries.Rules((registries.Rule("a.test", "not a host"),))
    with pytest.raises(Unavailable, match="bad location"):
        rules.place(RegistryImage("a.test", "x"))


def test_the_older_registries_conf() -> None:
    text = b'[registries.insecure]\nregistries = ["a.test"]\n[registries.block]\nregistries = ["b.test"]\n'
    rules = registries.Rules(tuple(registries.parse(text, "x")))
    assert rules.insecure("a.test/x")
    with pytest.raises(Unavailable):
        rules.place(RegistryImage("b.test", "x"))
