"""config.json is held against the JSON schema of the OCI runtime specification itself, as Debian packages it."""

from __future__ import annotations

import pytest

from tests.ground.pure import build, spec
from tests.ground.runtime_schema import faults

pytestmark = pytest.mark.schema

TABLES = {
    "nothing said": "",
    "host network": '[network]\nmode = "host"\nhostname = "web.example.org"\n',
    "host ids": '[security]\nuserns = "host"\n',
    "no filter": '[security]\nseccomp = "unconfined"\nno_new_privileges = false\n',
    "capabilities": '[security]\ncapabilities = { add = ["NET_ADMIN"], drop = ["ALL"] }\n',
    "limits": """
[resources]
memory = "512M"
memory_swap = "0"
cpus = 1.5
cpu_weight = 10000
pids = 256
io_weight = 1
""",
    "files and secrets": """
[config."/etc/app.d"]
text = ""
mode = "0555"
[secrets.a]
file = "/etc/appbox/secrets/a"
[secrets.b]
command = ["pass", "show", "b"]
path = "/etc/b"
""",
    "health": '[health]\nexec = ["true"]\n[service]\nnotify = true\n',
    "rlimits and isolation": """
[process]
groups = [44]
[resources]
nofile = 1024
memlock = "unlimited"
[security]
userns = { base = 200000, size = 100 }
apparmor = "web"
sysctl = { "kernel.msgmax" = 5 }
capabilities = { add = ["NET_ADMIN"], drop = ["ALL"] }
""",
    "everything": """
[process]
entrypoint = ["/bin/app", "%$`;'"]
args = ["", "\\u00e9\\U0001F600"]
env = { A = "1\\r\\n2", B = "" }
workdir = "/data"
user = "7:8"
[volumes.data]
path = "/data"
[volumes.memory]
path = "/run/memory"
tmpfs = true
size = "64M"
mode = "0700"
[volumes.host]
path = "/host"
source = "/srv/host"
read_only = true
[config."/etc/app.conf"]
text = "x"
[network]
mode = "none"
""",
}


@pytest.mark.parametrize("tables", TABLES.values(), ids=TABLES)
def test_config_json_is_valid(tables: str) -> None:
    assert not faults(spec(build(tables)))


def test_the_schema_finds_faults() -> None:
    """A validator that accepts everything would prove nothing."""
    broken = spec(build(""))
    broken["process"]["user"] = "root"
    broken["linux"]["namespaces"] = [{"type": "weather"}]
    assert len(faults(broken)) >= 2
