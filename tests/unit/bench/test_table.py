"""The tables of `./dev bench`: ratios, budgets and their marks."""

from __future__ import annotations

from tests.bench import table
from tests.bench.measure import Cost, Costs
from tests.bench.table import Figure, Pull

MB = 1_000_000


def costs(*seconds: float, memory: int = 50 * MB) -> Costs:
    return Costs(tuple(Cost(second, second * 1.5, memory) for second in seconds))


def pull(ours: Costs, theirs: Costs | None) -> Pull:
    return Pull("one", "one layer", {"appbox": ours, "podman": theirs, "ctr": costs(9)}, {"podman": 6}, 120 * MB)


def test_runs_are_told_by_minimum_and_median_and_the_most_memory() -> None:
    runs = Costs((Cost(3, 1, 10), Cost(1, 2, 30), Cost(2, 9, 20)))
    assert (runs.minimum, runs.median, runs.processor, runs.memory) == (1, 2, 2, 30)


def test_one_run_after_another_adds_time_and_takes_the_larger_memory() -> None:
    assert Cost(1, 2, 30) + Cost(10, 20, 3) == Cost(11, 22, 30)


def test_ratios_are_of_the_shortest_runs() -> None:
    measured = pull(costs(0.5, 5), costs(3, 4))
    assert measured.ratio("podman") == 6
    assert list(measured.missed()) == []


def test_a_peer_that_is_not_beaten_by_enough_is_marked() -> None:
    measured = pull(costs(0.5), costs(2.9))
    assert list(measured.missed()) == ["one: podman takes 5.8 times as long, which should be 6 times"]
    assert table.pull_lines(measured)[1][-2:] == ("5.8 ×", "6 × MISSED")


def test_memory_over_its_budget_is_marked() -> None:
    measured = pull(costs(0.5, memory=121 * MB), costs(9))
    assert list(measured.missed()) == ["one: 121 MB of memory, and 120 MB are allowed"]
    assert table.pull_lines(measured)[0][-1] == "120 MB MISSED"


def test_the_image_stands_in_the_first_line_only_and_every_line_has_all_cells() -> None:
    lines = table.pull_lines(pull(costs(0.5), costs(3)))
    assert [line[0] for line in lines] == ["one layer", "", ""]
    assert {len(line) for line in lines} == {len(table.PULLS)}
    assert lines[2] == ("", "ctr", "9.00 s", "9.00 s", "13.50 s", "50 MB", "18.0 ×", "")


def test_who_cannot_take_an_image_misses_nothing() -> None:
    measured = pull(costs(0.5), None)
    assert list(measured.missed()) == []
    assert table.pull_lines(measured)[1] == ("", "podman", "n/a", "", "", "", "", "")


def test_others_without_ours_have_no_ratio() -> None:
    measured = Pull("one", "one layer", {"podman": costs(3)}, {"podman": 6})
    assert list(measured.missed()) == []
    assert table.pull_lines(measured)[0][-2:] == ("", "6 ×")


def test_a_figure_may_be_as_large_as_its_budget() -> None:
    assert list(Figure("start", 10, 10).missed()) == []
    assert list(Figure("start", 10.5, 10).missed()) == ["start: 10.5 ms, and 10 ms are allowed"]
    assert list(Figure("start", 1e9, None).missed()) == []
    assert table.figure_line(Figure("start", 10.5, 10)) == ("start", "10.5 ms", "10 ms MISSED")
    assert table.figure_line(Figure("blobs", 0, 0, "")) == ("blobs", "0", "0")


def test_columns_stand_below_each_other() -> None:
    assert table.terminal(("a", "b", "c"), [("one", "2", "3"), ("", "", "4")]) == "a    b  c\none  2  3\n        4\n"


def test_markdown() -> None:
    assert table.markdown(("a", "b"), [("1", "")]) == "| a | b |\n| --- | --- |\n| 1 |  |\n"
