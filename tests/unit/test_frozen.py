"""Classes of values: what they do is what the standard library's do."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from dataclasses import field
from typing import Any

import pytest

from appbox import frozen


@dataclasses.dataclass(frozen=True, slots=True)
class Theirs:
    """As the standard library makes it."""

    name: str
    size: int = 3
    parts: tuple[str, ...] = ()
    more: dict[str, int] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError(self.name)


@frozen.dataclass(frozen=True, slots=True)
class Ours:
    """The same."""

    name: str
    size: int = 3
    parts: tuple[str, ...] = ()
    more: dict[str, int] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError(self.name)


@frozen.dataclass(frozen=True, slots=True)
class Child(Ours):
    """One that has more."""

    last: str = "z"

    def __repr__(self) -> str:
        return "own"


@frozen.dataclass(frozen=True, slots=True)
class Empty:
    """One that has nothing."""


@frozen.dataclass(frozen=True, slots=True)
class Single:
    """One that has one thing."""

    value: Any


@pytest.mark.parametrize("kind", [Theirs, Ours])
def test_values_are_as_the_standard_librarys(kind: Any) -> None:
    value = kind("a", parts=("b",))
    assert (value.name, value.size, value.parts, value.more) == ("a", 3, ("b",), {})
    assert value.more is not kind("a").more
    assert value == kind("a", 3, ("b",), {"x": 1})
    assert hash(value) == hash(kind("a", 3, ("b",), {"x": 1}))
    assert value != kind("a")
    assert value != ("a", 3, ("b",))
    assert repr(value) == f"{kind.__name__}(name='a', size=3, parts=('b',))"
    assert dataclasses.replace(value, size=4) == kind("a", 4, ("b",))
    assert dataclasses.asdict(value) == {"name": "a", "size": 3, "parts": ("b",), "more": {}}
    assert kind.__match_args__ == ("name", "size", "parts", "more")
    assert not hasattr(value, "__dict__")
    for other in (copy.copy(value), copy.deepcopy(value), pickle.loads(pickle.dumps(value))):  # noqa: S301
        assert other == value


@pytest.mark.parametrize("kind", [Theirs, Ours])
def test_values_cannot_change(kind: Any) -> None:
    value = kind("a")
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'name'"):
        value.name = "b"
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot delete field 'name'"):
        del value.name


@pytest.mark.parametrize("kind", [Theirs, Ours])
@pytest.mark.parametrize(("words", "named"), [((), {}), (("a", 1, (), {}, 5), {}), (("a",), {"none": 1})])
def test_wrong_arguments_are_errors(kind: Any, words: tuple[object, ...], named: dict[str, object]) -> None:
    with pytest.raises(TypeError, match="__init__"):
        kind(*words, **named)


@pytest.mark.parametrize("kind", [Theirs, Ours])
def test_a_check_of_its_own_is_run(kind: Any) -> None:
    with pytest.raises(ValueError, match=r"^a$"):
        kind("a", -1)


def test_a_class_may_have_more_than_its_parent() -> None:
    child = Child("a", last="y")
    assert (child.name, child.size, child.last, repr(child)) == ("a", 3, "y", "own")
    assert child != Ours("a")
    assert child == Child("a", last="y")
    assert repr(Ours("a")) == "Ours(name='a', size=3, parts=())"


def test_classes_of_one_and_of_no_value() -> None:
    assert Empty() == Empty()
    assert hash(Empty()) == hash(Empty())
    assert repr(Empty()) == "Empty()"
    assert Single(1) == Single(1) != Single(2)
    assert hash(Single((1,))) == hash(Single((1,)))
