"""The run script on the real runc: one process tree, whatever was killed before, and nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from appbox.host import runc
from appbox.oci import runtime_spec
from appbox.oci.users import User
from appbox.store import paths
from appbox.units import model, render

pytestmark = [pytest.mark.root, pytest.mark.runc]

BASE = 1_879_048_192
BUSYBOX = "/bin/busybox"


@dataclass
class Service:
    """A bundle made of busybox, as `apply` would publish it, and what is done to it."""

    bundles: Path
    name: str
    base: int = BASE
    network: str = "host"
    user: User = field(default_factory=lambda: User(0, 0))
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def bundle(self) -> Path:
        return self.bundles / f"{self.name}-1.0"

    @property
    def script(self) -> str:
        return str(self.bundles / self.name / "run")

    @property
    def state(self) -> Path:
        return Path("/run/appbox", self.name)

    def make(self, *args: str, **container: Any) -> None:
        rootfs = self.bundle / "rootfs"
        for directory in ("bin", "data", "dev", "etc", "proc", "sys", "tmp"):
            (rootfs / directory).mkdir(parents=True)
        (rootfs / "tmp").chmod(0o1777)
        shutil.copy(BUSYBOX, rootfs / "bin/busybox")
        for applet in ("sh", "cat", "echo", "id", "ls", "sleep", "trap", "true", "ip", "chown", "find", "touch"):
            (rootfs / "bin" / applet).symlink_to("busybox")
        rootfs.chmod(0o751)
        (self.bundle / "data/data").mkdir(parents=True)
        live = self.bundle / ".live"
        (live / "work").mkdir(parents=True)
        (live / "upper").mkdir()
        (live / "upper").chmod(0o751)
        (live / "resolv.conf").touch()
        for path in (rootfs, *rootfs.rglob("*"), live / "upper", self.bundle / "data/data"):
            os.lchown(path, self.base, self.base)
        os.chown(self.bundle, 0, self.base)
        self.bundle.chmod(0o710)
        (self.bundles / self.name).symlink_to(self.bundle.name)
        self.write(*args, **container)

    def write(self, *args: str, **container: Any) -> None:
        mounts = (
            runtime_spec.Mount("/data", f"{self.bundle}/data/data", "bind", ("rbind", "nosuid", "nodev", "rw")),
            runtime_spec.Mount("/etc/resolv.conf", f"{self.bundle}/.live/resolv.conf", "bind", ("bind", "ro")),
        )
        values: dict[str, Any] = {
            "args": args,
            "env": ("PATH=/bin",),
            "hostname": self.name,
            "user": self.user,
            "userns": runtime_spec.IdMap(self.base) if self.base else None,
            "network": self.network,
            "mounts": mounts,
            "cgroups_path": self.name,
        } | container
        spec = runtime_spec.spec(runtime_spec.Container(**values))
        (self.bundle / "config.json").write_text(runtime_spec.dumps(spec))
        resolver: Literal["", "host"] = "host" if self.network == "host" else ""
        script = model.RunScript(self.name, "1.0", self.base, resolver, bundles=str(self.bundles))
        (self.bundle / "run").write_text(render.run_script(script))
        (self.bundle / "run").chmod(0o755)

    def run(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.script, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=options.pop("check", False),
            **options,
        )

    def start(self, *words: str, ready: str = "ready") -> subprocess.Popen[bytes]:
        """Start in the background and wait until the service has written `ready` into its volume."""
        marker = self.bundle / "data/data" / ready
        marker.unlink(missing_ok=True)
        with (self.bundles / "log").open("ab") as log:
            process = subprocess.Popen([self.script, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.started.append(process)
        wait_until(marker.exists)
        return process

    def log(self) -> str:
        return (self.bundles / "log").read_text()

    @property
    def log_file(self) -> Path:
        """Where the script keeps the log under an init system that does not."""
        return Path(paths.log_file(self.name))

    def logged(self) -> str:
        """Return that log without the times of its lines."""
        lines = self.log_file.read_text().splitlines() if self.log_file.exists() else []
        return "".join(f"{line.partition(' ')[2]}\n" for line in lines)

    def containers(self) -> list[dict[str, Any]]:
        listed = json.loads(subprocess.check_output(["runc", "list", "-f", "json"]) or b"[]") or []
        return [container for container in listed if container["id"] == self.name]

    def servers(self) -> list[int]:
        """Processes of the host whose command line is that of the service."""
        return pids_with(f"appbox-test-{self.name}")

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait()
        subprocess.run(["runc", "delete", "--force", self.name], capture_output=True, check=False)
        wait_until(lambda: not self.servers())
        shutil.rmtree(self.state, ignore_errors=True)
        self.log_file.unlink(missing_ok=True)


def pids_with(text: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and text.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def wait_until(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def server(service: Service, *, on_term: str = "exit 0") -> tuple[str, ...]:
    """A service that says it is ready, lives until SIGTERM, and can be found by its command line."""
    text = f"trap '{on_term}' TERM; echo up; touch /data/ready; while :; do sleep 0.05; done"
    return ("sh", "-c", text, f"appbox-test-{service.name}")


@pytest.fixture
def service(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Service]:
    # mkdtemp's 0700 directories above would keep the mapped root out, as /opt/containers does not.
    bundles = Path("/var/tmp", f"appbox-run-{os.getpid()}-{abs(hash(request.node.name)) % 10**8}")
    bundles.mkdir()
    made = Service(bundles, f"t{os.getpid()}")
    yield made
    made.close()
    mounts = Path("/proc/self/mounts").read_text()
    assert str(bundles) not in mounts, "a mount is visible outside"
    shutil.rmtree(bundles)


def test_starts_in_the_foreground_with_all_that_a_service_needs(service: Service) -> None:
    service.make("sh", "-c", "id -u; echo >/new; echo kept >/data/file; cat /etc/resolv.conf; echo err >&2; exit 7")
    done = service.run()
    assert done.returncode == 7
    assert done.stdout == "0\n" + Path("/etc/resolv.conf").read_text()
    assert done.stderr == "err\n"
    assert (service.bundle / "data/data/file").read_text() == "kept\n"
    assert (service.bundle / "data/data/file").stat().st_uid == BASE
    assert not (service.bundle / "rootfs/new").exists()
    assert sorted(p.name for p in (service.bundle / ".live").iterdir()) == ["resolv.conf", "upper", "work"]
    assert not any((service.bundle / ".live/upper").iterdir())
    assert not service.containers()


@pytest.mark.parametrize("base", [0, BASE])
@pytest.mark.parametrize("network", ["host", "none"])
def test_root_directory_and_network_are_as_asked(service: Service, base: int, network: str) -> None:
    service.base, service.network = base, network
    service.make("sh", "-c", "ls -ldn /; ip -o addr show lo; echo ==; ls /sys/class/net")
    done = service.run(check=True)
    assert done.stdout.startswith("drwxr-x--x")
    assert "127.0.0.1" in done.stdout
    interfaces = set(done.stdout.split("==")[1].split())
    assert interfaces == {"lo"} if network == "none" else "lo" in interfaces


def test_an_entrypoint_chowns_its_data_and_drops_to_its_user(service: Service) -> None:
    chown = "touch /data/old; find . \\! -user 999 -exec chown 999:999 '{}' +; ls -ln /data"
    service.make("sh", "-c", chown, cwd="/data")
    done = service.run(check=True)
    assert " 999      999 " in done.stdout
    info = (service.bundle / "data/data/old").stat()
    assert (info.st_uid, info.st_gid) == (BASE + 999, BASE + 999)


def test_a_user_that_is_not_root_has_no_capability(service: Service) -> None:
    service.user = User(999, 999, (5,))
    service.make("sh", "-c", "id; cat /proc/self/status; echo again >/dev/stdout")
    done = service.run(check=True)
    assert "uid=999 gid=999 groups=5,999" in done.stdout
    assert re.search(r"^CapEff:\s+0{16}$", done.stdout, re.MULTILINE)
    assert re.search(r"^CapAmb:\s+0{16}$", done.stdout, re.MULTILINE)
    assert done.stdout.endswith("again\n")


def test_standard_streams_may_be_opened_again(service: Service) -> None:
    service.make("sh", "-c", "exec 3>/dev/stdout 4>/dev/stderr; echo out >&3; echo err >&4")
    read, write = os.pipe()
    with os.fdopen(read) as reader:
        subprocess.run([service.script], stdin=subprocess.DEVNULL, stdout=write, stderr=write, check=True, timeout=60)
        os.close(write)
        assert sorted(reader.read().split()) == ["err", "out"]


def test_the_owner_of_the_callers_streams_does_not_change(service: Service, tmp_path: Path) -> None:
    service.user = User(999, 999)
    service.make("true")
    log = tmp_path / "log"
    with log.open("w") as stream:
        subprocess.run([service.script], stdin=stream, stdout=stream, stderr=stream, check=True, timeout=60)
    assert log.stat().st_uid == 0


def test_nothing_that_was_printed_is_lost(service: Service) -> None:
    service.make("sh", "-c", "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; exit 3")
    done = service.run()
    assert done.returncode == 3
    assert done.stdout.splitlines() == [f"line {i}" for i in range(3000)]


@pytest.mark.parametrize("words", [(), ("unit",), ("unit", "on-failure")])
def test_a_second_start_is_refused(service: Service, words: tuple[str, ...]) -> None:
    service.make(*server(service))
    first = service.start(*words)
    second = service.run()
    assert second.returncode == 1
    assert second.stderr == f"appbox: {service.name}: already running as process {first.pid}; stop it first\n"
    assert len(service.containers()) == 1
    first.terminate()
    assert first.wait(20) == 0


@pytest.mark.parametrize("words", [(), ("unit",), ("clean",)])
def test_somebody_else_s_container_of_that_name_is_left_alone(service: Service, words: tuple[str, ...]) -> None:
    service.make(*server(service))
    other = service.bundles / "other"
    service.bundle.rename(other)
    spec = json.loads((other / "config.json").read_text().replace(str(service.bundle), str(other)))
    (other / "config.json").write_text(json.dumps(spec))
    with (service.bundles / "log").open("ab") as log:
        command = ["runc", "run", "--detach", "--bundle", str(other), service.name]
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True)
    (theirs,) = service.containers()
    shutil.copytree(other, service.bundle, symlinks=True)
    done = service.run(*words)
    assert done.returncode == 1
    assert f"a container that is not of this service is called {service.name}" in done.stderr
    assert service.containers() == [theirs]
    assert len(service.servers()) == 1
    assert runc.running(service.name) is None  # and status does not take it for the service


@pytest.mark.parametrize("words", [(), ("unit",), ("unit", "on-failure")])
@pytest.mark.parametrize("victim", ["server", "watched", "runtime"])
def test_after_a_kill_exactly_one_server_comes_back(service: Service, words: tuple[str, ...], victim: str) -> None:
    service.make(*server(service))
    first = service.start(*words)
    before = service.servers()
    pid = {
        "server": service.containers()[0]["pid"],
        "watched": first.pid,
        "runtime": first.pid if len(words) < 2 else child(first.pid, "runc"),
    }[victim]
    os.kill(pid, signal.SIGKILL)
    first.wait(20)
    second = service.start(*words)
    assert len(service.containers()) == 1
    after = service.servers()
    assert len(after) == 1
    assert not set(before) & set(after)
    second.terminate()
    assert second.wait(20) == 0
    wait_until(lambda: not service.servers())
    assert not service.containers()


def child(pid: int, name: str) -> int:
    """Return the one child of that name; a log is written by another."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    (one,) = (int(child) for child in found if Path(f"/proc/{child}/comm").read_text() == f"{name}\n")
    return one


def test_many_starts_at_once_make_one_server(service: Service) -> None:
    service.make(*server(service))
    first = service.start()
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    rivals = [subprocess.Popen([service.script], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(6)]
    service.started += rivals
    wait_until(lambda: sum(r.poll() is None for r in rivals) == 1)
    time.sleep(0.3)
    assert len(service.servers()) == 1
    assert len(service.containers()) == 1
    for rival in rivals:
        assert rival.stderr
        rival.terminate()
        rival.communicate(timeout=20)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1])
@pytest.mark.parametrize("words", [(), ("unit", "on-failure")])
def test_signals_reach_the_server(service: Service, words: tuple[str, ...], number: signal.Signals) -> None:
    text = f"trap 'echo got; exit 5' {int(number)}; touch /data/ready; while :; do sleep 0.05; done"
    service.make("sh", "-c", text, f"appbox-test-{service.name}")
    process = service.start(*words)
    process.send_signal(number)
    assert process.wait(20) == 5
    wait_until(lambda: (service.logged() if words else service.log()) == "got\n")


def test_default_dispositions_are_the_containers_own(service: Service) -> None:
    service.make("cat", "/proc/self/status")
    for words in ((), ("unit", "on-failure")):
        done = service.run(*words, check=True)
        wait_until(lambda out=done.stdout: "SigIgn" in out + service.logged())  # type: ignore[misc]
        assert re.search(r"^SigIgn:\s+0{16}$", service.logged() if words else done.stdout, re.MULTILINE), words


# The supervising shell with another start: the first is signalled as soon as the runtime's shell is there.
PROMPT = """
name=prompt
run=/nowhere
start() { exec sleep 30; }
identify() { kill -15 $$; return 1; }
retire() { :; }
"""


@pytest.mark.parametrize("shell", [("sh",), (BUSYBOX, "sh")])
def test_a_signal_that_comes_while_the_runtime_is_started_reaches_it(shell: tuple[str, ...], tmp_path: Path) -> None:
    text = render.run_script(model.RunScript("prompt", "1.0", BASE))
    functions = [found.group() for found in re.finditer(r"(?ms)^(supervise|forward)\(\) \{$.*?^\}$", text)]
    assert len(functions) == 2
    (tmp_path / "run").write_text("\n".join([PROMPT, *functions, "supervise"]))
    started = time.monotonic()
    done = subprocess.run([*shell, str(tmp_path / "run")], stdin=subprocess.DEVNULL, timeout=60, check=False)
    assert (done.returncode, time.monotonic() - started < 10) == (128 + signal.SIGTERM, True)


def test_restart_no_starts_once(service: Service) -> None:
    service.make("true")
    refused = service.run("unit", "no")
    assert refused.returncode == 1
    assert "is not to be started again" in refused.stderr
    service.state.joinpath("armed").touch()
    assert service.run("unit", "no").returncode == 0
    assert service.run("unit", "no").returncode == 1


def test_clean_leaves_a_service_alone_that_runs_in_the_foreground(service: Service) -> None:
    service.make(*server(service))
    process = service.start()
    assert service.run("clean").returncode == 0
    assert len(service.containers()) == 1
    process.terminate()
    process.wait(20)


def test_clean_ends_what_a_unit_left_behind(service: Service) -> None:
    service.make(*server(service))
    process = service.start("unit", "on-failure")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert len(service.containers()) == 1
    done = service.run("clean")
    assert (done.returncode, done.stderr) == (0, "")
    assert not service.containers()
    assert not service.servers()
    assert len(list(service.state.glob("lock.*"))) == 1


def test_locks_do_not_pile_up(service: Service) -> None:
    service.make("true")
    for _ in range(12):
        service.run(check=True)
    assert len(list(service.state.glob("lock.*"))) <= 9


@pytest.mark.parametrize("moved", [False, True])
def test_an_interrupted_carry_is_finished(service: Service, moved: bool) -> None:
    service.make("cat", "/data/value")
    (service.bundle / "data/data/value").write_text("old data\n")
    old = service.bundles / "old-data"
    if not moved:
        (service.bundle / "data").rename(old)
    (service.bundle / ".carry").symlink_to(old)
    done = service.run(check=True)
    assert done.stdout == "old data\n"
    assert not (service.bundle / ".carry").is_symlink()
    assert not old.exists()


def test_missing_data_is_said_and_nothing_starts(service: Service) -> None:
    service.make("true")
    shutil.rmtree(service.bundle / "data")
    (service.bundle / ".carry").symlink_to("/nowhere")
    done = service.run()
    assert done.returncode == 1
    assert done.stderr.startswith(f"appbox: {service.name}: its data is missing: ")
    assert (service.bundle / ".carry").is_symlink()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda s: shutil.rmtree(s.bundle / "rootfs"), "is missing; appbox apply makes it"),
        (lambda s: shutil.rmtree(s.bundle / ".live"), "cannot enter"),
        (lambda s: (s.bundle / ".live/work").rmdir(), "cannot fill"),
    ],
)
def test_each_step_that_fails_says_so(service: Service, spoil: Callable[[Service], object], sentence: str) -> None:
    service.make("true")
    spoil(service)
    done = service.run()
    assert done.returncode == 1
    assert re.fullmatch(f"appbox: {service.name}: .*{sentence}.*", done.stderr.splitlines()[-1])
    assert not service.containers()


def test_the_environment_of_the_caller_stays_outside(service: Service) -> None:
    service.make("sh", "-c", "export -p")
    (service.bundle / "rootfs/bin/env").symlink_to("busybox")
    hostile = {"NOTIFY_SOCKET": "/nowhere", "LISTEN_FDS": "1", "LISTEN_PID": "1", "XDG_RUNTIME_DIR": "/nowhere"}
    done = service.run(env=os.environ | hostile | {"SECRET": "x"}, check=True)
    assert not {"SECRET", *hostile} & set(re.findall(r"\b[A-Z_]+\b", done.stdout))


def test_busybox_alone_is_enough(service: Service, tmp_path: Path) -> None:
    """Debian's busybox has neither flock nor install; Alpine's has more."""
    tools = tmp_path / "tools"
    tools.mkdir()
    listed = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in listed:
        (tools / applet).symlink_to(BUSYBOX)
    runc = shutil.which("runc")
    assert runc
    (tools / "runc").unlink(missing_ok=True)
    (tools / "runc").symlink_to(runc)
    service.make(*server(service))
    text = (service.bundle / "run").read_text()
    text = re.sub(r"(?m)^export PATH=.*$", f"export PATH={tools}", text)
    (service.bundle / "run").write_text(re.sub(r"\A#!/bin/sh", f"#!{tools}/sh", text))
    process = service.start("unit", "on-failure")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    again = service.start("unit", "on-failure")
    assert len(service.servers()) == 1
    again.terminate()
    assert again.wait(20) == 0
    assert service.run("clean").returncode == 0
    assert stat.S_ISDIR(service.state.stat().st_mode)
