"""Limits of a container's cgroup on the real runc: set, read back before anything runs, and kept by the kernel."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from appbox import resources
from appbox.host import cgroups
from appbox.oci import runtime_spec
from appbox.units import model, render
from appbox.units.limits import Limits

pytestmark = [pytest.mark.root, pytest.mark.runc]

BUSYBOX = "/bin/busybox"


class Service:
    """A bundle made of busybox with limits, as `apply` would publish it."""

    def __init__(self, bundles: Path) -> None:
        self.bundles = bundles
        self.name = f"limits{os.getpid()}"
        self.bundle = bundles / f"{self.name}-1.0"
        for name in ("bin", "dev", "proc", "sys", "tmp", "etc"):
            (self.bundle / "rootfs" / name).mkdir(parents=True)
        shutil.copy(BUSYBOX, self.bundle / "rootfs/bin/busybox")
        for name in ("sh", "sleep", "dd", "true", "tail"):
            (self.bundle / "rootfs/bin" / name).symlink_to("busybox")
        for name in ("upper", "work"):
            (self.bundle / ".live" / name).mkdir(parents=True)
        (self.bundle / ".live/resolv.conf").touch()
        (self.bundles / self.name).symlink_to(self.bundle.name)

    def write(self, script: str, limits: Limits, set_limits: Limits | None = None) -> None:
        """Write what starts `script` with `limits`; `set_limits` is what the runtime is told instead."""
        container = runtime_spec.Container(
            args=("sh", "-c", script),
            env=("PATH=/bin",),
            cgroups_path=self.name,
            resources=resources.oci(set_limits or limits),
            hook=f"{self.bundle}/run",
        )
        (self.bundle / "config.json").write_text(runtime_spec.dumps(runtime_spec.spec(container)))
        text = render.run_script(model.RunScript(self.name, "1.0", bundles=str(self.bundles), limits=limits))
        (self.bundle / "run").write_text(text)
        (self.bundle / "run").chmod(0o755)

    def run(self) -> subprocess.CompletedProcess[str]:
        words = [str(self.bundles / self.name / "run")]
        return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)

    def start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen([str(self.bundles / self.name / "run")], stdin=subprocess.DEVNULL)

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        # Process 1 of a namespace takes no signal that it has no handler for, but this one.
        subprocess.run(["runc", "kill", self.name, "KILL"], check=True)
        process.wait(20)

    def close(self) -> None:
        subprocess.run(["runc", "delete", "--force", self.name], capture_output=True, check=False)
        shutil.rmtree(Path("/run/appbox", self.name), ignore_errors=True)
        shutil.rmtree(self.bundles)


@pytest.fixture
def service() -> Iterator[Service]:
    bundles = Path("/var/tmp", f"appbox-limits-{os.getpid()}")
    bundles.mkdir()
    made = Service(bundles)
    yield made
    made.close()


def possible(wanted: Limits) -> Limits:
    """Return as many of the limits as this machine's cgroups know."""
    here = cgroups.gather()
    names = {"memory": "memory", "swap": "memory", "quota": "cpu", "cpu_weight": "cpu", "pids": "pids"}
    kept = {name: getattr(wanted, name) for name, controller in names.items() if controller in here.controllers}
    if "io" in here.controllers and here.io_weight:
        kept["io_weight"] = wanted.io_weight
    if not here.swap:
        kept.pop("swap", None)
    return Limits(**kept)


ALL = Limits(memory=64 << 20, swap=0, quota=25_000, cpu_weight=250, pids=40, io_weight=300)


def test_every_limit_that_this_machine_has_is_set_and_read_back(service: Service) -> None:
    limits = possible(ALL)
    assert limits, "this machine has no cgroup controller at all"
    service.write("sleep 1000", limits)
    process = service.start()
    try:
        group = container_groups(service)
        expected = {
            "memory": (("memory", "memory.limit_in_bytes", "67108864"), ("", "memory.max", "67108864")),
            "swap": (("memory", "memory.memsw.limit_in_bytes", "67108864"), ("", "memory.swap.max", "0")),
            "quota": (("cpu", "cpu.cfs_quota_us", "25000"), ("", "cpu.max", "25000 100000")),
            "cpu_weight": (("cpu", "cpu.shares", "2560"), ("", "cpu.weight", "250")),
            "pids": (("pids", "pids.max", "40"), ("", "pids.max", "40")),
            "io_weight": (("blkio", "blkio.bfq.weight", "300"), ("", "io.weight", "default 300")),
        }
        for name, (old, new) in expected.items():
            if getattr(limits, name) is not None:
                controller, file, value = new if "" in group else old
                assert Path(group[controller], file).read_text().strip() == value, name
        used = cgroups.usage(group)
        if limits.pids:
            assert used.processes == 1
        if limits.memory:
            assert 0 < used.memory < 64 << 20
        assert used.oom_kills == 0
    finally:
        service.stop(process)


def container_groups(service: Service) -> dict[str, str]:
    """Return the directories of the running container's cgroups, by controller."""
    deadline = time.monotonic() + 20
    while True:
        pids = [pid for pid in all_pids() if f"/{service.name}" in cgroup_of(pid) and command(pid) == "sleep"]
        if pids or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    found = {}
    for line in cgroup_of(pids[0]).splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            found[controller] = f"{cgroups.ROOT}/{controller}{path}"
    if Path(cgroups.ROOT, "cgroup.controllers").exists():
        return {"": found[""]}
    del found[""]
    return found


def all_pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def cgroup_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return ""


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def needs(*names: str) -> Limits:
    """Return those limits of `ALL` alone; the test is over where the machine does not know them."""
    here = possible(ALL)
    missing = [name for name in names if getattr(here, name) is None]
    # What is not there is refused by plan, which other tests see; the virtual machine has everything.
    assert "" not in missing
    return Limits(**{name: getattr(here, name) for name in names})


def test_more_memory_than_allowed_ends_the_process(service: Service) -> None:
    service.write("dd if=/dev/zero of=/dev/null bs=256M count=1 && echo survived", needs("memory", "swap"))
    done = service.run()
    assert done.returncode == 137
    assert "survived" not in done.stdout


def test_a_fork_bomb_is_bounded(service: Service) -> None:
    script = "i=0; while [ $i -lt 100 ]; do sleep 30 & i=$((i+1)); done; echo all"
    service.write(script, needs("pids"))
    done = service.run()
    assert "can't fork" in done.stderr
    assert "all" not in done.stdout


def test_processor_time_is_a_quarter(service: Service) -> None:
    service.write("while :; do :; done", needs("quota"))
    process = service.start()
    try:
        time.sleep(0.5)
        group = next(g for pid in all_pids() if f"/{service.name}" in (g := cgroup_of(pid)))
        pid = next(pid for pid in all_pids() if cgroup_of(pid) == group and command(pid) == "sh")
        before, started = cpu_seconds(pid), time.monotonic()
        time.sleep(2)
        share = (cpu_seconds(pid) - before) / (time.monotonic() - started)
        assert share < 0.4
    finally:
        service.stop(process)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        (
            Limits(memory=128 << 20, swap=0, quota=25_000, cpu_weight=250, pids=40),
            "resources.memory did not take: 67108864",
        ),
        (Limits(memory=64 << 20, swap=0, quota=50_000, cpu_weight=250, pids=40), "resources.cpus did not take: 25000"),
        (Limits(memory=64 << 20, swap=0, quota=25_000, cpu_weight=250, pids=41), "resources.pids did not take: 40"),
        (
            Limits(memory=64 << 20, swap=4096, quota=25_000, cpu_weight=250, pids=40),
            "resources.memory_swap did not take",
        ),
        (Limits(memory=64 << 20), "did not take"),
    ],
)
def test_a_limit_that_did_not_take_is_an_error(service: Service, told: Limits, sentence: str) -> None:
    service.write("echo started", needs("memory", "swap", "quota", "cpu_weight", "pids"), told)
    done = service.run()
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "started" not in done.stdout
    assert subprocess.run(["runc", "state", service.name], capture_output=True, check=False).returncode != 0


def test_memory_is_counted_in_whole_pages(service: Service) -> None:
    service.write("echo started", Limits(memory=(64 << 20) + 4095))
    done = service.run()
    assert (done.returncode, done.stdout) == (0, "started\n"), done.stderr


def test_the_largest_numbers_are_taken(service: Service) -> None:
    service.write(
        "echo started", Limits(memory=2**62, swap=2**62 - 1, quota=409_600_000, cpu_weight=10_000, pids=4_194_304)
    )
    done = service.run()
    assert (done.returncode, done.stdout) == (0, "started\n"), done.stderr
    service.write("echo started", Limits(memory=6 << 20, quota=1_000, cpu_weight=1, pids=1))
    done = service.run()
    assert (done.returncode, done.stdout) == (0, "started\n"), done.stderr
