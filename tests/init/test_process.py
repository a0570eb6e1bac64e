"""What the manifest says of the process and of its isolation, in a container that an init system started."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from tests.ground import layers
from tests.ground.roots import USER_ID
from tests.ground.tiny import Content
from tests.init.host import SUBIDS, Host, script_manifest

HOSTILE = "a\nb\r'\"\\ %n %% $HOME ${HOME} `id` $(id) ; exec \u00e9\U0001f600\t#"

REPORT = r"""
set -e
printf '%s' "$HOSTILE" >/data/env
printf '%s' "$1" >/data/argument
{ printf '%s' "$2" | wc -c; } >/data/long
pwd >/data/workdir
id -u >/data/user; id -G >/data/groups
hostname >/data/hostname
ulimit -n >/data/nofile; ulimit -c >/data/core; ulimit -H -s >/data/stack
cat /proc/sys/net/core/somaxconn /proc/sys/kernel/msgmax >/data/sysctl
date -d @0 +%H:%M >/data/clock
tr '\0' ' ' </proc/1/cmdline >/data/first
cat /proc/self/uid_map >/data/map
grep -E '^Cap(Eff|Amb)|NoNewPrivs' /proc/self/status >/data/status
[ -c /dev/box/odd ] && true </dev/box/odd && echo read >/data/device
true 2>/data/refused >/dev/box/odd && echo yes >/data/written || echo no >/data/written
sh -c 'sh -c "sleep 0.2; exit 0" & exit 0'
sleep 0.6
ps -o stat | grep -c '^Z' >/data/zombies || :
trap 'sleep 2; echo stopped >>/data/stopped; exit 0' USR2
echo up >/data/up
while :; do sleep 0.1; done
"""


def reporting(**process: Any) -> dict[str, Any]:
    """Return a manifest with a value for nearly every key of [process], [security] and of the rlimits."""
    long = "\U0001f600" * 16384  # 64 KiB
    manifest = script_manifest(REPORT, HOSTILE, long, name="report")
    manifest["process"] |= {
        "env": {"HOSTILE": HOSTILE},
        "workdir": "/data",
        "user": "7:8",
        "groups": [9, 44],
        "stop_signal": "SIGUSR2",
        "stop_timeout": 20,
        "init": True,
        "timezone": "Asia/Kolkata",
    } | process
    manifest["volumes"]["data"]["owner"] = "7:8"
    manifest["network"] = {"mode": "none", "hostname": "box.example.org"}
    manifest["resources"] = {"nofile": 1234, "core": 0, "stack": "2M"}
    manifest["security"] = {
        "userns": {"base": 300_000, "size": 1000},
        "sysctl": {"net.core.somaxconn": 77, "kernel.msgmax": "9999"},
        "devices": ["/dev/odd:/dev/box/odd:r"],
        "capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]},
    }
    return manifest


def test_every_key_of_the_process_reaches_the_container(host: Host) -> None:
    host.machine.run(["mknod", "-m", "0666", "/dev/odd", "c", "10", "237"])  # loop-control, which every kernel has
    if not host.systemd:
        # What OpenRC remembers looks newer than the script; only a service that it knows is stopped at shutdown.
        os.utime(host.machine.path("/run/openrc/deptree"), times=(time.time() + 3600,) * 2)
    manifest = reporting()
    expected, mapping = EXPECTED, [{"containerID": 0, "hostID": 300_000, "size": 1000}]
    if host.ordinary:
        # All services of a user are in the one range of the user's ids.
        del manifest["security"]["userns"]
        assert "cannot take reading or writing" in host.apply(manifest, code=8).err
        manifest["security"]["devices"] = ["/dev/odd:/dev/box/odd"]
        expected = {**EXPECTED, "map": f"0 {USER_ID} 1 1 {SUBIDS} 65536", "written": "yes"}
        mapping = []
    host.apply(manifest)
    host.machine.wait_until(lambda: host.has_data("report", "up"), 20, "the report")
    seen = {name: host.data("report", name).strip() for name in REPORTED}
    seen["map"] = " ".join(seen["map"].split())
    assert host.machine.path(f"{host.containers}/report/data/data/env").read_bytes() == HOSTILE.encode()
    assert host.machine.path(f"{host.containers}/report/data/data/argument").read_bytes() == HOSTILE.encode()
    assert seen == expected
    config = json.loads(host.machine.read(f"{host.containers}/report/config.json"))
    assert config["linux"].get("uidMappings", []) == mapping
    # The signal and the time that the manifest gives, at a stop and when the machine goes down.
    host.control("stop", "report")
    assert host.data("report", "stopped") == "stopped\n"
    for name in ("up", "stopped"):
        host.machine.path(f"{host.containers}/report/data/data/{name}").unlink()
    host.control("start", "report")
    host.machine.wait_until(lambda: host.has_data("report", "up"), 20, "the next start")
    host.reboot()
    assert host.data("report", "stopped") == "stopped\n"


EXPECTED = {
    "long": "65536",
    "workdir": "/data",
    "user": "7",
    "groups": "8 9 44",
    "hostname": "box.example.org",
    "nofile": "1234",
    "core": "0",
    "stack": "2048",
    "sysctl": "77\n9999",
    "clock": "05:30",
    "map": "0 300000 1000",
    "status": "CapEff:\t0000000000000400\nCapAmb:\t0000000000000400\nNoNewPrivs:\t1",
    "device": "read",
    "written": "no",
    "zombies": "0",
}
REPORTED = tuple(EXPECTED)


def test_what_the_host_does_not_have_is_refused_before_anything_is_touched(host: Host) -> None:
    host.write("/dev/shm/plain", "")
    before = host.files()
    for table, key, words in (
        ({"process": {"timezone": "Mars/North"}}, "process.timezone", "no time zone Mars/North"),
        ({"security": {"devices": ["/dev/none"]}}, "security.devices[0]", "this host has no /dev/none"),
        ({"security": {"devices": ["/dev/shm/plain:/dev/x"]}}, "security.devices[0]", "is not a device"),
        ({"security": {"apparmor": "web"}}, "security.apparmor", "AppArmor"),
        ({"resources": {"nofile": 1_048_577}}, "resources.nofile", "more than this host can give"),
        ({"security": {"sysctl": {"net.ipv4.nothing": 1}}}, "security.sysctl", "no such kernel parameter"),
    ):
        manifest = script_manifest("sleep 60", name="poor")
        for name, keys in table.items():
            manifest[name] = {**manifest.get(name, {}), **keys}
        error = host.apply(manifest, code=8).err
        assert f"{host.services}/poor.toml:" in error
        assert key in error, error
        assert words in error, error
        assert len(error.strip().splitlines()) == 1
    if not host.ordinary:
        taken = script_manifest("sleep 60", name="poor", security={"userns": {"base": 1, "size": 10}})
        assert "overlaps the ids of daemon in /etc/passwd" in host.apply(taken, code=3).err
    after = host.files()
    assert {path: after.get(path) for path in before if "cache" not in path} == {
        path: found for path, found in before.items() if "cache" not in path
    }


LOOK = r"""
set -e
readlink /etc/localtime >/data/link || echo no link >/data/link
date -d @0 +%H:%M >/data/clock
TZ=:/usr/share/zoneinfo/UTC date -d @0 +%H:%M >/data/utc
for path in /dev /proc /sys /dev/null /proc/kcore /proc/sys/kernel/core_pattern; do
	[ ! -L "$path" ] || echo "$path"
done >/data/links
grep -c . /proc/self/mountinfo >/data/mounts
{ echo x >/proc/sys/kernel/core_pattern; } 2>/dev/null || :
{ echo x >/proc/sysrq-trigger; } 2>/dev/null || :
cat /proc/sys/kernel/core_pattern >/data/pattern
echo up >/data/up
sleep 1000
"""


def hostile(host: Host) -> str:
    """Make an image with links wherever a runtime mounts; return its reference."""
    zone = host.machine.path("/usr/share/zoneinfo/Etc/UTC").read_bytes()
    busybox = host.machine.path("/bin/busybox").read_bytes()
    outside = b"../../../../../../../tmp/outside"
    applets = (b"sh", b"date", b"readlink", b"grep", b"cat", b"sleep")
    content = Content()
    content.image(
        "1",
        layers=(
            layers.archive(
                layers.directory(b"bin"),
                layers.file(b"bin/busybox", busybox, mode=0o755),
                *(layers.symlink(b"bin/" + name, b"busybox") for name in applets),
                layers.directory(b"etc"),
                layers.symlink(b"etc/localtime", b"/usr/share/zoneinfo/UTC"),
                layers.symlink(b"etc/resolv.conf", outside + b"/resolv.conf"),
                layers.symlink(b"etc/hosts", outside + b"/hosts"),
                layers.directory(b"usr"),
                layers.directory(b"usr/share"),
                layers.directory(b"usr/share/zoneinfo"),
                layers.file(b"usr/share/zoneinfo/UTC", zone),
                layers.symlink(b"dev", outside),
                layers.symlink(b"proc", outside),
                layers.symlink(b"sys", outside),
                layers.symlink(b"data", outside + b"/data"),
            ),
        ),
        config={"Cmd": ["sh"], "Env": ["PATH=/bin", "TZ=UTC"]},
    )
    content.write_layout(str(host.machine.path(f"{host.home}/hostile")))
    return f"oci:{host.home}/hostile"


def others(host: Host) -> dict[str, tuple[object, ...]]:
    """Return the files in /tmp; its own times change, since a user's crun makes something there and removes it."""
    return {path: about for path, about in host.files(("/tmp",)).items() if path != "/tmp/."}


def test_links_of_an_image_lead_no_mount_out_and_change_no_zone(host: Host) -> None:
    host.run(["mkdir", "-p", "/tmp/outside/null", "/tmp/outside/data"])
    before = others(host)
    pattern = host.machine.read("/proc/sys/kernel/core_pattern")
    manifest = script_manifest(LOOK, name="liar")
    manifest |= {"image": hostile(host), "version": "1"}
    manifest["process"] |= {"timezone": "Asia/Kolkata"}
    host.apply(manifest)
    host.machine.wait_until(lambda: host.has_data("liar", "up"), 20, "the report")
    seen = {name: host.data("liar", name).strip() for name in ("link", "clock", "utc", "links", "pattern")}
    assert seen == {"link": "no link", "clock": "05:30", "utc": "00:00", "links": "", "pattern": pattern.strip()}
    assert others(host) == before
    # What is published keeps its link: it went in the overlay of this start only.
    assert host.run(["readlink", f"{host.containers}/liar/rootfs/etc/localtime"]).out.strip().endswith("/UTC")
    assert host.machine.read("/proc/sys/kernel/core_pattern") == pattern
