"""What the run script makes of the host's resolv.conf and hosts, in every shell that it meets."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from appbox.units import render
from appbox.units.model import Pasta, RunScript

SHELLS = [["dash"], ["busybox", "ash"]]
BRIDGE = RunScript("web", "1.0", resolver="outside", hosts="own")
PASTA = RunScript("web", "1.0", resolver="outside", hosts="own", pasta=Pasta(resolver="169.254.1.1"))


def run(shell: list[str], script: RunScript, call: str, directory: Path) -> tuple[str, str]:
    """Return what a function of the script prints, with the files of `directory` in the place of the host's."""
    text = render.template("run/names.sh.j2", script=script)
    for path in ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf", "/run/NetworkManager/no-stub-resolv.conf"):
        text = text.replace(path, str(directory / path.strip("/").replace("/", "-")))
    done = subprocess.run([*shell, "-c", f"name=web\n{text}\n{call}"], capture_output=True, text=True, check=True)
    return done.stdout, done.stderr


@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[-1])
@pytest.mark.parametrize(
    ("host", "behind", "expected"),
    [
        ("nameserver 192.0.2.53\n", "", "nameserver 192.0.2.53\n"),
        ("# by hand\n\nsearch a b\nnameserver\t9.9.9.9", "", "search a b\nnameserver 9.9.9.9\n"),
        ("nameserver 127.0.0.1\nnameserver 2001:db8::53\noptions edns0 rotate\n", "",
         "nameserver 2001:db8::53\noptions edns0 rotate\n"),
        ("nameserver 127.0.0.53\nsearch here\n", "nameserver 192.0.2.1\nsearch there\n",
         "nameserver 192.0.2.1\nsearch there\n"),
        ("nameserver ::1\nnameserver fe80::1%eth0\n", "nameserver 192.0.2.1\n", "nameserver 192.0.2.1\n"),
        ("", "nameserver 192.0.2.1\n", "nameserver 192.0.2.1\n"),
    ],
)  # fmt: skip
def test_resolvers_of_the_loopback_are_replaced(
    tmp_path: Path, shell: list[str], host: str, behind: str, expected: str
) -> None:
    (tmp_path / "etc-resolv.conf").write_text(host)
    if behind:
        (tmp_path / "run-systemd-resolve-resolv.conf").write_text(behind)
    for script in (BRIDGE, PASTA):
        assert run(shell, script, "resolvers", tmp_path) == (expected, "")


@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[-1])
@pytest.mark.parametrize("host", ["search here\nnameserver 127.0.0.1\n", None])
def test_none_is_made_up(tmp_path: Path, shell: list[str], host: str | None) -> None:
    if host is not None:
        (tmp_path / "etc-resolv.conf").write_text(host)
    search = "search here\n" if host else ""
    out, err = run(shell, BRIDGE, "resolvers", tmp_path)
    assert (out, err.count("\n")) == (search, 1)
    assert "no resolver that another network reaches" in err
    assert run(shell, PASTA, "resolvers", tmp_path) == (f"{search}nameserver 169.254.1.1\n", "")


@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[-1])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "one",
        "one\n",
        "  \\n $HOME `id` %s\ttwo \n\nthree",
        *("long\n" * lines for lines in (99, 100, 101)),
        "long\n" * 250 + "x",
    ],
)
def test_a_file_is_copied_as_it_is(tmp_path: Path, shell: list[str], text: str) -> None:
    (tmp_path / "file").write_text(text)
    found, _ = run(shell, PASTA, f'copy "{tmp_path}/file"', tmp_path)
    # A last line that does not end, ends then: more may follow it.
    assert found == (text if text.endswith("\n") or not text or text.count("\n") > 100 else f"{text}\n")
