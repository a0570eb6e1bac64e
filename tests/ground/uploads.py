"""Uploads into the faulty registry: the push half of the distribution specification, kept in memory."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from hashlib import new
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.ground.tiny import Content

SESSION = re.compile(r"/v2/(?P<repository>.+)/blobs/uploads/(?P<session>[^/]*)")
_RANGE = re.compile(r"([0-9]+)-([0-9]+)")

Reply = tuple[int, dict[str, str], bytes]


@dataclass
class Uploads:
    """Open sessions by their name. `relative` writes a Location without scheme and host."""

    content: Content
    relative: bool = False
    scheme: str = "http"
    least: int = 0  # OCI-Chunk-Min-Length
    open: dict[str, bytearray] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)
    others: dict[str, Content] = field(default_factory=dict)  # repositories to mount from
    count: int = 0

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes, host: str) -> Reply:
        url = urlsplit(path)
        match = SESSION.fullmatch(url.path)
        assert match
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        repository, session = match["repository"], match["session"]
        if method == "POST" and not session:
            return self._post(repository, query, body, host)
        if session not in self.open:
            return problem(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
        if method == "GET":
            return 204, self._place(repository, session, host), b""
        if method == "DELETE":
            del self.open[session]
            self.cancelled.append(session)
            return 204, {"Content-Length": "0"}, b""
        if method not in ("PATCH", "PUT"):
            return problem(405, "UNSUPPORTED", "The operation is unsupported.")
        span = _RANGE.fullmatch(headers.get("content-range", ""))
        if span and (int(span[1]) != len(self.open[session]) or int(span[2]) - int(span[1]) + 1 != len(body)):
            return 416, self._place(repository, session, host), b""
        self.open[session] += body
        if method == "PATCH":
            return 202, self._place(repository, session, host), b""
        return self._finish(repository, session, query.get("digest", ""), host)

    def _post(self, repository: str, query: dict[str, str], body: bytes, host: str) -> Reply:
        source = self.others.get(query.get("from", ""))
        if source is not None and query.get("mount") in source.blobs:
            digest = query["mount"]
            self.content.blobs[digest] = source.blobs[digest]
            return self._stored(repository, digest, host)
        self.count += 1
        session = f"session-{self.count}"
        self.open[session] = bytearray(body)
        if "digest" in query:
            return self._finish(repository, session, query["digest"], host)
        headers = self._place(repository, session, host)
        return 202, {**headers, **({"OCI-Chunk-Min-Length": str(self.least)} if self.least else {})}, b""

    def _finish(self, repository: str, session: str, digest: str, host: str) -> Reply:
        data = bytes(self.open.pop(session))
        algorithm, _, digits = digest.partition(":")
        if algorithm not in ("sha256", "sha512") or new(algorithm, data).hexdigest() != digits:
            return problem(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        self.content.blobs[digest] = data
        return self._stored(repository, digest, host)

    def put_manifest(self, path: str, reference: str, headers: dict[str, str], body: bytes, host: str) -> Reply:
        try:
            document = json.loads(body)
        except ValueError:
            return problem(400, "MANIFEST_INVALID", "manifest invalid")
        missing = [entry["digest"] for entry in _needed(document) if entry["digest"] not in self.content.blobs]
        if missing:
            return problem(400, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry")
        algorithm = reference.partition(":")[0] if ":" in reference else "sha256"
        digest = f"{algorithm}:{new(algorithm, body).hexdigest()}"
        if ":" in reference and reference != digest:
            return problem(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        self.content.manifests[digest] = (headers.get("content-type", ""), body)
        if ":" not in reference:
            self.content.tags[reference] = digest
        place = f"{self._origin(host)}{path.rpartition('/')[0]}/{digest}"
        return 201, {"Location": place, "Docker-Content-Digest": digest, "Content-Length": "0"}, b""

    def _stored(self, repository: str, digest: str, host: str) -> Reply:
        place = f"{self._origin(host)}/v2/{repository}/blobs/{digest}"
        return 201, {"Location": place, "Docker-Content-Digest": digest, "Content-Length": "0"}, b""

    def _place(self, repository: str, session: str, host: str) -> dict[str, str]:
        done = max(0, len(self.open[session]) - 1)
        place = f"{self._origin(host)}/v2/{repository}/blobs/uploads/{session}?state={len(self.open[session])}"
        return {"Location": place, "Range": f"0-{done}", "Docker-Upload-UUID": session, "Content-Length": "0"}

    def _origin(self, host: str) -> str:
        return "" if self.relative else f"{self.scheme}://{host}"


def problem(status: int, code: str, message: str) -> Reply:
    """Return an error as the specification writes it."""
    data = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
    return status, {"Content-Type": "application/json", "Content-Length": str(len(data))}, data


def _needed(document: dict[str, Any]) -> list[dict[str, Any]]:
    config = [document["config"]] if "config" in document else []
    return [*config, *document.get("layers", [])]
