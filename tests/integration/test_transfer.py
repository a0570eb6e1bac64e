"""Services carried to a host without a registry: everything comes along, nothing is asked, and nobody is fooled."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from appbox import lock_file, owned_xattrs
from tests.ground import cosign, layers, registry
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


@contextmanager
def nobody_calls(host: str) -> Iterator[None]:
    """Listen where a registry was, and see that nobody connects."""
    name, _, port = host.partition(":")
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((name, int(port)))
        listener.listen()
        listener.settimeout(0)
        yield
        with pytest.raises(BlockingIOError):
            listener.accept()


def fill(box: Sandbox, name: str = "web") -> None:
    """Write what a service would, as users of its container."""
    volume = box.current(name) / "data/data"
    base = volume.stat().st_uid - 33
    (volume / "mine").write_text("written")
    os.chown(volume / "mine", base + 33, base + 7)
    os.setxattr(volume / "mine", "user.note", b"kept")
    capability = struct.pack("<IIIIII", 0x03000001, 1 << 10, 0, 0, 0, base)  # of the root of this user namespace
    os.setxattr(volume / "mine", "security.capability", capability)
    entries = [(1, 6, NOBODY), (2, 4, base + 12), (4, 4, NOBODY), (16, 6, NOBODY), (32, 0, NOBODY)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    os.setxattr(volume / "sub", "system.posix_acl_access", acl)
    os.setxattr(volume / "sub", "system.posix_acl_default", acl)
    with (volume / "holes").open("wb") as file:
        file.truncate(1 << 24)
    os.chown(volume / "holes", base + 1000, base + 1000)
    os.mkfifo(volume / "pipe")
    os.chown(volume / "pipe", base, base)
    os.link(volume / "mine", volume / "also")


def data_of(box: Sandbox, name: str = "web", base: int = BASE) -> dict[str, tuple[object, ...]]:
    """Return everything about a service's data, owners as its container knows them."""
    top = box.current(name) / "data"
    found: dict[str, tuple[object, ...]] = {}
    for path, (mode, uid, gid, content, *_) in snapshot(top).items():
        info = (top / path).lstat()
        names = os.listxattr(top / path, follow_symlinks=False)
        values = {n: os.getxattr(top / path, n, follow_symlinks=False) for n in sorted(names)}
        xattrs = {n: owned_xattrs.shifted(n, value, lambda number: number - base) for n, value in values.items()}
        owner = (uid, gid) if path == "." else (int(str(uid)) - base, int(str(gid)) - base)
        found[path] = (mode, *owner, content, xattrs, 0 if path == "." else info.st_mtime_ns, info.st_nlink)
    return found


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
    # Without --locked it is looked whether the tags have moved, and done without an answer.
    assert there.appbox("apply", there.services).out == "nothing to do\n"
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
def test_applying_needs_no_network_at_all(here: Sandbox, there: Sandbox, server: RealRegistry) -> None:
    """Also where only the manifest pins the image, and nobody has a lock."""
    file = shop(here, server)
    here.appbox("export", "db", "-o", file)
    there.appbox("import", file, "-d", there.services)
    for words in (("--locked",), ()):
        alone = ["unshare", "--net", *there.command("apply", *words, there.services)]
        assert "done: 1 service changed" in run(alone).out
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


def members_of(file: Path) -> dict[str, bytes]:
    with tarfile.open(file) as archive:
        return {info.name: archive.extractfile(info).read() for info in archive if info.isfile()}  # type: ignore[union-attr]


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


def test_nothing_is_replaced_unasked(here: Sandbox, there: Sandbox) -> None:
    here.apply()
    fill(here)
    file = here.place / "web.tar"
    here.appbox("export", "web", "--data", "-o", file)
    there.services.mkdir()
    (there.services / "web.toml").write_text("mine")
    before = there.snapshot(), snapshot(there.services)
    result = there.appbox("import", file, "-d", there.services, code=1)
    assert "web.toml: is there already, and says something else" in result.err
    assert (outside_of_the_cache(there), snapshot(there.services)) == (without_cache(before[0]), before[1])
    there.appbox("import", file, "-d", there.services, "--force")
    # Doing it again does nothing, and a service that is installed keeps its data.
    again = there.appbox("import", file, "-d", there.services)
    assert "with its data" not in again.out
    there.appbox("apply", "--locked", there.services)
    (there.current() / "data/data/mine").write_text("newer")
    result = there.appbox("import", file, "-d", there.services, code=1)
    assert "web: is installed, and keeps its own data" in result.err
    there.appbox("import", file, "-d", there.services, "--no-data")
    there.appbox("remove", "web")
    result = there.appbox("import", file, "-d", there.services, code=1)
    assert "web-1.0: has data already" in result.err
    assert (there.containers / "web-1.0/data/data/mine").read_text() == "newer"
    there.appbox("remove", "web", "--purge")
    there.appbox("import", file, "-d", there.services)
    there.appbox("apply", "--locked", there.services)
    assert (there.current() / "data/data/mine").read_text() == "written"


def outside_of_the_cache(box: Sandbox) -> dict[str, tuple[object, ...]]:
    return without_cache(box.snapshot())


def without_cache(found: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    """Leave out what every command makes: the lock, the cache's directory, and what is around them."""
    own = ("var/lib/appbox/lock", "var/cache/appbox", "var", "var/lib", "var/lib/appbox", "var/cache")
    return {path: info for path, info in found.items() if path not in own}


def test_a_lock_that_says_something_else(here: Sandbox, there: Sandbox) -> None:
    here.apply()
    file = here.place / "web.tar"
    here.appbox("export", "web", "-o", file)
    there.appbox("import", file, "-d", there.services)
    lock = there.services / "appbox.lock"
    whole = lock.read_text()
    lock.write_text(whole.replace(here.content.tags["1.0"], f"sha256:{'0' * 64}").replace('"web"', '"db"', 1) + "")
    there.appbox("import", file, "-d", there.services)
    assert [e.name for e in lock_file.parse(lock.read_text(), "").entries] == ["db", "web"]
    lock.write_text(whole.replace(here.content.tags["1.0"], f"sha256:{'0' * 64}"))
    result = there.appbox("import", file, "-d", there.services, code=1)
    assert "appbox.lock: locks web to another image" in result.err
    there.appbox("import", file, "-d", there.services, "--force")
    assert lock.read_text() == whole


@pytest.mark.parametrize(
    ("code", "words", "said"),
    [
        (1, "export none -o x.tar", "none: is not installed"),
        (2, "export -o x.tar", "NAME"),
        (2, "export web", "-o"),
        (2, "export web -o x.tar --live", "--data"),
        (5, "import none.tar", "none.tar: no archive"),
        (2, "import", "FILE"),
        (2, "import x.tar -d ", "-d"),
    ],
)
def test_wrong_words(here: Sandbox, code: int, words: str, said: str) -> None:
    result = here.appbox(*words.split(" "), code=code)
    assert said.lower() in result.err.lower()
    assert not os.path.exists("x.tar")


def test_both_need_root(here: Sandbox) -> None:
    assert "needs root" in here.appbox_as_nobody("export", "web", "-o", "x.tar", code=8).err
    assert "needs root" in here.appbox_as_nobody("import", "x.tar", code=8).err


# Hostile files


def rewrite(file: Path, change: Callable[[dict[str, bytes], dict[str, Any]], object]) -> None:
    """Change the members of an export, and its index, so that all digests are right again."""
    found = members_of(file)
    index = json.loads(found.pop("appbox.json"))
    change(found, index)
    listed = {entry["name"]: entry for entry in index["members"]}
    for name, data in found.items():
        entry = listed.setdefault(name, {"name": name, "mode": "0644"})
        entry |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    index["members"] = [listed[name] for name in found]
    parts = {"appbox.json": json.dumps(index).encode(), **found}
    file.write_bytes(layers.archive(*(layers.file(name.encode(), data) for name, data in parts.items())))


def _replace(name: str, old: str, new: str) -> Callable[[dict[str, bytes], dict[str, Any]], object]:
    return lambda found, _: found.update({name: found[name].replace(old.encode(), new.encode())})


def _data(*parts: bytes) -> Callable[[dict[str, bytes], dict[str, Any]], object]:
    return lambda found, _: found.update({"data/web.tar": layers.archive(layers.directory(b"data"), *parts)})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda found, _: found.update({"services/evil.toml": b""}), "belongs to no service"),
        (lambda found, _: found.update({"services/hosts/x.toml": b""}), "belongs to no service"),
        (lambda found, _: found.update({"services/../../x": b""}), "name that no file can have"),
        (_replace("services/web.toml", 'name = "web"', 'name = "db"'), "not the manifest that the index says"),
        (_replace("services/web.toml", "oci:images:web-1.0", "oci:/etc:x"), "not the manifest that the index says"),
        (_replace("services/web.toml", "[volumes", "[volums"), "services/web.toml:"),
        (_replace("appbox.lock", "sha256:", "sha256:0"), "appbox.lock"),
        (_replace("appbox.lock", 'name = "web"', 'name = "db"'), "does not lock what is in the export"),
        (lambda found, index: index["services"][0].update(image="oci:/etc:x"), "not the manifest"),
        (lambda found, index: index["services"][0].update(digest=f"sha256:{'0' * 64}"), "is not in it"),
        (lambda found, index: index["services"][0].update(data=["other"]), "the volumes that the index says"),
        (_data(layers.file(b"data/../../x", b"")), "no file can have"),
        (_data(layers.symlink(b"data/s", b"/etc"), layers.file(b"data/s/x", b"")), "before its directory"),
        (_data(layers.header(b"data/disk", flag=b"4", major=8)), "is a block device"),
        (_data(layers.file(b"data/x", b"", uid=70000)), "belongs to the id 70000"),
        (_data(layers.hardlink(b"data/x", b"../../../etc/passwd")), "link to no file"),
    ],
)
def test_a_hostile_export_leaves_nothing(
    here: Sandbox, there: Sandbox, change: Callable[[dict[str, bytes], dict[str, Any]], object], words: str
) -> None:
    here.apply()
    file = here.place / "web.tar"
    here.appbox("export", "web", "--data", "-o", file)
    rewrite(file, lambda *_: None)
    there.appbox("import", file, "-d", there.place / "fine")
    there.appbox("remove", "web", "--purge", code=None)
    rewrite(file, change)
    before = there.snapshot()
    result = there.appbox("import", file, "-d", there.services, code=6)
    assert words in result.err, result.err
    assert len(result.err.splitlines()) == 1
    assert there.snapshot() == before
    assert not there.services.exists()


def test_a_damaged_export_is_refused_wherever_it_is_damaged(here: Sandbox, there: Sandbox) -> None:
    here.apply()
    file = here.place / "web.tar"
    here.appbox("export", "web", "--data", "-o", file)
    whole = file.read_bytes()
    with tarfile.open(file) as archive:
        found = archive.getmembers()
    # In each header, and in the middle of what is behind it.
    places = [place for one in found for place in (one.offset + 10, one.offset_data + one.size // 2)]
    bad = [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in places]
    bad += [whole[:at] for at in range(0, len(whole), len(whole) // 12)]
    bad += [whole[:-1], whole + b"x", whole[:512], b"", whole[512:]]
    there.appbox("import", file, "-d", there.place / "fine", "--no-data")
    before = there.snapshot()
    for data in bad:
        file.write_bytes(data)
        assert there.appbox("import", file, "-d", there.services, code=6).err
        assert not there.services.exists()
    assert there.snapshot() == before


# Interruptions


def test_a_kill_leaves_no_half_file_and_no_half_data(here: Sandbox, there: Sandbox) -> None:
    here.apply()
    with (here.current() / "data/data/large").open("wb") as file:
        file.write(os.urandom(8 << 20))
    os.chown(here.current() / "data/data/large", BASE, BASE)
    target = here.place / "web.tar"
    for delay in (0.3, 0.45, 0.6):
        killed(here.command("export", "web", "--data", "-o", target), delay)
    here.appbox("export", "web", "--data", "-o", target)
    assert sorted(name for name in os.listdir(here.place) if "web" in name) == ["web.tar"]
    for delay in (0.3, 0.4, 0.5, 0.65):
        killed(there.command("import", target, "-d", there.services), delay)
    there.appbox("import", target, "-d", there.services)
    there.appbox("apply", "--locked", there.services)
    assert not there.debris()
    assert data_of(there) == data_of(here)


def killed(words: list[str], delay: float) -> None:
    """Run a program and kill it after some seconds, unless it has ended."""
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.kill()


def test_a_full_disk_leaves_nothing(here: Sandbox, there: Sandbox) -> None:
    here.apply()
    with (here.current() / "data/data/large").open("wb") as file:
        file.write(os.urandom(4 << 20))
    os.chown(here.current() / "data/data/large", BASE, BASE)
    whole = here.place / "web.tar"
    here.appbox("export", "web", "--data", "-o", whole)
    small = there.containers
    small.mkdir(parents=True)
    run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)])
    try:
        result = there.appbox("import", whole, "-d", there.services, code=1)
        assert "web: its data cannot be written: No space left on device" in result.err
        assert os.listdir(small) == []
        result = here.appbox("export", "web", "--data", "-o", small / "web.tar", code=1)
        assert "No space left on device" in result.err
        assert os.listdir(small) == []
    finally:
        run(["umount", str(small)])
    assert "web" not in (there.root / "var/lib/appbox/uid-ranges.toml").read_text()
    there.appbox("import", whole, "-d", there.services)
    there.appbox("apply", "--locked", there.services)
    assert data_of(there) == data_of(here)


def test_data_that_belongs_to_nobody_in_the_service(here: Sandbox) -> None:
    here.apply()
    (here.current() / "data/data/stray").touch()
    file = here.place / "web.tar"
    result = here.appbox("export", "web", "--data", "-o", file, code=1)
    assert "data/stray: belongs to 0:0, who is nobody in the service" in result.err
    assert not file.exists()
    here.appbox("export", "web", "-o", file)


def test_standard_output_is_no_terminal(here: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    here.apply()
    monkeypatch.setattr(sys, "stdout", Terminal())
    from appbox import exporting
    from appbox.errors import UsageError
    from appbox.session import Options

    with pytest.raises(UsageError, match="no text for a terminal"):
        exporting.export(Options(str(here.root)), exporting.Request(["web"], "-"))
