"""A machine for tests: a real init as PID 1 of its own namespaces, on a throw-away copy of a root. No services here.

It has PID, mount, UTS, IPC, network and cgroup namespaces of the running kernel, its own cgroup, a real cgroup v2
hierarchy, `/run` and `/dev` as at boot, and so runs at native speed. `/opt`, `/var` and `/root` are directories on the
disk, the rest is an overlay; both survive a reboot. Leaving the context kills every process and removes everything.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.ground import cache, cgroups, roots

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
}
PERSISTENT = ("home", "opt", "var", "root")  # on the disk itself: a real machine's /opt/containers is no overlay either
CGROUP = "appbox-ground."
SHELL_CGROUP = "user"  # where commands from outside run, as a login would

BOOT = Path(__file__).with_name("boot.sh")


@dataclass(frozen=True, slots=True)
class Result:
    """What a command inside did. `code` is the exit status; negative when a signal ended it."""

    words: tuple[str, ...]
    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Process:
    """A process inside. `pid` counts inside, `parent` and `user` outside; `cgroup` is relative to the machine's own."""

    pid: int
    parent: int
    name: str
    words: tuple[str, ...]
    user: int
    cgroup: str


class CommandError(AssertionError):
    """A command inside failed that had to succeed."""

    def __init__(self, result: Result) -> None:
        self.result = result
        super().__init__(f"{' '.join(result.words)} → {result.code}\n{result.out}{result.err}")


class Machine:
    """A root and the processes in it, from `with` to its end. Not booted until `boot`."""

    def __init__(
        self, root: roots.Root, layers: Sequence[Path] = (), *, images: Path | None = None, bare: bool = False
    ) -> None:
        """`layers` lie over the root, uppermost first; `images` is seen at the place of the cache's images.

        `bare`: its cgroups have no controller. What is the top for it is none for the kernel, which lets no cgroup but
        the top have both processes and controllers; crun tries for two seconds at each start to have both.
        """
        self.init = root.init.name
        self._command = root.init.command
        self._lower = ":".join(map(str, (*layers, root.environment, *root.over, root.system)))
        self._tools = {name: f"{root.tools.folder}/{name}" for name in root.tools.names} if root.tools else {}
        self._images = images or cache.root() / "images"
        self._process: subprocess.Popen[bytes] | None = None
        self.pid = 0  # of PID 1, as this machine's kernel numbers it outside
        self._images.mkdir(parents=True, exist_ok=True)
        self._kept = contextlib.ExitStack()
        self.directory = self._kept.enter_context(cache.scratch(self.init))
        cgroups.sweep(CGROUP)
        self._group = cgroups.hierarchy() / f"{CGROUP}{self.directory.name}"
        self.cgroup = self._group / "bare" if bare else self._group
        self._fill(root.system)

    def _fill(self, system: Path) -> None:
        """Make the directories that the boot mounts."""
        for name in ("root", "upper", "work"):
            (self.directory / name).mkdir()
        for name in PERSISTENT:
            subprocess.run(["cp", "-a", system / name, self.directory / name], check=True)
        (self.directory / "console").touch()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill everything and remove every trace."""
        self.power_off()
        cgroups.remove(self._group)
        self._kept.close()

    # Power

    def boot(self, timeout: float = 60) -> None:
        """Start the init; return when it has started all that it starts at boot."""
        self.cgroup.mkdir(parents=True, exist_ok=True)
        # When the tests are killed, the machine dies with them.
        words = ["setpriv", "--pdeathsig=KILL", "unshare", "--fork", "--kill-child", "--propagation=private"]
        words += ["--pid", "--mount", "--uts", "--ipc", "--net"]
        words += ["sh", str(BOOT), self._lower, str(self.directory), str(self.cgroup), str(self._images)]
        words += ["leave" if self.init == "openrc" else "mount"]  # OpenRC's own service "cgroups" mounts them
        with (self.directory / "console").open("ab") as console:
            self._process = subprocess.Popen(
                [*words, *self._command],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        self.wait_until(self._is_init, timeout, "PID 1 to be the init")
        (self.cgroup / SHELL_CGROUP).mkdir(exist_ok=True)
        self.wait_until(self._is_up, timeout, "the init to finish booting")

    def _is_init(self) -> bool:
        """Tell whether the first process has become the init, and remember its number."""
        assert self._process is not None
        if self._process.poll() is not None:
            msg = f"the machine died while booting:\n{self.console()}"
            raise AssertionError(msg)
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        self.pid = int(children[0]) if children else 0
        if not self.pid:
            return False
        program = Path(self._command[0]).name
        return Path(f"/proc/{self.pid}/comm").read_text().strip() == program

    def _is_up(self) -> bool:
        if self.init == "systemd":
            return self.run(["systemctl", "is-system-running"], check=False).out.strip() in ("running", "degraded")
        return (
            self.run(["sh", "-c", "[ ! -e /run/openrc/rc.starting ] && rc-status -r"], check=False).out.strip()
            == "default"
        )

    def power_off(self) -> None:
        """Cut the power: every process dies at once, by SIGKILL."""
        if self._process is not None:
            # unshare reaps PID 1, with which the whole namespace dies; --kill-child is for when there is none yet.
            if self._process.poll() is None:
                os.kill(self.pid or self._process.pid, signal.SIGKILL)
            self._wait_for_death(10)

    def _wait_for_death(self, timeout: float) -> None:
        assert self._process is not None
        self._process.wait(timeout)
        self._process, self.pid = None, 0
        # The namespace's processes are gone when the cgroup is empty, not when their parent is.
        self.wait_until(lambda: not cgroups.pids(self.cgroup), timeout, "the last process to go")

    def reboot(self, *, hard: bool = False, timeout: float = 60) -> None:
        """Restart the machine through its init, or by cutting the power when `hard`."""
        if hard:
            self.power_off()
        else:
            words = ["systemctl", "reboot"] if self.init == "systemd" else ["shutdown", "-r", "now"]
            self.run(words, check=False)
            self._wait_for_death(timeout)
        cgroups.remove(self.cgroup)
        self.boot()

    def remove_python(self) -> None:
        """Remove appbox and every Python of the machine."""
        self.run([f"{roots.VENV}/bin/pip", "--quiet", "uninstall", "--yes", "appbox"])
        self.run(["sh", "-c", f"rm -rf {roots.VENV} /usr/local/bin/appbox /usr/bin/python3* /usr/lib/python3*"])

    def install(self, name: str) -> None:
        """Put a program where it is found, on a machine that has it for tests only."""
        if name in self._tools:
            self.run(["ln", "-s", self._tools[name], f"/usr/local/bin/{name}"])

    def console(self) -> str:
        """Return what the boot and the init have written to the console."""
        return (self.directory / "console").read_text(encoding="utf-8", errors="replace")

    # Commands and files

    def run(
        self,
        words: Sequence[str],
        *,
        check: bool = True,
        input: str = "",  # noqa: A002 - as subprocess.run has it
        timeout: float = 120,
        env: Mapping[str, str] | None = None,
    ) -> Result:
        """Run a program inside as root, as from a login; raise `CommandError` when it fails and `check` is set."""
        process = self.start(words, env=env)
        try:
            out, err = process.communicate(input.encode(), timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            msg = f"{' '.join(words)} took more than {timeout} s"
            raise AssertionError(msg) from None
        result = Result(tuple(words), process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))
        if check and result.code:
            raise CommandError(result)
        return result

    def start(self, words: Sequence[str], *, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a program inside and return at once; the caller waits for it and closes its pipes."""
        enter = ["sh", "-c", 'echo 0 >"$1/cgroup.procs"; shift; exec "$@"', "enter", str(self.cgroup / SHELL_CGROUP)]
        enter += ["nsenter", "--target", str(self.pid), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]
        enter += ["/usr/bin/env", "-i", *(f"{name}={value}" for name, value in {**ENVIRONMENT, **(env or {})}.items())]
        pipe = subprocess.PIPE
        words = [self._tools.get(words[0], words[0]), *words[1:]]
        return subprocess.Popen([*enter, *words], stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)

    def path(self, inside: str) -> Path:
        """Return where a file of the booted machine is seen from outside. Absolute links lead outside: use `run`."""
        return Path(f"/proc/{self.pid}/root/{inside.lstrip('/')}")

    def write(self, inside: str, text: str, mode: int = 0o644) -> None:
        """Write a file, with its directories."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")
        path.chmod(mode)

    def read(self, inside: str) -> str:
        """Return the text of a file, byte for byte."""
        return self.path(inside).read_bytes().decode()

    def exists(self, inside: str) -> bool:
        """Tell whether there is anything of that name, be it a dangling link."""
        return os.path.lexists(self.path(inside))

    # What is in it

    def processes(self) -> list[Process]:
        """Return every process inside but those of commands from outside, by number."""
        found = (self._process_of(pid) for pid in cgroups.pids(self.cgroup))
        return sorted((p for p in found if p and p.cgroup.split("/")[1] != SHELL_CGROUP), key=lambda p: p.pid)

    def _process_of(self, outside: int) -> Process | None:
        """Return what /proc says about a process, None when it has ended."""
        proc = Path(f"/proc/{outside}")
        try:
            status = dict(line.split(":\t", 1) for line in (proc / "status").read_text().splitlines() if ":\t" in line)
            words = (proc / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
            cgroup = next(line for line in (proc / "cgroup").read_text().splitlines() if line.startswith("0::"))
        except (FileNotFoundError, ProcessLookupError):
            return None
        # Whoever brings a command inside is not there itself.
        if status["State"].startswith(("Z", "X")) or len(status["NSpid"].split()) < 2:
            return None
        inside = "/" + os.path.relpath(cgroup.removeprefix("0::"), f"/{self.cgroup.relative_to(cgroups.hierarchy())}")
        user = int(status["Uid"].split()[0])
        return Process(int(status["NSpid"].split()[1]), int(status["PPid"]), status["Name"], tuple(words), user, inside)

    def find(self, name: str) -> list[int]:
        """Return the numbers of the processes of that name (comm, so its first 15 characters)."""
        return [process.pid for process in self.processes() if process.name == name]

    def kill(self, pid: int, number: int = signal.SIGKILL) -> None:
        """Send a signal to a process by its number inside."""
        self.run(["kill", f"-{int(number)}", str(pid)])

    def mounts(self) -> set[str]:
        """Return the mount points that PID 1 sees."""
        lines = Path(f"/proc/{self.pid}/mountinfo").read_text().splitlines()
        return {line.split()[4] for line in lines}

    def cgroups(self) -> set[str]:
        """Return the cgroups below the machine's own, without the one of commands from outside."""
        below = (os.path.relpath(path, self.cgroup) for path, _, _ in os.walk(self.cgroup))
        return {path for path in below if path not in (".", SHELL_CGROUP)}

    def wait_until(self, condition: Callable[[], object], timeout: float = 20, what: str = "the condition") -> None:
        """Wait until `condition` holds; fail with the console's last lines when it does not in `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                msg = f"waited {timeout} s for {what} in vain; the console's end:\n{self.console()[-2000:]}"
                raise AssertionError(msg)
            time.sleep(0.1)
