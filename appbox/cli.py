"""The command line: options in, exit codes out. What commands do is in the modules that they call.

Modules are imported where they are used: `appbox --version` and `appbox status` answer before pydantic is loaded.
"""

from __future__ import annotations

import os
import sys
from typing import Final

_GLOBAL_FLAGS: Final = {"--json", "-q", "--quiet", "-v", "--verbose", "--user"}
_GLOBAL_VALUES: Final = {"--root", "--init", "--color"}
_PASSING_ON: Final = {"exec"}
"""Commands whose words after the service's name belong to the program that they start."""


def main() -> None:
    """Run the command line and exit."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run a command line and return its exit code. No traceback reaches the user."""
    if arguments in (["--version"], ["version"]):
        from appbox import __version__  # noqa: PLC0415

        print(f"appbox {__version__}")  # noqa: T201
        return 0
    from appbox.errors import AppboxError, printable  # noqa: PLC0415

    try:
        return _dispatch(global_first(arguments))
    except AppboxError as error:
        return _fail(error, arguments)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still buffered has nowhere to go
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("appbox: interrupted\n")
        return 130
    except OSError as error:
        return _fail(_in_words(error), arguments)
    except RecursionError:
        return _fail(AppboxError("the input is nested too deeply"), arguments)
    except Exception as error:  # the last line of defence: a fault of ours, still one sentence
        if os.environ.get("APPBOX_DEBUG"):
            raise
        why = printable(f"{type(error).__name__}: {error}")[:500]
        return _fail(
            AppboxError("internal error", why=why, hint="APPBOX_DEBUG=1 shows where; please report it"), arguments
        )


def _dispatch(arguments: list[str]) -> int:
    from appbox.commands import app  # noqa: PLC0415

    try:
        app(arguments, prog_name="appbox")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


def global_first(arguments: list[str]) -> list[str]:
    """Return the arguments with global options moved before the command, wherever the user put them.

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
        if word in _GLOBAL_FLAGS or (name in _GLOBAL_VALUES and has_value):
            front.append(word)
        elif word in _GLOBAL_VALUES:
            front += arguments[index : index + 2]
            index += 1
        else:
            rest.append(word)
            if not word.startswith("-"):
                words.append(word)
        index += 1
    return front + rest


def _in_words(error: OSError) -> Exception:
    from appbox.errors import AppboxError  # noqa: PLC0415

    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    hints = {
        28: "make room and run the same command again",
        122: "make room and run the same command again",
        13: "run it as root",
    }
    return AppboxError(
        error.strerror or str(error) or type(error).__name__,
        where=" → ".join(names),
        hint=hints.get(error.errno or 0, ""),
    )


def _fail(error: Exception, arguments: list[str]) -> int:
    from appbox.errors import AppboxError  # noqa: PLC0415

    assert isinstance(error, AppboxError)  # noqa: S101
    if "--json" in arguments:
        from appbox.session import as_json  # noqa: PLC0415

        sys.stdout.write(as_json({"error": error.as_dict()}))
    for line in str(error).splitlines() or [""]:
        sys.stderr.write(f"appbox: {line}\n")
    return error.exit_code


if __name__ == "__main__":
    main()
