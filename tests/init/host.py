"""What the owner of services does and sees at a machine: appbox, the init's own commands, a client of the service."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from appbox.units.files import marker
from tests.ground import roots, runtime_schema
from tests.ground.machine import CommandError, Machine, Result
from tests.init.worlds import OF_HOST, RUNTIME_DIRECTORY, RUNTIMES, World

PORT = 6390
PYTHON = f"{roots.VENV}/bin/python"
LOGIN = "/sys/fs/cgroup/login"
AWAY = "/usr/local/lib/away"  # where the other runtime is
SUBIDS = 100_000  # the first subordinate id of useradd(8)
CONTAINERS = OF_HOST.containers
IMAGES = "oci:/var/cache/appbox-dev/images"


def redis_manifest(name: str = "cache", port: int = PORT, **tables: Any) -> dict[str, Any]:
    """Return a manifest of the redis image, started as its entrypoint wants it; `tables` replace or add."""
    base = {
        "name": name,
        "image": f"{IMAGES}/redis",
        "version": "debian",
        "process": {"args": ["redis-server", "--port", str(port)]},
        "volumes": {"data": {"path": "/data"}},
        "network": {"mode": "host"},
    }
    return {**base, **tables}


def script_manifest(script: str, *words: str, name: str = "job", **tables: Any) -> dict[str, Any]:
    """Return a manifest of the busybox image that runs `script` with `words` as its arguments and a volume at /data."""
    base = {
        "name": name,
        "image": f"{IMAGES}/busybox",
        "version": "debian",
        "process": {"entrypoint": ["sh", "-c", script, "sh"], "args": list(words)},
        "volumes": {"data": {"path": "/data"}},
    }
    return {**base, **tables}


class Host:
    """A booted machine as the owner of its services sees it: the administrator, or an ordinary user."""

    def __init__(self, machine: Machine, world: World | None = None) -> None:
        self.machine = machine
        self.world = world or World(machine.init)
        self.systemd = machine.init == "systemd"
        self.ordinary = self.world.ordinary
        self.runtime = self.world.runtime
        self.places = self.world.places
        self.home, self.services = self.places.home, self.places.services
        self.containers = self.places.containers
        self._settle()

    def _settle(self) -> None:
        """Leave the machine one runtime, and let its user's services run without a login."""
        for name in RUNTIMES:
            if name != self.runtime and self.world.init != "busybox":
                self.machine.run(["sh", "-c", f'mkdir -p {AWAY} && mv "$(command -v {name})" {AWAY}/'])
        if self.ordinary and self.systemd:
            self.machine.run(["loginctl", "enable-linger", roots.USER])
        if self.world.own:
            self.machine.run(["appbox", "doctor", "--user", roots.USER, "--fix", "--yes"])
        self._wait_for_manager()

    def _wait_for_manager(self) -> None:
        """Wait until the user's own manager has started what it starts at boot."""
        if self.ordinary and self.systemd:
            asked = ["systemctl", "--user", "is-system-running"]
            self.machine.wait_until(
                lambda: self.run(asked, check=False).out.strip() in ("running", "degraded"), 30, "the user's manager"
            )
        if self.world.own:
            state = f"{RUNTIME_DIRECTORY}/openrc"
            asked = ["sh", "-c", f'[ ! -e {state}/rc.starting ] && [ "$(cat {state}/softlevel)" = default ]']
            self.machine.wait_until(
                lambda: self.machine.run(asked, check=False).code == 0, 30, "what the user has started at boot"
            )

    def reboot(self, *, hard: bool = False) -> None:
        """Restart the machine; return when the init has started what it starts at boot."""
        self.machine.reboot(hard=hard)
        self._wait_for_manager()

    # Commands and files

    def run(self, words: Sequence[str], *, check: bool = True, timeout: float = 120) -> Result:
        """Run a program as the owner of the services, as from a login."""
        return self.machine.run(self._as_owner(words), check=check, timeout=timeout)

    def start(self, words: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a program as the owner; the caller waits for it and closes its pipes."""
        return self.machine.start(self._as_owner(words))

    def _as_owner(self, words: Sequence[str]) -> list[str]:
        """Return the words that root runs for what the owner does."""
        if not self.ordinary:
            return list(words)
        # Where a user has no init system, root's has the user's services.
        if not (self.systemd or self.world.own) and "appbox" in words:
            after = list(words).index("appbox") + 1
            return [*words[:after], "--user", roots.USER, *words[after:]]
        if self.by_root and words[0] == PYTHON:  # which does what appbox --user does
            return ["env", f"OWNER={roots.USER}", f"INIT={self.machine.init}", *words]
        number = str(roots.USER_ID)
        user = ["setpriv", f"--reuid={number}", f"--regid={number}", "--init-groups", "env", f"--chdir={self.home}"]
        if self.world.own:  # whose services stay in the cgroup of whoever starts them
            user = ["sh", "-c", f'mkdir -p {LOGIN}; echo 0 >{LOGIN}/cgroup.procs; exec "$@"', "sh", *user]
        variables = [f"HOME={self.home}", f"USER={roots.USER}", f"LOGNAME={roots.USER}"]
        return [*user, *variables, f"XDG_RUNTIME_DIR={RUNTIME_DIRECTORY}", *words]

    def beside(self, name: str, words: Sequence[str]) -> list[str]:
        """Return the words that the machine's root runs for what the unit of a service does as its owner."""
        if self.by_root:
            enter = "for g in openrc.$0 $0; do g=/sys/fs/cgroup/$g/supervisor; [ ! -d $g ] || echo 0 >$g/cgroup.procs"
            return ["sh", "-c", f'{enter}; done; exec "$@"', name, *self._as_owner(words)]
        scope = ["systemd-run", "--user", "--scope", "--quiet", "--collect", "--"]
        return self._as_owner([*(scope if self.ordinary and self.systemd else []), *words])

    def write(self, inside: str, text: str, mode: int = 0o644) -> None:
        """Write a file, with its directories; what is below the owner's home is the owner's."""
        made = [path for path in (inside, *map(str, Path(inside).parents)) if not self.machine.exists(path)]
        self.machine.write(inside, text, mode)
        self.give(*made)

    def give(self, *paths: str) -> None:
        """Give the owner what the machine's root has made below the owner's home."""
        if self.ordinary:
            for path in paths:
                if path.startswith(f"{self.home}/"):
                    os.lchown(self.machine.path(path), roots.USER_ID, roots.USER_ID)

    def give_all(self, *paths: str) -> None:
        """Give the owner's root what the machine's root has made in the owner's files, which nobody else could."""
        if self.ordinary:
            self.machine.run(["find", *paths, "-user", "0", "-exec", "chown", "-h", str(roots.USER_ID), "{}", "+"])

    # appbox

    @property
    def by_root(self) -> bool:
        """Whether root's init system runs the services of a user, who has none."""
        return self.ordinary and not (self.systemd or self.world.own)

    def appbox(self, *words: str, code: int = 0, timeout: float = 180) -> Result:
        """Run appbox, which has to end with `code`; no traceback may be seen whatever happens."""
        result = self.run(["appbox", *words], check=False, timeout=timeout)
        if result.code != code or "Traceback" in result.err:
            raise CommandError(result)
        if words[:1] == ("apply",) and code == 0:
            self._see_that_specs_are_valid()
        return result

    def _see_that_specs_are_valid(self) -> None:
        """Hold the config.json of every service against the schema of the runtime specification."""
        for path in self.machine.path(self.containers).glob("*-*/.generations/*/config.json"):
            assert not runtime_schema.faults(json.loads(path.read_text())), path

    def write_manifest(self, manifest: Mapping[str, Any]) -> str:
        """Write a manifest; return its path."""
        path = f"{self.services}/{manifest['name']}.toml"
        self.write(path, tomli_w.dumps(manifest))
        return path

    def apply(self, manifest: Mapping[str, Any], *options: str, code: int = 0) -> Result:
        """Write a manifest and apply it."""
        return self.appbox("apply", *options, self.write_manifest(manifest), code=code)

    # The init's own commands

    def control(self, verb: str, name: str, *, check: bool = True) -> Result:
        """Start, stop or restart a service as the init's handbook says."""
        words = ["systemctl", verb, name] if self.systemd else ["rc-service", name, verb]
        return self.init(words, check=check)

    def is_active(self, name: str) -> bool:
        """Tell whether the init takes the service for running."""
        words = ["systemctl", "is-active", name] if self.systemd else ["rc-service", name, "status"]
        return self.init(words, check=False).code == 0

    def init(self, words: Sequence[str], *, check: bool = True) -> Result:
        """Give a command to the init system that has the services: a user's own manager, or the host's."""
        if not (self.systemd or self.world.own):
            return self.machine.run(words, check=check)
        return self.run([words[0], *(["--user"] if self.ordinary else []), *words[1:]], check=check)

    @property
    def units(self) -> str:
        """The directory of units."""
        if not self.systemd:
            return f"{self.home}/.config/rc/init.d" if self.world.own else "/etc/init.d"
        return f"{self.home}/.config/systemd/user" if self.ordinary else "/etc/systemd/system"

    def unit(self, name: str) -> str:
        """Return the path of the service's unit."""
        return f"{self.units}/{name}.service" if self.systemd else f"{self.units}/{name}"

    def oci(self, *words: str, check: bool = True) -> Result:
        """Give a command to the runtime, which may not even know where an ordinary user's states are."""
        own = ["--root", f"{self.places.states}/{self.runtime}"] if self.ordinary else []
        return self.run([self.runtime, *own, *words], check=check)

    def listed(self) -> list[str]:
        """Return the containers that the runtime knows."""
        # crun takes a directory that is not there for a failure.
        return self.oci("list", "--quiet", check=False).out.split()

    # The service

    def redis(self, *words: str, port: int = PORT) -> str:
        """Ask the server; return what it answers, "" when it does not."""
        client = ["redis-cli", "-h", "127.0.0.1", "-p", str(port), *words]
        return self.machine.run(client, check=False, timeout=20).out.strip()

    def wait_for_pong(self, port: int = PORT) -> None:
        """Wait until the server answers."""
        self.machine.wait_until(lambda: self.redis("ping", port=port) == "PONG", 30, f"PONG from port {port}")

    def server(self, port: int = PORT) -> int:
        """Return the number of the one server that listens on `port`; fail when there are more or none."""
        found = self.servers(port)
        assert len(found) == 1, self.machine.processes()
        return found[0]

    def servers(self, port: int = PORT) -> list[int]:
        """Return the numbers of all servers that listen on `port`."""
        return [p.pid for p in self.machine.processes() if p.words[0] == f"redis-server *:{port}"]

    @property
    def least_id(self) -> int:
        """The least id of the host's that a process in a service may have which is not its root: ids of nobody else."""
        return SUBIDS if self.ordinary else 0x70000000

    def data(self, name: str, file: str, volume: str = "data") -> str:
        """Return the text of a file in a volume of the current version."""
        return self.machine.read(f"{self.containers}/{name}/data/{volume}/{file}")

    def has_data(self, name: str, file: str, volume: str = "data") -> bool:
        """Tell whether a volume of the current version has a file that is not empty."""
        path = self.machine.path(f"{self.containers}/{name}/data/{volume}/{file}")
        return path.exists() and path.stat().st_size > 0

    def cron_line(self, name: str) -> tuple[str, str]:
        """Return when cron does something for a service, and what."""
        table = f"/etc/cron.d/appbox-{name}"
        lines = self.machine.read(table if self.machine.exists(table) else "/etc/crontabs/root").splitlines()
        *times, command = lines[lines.index(marker(name)) + 1].split(None, 5)
        return " ".join(times), command.removeprefix("root ")

    # Everything

    def runs(self, words: str) -> bool:
        """Tell whether anything with this command line runs, in whichever cgroup."""
        return self.machine.run(["pgrep", "-f", "-x", words], check=False).code == 0

    def traces(self, name: str) -> list[str]:
        """Return what runs or is mounted for a service: processes, containers, cgroups, mounts."""
        below = [p for p in self.machine.processes() if name in p.cgroup or any(name in word for word in p.words)]
        containers = self.listed()
        cgroups = [path for path in self.machine.cgroups() if name in path]
        mounts = [path for path in self.machine.mounts() if path.startswith((self.containers, self.places.runs))]
        return [*map(str, below), *containers, *cgroups, *mounts]

    def files(
        self, directories: Sequence[str] | None = None, *, without: Sequence[str] = ()
    ) -> dict[str, tuple[object, ...]]:
        """Return what a write could change of every file below `directories`, by path; `without` are names left out.

        Without `directories` it is all that appbox writes to.
        """
        found: dict[str, tuple[object, ...]] = {}
        for directory in directories or self.written:
            top = self.machine.path(directory)
            for path, names, files in os.walk(top):
                names[:] = [name for name in names if name not in without]
                for entry in (Path(path), *(Path(path) / file for file in files)):
                    found[f"{directory}/{entry.relative_to(top)}"] = identity(entry)
        return found

    @property
    def written(self) -> tuple[str, ...]:
        """The directories below which all is that appbox ever writes, without what it needs in memory."""
        if not self.ordinary:
            return ("/opt", "/etc", self.places.state, self.places.cache)
        own = (f"{self.home}/{name}" for name in (".cache", ".config", ".local"))
        return ("/opt", "/etc", OF_HOST.state, OF_HOST.cache, *own)


def identity(path: Path) -> tuple[object, ...]:
    """Return type, owner, inode, size and times of a file, and where it points to when it is a link."""
    info = path.lstat()
    target = os.readlink(path) if stat.S_ISLNK(info.st_mode) else ""
    return (
        info.st_mode,
        info.st_uid,
        info.st_gid,
        info.st_ino,
        info.st_size,
        info.st_mtime_ns,
        info.st_ctime_ns,
        target,
    )
