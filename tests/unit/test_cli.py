"""The command line: where global options may stand, how every end gets its exit code and its one sentence."""

from __future__ import annotations

import errno
import json
import os
import pwd
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from hypothesis import given
from hypothesis import strategies as st

from appbox import __version__, cli, commands, explain, owner
from appbox.errors import AppboxError, HostLacks
from appbox.store import paths, state

MANIFEST = 'name = "web"\nimage = "docker.io/library/web"\nversion = "1"\n[network]\nmode = "host"\n'
COMMANDS = (
    *("check", "plan", "apply", "status", "render", "remove", "start", "stop", "restart"),
    *("reload", "logs", "exec", "shell", "run", "verify", "writes", "init", "schema", "image"),
    *("lock", "outdated", "export", "import", "snapshot", "restore", "history", "rollback", "prune"),
    "doctor",
)
IMAGE_COMMANDS = ("unpack", "copy", "inspect", "diff", "tags")

Captured = pytest.CaptureFixture[str]


def end(capsys: Captured, *words: str) -> tuple[int, str, str]:
    code = cli.run(list(words))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize(
    ("words", "front", "rest"),
    [
        ("plan x --json", "--json", "plan x"),
        ("plan --root /r x -q", "--root /r -q", "plan x"),
        ("plan --root=/r x -vv", "--root=/r -vv", "plan x"),
        ("image inspect --color never oci:x", "--color never", "image inspect oci:x"),
        ("exec web ls -v --json", "", "exec web ls -v --json"),
        ("exec --json web ls --json", "--json", "exec web ls --json"),
        ("--init none exec web ls --init x", "--init none", "exec web ls --init x"),
        ("check -- --json", "", "check -- --json"),
        ("plan x --root", "", "plan x --root"),
        ("logs web -n 5 -f --quiet", "--quiet", "logs web -n 5 -f"),
        ("apply --wait x", "", "apply --wait=forever x"),
        ("apply --wait=5 x", "", "apply --wait=5 x"),
        ("apply --wait 5 x", "", "apply --wait=5 x"),
        ("apply x --wait", "", "apply x --wait=forever"),
        ("exec web sleep --wait", "", "exec web sleep --wait"),
        ("", "", ""),
    ],
)
def test_global_options_stand_where_the_user_likes(words: str, front: str, rest: str) -> None:
    assert cli.global_first(words.split()) == (front.split(), rest.split())


_GLOBAL = st.sampled_from([["--json"], ["-q"], ["-vv"], ["--root", "/r"], ["--root=/r"], ["--init", "none"]])
_OTHER = st.lists(st.sampled_from(["x.toml", "dir/", "--exit-code", "-o", "out"]), max_size=4)


@given(st.lists(_GLOBAL, max_size=4), _OTHER, st.data())
def test_moving_options_loses_none_and_keeps_their_order(
    options: list[list[str]], others: list[str], data: st.DataObject
) -> None:
    mixed: list[list[str]] = [["plan"], *([other] for other in others)]
    places = sorted(data.draw(st.integers(0, len(mixed))) for _ in options)
    for place, option in reversed(list(zip(places, options, strict=True))):
        mixed.insert(place, option)
    front, rest = cli.global_first([word for group in mixed for word in group])
    assert front == [word for option in options for word in option]
    assert rest == ["plan", *others]


@pytest.mark.parametrize("words", [["--version"], ["--version", "--json"], ["--json", "--version"]])
def test_the_version(capsys: Captured, words: list[str]) -> None:
    code, out, err = end(capsys, *words)
    assert (code, err) == (0, "")
    assert out == f"appbox {__version__}\n" if len(words) == 1 else json.loads(out) == {"version": __version__}


def test_every_command_has_help_with_an_example(capsys: Captured) -> None:
    group = typer.main.get_command(commands.app)
    assert set(group.commands) == set(COMMANDS)  # type: ignore[attr-defined]
    assert set(group.commands["image"].commands) == set(IMAGE_COMMANDS)  # type: ignore[attr-defined]
    for words in [(command,) for command in COMMANDS] + [("image", command) for command in IMAGE_COMMANDS]:
        code, out, _ = end(capsys, *words, "--help")
        assert code == 0
        assert re.search(rf"Examples?: appbox {' '.join(words)}", re.sub(r"\s+", " ", out)), words


def test_only_the_command_that_is_asked_for_is_made_and_all_where_there_is_none_of_that_name() -> None:
    made = {name: set(commands.command(name).commands) for name in ("plan", "image", "plna", "")}  # type: ignore[attr-defined]
    every = set(typer.main.get_command(commands.app).commands)  # type: ignore[attr-defined]
    assert made == {"plan": {"plan"}, "image": {"image"}, "plna": every, "": every}


@pytest.mark.parametrize(("words", "names"), [((), COMMANDS), (("image",), IMAGE_COMMANDS)])
def test_help_lists_every_command_with_a_whole_sentence(
    capsys: Captured, words: tuple[str, ...], names: tuple[str, ...]
) -> None:
    code, out, _ = end(capsys, *words, "--help")
    listed = dict(line.split(None, 1) for line in out.partition("Commands:\n")[2].partition("\n\n")[0].splitlines())
    assert (code, set(listed)) == (0, set(names))
    assert [sentence for sentence in listed.values() if not re.search(r"[^.]\.$", sentence)] == []


def test_the_shell_completes_names_of_services(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "names", lambda _: ["valkey", "web"])
    group = typer.main.get_command(commands.app)
    named = {
        name: argument
        for name, command in group.commands.items()  # type: ignore[attr-defined]
        for argument in command.params
        if argument.name == "name"
    }
    assert set(named) == {
        *("snapshot", "restore", "history", "rollback"),
        "status", "remove", "start", "stop", "restart", "reload", "logs", "exec", "shell", "run", "verify", "writes",
    }  # fmt: skip
    for name, argument in named.items():
        found = argument.shell_complete(group.make_context("appbox", [name], resilient_parsing=True), "v")
        assert [one.value for one in found] == ["valkey"], name


@pytest.mark.parametrize(
    "words",
    [
        ("bogus",),
        ("plan",),
        ("plan", "--bogus", "x"),
        ("plan", "x", "--root"),
        ("render", "x"),
        ("logs", "web", "-n", "-1"),
        ("exec", "web"),
        ("remove",),
        ("image", "bogus"),
        ("image", "unpack", "oci:x"),
        ("--init", "upstart", "status"),
        ("--color", "red", "status"),
    ],
)
def test_a_wrong_command_line_ends_with_2(capsys: Captured, words: tuple[str, ...]) -> None:
    code, out, err = end(capsys, *words)
    assert (code, out) == (2, "")
    assert err
    code, out, err = end(capsys, "--json", *words)
    assert (code, json.loads(out)["error"]["exit"]) == (2, 2)
    assert len(err.splitlines()) == 1
    assert err.startswith("appbox: ")


@pytest.mark.parametrize("words", [(), ("image",)])
def test_without_a_command_there_is_help(capsys: Captured, words: tuple[str, ...]) -> None:
    code, out, err = end(capsys, *words)
    assert code in (0, 2)
    assert "Usage: appbox" in out + err
    code, out, _ = end(capsys, "--json", *words)
    assert (code, json.loads(out)["error"]["what"]) == (2, "missing command")


@pytest.fixture
def no_owner() -> Iterator[None]:
    """Leave this process to the host, whatever a command line says."""
    yield
    owner.use(None)


@pytest.mark.parametrize(
    ("words", "front", "rest"),
    [
        ("--user", "--user=.", ""),
        ("status --user", "--user=.", "status"),
        ("status --user alice", "--user alice", "status"),
        ("--user alice status", "--user alice", "status"),
        ("status --user=alice web", "--user=alice", "status web"),
        ("exec web ls --user alice", "", "exec web ls --user alice"),
        ("exec --user alice web ls --user bob", "--user alice", "exec web ls --user bob"),
        ("check -- --user alice", "", "check -- --user alice"),
        ("plan --user alice x --json", "--user alice --json", "plan x"),
    ],
)
def test_root_names_the_user_wherever_it_likes(
    monkeypatch: pytest.MonkeyPatch, words: str, front: str, rest: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert cli.global_first(words.split()) == (front.split(), rest.split())


@pytest.mark.parametrize(
    ("words", "front", "rest"),
    [
        ("--user status", "--user=.", "status"),
        ("status --user", "--user=.", "status"),
        ("status --user web", "--user=.", "status web"),
        ("--user ME status", "--user ME", "status"),
        ("status --user ME", "--user ME", "status"),
        ("--user --json status", "--user=. --json", "status"),
        ("--user=web status", "--user=web", "status"),
    ],
)
def test_an_ordinary_user_need_not_say_the_own_name(
    monkeypatch: pytest.MonkeyPatch, words: str, front: str, rest: str
) -> None:
    me = pwd.getpwall()[-1]
    monkeypatch.setattr(os, "geteuid", lambda: me.pw_uid)
    front, rest, words = (text.replace("ME", me.pw_name) for text in (front, rest, words))
    assert cli.global_first(words.split()) == (front.split(), rest.split())


def test_a_user_without_a_password_entry_has_no_name_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 2_000_000_011)
    assert cli.global_first(["--user", "status"]) == (["--user=."], ["status"])


@pytest.mark.usefixtures("no_owner")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("status --user", "--user: root is no ordinary user; name one: --user NAME"),
        ("--user=. status", "--user: root is no ordinary user; name one: --user NAME"),
        ("--user root status", "--user root: root is no ordinary user; leave --user out"),
        ("status --user 0", "--user 0: root is no ordinary user; leave --user out"),
        ("--user no-such-user status", "no-such-user: this host has no such user; getent passwd lists"),
        ("--user 2000000011 status", "2000000011: this host has no such user"),
        ("--root /r --user nobody status", "--root: a user's services are made on the running host; leave it out"),
    ],
)
def test_root_has_to_name_an_ordinary_user(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, words: str, said: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    code, out, err = end(capsys, *words.split())
    assert (code, out) == (2, "")
    assert err.startswith(f"appbox: {said}")
    assert owner.current() is None
    code, out, _ = end(capsys, "--json", *words.split())
    assert (code, json.loads(out)["error"]["exit"]) == (2, 2)


@pytest.mark.usefixtures("no_owner")
def test_nobody_but_root_works_for_another_user(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tmp_path.chmod(0o700)
    for name in ("HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    code, out, err = end(capsys, "--user=no-such-user", "check", str(tmp_path))
    assert (code, out) == (2, "")
    assert err == "appbox: --user no-such-user: only root can work for another user\n"
    (tmp_path / "web.toml").write_text(MANIFEST)
    assert end(capsys, "--user", "check", str(tmp_path))[0] == 0
    found = owner.current()
    assert found is not None
    assert f"{tmp_path}/.local/share/appbox/containers" == paths.CONTAINERS
    assert end(capsys, "check", str(tmp_path))[0] == 0  # the next command line says for itself
    assert owner.current() is None


def test_check_says_which_manifests_are_right(capsys: Captured, tmp_path: Path) -> None:
    path = tmp_path / "web.toml"
    path.write_text(MANIFEST)
    assert end(capsys, "check", str(path)) == (0, f"{path}: web 1: ok\n", "")
    assert end(capsys, "check", "-q", str(path)) == (0, "", "")
    code, out, _ = end(capsys, "check", str(tmp_path), "--json")
    assert (code, json.loads(out)) == (
        0,
        {"ok": True, "services": [{"name": "web", "version": "1", "file": str(path)}]},
    )


def test_a_refused_manifest_names_every_problem(capsys: Captured, tmp_path: Path) -> None:
    path = tmp_path / "web.toml"
    path.write_text(MANIFEST + 'mod = "x"\n[volums]\n')
    code, out, err = end(capsys, "check", str(path))
    assert (code, out) == (3, "")
    assert err.splitlines() == [
        f'appbox: {path}:6: network.mod: unknown key; did you mean "mode"?',
        f'appbox: {path}:7: volums: unknown key; did you mean "volumes"?',
    ]
    code, out, _ = end(capsys, "check", "--json", str(path))
    error = json.loads(out)["error"]
    assert (code, error["exit"]) == (3, 3)
    assert [(p["line"], p["key"]) for p in error["problems"]] == [(6, "network.mod"), (7, "volums")]


def test_the_schema_is_json(capsys: Captured) -> None:
    code, out, _ = end(capsys, "schema")
    assert (code, json.loads(out)["type"]) == (0, "object")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (AppboxError("failed", where="here", why="because", hint="try"), 1, "here: failed: because; try"),
        (AppboxError("a\x1b[2Jb"), 1, "a\\x1b[2Jb"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "no space left on device; make room"),
        (OSError(errno.ENOENT, "No such file", "/a", None, "/b"), 1, "/a → /b: no such file"),
        (RecursionError(), 1, "nested too deeply"),
        (ZeroDivisionError("x\ny"), 1, "internal error: ZeroDivisionError: x"),
    ],
)
def test_every_error_is_in_words(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, words: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.delenv("APPBOX_DEBUG", raising=False)
    monkeypatch.setattr(cli, "_dispatch", fail)
    ended, out, err = end(capsys, "status")
    assert (ended, out) == (code, "")
    assert err.startswith("appbox: ")
    assert words in err
    assert "Traceback" not in err
    ended, out, _ = end(capsys, "status", "--json")
    assert json.loads(out)["error"]["exit"] == ended == code


def test_without_permission_root_is_what_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    error = PermissionError(errno.EACCES, "Permission denied", "/opt")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    found = explain.in_words(error)
    assert (type(found), str(found)) == (HostLacks, "/opt: permission denied; run it as root")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert type(explain.in_words(error)) is AppboxError


def test_an_interrupt_is_no_error_of_ours(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_dispatch", fail)
    assert end(capsys, "status") == (130, "", "appbox: interrupted\n")


@pytest.mark.parametrize("redirect", [">/dev/full", ">&-", "<&- >&- 2>&-"])
def test_an_output_that_takes_nothing_is_no_traceback(redirect: str) -> None:
    script = f'"$0" -m appbox.cli --json --version {redirect}'
    done = subprocess.run(["sh", "-c", script, sys.executable], check=False, capture_output=True, text=True)
    full = "full" in redirect
    assert done.returncode == int(full)
    assert done.stderr == ("appbox: standard output: cannot be written: No space left on device\n" if full else "")
