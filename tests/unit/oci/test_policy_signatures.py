"""What a signature's manifest and payload may be, and the search for one beside an image."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from appbox.admission import Demands, Policies
from appbox.errors import AppboxError, Refused
from appbox.oci import evidence, public_key, simple_signing
from appbox.oci.cache import Cache
from appbox.oci.digest import Digest
from appbox.oci.held import Held
from appbox.oci.model import OCI_INDEX, OCI_MANIFEST, Image, Platform
from appbox.oci.reference import OciLayout
from appbox.oci.signature import made_by
from appbox.oci.source import Source, open_source
from appbox.policy import Demand, PolicyFile, Signer
from tests.ground import cosign
from tests.ground.tiny import Content

AMD64 = Platform("linux", "amd64")
OURS, THEIRS = cosign.key(), cosign.key()
DIGEST = "sha256:" + "ab" * 32


def parsed(*layers: dict[str, Any], media_type: str = OCI_MANIFEST, **changes: Any) -> list[simple_signing.Signature]:
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": DIGEST, "size": 2}
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": list(layers), **changes}
    return simple_signing.parse_signatures(json.dumps(manifest).encode(), media_type)


def listed(size: int = 100, signed: str = "QUJD", kind: str = cosign.PAYLOAD) -> dict[str, Any]:
    return {"mediaType": kind, "digest": DIGEST, "size": size, "annotations": {cosign.ANNOTATION: signed}}


def test_signatures_are_read_from_layers_of_their_kind() -> None:
    found = parsed(
        listed(), listed(kind="application/x-other"), {k: v for k, v in listed().items() if k != "annotations"}
    )
    assert [(one.signature, one.payload.size) for one in found] == [(b"ABC", 100)]


@pytest.mark.parametrize(
    "layer", [listed(signed="QUJ"), listed(signed="!!!!"), listed(signed="QUJD" * 5000), listed(size=(64 << 10) + 1)]
)
def test_what_cannot_be_a_signature_is_passed_over(layer: dict[str, Any]) -> None:
    assert parsed(layer) == []


@pytest.mark.parametrize(
    ("layers", "changes", "words"),
    [
        ([listed()] * 129, {}, "129 signatures"),
        ([], {"manifests": []}, "could be read in two ways"),
        ([], {"mediaType": OCI_INDEX}, "not what it is called"),
        ([], {"note": "x" * (1 << 20)}, "larger than"),
        ([], {"layers": None}, "is missing"),
        ([], {"schemaVersion": 1}, "schema 1"),
        ([{"mediaType": cosign.PAYLOAD, "digest": "md5:00", "size": 1}], {}, "digest"),
    ],
)
def test_a_manifest_that_is_none_is_refused(layers: list[dict[str, Any]], changes: dict[str, Any], words: str) -> None:
    with pytest.raises(Refused, match=words):
        parsed(*layers, **changes)


def test_an_index_in_the_place_of_signatures_is_refused() -> None:
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode()
    with pytest.raises(Refused, match="an index stands"):
        simple_signing.parse_signatures(index, OCI_INDEX)


def test_what_cosign_signs_is_understood() -> None:
    claim = simple_signing.parse_claim(cosign.claim(DIGEST, "index.docker.io/valkey/valkey"))
    assert (claim.digest, claim.reference) == (DIGEST, "index.docker.io/valkey/valkey")
    assert simple_signing.repository(claim.reference) == "docker.io/valkey/valkey"
    assert simple_signing.repository("ghcr.io/a/b:1@" + DIGEST) == "ghcr.io/a/b"
    assert simple_signing.repository("no/such registry") == "no/such registry"


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"", "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "no signature|type"),
        (cosign.claim(DIGEST, type="atomic container signature"), "atomic"),
        (cosign.claim(DIGEST, more=1), "unknown key"),
        (cosign.claim(DIGEST, image={"docker-manifest-digest": 3}), "a string"),
        (cosign.claim(DIGEST, image={}), "docker-manifest-digest"),
        (cosign.claim(DIGEST, image={"docker-manifest-digest": DIGEST, "Docker-Manifest-Digest": "x"}), "unknown key"),
        (cosign.claim(DIGEST, identity={"docker-reference": ["x"]}), "a string"),
        (cosign.claim(DIGEST)[:-1] + b', "critical": {}}', "twice"),
        (cosign.claim(DIGEST, "x" * 70_000), "larger"),
    ],
)
def test_other_payloads_are_refused(payload: bytes, words: str) -> None:
    with pytest.raises(Refused, match=words):
        simple_signing.parse_claim(payload)


def test_a_digest_too_long_for_a_tag_cannot_be_signed() -> None:
    assert simple_signing.tag(Digest.parse(DIGEST)) == f"sha256-{'ab' * 32}.sig"
    with pytest.raises(Refused, match="sha512"):
        simple_signing.tag(Digest("sha512", "ab" * 64))


# The search


class Place:
    """A layout with one image, and a cache."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.content = folder, Content()
        self.digest = str(self.content.image("1")["digest"])
        self.cache = Cache(str(folder / "cache"))

    def demands(self, *keys: cosign.Key, signed_as: str = "") -> Demands:
        wanted = tuple(public_key.parse(key.pem, f"{n}.pub") for n, key in enumerate(keys))
        return Demands(f"oci:{self.folder}/layout", (Demand("web.toml", signed_by=wanted, signed_as=signed_as),))

    def verify(self, demands: Demands) -> tuple[Signer, ...]:
        shutil.rmtree(self.folder / "layout", ignore_errors=True)
        self.content.write_layout(str(self.folder / "layout"))
        held = Held(self.cache)
        with open_source(OciLayout(str(self.folder / "layout"), None), held) as source:
            image = self.resolve(source)
            found = demands.verify(source, image.reference, (image.index_digest, image.digest), self.cache)
        held.keep()
        return found

    def resolve(self, source: Source) -> Image:
        return source.resolve("1", None, AMD64)

    def refused(self, *keys: cosign.Key, signed_as: str = "") -> str:
        with pytest.raises(Refused) as error:
            self.verify(self.demands(*keys, signed_as=signed_as))
        assert not (self.folder / "cache").exists(), "something of a refused image was kept"
        assert error.value.exit_code == 6
        return str(error.value)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_signed_image_is_taken_and_its_signer_named(place: Place) -> None:
    cosign.sign(place.content, place.digest, THEIRS, OURS, reference="docker.io/valkey/valkey")
    signer = place.verify(place.demands(OURS))[0]
    assert (signer.key, signer.digest, signer.name) == ("0.pub", place.digest, "docker.io/valkey/valkey")
    assert signer.fingerprint == public_key.parse(OURS.pem, "").fingerprint
    assert place.cache.has(Digest.parse(place.digest))


def test_any_of_several_keys_is_enough(place: Place) -> None:
    cosign.sign(place.content, place.digest, OURS)
    assert place.verify(place.demands(THEIRS, OURS))[0].key == "1.pub"


def test_every_demand_has_to_be_satisfied(place: Place) -> None:
    cosign.sign(place.content, place.digest, OURS)
    demands = Demands("oci:x", place.demands(OURS).every + place.demands(THEIRS).every)
    with pytest.raises(Refused, match="by another key"):
        place.verify(demands)
    assert not (place.folder / "cache").exists()


def test_what_was_saved_by_cosign_is_found(place: Place) -> None:
    name = cosign.sign(place.content, place.digest, OURS)
    place.content.write_layout(str(place.folder / "layout"))
    path = place.folder / "layout/index.json"
    index = json.loads(path.read_text())
    for entry in index["manifests"]:
        kind = "sigs" if entry["annotations"]["org.opencontainers.image.ref.name"] == name else "image"
        entry["annotations"] = {"kind": f"dev.cosignproject.cosign/{kind}"}
    path.write_text(json.dumps(index))
    with open_source(OciLayout(str(place.folder / "layout"), None), place.cache) as source:
        image = source.resolve(None, None, AMD64)
        assert place.demands(OURS).verify(source, image.reference, (image.digest,), place.cache)


def test_signatures_do_not_make_a_layout_ambiguous(place: Place) -> None:
    cosign.sign(place.content, place.digest, OURS)
    place.content.write_layout(str(place.folder / "layout"))
    with open_source(OciLayout(str(place.folder / "layout"), None), place.cache) as source:
        assert str(source.resolve(None, None, AMD64).digest) == place.digest


@pytest.mark.parametrize("over", ["index", "manifest"])
def test_the_index_or_the_manifest_may_be_signed(place: Place, over: str) -> None:
    index = place.content.index("1", {**place.content.image(), "digest": place.digest})
    cosign.sign(place.content, index["digest"] if over == "index" else place.digest, OURS)
    assert place.verify(place.demands(OURS))[0].digest == (index["digest"] if over == "index" else place.digest)


def test_unsigned(place: Place) -> None:
    said = place.refused(OURS)
    assert "the image is not signed" in said
    assert cosign.tag(place.digest) in said
    assert "0.pub" in said
    assert "web.toml" in said


def test_signed_by_somebody_else(place: Place) -> None:
    cosign.sign(place.content, place.digest, THEIRS)
    assert "by another key" in place.refused(OURS)


def test_a_signature_of_another_image(place: Place) -> None:
    other = str(place.content.image("2", config={"Cmd": ["/bin/false"]})["digest"])
    payload = cosign.claim(other)
    cosign.attach(place.content, place.digest, cosign.signature(place.content, payload, OURS.sign(payload)))
    assert f"for another image, {other}" in place.refused(OURS)


def test_a_payload_that_was_exchanged_under_a_good_signature(place: Place) -> None:
    good, bad = cosign.claim("sha256:" + "0" * 64), cosign.claim(place.digest)
    cosign.attach(place.content, place.digest, cosign.signature(place.content, bad, OURS.sign(good)))
    assert "by another key" in place.refused(OURS)


def test_a_signed_thing_that_is_no_claim(place: Place) -> None:
    payload = json.dumps({"message": place.digest}).encode()
    cosign.attach(place.content, place.digest, cosign.signature(place.content, payload, OURS.sign(payload)))
    assert "is refused" in place.refused(OURS)


@pytest.mark.parametrize("payload", [b"", b"\xff" * 10, b"x" * 60_000])
def test_junk_that_is_signed_well(place: Place, payload: bytes) -> None:
    cosign.attach(place.content, place.digest, cosign.signature(place.content, payload, OURS.sign(payload)))
    assert "is refused" in place.refused(OURS)


def test_a_wrong_media_type_of_the_payload(place: Place) -> None:
    payload = cosign.claim(place.digest)
    layer = cosign.signature(place.content, payload, OURS.sign(payload), kind="application/json")
    cosign.attach(place.content, place.digest, layer)
    assert "holds no signature" in place.refused(OURS)


def test_a_damaged_payload_does_not_hide_a_good_signature(place: Place) -> None:
    bad = cosign.signature(place.content, b"{}", b"x")
    payload = cosign.claim(place.digest)
    cosign.attach(place.content, place.digest, bad, cosign.signature(place.content, payload, OURS.sign(payload)))
    place.content.blobs[bad["digest"]] = b"[]"
    assert place.verify(place.demands(OURS))


def test_only_a_damaged_payload(place: Place) -> None:
    cosign.sign(place.content, place.digest, OURS)
    layer = next(d for d in place.content.blobs if b"critical" in place.content.blobs[d])
    place.content.blobs[layer] = place.content.blobs[layer].replace(b"null", b"true")
    assert "one is damaged" in place.refused(OURS)


def test_an_index_where_signatures_should_be(place: Place) -> None:
    place.content.index(cosign.tag(place.digest), place.content.image("1"))
    assert "is refused" in place.refused(OURS)


def test_the_image_itself_where_signatures_should_be(place: Place) -> None:
    place.content.tags[cosign.tag(place.digest)] = place.digest
    assert "holds no signature" in place.refused(OURS)


def test_too_many_signatures(place: Place) -> None:
    payload = cosign.claim(place.digest)
    layers = [cosign.signature(place.content, payload, OURS.sign(payload)) for _ in range(129)]
    cosign.attach(place.content, place.digest, *layers)
    assert "129 signatures" in place.refused(OURS)


def test_a_copied_image_needs_the_name_that_was_signed(place: Place) -> None:
    cosign.sign(place.content, place.digest, OURS, reference="docker.io/valkey/valkey")
    assert "not docker.io/redis" in place.refused(OURS, signed_as="docker.io/redis")
    assert place.verify(place.demands(OURS, signed_as="docker.io/valkey"))[0].name == "docker.io/valkey/valkey"


def test_a_key_that_is_none_is_no_unsigned_image(place: Place) -> None:
    key = public_key.parse(OURS.pem, "0.pub")
    off = public_key.PublicKey("0.pub", key.kind, key.der[:-1] + bytes([key.der[-1] ^ 1]))
    cosign.sign(place.content, place.digest, OURS)
    with pytest.raises(Refused, match=r"key 0\.pub is not a public key"):
        place.verify(Demands("oci:x", (Demand("web.toml", signed_by=(off,)),)))


def test_a_source_that_can_hold_no_signature_is_refused(place: Place) -> None:
    with pytest.raises(Refused, match="can hold none"):
        place.demands(OURS).verify(object(), "docker-archive:x", (Digest.parse(place.digest),), place.cache)


def test_policies_say_what_is_demanded_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    policies = Policies((PolicyFile("p", registries=(f"oci:{tmp_path}/real",)),))
    assert policies.demands(OciLayout("link"), pinned=False, base_dir=str(tmp_path)).name == f"oci:{tmp_path}/real"
    with pytest.raises(Refused, match="allowed registry"):
        policies.demands(OciLayout("/elsewhere"), pinned=False)


def test_no_byte_of_what_is_signed_can_change() -> None:
    payload = cosign.claim(DIGEST, "docker.io/valkey/valkey")
    key, signed = public_key.parse(OURS.pem, ""), OURS.sign(payload)
    assert made_by(key, signed, payload)
    for n in range(len(payload)):
        assert not made_by(key, signed, payload[:n])
        assert not made_by(key, signed, payload[:n] + bytes([payload[n] ^ 0x20]) + payload[n + 1 :])
    for n in range(len(signed)):
        assert not made_by(key, signed[:n], payload)
        assert not made_by(key, signed[:n] + bytes([signed[n] ^ 1]) + signed[n + 1 :], payload)
    assert not made_by(key, signed + b"\0", payload)


# What is kept


def test_evidence_is_kept_and_read_back(tmp_path: Path) -> None:
    cache, digest = Cache(str(tmp_path / "cache")), Digest.parse(DIGEST)
    assert evidence.load(cache, digest) == []
    evidence.save(cache, digest, (b"s", b"p"))
    evidence.save(cache, digest, (b"s", b"p"))
    evidence.save(cache, digest, (b"t", b"p"))
    assert evidence.load(cache, digest) == [(b"t", b"p"), (b"s", b"p")]
    assert [path.name for path in (tmp_path / "cache/signatures").iterdir()] == [f"sha256-{'ab' * 32}"]


@pytest.mark.parametrize(
    "text", ["", "{}", '{"signatures": 3}', '{"signatures": [["QQ=="]]}', '{"signatures": [["!", ""]]}']
)
def test_damaged_evidence_is_none(tmp_path: Path, text: str) -> None:
    cache, digest = Cache(str(tmp_path)), Digest.parse(DIGEST)
    (tmp_path / "signatures").mkdir()
    (tmp_path / f"signatures/sha256-{'ab' * 32}").write_text(text)
    assert evidence.load(cache, digest) == []


def test_documents_are_held_until_they_are_kept(tmp_path: Path) -> None:
    cache = Cache(str(tmp_path / "cache"))
    held, data = Held(cache), b"{}"
    digest = Digest.of(data)
    held.put(digest, data)
    assert (held.has(digest), held.document(digest), cache.has(digest)) == (True, data, False)
    with pytest.raises(AppboxError):
        held.put(digest, b"[]")
    held.keep()
    assert cache.document(digest) == data
