"""The command line: options in, exit codes out. What commands do is in the modules that they call.

Modules are imported where they are used: `appbox --version` and `appbox status` answer before pydantic is loaded.
"""

from __future__ import annotations

import gc
import os
import re
import signal
import sys
from types import ModuleType
from typing import Final

_GLOBAL_FLAGS: Final = {"--json", "--quiet", "--verbose"}
_GLOBAL_LETTERS: Final = re.compile(r"-[qv]+")
_GLOBAL_VALUES: Final = {"--root", "--init", "--color", "--user"}
MYSELF: Final = "."
"""What a bare --user becomes, before the command line is read: nobody can be called that."""
_PASSING_ON: Final = {"exec"}
"""Commands whose words after the service's name belong to the program that they start."""


def main() -> None:
    """Run the command line and exit."""
    _open_standard()
    code = 0
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except OSError as error:
        # Who reads no further has read what it wanted: `appbox plan --json | head`. The rest has nowhere to go.
        if not isinstance(error, BrokenPipeError):
            sys.stderr.write(f"appbox: standard output: cannot be written: {error.strerror}\n")
            code = code or 1
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    gc.freeze()  # Python would look for cycles in all that is left before it throws it away: a tenth of a plan
    sys.exit(code)


def _open_standard() -> None:
    """Let no file that is opened later become standard output, where that was closed: `appbox status >&-`."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, which is this one
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)


def run(arguments: list[str]) -> int:
    """Run a command line and return its exit code. No traceback reaches the user."""
    if arguments == ["--version"]:
        from appbox import __version__  # noqa: PLC0415

        sys.stdout.write(f"appbox {__version__}\n")
        return 0
    from appbox.errors import AppboxError, printable  # noqa: PLC0415

    front, rest = global_first(arguments)
    json = "--json" in front
    if json and rest == ["--version"]:
        rest.append("status")  # the command line wants some command; the version is shown instead of it
    # Modules, manifests and a million tar members make few cycles; looking for them takes a tenth of a plan.
    gc.set_threshold(200_000, 20, 100)
    signal.signal(signal.SIGTERM, _terminated)
    _without_plugins()
    try:
        return _dispatch([*front, *rest], rest[0] if rest else "", json=json)
    except AppboxError as error:
        return _fail(error, json=json)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still buffered has nowhere to go
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("appbox: interrupted\n")
        return 130
    except OSError as error:
        from appbox.explain import in_words  # noqa: PLC0415

        return _fail(in_words(error), json=json)
    except RecursionError:
        return _fail(AppboxError("the input is nested too deeply"), json=json)
    except Exception as error:  # the last line of defence: a fault of ours, still one sentence
        if os.environ.get("APPBOX_DEBUG"):
            raise
        why = printable(f"{type(error).__name__}: {error}")[:500]
        return _fail(
            AppboxError("internal error", why=why, hint="APPBOX_DEBUG=1 shows where; please report it"), json=json
        )


def _without_plugins() -> None:
    """Keep pydantic from looking for plugins: that costs 20 ms, and somebody's plugin is not ours.

    Half of the time is for what its module imports before that looks at the variable, so one without plugins is put in
    its place. It is pydantic's own affair; should it be somewhere else one day, that half is spent again.
    """
    os.environ["PYDANTIC_DISABLE_PLUGINS"] = "1"
    stand_in = ModuleType("pydantic.plugin._loader")
    vars(stand_in)["get_plugins"] = tuple
    sys.modules.setdefault(stand_in.__name__, stand_in)


def _terminated(number: int, _: object) -> None:
    """Let what is under way clean up, as Ctrl-C does."""
    raise SystemExit(128 + number)


def _dispatch(arguments: list[str], name: str, *, json: bool) -> int:
    from appbox.commands import Misuse, command  # noqa: PLC0415

    if not json:
        try:
            command(name)(arguments, prog_name="appbox")
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 1
        return 0
    from appbox.errors import UsageError  # noqa: PLC0415

    try:
        code = command(name)(arguments, prog_name="appbox", standalone_mode=False)
    except Misuse as error:
        what = error.format_message().rstrip(".")
        what = "missing command" if what.startswith("Usage:") else what[:1].lower() + what[1:]
        raise UsageError(what, hint="appbox --help lists the commands") from error
    return code if isinstance(code, int) else 0


def global_first(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Return the global options, wherever the user put them, and the other arguments.

    What follows `--`, and the words of the program that `exec` starts, stay where they are.
    """
    front: list[str] = []
    rest: list[str] = []
    words: list[str] = []
    index = 0
    while index < len(arguments):
        word = arguments[index]
        if word == "--" or (words[:1] and words[0] in _PASSING_ON and len(words) > 1):
            rest += arguments[index:]
            break
        name, has_value, _ = word.partition("=")
        if word in _GLOBAL_FLAGS or _GLOBAL_LETTERS.fullmatch(word) or (name in _GLOBAL_VALUES and has_value):
            front.append(word)
        elif word == "--user" and not _names_user(arguments[index + 1 : index + 2]):
            front.append(f"--user={MYSELF}")
        elif word in _GLOBAL_VALUES and index + 1 < len(arguments):
            front += arguments[index : index + 2]
            index += 1
        else:
            if word == "--wait":  # an option whose value may be left out: it would take the next word for that
                timed = arguments[index + 1 : index + 2]
                word = f"--wait={timed[0] if timed and timed[0].isdecimal() else 'forever'}"
                index += 1 if timed and timed[0].isdecimal() else 0
            rest.append(word)
            if not word.startswith("-"):
                words.append(word)
        index += 1
    return front, rest


def _names_user(following: list[str]) -> bool:
    """Return whether what follows a --user is a name: root has to give one, and others mean themselves anyway."""
    if os.geteuid() == 0:
        return bool(following)
    import pwd  # noqa: PLC0415 - few command lines have this option

    try:
        return following == [pwd.getpwuid(os.geteuid()).pw_name]
    except KeyError:
        return False


def _fail(error: Exception, *, json: bool) -> int:
    from appbox.errors import AppboxError  # noqa: PLC0415

    assert isinstance(error, AppboxError)  # noqa: S101
    if json:
        from appbox.session import as_json  # noqa: PLC0415

        sys.stdout.write(as_json({"error": error.as_dict()}))
    for line in str(error).splitlines() or [""]:
        sys.stderr.write(f"appbox: {line}\n")
    return error.exit_code


if __name__ == "__main__":
    main()
