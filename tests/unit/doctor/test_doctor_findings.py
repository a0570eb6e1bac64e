"""What the doctor says of hosts that were seen: bare ones, prepared ones, broken ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from appbox import distribution, subids
from appbox.doctor import findings, report, wants
from appbox.doctor.findings import Refusal
from appbox.doctor.seen import (
    Clock,
    Found,
    Helper,
    Kernel,
    Login,
    Node,
    OpenRC,
    Place,
    Registry,
    RuntimeDirectory,
    Seen,
    Tried,
)
from appbox.doctor.values import At, Finding
from appbox.doctor.wants import Wants
from appbox.document import Document
from appbox.host.facts import Cgroups, IdRange
from appbox.manifest import parse
from appbox.oci import runtimes

ALL = frozenset({"cpu", "cpuset", "io", "memory", "pids"})
DEBIAN = distribution.parse("ID=debian\nPRETTY_NAME=Debian\n")
ALPINE = distribution.parse("ID=alpine\n")
RUNC = Found("/usr/bin/runc", runtimes.parse("runc version 1.4.0\n"))
PREPARED = Seen(
    distribution=DEBIAN,
    init="systemd",
    kernel=Kernel("6.12", nested=Tried(stage="done"), port_start=80),
    cgroups=Cgroups(controllers=ALL),
    runtimes={"runc": RUNC},
    programs={
        name: f"/usr/bin/{name}" for name in ("age", "buildah", "flock", "git", "iptables", "mmdebstrap", "pasta")
    },
    plugins={"bridge": "/usr/lib/cni", "portmap": "/usr/lib/cni", "static": "/usr/lib/cni"},
    tun=Node(0o666),
    store=Place("/opt/containers", "/opt", "xfs", 50 << 30, -1, xattrs=True, reflink=True),
    clock=Clock(2e9, 1e9, True),
    registries=(Registry("docker.io", seconds=0.1),),
    reaper=True,
    first=Tried(seconds=0.02),
)
MINE = (IdRange(100_000, 65536),)
MAY = Helper("/usr/bin/newuidmap", setuid=True)
ALICE = Login(
    "alice",
    1000,
    1000,
    "/home/alice",
    home_exists=True,
    home_owner=1000,
    uids=MINE,
    gids=MINE,
    tables=(subids.table("alice:100000:65536\n"), subids.table("alice:100000:65536\n", "/etc/subgid")),
    names={"root": 0, "alice": 1000},
    uidmap=MAY,
    gidmap=MAY,
    runtime=RuntimeDirectory("/run/user/1000", said=True, there=True, file_system="tmpfs"),
    linger=True,
    delegated=ALL,
    promised=ALL,
)
OF_ALICE = replace(PREPARED, login=ALICE)
USER = Wants(user=True)


def not_well(found: Iterable[Finding]) -> list[tuple[str, str]]:
    return [(one.subject, one.word) for one in found if one.state != "ok"]


def one(found: Iterable[Finding], subject: str) -> Finding:
    """Return the first finding about a subject that is not well."""
    return next(each for each in found if each.subject == subject and each.state != "ok")


def alice(**changes: Any) -> tuple[Finding, ...]:
    return findings.judge(replace(OF_ALICE, login=replace(ALICE, **changes)), USER)


def steps(found: Finding) -> list[str]:
    return [step.shown for step in found.remedy.steps]


def test_a_prepared_host_lacks_nothing() -> None:
    for seen, wanted in ((PREPARED, Wants()), (OF_ALICE, USER)):
        found = findings.judge(seen, wanted)
        assert not_well(found) == []
        assert report.summary(found) == "everything is there\n"
        assert report.text(found, verbosity=-1) == ""


def test_every_subject_says_for_which_keys_it_matters() -> None:
    bare = findings.judge(Seen(init="openrc", openrc=OpenRC(), login=Login("", 7, 7), cgroups=Cgroups()), USER)
    assert all(each.why for each in bare)
    assert {each.subject for each in bare} <= set(wants.WHY)


def test_a_bare_host_of_root() -> None:
    bare = Seen(
        distribution=ALPINE,
        init="openrc",
        openrc=OpenRC((0, 55)),
        cgroups=Cgroups(unified=False),
        groups_mounted="hybrid",
        kernel=PREPARED.kernel,
        store=PREPARED.store,
        clock=PREPARED.clock,
        cron=False,
    )
    found = findings.judge(bare, Wants())
    assert not_well(found) == [
        ("cgroups", "weak"),
        ("runtime", "missing"),
        *((name, "absent") for name in ("cni", "iptables", "flock", "pasta", "tun", "age", "cron", "reaper", "git")),
        *((name, "absent") for name in ("buildah", "mmdebstrap")),
    ]
    assert steps(one(found, "runtime")) == ["apk add runc"]
    assert steps(one(found, "cron")) == ["apk add cronie"]
    assert steps(one(found, "cgroups")) == [
        (
            "mkdir -p /etc/rc.conf.d && printf '%s\\n' 'rc_cgroup_mode=\"unified\"' "
            "'rc_cgroup_controllers=\"cpuset cpu io memory hugetlb pids\"' >/etc/rc.conf.d/appbox.conf"
        ),
        "rc-update add cgroups sysinit",
    ]
    assert "reboot" in one(found, "cgroups").remedy.words
    assert [each.subject for each in found if each.bad] == ["runtime"]
    assert report.summary(found).startswith("1 missing; 12 to know of; appbox doctor --fix can mend 2")


def test_apt_is_told_first_which_packages_there_are() -> None:
    found = findings.judge(replace(PREPARED, runtimes={}, no_lists=True), Wants())
    assert steps(one(found, "runtime")) == ["apt-get update", "apt-get install -y runc"]


@pytest.mark.parametrize(
    ("output", "state", "words"),
    [
        ("runc version 1.1.11\n", "missing", "runc 1.1.11 is too old to run anything safely: it lets containers out"),
        ("runc version 1.2.3\n", "weak", "CVE-2025-31133"),
        ("nonsense", "unknown", "/usr/bin/runc does not say which version it is"),
    ],
)
def test_holes_of_runtimes_are_known(output: str, state: str, words: str) -> None:
    seen = replace(PREPARED, runtimes={"runc": Found("/usr/bin/runc", runtimes.parse(output))})
    found = one(findings.judge(seen, Wants()), "runtime")
    assert (found.state, found.needed) == (state, True)
    assert words in found.what


def test_a_sound_runtime_makes_up_for_an_unsafe_one() -> None:
    old = Found("/usr/sbin/runc", runtimes.parse("runc version 1.1.11\n"))
    both = {"crun": Found("/usr/bin/crun", runtimes.parse("crun version 99.0\n")), "runc": old}
    found = findings.judge(replace(PREPARED, runtimes=both), Wants())
    assert not_well(found) == [("runtime", "weak")]


@pytest.mark.parametrize(
    ("name", "value", "for_root"),
    [
        ("kernel.unprivileged_userns_clone", "0", False),
        ("kernel.apparmor_restrict_unprivileged_userns", "1", False),
        ("user.max_user_namespaces", "0", True),
    ],
)
def test_what_forbids_user_namespaces_is_named(name: str, value: str, *, for_root: bool) -> None:
    kernel = Kernel("6.12", switches={name: value}, nested=Tried("Operation not permitted", "namespace"))
    found = one(findings.judge(replace(OF_ALICE, kernel=kernel), USER), "user namespaces")
    assert found.bad
    assert found.what == f"no user namespace can be made: {name} = {value} forbids it"
    assert steps(found)[1].startswith("sysctl -p /etc/sysctl.d/60-appbox-")
    assert f"{name} = " in steps(found)[0]
    mine = one(findings.judge(replace(PREPARED, kernel=kernel), Wants()), "user namespaces")
    assert (f"{name} = {value}" in mine.what) is for_root


def test_namespaces_that_fail_for_no_known_reason() -> None:
    kernel = Kernel("6.12", nested=Tried("unshare failed: Operation not permitted", "namespace"))
    found = one(findings.judge(replace(OF_ALICE, kernel=kernel), USER), "user namespaces")
    assert found.what.endswith("unshare failed: Operation not permitted")
    assert "dmesg" in found.remedy.words
    none = findings.judge(replace(OF_ALICE, kernel=Kernel(namespaces=False)), USER)
    assert "CONFIG_USER_NS" in one(none, "user namespaces").remedy.words
    untried = one(findings.judge(replace(OF_ALICE, kernel=Kernel()), USER), "user namespaces")
    assert (untried.state, untried.remedy.words) == ("unknown", "install unshare: apt-get install -y util-linux")


def test_an_old_kernel_has_no_overlay_in_a_user_namespace() -> None:
    kernel = Kernel("5.10", nested=Tried("mount: permission denied", "overlay"))
    found = one(findings.judge(replace(OF_ALICE, kernel=kernel), USER), "overlay")
    assert (found.state, found.bad) == ("weak", False)
    assert "each service gets a copy" in found.remedy.words


def test_a_kernel_without_anything() -> None:
    poor = Kernel("4.19", openat2=False, overlay=False, seccomp=False, nested=Tried(stage="done"))
    found = findings.judge(replace(PREPARED, kernel=poor), Wants())
    assert not_well(found) == [("kernel", "missing"), ("overlay", "missing"), ("seccomp", "missing")]
    assert steps(one(found, "overlay"))[1] == "modprobe overlay"


# The user.


def test_a_user_without_sub_ids_is_given_the_lowest_free_ones() -> None:
    tables = (subids.table("bob:100000:65536\n"), subids.table("", "/etc/subgid"))
    found = one(alice(uids=(), gids=(), tables=tables), "sub-ids")
    assert found.bad
    assert found.what == "alice has no range in /etc/subuid: without one a container has one user only"
    assert steps(found) == ["echo alice:165536:65536 >>/etc/subuid && echo alice:100000:65536 >>/etc/subgid"]


def test_too_few_sub_ids() -> None:
    found = one(alice(uids=(IdRange(100_000, 1000),)), "sub-ids")
    assert found.what == "alice has 1000 ids in /etc/subuid, and images need 65536"
    assert steps(found) == ["echo alice:165536:65536 >>/etc/subuid"]
    pieces = (IdRange(100_000, 40_000), IdRange(200_000, 30_000))
    assert not_well(alice(uids=pieces, gids=pieces)) == []


def test_a_directory_service_is_not_edited() -> None:
    found = one(alice(uids=(), gids=(), source="sss"), "sub-ids")
    assert found.what.startswith("alice has no range in sss")
    assert (steps(found), "ask whoever administrates" in found.remedy.words) == ([], True)


def test_garbage_in_sub_id_files_is_named_and_left_alone() -> None:
    tables = (subids.table("nonsense\nalice:100000:65536\nbob:x:1\n"), ALICE.tables[1])
    found = alice(tables=tables)
    assert [each.what for each in found if each.state == "weak"] == [
        "/etc/subuid:1: 'nonsense' is not of the form user:first id:count",
        "/etc/subuid:3: the range of bob does not consist of two numbers",
    ]
    assert not any(each.remedy.steps for each in found if each.subject == "sub-ids")
    many = alice(tables=(subids.table("x\n" * 100), ALICE.tables[1]))
    assert [each.what for each in many if each.subject == "sub-ids"][-1] == (
        "/etc/subuid: 95 more lines are none of user:first id:count"
    )


def test_overlapping_ranges_are_no_wall() -> None:
    tables = (subids.table("alice:100000:65536\nbob:165535:65536\n"), ALICE.tables[1])
    found = one(alice(tables=tables), "sub-ids")
    assert found.bad
    assert found.what == (
        "/etc/subuid: line 1 (alice) and line 2 (bob) share the ids 165535 to 165535: each may change the other's files"
    )
    others = (subids.table("alice:100000:65536\nbob:300000:10\ncarol:300000:10\n"), ALICE.tables[1])
    assert not_well(alice(tables=others)) == [("sub-ids", "weak")]
    number = (subids.table("alice:100000:65536\n1000:100000:65536\n"), ALICE.tables[1])
    assert not_well(alice(tables=number)) == []


def test_a_range_that_holds_a_user_of_the_host() -> None:
    found = one(alice(names={"root": 0, "alice": 1000, "ldap": 100_007}), "sub-ids")
    assert found.bad
    assert "hold 100007, which is ldap" in found.what


@pytest.mark.parametrize(
    ("helper", "state", "command"),
    [
        (Helper(), "is not installed", "apt-get install -y uidmap"),
        (Helper("/usr/bin/newuidmap"), "neither the setuid bit", "chmod 4755 /usr/bin/newuidmap"),
        (Helper("/usr/bin/newuidmap", setuid=True, owner=1), "neither the setuid bit", "chown root:root"),
    ],
)
def test_newuidmap_must_be_able(helper: Helper, state: str, command: str) -> None:
    found = one(alice(uidmap=helper), "newuidmap")
    assert found.bad
    assert state in found.what
    assert any(step.startswith(command) for step in steps(found))


def test_newuidmap_by_capability() -> None:
    assert not_well(alice(uidmap=Helper("/usr/bin/newuidmap", capable=True, owner=0))) == []


@pytest.mark.parametrize(
    ("runtime", "word", "what"),
    [
        (
            RuntimeDirectory("/run/user/1000", instead="/dev/shm/appbox-1000"),
            "weak",
            "no login has made /run/user/1000: appbox uses /dev/shm/appbox-1000",
        ),
        (
            RuntimeDirectory("/run/user/1000", there=True, fault="is no directory", instead="/dev/shm/appbox-1000"),
            "weak",
            "/run/user/1000 is no directory: appbox uses /dev/shm/appbox-1000",
        ),
        (
            RuntimeDirectory("/run/user/1", instead="/dev/shm/appbox-1", instead_fault="belongs to the user id 0"),
            "missing",
            "no login has made /run/user/1, and /dev/shm/appbox-1 belongs to the user id 0",
        ),
        (RuntimeDirectory("/x", said=True), "missing", "XDG_RUNTIME_DIR is /x, which is not there"),
        (
            RuntimeDirectory("/run/user/0", said=True, there=True, fault="belongs to the user id 0"),
            "missing",
            "XDG_RUNTIME_DIR is /run/user/0, which belongs to the user id 0",
        ),
        (
            RuntimeDirectory("/run/user/1000", there=True, fault="is open to others: its mode is 0755"),
            "missing",
            "the runtime directory is /run/user/1000, which is open to others: its mode is 0755",
        ),
        (
            RuntimeDirectory("/tmp/x", said=True, there=True, file_system="ext4"),
            "weak",
            "XDG_RUNTIME_DIR is /tmp/x, which is on ext4 and outlives a reboot",
        ),
    ],
)
def test_runtime_directories(runtime: RuntimeDirectory, word: str, what: str) -> None:
    found = one(alice(runtime=runtime), "runtime directory")
    assert (found.word, found.what) == (word, what)
    assert found.remedy.words


def test_runtime_directory_under_openrc() -> None:
    seen = replace(OF_ALICE, init="openrc", openrc=OpenRC((0, 55), "unified", "x", in_runlevel=True))
    found = findings.judge(replace(seen, login=replace(ALICE, runtime=RuntimeDirectory("/run/user/1000"))), USER)
    assert "rc-update add appbox-run-user-1000 boot" in steps(one(found, "runtime directory"))
    assert one(found, "user services").what == "OpenRC 0.55 has no services of users, which came with 0.60"


def test_services_of_users_under_openrc() -> None:
    users = OpenRC((0, 64), "unified", "x", in_runlevel=True, users=True)
    seen = replace(OF_ALICE, init="openrc", openrc=users)
    found = findings.judge(replace(seen, login=replace(ALICE, linger=True)), USER)
    assert not {"linger", "user services"} & {subject for subject, _ in not_well(found)}
    found = findings.judge(replace(seen, login=replace(ALICE, linger=False)), USER)
    assert one(found, "linger").what == "nothing starts the services of alice at boot: no runlevel has user.alice"
    assert steps(one(found, "linger")) == [
        (
            "mkdir -p /etc/conf.d && printf '%s\\n' 'rc_use=\"localmount logger net dns\"' "
            "'retry=\"TERM/90/KILL/5\"' >/etc/conf.d/user.alice"
        ),
        "ln -sf user /etc/init.d/user.alice",
        "rc-update add user.alice default",
        "rc-service user.alice start",
        "rc-update --update",
    ]
    # Nothing starts without a runtime directory, and what an administrator has written stays.
    bare = replace(ALICE, linger=False, settings=True, runtime=RuntimeDirectory("/run/user/1000"))
    mend = steps(one(findings.judge(replace(seen, login=bare), USER), "linger"))
    assert "rc-service appbox-run-user-1000 start" in mend
    assert not [step for step in mend if "conf.d" in step]
    found = findings.judge(replace(seen, openrc=replace(users, users=False), login=ALICE), USER)
    assert "openrc-user, is not installed" in one(found, "user services").what


def test_linger_and_delegation() -> None:
    found = alice(linger=False, delegated=frozenset({"memory", "pids"}), promised=frozenset({"memory", "pids"}))
    assert not_well(found) == [("linger", "missing"), ("delegation", "weak")]
    assert steps(one(found, "linger")) == ["loginctl enable-linger alice"]
    given = one(found, "delegation")
    assert given.what == "the systemd of alice may use the controllers memory pids, but not cpu, cpuset, io"
    assert steps(given)[0].endswith(">/etc/systemd/system/user@.service.d/appbox.conf")
    later = one(alice(delegated=frozenset({"memory"}), promised=ALL), "delegation")
    assert (steps(later), later.remedy.words) == ([], "log out and in again, or reboot")
    assert not_well(alice(delegated=None, promised=ALL)) == []
    assert not_well(alice(delegated=None, promised=None)) == [("delegation", "unknown")]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"name": "", "home": ""}, "the user id 1000 has no password entry, and so no name and no home"),
        ({"home_exists": False}, "the home of alice, /home/alice, is not there"),
        ({"home_owner": 0}, "the home of alice, /home/alice, belongs to the user id 0"),
    ],
)
def test_homes(changes: dict[str, Any], what: str) -> None:
    found = one(alice(**changes), "home")
    assert found.bad
    assert found.what == what
    assert found.remedy.words


@pytest.mark.parametrize(
    ("changes", "word", "what"),
    [
        ({"problem": "Permission denied"}, "missing", "nothing can be written to /opt/containers: Permission denied"),
        ({"free": 1000}, "missing", "/opt is full: 1.0 kB and any number of files are left"),
        ({"files": 3}, "missing", "/opt is full"),
        ({"free": 500 << 20, "files": 10**6}, "weak", "there is little room in /opt: 524.3 MB and 1000000 files"),
        ({"options": frozenset({"noexec"})}, "missing", "/opt is mounted noexec: no program of an image would run"),
        ({"options": frozenset({"nosuid"})}, "weak", "/opt is mounted nosuid"),
        ({"options": frozenset({"ro"})}, "missing", "/opt is mounted read-only"),
        ({"xattrs": False}, "weak", "the file system of /opt (xfs) keeps no extended attributes"),
    ],
)
def test_stores(changes: dict[str, Any], word: str, what: str) -> None:
    seen = replace(PREPARED, store=replace(PREPARED.store, **changes))
    found = one(findings.judge(seen, Wants()), "store")
    assert found.word == word
    assert found.what.startswith(what)
    assert found.remedy.words


def test_clocks() -> None:
    past = one(findings.judge(replace(PREPARED, clock=Clock(1e8, 1e9)), Wants()), "clock")
    assert past.bad
    assert past.what.startswith("the clock says 1973-03-03 09:46 UTC, which is before this appbox was installed")
    assert steps(past) == ["timedatectl set-ntp true"]
    alone = one(
        findings.judge(replace(PREPARED, clock=Clock(2e9, 1e9, False), distribution=ALPINE, init="openrc"), Wants()),
        "clock",
    )
    assert steps(alone)[0] == "apk add chrony"


def test_first_starts() -> None:
    failed = one(findings.judge(replace(PREPARED, first=Tried("no such thing", "run")), Wants()), "first start")
    assert failed.bad
    slow = one(findings.judge(replace(PREPARED, first=Tried(seconds=3.21)), Wants()), "first start")
    assert (slow.word, slow.what) == ("weak", "an empty container takes 3210 ms")


def test_cgroups_of_a_user_must_be_of_version_2() -> None:
    old = replace(OF_ALICE, cgroups=Cgroups(unified=False, controllers=ALL), groups_mounted="hybrid")
    assert not_well(findings.judge(old, USER)) == [("cgroups", "weak")]
    asked = wants.of([manifest("[resources]\nmemory = '64M'\n")], user=True)
    assert ("cgroups", "missing") in not_well(findings.judge(old, asked))


def test_openrc_without_the_service_that_mounts_cgroups() -> None:
    rc = OpenRC((0, 55), "unified", "cpuset cpu io memory hugetlb pids", in_runlevel=False)
    found = one(findings.judge(replace(PREPARED, init="openrc", openrc=rc), Wants()), "cgroups")
    assert (found.word, steps(found)) == ("weak", ["rc-update add cgroups sysinit"])


# Manifests.


def manifest(tables: str, name: str = "web") -> tuple[Document, Any]:
    text = f'name = "{name}"\nimage = "docker.io/library/{name}"\nversion = "1"\n{tables}'
    return Document(f"{name}.toml", text), parse(text, file=f"{name}.toml")


def test_manifests_ask_for_what_their_keys_need() -> None:
    tables = (
        '[network]\nmode = "pasta"\nports = ["80:80", "8080:80"]\n[resources]\nmemory = "64M"\ncpus = 1\n'
        '[secrets.key]\nage = "key.age"\n[process]\ninit = true\n[service]\nschedule = "daily"\nenable = false\n'
        '[security]\nuserns = "host"\nrootfs = "read-only"\nseccomp = "unconfined"\n'
    )
    wanted = wants.of([manifest(tables)], user=True)
    assert wanted.asked is not None
    assert sorted(wanted.asked) == [
        "age", "cgroups", "cron", "delegation", "pasta", "ports", "reaper", "registry", "tun",
    ]  # fmt: skip
    assert str(wanted.keys("pasta")[0]) == "web.toml:5: network.mode"
    assert [str(each) for each in wanted.keys("cgroups")] == [
        "web.toml:8: resources.memory",
        "web.toml:9: resources.cpus",
    ]
    assert wanted.lowest_port == 80
    bridge = wants.of([manifest('[network]\nmode = "bridge"\n'), manifest("", "db")], user=False)
    assert {"cni", "iptables", "flock", "user namespaces", "overlay", "seccomp"} < set(bridge.asked or ())
    assert not {"pasta", "tun"} & set(bridge.asked or ())
    of_user = set(wants.of([manifest('[network]\nmode = "bridge"\n')], user=True).asked or ())
    assert {"cni", "flock", "pasta", "tun"} < of_user
    assert "iptables" not in of_user
    assert [each.file for each in bridge.keys("registry")] == ["web.toml", "db.toml"]


def test_only_what_manifests_need_is_looked_at() -> None:
    bare = replace(PREPARED, plugins={}, programs={}, tun=Node(), reaper=False, registries=())
    assert not_well(findings.judge(bare, wants.of([manifest("")], user=False))) == []
    asked = wants.of([manifest('[network]\nmode = "bridge"\n[process]\ninit = true\n')], user=False)
    found = findings.judge(bare, asked)
    assert not_well(found) == [(name, "missing") for name in ("cni", "iptables", "flock", "reaper")]
    assert "needed by web.toml:5: network.mode" in report.text(found)
    assert all(each.mendable for each in found if each.bad)


def test_ports_are_opened_as_far_as_is_asked() -> None:
    seen = replace(OF_ALICE, kernel=replace(OF_ALICE.kernel, port_start=1024))
    absent = one(findings.judge(seen, USER), "ports")
    assert (absent.word, absent.mendable) == ("absent", False)
    asked = wants.of([manifest('[network]\nmode = "pasta"\nports = ["53:53"]\n')], user=True)
    found = one(findings.judge(seen, asked), "ports")
    assert found.bad
    assert steps(found)[0].startswith(
        "mkdir -p /etc/sysctl.d && printf '%s\\n' 'net.ipv4.ip_unprivileged_port_start = 53'"
    )
    high = wants.of([manifest('[network]\nmode = "pasta"\nports = ["8053:53"]\n')], user=True)
    assert "ports" not in {each.subject for each in findings.judge(seen, high)}


def test_a_refusal_is_said_once() -> None:
    asked = wants.of([manifest('[network]\nmode = "bridge"\n')], user=False)
    at = At("web.toml", 5, "network.mode")
    other = At("web.toml", 9, "security.apparmor")
    refusals = (Refusal(at, "this host has no CNI plugin"), Refusal(other, "this host has no AppArmor", "do without"))
    found = findings.judge(replace(PREPARED, plugins={}), asked, refusals)
    assert not_well(found) == [("cni", "missing"), ("security.apparmor", "missing")]
    well = findings.judge(PREPARED, asked, refusals)
    assert not_well(well) == [("network.mode", "missing"), ("security.apparmor", "missing")]


def test_slirp4netns_does_for_users_only() -> None:
    programs = {**{k: v for k, v in PREPARED.programs.items() if k != "pasta"}, "slirp4netns": "/usr/bin/slirp4netns"}
    assert not_well(findings.judge(replace(OF_ALICE, programs=programs), USER)) == [("pasta", "weak")]
    assert not_well(findings.judge(replace(PREPARED, programs=programs), Wants())) == [("pasta", "absent")]


def test_tun_must_be_open_to_users() -> None:
    seen = replace(OF_ALICE, tun=Node(0o600))
    asked = wants.of([manifest('[network]\nmode = "pasta"\n')], user=True)
    found = one(findings.judge(seen, asked), "tun")
    assert found.bad
    assert steps(found) == ["chmod 0666 /dev/net/tun"]
    assert not_well(findings.judge(replace(PREPARED, tun=Node(0o600)), Wants())) == []


def test_registries() -> None:
    down = (Registry("r.test", problem="r.test: connection refused", hint="mend it"), Registry("slow.test", seconds=7))
    found = findings.judge(replace(PREPARED, registries=down), wants.of([manifest("")], user=False))
    assert not_well(found) == [("registry", "missing"), ("registry", "weak")]
    assert not_well(findings.judge(replace(PREPARED, registries=down), Wants())) == [("registry", "weak")] * 2


def test_age_without_a_key() -> None:
    asked = wants.of([manifest('[secrets.key]\nage = "key.age"\n')], user=False)
    found = one(findings.judge(replace(PREPARED, age_key="/etc/appbox/age.key is missing"), asked), "age")
    assert found.bad
    assert found.what == "/etc/appbox/age.key is missing"


def test_what_is_printed_is_harmless() -> None:
    found = findings.judge(replace(PREPARED, first=Tried("\x1b[2Jgone", "run")), Wants())
    assert "\x1b" not in report.text(found)
    data = report.data(found, user="")
    assert data["ok"] is False
    assert data["findings"][-1]["state"] == "missing"
