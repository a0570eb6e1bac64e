"""Services carried to a host without a registry: everything comes along, nothing is asked, and nobody is fooled."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from appbox import lock_file
from tests.ground import cosign, layers, registry
from tests.ground.carried import data_of, fill, members_of, nobody_calls
from tests.ground.registry import RealRegistry
from tests.ground.sandbox import BASE, Sandbox, members, run, snapshot

pytestmark = pytest.mark.root

NOBODY = 0xFFFFFFFF
TEMPLATE = "port {{ vars.port }}\n"


@pytest.fixture
def here(tmp_path: Path) -> Sandbox:
    (tmp_path / "here").mkdir()
    return Sandbox(tmp_path / "here")


@pytest.fixture
def there(tmp_path: Path) -> Sandbox:
    """Return another host, which has no image and no manifest."""
    (tmp_path / "there").mkdir()
    box = Sandbox(tmp_path / "there")
    shutil.rmtree(box.images)
    box.services.rmdir()
    return box


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RealRegistry]:
    with registry.start(str(tmp_path / "registry")) as started:
        yield started


def shop(here: Sandbox, server: RealRegistry) -> Path:
    """Install two services of one registry that share a layer and need each other, with files of all kinds."""
    here.image("2.0", *members(b"2"))
    for tag in ("1.0", "2.0"):
        server.push(f"oci:{here.images}:{tag}", f"team/app:{tag}")
    (here.services / "conf").mkdir()
    (here.services / "conf/app.j2").write_text(TEMPLATE)
    (here.services / "tree/sub").mkdir(parents=True)
    (here.services / "tree/sub/tool").write_text("#!/bin/sh\n")
    (here.services / "tree/sub/tool").chmod(0o755)
    (here.place / "outside.conf").write_text("outside\n")
    image = f"{server.host}/team/app"
    here.manifest("db", "2.0", image=image)
    here.manifest(
        "web",
        image=image,
        service={"requires": ["db"]},
        vars={"port": 80},
        config={
            "/etc/app.conf": {"template": "conf/app.j2"},
            "/etc/tree": {"directory": "tree"},
            "/etc/outside": {"file": str(here.place / "outside.conf")},
            "/etc/text": {"text": "here\n"},
        },
        volumes={"data": {"path": "/seed"}, "files": {"path": "/files", "source": "/srv/files"}},
        secrets={"password": {"file": "/etc/appbox/password", "path": "/run/secrets/password"}},
    )
    here.appbox("apply", here.services)
    fill(here)
    fill(here, "db")
    return here.place / "shop.tar"


@pytest.mark.registry
def test_two_services_live_on_without_their_registry(here: Sandbox, there: Sandbox, tmp_path: Path) -> None:
    with registry.start(str(tmp_path / "registry")) as server:
        file = shop(here, server)
        said = here.appbox("export", "web", "db", "--data", "-o", file).out
        host = server.host
    assert said.splitlines()[0].startswith(f"{file}: db 2.0 with its data, web 1.0 with its data (")
    assert "note: web: the secret password does not go along; it is read from /etc/appbox/password" in said
    assert "note: web: the volume files: /srv/files is a path of this host and does not go along" in said
    assert stat_mode(file) == 0o600
    with nobody_calls(host):
        # The first range is somebody else's on this host, so that ids have to move.
        (there.root / "var/lib/appbox").mkdir(parents=True)
        (there.root / "var/lib/appbox/uid-ranges.toml").write_text(f"[ranges]\nother = {BASE}\n")
        done = there.appbox("--json", "import", file, "-d", there.services).data()
        assert done["data"] == ["db", "web"]
        lock = lock_file.parse((there.services / "appbox.lock").read_text(), "appbox.lock")
        assert [(e.name, e.tag, e.digest) for e in lock.entries] == [
            ("db", "2.0", here.content.tags["2.0"]),
            ("web", "1.0", here.content.tags["1.0"]),
        ]
        # The one that names a file elsewhere names it here now, and the other one is what its author wrote.
        assert (there.services / "db.toml").read_bytes() == (here.services / "db.toml").read_bytes()
        assert (there.services / "web.files/outside.conf").read_text() == "outside\n"
        assert (there.services / "conf/app.j2").read_text() == TEMPLATE
        assert stat_mode(there.services / "tree/sub/tool") == 0o755
        there.appbox("apply", "--locked", there.services)
        assert there.appbox("apply", "--locked", there.services).out == "nothing to do\n"
        # Also without --locked nobody is asked whether the tags have moved: there may be no registry here.
        for command in ("plan", "apply", "render -o out", "check --image"):
            first, *rest = command.split()
            done = there.appbox(first, *(there.place / w if w == "out" else w for w in rest), there.services)
            assert done.err == ""
            assert done.out == "nothing to do\n" or rest
    assert not there.debris()
    for name, other, base in (("db", BASE, BASE + 65536), ("web", BASE + 65536, BASE + 2 * 65536)):
        assert data_of(there, name, base) == data_of(here, name, other)
        mine, theirs = here.spec(name), there.spec(name)
        for mapping in ("uidMappings", "gidMappings"):
            (one,) = mine["linux"].pop(mapping)
            (two,) = theirs["linux"].pop(mapping)
            assert (one["containerID"], one["size"]) == (two["containerID"], two["size"])
            assert (one["hostID"], two["hostID"]) == (other, base)
        assert mine == theirs
        assert snapshot_of_config(here, name, other) == snapshot_of_config(there, name, base)
    assert there.appbox("verify").code == 0


def stat_mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def snapshot_of_config(box: Sandbox, name: str, base: int) -> dict[str, tuple[object, ...]]:
    top = Path(os.path.realpath(box.current(name) / "config"))
    return {
        path: (mode, int(str(uid)) - base, int(str(gid)) - base, content)
        for path, (mode, uid, gid, content, *_) in snapshot(top).items()
        if path != "."
    }


@pytest.mark.registry
def test_applying_needs_no_network_at_all(here: Sandbox, there: Sandbox, tmp_path: Path) -> None:
    """Also where only the manifest pins the image, and nobody has a lock."""
    with registry.start(str(tmp_path / "registry")) as server:
        file = shop(here, server)
        here.appbox("export", "db", "-o", file)
    there.appbox("import", file, "-d", there.services)
    for words in (("--locked",), ()):
        alone = ["unshare", "--net", *there.command("apply", *words, there.services)]
        assert "done: 1 service changed" in run(alone).out
        there.appbox("remove", "db", "--purge")
        with nobody_calls(server.host):
            there.appbox("plan", *words, there.services)
            assert there.appbox("apply", *words, there.services).err == ""
            assert there.appbox("apply", *words, there.services).out == "nothing to do\n"
        there.appbox("remove", "db", "--purge")
    (there.services / "appbox.lock").unlink()
    path = there.services / "db.toml"
    path.write_text(f'digest = "{here.content.tags["2.0"]}"\n{path.read_text()}')
    alone = ["unshare", "--net", *there.command("apply", there.services)]
    assert "done: 1 service changed" in run(alone).out


@pytest.mark.registry
def test_what_is_installed_is_exported_whatever_its_tag_means_now(
    here: Sandbox, there: Sandbox, server: RealRegistry
) -> None:
    file = shop(here, server)
    digest = here.content.tags["1.0"]
    here.image("1.0", *members(b"moved"))
    server.push(f"oci:{here.images}:1.0", "team/app:1.0")
    shutil.rmtree(here.root / "var/cache/appbox")
    here.appbox("export", "web", "-o", file)
    index = members_of(file)["appbox.json"]
    assert [service["digest"] for service in json.loads(index)["services"]] == [digest]
    there.appbox("import", file, "-d", there.services)
    there.appbox("apply", "--locked", there.services, code=None)
    assert here.content.tags["1.0"] != digest


@pytest.mark.registry
def test_a_layer_that_is_nowhere_any_more(here: Sandbox, tmp_path: Path) -> None:
    with registry.start(str(tmp_path / "registry")) as server:
        file = shop(here, server)
    shutil.rmtree(here.root / "var/cache/appbox")
    result = here.appbox("export", "web", "-o", file, code=5)
    assert "web: the layer sha256:" in result.err
    assert len(result.err.splitlines()) == 1
    assert not [name for name in os.listdir(here.place) if "shop" in name]


@pytest.mark.registry
def test_other_tools_read_the_images(here: Sandbox, server: RealRegistry) -> None:
    file = shop(here, server)
    here.appbox("export", "web", "db", "-o", file)
    name = f"{server.host}/team/app:1.0"
    described = json.loads(run(["skopeo", "inspect", f"oci-archive:{file}:{name}"]).out)
    assert described["Digest"] == here.content.tags["1.0"]
    # One layer each, and two of documents each; what both have is there once.
    blobs = [name for name in members_of(file) if name.startswith("blobs/")]
    assert len(blobs) == len(set(blobs)) == 6
    assert here.appbox("image", "inspect", f"oci-archive:{file}:{name}", root=False).code == 0


@pytest.mark.registry
def test_an_image_of_several_platforms_is_pinned_by_its_index(
    here: Sandbox, there: Sandbox, server: RealRegistry
) -> None:
    content = here.content
    arm = content.image(layers=(layers.archive(*members(b"arm")),), architecture="arm64")
    amd = content.image(layers=(layers.archive(*members()),), config={"Cmd": ["/bin/app"]})
    content.index("3.0", arm, amd)
    here.image("1.0", *members())
    server.push(f"oci:{here.images}:3.0", "team/app:3.0")
    here.apply(image=f"{server.host}/team/app", version="3.0")
    file = here.place / "web.tar"
    here.appbox("export", "web", "-o", file)
    there.appbox("import", file, "-d", there.services)
    assert content.tags["3.0"] in (there.services / "appbox.lock").read_text()
    run(["unshare", "--net", *there.command("apply", "--locked", there.services)])
    assert there.current().name == "web-3.0"


def test_an_image_of_a_layout_comes_along_in_one(here: Sandbox, there: Sandbox) -> None:
    here.apply()
    fill(here)
    file = here.place / "web.tar.zst"
    here.appbox("export", "web", "--data", "-o", file)
    again = here.place / "again.tar.zst"
    here.appbox("export", "web", "--data", "-o", again)
    assert file.read_bytes() == again.read_bytes()
    shutil.rmtree(here.images)
    there.appbox("import", file, "-d", there.services)
    text = (here.services / "web.toml").read_text()
    assert (there.services / "web.toml").read_text() == text.replace(f"oci:{here.images}", "oci:images:web-1.0")
    there.appbox("apply", "--locked", there.services)
    assert data_of(there) == data_of(here)
    # The image stays with the manifests, so that the cache may go.
    shutil.rmtree(there.root / "var/cache/appbox")
    assert there.appbox("apply", there.services).out == "nothing to do\n"


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz", ".tar.zst"])
def test_compression_by_name(here: Sandbox, there: Sandbox, suffix: str) -> None:
    here.apply()
    file = here.place / f"web{suffix}"
    here.appbox("export", "web", "-o", file)
    magic = {".tar": b"appb", ".tar.gz": b"\x1f\x8b", ".tgz": b"\x1f\x8b", ".tar.zst": b"\x28\xb5\x2f\xfd"}[suffix]
    assert file.read_bytes().startswith(magic)
    there.appbox("import", file, "-d", there.services)
    there.appbox("apply", "--locked", there.services)


def test_through_a_pipe_and_applied_at_once(here: Sandbox, there: Sandbox) -> None:
    here.apply()
    fill(here)
    with subprocess.Popen(here.command("export", "web", "--data", "-o", "-"), stdout=subprocess.PIPE) as sender:
        words = there.command("import", "-", "-d", there.services, "--apply")
        done = subprocess.run(words, stdin=sender.stdout, capture_output=True, text=True, check=False)
    assert (sender.returncode, done.returncode, done.stderr) == (0, 0, "")
    assert "done: 1 service changed" in done.stdout
    assert "runs them" not in done.stdout  # it has just done so
    assert data_of(there) == data_of(here)


def test_a_manifest_that_has_changed_since(here: Sandbox, there: Sandbox) -> None:
    """What is exported is what is installed, also when nobody knows any more how it came to be."""
    template = here.services / "app.j2"
    template.write_text(TEMPLATE)
    config = {"/etc/app.conf": {"template": "app.j2", "mode": "0400"}}
    here.apply(vars={"port": 80}, config=config)
    file = here.place / "web.tar"

    def export() -> str:
        said = here.appbox("export", "web", "-o", file).out
        text = members_of(file)["services/web.toml"].decode()
        assert 'file = "web.files/app.conf"' in text
        assert members_of(file)["services/web.files/app.conf"] == b"port 80\n"
        return said

    assert "app.j2" in (here.services / "web.toml").read_text()
    template.write_text("another {{ vars.port }}\n")
    assert "what it says of /etc/app.conf has changed since" in export()
    template.write_text(TEMPLATE)
    here.manifest(vars={"port": 81}, config=config)
    assert "web.toml has changed since" in export()
    shutil.rmtree(here.services)
    assert "web.toml cannot be used" in export()
    there.appbox("import", file, "-d", there.services)
    there.appbox("apply", "--locked", there.services)
    assert (there.current() / "config/etc/app.conf").read_text() == "port 80\n"
    assert stat_mode(there.current() / "config/etc/app.conf") == 0o400


def test_the_overlay_of_this_host_is_part_of_it(here: Sandbox, there: Sandbox) -> None:
    (here.services / "hosts").mkdir()
    name = os.uname().nodename
    (here.root / "etc").mkdir(exist_ok=True)
    (here.root / "etc/hostname").write_text(f"{name}\n")
    (here.services / f"hosts/{name}.toml").write_text('[services.web.process]\nenv = { PLACE = "here" }\n')
    here.apply()
    assert "PLACE=here" in here.spec()["process"]["env"]
    file = here.place / "web.tar"
    said = here.appbox("export", "web", "-o", file).out
    assert "is part of its manifest now" in said
    there.appbox("import", file, "-d", there.services)
    assert not (there.services / "hosts").exists()
    there.appbox("apply", "--locked", there.services)
    assert "PLACE=here" in there.spec()["process"]["env"]


@pytest.mark.registry
def test_a_signature_goes_along(here: Sandbox, there: Sandbox, tmp_path: Path) -> None:
    key = cosign.key()
    with registry.start(str(tmp_path / "registry")) as server:
        name = f"{server.host}/team/web"
        cosign.sign(here.content, here.content.tags["1.0"], key, reference=name)
        here.image("1.0", *members())
        signed = f"sha256-{here.content.tags['1.0'].removeprefix('sha256:')}.sig"
        for tag in ("1.0", signed):
            server.push(f"oci:{here.images}:{tag}", f"team/web:{tag}")
        key.write(here.services / "keys/ours.pub")
        here.apply(image=name, policy={"signed_by": ["keys/ours.pub"]})
        file = here.place / "web.tar"
        here.appbox("export", "web", "-o", file)
        host = server.host
    with nobody_calls(host):
        there.appbox("import", file, "-d", there.services)
        there.appbox("apply", "--locked", there.services)
    other = cosign.key()
    there.appbox("remove", "web", "--purge")
    (there.services / "keys/ours.pub").unlink()
    other.write(there.services / "keys/ours.pub")
    there.appbox("apply", "--locked", there.services, code=5)  # it is asked for another one, in vain


# What stands in the way
