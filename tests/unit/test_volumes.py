"""Where volumes are, what they are mounted on, whom they belong to."""

from __future__ import annotations

from typing import Any

import pytest

from appbox import volumes
from appbox.errors import ManifestError, Refused
from appbox.locked import HostSource
from appbox.oci.rootfs import Node, RootfsFacts
from appbox.oci.users import User
from appbox.volumes import VolumeSpec
from tests.ground.pure import locked, rootfs

BUNDLE = "/opt/containers/web-1.0"
DATA = '[volumes.data]\npath = "/data"\n'
HOST = '[volumes.h]\npath = "/data"\nsource = "/srv/x"\n'
WWW = User(33, 33)


def build(tables: str, found: RootfsFacts | None = None, **more: object) -> tuple[VolumeSpec, ...]:
    return volumes.build(locked(tables, **more), BUNDLE, WWW if found else None, found)  # type: ignore[arg-type]


def test_a_volume_without_a_source_is_in_the_bundle() -> None:
    (volume,) = build(DATA, rootfs(Node("/data", "directory", 5, 6, 0o2750)))
    assert (volume.name, volume.kind, volume.source, volume.target) == ("data", "data", f"{BUNDLE}/data/data", "/data")
    assert (volume.owner, volume.mode, volume.seed, volume.make, volume.take) == ((5, 6), 0o750, True, True, False)
    assert volume.mount().options == ("rbind", "nosuid", "nodev", "rw")


def test_what_the_image_does_not_have_belongs_to_who_runs() -> None:
    (volume,) = build(DATA, rootfs())
    assert (volume.owner, volume.mode) == ((33, 33), 0o755)
    with pytest.raises(Refused, match="the image has a file at /data, where the service needs a directory"):
        build(DATA, rootfs(Node("/data", "file", 5, 6, 0o600)))


def test_before_the_unpacking_owners_are_known_only_as_numbers() -> None:
    owners = ("image", "www", "7", "7:8", "www:8")
    found = [build(f'{DATA}owner = "{owner}"\n')[0].owner for owner in owners]
    assert found == [None, None, None, (7, 8), None]
    found = [build(f'{DATA}owner = "{owner}"\n', rootfs())[0].owner for owner in owners]
    assert found == [(33, 33), (33, 33), (7, 0), (7, 8), (33, 8)]


def test_an_owner_that_the_image_does_not_know_is_refused() -> None:
    with pytest.raises(ManifestError, match=r"web\.toml:6: volumes\.data\.owner: no such user"):
        build(f'{DATA}owner = "nobody"\n', rootfs())
    with pytest.raises(ManifestError, match=r"volumes\.data\.owner: no such group"):
        build(f'{DATA}owner = "www:nobody"\n', rootfs())


def test_a_tmpfs() -> None:
    table = '[volumes.t]\npath = "/t"\ntmpfs = true\n'
    (volume,) = build(f'{table}size = "1M"\nmode = "0700"\nowner = "7:8"\n', rootfs())
    mount = volume.mount()
    assert (mount.type, mount.source, volume.seed, volume.make) == ("tmpfs", "tmpfs", False, False)
    assert mount.options == ("nosuid", "nodev", "mode=700", "uid=7", "gid=8", "size=1048576")
    (volume,) = build(table, rootfs())
    assert volume.mount().options == ("nosuid", "nodev", "mode=1777", "uid=33", "gid=33")


@pytest.mark.parametrize(
    ("there", "make", "take"),
    [
        (None, True, False),
        (HostSource(True, True, 0, 0), False, True),
        (HostSource(True, False, 0, 0), False, False),
        (HostSource(False, False, 0, 0), False, False),
    ],
)
def test_a_path_of_the_host(there: HostSource | None, make: bool, take: bool) -> None:
    (volume,) = build(f"{HOST}read_only = true\n", rootfs(), sources={"/srv/x": there})
    assert (volume.kind, volume.source, volume.make, volume.take) == ("host", "/srv/x", make, take)
    assert volume.mount().options[-1] == "ro"


def test_every_volume_of_the_image_outlives_the_container() -> None:
    image: dict[str, Any] = {
        "Volumes": {"/Var/Lib/X/": {}, "/data": {}, "/data/sub": {}, "/data2": {}, "/-": {}, "/_": {}}
    }
    found = {v.target: v for v in build(DATA, rootfs(), **image)}
    assert list(found) == ["/-", "/Var/Lib/X", "/_", "/data", "/data2"]
    assert [v.name for v in found.values()] == ["volume", "var-lib-x", "volume-2", "data", "data2"]
    assert "declares VOLUME /data2, which the manifest does not map" in found["/data2"].reason


def test_a_name_of_the_manifest_is_not_taken_by_the_image_s() -> None:
    found = build('[volumes.var]\npath = "/a"\n', rootfs(), Volumes={"/var": {}})
    assert sorted((v.name, v.target) for v in found) == [("var", "/a"), ("var-2", "/var")]


@pytest.mark.parametrize("path", ["/proc", "/proc/x", "/sys/fs/cgroup", "/dev", "/", "", "data", "/a/../b", "/a\nb"])
def test_volumes_of_the_image_at_impossible_places_are_refused(path: str) -> None:
    with pytest.raises(Refused, match="of the image cannot be mapped"):
        build("", rootfs(), Volumes={path: {}})


def test_mounts_go_where_the_image_s_links_lead() -> None:
    found = rootfs()
    nodes = {"/data": Node("/real/data", "directory", 1, 2, 0o755)}
    (volume,) = build(DATA, RootfsFacts(found.passwd, found.group, nodes))
    assert (volume.target, volume.owner) == ("/real/data", (1, 2))


@pytest.mark.parametrize("path", ["/proc/1", "/sys", "/dev/shm", "/"])
def test_links_of_the_image_into_the_runtime_s_places_are_refused(path: str) -> None:
    found = RootfsFacts(None, None, {"/data": Node(path, "directory")})
    with pytest.raises(Refused, match=f"the image makes /data a link to {path}"):
        build(DATA, found)


def test_two_volumes_that_meet_by_a_link_are_refused() -> None:
    tables = '[volumes.a]\npath = "/a"\n[volumes.b]\npath = "/b"\n'
    found = RootfsFacts(None, None, {"/a": Node("/b", "directory"), "/b": Node("/b", "directory")})
    with pytest.raises(ManifestError, match=r"volumes\.a\.path: another volume is at /b too"):
        build(tables, found)


def test_nested_volumes_come_after_those_around_them() -> None:
    tables = "".join(f'[volumes.v{i}]\npath = "{p}"\n' for i, p in enumerate(("/a/b", "/a-b", "/a", "/a/b/c")))
    assert [v.target for v in build(tables, rootfs())] == ["/a", "/a/b", "/a/b/c", "/a-b"]
