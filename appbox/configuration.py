"""Configuration files: a manifest's text, file or template to the bytes that the container sees. Pure.

Templates run in Jinja2's sandbox with strict undefined names: a typing error is an error, never an empty value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal

from appbox import toml_source
from appbox.document import Document
from appbox.errors import ManifestError, Problem
from appbox.toml_source import Path

if TYPE_CHECKING:
    from jinja2 import Environment, Template

Newline = Literal["\n", "\r\n"]

SIZE_LIMIT: Final = 1 << 20
"""Bytes of one configuration file or template, before and after rendering."""


@dataclass(frozen=True, slots=True)
class ConfigSource:
    """One configuration file as it was found: `data` are the bytes of the text, file or template.

    `origin` is the path of the template or file, "" for a text; `key` is where the manifest names it. `executable`: it
    comes from a directory, and its owner may execute it there.
    """

    data: bytes
    template: bool
    origin: str
    document: Document
    key: Path
    executable: bool = False

    @property
    def table(self) -> str:
        """The path of the table [config.PATH] that it belongs to."""
        return str(self.key[1])

    def mode(self, mode: int) -> int:
        """Return the permissions that it gets where its table says `mode`: who may read a program may execute it."""
        return mode | (mode & 0o444) >> 2 if self.executable else mode


def render(source: ConfigSource, variables: Mapping[str, Any], facts: Mapping[str, Any]) -> bytes:
    """Return the file's bytes; ManifestError naming the template's file and line when it cannot be rendered."""
    if not source.template:
        return source.data
    import jinja2  # noqa: PLC0415  # imported here: most commands render nothing

    newline = _newline(source)
    try:
        template = _compiled(source.data.decode("utf-8"), newline)
        data = template.render(**variables, vars=dict(variables), facts=dict(facts)).encode("utf-8")
    except jinja2.TemplateSyntaxError as error:
        raise _refuse(source, f"template syntax: {error.message}", error.lineno) from error
    except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        raise _refuse(source, str(error) or type(error).__name__, _line_of(error)) from error
    except (RecursionError, MemoryError) as error:
        raise _refuse(source, "the template needs too much memory", 0) from error
    if len(data) > SIZE_LIMIT:
        raise _refuse(source, f"the rendered file is larger than {SIZE_LIMIT} bytes", 0)
    return data


@lru_cache(maxsize=64)
def _compiled(text: str, newline: Newline) -> Template:
    """Return a template ready to be rendered. Many services may share one, and compiling takes ten times as long."""
    return _environment(newline).from_string(text)


@cache
def _environment(newline: Newline) -> Environment:
    import jinja2.sandbox  # noqa: PLC0415

    class Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
        """Jinja2's sandbox, which also refuses to multiply into more than a file may hold."""

        intercepted_binops = frozenset(("*", "**"))

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            del context
            return _bounded(operator, left, right)

    return Sandbox(
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        newline_sequence=newline,
        autoescape=False,  # not HTML
    )


def _newline(source: ConfigSource) -> Newline:
    """Return how the lines of a template end: Jinja2 makes all ends of lines alike, which must change none."""
    returns, ends = source.data.count(b"\r"), source.data.count(b"\n")
    if returns and not returns == ends == source.data.count(b"\r\n"):
        line = source.data.partition(b"\r")[0].count(b"\n") + 1
        raise _refuse(source, "the template has carriage returns that are not at the end of every line", line)
    return "\r\n" if returns else "\n"


def _bounded(operator: str, left: Any, right: Any) -> Any:
    """Return the product or power of two values of a template; OverflowError for one that is absurdly large."""
    size, times = (left, right) if hasattr(left, "__len__") else (right, left)
    if operator == "*" and hasattr(size, "__len__") and isinstance(times, int) and len(size) * times > SIZE_LIMIT:
        raise OverflowError(f"the product is larger than {SIZE_LIMIT} characters")
    whole = isinstance(left, int) and isinstance(right, int)
    if operator == "**" and whole and left.bit_length() * right > 8 * SIZE_LIMIT:
        raise OverflowError("the power is too large")
    return left * right if operator == "*" else left**right


def _refuse(source: ConfigSource, message: str, line: int) -> ManifestError:
    return ManifestError([Problem(source.origin, line, toml_source.dotted(source.key), message, _hint(message))])


def _hint(message: str) -> str:
    if message.startswith("no loader"):
        return "include, import and extends are not possible: write it in one file, or use a macro"
    name = re.match(r"'(\w+)' is undefined", message)
    return f"set {name[1]} in [vars], or use {name[1]} | default(…)" if name else ""


def _line_of(error: BaseException) -> int:
    """Return the template's line in which a run-time error arose; Jinja2 puts it into the traceback."""
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
