"""Which keys appbox acts on. Whatever stands here is validated like the rest and then refused, never ignored.

An issue that brings a feature deletes its lines here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from appbox.fields import quoted
from appbox.findings import Finding
from appbox.tables import Manifest, Table
from appbox.toml_source import Path, dotted

Test = Callable[[Any], bool]


def every_value(_: object) -> bool:
    """No value of the key is acted on."""
    return True


def _one_of(*words: str) -> Test:
    return lambda value: str(value).partition(":")[0] in words


# Key, and which of its values are not acted on; a default never counts, since it is what happens anyway.
# A key that is a table stands for all of its keys, and `*` for any name.
NOT_YET: Mapping[str, Test] = {
    "build": every_value,
}


class _Node(dict[str, "_Node"]):
    """The keys of NOT_YET as a tree, so that one walk over a manifest is enough. `test` stands at the end of a key."""

    test: Test | None = None


def _tree() -> _Node:
    top = _Node()
    for key, test in NOT_YET.items():
        node = top
        for part in key.split("."):
            node = node.setdefault(part, _Node())
        node.test = test
    return top


_TREE = _tree()


def unsupported(manifest: Manifest) -> Iterator[Finding]:
    """Yield a finding for each key of `manifest` that would have no effect."""
    yield from _refused(manifest, _TREE, ())


def _refused(value: object, node: _Node, path: Path) -> Iterator[Finding]:
    """Yield a finding for each leaf below `value` that the tree names and that is not its default."""
    if isinstance(value, Table):
        for key, inner in _set_keys(value):
            below = node if node.test else node.get(key)
            if below is not None:
                yield from _refused(inner, below, (*path, key))
    elif isinstance(value, Mapping) and any(isinstance(inner, Table) for inner in value.values()):
        below = node if node.test else node.get("*")
        if below is not None:
            for key, inner in value.items():
                yield from _refused(inner, below, (*path, key))
    elif node.test and node.test(value):
        shown = f" = {quoted(str(value))}" if node.test is not every_value and isinstance(value, str) else ""
        yield Finding(path, f"not supported yet: {dotted(path)}{shown}")


def _set_keys(table: Table) -> Iterator[tuple[str, object]]:
    """Yield the keys and values of `table` that are not what they would be anyway."""
    fields = type(table).model_fields
    for name in sorted(table.model_fields_set):
        value, field = getattr(table, name), fields[name]
        if field.is_required() or value != field.default:
            yield field.alias or name, value
