"""What all tests share: what a test needs is said by its marker, and missing needs are an error where CI=true."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.ground import cache, images, roots, runtime_schema

# Half of what hypothesis tries by itself keeps the unit tests within seconds; `--hypothesis-profile=default` tries all.
settings.register_profile("quick", max_examples=40, deadline=None)
settings.load_profile("quick")

# Who runs this in the background of a script has the keyboard's signals ignored, and so would everything that is
# started here: then a service that is to end by SIGINT never would.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)

CI = os.environ.get("CI") == "true"

# Marker -> programs; root rights are asked for apart.
PROGRAMS = {
    "runc": ("runc",),
    "registry": ("docker-registry",),
    "images": ("mmdebstrap",),
    "init": ("mmdebstrap", "unshare", "nsenter"),
    "vm": ("qemu-system-x86_64", "mke2fs", "mmdebstrap", "apt-get", "dpkg-deb", "busybox", "docker-registry"),
}
PRIVILEGED = ("root", "runc", "images", "init", "vm")


def lacking(marker: str) -> str:
    """Return why tests with `marker` cannot run here, "" when they can."""
    if marker in PRIVILEGED and os.geteuid() != 0:
        return "needs root"
    if marker == "schema" and not runtime_schema.SCHEMA.exists():
        return f"needs {runtime_schema.SCHEMA}; ./dev test installs it"
    missing = [program for program in PROGRAMS.get(marker, ()) if shutil.which(program) is None]
    return f"needs {', '.join(missing)}; ./dev test installs it" if missing else ""


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose needs are not met; `pytest_runtest_makereport` makes a failure of it in CI."""
    for marker in item.iter_markers():
        if reason := lacking(marker.name):
            pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skipped test into a failed one where CI=true."""
    report = yield
    if CI and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and CI=true: {call.excinfo.value if call.excinfo else ''}"
    return report


@pytest.fixture(scope="session")
def image() -> Callable[[str], Path]:
    """Return the OCI layout of an image of `tests.ground.recipes`, built when it is missing."""
    return images.ensure


@pytest.fixture(scope="session")
def appbox_layer() -> Iterator[Callable[[roots.Root], Path]]:
    """Return a layer with appbox installed for a root; made once per session."""
    made: dict[Path, Path] = {}
    with cache.scratch("appbox") as scratch:

        def layer(root: roots.Root) -> Path:
            if root.environment not in made:
                path = scratch / root.environment.name
                path.mkdir()
                roots.install_appbox(root, path)
                made[root.environment] = path
            return made[root.environment]

        yield layer
