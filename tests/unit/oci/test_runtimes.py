"""Which versions of the runtime may run services, by what they say of themselves."""

from __future__ import annotations

import pytest

from appbox.oci import runtimes

DEBIAN_12 = "runc version 1.1.5+ds1\ncommit: 1.1.5+ds1-1+deb12u1\nspec: 1.0.2-dev\ngo: go1.19.8\nlibseccomp: 2.5.4\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("runc version 1.0.0-rc95\n", "CVE-2021-30465"),
        ("runc version 1.0.0~rc93+ds1\ncommit: 1.0.0~rc93+ds1-5+deb11u3\n", "CVE-2021-30465"),
        ("runc version 0.1.1\n", "CVE-2021-30465"),
        ("runc version 1.0.0\n", "CVE-2024-21626"),
        ("runc version 1.1.11\ncommit: v1.1.11-0-g4bccb38c\n", "CVE-2024-21626"),
        ("runc version 1.1.12-rc.1\n", "CVE-2024-21626"),
        ("runc version 1.1.5+ds1\ncommit: 1.1.5+ds1-1+b4\n", "CVE-2024-21626"),
        ("runc version 1.1.7-0ubuntu1~22.04.1\n", "CVE-2024-21626"),
        ("crun version 0.10.4\n", "CVE-2019-18837"),
    ],
)
def test_these_are_too_old(text: str, words: str) -> None:
    found = runtimes.parse(text)
    assert found is not None
    assert words in runtimes.unsafe(found)


@pytest.mark.parametrize(
    "text",
    [
        DEBIAN_12,
        "runc version 1.1.7-0ubuntu1~22.04.2\ncommit: \n",
        "runc version 1.1.12\n",
        "runc version 1.1.15+ds1\ncommit: 1.1.15+ds1-2+b4\n",
        "runc version 1.2.0-rc.2\n",
        "runc version v1.4.0\n",
        "crun version 1.8.1\ncommit: f8a096be060b22ccd3d5f3ebe44108517fbf6c30\n",
    ],
)
def test_these_may_run_services(text: str) -> None:
    found = runtimes.parse(text)
    assert found is not None
    assert runtimes.unsafe(found) == ""


@pytest.mark.parametrize(
    "text", ["", "runc", "docker version 1.2.3", "runc version one", "runc version 1", "\nrunc version 1.2.3"]
)
def test_words_that_are_not_understood(text: str) -> None:
    assert runtimes.parse(text) is None


@pytest.mark.parametrize(
    ("version", "fixed"),
    [
        ("1.1.99", False),
        ("1.2.7", False),
        ("1.2.8", True),
        ("1.3.2", False),
        ("1.3.3", True),
        ("1.4.0", True),
        ("1.4.1", True),
        ("2.0.0", True),
    ],
)
def test_the_faults_of_2025_are_told(version: str, *, fixed: bool) -> None:
    found = runtimes.parse(f"runc version {version}\n")
    assert found is not None
    note = runtimes.note(found)
    assert (not note) is fixed
    assert fixed or note.startswith(f"runc {version} lacks the fixes of CVE-2025-31133")


@pytest.mark.parametrize(("version", "fixed"), [("1.8.1", False), ("1.27.1", False), ("1.28", True), ("2.0", True)])
def test_the_fault_of_crun_is_told(version: str, *, fixed: bool) -> None:
    found = runtimes.parse(f"crun version {version}\ncommit: 1\n")
    assert found is not None
    assert (not runtimes.note(found)) is fixed
    assert fixed or runtimes.note(found).startswith(f"{found} lacks the fix of CVE-2026-47766")


def test_a_crun_that_does_not_say_its_version_may_run_services() -> None:
    assert runtimes.parse("crun version UNKNOWN\n") is None
    assert runtimes.unsafe(runtimes.UNKNOWN_CRUN) == ""
    assert "does not say which version it is" in runtimes.note(runtimes.UNKNOWN_CRUN)


def test_mounts_with_ids_of_their_own_came_with_1_2() -> None:
    can = {
        v: runtimes.parse(f"{v}\n") for v in ("runc version 1.1.15", "runc version 1.2.0-rc.1", "runc version 1.2.0")
    }
    assert [found is not None and found.idmapped_mounts for found in can.values()] == [False, False, True]


def test_it_is_called_by_its_name() -> None:
    assert [str(runtimes.parse(text)) for text in (DEBIAN_12, "runc version 1.2.0-rc.1")] == [
        "runc 1.1.5",
        "runc 1.2.0-rc",
    ]
