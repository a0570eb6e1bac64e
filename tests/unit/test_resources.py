"""Limits of a service: from the manifest to what the runtime is told, what the script reads back, what a host lacks."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from appbox import demands, manifest, resources
from appbox.errors import ManifestError
from appbox.host import cgroups
from appbox.host.facts import Abilities, Cgroups
from appbox.units.limits import Limits
from appbox.units.model import RunScript
from appbox.units.render import run_script
from tests.ground.pure import FACTS, HEAD, build, locked, spec, text

EVERY = """
[resources]
memory = "512M"
memory_swap = "0"
cpus = 1.5
cpu_weight = 250
pids = 256
io_weight = 300
"""
CONTROLLERS = frozenset({"cpu", "io", "memory", "pids"})


def test_the_runtime_is_told_of_every_limit() -> None:
    found = spec(build(EVERY))["linux"]["resources"]
    del found["devices"]
    assert found == {
        "memory": {"limit": 512 << 20, "swap": 512 << 20},
        "cpu": {"shares": 2560, "quota": 150_000, "period": 100_000},
        "pids": {"limit": 256},
        "blockIO": {"weight": 300},
    }


def test_without_limits_nothing_is_set_and_no_hook_is_called() -> None:
    found = build()
    assert set(spec(found)["linux"]["resources"]) == {"devices"}
    assert "hooks" not in spec(found)
    assert "limits" not in text(found, "run")


def test_limits_are_read_back_by_the_hook() -> None:
    found = build(EVERY)
    assert spec(found)["hooks"]["createRuntime"][0]["args"][1] == "created"
    script = text(found, "run")
    for line in (
        "bytes memory memory.max 536870912",
        "bytes memory_swap memory.swap.max 0",
        'holds cpus cpu.max "150000 100000"',
        "holds cpu_weight cpu.weight 250",
        "holds pids pids.max 256",
        'holds io_weight io.weight "default 300"',
        "bytes memory_swap memory.memsw.limit_in_bytes 536870912",
        "holds cpu_weight cpu.shares 2560",
    ):
        assert f"\t{line}\n" in script


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        ('memory = "1G"\nmemory_swap = "512M"', {"memory": {"limit": 1 << 30, "swap": 3 << 29}}),
        ("memory = 6291456", {"memory": {"limit": 6 << 20}}),
        ("cpus = 0.01", {"cpu": {"quota": 1_000, "period": 100_000}}),
        ("cpus = 2", {"cpu": {"quota": 200_000, "period": 100_000}}),
        ("cpus = 1.00005", {"cpu": {"quota": 100_005, "period": 100_000}}),
        ("cpus = 4096", {"cpu": {"quota": 409_600_000, "period": 100_000}}),
        ("cpu_weight = 1", {"cpu": {"shares": 10}}),
        ("cpu_weight = 100", {"cpu": {"shares": 1024}}),
        ("cpu_weight = 10000", {"cpu": {"shares": 102_400}}),
        ("io_weight = 1", {"blockIO": {"weight": 10}}),
        ("io_weight = 10000", {"blockIO": {"weight": 1000}}),
        ("pids = 4194304", {"pids": {"limit": 4_194_304}}),
        ("", {}),
    ],
)
def test_each_limit_to_its_ends(tables: str, expected: Mapping[str, Any]) -> None:
    asked = manifest.parse(f"{HEAD}[resources]\n{tables}\n", file="web.toml").resources
    assert resources.oci(resources.limits(asked)) == expected


@pytest.mark.parametrize(
    ("tables", "sentence"),
    [
        ('memory = "5M"', 'resources.memory: is too little to start anything in; the least is "6M"'),
        ("cpus = 0.001", "resources.cpus: is less than the kernel can give; the least is 0.01"),
        ('memory_swap = "0"', "resources.memory_swap: stands without memory"),
        ("memory = 9223372036854775807\nmemory_swap = 1", "resources.memory_swap: is too much together with memory"),
        ("cpu_weight = 0", "resources.cpu_weight: 0 is out of range; it goes from 1 to 10000"),
        ("cpu_weight = 10001", "resources.cpu_weight: 10001 is out of range"),
        ("io_weight = true", "resources.io_weight: "),
        ("pids = 0", "resources.pids: 0 is out of range"),
        ("pids = 4194305", "resources.pids: 4194305 is out of range"),
        ("cpus = 0", "resources.cpus: is out of range"),
        ("cpus = nan", "resources.cpus: is out of range"),
        ('cpus = "1.5"', "resources.cpus: "),
        ('memory = "-1"', "resources.memory: "),
        ('memory = "512MB"', 'write "512M"'),
        ('memory = "$(reboot)"', "resources.memory: "),
        ('memory = "512M\\n"', "resources.memory: "),
        ('memory = "9999999999T"', "resources.memory: "),
    ],
)
def test_what_no_kernel_takes_is_refused_with_line_and_key(tables: str, sentence: str) -> None:
    with pytest.raises(ManifestError) as error:
        manifest.parse(f"{HEAD}[resources]\n{tables}\n", file="web.toml")
    assert sentence in str(error.value)
    assert "web.toml:5: " in str(error.value) or "web.toml:6: " in str(error.value)


@pytest.mark.parametrize(
    "values",
    [
        {"memory": 1},
        {"memory": True},
        {"memory": "6291456"},
        {"swap": 0},
        {"memory": 2**63 - 1, "swap": 1},
        {"quota": 999},
        {"cpu_weight": 0},
        {"pids": 4_194_305},
        {"io_weight": 10_001},
    ],
)
def test_a_value_that_no_kernel_takes_never_reaches_a_script(values: Any) -> None:
    with pytest.raises(ValueError, match="limit"):
        Limits(**values)


def test_systemd_s_own_limit_of_processes_is_not_in_the_way() -> None:
    assert "\nTasksMax=infinity\n" in build(EVERY).units[0].text
    assert "TasksMax" not in build().units[0].text


def test_controllers_are_those_that_are_needed() -> None:
    assert Limits(memory=6 << 20, swap=0, pids=1).controllers == ("memory", "pids")
    assert Limits(quota=1000, io_weight=1).controllers_v1 == ("cpu", "blkio")
    assert not Limits()
    assert Limits(memory=6 << 20, swap=0)


def test_limits_above_what_the_host_has_are_told() -> None:
    host = replace(FACTS, cpus=1, memory=256 << 20)
    assert list(resources.notes(locked(EVERY), host)) == [
        "resources.cpus = 1.5 limits nothing: this host has 1 processor",
        "resources.memory, 536.9 MB, limits nothing: this host has 268.4 MB",
    ]
    assert not list(resources.notes(locked(EVERY), replace(host, live=False)))
    assert "resources.cpus = 1.5 limits nothing: this host has 1 processor" in build(EVERY, facts=host).notes


@pytest.mark.parametrize(
    ("here", "keys", "words"),
    [
        (Cgroups(controllers=CONTROLLERS), [], ""),
        (Cgroups(controllers=CONTROLLERS - {"cpu"}), ["cpus", "cpu_weight"], "cgroup.controllers does not name it"),
        (Cgroups(unified=False, controllers=CONTROLLERS - {"pids"}), ["pids"], "none is mounted below /sys/fs/cgroup"),
        (Cgroups(controllers=CONTROLLERS, swap=False), ["memory_swap"], "does not count swap"),
        (Cgroups(controllers=CONTROLLERS, io_weight=False), ["io_weight"], "no weights for disks"),
        (Cgroups(), ["memory", "memory_swap", "cpus", "cpu_weight", "pids", "io_weight"], "no cgroup controller"),
    ],
)
def test_what_the_host_cannot_limit_is_refused(here: Cgroups, keys: list[str], words: str) -> None:
    found = list(demands.missing(locked(EVERY), replace(FACTS, abilities=Abilities(cgroups=here))))
    assert [lack.key for lack in found] == [("resources", key) for key in keys]
    assert all(words in lack.message for lack in found)


@pytest.mark.parametrize(("init", "words"), [("openrc", 'rc_cgroup_mode="unified"'), ("systemd", "unified_cgroup_hie")])
def test_each_init_has_its_own_remedy(init: Any, words: str) -> None:
    facts = replace(FACTS, init=init, abilities=Abilities(cgroups=Cgroups()))
    assert all(words in lack.hint for lack in demands.missing(locked(EVERY), facts))


def test_nothing_is_refused_on_a_host_that_does_not_run() -> None:
    assert not list(demands.missing(locked(EVERY), FACTS))
    assert not list(demands.missing(locked(), replace(FACTS, abilities=Abilities())))


def test_usage_on_either_version(tmp_path: Path) -> None:
    new, old = tmp_path / "new", tmp_path / "old"
    for directory, contents in (
        (
            new,
            {
                "memory.current": "4096\n",
                "pids.current": "2\n",
                "cpu.stat": "usage_usec 1500000\nuser_usec 1\n",
                "memory.events": "low 0\noom 9\noom_kill 3\noom_group_kill 8\n",
            },
        ),
        (
            old,
            {
                "memory.usage_in_bytes": "4096\n",
                "pids.current": "2\n",
                "cpuacct.usage": "1500000000\n",
                "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
            },
        ),
    ):
        directory.mkdir()
        for name, content in contents.items():
            (directory / name).write_text(content)
    expected = cgroups.Usage(4096, 2, 1.5, 3)
    assert cgroups.usage({"": str(new)}) == expected
    assert cgroups.usage(dict.fromkeys(("memory", "pids", "cpuacct"), str(old))) == expected
    assert cgroups.usage({"": str(tmp_path / "gone")}) == cgroups.Usage()
    assert cgroups.usage({}) == cgroups.Usage()


@pytest.mark.parametrize("limits", [Limits(pids=1), Limits(memory=6 << 20), Limits(6 << 20, 0, 1000, 1, 1, 1)])
def test_the_script_is_one(limits: Limits) -> None:
    script = run_script(RunScript("job", "1.0", limits=limits))
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)
