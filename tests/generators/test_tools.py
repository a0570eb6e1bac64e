"""Generated scripts start nothing that Alpine's busybox lacks: tests/ground/tools.toml has what they may start."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ground import shell_words

TEMPLATES = Path(__file__).parents[2] / "generators"
SCRIPTS = sorted([*TEMPLATES.glob("run/*.j2"), TEMPLATES / "openrc/init.j2"])
TABLE = tomllib.loads(Path(shell_words.__file__).with_name("tools.toml").read_text(encoding="utf-8"))


def script(path: Path) -> str:
    """Return a template with all its branches, one behind the other, as a shell would read it."""
    text = path.read_text(encoding="utf-8").replace("{{ marker }}", "# marker").replace("{{ manager }}", " --user")
    text = re.sub(r"\{##.*?##\}|^\{%.*?%\}\n", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"\{\{.*?\}\}", "X", re.sub(r"\{%.*?%\}", " ", text))


FUNCTIONS = {name for path in SCRIPTS for name in shell_words.functions(script(path))}


def calls() -> Iterator[tuple[Path, shell_words.Call]]:
    """Yield all that scripts start but their own functions, and run scripts."""
    for path in SCRIPTS:
        for call in shell_words.calls(script(path)):
            if call.name not in FUNCTIONS and not call.name.endswith('/run"'):
                yield path, call


def test_every_program_is_in_the_table_with_its_options() -> None:
    known = {*TABLE["busybox"], *TABLE["others"], *TABLE["variables"]}
    words = {*TABLE["shell"]["words"], *TABLE["openrc"]["words"]}
    for path, call in calls():
        assert call.name in known | words, f"{path}: {call}"
        if call.name in TABLE["busybox"]:
            assert call.options() <= set(TABLE["busybox"][call.name]), f"{path}: {call}"


def test_nothing_in_the_table_is_out_of_use() -> None:
    used = {call.name for _, call in calls()} | {"awk"}  # its name is in "$@"
    for kind in ("busybox", "others", "variables"):
        assert TABLE[kind].keys() <= used
    assert {*TABLE["shell"]["words"], *TABLE["openrc"]["words"]} <= used


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a; b && c || d | e & f", "a b c d e f"),
        ("if a; then b; elif c; then d; else e; fi", "a b c d e"),
        ("while a; do b; done <c >d 2>&1", "a b"),
        ("until ! a; do { b; }; done; (c)", "a b c"),
        ("for x in 1 $(a b); do c; done", "c a"),
        ('A=1 B="$(a "$(b)")" c "$(d)" >"$(e)"', "c a d e b"),
        ("case $(a) in b) c ;; d | e) f ;; *) g ;; esac; h", "c f g h a"),
        ("f() { a; }; b # c\nd \\\n e '; f' \"; g\"", "a b d"),
        (
            'timeout -k 1 2 nsenter -t "$1" -n a b; exec env -i A=b xargs -0 -s 9 c',
            "timeout nsenter a exec env xargs c",
        ),
        ("unshare -m --propagation slave a b; nc h 1 -e sh -c 'c; d' sh", "unshare a nc sh c d"),
        ("echo $((1 + 2)) ${a#*\"b\"} ${a##*'c'}; d", "echo d"),
    ],
)
def test_words_are_found_where_commands_are(text: str, names: str) -> None:
    assert sorted(call.name for call in shell_words.calls(text)) == sorted(names.split())


def test_options_are_told_apart() -> None:
    (call,) = shell_words.calls("mount -n -t tmpfs --bind -rf x - -- -1")
    assert call.options() == {"-n", "-t", "--bind", "-r", "-f", "-1"}
