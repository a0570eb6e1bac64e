"""Policies at work: nothing of a refused image is fetched or kept, on a real registry and from layouts."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appbox.oci.platform import Platform
from tests.ground import cosign, faulty, registry
from tests.ground.faulty import Faulty
from tests.ground.registry import RealRegistry
from tests.ground.sandbox import APPBOX, NOBODY, Sandbox, members, snapshot
from tests.ground.tiny import archive

pytestmark = pytest.mark.root

OURS, THEIRS = cosign.key(), cosign.key()
HOST_POLICY = "etc/appbox/policy.toml"


class Shop:
    """A sandbox whose image lies in a registry."""

    def __init__(self, box: Sandbox, host: str) -> None:
        self.box, self.host = box, host
        OURS.write(box.services / "keys/ours.pub")
        THEIRS.write(box.services / "keys/theirs.pub")

    @property
    def name(self) -> str:
        return f"{self.host}/team/web"

    @property
    def digest(self) -> str:
        return self.box.content.tags["1.0"]

    def sign(self, *keys: cosign.Key, digest: str = "", reference: str | None = None) -> str:
        return cosign.sign(
            self.box.content, digest or self.digest, *keys, reference=self.name if reference is None else reference
        )

    def manifest(self, *, signed_by: tuple[str, ...] = ("keys/ours.pub",), **tables: Any) -> Path:
        policy = tables.pop("policy", {"signed_by": list(signed_by)})
        return self.box.manifest(image=self.name, **{"policy": policy, **tables})

    def host_policy(self, text: str) -> Path:
        path = self.box.root / HOST_POLICY
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def kept(self) -> list[str]:
        """Return the files that are kept of images."""
        cache = self.box.root / "var/cache/appbox"
        return sorted(str(p.relative_to(cache)) for p in cache.rglob("*") if p.is_file() and p.parts[-2] != "appbox")

    def refused(self, *words: object, code: int = 6) -> str:
        """Run appbox, which has to refuse and to leave everything as it was."""
        before, kept = snapshot(self.box.root), self.kept()
        error = self.box.appbox(*words, code=code).err
        after = snapshot(self.box.root)
        new = {path for path in after if path not in before and not f"{path}/".startswith("var/")}
        assert not new, new
        assert self.kept() == kept
        return error


class Loopback(Shop):
    """The registry of our own, which counts what is asked for."""

    def __init__(self, box: Sandbox) -> None:
        self.registry = Faulty(box.content)
        super().__init__(box, "")

    def asked(self, kind: str) -> list[str]:
        return [r.path.rpartition("/")[2] for r in self.registry.seen("GET", f"/{kind}/")]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Loopback]:
    shop = Loopback(Sandbox(tmp_path))
    with faulty.serve(shop.registry):
        shop.host = shop.registry.host
        yield shop


def test_a_signed_image_is_installed_and_the_plan_says_by_whom(shop: Loopback) -> None:
    shop.sign(THEIRS, OURS)
    path = shop.manifest()
    assert "note: the image is signed by keys/ours.pub (sha256:" in shop.box.appbox("plan", path).out
    (signer,) = shop.box.appbox("--json", "plan", path).data()["signed_by"]["web"]
    assert (signer["key"], signer["digest"], signer["name"]) == ("keys/ours.pub", shop.digest, shop.name)
    shop.box.appbox("apply", path)
    image = tomllib.loads((shop.box.current() / "bundle.toml").read_text())["image"]
    assert image["signed_by"] == [signer]
    assert shop.asked("manifests").count(cosign.tag(shop.digest)) == 1, "a signature is asked for once"
    shop.box.settled()


def test_nothing_is_asked_about_an_installed_image(shop: Loopback) -> None:
    shop.sign(OURS)
    path = shop.manifest()
    shop.box.appbox("apply", path)
    shop.registry.requests.clear()
    before = snapshot(shop.box.root)
    assert shop.box.appbox("plan", path).out == "nothing to do\n"
    assert [request.method for request in shop.registry.requests if "/manifests/" in request.path] == ["HEAD"]
    assert snapshot(shop.box.root) == before


@pytest.mark.parametrize("command", ["plan", "apply", "render"])
def test_an_unsigned_image_is_refused_before_a_layer_is_fetched(shop: Loopback, command: str) -> None:
    out = ("-o", shop.box.place / "out") if command == "render" else ()
    said = shop.refused(command, shop.manifest(), *out)
    assert said.startswith(f"appbox: {shop.name}:1.0: the image is not signed: ")
    assert cosign.tag(shop.digest) in said
    assert shop.kept() == []
    config = shop.asked("blobs")
    assert len(config) <= 1, "only the configuration may have been read"
    assert not (shop.box.root / "opt").exists()


def test_signed_by_another_key(shop: Loopback) -> None:
    shop.sign(THEIRS)
    assert "one is by another key" in shop.refused("apply", shop.manifest())
    shop.box.appbox("apply", shop.manifest(signed_by=("keys/ours.pub", "keys/theirs.pub")))


def test_a_signature_for_another_repository(shop: Loopback) -> None:
    shop.sign(OURS, reference="docker.io/library/other")
    assert f"is for docker.io/library/other, not {shop.name}" in shop.refused("apply", shop.manifest())
    copied = {"signed_by": ["keys/ours.pub"], "signed_as": "docker.io/library/other"}
    shop.box.appbox("apply", shop.manifest(policy=copied))


def test_a_signature_that_was_moved_to_another_image(shop: Loopback) -> None:
    shop.box.image("2.0", *members(b"2"))
    other = shop.box.content.tags["2.0"]
    shop.sign(OURS, digest=other)
    shop.box.content.tags[cosign.tag(shop.digest)] = shop.box.content.tags[cosign.tag(other)]
    assert f"is for another image, {other}" in shop.refused("apply", shop.manifest())


def test_what_stands_where_signatures_should_be(shop: Loopback) -> None:
    tags = shop.box.content.tags
    tags[cosign.tag(shop.digest)] = shop.digest
    assert "holds no signature" in shop.refused("apply", shop.manifest())
    shop.box.content.index(cosign.tag(shop.digest), shop.box.content.image(""))
    assert "is refused" in shop.refused("apply", shop.manifest())


def test_a_signature_whose_payload_is_cut_or_gone(shop: Loopback) -> None:
    shop.sign(OURS)
    blobs = shop.box.content.blobs
    digest = next(d for d in blobs if b"critical" in blobs[d])
    payload = blobs.pop(digest)
    assert "one is damaged" in shop.refused("apply", shop.manifest())
    blobs[digest] = payload[:-1] + b" "
    assert "one is damaged" in shop.refused("apply", shop.manifest())


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (faulty.endless(), 6),
        (faulty.body(b"x"), 6),
        (faulty.body(b"{}"), 6),
        (faulty.body(b"[" * 100_000), 6),
        (faulty.content_type("application/vnd.oci.image.index.v1+json"), 6),
        (faulty.redirect("http://169.254.169.254/latest"), 6),
        (faulty.status(404), 6),
        (faulty.status(401), 5),
    ],
)
def test_lies_where_signatures_should_be(shop: Loopback, fault: faulty.Fault, code: int) -> None:
    shop.registry.break_next(shop.sign(OURS), *[fault] * 10)
    shop.refused("plan", shop.manifest(), code=code)


def test_a_registry_that_breaks_is_unavailable_and_not_unsigned(shop: Loopback) -> None:
    shop.sign(OURS)
    broken = [faulty.status(403)] * 4
    shop.registry.break_next(cosign.tag(shop.digest), *broken)
    shop.refused("plan", shop.manifest(), code=5)


def test_a_policy_that_came_later_is_looked_at_for_what_is_installed(shop: Loopback) -> None:
    shop.box.appbox("apply", shop.manifest(policy=None))
    said = shop.box.appbox("plan", shop.manifest(), code=6).err
    assert "the image is not signed" in said
    before = snapshot(shop.box.root)
    shop.box.appbox("apply", shop.manifest(), code=6)
    assert snapshot(shop.box.root) == before
    shop.sign(OURS)
    said = shop.box.appbox("apply", shop.manifest()).out
    assert "write bundle.toml as generation 2" in said
    assert "signed by keys/ours.pub" in said
    assert "unpack" not in said
    shop.box.settled()


def test_a_key_that_is_no_longer_trusted(shop: Loopback) -> None:
    shop.sign(OURS)
    shop.box.appbox("apply", shop.manifest())
    said = shop.box.appbox("plan", shop.manifest(signed_by=("keys/theirs.pub",)), code=6).err
    assert "by another key" in said


def test_a_silent_registry_and_an_installed_image(shop: Loopback) -> None:
    shop.sign(OURS)
    path = shop.manifest()
    shop.box.appbox("apply", path)
    shop.registry.break_next("manifests", *[faulty.status(503)] * 50)
    result = shop.box.appbox("plan", path)
    assert result.out == "nothing to do\n"
    assert "did not answer" in result.err
    tightened = shop.manifest(signed_by=("keys/theirs.pub",))
    shop.registry.break_next("manifests", *[faulty.status(503)] * 50)
    shop.box.appbox("plan", tightened, code=5)


def test_one_image_and_two_policies(shop: Loopback) -> None:
    shop.manifest(name="easy", policy=None)
    shop.manifest(name="strict")
    assert "the image is not signed" in shop.box.appbox("plan", shop.box.services, code=6).err
    shop.sign(OURS)
    shop.registry.requests.clear()
    said = shop.box.appbox("--json", "plan", shop.box.services).data()
    assert set(said["signed_by"]) == {"strict"}
    assert len(shop.registry.seen("HEAD", "/manifests/1.0")) == 1
    shop.box.appbox("apply", shop.box.services)


def test_a_moved_tag_needs_a_signature_of_its_own(shop: Loopback) -> None:
    shop.sign(OURS)
    path = shop.manifest()
    shop.box.appbox("apply", path)
    shop.box.image("1.0", *members(b"other"))
    assert "the image is not signed" in shop.box.appbox("apply", path, code=6).err
    assert shop.box.current().name == "web-1.0"
    shop.sign(OURS)
    shop.box.appbox("apply", path)
    shop.box.settled()


def test_registries_and_pins_are_judged_before_anything_is_asked(shop: Loopback) -> None:
    said = shop.refused("plan", shop.manifest(policy={"registries": ["docker.io/team", f"{shop.host}/tea"]}))
    assert "the image is not from an allowed registry" in said
    assert f"{shop.box.services}/web.toml allows docker.io/team, {shop.host}/tea" in said
    said = shop.refused("apply", shop.manifest(policy={"require_digest": True}))
    assert "not pinned to a digest" in said
    assert not shop.registry.requests
    pinned = {"registries": [f"{shop.host}/team"], "require_digest": True}
    shop.box.appbox("apply", shop.manifest(policy=pinned, digest=shop.digest))


def test_the_policy_of_the_host_can_only_demand_more(shop: Loopback) -> None:
    path = shop.host_policy('signed_by = ["keys/host.pub"]\n')
    THEIRS.write(path.parent / "keys/host.pub")
    shop.sign(OURS)
    said = shop.refused("apply", shop.manifest())
    assert "/etc/appbox/policy.toml wants one by /etc/appbox/keys/host.pub" in said
    shop.refused("plan", shop.manifest(policy=None))
    shop.sign(OURS, THEIRS)
    said = shop.box.appbox("apply", shop.manifest()).out
    assert "signed by /etc/appbox/keys/host.pub" in said
    assert "signed by keys/ours.pub" in said


def test_the_host_may_refuse_what_it_does_not_name(shop: Loopback) -> None:
    shop.host_policy('default = "refuse"\n[[image]]\nprefix = "docker.io"\n')
    assert "names no such image" in shop.refused("plan", shop.manifest(policy=None))
    shop.host_policy(f'default = "refuse"\n[[image]]\nprefix = "{shop.host}/team"\n')
    shop.box.appbox("apply", shop.manifest(policy=None))


@pytest.mark.parametrize("fault", ["writable", "owner", "directory", "broken"])
def test_a_policy_of_the_host_that_cannot_be_trusted(shop: Loopback, fault: str) -> None:
    path = shop.host_policy('registries = ["docker.io"]\n' if fault != "broken" else "registries = 3\n")
    match fault:
        case "writable":
            path.chmod(0o666)
        case "owner":
            os.chown(path, 1000, 1000)
        case "directory":
            path.parent.chmod(0o777)
    said = shop.refused("plan", shop.manifest(policy=None), code=3 if fault == "broken" else 6)
    assert "/etc/appbox" in said
    assert ("could change" in said) is (fault != "broken")


def test_a_user_who_may_not_read_the_policy_gets_no_image() -> None:
    with tempfile.TemporaryDirectory(prefix="policy-") as place:  # which a user may enter, unlike pytest's
        Path(place).chmod(0o755)
        shop = Shop(Sandbox(Path(place)), "127.0.0.1:1")
        shop.host_policy("require_digest = true\n").chmod(0o600)
        os.chown(shop.box.root, NOBODY, NOBODY)
        said = shop.box.appbox_as_nobody("plan", shop.manifest(policy=None), code=1).err
        assert "policy.toml: cannot be read: Permission denied" in said


# The image tool


def test_unpacking_asks_the_host_and_the_file(shop: Loopback) -> None:
    box, out = shop.box, shop.box.place / "out"
    before = sorted(os.listdir(box.place))
    policy = box.services / "policy.toml"
    policy.write_text('signed_by = ["keys/ours.pub"]\n')
    source = f"docker://{shop.name}:1.0"
    said = shop.refused("image", "unpack", "--policy", policy, source, out)
    assert "the image is not signed" in said
    assert f"{policy} wants a signature by keys/ours.pub" in said
    assert sorted(os.listdir(box.place)) == before
    assert shop.kept() == []
    shop.sign(OURS)
    host = shop.host_policy("require_digest = true\n")
    assert "not pinned" in shop.refused("image", "unpack", "--policy", policy, source, out)
    box.appbox("image", "unpack", "--policy", policy, f"docker://{shop.name}@{shop.digest}", out)
    assert (out / "bin/app").is_file()
    host.unlink()
    box.appbox("image", "inspect", source)


@pytest.mark.parametrize("file", ["", "missing.toml"])
def test_a_policy_that_is_not_there_is_an_error(shop: Loopback, file: str) -> None:
    shop.refused("image", "unpack", "--policy", file, f"docker://{shop.name}:1.0", shop.box.place / "out", code=1)
    assert not shop.registry.requests


def test_layouts_hold_their_signatures(shop: Loopback) -> None:
    box = shop.box
    path = box.manifest(policy={"signed_by": ["keys/ours.pub"]})
    assert "the image is not signed" in shop.refused("apply", path)
    shop.sign(OURS, reference="docker.io/whatever/else")
    shutil.rmtree(box.images)
    box.content.write_layout(str(box.images))
    box.appbox("apply", path)
    box.settled()
    packed = archive(str(box.images), str(box.place / "images.tar"))
    box.appbox("apply", box.manifest(image=f"oci-archive:{packed}", policy={"signed_by": ["keys/ours.pub"]}))
    box.settled()


@pytest.mark.parametrize("every", [False, True])
def test_copying_asks_before_anything_is_written(shop: Loopback, every: bool) -> None:
    box, content = shop.box, shop.box.content
    machine = {"os": "linux", "architecture": Platform.host(os.uname().machine).architecture}
    index = content.index("1.0", {**content.image("x"), "platform": machine})["digest"]
    shop.host_policy('signed_by = ["ours.pub"]\n')
    OURS.write(box.root / "etc/appbox/ours.pub")
    words = ["image", "copy", *(["--all"] if every else []), f"docker://{shop.name}:1.0"]
    out = box.place / "copy"
    for target in (f"oci:{out}", f"oci-archive:{out}", f"docker-archive:{out}", f"docker://{shop.host}/other:1"):
        said = shop.refused(*words, target)
        assert "the image is not signed" in said
        assert not out.exists()
        assert not [r for r in shop.registry.requests if r.method not in ("GET", "HEAD")]
    shop.sign(OURS, digest=index)
    box.appbox(*words, f"oci:{out}:1")
    assert (out / "index.json").is_file()


def test_a_docker_archive_cannot_be_signed_and_is_refused_in_words(shop: Loopback) -> None:
    box, packed = shop.box, shop.box.place / "web.tar"
    box.appbox("image", "copy", f"oci:{box.images}:1.0", f"docker-archive:{packed}:web:1.0")
    policy = {"signed_by": ["keys/ours.pub"]}
    said = shop.refused("plan", box.manifest(image=f"docker-archive:{packed}:web:1.0", policy=policy))
    assert "this kind of file can hold none; take it from a registry or an oci: layout" in said


def test_images_in_files_are_judged_by_their_path(shop: Loopback) -> None:
    box = shop.box
    shop.host_policy(f'default = "refuse"\nregistries = ["oci:{box.place}/trusted"]\n')
    assert "is not from an allowed registry" in shop.refused("apply", box.manifest())
    shop.host_policy(f'registries = ["oci:{box.images}"]\n')
    box.appbox("apply", box.manifest())


def test_a_mirrored_image_is_judged_by_its_own_name(shop: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    conf = shop.box.place / "registries.conf"
    conf.write_text(f'[[registry]]\nprefix = "example.invalid/team"\nlocation = "{shop.name.rpartition("/")[0]}"\n')
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(conf))
    shop.sign(OURS, reference="example.invalid/team/web")
    policy = {"registries": ["example.invalid/team"], "signed_by": ["keys/ours.pub"]}
    shop.box.appbox("apply", shop.box.manifest(image="example.invalid/team/web", policy=policy))
    shop.box.settled()


def test_a_refusal_is_json_too(shop: Loopback) -> None:
    result = shop.box.appbox("--json", "plan", shop.manifest(), code=6)
    assert '"exit": 6' in result.out + result.err
    assert '"what": "the image is not signed"' in result.out + result.err


def test_help_says_what_a_policy_is_for(shop: Loopback) -> None:
    for command in ("unpack", "copy"):
        said = " ".join(shop.box.appbox("image", command, "--help", root=False).out.split())
        assert "--policy FILE A policy that the image must satisfy, beside the host's own." in said


# The real registry


@pytest.fixture
def real(tmp_path: Path) -> Iterator[tuple[Shop, RealRegistry]]:
    with registry.start(str(tmp_path / "registry")) as started:
        (tmp_path / "box").mkdir()
        shop = Shop(Sandbox(tmp_path / "box"), started.host)
        started.push(f"oci:{shop.box.images}:1.0", "team/web:1.0")
        yield shop, started


def push(shop: Shop, started: RealRegistry, tag: str) -> None:
    shutil.rmtree(shop.box.images)
    shop.box.content.write_layout(str(shop.box.images))
    started.push(f"oci:{shop.box.images}:{tag}", f"team/web:{tag}", "--preserve-digests")


@pytest.mark.registry
def test_a_signature_in_a_real_registry(real: tuple[Shop, RealRegistry]) -> None:
    shop, started = real
    assert "the image is not signed" in shop.refused("apply", shop.manifest())
    push(shop, started, shop.sign(THEIRS))
    assert "by another key" in shop.refused("apply", shop.manifest())
    push(shop, started, shop.sign(THEIRS, OURS))
    shop.box.appbox("apply", shop.manifest())
    shop.box.settled()


@pytest.mark.registry
@pytest.mark.parametrize("kind", ["p256", "p384", "rsa"])
def test_what_openssl_signs_with_keys_of_openssl(real: tuple[Shop, RealRegistry], kind: str) -> None:
    shop, started = real
    folder = shop.box.place
    private, payload = folder / "k.pem", folder / "payload"
    make = {
        "p256": ("EC", "ec_paramgen_curve:P-256"), "p384": ("EC", "ec_paramgen_curve:P-384"),
        "rsa": ("RSA", "rsa_keygen_bits:3072"),
    }[kind]  # fmt: skip
    registry.run("openssl", "genpkey", "-algorithm", make[0], "-pkeyopt", make[1], "-out", str(private))
    registry.run("openssl", "pkey", "-in", str(private), "-pubout", "-out", f"{shop.box.services}/keys/ssl.pub")
    payload.write_bytes(cosign.claim(shop.digest, shop.name))
    signed = registry.run("openssl", "dgst", "-sha256", "-sign", str(private), str(payload))
    layer = cosign.signature(shop.box.content, payload.read_bytes(), signed)
    push(shop, started, cosign.attach(shop.box.content, shop.digest, layer))
    der = registry.run("openssl", "pkey", "-pubin", "-in", f"{shop.box.services}/keys/ssl.pub", "-outform", "DER")
    said = shop.box.appbox("--json", "plan", shop.manifest(signed_by=("keys/ssl.pub",))).data()
    assert said["signed_by"]["web"][0]["fingerprint"] == f"sha256:{hashlib.sha256(der).hexdigest()}"


# Without the package that verifies

WITHOUT = "import sys; sys.modules['cryptography'] = None; from appbox.cli import main; main()"


def test_without_cryptography_a_demanded_signature_is_not_passed_over(shop: Loopback) -> None:
    shop.sign(OURS)
    words = [sys.executable, "-c", WITHOUT, *shop.box.command("plan", shop.manifest())[len(APPBOX) :]]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 8, done
    assert done.stderr.startswith("appbox: signatures of images cannot be verified: the Python package cryptography")
    assert "pip install 'appbox[signatures]'" in done.stderr
    assert shop.kept() == []
    shop.box.appbox("apply", shop.manifest())
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert (done.returncode, done.stdout) == (0, "nothing to do\n"), "what was verified stays verified"


def test_going_back_asks_the_policy_of_now_and_no_registry(shop: Loopback) -> None:
    first = shop.digest
    shop.sign(OURS)
    shop.box.appbox("apply", shop.manifest(policy=None))
    shop.box.image("2.0", *members(b"2"))
    second = shop.box.content.tags["2.0"]
    shop.sign(OURS, digest=second)
    shop.box.appbox("apply", shop.manifest(version="2.0", policy=None))
    asked = len(shop.registry.requests)
    path = shop.host_policy('registries = ["docker.io"]\n')
    for words in (("rollback", "web"), ("rollback", "--plan", "web")):
        said = shop.refused(*words)
        assert said.startswith("appbox: generation 1 of web: the image is not from an allowed registry: ")
        assert f"{shop.name}: /etc/appbox/policy.toml allows docker.io" in said
    # A signature that nobody looked for at that time is not looked for now.
    shop.host_policy('signed_by = ["keys/host.pub"]\n')
    OURS.write(path.parent / "keys/host.pub")
    assert "the image is not signed" in shop.refused("rollback", "web")
    assert len(shop.registry.requests) == asked
    # What was found once counts, whatever was installed with it.
    shop.box.appbox("apply", shop.manifest(policy=None))
    shop.box.appbox("apply", shop.manifest(version="2.0", policy=None))
    asked = len(shop.registry.requests)
    shop.box.appbox("rollback", "web")
    assert len(shop.registry.requests) == asked
    assert first in (shop.box.current() / "bundle.toml").read_text()
    THEIRS.write(path.parent / "keys/host.pub")
    assert "the image is not signed" in shop.refused("rollback", "web", "--to", "2.0")
