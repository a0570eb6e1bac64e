"""One host for all tests of a class, and the log of what happened on it, told at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.vm.guest import Guest

LOG = "vm-log"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is below this directory."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.vm)
            item.add_marker(pytest.mark.timeout(3600))  # minutes, unless the processors are shared with others


@pytest.fixture(scope="class")
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    """Return a booted host on which appbox was installed."""
    with Guest(request.cls.init) as booted:
        with booted.step("booted"):
            booted.boot()
        booted.install()
        yield booted


@pytest.fixture(autouse=True)
def log(guest: Guest, record_property: Callable[[str, object], None]) -> Iterator[None]:
    """Give what a test has added to the log to its report."""
    yield
    for line in guest.log:
        record_property(LOG, line)
    guest.log.clear()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell the logs, each in its order."""
    reports = [report for found in terminalreporter.stats.values() for report in found]
    ended = [report for report in reports if getattr(report, "when", "") == "teardown"]
    lines = [str(text) for report in ended for name, text in report.user_properties if name == LOG]
    if lines:
        terminalreporter.section("what the virtual machines did")
        for line in sorted(lines, key=lambda line: line[:8]):  # the sort is stable
            terminalreporter.line(line)
