"""Manifests of services/ that no test can run, on empty images that say of themselves what the real ones do."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.ground import layers
from tests.ground.sandbox import Sandbox

pytestmark = pytest.mark.root

SERVICES = Path(__file__).parents[2] / "services"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
GITEA = "/var/lib/gitea"


@dataclass(frozen=True)
class Expected:
    """The image's documented configuration; what has to come of it: user, words, what may be written."""

    config: dict[str, Any]
    user: int
    args: list[str]
    writable: set[str]


EXPECTED = {
    "traefik": Expected(
        {"Env": [PATH], "Entrypoint": ["/entrypoint.sh"], "Cmd": ["traefik"], "ExposedPorts": {"80/tcp": {}}},
        0,
        ["/entrypoint.sh", "traefik", "--configfile=/etc/traefik/traefik.yml"],
        {"/acme"},
    ),
    "grafana": Expected(
        {
            "Env": [PATH, "GF_PATHS_DATA=/var/lib/grafana", "GF_PATHS_PROVISIONING=/etc/grafana/provisioning"],
            "Entrypoint": ["/run.sh"],
            "User": "472",
            "ExposedPorts": {"3000/tcp": {}},
            "WorkingDir": "/usr/share/grafana",
        },
        472,
        ["/run.sh"],
        {"/var/lib/grafana"},
    ),
    "forgejo": Expected(
        {
            "Env": [PATH, f"GITEA_WORK_DIR={GITEA}", "GITEA_TEMP=/tmp/gitea", f"HOME={GITEA}/git"],
            "Entrypoint": ["/usr/bin/dumb-init", "--", "/usr/local/bin/docker-entrypoint.sh"],
            "User": "1000:1000",
            "Volumes": {GITEA: {}, "/etc/gitea": {}},
            "ExposedPorts": {"2222/tcp": {}, "3000/tcp": {}},
            "WorkingDir": GITEA,
        },
        1000,
        ["/usr/bin/dumb-init", "--", "/usr/local/bin/docker-entrypoint.sh"],
        {GITEA, "/etc/gitea"},
    ),
    "vaultwarden": Expected(
        {
            "Env": [PATH, "ROCKET_PROFILE=release", "ROCKET_ADDRESS=0.0.0.0", "ROCKET_PORT=80"],
            "Cmd": ["/start.sh"],
            "Volumes": {"/data": {}},
            "ExposedPorts": {"80/tcp": {}},
            "Healthcheck": {"Test": ["CMD-SHELL", "/healthcheck.sh"], "Interval": 60 * 10**9, "Timeout": 10**10},
        },
        65534,
        ["/start.sh"],
        {"/data"},
    ),
    "garage": Expected(
        {"Env": [PATH, "RUST_LOG=garage=info"], "Cmd": ["/garage", "server"]},
        65534,
        ["/garage", "server"],
        {"/var/lib/garage/meta", "/var/lib/garage/data"},
    ),
}


def bring(box: Sandbox, name: str, expected: Expected) -> Path:
    """Write the manifest as it is, but for its image, which has the expected configuration and nothing to run."""
    box.image(name, layers.directory(b"etc"), **{"Cmd": None, **expected.config})
    for path in SERVICES.glob("*"):
        if path.is_file() and path.suffix != ".toml":
            (box.services / path.name).write_bytes(path.read_bytes())
    routes = box.services / "traefik.d"
    routes.mkdir()
    (routes / "git.yml").write_bytes((SERVICES / "traefik.d/git.yml").read_bytes())
    text = (SERVICES / f"{name}.toml").read_text()
    text = re.sub(r'(?m)^image = ".*"$', f'image = "oci:{box.images}"', text)
    path = box.services / f"{name}.toml"
    path.write_text(re.sub(r'(?m)^version = "[^"]*"', f'version = "{name}"', text))
    secrets = box.root / "etc/appbox/secrets"
    secrets.mkdir(parents=True)
    (secrets / name).write_text("never to be seen")
    (secrets / name).chmod(0o600)
    return path


@pytest.mark.parametrize("name", EXPECTED)
def test_a_service_that_cannot_run_here_is_compiled_as_it_says(tmp_path: Path, name: str) -> None:
    expected = EXPECTED[name]
    box = Sandbox(tmp_path)
    path = bring(box, name, expected)
    assert f"{name} {name}: ok" in box.appbox("check", "--image", path).out
    box.appbox("apply", path)
    spec = box.spec(name)
    process = spec["process"]
    assert (process["args"], process["user"]["uid"]) == (expected.args, expected.user)
    assert process["capabilities"]["bounding"] == []
    assert process["noNewPrivileges"]
    mounts = {one["destination"]: one for one in spec["mounts"]}
    binds = {place for place, one in mounts.items() if "rbind" in one["options"] or "bind" in one["options"]}
    writable = {
        place for place in binds if "ro" not in mounts[place]["options"] and "/data/" in mounts[place]["source"]
    }
    assert writable == expected.writable
    assert spec["root"]["readonly"]
    assert not [one for one in json.dumps(spec).split('"') if "never to be seen" in one]
    box.settled()
