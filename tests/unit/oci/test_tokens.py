"""Tokens: the ways to get one, how long it is used, and whom it is for."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appbox.errors import Refused, Unavailable
from appbox.oci import auth
from appbox.oci.auth import merge_scopes
from tests.ground import faulty
from tests.ground.faulty import Answer, Request
from tests.ground.tiny import layer
from tests.ground.world import HOST, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.registry.auth = "bearer"
    world.content.image("1", layers=(layer({"a": b"a" * 4096}), layer({"b": b"b" * 4096})))
    return world


def asked(world: World) -> list[httpx.Request]:
    return [request for request in world.sent if request.url.host == "auth.test"]


def ways(world: World) -> list[str]:
    return [request.method for request in asked(world)]


def test_a_refresh_token_is_posted_and_got_where_post_is_not_known(world: World) -> None:
    world.login(identitytoken="secret")
    world.pull()
    assert ways(world) == ["POST"]
    for status in (400, 401, 404, 405, 501):
        world.sent.clear()
        world.registry.user = "<token>"
        world.registry.break_next("POST token", faulty.status(status))
        world.resolve()
        assert ways(world) == ["POST", "GET"], status


def test_a_password_is_got_and_posted_where_get_is_not_known(world: World) -> None:
    world.login()
    world.pull()
    assert ways(world) == ["GET"]
    for status in (404, 405, 501):
        world.sent.clear()
        world.registry.break_next("GET token", faulty.status(status))
        world.resolve()
        assert ways(world) == ["GET", "POST"], status
        assert "Authorization" not in asked(world)[1].headers


def test_a_token_server_that_knows_one_way_only(world: World) -> None:
    for methods, entry in ((("POST",), {}), (("GET",), {"identitytoken": "secret", "username": "appbox"})):
        world.registry.token_methods = methods
        world.registry.user = "appbox"
        world.login(**entry)
        world.resolve()


def test_wrong_credentials_are_sent_once_each_way_at_most(world: World) -> None:
    for entry, expected in (
        ({"username": "appbox", "password": "wrong"}, ["GET"]),
        ({"identitytoken": "wrong"}, ["POST", "GET"]),
    ):
        world.login(**entry)
        world.sent.clear()
        with pytest.raises(Unavailable, match=r"token server refuses access: .*check the credentials"):
            world.resolve()
        assert ways(world) == expected


def test_without_credentials_one_get_is_all(world: World) -> None:
    world.registry.break_next("token", faulty.status(405))
    with pytest.raises(Unavailable, match="gives no token: it answered 405"):
        world.resolve()
    assert ways(world) == ["GET"]


def test_a_token_that_has_run_out_is_renewed_before_it_is_refused(world: World) -> None:
    world.registry.token_life = -1  # the answer says one second, of which a tenth is travel
    client = world.client()
    world.registry.token_life = 1
    client.head("1")
    world.registry.token_life = 300
    clock = time.monotonic()
    token = next(iter(client._origin._auth._tokens.values()))
    assert 0 < token.expires - clock <= 0.9
    client._origin._auth._tokens[next(iter(client._origin._auth._tokens))] = auth.Token(token.value, clock - 1)
    refused = len([r for r in world.registry.requests if r.authorization is None and "/v2/a" in r.path])
    client.head("1")
    assert len(asked(world)) == 2
    assert refused == len([r for r in world.registry.requests if r.authorization is None and "/v2/a" in r.path])
    client.close()


@pytest.mark.parametrize(
    ("said", "life"), [("null", 60), ("0", 60), ("-5", 60), ('"x"', 60), ("1e9", 60), ("100", 100)]
)
def test_how_long_a_token_lives(world: World, said: str, life: float) -> None:
    world.registry.break_next("token", faulty.body(f'{{"token": "t", "expires_in": {said}}}'.encode()))
    world.registry.tokens["t"] = 1e18
    client = world.client()
    client.head("1")
    (token,) = client._origin._auth._tokens.values()
    left = token.expires - time.monotonic()
    assert life * 0.9 - 5 < left <= life * 0.9
    client.close()


def test_threads_share_a_new_token(world: World) -> None:
    """Ten that are refused at once ask for one token together."""
    client = world.client()
    client.head("1")
    world.registry.tokens.clear()
    barrier = threading.Barrier(10)
    errors: list[BaseException] = []

    def ask() -> None:
        barrier.wait()
        try:
            client.manifest("1")
        except Unavailable as error:
            errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.close()
    assert errors == []
    assert len(asked(world)) == 2


def test_several_challenges_unsupported_first_commas_in_quotes(world: World) -> None:
    world.login()
    bearer = 'Bearer realm="https://auth.test/token",service="a, b",scope="repository:a/b:pull"'
    for challenge in (
        f'Negotiate, NTLM TlRM=, Digest realm="x, Basic realm=y", nonce="1,2", {bearer}, Basic realm="z, q"',
        f"Basic realm=z, {bearer}",
    ):
        world.registry.challenge = challenge
        world.sent.clear()
        world.resolve()
        assert dict(asked(world)[0].url.params) == {"service": "a, b", "scope": "repository:a/b:pull"}
        assert not [r for r in world.sent if r.url.host == HOST and "Basic" in r.headers.get("Authorization", "")]


def test_a_challenge_that_is_not_understood_is_an_answer(world: World) -> None:
    for challenge in ("Negotiate", "Bearer", 'Bearer service="x"', "", "Basic"):
        world.registry.challenge = challenge or " "
        with pytest.raises(Unavailable, match=r"refuses access .*401"):
            world.resolve()
    assert asked(world) == []


def test_a_challenge_that_asks_for_more_gets_it_once(world: World) -> None:
    """A registry that is never content is not asked for ever."""
    world.registry.challenge = (
        'Bearer realm="https://auth.test/token",service="s",scope="repository:a/b:pull other:x:y"'
    )
    world.registry._allowed = lambda authorization: False  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="refuses access"):
        world.resolve()
    assert len(asked(world)) <= 3
    assert asked(world)[0].url.params.get_list("scope") == ["other:x:y", "repository:a/b:pull"]


def test_a_query_in_the_realm_stays(world: World) -> None:
    world.registry.realm = "https://auth.test/token?tenant=a%26b"
    world.resolve()
    assert asked(world)[0].url.params["tenant"] == "a&b"
    assert asked(world)[0].url.params["service"] == "tests, here"


def test_a_token_server_may_not_redirect(world: World) -> None:
    world.login()
    world.registry.break_next("token", faulty.redirect("https://evil.test/token"))
    with pytest.raises(Unavailable, match="gives no token: it answered 307"):
        world.resolve()
    assert not [request for request in world.sent if request.url.host == "evil.test"]


@pytest.mark.parametrize("place", ["10.0.0.1", "192.168.1.1", "172.16.0.1", "100.64.0.1", "[fd00::1]"])
def test_a_realm_inside_is_refused_to_a_registry_outside(world: World, place: str) -> None:
    world.registry.realm = f"https://{place}/token"
    with pytest.raises(Refused, match="its address is private, and the registry's is not"):
        world.resolve()


def test_an_early_token_is_for_the_registry_only(world: World) -> None:
    """A redirect gets no token either."""
    _, data = next(iter(world.content.blobs.items()))
    digest = next(iter(world.content.blobs))
    world.others["cdn.test"] = lambda request: httpx.Response(200, stream=httpx.ByteStream(data))

    def away(request: Request, answer: Answer) -> Answer:
        return faulty.redirect("https://cdn.test/x")(request, answer)

    world.registry.break_next(digest, away)
    world.pull()
    (there,) = [request for request in world.sent if request.url.host == "cdn.test"]
    assert "Authorization" not in there.headers


@pytest.mark.parametrize(
    ("scopes", "union"),
    [
        ((), ""),
        (("repository:a:pull", ""), "repository:a:pull"),
        (("repository:a:pull", "repository:a:pull,push"), "repository:a:pull,push"),
        (("repository:b:pull", "registry:catalog:* repository:a:pull"),
         "registry:catalog:* repository:a:pull repository:b:pull"),
        (("repository:h:5000/a:pull",), "repository:h:5000/a:pull"),
        (("aws", "aws"), "aws"),
    ],
)  # fmt: skip
def test_scopes_are_united(scopes: tuple[str, ...], union: str) -> None:
    assert merge_scopes(*scopes) == union


@given(st.lists(st.text(alphabet="ab:, *", max_size=20), max_size=5))
def test_uniting_twice_changes_nothing(scopes: list[str]) -> None:
    assert merge_scopes(merge_scopes(*scopes)) == merge_scopes(*scopes)
