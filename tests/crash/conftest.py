"""The figures of the sweeps, as a table at the end: what was tried, and how often a promise was broken."""

from __future__ import annotations

import os
from typing import Any, Final

import pytest

from tests.crash.ground import leave_shared_mounts
from tests.crash.sweep import FULL, SEED, Table

_PROPERTY = "crash"


@pytest.fixture(scope="session", autouse=True)
def own_mounts() -> None:
    """Have mounts that nobody else copies: a file system has to be gone when it is unmounted."""
    if os.geteuid() == 0:
        leave_shared_mounts()


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Table:
    """Return the rows of a test; they are printed whether it succeeds or not."""
    table = Table()
    request.node.crash_figures = table
    return table


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Put the rows into the report of the test, which gets through to whoever started several processes of pytest."""
    if call.when == "call":
        table = getattr(item, "crash_figures", Table())
        item.user_properties += [(_PROPERTY, made.row()) for made in table.rows]


def rows_of(report: pytest.TestReport) -> list[dict[str, Any]]:
    if report.when != "call":
        return []
    return [value for key, value in report.user_properties if key == _PROPERTY and isinstance(value, dict)]


_COLUMNS: Final = ("operation", "kind", "fault", "points", "tried", "violations")
_line: Final = "{:<46} {:<8} {:<34} {:>7} {:>7} {:>10}".format


class Progress:
    """Prints the rows of each test as soon as it has ended: a full run takes hours."""

    def __init__(self, reporter: Any) -> None:
        self.reporter = reporter

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for row in rows_of(report):
            self.reporter.write_line(_line(*(row[key] for key in _COLUMNS)))


def pytest_sessionstart(session: pytest.Session) -> None:
    plugins = session.config.pluginmanager
    reporter = plugins.get_plugin("terminalreporter")
    if FULL and reporter is not None and not hasattr(session.config, "workerinput"):
        plugins.register(Progress(reporter), "crash progress")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the table."""
    rows = [row for key in ("passed", "failed") for r in terminalreporter.stats.get(key, []) for row in rows_of(r)]
    if not rows:
        return
    terminalreporter.section("what was tried, and how often a promise was broken")
    terminalreporter.write_line(_line("operation", "on", "fault", "points", "tried", "violations"))
    for row in sorted(rows, key=lambda row: (row["fault"], row["operation"], row["kind"])):
        terminalreporter.write_line(_line(*(row[key] for key in _COLUMNS)))
    total = [sum(row[key] for row in rows) for key in ("points", "tried", "violations")]
    terminalreporter.write_line(_line("all", "", "", *total))
    terminalreporter.write_line(
        "every point was tried" if FULL else f"a sample with seed {SEED}; ./dev crash --full tries all"
    )
