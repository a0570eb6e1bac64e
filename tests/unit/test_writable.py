"""Where a service may write: what becomes of each `security.rootfs` in its files."""

from __future__ import annotations

import pytest

from appbox import writable
from appbox.errors import Refused
from appbox.oci.rootfs import Node
from tests.ground.pure import build, rootfs, spec, text

SCRATCH = ("/run", "/tmp", "/var/tmp")
PERSISTENT = '[security]\nrootfs = "persistent"\n'
READ_ONLY = '[security]\nrootfs = "read-only"\n'


def usual(*more: Node) -> tuple[Node, ...]:
    return (*(Node(path, "directory", mode=0o1777) for path in SCRATCH), *more)


def mounts(tables: str, *nodes: Node) -> dict[str, str]:
    found = spec(build(tables, found=rootfs(*nodes)))["mounts"]
    return {mount["destination"]: mount["source"] for mount in found}


def test_an_overlay_needs_nothing_of_it() -> None:
    desired = build()
    assert spec(desired)["root"]["readonly"] is False
    assert writable.MOUNT_POINTS not in {file.path for file in desired.files}
    assert "bundle/upper" not in text(desired, "run")


def test_a_persistent_root_lists_its_mount_points() -> None:
    desired = build(f'{PERSISTENT}[volumes."d"]\npath = "/a b/ü"\n', found=rootfs())
    assert text(desired, writable.MOUNT_POINTS).splitlines() == [
        *("dev/", "proc/", "sys/"),
        *("a b/ü", "etc/hostname", "etc/hosts", "etc/resolv.conf"),
    ]
    assert "writes=$bundle\n" in text(desired, "run")
    assert spec(desired)["root"]["readonly"] is False
    assert any("/opt/containers/web-1.0/upper" in note for note in desired.notes)


def test_a_read_only_root_has_three_places_in_memory() -> None:
    found = mounts(READ_ONLY, *usual())
    live = "/opt/containers/web-1.0/.live"
    assert {path: found[path] for path in SCRATCH} == {
        SCRATCH[0]: f"{live}/run",
        SCRATCH[1]: f"{live}/tmp",
        SCRATCH[2]: f"{live}/var-tmp",
    }
    desired = build(READ_ONLY, found=rootfs(*usual()))
    assert spec(desired)["root"]["readonly"] is True
    said = [note for note in desired.notes if "read-only" in note or "--suggest" in note]
    assert len(said) == 1
    assert "/run and /tmp and /var/tmp only" in said[0]
    assert text(desired, "run").count('cp -a "$from"') == 3


def test_what_is_mounted_below_comes_later() -> None:
    tables = f'{READ_ONLY}[config."/run/app/conf"]\ntext = ""\n[volumes.d]\npath = "/run/data"\n'
    order = [mount["destination"] for mount in spec(build(tables, found=rootfs(*usual())))["mounts"]]
    assert order.index("/run") < order.index("/run/app/conf") < order.index("/run/data")


@pytest.mark.parametrize("place", ["/tmp", "/var", "/var/tmp"])
def test_a_volume_takes_the_place_of_one(place: str) -> None:
    found = mounts(f'{READ_ONLY}[volumes.d]\npath = "{place}"\n', *usual())
    assert found[place] == "/opt/containers/web-1.0/data/d"
    assert ("/var/tmp" in found) == (place != "/var")


def test_links_of_the_image_are_followed_or_refused() -> None:
    linked = {"/run": Node("/var/run", "directory"), "/tmp": Node("/var/tmp", "missing")}
    facts = rootfs(Node("/var/tmp", "directory"))
    facts = type(facts)(facts.passwd, facts.group, {**facts.nodes, **linked})
    found = {mount["destination"] for mount in spec(build(READ_ONLY, found=facts))["mounts"]}
    assert {"/var/run", "/var/tmp"} <= found
    assert not {"/run", "/tmp"} & found
    for node, words in (
        (Node("/proc/1", "directory"), "belongs to the runtime"),
        (Node("/a b", "directory"), "makes /run a link to /a b"),
        (Node("/run", "file"), "has a file at /run"),
    ):
        facts = type(facts)(facts.passwd, facts.group, {"/run": node})
        with pytest.raises(Refused) as refused:
            build(READ_ONLY, found=facts)
        assert words in str(refused.value)
