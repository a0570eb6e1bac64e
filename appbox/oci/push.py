"""One repository of a registry, written (OCI distribution specification, "Push"). Not here: what is copied, and why.

Blobs are hashed while they are sent, so that what a registry keeps is what its descriptor says; one that is not is
never finished. A transfer that is cut begins again, or in chunks goes on where the registry says that it is.
Mirrors are not written to: they are copies of the registry itself.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, BinaryIO, Final, Self
from urllib.parse import quote

import httpx

from appbox.errors import AppboxError, Refused, Unavailable
from appbox.oci import failures, registries
from appbox.oci.auth import BusyError
from appbox.oci.digest import Digest
from appbox.oci.endpoint import Call, Endpoint, Wire
from appbox.oci.failures import CutError, LaterError
from appbox.oci.model import Descriptor
from appbox.oci.outgoing import Outgoing, Part
from appbox.oci.reference import RegistryImage
from appbox.oci.registry import ACCEPT, Report
from appbox.oci.settings import Settings
from appbox.oci.transport import LOCATION

CHUNK: Final = 16 << 20  # bytes of one PATCH; S3, which many registries store in, wants parts of 5 MiB at least
CHUNK_LIMIT = 1 << 30  # bytes that a registry may ask for as the smallest chunk
COMMIT_PATIENCE = 300.0  # seconds that a registry may take to check a blob before it answers
CANCEL_PATIENCE = 5.0  # seconds; nothing depends on it
_RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,19})")
_ACCEPT = {"Accept": f"{ACCEPT['Accept']}, */*"}  # docker-registry knows no OCI manifest by */* alone
_BINARY = {"Content-Type": "application/octet-stream"}


class RegistryTarget:
    """The repository that `image` names. Thread-safe; `close` it. `wire` takes the place of the network in tests."""

    def __init__(self, image: RegistryImage, settings: Settings, *, wire: Wire | None = None) -> None:
        rules = registries.load(settings)
        self.image = image
        self._endpoint = Endpoint(image, rules.place(image), "pull,push", settings, rules, wire)
        self._opened: dict[Digest, httpx.URL] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Cancel the uploads that were opened and not used, and close every connection."""
        for url in self._opened.values():
            self.cancel(url)
        self._opened.clear()
        self._endpoint.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def abort(self) -> None:
        """Make every request that is under way in other threads fail soon."""
        self._endpoint.abort()

    def aborted(self) -> bool:
        """Tell whether `abort` was called."""
        return self._endpoint.aborted()

    def has(self, descriptor: Descriptor) -> bool:
        """Tell whether the repository has a blob of that digest and size."""

        def there(response: httpx.Response) -> bool:
            if response.status_code == httpx.codes.NOT_FOUND:
                return False
            self.expect(response, f"blob {descriptor.digest}", httpx.codes.OK)
            return response.headers.get("content-length") in (None, str(descriptor.size))

        return self._endpoint.request(lambda: Call("HEAD", f"blobs/{descriptor.digest}"), there)

    def has_manifest(self, digest: Digest) -> bool:
        """Tell whether the repository has a manifest or an index of that digest."""

        def there(response: httpx.Response) -> bool:
            if response.status_code != httpx.codes.NOT_FOUND:
                self.expect(response, f"manifest {digest}", httpx.codes.OK)
            return response.status_code == httpx.codes.OK

        return self._endpoint.request(lambda: Call("HEAD", f"manifests/{digest}", _ACCEPT), there)

    def mount(self, descriptor: Descriptor, from_repository: str) -> bool:
        """Take a blob over from another repository of the registry; False when the registry wants it uploaded."""
        path = f"blobs/uploads/?mount={descriptor.digest}&from={quote(from_repository)}"
        call = Call("POST", path, {"Content-Length": "0"}, scope=f"repository:{from_repository}:pull")

        def mounted(response: httpx.Response) -> bool:
            if response.status_code == httpx.codes.CREATED:
                return True
            # Others refuse what they do not know or what the user may not read: an upload works all the same.
            if response.status_code == httpx.codes.ACCEPTED:
                self._keep(descriptor.digest, self._endpoint.named(response))
            return False

        return self._endpoint.request(lambda: call, mounted)

    def upload(
        self,
        descriptor: Descriptor,
        open: Callable[[], BinaryIO],  # noqa: A002
        report: Report | None = None,
        *,
        chunked: bool = False,
    ) -> None:
        """Send a blob, in one request or in `chunked` ones.

        `open` gives a new stream from the blob's beginning, each time that the sending begins again. `Refused` when it
        is not what the descriptor says.
        """
        with Outgoing(descriptor, open, report or (lambda done: None), self.aborted) as blob:
            upload = _Upload(self, self._endpoint, blob, self._taken(descriptor.digest))
            try:
                self._endpoint.persist(upload.chunked if chunked else upload.whole, lambda: upload.kept)
            except BaseException:
                if upload.url is not None:
                    self.cancel(upload.url)
                raise
            blob.report(descriptor.size)

    def put_manifest(self, data: bytes, media_type: str, reference: str | Digest) -> Digest:
        """Store an index or a manifest under a tag or its digest, and return that."""
        digest = Digest.of(data, reference.algorithm if isinstance(reference, Digest) else "sha256")
        if isinstance(reference, Digest) and reference != digest:
            raise Refused("the manifest does not have its digest", where=f"{self.image}@{reference}")
        call = Call("PUT", f"manifests/{reference}", {"Content-Type": media_type}, content=data)

        def stored(response: httpx.Response) -> Digest:
            self.expect(response, f"manifest {reference}", httpx.codes.CREATED, httpx.codes.OK, httpx.codes.ACCEPTED)
            said = response.headers.get("docker-content-digest", "")
            if said and not Digest.parse(said).matches(data):
                why = f"it says {said[:140]}, not {digest}"
                raise Refused("the registry has stored another manifest", where=f"{self.image}: {reference}", why=why)
            return digest

        return self._endpoint.request(lambda: call, stored)

    def expect(self, response: httpx.Response, what: str, *statuses: int) -> None:
        """Raise the error that fits unless the answer has one of the `statuses`."""
        if response.status_code in statuses:
            return
        why, code = failures.answer(response), response.status_code
        if code == httpx.codes.METHOD_NOT_ALLOWED:
            hint = "push to a registry that may be written to"
            raise Unavailable(f"the registry takes no {what}", where=self._endpoint.host, why=why, hint=hint)
        if code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise self._endpoint.answered(response)
        raise Unavailable(f"the registry did not take the {what}", where=str(self.image), why=why)

    def _keep(self, digest: Digest, url: httpx.URL) -> None:
        with self._lock:
            before, self._opened[digest] = self._opened.get(digest), url
        if before is not None:
            self.cancel(before)

    def _taken(self, digest: Digest) -> httpx.URL | None:
        with self._lock:
            return self._opened.pop(digest, None)

    def cancel(self, url: httpx.URL) -> None:
        """Tell the registry that an upload will not be finished; it forgets it by itself one day otherwise."""
        if self.aborted():
            return
        forgiven = contextlib.suppress(httpx.HTTPError, AppboxError, LaterError, BusyError)
        with forgiven, self._endpoint.send(Call("DELETE", url, patience=CANCEL_PATIENCE)):
            pass


class _Upload:
    """One upload session, tried until it is done. `url` is where it goes on, `kept` the bytes that the registry has."""

    def __init__(self, target: RegistryTarget, endpoint: Endpoint, blob: Outgoing, url: httpx.URL | None) -> None:
        self._target, self._endpoint, self._blob = target, endpoint, blob
        self.url, self.kept = url, 0
        self._tries, self._least = 0, 0
        self._what = f"blob {blob.descriptor.digest}"

    def whole(self) -> None:
        """POST, then PUT with everything ("Pushing a blob monolithically")."""
        if self._done_before():
            return
        if self._tries > 1 or self.url is None:
            self._begin()
        self._finish(0)

    def chunked(self) -> None:
        """POST, PATCH for each chunk, PUT ("Pushing a blob in chunks"); goes on where an earlier try was cut."""
        if self._done_before():
            return
        if self.url is None or (self._tries > 1 and not self._resumed()):
            self._begin()
        size = self._blob.descriptor.size
        while self.kept < size:
            self._patch(min(size, self.kept + max(CHUNK, self._least)))
        self._finish(size)

    def _done_before(self) -> bool:
        """Count a try; tell whether the one before came through, and only its answer was lost."""
        self._tries += 1
        if self._tries == 1:
            return False
        with self._endpoint.send(Call("HEAD", f"blobs/{self._blob.descriptor.digest}")) as response:
            return response.status_code == httpx.codes.OK

    def _begin(self) -> None:
        if self.url is not None:
            self._target.cancel(self.url)
        self.url, self.kept = None, 0
        with self._endpoint.send(Call("POST", "blobs/uploads/", {"Content-Length": "0"})) as response:
            self._target.expect(response, self._what, httpx.codes.ACCEPTED)
            self.url = self._endpoint.named(response)
            least = response.headers.get("oci-chunk-min-length", "")
            self._least = min(int(least[:19]), CHUNK_LIMIT) if least.isascii() and least.isdigit() else 0

    def _patch(self, end: int) -> None:
        headers = {**_BINARY, "Content-Range": f"{self.kept}-{end - 1}", "Content-Length": str(end - self.kept)}
        body = Part(self._blob, self.kept, end)
        with self._endpoint.send(self._call("PATCH", headers, body)) as response:
            if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise CutError("the registry wants the upload to go on elsewhere")
            if response.status_code == httpx.codes.NOT_FOUND:
                self.url = None
                raise CutError("the registry has forgotten the upload")
            self._target.expect(response, self._what, httpx.codes.ACCEPTED, httpx.codes.NO_CONTENT, httpx.codes.CREATED)
            self._moved(response)
            kept = _kept(response)
            if kept is not None and kept < end:
                raise CutError(f"the registry kept {kept} of {end} bytes")
            self.kept = end

    def _finish(self, start: int) -> None:
        """PUT what is left, and the digest."""
        assert self.url is not None  # noqa: S101  (both callers have begun)
        size, digest = self._blob.descriptor.size, self._blob.descriptor.digest
        if start == size:
            self._blob.verify()
        query = b"&".join(filter(None, (self.url.query, f"digest={digest}".encode())))
        headers = {**_BINARY, "Content-Length": str(size - start)}
        body = Part(self._blob, start, size)
        call = Call("PUT", self.url.copy_with(query=query), headers, content=body, patience=COMMIT_PATIENCE)
        with self._endpoint.send(call) as response:
            if response.status_code == httpx.codes.NOT_FOUND:
                self.url = None
                raise CutError("the registry has forgotten the upload")
            self._target.expect(response, self._what, httpx.codes.CREATED, httpx.codes.NO_CONTENT)
        self.kept = size

    def _resumed(self) -> bool:
        """Ask how far the upload is; False when it must begin again."""
        with self._endpoint.send(self._call("GET", {}, None)) as response:
            kept = _kept(response)
            if response.status_code not in (httpx.codes.NO_CONTENT, httpx.codes.OK) or kept is None:
                return False
            self._moved(response)
            # "0-0" is one byte, and what registries say of none; both begin again.
            self.kept = kept if 1 < kept <= self._blob.descriptor.size else 0
            return self.kept > 0

    def _moved(self, response: httpx.Response) -> None:
        if LOCATION in response.extensions:
            self.url = self._endpoint.named(response)

    def _call(self, method: str, headers: dict[str, str], body: Part | None) -> Call:
        assert self.url is not None  # noqa: S101  (every caller has begun)
        extra: dict[str, Any] = {"content": body, "patience": COMMIT_PATIENCE} if body else {}
        return Call(method, self.url, headers, **extra)


def _kept(response: httpx.Response) -> int | None:
    """Return the bytes that a Range header says the registry has; None when it does not say."""
    match = _RANGE.fullmatch(response.headers.get("range", ""))
    return int(match[1]) + 1 if match else None
