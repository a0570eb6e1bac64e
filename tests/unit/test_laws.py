"""Whatever is applied, gone back to, removed or killed in whatever order: no word that a service wrote is lost.

And the words that it has afterwards are those that it should have: the ones of before, or those that the version had
when it was left, if it is gone back to and kept its own.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from appbox.actions import Migrate
from appbox.desired_values import Desired
from appbox.errors import AppboxError
from tests.ground.pure import HEAD, build, image
from tests.ground.simulated import Host

_FORMATS = ("", "", 'data_format = "a"', 'data_format = "b"\nmigrate = ["up"]')
_APPLY = st.tuples(
    st.just("apply"),
    st.sampled_from(["1.0", "2.0", "3.0"]),
    st.sampled_from("AB"),
    st.sampled_from(["auto", "copy", "move", "share", "snapshot"]),
    st.sampled_from(_FORMATS),
    st.integers(1, 3),
    st.none() | st.integers(0, 12),
)
_BACK = st.tuples(st.just("back"), st.integers(0, 5), st.booleans(), st.none() | st.integers(0, 8))
_OTHER = st.tuples(st.sampled_from(["write", "write", "boot", "recover", "remove"]))
_EVENTS = st.lists(st.one_of(_APPLY, _APPLY, _BACK, _OTHER), min_size=2, max_size=14)


@functools.cache
def service(version: str, content: str, policy: str, format_: str, keep: int) -> Desired:
    tables = f'[volumes.data]\npath = "/data"\n[upgrade]\ndata = "{policy}"\nkeep = {keep}\n{format_}\n'
    return build(tables, head=HEAD.replace("1.0", version), of=image(content))


@dataclass
class World:
    """A host, and every word that was ever written."""

    host: Host = field(default_factory=lambda: Host(cloning="reflink"))
    words: set[str] = field(default_factory=set)

    def write(self) -> None:
        word = f"word {len(self.words)}"
        if self.host.place():
            self.words.add(word)
            self.host.boot(word)

    def current(self) -> set[str]:
        place = self.host.place()
        return {name for name in self.host.data.get(place, ()) if name in self.words}

    def apply(self, desired: Desired, steps: int | None) -> None:
        before = self.current()
        plan = self.host.plan(desired)
        if steps is not None:
            self.host.carry_out(plan, plan.actions[:steps])
            self.host.running = self.host.running if steps >= len(plan.actions) else ""
            return
        self.host.carry_out(plan)
        assert [action.kind for action in self.host.plan(desired).actions] == []
        assert self.current() >= before

    def back(self, number: int, steps: int | None, *, keep_data: bool) -> None:
        host = self.host
        place = next(path for path, found in sorted(host.past.items()) if number in found)
        own = place != host.place() and bool(host.data.get(place)) and place not in host.copied
        wanted = {name for name in host.data[place] if name in self.words} if own and not keep_data else self.current()
        plan = host.to_generation(number, keep_data=keep_data)
        if steps is not None:
            host.carry_out(plan, plan.actions[:steps])
            host.running = host.running if steps >= len(plan.actions) else ""
            return
        host.carry_out(plan)
        assert host.versions[host.link].generation == number
        assert host.to_generation(number).actions == ()
        assert self.current() == wanted

    def see(self) -> None:
        there = {name for names in (*self.host.data.values(), *self.host.aside) for name in names}
        assert self.words <= there


def _happen(world: World, event: tuple[object, ...]) -> None:
    host = world.host
    match event:
        case ("apply", str(version), str(content), str(policy), str(format_), int(keep), steps):
            world.apply(service(version, content, policy, format_, keep), steps)  # type: ignore[arg-type]
        case ("back", int(which), bool(keep_data), steps) if host.place():
            numbers = sorted(number for found in host.past.values() for number in found)
            world.back(numbers[which % len(numbers)], steps, keep_data=keep_data)  # type: ignore[arg-type]
        case ("recover",) if host.place():
            before = world.current()
            host.carry_out(host.to_generation(host.versions[host.link].generation))
            assert world.current() == before
        case ("remove",) if host.place():
            host.remove()
        case ("write" | "boot",):
            world.write()


@settings(max_examples=80, deadline=None)
@given(_EVENTS)
def test_no_word_is_lost_and_the_right_ones_are_current(events: list[tuple[object, ...]]) -> None:
    world = World()
    for event in events:
        try:
            _happen(world, event)
        except AppboxError as refused:
            if "format" not in str(refused) and "migrate" not in str(refused):
                raise
        world.see()


def test_the_laws_meet_migrations_and_moved_tags() -> None:
    world = World()
    world.apply(service("1.0", "A", "copy", _FORMATS[2], 3), None)
    world.write()
    plan = world.host.plan(service("1.0", "B", "copy", _FORMATS[3], 3))
    assert any(isinstance(action, Migrate) for action in plan.actions)
    world.apply(service("1.0", "B", "copy", _FORMATS[3], 3), None)
    world.write()
    world.back(1, None, keep_data=False)
    assert world.current() == {"word 0"}
