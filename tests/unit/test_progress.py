"""How far a download is: bars where a terminal shows them, lines elsewhere, nothing where nobody wants to know."""

from __future__ import annotations

import os
import sys

import pytest

from appbox.oci.digest import Digest
from appbox.progress import progress
from appbox.session import Options

SMALL, LARGE = (Digest.parse(f"sha256:{digit * 64}") for digit in "12")
LINES = "    layer 111111111111 500 bytes\n    layer 222222222222 2.0 MB\n"


def download(options: Options) -> bool:
    """Show what a download of two layers shows; return whether it was asked to."""
    with progress(options) as show:
        if show is None:
            return False
        show(SMALL, 0, 500)
        show(LARGE, 1_000_000, 2_000_000)
        show(SMALL, 500, 500)
        show(LARGE, 2_000_000, 2_000_000)
        show(LARGE, 2_000_000, 2_000_000)
    return True


def on_terminal(monkeypatch: pytest.MonkeyPatch, options: Options, **environment: str) -> str:
    """Return what a terminal of 100 columns gets to see."""
    for name in ("NO_COLOR", "TERM", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "100", **environment}.items():
        monkeypatch.setenv(name, value)
    ours, theirs = os.openpty()
    os.set_blocking(ours, False)
    with (
        open(ours, "rb", buffering=0) as screen,
        open(theirs, "w", encoding="utf-8") as terminal,
        monkeypatch.context() as patch,
    ):
        patch.setattr(sys, "stdout", terminal)
        download(options)
        terminal.flush()
        return (screen.read() or b"").decode().replace("\r\n", "\n")


def test_a_terminal_shows_a_bar_for_each_layer_and_takes_it_away(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = on_terminal(monkeypatch, Options())
    assert "layer 111111111111" in shown
    assert "layer 222222222222" in shown
    assert "━" in shown
    assert "2.0/2.0 MB" in shown
    assert "\x1b[3" in shown  # in colour
    assert shown.endswith("\x1b[1A\x1b[2K")  # up, and the line is erased


@pytest.mark.parametrize(
    ("options", "environment"),
    [(Options(color="never"), {}), (Options(), {"NO_COLOR": "1"})],
    ids=["option", "environment"],
)
def test_bars_without_colours(monkeypatch: pytest.MonkeyPatch, options: Options, environment: dict[str, str]) -> None:
    shown = on_terminal(monkeypatch, options, **environment)
    assert "━" in shown
    assert "\x1b[3" not in shown


def test_a_terminal_that_cannot_go_back_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    assert on_terminal(monkeypatch, Options(), TERM="dumb") == LINES
    assert on_terminal(monkeypatch, Options(color="always"), TERM="dumb") == LINES


@pytest.mark.parametrize("color", ["auto", "always", "never"])
def test_elsewhere_each_layer_is_a_line_when_it_is_done(capsys: pytest.CaptureFixture[str], color: str) -> None:
    assert download(Options(color=color))
    assert capsys.readouterr().out == LINES


@pytest.mark.parametrize("options", [Options(verbosity=-1), Options(json=True)])
def test_quiet_and_json_show_nothing(monkeypatch: pytest.MonkeyPatch, options: Options) -> None:
    assert not download(options)
    assert on_terminal(monkeypatch, options) == ""
