"""The list of a repository's tags: pages, limits and lies."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appbox.errors import Refused, Unavailable
from appbox.oci import registry, tags
from tests.ground import faulty
from tests.ground.faulty import Answer, Request
from tests.ground.world import HOST, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    for name in ("v2", "1.10", "1.9", "latest", "A", "_x"):
        world.content.tags[name] = "sha256:" + "0" * 64
    return world


def listed(world: World) -> list[str]:
    client = world.client()
    try:
        return client.tags()
    finally:
        client.close()


def linked(target: str, *names: str) -> faulty.Fault:
    body = json.dumps({"name": "a/b", "tags": list(names)}).encode()
    return faulty.status(200, body, Link=target)


@pytest.mark.parametrize("page", [0, 1, 2, 6, 7])
def test_tags_are_sorted_whatever_the_pages(world: World, page: int) -> None:
    world.registry.page = page
    assert listed(world) == ["1.10", "1.9", "A", "_x", "latest", "v2"]
    assert world.sent[0].url.params["n"] == "1000"
    assert len(world.sent) == (6 // page + (6 % page > 0) if page else 1)


def test_the_next_page_may_be_a_whole_url_and_other_links_are_none_of_ours(world: World) -> None:
    link = f'<https://elsewhere.test/>; rel="prev", <https://{HOST}/v2/a/b/tags/list?last=x>; title="a, b"; REL=next'
    world.registry.break_next("list", linked(link, "x"))
    assert "x" in listed(world)
    assert len(world.sent) == 2


@pytest.mark.parametrize(
    "target", ["https://evil.test/", "http://registry.test/v2/a/b/tags/list", "//evil.test/x", "file:///etc/passwd"]
)
def test_the_next_page_is_not_somewhere_else(world: World, target: str) -> None:
    world.registry.break_next("list", linked(f'<{target}>; rel="next"', "x"))
    with pytest.raises(Refused, match="list of tags leads elsewhere"):
        listed(world)
    assert len(world.sent) == 1


def test_a_list_without_an_end_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.registry.break_next("list", *[linked('</v2/a/b/tags/list?last=x>; rel="next"', "x")] * 9)
    with pytest.raises(Refused, match="no end"):
        listed(world)
    assert len(world.sent) == 2
    monkeypatch.setattr(registry, "TAGS_PAGES", 20)
    world.registry.break_next("list", *[linked(f'</v2/a/b/tags/list?p={n}>; rel="next"', f"t{n}") for n in range(99)])
    world.registry.faults["list"] = world.registry.faults["list"][7:]
    with pytest.raises(Refused, match="no end: 20 so far"):
        listed(world)
    monkeypatch.setattr(tags, "LIMIT", 10)
    world.registry.faults["list"] = [linked("", *(f"t{n}" for n in range(11)))]
    with pytest.raises(Refused, match="no end"):
        listed(world)


def test_what_is_no_tag_is_left_out(world: World) -> None:
    world.registry.break_next("list", linked("", "ok", "-no", "a b", "", "a/b", "x" * 129, "\x1b[2J", "é"))
    assert listed(world) == ["ok"]


@pytest.mark.parametrize("tags", ["null", "[]"])
def test_a_repository_without_tags(world: World, tags: str) -> None:
    world.registry.break_next("list", faulty.status(200, f'{{"name": "a/b", "tags": {tags}}}'.encode()))
    assert listed(world) == []


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"tags": {}}', b'{"tags": "x"}', b"\xff", b'{"tags":[],"tags":[]}']
)
def test_what_is_no_list_is_refused(world: World, body: bytes) -> None:
    world.registry.break_next("list", faulty.status(200, body))
    with pytest.raises(Refused, match=f"the list of tags of {HOST}/a/b"):
        listed(world)


def test_a_page_is_bounded(world: World) -> None:
    world.registry.break_next("list", faulty.status(200, b" " * ((4 << 20) + 1)))
    with pytest.raises(Refused, match="larger than 4194304 bytes"):
        listed(world)


def test_a_repository_that_is_not_there(world: World) -> None:
    client = world.client("no/such")
    with pytest.raises(Unavailable, match=rf"no repository {HOST}/no/such: repository name not known"):
        client.tags()
    client.close()


def test_passing_failures_are_passed(world: World) -> None:
    world.registry.page = 2
    world.registry.break_next("list", lambda r, a: a, faulty.status(429, Retry_After="1"))
    assert len(listed(world)) == 6


def test_a_token_may_end_between_two_pages(world: World) -> None:
    world.registry.page, world.registry.auth = 2, "bearer"

    def forget(request: Request, answer: Answer) -> Answer:
        world.registry.tokens.clear()
        return answer

    world.registry.break_next("list", lambda r, a: a, forget)
    assert len(listed(world)) == 6


@pytest.mark.parametrize(
    ("headers", "target"),
    [
        ([], None),
        ([""], None),
        (["</x>; rel=next"], "/x"),
        (['</x>;rel="next"'], "/x"),
        (['</x>; rel="prev next"'], "/x"),
        (["</x>"], None),
        (['</x>; title="rel=next"'], None),
        (['</y>; rel=first, </x>; rel="next"'], "/x"),
        (["</y>; rel=first", "</x>; rel=next"], "/x"),
        (["</x; rel=next"], None),
        (["/x; rel=next"], None),
        (["<>; rel=next"], ""),
    ],
)
def test_links(headers: list[str], target: str | None) -> None:
    assert tags.next_link(headers) == target


@given(st.lists(st.one_of(st.text(), st.text(alphabet='<>;rel="nxt, \t'))))
def test_any_link_header_is_read_to_its_end(headers: list[str]) -> None:
    tags.next_link(headers)


@pytest.mark.parametrize("part", [" ", ";", "; a", '; a="', ",", "<", "<>", "<> ;", "=\t", '"'])
def test_a_long_link_header_costs_little(part: str) -> None:
    start = time.process_time()
    tags.next_link([f"<x>;{part * (100_000 // len(part))}"])
    assert time.process_time() - start < 1
