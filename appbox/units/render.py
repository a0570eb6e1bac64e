"""Templates to text. The templates (`generators/`, linked here as `templates`) lay out; Python decides what is in them.

A last guard stands at the seam: whatever a template prints has to consist of characters that mean nothing to a shell,
to systemd or to OpenRC, or rendering fails. It cannot trigger unless a value of `model` forgot to check itself.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FunctionLoader, StrictUndefined

from appbox.units.files import marker
from appbox.units.model import RunScript, When, success_statuses

OVERLAY: Final = "redirect_dir=nofollow,metacopy=off,index=off,xino=off"
"""What a lower directory of foreign origin must not ask for, and what differs from kernel to kernel, is settled."""

USER_OVERLAY: Final = "userxattr,index=off,xino=off"
"""The same where an ordinary user mounts it: `userxattr` alone lets neither be asked for (overlayfs.rst)."""

_TEMPLATES: Final = Path(__file__).with_name("templates")
_INCLUDED: Final = re.compile(r'^\{% include "([a-z0-9/.-]+)" %\}\n', re.MULTILINE)
_HARMLESS: Final = re.compile(r"[A-Za-z0-9 ./_:;,=+#-]*", re.ASCII)


def run_script(script: RunScript) -> str:
    """Return the POSIX script that starts this version of a service; it is to be executable."""
    own = script.rootless is not None and not script.rootless.by_root
    memory = script.states if own else "/run"
    return template(
        "run/run.sh.j2",
        script=script,
        marker=marker(script.name),
        overlay=USER_OVERLAY if script.rootless else OVERLAY,
        manager=" --user" if own else "",
        openrc=f"{memory}/openrc",
        supervised=f"{memory}/supervise",
        success=success_statuses(script.stop_signal),
    )


def template(name: str, **values: Any) -> str:
    """Render the template `name` with `values`. Raises jinja2.UndefinedError for one that is missing."""
    return environment().get_template(name).render(**values)


SYNTAX: Final[dict[str, Any]] = {
    "trim_blocks": True,
    "lstrip_blocks": True,
    "keep_trailing_newline": True,
    # `{#` is a parameter's length to a shell.
    "comment_start_string": "{##",
    "comment_end_string": "##}",
}
"""How templates are written; see jinja2.Environment."""


@cache
def environment() -> Environment:
    """Return what knows the templates and makes text of them."""
    return Environment(
        loader=FunctionLoader(_source),
        autoescape=False,  # noqa: S701 - shell and units are not HTML; `harmless` is stricter
        undefined=StrictUndefined,
        finalize=harmless,
        **SYNTAX,
    )


def harmless(value: object) -> object:
    """Return `value` if a template may print it; raises ValueError for text that could mean something."""
    if not isinstance(value, When) and not _HARMLESS.fullmatch(str(value)):
        raise ValueError(f"free text in a unit: {str(value)!r}")
    return value


def _source(name: str) -> str:
    """Return the text of a template with those in it that are included on lines of their own.

    Jinja2 would give each of them a context of its own at each rendering, which takes longer than all the rest.
    """
    # By its path, as Python finds its modules: importlib.resources would load ten more of them.
    text = (_TEMPLATES / name).read_text(encoding="utf-8")
    return _INCLUDED.sub(lambda found: _source(found[1]), text)
