"""A host with many services: what a run without changes asks of the kernel. Counted, not timed: load changes nothing.

What it takes in seconds is measured by `./dev bench`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.ground import faulty
from tests.ground.faulty import Answer, Faulty, Request
from tests.ground.sandbox import Sandbox

pytestmark = pytest.mark.root

FIRST = 8
"""Services that are new, and three and five times as many."""
FEW, MORE, MOST = 40, 55, 70
"""Numbers of services. From one to the next are as many, so that what each costs can be compared.

They are so many that a second process plans half of them.
"""

PROCESSORS = sorted(os.sched_getaffinity(0))

SYNCS = {"fsync": 12, "syncfs": 1}
"""How often the first apply of a service may wait for the disk: what is staged is synced once, when it is published."""

TIMES_OF_LOADING = {"plan": 6, "apply": 6, "status": 2}
"""How many times what loading its libraries takes a run over a hundred services without changes may take."""

_CALL = re.compile(r"(?:\d+ +)?(\w+)\((.*)")
_CHANGES = re.compile(
    r"(creat|mkdir|rmdir|rename|link|unlink|symlink|mknod|chmod|fchmod|chown|lchown|fchown|truncate|ftruncate|fallocate"
    r"|fsync|fdatasync|sync|syncfs|setxattr|lsetxattr|fsetxattr|removexattr|utime|mount|umount)(at|at2|at_time64|s|2)*"
)
_OPEN_TO_CHANGE = re.compile(r"O_(WRONLY|RDWR|CREAT|TRUNC|TMPFILE)")
_PROCESSES = {"execve", "execveat", "vfork"}
_WAITING = {"futex", "sched_yield", "restart_syscall"}
"""What threads call when they meet, as often as it happens."""
_COPIES = {"fork", "clone", "clone3"}


def _services(box: Sandbox, numbers: range) -> None:
    """Write manifests of services that concern one another: a bridge, ports, directories of the host, dependencies."""
    for number in numbers:
        box.manifest(
            f"s{number:02}",
            volumes={"data": {"path": "/seed"}, "srv": {"path": "/srv", "source": f"/srv/s{number:02}"}},
            network={"mode": "bridge", "ports": [f"127.0.0.1:{10000 + number}:80/tcp"]},
            service={"requires": [f"s{number - 1:02}"] if number % 5 else [], "after": ["net"]},
            config={"/etc/app.conf": {"template": "app.conf.j2"}},
            vars={"number": number},
        )


def _calls(box: Sandbox, *words: object) -> list[tuple[str, str]]:
    """Return the system calls of a command that finds nothing to do: names and arguments."""
    calls, out = _traced(box, *words)
    assert out == "nothing to do\n"
    return calls


def _traced(box: Sandbox, *words: object) -> tuple[list[tuple[str, str]], str]:
    """Return the system calls of a command, names and arguments, and what it prints."""
    report = box.place / "calls"
    done = subprocess.run(
        ["strace", "-f", "-qq", "-s", "256", "-o", report, *box.command(*words)],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done
    found = (_CALL.match(line) for line in report.read_text(encoding="utf-8", errors="replace").splitlines())
    return [(call[1], call[2]) for call in found if call], done.stdout


def _changes(calls: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the calls that change something on disk, or would."""
    return [
        (name, rest)
        for name, rest in calls
        if _CHANGES.fullmatch(name)
        or (name in {"open", "openat", "openat2"} and _OPEN_TO_CHANGE.search(rest) and '"/dev/null"' not in rest)
    ]


def test_a_run_without_changes_writes_nothing_starts_nothing_and_costs_the_same_for_each_service(
    tmp_path: Path,
) -> None:
    box = Sandbox(tmp_path)
    (box.services / "app.conf.j2").write_text("{{ number }}\n", encoding="utf-8")
    counts: dict[int, Counter[str]] = {}
    for start, count in ((0, FEW), (FEW, MORE), (MORE, MOST)):
        _services(box, range(start, count))
        box.appbox("apply", box.services)
        calls = _calls(box, "plan", box.services)
        assert not _changes(calls)
        assert [name for name, _ in calls if name in _PROCESSES] == ["execve"]
        assert len([name for name, _ in calls if name in _COPIES]) == min(len(PROCESSORS) - 1, 1)
        counts[count] = Counter(name for name, _ in calls)
    first, second = counts[MORE] - counts[FEW], counts[MOST] - counts[MORE]
    # A directory that grows takes some more reading; what is done for each pair of services would double.
    assert second.total() < 1.1 * first.total(), (second - first).most_common(5)
    calls = _calls(box, "apply", box.services)
    assert [name for name, _ in calls if name in _PROCESSES] == ["execve"]
    assert all("/lock" in rest or '"lock"' in rest for _, rest in _changes(calls)), _changes(calls)
    before = box.snapshot(times=True)
    _calls(box, "apply", box.services)
    assert box.snapshot(times=True) == before


def test_a_first_apply_waits_for_the_disk_a_few_times_and_costs_the_same_for_each_service(tmp_path: Path) -> None:
    """Whatever is read anew for each service that was made before makes the last of a thousand wait for seconds."""
    counts: dict[int, Counter[str]] = {}
    for count in (FIRST, 3 * FIRST, 5 * FIRST):
        (tmp_path / str(count)).mkdir()
        box = Sandbox(tmp_path / str(count))
        for number in range(count):
            box.manifest(f"s{number:02}", network={"mode": "bridge"}, volumes={"data": {"path": "/seed"}})
        calls, _ = _traced(box, "apply", box.services)
        counts[count] = Counter(name for name, _ in calls if name not in _WAITING)
    once = counts[3 * FIRST] - counts[FIRST]
    again = counts[5 * FIRST] - counts[3 * FIRST]
    for name, most in SYNCS.items():
        assert again[name] <= most * 2 * FIRST, again
    assert again.total() < 1.1 * once.total(), (again - once).most_common(5)


@pytest.mark.skipif(len(PROCESSORS) < 2, reason="there is one processor, and so one process")
def test_a_plan_is_the_same_whether_a_second_process_takes_part_or_not(tmp_path: Path) -> None:
    box = Sandbox(tmp_path)
    (box.services / "app.conf.j2").write_text("{{ number }}\n", encoding="utf-8")
    _services(box, range(MOST))
    box.appbox("apply", box.services)
    one = ["taskset", "--cpu-list", str(PROCESSORS[0])]

    def plans() -> list[str]:
        words = box.command("plan", "--json", box.services)
        return [subprocess.run([*how, *words], capture_output=True, text=True, check=True).stdout for how in ([], one)]

    # What is so in the second half alone: a change, a deleted unit, a changed file, a lost place on the bridge.
    _services(box, range(MOST, MOST + 1))
    box.manifest("s60", process={"args": ["sleep", "7"]})
    (box.units / "s50.service").unlink()
    (box.containers / "s55/config.json").write_text("{}", encoding="utf-8")
    addresses = box.state / "addresses.toml"
    lines = addresses.read_text(encoding="utf-8").splitlines(keepends=True)
    addresses.write_text("".join(line for line in lines if '"s65"' not in line), encoding="utf-8")
    together, alone = plans()
    assert together == alone
    changing = [one["name"] for one in json.loads(together)["services"] if one["actions"]]
    assert {"s50", "s55", "s60", "s65", f"s{MOST}"} <= set(changing)
    assert len(changing) < MOST // 4
    # And so many that it gives up.
    for number in range(MOST - 20, MOST):
        box.manifest(f"s{number:02}", process={"args": ["sleep", "8"]})
    together, alone = plans()
    assert together == alone


def _seconds(commands: dict[str, list[str]]) -> dict[str, float]:
    """Return the least processor time of each of some commands, run by turns: others load the machine, too."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}

    def once(words: list[str]) -> float:
        with subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL) as process:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, words
        return usage.ru_utime + usage.ru_stime

    for words in commands.values():
        once(words)  # Python leaves there what it compiles
    rounds = [{name: once(words) for name, words in commands.items()} for _ in range(4)]
    return {name: min(took[name] for took in rounds) for name in commands}


def test_a_hundred_services_are_planned_in_a_few_times_what_loading_the_libraries_takes(tmp_path: Path) -> None:
    box = Sandbox(tmp_path)
    for number in range(100):
        box.manifest(f"s{number:02}")
    box.appbox("apply", box.services)
    took = _seconds(
        {
            "loading": [sys.executable, "-c", "import typer, pydantic, jinja2, tomli_w; pydantic.BaseModel"],
            "plan": box.command("plan", box.services),
            "apply": box.command("apply", box.services),
            "status": box.command("status"),
        }
    )
    for verb, times in TIMES_OF_LOADING.items():
        assert took[verb] < times * took["loading"], took


@dataclass
class Crowded(Faulty):
    """A registry that answers for manifests only when four requests for them are there at once; else it breaks."""

    together: threading.Barrier | None = None

    def answer(self, request: Request) -> Answer:
        if self.together is not None and "/manifests/" in request.path:
            self.together.wait()
        return super().answer(request)


def test_registries_are_asked_for_several_images_at_a_time_and_for_each_once(tmp_path: Path) -> None:
    box = Sandbox(tmp_path)
    registry = Crowded(box.content)
    with faulty.serve(registry):
        for number in range(8):
            box.manifest(f"s{number}", image=f"{registry.host}/team/web{number // 2}")
        box.appbox("apply", box.services)
        registry.requests.clear()
        registry.together = threading.Barrier(4, timeout=20)
        assert box.appbox("plan", box.services).out == "nothing to do\n"
        assert not registry.together.broken
        asked = Counter(request.path for request in registry.requests if "/manifests/" in request.path)
        assert asked == Counter(f"/v2/team/web{number}/manifests/1.0" for number in range(4))


def test_what_fails_when_images_are_looked_up_side_by_side_is_said_of_its_service_and_asked_once(
    tmp_path: Path,
) -> None:
    box = Sandbox(tmp_path)
    registry = Faulty(box.content)
    with faulty.serve(registry):
        for name in ("a", "b", "c"):
            box.manifest(name, image=f"{registry.host}/team/{name}")
        box.manifest("bad", "9.9", image=f"{registry.host}/team/bad")
        result = box.appbox("apply", box.services, code=5)
        assert "team/bad" in result.err
        assert len(result.err.splitlines()) == 1
        assert [path.name for path in sorted(box.containers.glob("*-1.0"))] == ["a-1.0", "b-1.0", "c-1.0"]
        assert [one.method for one in registry.requests if "/team/bad/manifests/" in one.path] == ["HEAD", "GET"]
