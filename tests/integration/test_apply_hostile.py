"""What services, images and other people on the host could set as a trap for `apply`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.ground import layers, registry
from tests.ground.sandbox import BASE, Sandbox, members

pytestmark = pytest.mark.root


@pytest.fixture
def box(tmp_path: Path) -> Sandbox:
    return Sandbox(tmp_path)


def test_a_link_that_a_service_planted_is_not_followed(box: Sandbox) -> None:
    """CVE-2017-1002101: the service owns /srv/a, and would be given what it links to."""
    box.apply(volumes={"a": {"path": "/seed", "source": "/srv/a"}})
    victim = box.root / "usr/local/sbin"
    victim.mkdir(parents=True)
    (box.root / "srv/a/trap").symlink_to("/usr/local/sbin")
    os.chown(box.root / "srv/a/trap", BASE, BASE, follow_symlinks=False)
    box.refuse(6, "belongs to the user id", volumes={"b": {"path": "/bin", "source": "/srv/a/trap"}})
    assert os.listdir(victim) == []
    assert victim.stat().st_uid == 0


def test_volumes_within_one_another_are_refused(box: Sandbox) -> None:
    nested = {"a": {"path": "/a", "source": "/srv/a"}, "b": {"path": "/b", "source": "/srv/a/b"}}
    box.refuse(3, "lie within one another", volumes=nested)


def test_a_volume_within_that_of_another_service_is_refused(box: Sandbox) -> None:
    box.apply(name="outer", volumes={"a": {"path": "/a", "source": "/srv/a"}})
    box.refuse(3, "a volume of outer", name="inner", volumes={"b": {"path": "/b", "source": "/srv/a/b"}})
    box.apply(name="beside", volumes={"b": {"path": "/b", "source": "/srv/a"}})


@pytest.mark.parametrize("source", ["/opt/containers/x", "/var/lib/appbox", "/var/lib", "/var/cache/appbox/blobs"])
def test_a_volume_in_what_is_appbox_s_own_is_refused(box: Sandbox, source: str) -> None:
    box.refuse(3, "appbox's own", volumes={"a": {"path": "/a", "source": source}})


def test_a_directory_that_others_may_write_to_is_not_passed(box: Sandbox) -> None:
    (box.root / "srv/open/a").mkdir(parents=True)
    (box.root / "srv/open").chmod(0o777)
    volumes = {"a": {"path": "/a", "source": "/srv/open/a"}}
    box.refuse(6, "others than root may write to it", volumes=volumes)
    (box.root / "srv/open").chmod(0o1777)
    box.apply(volumes=volumes)
    box.settled()


def test_root_s_own_links_are_followed(box: Sandbox) -> None:
    (box.root / "big/data").mkdir(parents=True)
    (box.root / "srv").symlink_to("big/../big/data")
    box.apply(volumes={"a": {"path": "/seed", "source": "/srv/a"}})
    assert (box.root / "big/data/a/version").exists()
    box.settled()


def test_a_device_of_the_image_is_not_copied_into_a_volume(box: Sandbox) -> None:
    box.image("dev", *members(), layers.device(b"seed/disk", 8, 0))
    box.apply()
    box.refuse(6, "has the device disk in a volume", name="other", version="dev")


@pytest.mark.parametrize(
    ("member", "words"),
    [
        (layers.directory(b"etc/hosts"), "a directory at /etc/hosts"),
        (layers.file(b"etc"), "a file above at /etc/"),
        (layers.file(b"seed"), "a file at /seed"),
    ],
)
def test_an_image_on_which_nothing_can_be_mounted_is_refused(box: Sandbox, member: bytes, words: str) -> None:
    box.image("odd", layers.file(b"bin/app", b"x", mode=0o755), member)
    box.refuse(6, words, version="odd")


def test_an_image_of_thousands_of_volumes_is_refused(box: Sandbox) -> None:
    box.image("many", *members(), Volumes={f"/v{number}": {} for number in range(3000)})
    box.refuse(6, "more than 100 VOLUMEs", version="many")


def test_services_that_would_share_a_directory_are_refused(box: Sandbox) -> None:
    box.image("1-2", *members())
    box.image("2", *members())
    box.manifest(name="a", version="1-2")
    box.manifest(name="a-1", version="2")
    before = box.host()
    result = box.appbox("apply", box.services, code=3)
    assert "its directory a-1-2 is that of" in result.err
    assert box.host() == before


def test_a_damaged_version_is_made_anew(box: Sandbox) -> None:
    box.apply()
    (box.current() / "run").unlink()
    assert "unpack" in box.actions()
    box.apply()
    box.settled()
    box.current().chmod(0o755)
    assert "unpack" in box.actions()


def test_the_unit_of_another_init_is_removed_too(box: Sandbox) -> None:
    box.apply()
    box.init = "openrc"
    box.appbox("remove", "--purge", "web")
    assert not list((box.root / "etc").rglob("web*"))


def test_blobs_are_for_root_alone(box: Sandbox) -> None:
    box.apply()
    assert (box.root / "var/cache/appbox").stat().st_mode & 0o077 == 0


def test_an_empty_root_is_refused(box: Sandbox) -> None:
    result = box.appbox("--root", "", "status", code=2, root=False)
    assert "the root has no name" in result.err


@pytest.mark.registry
def test_a_tag_that_moved_is_seen_and_a_silent_registry_is_no_hindrance(box: Sandbox) -> None:
    box.image("2.0", *members(), layers.file(b"new", b"x"))
    with registry.start(str(box.place / "registry")) as server:
        server.push(f"oci:{box.images}:1.0", "web:1.0")
        image = f"{server.host}/web"
        box.apply(image=image)
        (box.current() / "data/data/mine").write_text("kept")
        box.settled()
        before = box.current().stat().st_ino
        server.push(f"oci:{box.images}:2.0", "web:1.0")
        assert box.actions(image=image) == ["unpack", "render-config", "publish", "carry-data"]
        box.apply(image=image)
        assert (box.current() / "rootfs/new").exists()
        assert (box.current() / "data/data/mine").read_text() == "kept"
        kept = list((box.containers / ".replaced").iterdir())
        assert [entry.stat().st_ino for entry in kept] == [before]
    result = box.apply(image=image)
    assert (result.out, result.err.count("did not answer")) == ("nothing to do\n", 1)
    data = box.appbox("--json", "plan", box.manifest(image=image)).data()
    assert (data["changes"], list(data["silent"])) == (False, [server.host])
    box.appbox("plan", box.manifest(image=image, version="3.0"), code=5)
