"""Our faulty registry, with its faults off, against the real docker-registry: the same requests, the same answers.

What the client is tested with is a registry only if it answers as one. Each case asks both for the same and compares
status, the headers that the distribution specification gives a meaning, and bodies.
"""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.ground import faulty
from tests.ground import registry as ground
from tests.ground.faulty import Faulty
from tests.ground.tiny import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, Content, sha256

pytestmark = pytest.mark.registry

BLOB = bytes(range(256)) * 40
SHOWN = ("content-type", "content-length", "docker-content-digest", "content-range", "location", "range", "link")
NOTHING = f"sha256:{'0' * 64}"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["errors"][0]["code"])


class Peer:
    """A registry under test. `ask` sends one request over a connection of its own."""

    def __init__(self, host: str) -> None:
        self.host = host

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        host, _, port = self.host.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=10)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, body, named)
            response = connection.getresponse()
            shown = {name.lower(): value for name, value in response.getheaders() if name.lower() in SHOWN}
            try:
                return Answer(response.status, shown, response.read())
            except http.client.IncompleteRead as error:  # the real one announces the whole blob with its 416
                return Answer(response.status, shown, error.partial)
        finally:
            connection.close()

    def place(self, answer: Answer) -> str:
        """The path in a Location, which may be absolute."""
        return answer.headers["location"].removeprefix(f"http://{self.host}")

    def begin(self, repository: str = "a/b", query: str = "") -> str:
        answer = self.ask("POST", f"/v2/{repository}/blobs/uploads/{query}", b"")
        assert answer.status == 202
        return self.place(answer)

    def push(self, data: bytes, repository: str = "a/b") -> str:
        place = self.begin(repository)
        done = self.ask("PUT", f"{place}{joint(place)}digest={sha256(data)}", data, **binary())
        assert done.status == 201
        return sha256(data)

    def manifest(self, tag: str, repository: str = "a/b") -> str:
        config = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'
        described = [{"mediaType": kind, "digest": self.push(data, repository), "size": len(data)}
                     for kind, data in ((OCI_CONFIG, config), (OCI_LAYER, BLOB))]  # fmt: skip
        document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described[0], "layers": described[1:]}
        data = json.dumps(document).encode()
        answer = self.ask("PUT", f"/v2/{repository}/manifests/{tag}", data, Content_Type=OCI_MANIFEST)
        assert answer.status == 201
        return sha256(data)


def binary() -> dict[str, str]:
    return {"Content_Type": "application/octet-stream"}


def joint(place: str) -> str:
    return "&" if "?" in place else "?"


@pytest.fixture(scope="module")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Peer, Peer]]:
    """The real one, and ours; each with an image and some tags."""
    registry = Faulty(Content())
    folder = str(tmp_path_factory.mktemp("registry"))
    with ground.start(folder) as real, faulty.serve(registry) as host:
        registry.uploads.others["other/repository"] = Content()
        pair = (Peer(real.host), Peer(host))
        for peer in pair:
            for tag in ("1", "2", "3", "latest", "v1.0"):
                peer.manifest(tag)
            peer.push(b"to be mounted", "other/repository")
        registry.uploads.others["other/repository"].blob(b"to be mounted", OCI_LAYER)
        yield pair


def alike(peers: tuple[Peer, Peer], ask: Callable[[Peer], Answer], *headers: str, body: bool = True) -> Answer:
    """Ask both, compare what matters and return the answer."""
    real, ours = (ask(peer) for peer in peers)
    assert ours.status == real.status
    for name in headers:
        assert (name in ours.headers) == (name in real.headers), name
        theirs = [
            _neutral(answer.headers.get(name, ""), peer) for answer, peer in zip((real, ours), peers, strict=True)
        ]
        assert theirs[1] == theirs[0], name
    if real.status >= 400 and real.body:
        assert ours.code == real.code
    elif body:
        assert ours.body == real.body
    return ours


def _neutral(value: str, peer: Peer) -> str:
    """Leave out what each makes up: its host, session names and their state."""
    value = value.removeprefix(f"http://{peer.host}")
    return re.sub(r"/uploads/[^?]*\?.*", "/uploads/SESSION", value)


def test_the_base(peers: tuple[Peer, Peer]) -> None:
    answer = alike(peers, lambda peer: peer.ask("GET", "/v2/"), "content-length", body=False)
    assert answer.status == 200


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("by_digest", [False, True])
def test_a_manifest(peers: tuple[Peer, Peer], method: str, by_digest: bool) -> None:
    digest = peers[0].ask("HEAD", "/v2/a/b/manifests/1", Accept=OCI_MANIFEST).headers["docker-content-digest"]
    path = f"/v2/a/b/manifests/{digest if by_digest else '1'}"
    answer = alike(
        peers,
        lambda peer: peer.ask(method, path, Accept=f"{OCI_INDEX}, {OCI_MANIFEST}"),
        "content-type",
        "content-length",
        "docker-content-digest",
    )
    assert answer.status == 200


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v2/a/b/manifests/none", "MANIFEST_UNKNOWN"),
        (f"/v2/a/b/manifests/{NOTHING}", "MANIFEST_UNKNOWN"),
        (f"/v2/a/b/blobs/{NOTHING}", "BLOB_UNKNOWN"),
    ],
)
def test_what_is_not_there(peers: tuple[Peer, Peer], method: str, path: str, code: str) -> None:
    real, ours = (peer.ask(method, path) for peer in peers)
    assert ours.status == real.status == 404
    if method == "GET":
        assert ours.code == real.code == code


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_blob(peers: tuple[Peer, Peer], method: str) -> None:
    path = f"/v2/a/b/blobs/{sha256(BLOB)}"
    answer = alike(
        peers, lambda peer: peer.ask(method, path), "content-type", "content-length", "docker-content-digest"
    )
    assert answer.status == 200


@pytest.mark.parametrize("start", [0, 1, 5000, len(BLOB) - 1, len(BLOB), len(BLOB) + 1])
def test_a_part_of_a_blob(peers: tuple[Peer, Peer], start: int) -> None:
    path = f"/v2/a/b/blobs/{sha256(BLOB)}"
    real, ours = (peer.ask("GET", path, Range=f"bytes={start}-") for peer in peers)
    assert ours.status == real.status == (206 if start < len(BLOB) else 416)
    if start < len(BLOB):
        assert ours.body == real.body == BLOB[start:]
        assert ours.headers == real.headers


def test_tags(peers: tuple[Peer, Peer]) -> None:
    """The real one of Debian 12 knows no pages and no order of tags; both are in the specification."""
    real, ours = (peer.ask("GET", "/v2/a/b/tags/list") for peer in peers)
    assert ours.status == real.status == 200
    assert ours.headers["content-type"] == real.headers["content-type"].partition(";")[0]
    documents = [json.loads(answer.body) for answer in (real, ours)]
    assert documents[1]["name"] == documents[0]["name"]
    assert documents[1]["tags"] == sorted(documents[0]["tags"]) == ["1", "2", "3", "latest", "v1.0"]
    nowhere = [peer.ask("GET", "/v2/no/such/tags/list") for peer in peers]
    assert [answer.status for answer in nowhere] == [404, 404]
    assert [answer.code for answer in nowhere] == ["NAME_UNKNOWN"] * 2


@pytest.mark.parametrize(
    ("query", "pages"),
    [
        ("", [["1", "2", "3", "latest", "v1.0"]]),
        ("?n=2", [["1", "2"], ["3", "latest"], ["v1.0"]]),
        ("?n=2&last=2", [["3", "latest"], ["v1.0"]]),
        ("?n=5", [["1", "2", "3", "latest", "v1.0"]]),
        ("?last=latest", [["v1.0"]]),
        ("?last=zzz", [[]]),
    ],
)
def test_the_pages_of_tags(peers: tuple[Peer, Peer], query: str, pages: list[list[str]]) -> None:
    """ "Listing Tags": lexical order, `n` and `last`, and a Link in the form in which the real one links catalogs."""
    found, path = [], f"/v2/a/b/tags/list{query}"
    while path:
        answer = peers[1].ask("GET", path)
        found.append(json.loads(answer.body)["tags"])
        match = re.fullmatch(r"<([^>]*)>; rel=\"next\"", answer.headers.get("link", ""))
        path = match[1] if match else ""
    assert found == pages
    links = [peers[0].ask("GET", "/v2/_catalog?n=1"), peers[1].ask("GET", "/v2/a/b/tags/list?n=1")]
    shapes = [
        re.sub(r"last=[^&]*", "last=X", link.headers["link"].replace("a/b/tags/list", "_catalog")) for link in links
    ]
    assert shapes[1] == shapes[0]


def test_an_upload_whole(peers: tuple[Peer, Peer]) -> None:
    data = b"in one piece"
    begun = alike(peers, lambda peer: peer.ask("POST", "/v2/a/b/blobs/uploads/", b""), "location", "range")
    assert begun.status == 202

    def put(peer: Peer) -> Answer:
        place = peer.begin()
        return peer.ask("PUT", f"{place}{joint(place)}digest={sha256(data)}", data, **binary())

    assert alike(peers, put, "location", "docker-content-digest", "content-length").status == 201
    answer = alike(peers, lambda peer: peer.ask("GET", f"/v2/a/b/blobs/{sha256(data)}"), "content-length")
    assert answer.body == data


def test_an_upload_in_chunks(peers: tuple[Peer, Peer]) -> None:
    first, second = b"a" * 1000, b"b" * 500
    places: dict[str, str] = {}

    def patch(data: bytes, span: str) -> Callable[[Peer], Answer]:
        def ask(peer: Peer) -> Answer:
            place = places.get(peer.host) or peer.begin()
            answer = peer.ask("PATCH", place, data, **binary(), Content_Range=span)
            places[peer.host] = peer.place(answer)
            return answer

        return ask

    assert alike(peers, patch(first, "0-999"), "location", "range").status == 202
    status = alike(peers, lambda peer: peer.ask("GET", places[peer.host]), "range")
    assert (status.status, status.headers["range"]) == (204, "0-999")
    assert alike(peers, patch(second, "1000-1499"), "location", "range").headers["range"] == "0-1499"

    def finish(peer: Peer) -> Answer:
        place = places[peer.host]
        return peer.ask("PUT", f"{place}{joint(place)}digest={sha256(first + second)}", b"", **binary())

    assert alike(peers, finish, "location", "docker-content-digest").status == 201
    assert alike(peers, lambda peer: peer.ask("GET", places[peer.host])).status == 404


def test_a_wrong_digest(peers: tuple[Peer, Peer]) -> None:
    def put(peer: Peer) -> Answer:
        place = peer.begin()
        return peer.ask("PUT", f"{place}{joint(place)}digest={NOTHING}", b"something", **binary())

    assert alike(peers, put).status == 400


def test_an_upload_that_is_cancelled(peers: tuple[Peer, Peer]) -> None:
    places = {peer.host: peer.begin() for peer in peers}
    assert alike(peers, lambda peer: peer.ask("DELETE", places[peer.host])).status == 204
    assert alike(peers, lambda peer: peer.ask("GET", places[peer.host])).code == "BLOB_UPLOAD_UNKNOWN"


def test_mounts(peers: tuple[Peer, Peer]) -> None:
    for digest, status in ((sha256(b"to be mounted"), 201), (NOTHING, 202)):
        path = f"/v2/a/b/blobs/uploads/?mount={digest}&from=other/repository"
        answer = alike(peers, lambda peer, path=path: peer.ask("POST", path, b""), "location")  # type: ignore[misc]
        assert answer.status == status
    path = f"/v2/a/b/blobs/{sha256(b'to be mounted')}"
    assert alike(peers, lambda peer: peer.ask("HEAD", path), "content-length").status == 200


def test_manifests_that_are_refused(peers: tuple[Peer, Peer]) -> None:
    def put(data: bytes, reference: str) -> Answer:
        return alike(
            peers, lambda peer: peer.ask("PUT", f"/v2/a/b/manifests/{reference}", data, Content_Type=OCI_MANIFEST)
        )

    assert put(b"no json", "x").status == 400
    missing = {"mediaType": OCI_CONFIG, "digest": NOTHING, "size": 1}
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": missing, "layers": []}
    assert put(json.dumps(document).encode(), "x").status == 400
    good = peers[0].ask("GET", "/v2/a/b/manifests/1", Accept=OCI_MANIFEST).body
    assert put(good, NOTHING).status == 400


def test_a_manifest_is_stored(peers: tuple[Peer, Peer], tmp_path: Path) -> None:
    good = peers[0].ask("GET", "/v2/a/b/manifests/1", Accept=OCI_MANIFEST).body
    for reference in ("again", sha256(good)):
        answer = alike(
            peers,
            lambda peer, to=reference: peer.ask("PUT", f"/v2/a/b/manifests/{to}", good, Content_Type=OCI_MANIFEST),  # type: ignore[misc]
            "location",
            "docker-content-digest",
            "content-length",
        )
        assert answer.status == 201
