"""One repository of a registry, read (OCI distribution specification, "Pull"). Not here: HTTP, and the cache.

Every answer is bounded, and a digest is always computed from the bytes, never taken from a header. Mirrors are asked
first, in the order of registries.conf; one that fails is said once and not asked again, one that only lacks something
is asked for the rest.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

import httpx

from appbox.errors import AppboxError, Missing, Refused, Unavailable
from appbox.oci import registries, tags
from appbox.oci.digest import Digest
from appbox.oci.endpoint import Call, Endpoint, Wire
from appbox.oci.failures import CutError
from appbox.oci.json_document import DOCUMENT_LIMIT
from appbox.oci.model import DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Descriptor
from appbox.oci.reference import RegistryImage
from appbox.oci.settings import Settings
from appbox.oci.transport import web_url

REPORT_STEP = 1 << 20  # bytes between two reports of a download
TAGS_PAGE = 1000  # tags asked for at a time: the most that registries give
TAGS_PAGES = 1000  # of one list
ACCEPT = {"Accept": ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST))}
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)")

T = TypeVar("T")
Report = Callable[[int], None]
"""Told the bytes that a transfer has so far."""


class Sink(Protocol):
    """What a download is written to: `size` bytes are to come, `done` are there; after `restart` they come again.

    `verify` raises `Refused` unless they are the right ones.
    """

    @property
    def size(self) -> int: ...

    @property
    def done(self) -> int: ...

    def write(self, data: bytes) -> None: ...

    def restart(self) -> None: ...

    def verify(self) -> None: ...


class Registry:
    """The repository that `image` names. Thread-safe; `close` it. `wire` takes the place of the network in tests."""

    def __init__(self, image: RegistryImage, settings: Settings, *, wire: Wire | None = None) -> None:
        self.image, self._settings = image, settings
        self._rules = rules = registries.load(settings)
        places = (*rules.mirrors(image), rules.place(image))
        self._endpoints = tuple(Endpoint(image, place, "pull", settings, rules, wire) for place in places)
        self._origin = self._endpoints[-1]
        self._failed: dict[Endpoint, AppboxError] = {}
        self._served: set[Endpoint] = set()
        self._named: Endpoint | None = None
        self._doubtful: set[Digest] = set()
        self._lies: set[Digest] = set()
        self._lock, self._stopped = threading.Lock(), threading.Event()

    def close(self) -> None:
        """Close every connection."""
        for endpoint in self._endpoints:
            endpoint.close()

    def abort(self) -> None:
        """Make every request that is under way in other threads fail soon."""
        self._stopped.set()
        for endpoint in self._endpoints:
            endpoint.abort()

    def aborted(self) -> bool:
        """Tell whether `abort` was called."""
        return self._stopped.is_set()

    def head(self, tag: str) -> Digest | None:
        """Return the digest that the registry says a tag has; None when it does not say. Costs no metered pull."""

        def ask(endpoint: Endpoint) -> Digest | None:
            def said(response: httpx.Response) -> Digest | None:
                if endpoint is not self._origin:  # then the next one is asked
                    endpoint.expect(response, f"{self.image}:{tag}")
                with contextlib.suppress(Refused):
                    digest = Digest.parse(response.headers.get("docker-content-digest", ""))
                    return digest if response.status_code == httpx.codes.OK else None
                return None

            return endpoint.request(lambda: Call("HEAD", f"manifests/{tag}", ACCEPT), said)

        return self._ask(tag, ask)

    def manifest(self, reference: str | Digest) -> tuple[bytes, str]:
        """Return an index or manifest by tag or digest, and its content type; verified when asked for by digest."""
        name = f"{self.image}{'@' if isinstance(reference, Digest) else ':'}{reference}"

        def ask(endpoint: Endpoint) -> tuple[bytes, str]:
            def body(response: httpx.Response) -> tuple[bytes, str]:
                endpoint.expect(response, name)
                return response.read(), response.headers.get("content-type", "")

            call = Call("GET", f"manifests/{reference}", ACCEPT, limit=DOCUMENT_LIMIT)
            data, kind = endpoint.request(lambda: call, body)
            if isinstance(reference, Digest) and not reference.matches(data):
                raise Refused("the manifest does not have its digest", where=name)
            return data, kind

        return self._ask(reference, ask)

    def document(self, descriptor: Descriptor) -> bytes:
        """Return a small blob, verified by size and digest."""
        if descriptor.size > DOCUMENT_LIMIT:
            raise Refused(f"the blob is larger than {DOCUMENT_LIMIT} bytes", where=str(descriptor.digest))

        def ask(endpoint: Endpoint) -> bytes:
            def body(response: httpx.Response) -> bytes:
                endpoint.expect(response, f"blob {descriptor.digest}")
                return response.read()

            call = Call("GET", f"blobs/{descriptor.digest}", limit=descriptor.size)
            data = endpoint.request(lambda: call, body)
            if len(data) != descriptor.size or not descriptor.digest.matches(data):
                raise Refused("the blob does not have its size and digest", where=f"{self.image}@{descriptor.digest}")
            return data

        return self._ask(descriptor.digest, ask)

    def tags(self) -> list[str]:
        """Return the tags of the repository, sorted; what is none by the specification's grammar is left out."""
        return self._ask("", self._tags)

    def download(self, descriptor: Descriptor, blob: Sink, report: Report) -> None:
        """Write a blob and verify it; one that was wrong is written anew from the next place that may have it.

        Foreign layers that the registry does not have are taken from their own URLs: by TLS, without credentials.
        """

        def ask(endpoint: Endpoint) -> None:
            if endpoint is not self._origin:
                self._doubtful.add(descriptor.digest)
            self._complete(endpoint, f"blobs/{descriptor.digest}", descriptor, blob, report)

        try:
            self._ask(descriptor.digest, ask)
        except Unavailable as error:
            failure: AppboxError = error
            foreign = [url for text in descriptor.urls if (url := web_url(text)) and url.scheme == "https"]
            for url in () if self.aborted() else foreign:
                try:
                    return self._complete(self._origin, url, descriptor, blob, report)
                except (Unavailable, Refused) as other:
                    failure = other
            raise failure from failure.__cause__

    def doubts(self, digest: Digest) -> bool:
        """Tell whether somebody may have read other bytes of a blob than the right ones: a mirror's."""
        return digest in self._doubtful or digest in self._lies

    def _complete(
        self, endpoint: Endpoint, target: str | httpx.URL, descriptor: Descriptor, blob: Sink, report: Report
    ) -> None:
        """Download what is missing of a blob, and verify it; all of it once more when another place had begun it."""
        begun = blob.done > 0
        try:
            self._download(endpoint, target, descriptor, blob, report)
        except Refused:
            if self.aborted():
                raise
            if begun or endpoint is not self._origin:
                self._lies.add(descriptor.digest)
                blob.restart()
            if not begun:
                raise
            self._download(endpoint, target, descriptor, blob, report)
        if not begun:
            self._doubtful.discard(descriptor.digest)

    def _ask(self, reference: str | Digest, ask: Callable[[Endpoint], T]) -> T:
        """Return the first answer of the mirrors that are asked for such a reference, and of the registry at last."""
        if reference:
            self._rules.admit(self.image, reference)
        lacking: dict[Endpoint, AppboxError] = {}
        for endpoint in self._endpoints[:-1]:
            # The mirror that has the tag has what belongs to it, whatever else it is asked for.
            serves = endpoint.place.serves(reference) or endpoint is self._named
            if not serves or endpoint in self._failed:
                continue
            try:
                answer = ask(endpoint)
            except (Unavailable, Refused) as error:
                if self.aborted():
                    raise
                lacking[endpoint] = error
                self._pass_over(endpoint, error)
            else:
                self._served.add(endpoint)
                self._named = self._named if isinstance(reference, Digest) else endpoint
                return answer
        try:
            return ask(self._origin)
        except Unavailable as error:
            tried = (f"the mirror {e.host}: {f.what}" for e, f in (self._failed | lacking).items())
            why = "; ".join(part for part in (error.why, *tried) if part)
            raise type(error)(error.what, where=error.where, why=why, hint=error.hint) from error

    def _pass_over(self, endpoint: Endpoint, error: AppboxError) -> None:
        with self._lock:
            known = endpoint in self._failed or endpoint in self._served
            self._served.add(endpoint)
            if not isinstance(error, Missing):
                known = endpoint in self._failed
                self._failed[endpoint] = error
        if not known:
            reason = ": ".join(part for part in (error.what, error.why) if part)
            self._settings.tell(f"the mirror {endpoint.host} of {self.image} is passed over: {reason}")

    def _tags(self, endpoint: Endpoint) -> list[str]:
        found: set[str] = set()
        asked: set[httpx.URL] = set()
        # Which scheme the registry speaks may have to be found out first, which is a request like any other.
        url: httpx.URL | None = endpoint.persist(lambda: endpoint.url(f"tags/list?n={TAGS_PAGE}"), int)
        while url is not None:
            asked.add(url)
            call = Call("GET", url, limit=DOCUMENT_LIMIT)

            def page(response: httpx.Response, call: Call = call) -> tuple[list[str], httpx.URL | None]:
                endpoint.expect(response, f"repository {self.image}")
                link = tags.next_link(response.headers.get_list("link"))
                following = web_url(link, httpx.URL(call.target)) if link is not None else None
                if link is not None and (following is None or not endpoint.own(following)):
                    why = f"it continues at {link[:200]}"
                    raise Refused("the registry's list of tags leads elsewhere", where=endpoint.host, why=why)
                return tags.parse(response.read(), f"the list of tags of {self.image}"), following

            names, url = endpoint.request(lambda call=call: call, page)  # type: ignore[misc]
            found.update(names)
            if url in asked or len(asked) >= TAGS_PAGES or len(found) > tags.LIMIT:
                raise Refused("the registry's list of tags has no end", where=endpoint.host, why=f"{len(found)} so far")
        return sorted(found)

    def _download(
        self, endpoint: Endpoint, target: str | httpx.URL, descriptor: Descriptor, blob: Sink, report: Report
    ) -> None:
        def body(response: httpx.Response) -> None:
            self._position(endpoint, response, descriptor, blob)
            reported = blob.done
            for data in response.iter_raw():
                blob.write(data)
                if self._stopped.is_set():
                    raise AppboxError("cancelled", where=str(descriptor.digest))
                if blob.done - reported >= REPORT_STEP:
                    reported = blob.done
                    report(reported)
            if blob.done < blob.size:
                raise CutError(f"the blob ended after {blob.done} of {blob.size} bytes")

        def call() -> Call:
            headers: Mapping[str, str] = {"Range": f"bytes={blob.done}-"} if blob.done else {}
            return Call("GET", target, headers, anonymous=isinstance(target, httpx.URL))

        endpoint.request(call, body, lambda: blob.done)
        blob.verify()

    def _position(self, endpoint: Endpoint, response: httpx.Response, descriptor: Descriptor, blob: Sink) -> None:
        """Put `blob` where the body begins; refuse one whose size cannot be right before reading it."""
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and blob.done:
            blob.restart()
            raise CutError("the registry cannot go on with the download")
        partial = (httpx.codes.PARTIAL_CONTENT,) if blob.done else ()
        endpoint.expect(response, f"blob {descriptor.digest}", httpx.codes.OK, *partial)
        length = response.headers.get("content-length")
        if response.status_code == httpx.codes.PARTIAL_CONTENT:
            match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
            if match is None or int(match[1]) != blob.done:
                blob.restart()
                raise CutError("the registry goes on at the wrong place")
            size = blob.size if match[3] == "*" else int(match[3])
        else:
            blob.restart()  # also a server that does not know ranges
            size = int(length) if length and length.isascii() and length.isdigit() else blob.size
        if size != blob.size:
            what = f"the registry sends {size} bytes, not {blob.size}"
            raise Refused(what, where=f"{self.image}@{descriptor.digest}")
