"""The figures of the sweeps, as a table at the end: what was tried, and how often a promise was broken."""

from __future__ import annotations

import os
from typing import Any

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


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the table."""
    reports = [r for key in ("passed", "failed") for r in terminalreporter.stats.get(key, [])]
    rows = [value for r in reports if r.when == "call" for key, value in r.user_properties if key == _PROPERTY]
    if not rows:
        return
    terminalreporter.section("what was tried, and how often a promise was broken")
    line = "{:<46} {:<8} {:<34} {:>7} {:>7} {:>10}".format
    terminalreporter.write_line(line("operation", "on", "fault", "points", "tried", "violations"))
    for row in sorted(rows, key=lambda row: (row["fault"], row["operation"], row["kind"])):
        terminalreporter.write_line(
            line(*(row[k] for k in ("operation", "kind", "fault", "points", "tried", "violations")))
        )
    total = [sum(row[key] for row in rows) for key in ("points", "tried", "violations")]
    terminalreporter.write_line(line("all", "", "", *total))
    terminalreporter.write_line(
        "every point was tried" if FULL else f"a sample with seed {SEED}; ./dev crash --full tries all"
    )
