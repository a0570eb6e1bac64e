"""What a person at the machine does and sees: appbox, the init's own commands, a client of the service."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from tests.ground import runtime_schema
from tests.ground.machine import CommandError, Machine, Result

PORT = 6390
CONTAINERS = "/opt/containers"
STATE = ("/opt", "/etc", "/var/lib/appbox", "/var/cache/appbox")


def redis_manifest(name: str = "cache", port: int = PORT, **tables: Any) -> dict[str, Any]:
    """Return a manifest of the redis image, started as its entrypoint wants it; `tables` replace or add."""
    base = {
        "name": name,
        "image": "oci:/var/cache/appbox-dev/images/redis",
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
        "image": "oci:/var/cache/appbox-dev/images/busybox",
        "version": "debian",
        "process": {"entrypoint": ["sh", "-c", script, "sh"], "args": list(words)},
        "volumes": {"data": {"path": "/data"}},
    }
    return {**base, **tables}


class Host:
    """A booted machine as its administrator sees it."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.systemd = machine.init == "systemd"

    # appbox

    def appbox(self, *words: str, code: int = 0, timeout: float = 180) -> Result:
        """Run appbox, which has to end with `code`; no traceback may be seen whatever happens."""
        result = self.machine.run(["appbox", *words], check=False, timeout=timeout)
        if result.code != code or "Traceback" in result.err:
            raise CommandError(result)
        if words[:1] == ("apply",) and code == 0:
            self._see_that_specs_are_valid()
        return result

    def _see_that_specs_are_valid(self) -> None:
        """Hold the config.json of every service against the schema of the runtime specification."""
        for path in self.machine.path(CONTAINERS).glob("*-*/.generations/*/config.json"):
            assert not runtime_schema.faults(json.loads(path.read_text())), path

    def write_manifest(self, manifest: Mapping[str, Any]) -> str:
        """Write a manifest; return its path."""
        path = f"/root/services/{manifest['name']}.toml"
        self.machine.write(path, tomli_w.dumps(manifest))
        return path

    def apply(self, manifest: Mapping[str, Any], *options: str, code: int = 0) -> Result:
        """Write a manifest and apply it."""
        return self.appbox("apply", *options, self.write_manifest(manifest), code=code)

    # The init's own commands

    def control(self, verb: str, name: str, *, check: bool = True) -> Result:
        """Start, stop or restart a service as the init's handbook says."""
        words = ["systemctl", verb, name] if self.systemd else ["rc-service", name, verb]
        return self.machine.run(words, check=check)

    def is_active(self, name: str) -> bool:
        """Tell whether the init takes the service for running."""
        words = ["systemctl", "is-active", name] if self.systemd else ["rc-service", name, "status"]
        return self.machine.run(words, check=False).code == 0

    def unit(self, name: str) -> str:
        """Return the path of the service's unit."""
        return f"/etc/systemd/system/{name}.service" if self.systemd else f"/etc/init.d/{name}"

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
        found = [p.pid for p in self.machine.processes() if p.words[0] == f"redis-server *:{port}"]
        assert len(found) == 1, self.machine.processes()
        return found[0]

    def data(self, name: str, file: str, volume: str = "data") -> str:
        """Return the text of a file in a volume of the current version."""
        return self.machine.read(f"{CONTAINERS}/{name}/data/{volume}/{file}")

    def has_data(self, name: str, file: str, volume: str = "data") -> bool:
        """Tell whether a volume of the current version has a file that is not empty."""
        path = self.machine.path(f"{CONTAINERS}/{name}/data/{volume}/{file}")
        return path.exists() and path.stat().st_size > 0

    # Everything

    def traces(self, name: str) -> list[str]:
        """Return what runs or is mounted for a service: processes, containers, cgroups, mounts."""
        below = [p for p in self.machine.processes() if name in p.cgroup or any(name in word for word in p.words)]
        containers = self.machine.run(["runc", "list", "--quiet"]).out.split()
        cgroups = [path for path in self.machine.cgroups() if name in path]
        mounts = [path for path in self.machine.mounts() if path.startswith((CONTAINERS, "/run/appbox"))]
        return [*map(str, below), *containers, *cgroups, *mounts]

    def files(
        self, directories: Sequence[str] = STATE, *, without: Sequence[str] = ()
    ) -> dict[str, tuple[object, ...]]:
        """Return what a write could change of every file below `directories`, by path; `without` are names left out."""
        found: dict[str, tuple[object, ...]] = {}
        for directory in directories:
            top = self.machine.path(directory)
            for path, names, files in os.walk(top):
                names[:] = [name for name in names if name not in without]
                for entry in (Path(path), *(Path(path) / file for file in files)):
                    found[f"{directory}/{entry.relative_to(top)}"] = identity(entry)
        return found


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
