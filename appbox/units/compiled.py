"""Compiled templates, kept beside Python's own compiled modules: compiling them takes as long as planning 20 services.

As Python does with modules (PEP 3147, PEP 552): who may write to `__pycache__` leaves the code there, and who comes
later takes it if it was made from this very source, by this Jinja2 and this Python. Who may write there could as well
change the modules themselves. Nothing depends on it: without the files, or with torn ones, templates are compiled.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import sys
from importlib.util import MAGIC_NUMBER, cache_from_source, source_hash
from types import CodeType
from typing import Final

import jinja2
from jinja2.bccache import Bucket

from appbox.units import render

_SUM: Final = 8
"""Bytes of a `source_hash`."""


class Compiled(jinja2.BytecodeCache):
    """What Jinja2 asks for the code of a template before it compiles it, and tells it afterwards."""

    def load_bytecode(self, bucket: Bucket) -> None:
        """Give the bucket its code if there is any."""
        with contextlib.suppress(OSError, ValueError, EOFError, TypeError):
            with open(_path(bucket), "rb") as file:
                data = file.read()
            head = _head(bucket)
            body = data[len(head) + _SUM :]
            if data[: -len(body)] == head + source_hash(body):
                code = marshal.loads(body)  # noqa: S302 - as trustworthy as the modules beside it
                bucket.code = code if isinstance(code, CodeType) else None

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Keep the bucket's code if that is possible, and wanted: see PYTHONDONTWRITEBYTECODE in python(1)."""
        if sys.dont_write_bytecode or bucket.code is None:
            return
        body = marshal.dumps(bucket.code)
        path = _path(bucket)
        aside = f"{path}.{os.getpid()}"
        with contextlib.suppress(OSError):
            fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
            try:
                with open(fd, "wb") as file:
                    file.write(_head(bucket) + source_hash(body) + body)
                os.replace(aside, path)
            except OSError:
                os.unlink(aside)


def use() -> None:
    """Have units and run scripts rendered from templates that were compiled before, from now on."""
    environment = render.environment()
    if environment.bytecode_cache is None:
        environment.bytecode_cache = Compiled()


def _path(bucket: Bucket) -> str:
    """Return where the code of a template is, in the name of this version of Python."""
    return cache_from_source(os.path.join(os.path.dirname(__file__), f"template_{bucket.key[:16]}.py"))


def _head(bucket: Bucket) -> bytes:
    """Return what a file begins with: how it is written, by whom, and what it was made from."""
    made_from = f"{jinja2.__version__} {render.SYNTAX} {bucket.checksum}"
    return MAGIC_NUMBER + source_hash(made_from.encode())
