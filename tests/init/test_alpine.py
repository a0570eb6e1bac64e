"""Where busybox is the shell and every tool, as on Alpine."""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.ground import alpine
from tests.init.host import Host, script_manifest

TABLE = Path(alpine.__file__).with_name("tools.toml")
# What the usage does not list, and the tests of the scripts show.
UNSAID = {"mount": {"--bind", "-n"}}


@pytest.mark.parametrize("host", ["busybox"], indirect=True)
def test_what_busybox_has_is_all_that_there_is(host: Host) -> None:
    assert host.machine.run(["readlink", "-f", "/bin/sh"]).out == "/usr/bin/busybox\n"
    found = {path.name: path for folder in alpine.FOLDERS for path in host.machine.path(f"/{folder}").iterdir()}
    others = {name for name, path in found.items() if not path.is_symlink() or os.readlink(path) != "/usr/bin/busybox"}
    assert others - {"busybox"} <= set(alpine.KEPT)
    assert {"sh", "mount", "unshare", "nsenter", "timeout", "awk", "stat", "xargs"} <= found.keys() - others
    assert not {"bash", "dash", "perl", "gawk", "mawk", "systemctl"} & found.keys()
    # The options of the table are those of this busybox, too.
    for name, options in tomllib.loads(TABLE.read_text(encoding="utf-8"))["busybox"].items():
        if name not in alpine.KEPT and options:
            usage = host.machine.run(["busybox", name, "--help"], check=False).err
            known = set(re.findall(r"--[a-z-]+|(?<=[\s[,])-[a-zA-Z0-9](?![a-z])", usage))
            known |= {f"-{letter}" for word in re.findall(r"\[-([a-zA-Z0-9]+)\]", usage) for letter in word}
            missing = set(options) - known - UNSAID.get(name, set())
            assert not missing, f"{name} {missing}: {usage}"


@pytest.mark.parametrize("host", ["busybox"], indirect=True)
def test_busyboxs_crond_starts_jobs_and_the_administrators_lines_stay(host: Host) -> None:
    table = "/etc/crontabs/root"
    own = host.machine.read(table)
    host.machine.run(["rc-service", "crond", "start"])
    job = script_manifest("date +%s >>/data/starts", service={"schedule": "*-*-* *:*:00"})
    host.apply(job)
    kept = script_manifest(
        "trap 'exit 0' TERM; while :; do sleep 0.2; done",
        name="kept",
        snapshots={"schedule": "*-*-* *:*:00", "keep": 1},
    )
    for schedule in ("*-*-* 04:00:00", "*-*-* *:*:00"):
        kept["snapshots"]["schedule"] = schedule
        host.apply(kept)
        assert "nothing to do" in host.appbox("apply", "/root/services").out.lower()
    assert [line.partition(" /")[0] for line in host.machine.read(table).splitlines() if line[0] != "#"] == [
        "* * * * *",
        "* * * * *",
    ]
    host.machine.wait_until(lambda: host.has_data("job", "starts"), 70, "the minute of the job")
    host.machine.wait_until(lambda: is_kept(host, "kept"), 70, "a snapshot by the clock")
    host.machine.wait_until(lambda: status(host, "job")["last_status"] == "0", 10, "the end of the job")
    host.appbox("remove", "job", "--purge")
    host.appbox("remove", "kept", "--purge")
    assert host.machine.read(table) == own


def is_kept(host: Host, name: str) -> bool:
    """Tell whether there is a snapshot that the clock has taken."""
    return any(
        one["scheduled"] for one in json.loads(host.appbox("--json", "snapshot", "--list", name).out)["snapshots"]
    )


def status(host: Host, name: str) -> dict[str, Any]:
    """Return what appbox knows of a service."""
    return dict(json.loads(host.appbox("--json", "status", name).out))
