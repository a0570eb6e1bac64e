"""rlimits, devices, kernel parameters, groups, time zones and ids of a manifest, in config.json and in words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from appbox import desired as desires
from appbox import devices, isolation, needs
from appbox.devices import Found
from appbox.devices import Node as DeviceNode
from appbox.errors import ManifestError, Refused
from appbox.fields import BadValueError
from appbox.host.facts import Abilities, Facts
from appbox.locked import Borrowed, HostSource, Locked
from appbox.oci import runtimes
from appbox.oci.rootfs import Node
from tests.ground.pure import BASE, FACTS, build, locked, rootfs, spec, text

RUNC = runtimes.parse("runc version 1.3.6\n")
ABLE = Abilities(runtime=RUNC, kernel=(6, 1), open_files=1_048_576)
LIVE = replace(FACTS, abilities=ABLE)
FUSE = DeviceNode("/dev/fuse", "c", 10, 229)


def with_loans(tables: str, *, facts: Facts = FACTS, nodes: tuple[Node, ...] = (), **loans: Any) -> Any:
    """Return config.json of a service for which the host had `loans`."""
    wanted = replace(locked(tables), borrowed=Borrowed(**loans))
    return spec(desires.build(wanted, facts, BASE, rootfs(*nodes)))


def test_rlimits_are_soft_and_hard() -> None:
    found = spec(build('[resources]\nas = "4G"\nnofile = 1000\nmemlock = "unlimited"\nrttime = 5\n'))
    assert found["process"]["rlimits"] == [
        {"type": "RLIMIT_AS", "soft": 4 << 30, "hard": 4 << 30},
        {"type": "RLIMIT_MEMLOCK", "soft": 2**64 - 1, "hard": 2**64 - 1},
        {"type": "RLIMIT_NOFILE", "soft": 1000, "hard": 1000},
        {"type": "RLIMIT_RTTIME", "soft": 5, "hard": 5},
    ]


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        ('as = "1G"', "less than the runtime needs"),
        ('data = "1M"', "less than the runtime needs"),
        ("nofile = 8", "take at least 32"),
        ("cpu = 0", "take at least 1"),
        ('nofile = "unlimited"', "write nofile = 1048576"),
    ],
)
def test_rlimits_that_let_nothing_start_are_refused(limit: str, words: str) -> None:
    with pytest.raises(ManifestError, match=f"web.toml:5: resources.*{words}"):
        locked(f"[resources]\n{limit}\n")


def test_groups_are_looked_up_in_the_image() -> None:
    user = spec(build('[process]\nuser = "www"\ngroups = ["more", 44, "44"]\n'))["process"]["user"]
    assert user == {"uid": 33, "gid": 33, "umask": 0o022, "additionalGids": [33, 50, 44]}
    with pytest.raises(ManifestError, match=r"web.toml:5: process.groups\[1\]: no such group: video"):
        build('[process]\ngroups = [1, "video"]\n')
    with pytest.raises(ManifestError, match=r'"70000" is outside the service\'s ids'):
        locked("[process]\ngroups = [70000]\n")


def test_a_fixed_range_has_its_own_size() -> None:
    found = build("[security]\nuserns = { base = 200000, size = 5 }\n", base=200_000)
    config = spec(found)
    mapping = {"containerID": 0, "hostID": 200_000, "size": 5}
    assert config["linux"]["uidMappings"] == config["linux"]["gidMappings"] == [mapping]
    assert not any("gid=5" in option for mount in config["mounts"] for option in mount.get("options", ()))
    assert (found.mapped, found.base, found.size) == (True, 200_000, 5)
    assert "uid_size = 5\n" in text(found, "bundle.toml")
    with pytest.raises(ManifestError, match="has the id 33, and a service has those below 5"):
        build('[process]\nuser = "www"\n[security]\nuserns = { base = 200000, size = 5 }\n')
    with pytest.raises(ManifestError, match=r'"5" is outside the service\'s ids \(0 to 4\)'):
        locked('[process]\nuser = "5"\n[security]\nuserns = { base = 200000, size = 5 }\n')


def test_devices_are_bound_for_a_mapped_service_and_made_for_another() -> None:
    tables = '[security]\ndevices = ["/dev/fuse:/dev/box/f:rw"]\n'
    mapped = with_loans(tables, devices=(Found((FUSE,)),))
    rule = {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"}
    assert mapped["linux"]["resources"]["devices"][-1] == rule
    assert mapped["mounts"][-1] == {
        "destination": "/dev/box/f",
        "source": "/dev/fuse",
        "options": ["bind", "nosuid", "noexec", "rw"],
    }
    assert "devices" not in mapped["linux"]
    made = with_loans(f'{tables}userns = "host"\n', devices=(Found((replace(FUSE, gid=44, mode=0o660),)),))
    assert made["linux"]["devices"] == [
        {"path": "/dev/box/f", "type": "c", "major": 10, "minor": 229, "fileMode": 0o660, "uid": 0, "gid": 44}
    ]
    assert not any(mount["destination"] == "/dev/box/f" for mount in made["mounts"])


def test_a_directory_of_devices_keeps_its_names() -> None:
    nodes = (DeviceNode("/dev/dri/card0", "c", 226, 0, 0o660, 0, 44), DeviceNode("/dev/dri/r", "c", 226, 128))
    given = devices.given(("/dev/dri:/dev/gpu",), (Found(nodes),))
    assert [(one.source, one.target) for one in given] == [
        ("/dev/dri/card0", "/dev/gpu/card0"),
        ("/dev/dri/r", "/dev/gpu/r"),
    ]
    notes = list(devices.notes(given, mapped=True))
    assert len(notes) == 1
    assert notes[0].startswith("/dev/dri/card0 belongs to 0:44 with mode 0660, and a service with user ids of its own")
    assert not list(devices.notes(given, mapped=False))


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("fuse", 'write "/dev/fuse"'),
        ("/dev/fuse:x", "is not a device"),
        ("/dev/fuse:/dev/a:rx", "is not a device"),
        ("/dev/fuse:rr", "names an access twice"),
        ("/dev/../etc/passwd", "goes up with .."),
        ("/dev/fuse:/dev/null", "is the container's own"),
        ("/dev/fuse:/dev/pts/7", "is the container's own"),
        ("/dev/a\nb", "control character"),
        ("/dev/a\0b", "NUL"),
        (7, "expected a device, got a whole number"),
    ],
)
def test_what_is_no_device_is_refused(device: object, words: str) -> None:
    with pytest.raises(BadValueError) as caught:
        devices.parse(device)
    assert words in f"{caught.value.message}; {caught.value.hint}"


def test_two_devices_in_one_place_are_refused() -> None:
    with pytest.raises(ManifestError, match=r'devices\[1\]: "/dev/a" is taken by devices\[0\]'):
        locked('[security]\ndevices = ["/dev/a", "/dev/b:/dev/a"]\n')


def test_kernel_parameters() -> None:
    found = spec(build('[security]\nsysctl = { "net.core.somaxconn" = 5, "kernel/msgmax" = "9" }\n'))
    assert found["linux"]["sysctl"].items() >= {"kernel.msgmax": "9", "net.core.somaxconn": "5"}.items()
    with pytest.raises(ManifestError, match="the kernel lets no user namespace set it"):
        locked('[security]\nsysctl = { "kernel.domainname" = "x" }\n')


def test_a_profile_and_more_masked_paths() -> None:
    found = spec(build('[security]\napparmor = "web"\n', facts=replace(FACTS, masked=("/sys/a",))))
    assert found["process"]["apparmorProfile"] == "web"
    assert found["linux"]["maskedPaths"][-1] == "/sys/a"


def test_added_capabilities_reach_a_user_who_is_not_root() -> None:
    tables = '[process]\nuser = "www"\n[security]\ncapabilities = { add = ["NET_BIND_SERVICE"], drop = ["ALL"] }\n'
    held = spec(build(tables))["process"]["capabilities"]
    only = ["CAP_NET_BIND_SERVICE"]
    assert held == dict.fromkeys(("bounding", "effective", "permitted", "inheritable", "ambient"), only)
    usual = spec(build('[process]\nuser = "www"\n'))["process"]["capabilities"]
    assert usual["effective"] == usual["ambient"] == usual["inheritable"] == []


def test_init_comes_first_and_is_the_host_s() -> None:
    found = with_loans('[process]\ninit = true\nargs = ["a"]\n', reaper="/usr/bin/tini-static")
    assert found["process"]["args"] == ["/dev/init", "--", "a"]
    assert found["mounts"][-1] == {
        "destination": "/dev/init",
        "source": "/usr/bin/tini-static",
        "options": ["bind", "ro", "nosuid", "nodev"],
    }


def test_a_time_zone_is_a_file_and_the_image_s_own_wish_goes() -> None:
    wanted = replace(
        locked('[process]\ntimezone = "Europe/Berlin"\n', Env=["TZ=UTC", "A=1"]), borrowed=Borrowed(zone=b"TZif2\0")
    )
    found = desires.build(wanted, FACTS, BASE, rootfs(Node("/etc", "directory")))
    assert next(file.data for file in found.files if file.path == "etc/localtime") == b"TZif2\0"
    config = spec(found)
    assert not any(entry.startswith("TZ=") for entry in config["process"]["env"])
    assert config["mounts"][-1]["destination"] == "/etc/localtime"
    assert "rm -f etc/localtime" in text(found, "run")
    assert "/etc" in desires.wanted_nodes(wanted)
    with pytest.raises(Refused, match="the image's /etc is not a directory"):
        desires.build(wanted, FACTS, BASE, replace(rootfs(), nodes={"/etc": Node("/usr/etc", "directory")}))
    with pytest.raises(ManifestError, match=r"stands beside process\.timezone"):
        locked('[process]\ntimezone = "host"\nenv = { TZ = "UTC" }\n')


@pytest.mark.parametrize("zone", ["../etc/shadow", "/etc/shadow", "a//b", "a\n", "", "Europe/Berlin ", "x" * 256])
def test_what_is_no_time_zone_is_refused(zone: str) -> None:
    with pytest.raises(ManifestError, match=r"web\.toml:5: process\.timezone"):
        locked(f"[process]\ntimezone = {zone!r}\n".replace("'", '"'))


ALICE = HostSource(directory=True, empty=False, uid=1000, gid=1000, file_system="ext4")
VOLUME = '[volumes.v]\npath = "/v"\nsource = "/srv/v"\nowner = "www"\n'


def mount_of(there: HostSource, facts: Facts = LIVE, tables: str = VOLUME) -> tuple[Any, tuple[str, ...]]:
    found = build(tables, facts=facts, sources={"/srv/v": there})
    return next(mount for mount in spec(found)["mounts"] if mount["destination"] == "/v"), found.notes


def test_somebody_s_files_are_seen_with_the_service_s_owner() -> None:
    mount, notes = mount_of(ALICE)
    expected = [
        {"containerID": 1000, "hostID": BASE + 33, "size": 1},
        {"containerID": BASE, "hostID": BASE, "size": 33},
        {"containerID": BASE + 34, "hostID": BASE + 34, "size": 65536 - 34},
    ]
    assert mount["uidMappings"] == mount["gidMappings"] == expected
    assert "in /srv/v, what is 1000:1000 on disk is 33:33 in the service; nothing is changed there" in notes
    assert spec(build(VOLUME, facts=LIVE, sources={"/srv/v": ALICE}))["ociVersion"] == "1.1.0"


@pytest.mark.parametrize(
    ("there", "able", "why"),
    [
        (ALICE, replace(ABLE, runtime=runtimes.parse("runc version 1.1.15\n")), "mounts with ids of their own need"),
        (ALICE, replace(ABLE, kernel=(5, 11)), "Linux 5.12 is needed"),
        (replace(ALICE, file_system="nfs4"), ABLE, "the file system, nfs4, cannot be mounted"),
        (replace(ALICE, uid=0), ABLE, "it belongs to root"),
        (replace(ALICE, gid=0), ABLE, "it belongs to root"),
    ],
)
def test_otherwise_the_plan_says_what_there_is_to_choose(there: HostSource, able: Abilities, why: str) -> None:
    mount, notes = mount_of(there, replace(FACTS, abilities=able))
    assert "uidMappings" not in mount
    note = next(note for note in notes if note.startswith("/srv/v keeps its owner"))
    assert why in note
    assert f"chown -R {BASE + 33}:{BASE + 33} /srv/v" in note


@pytest.mark.parametrize("there", [replace(ALICE, empty=True), replace(ALICE, uid=BASE + 33, gid=BASE + 33)])
def test_what_is_the_service_s_own_is_left_alone(there: HostSource) -> None:
    mount, notes = mount_of(there)
    assert "uidMappings" not in mount
    assert not any(note.startswith("/srv/v") for note in notes)


def lacks(wanted: Locked, facts: Facts) -> list[tuple[str, str]]:
    return [(".".join(map(str, key)), what) for key, what, _ in needs.lacks(wanted, facts)]


def test_what_the_host_lacks_is_said() -> None:
    tables = '[resources]\nnofile = 30000\nmemlock = "unlimited"\n[security]\napparmor = "web"\n'
    wanted = locked(tables + 'sysctl = { "net.a.b" = 1 }\n')
    poor = replace(
        ABLE, raises_limits=False, hard_limits={"nofile": 20_000, "memlock": 1}, no_sysctls=frozenset({"net.a.b"})
    )
    assert lacks(wanted, replace(FACTS, abilities=poor)) == [
        ("security.apparmor", "this host has no AppArmor, or it is off"),
        ("resources.memlock", "is more than this host can give a service"),
        ("resources.nofile", "is more than this host can give a service"),
        ("security.sysctl.net.a.b", "a container has no such kernel parameter on this host, or may not set it"),
    ]
    assert lacks(wanted, replace(FACTS, abilities=replace(ABLE, apparmor=frozenset({"web"})))) == []
    assert lacks(wanted, FACTS) == []
    other = replace(ABLE, apparmor=frozenset({"other"}))
    assert lacks(wanted, replace(FACTS, abilities=other)) == [
        ("security.apparmor", "no AppArmor profile web is loaded")
    ]
    many = locked("[resources]\nnofile = 1048577\n")
    assert lacks(many, LIVE) == [("resources.nofile", "is more than this host can give a service")]


def test_a_runtime_that_is_missing_or_too_old_is_refused() -> None:
    old = replace(ABLE, runtime=runtimes.parse("runc version 1.1.11\n"))
    assert lacks(locked(), replace(FACTS, abilities=old)) == [
        ("", "runc 1.1.11 is too old to run anything safely: it lets containers out to the host (CVE-2024-21626)")
    ]
    none = replace(ABLE, runtime=None, no_runtime=True)
    assert lacks(locked(), replace(FACTS, abilities=none)) == [
        ("", "neither runc nor crun is installed, and services run through one of them")
    ]


def test_what_cannot_be_borrowed_is_said() -> None:
    tables = '[process]\ninit = true\ntimezone = "Mars/North"\n[security]\ndevices = ["/dev/none"]\n'
    wanted = replace(locked(tables), borrowed=Borrowed(devices=(Found(problem="this host has no /dev/none"),)))
    assert [(key, what) for key, what, _ in needs.borrowed(wanted, FACTS)] == [
        (("security", "devices", 0), "this host has no /dev/none"),
        (
            ("process", "init"),
            "this host has no static init to start as process 1 (tini-static, catatonit or docker-init)",
        ),
        (("process", "timezone"), "this host has no time zone Mars/North"),
    ]
    assert isolation.wanted_nodes(wanted) == ("/etc",)
