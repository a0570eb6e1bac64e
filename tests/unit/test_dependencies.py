"""Which services need which: order, cycles, and whom a stop takes along."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appbox.dependencies import Needs, cycle, in_words, of_installed, order, requirers


def needs(*requires: str, first: tuple[str, ...] = ()) -> Needs:
    return Needs(frozenset(requires), frozenset((*requires, *first)))


def test_services_come_after_what_they_name_and_by_name_otherwise() -> None:
    graph = {"web": needs("db", first=("cache",)), "db": Needs(), "cache": needs("zoo"), "a": Needs(), "zoo": Needs()}
    assert order(graph, graph) == ["a", "zoo", "cache", "db", "web"]


def test_what_is_not_asked_for_still_orders() -> None:
    graph = {"a": needs("between"), "between": needs("z"), "z": Needs()}
    assert order(["a", "z"], graph) == ["z", "a"]


def test_a_cycle_is_named_whole() -> None:
    graph = {"x": needs("b"), "c": needs("a"), "b": needs(first=("c",)), "a": needs("b")}
    assert cycle(graph) == ("a", "b", "c")
    assert in_words(cycle(graph)) == "a → b → c → a"
    assert cycle({"a": needs("a")}) == ("a",)
    assert cycle({"a": needs("b"), "b": Needs()}) == ()


def test_a_stop_takes_along_who_requires_it_and_nobody_else() -> None:
    graph = {"db": Needs(), "app": needs("db"), "proxy": needs("app"), "friend": needs(first=("db",))}
    assert requirers(graph, "db") == {"app", "proxy"}


def test_a_bundle_says_what_was_named_and_broken_ones_nothing() -> None:
    table = {"service": {"requires": ["a", "net"], "wants": ["b"]}, "network": {"mode": "service:c"}}
    assert of_installed({"manifest": table}) == Needs(frozenset({"a", "c"}), frozenset({"a", "b", "c"}))
    for manifest in (None, 5, {"service": [], "network": "x"}, {"service": {"wants": 3}}):
        assert of_installed({"manifest": manifest}) == Needs()


NAMES = [f"s{number}" for number in range(8)]
GRAPHS = st.dictionaries(
    st.sampled_from(NAMES), st.frozensets(st.sampled_from(NAMES)).map(lambda names: Needs(frozenset(), names))
)


@given(GRAPHS)
def test_either_there_is_a_cycle_or_the_order_holds(graph: dict[str, Needs]) -> None:
    found = cycle(graph)
    if found:
        assert all(after in graph[before].first for before, after in zip(found, (*found[1:], found[0]), strict=True))
        return
    places = {name: place for place, name in enumerate(order(NAMES, graph))}
    assert sorted(places) == NAMES
    assert all(places[other] < places[name] for name, one in graph.items() for other in one.first)


def test_a_long_chain_is_no_problem() -> None:
    graph = {f"s{number:05}": needs(f"s{number + 1:05}") for number in range(20_000)}
    assert cycle(graph) == ()
    assert order(["s00000", "s20000"], graph) == ["s20000", "s00000"]
