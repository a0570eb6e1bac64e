"""Names of images, as text and as values. Nothing here looks at a file or at a network.

Two grammars: `parse_image` for the manifest's `image` key, which names a place and leaves the tag to `version`; and
`parse_transport` for the image tool, with the transports and the syntax of skopeo (containers-transports(5)).
Registry, repository and tag follow the grammar of the distribution specification ("Pulling manifests") and of
github.com/distribution/reference; the name of an image in a layout that of `org.opencontainers.image.ref.name`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from appbox.errors import UsageError
from appbox.oci.digest import Digest

DOCKER_HUB = "docker.io"
DEFAULT_TAG = "latest"
TAG_PATTERN = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
REPOSITORY_LIMIT = 255  # bytes, as github.com/distribution/reference has it

# Compiled when they are used (re keeps them): most commands read no reference, and compiling takes 5 ms.
_REPOSITORY = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST_NAME = rf"{_LABEL}(?:\.{_LABEL})*"
_REF_PART = r"[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*"
_REF_NAME = rf"{_REF_PART}(?:/{_REF_PART})*"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HUB_NAMES = {"index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"}
_OTHER_TRANSPORTS = ("containers-storage", "dir", "docker-daemon", "sif", "tarball", "ostree")
_LOCAL_TRANSPORTS = ("oci", "oci-archive", "docker-archive")
_TRANSPORTS = "use docker://, oci:, oci-archive: or docker-archive:"
_POSITION = r"@(?:0|[1-9][0-9]{0,8})"


@dataclass(frozen=True, slots=True)
class RegistryImage:
    """A repository of a registry. `registry` is host[:port] in lower case; `repository` has no tag and no digest."""

    registry: str
    repository: str

    def __str__(self) -> str:
        return f"{self.registry}/{self.repository}"

    def endpoint(self) -> str:
        """Return the host[:port] that answers for the registry; Docker Hub's API has a name of its own."""
        return "registry-1.docker.io" if self.registry == DOCKER_HUB else self.registry


@dataclass(frozen=True, slots=True)
class OciLayout:
    """An OCI image layout in the directory `path`; `ref` is its `org.opencontainers.image.ref.name`."""

    path: str
    ref: str | None = None

    def __str__(self) -> str:
        return f"oci:{self.path}:{self.ref}" if self.ref else f"oci:{self.path}"


@dataclass(frozen=True, slots=True)
class OciArchive:
    """A tar archive `path` of an OCI image layout."""

    path: str
    ref: str | None = None

    def __str__(self) -> str:
        return f"oci-archive:{self.path}:{self.ref}" if self.ref else f"oci-archive:{self.path}"


@dataclass(frozen=True, slots=True)
class DockerArchive:
    """A tar archive `path` as `docker save` writes them; `ref` is a whole NAME:TAG of it, or @N for its Nth image."""

    path: str
    ref: str | None = None

    def __str__(self) -> str:
        return f"docker-archive:{self.path}:{self.ref}" if self.ref else f"docker-archive:{self.path}"


LocalImage: TypeAlias = OciLayout | OciArchive | DockerArchive
ImageName: TypeAlias = RegistryImage | LocalImage


@dataclass(frozen=True, slots=True)
class ImageRef:
    """One image: the place, and for a registry the tag, the digest or both (then the digest decides)."""

    image: ImageName
    tag: str | None = None
    digest: Digest | None = None

    def __str__(self) -> str:
        if not isinstance(self.image, RegistryImage):
            return str(self.image)
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"docker://{self.image}{tag}{digest}"


def parse_image(text: str) -> ImageName:
    """Return the place that a manifest's `image` names; raise `UsageError` with the reason and the way out.

    A name without a host is refused, since which registry it means differs from tool to tool; behind `docker://`
    it means Docker Hub, as it does for skopeo.
    """
    _printable(text)
    if (layout := _local(text)) is not None:
        return layout
    short_names = text.startswith("docker://")
    name, tag, digest = _split_reference(text.removeprefix("docker://"))
    if digest is not None:
        raise UsageError(f"{text!r} has a digest", hint=f'the digest belongs in digest = "{digest}"')
    if tag is not None:
        raise UsageError(f"{text!r} has a tag", hint=f'the tag belongs in version = "{tag}"')
    return _registry_image(name, short_names=short_names)


def parse_transport(text: str) -> ImageRef:
    """Return the image that an argument of the image tool names; raise `UsageError` or, for a digest, `Refused`.

    `docker://HOST/REPOSITORY[:TAG][@DIGEST]`, `oci:DIR[:REF]`, `oci-archive:FILE[:REF]`, `docker-archive:FILE[:REF]`.
    The transport may be left out in front of a name that begins with a registry's host.
    """
    _printable(text)
    if (layout := _local(text)) is not None:
        return ImageRef(layout)
    name, tag, digest = _split_reference(text.removeprefix("docker://"))
    image = _registry_image(name, short_names=text.startswith("docker://"))
    if tag is not None:
        check_tag(tag)
    pinned = Digest.parse(digest) if digest is not None else None
    return ImageRef(image, tag if tag or pinned else DEFAULT_TAG, pinned)


def check_tag(tag: str) -> str:
    """Return `tag`; raise `UsageError` unless a registry can have it."""
    if not re.fullmatch(TAG_PATTERN, tag):
        hint = "a tag has up to 128 of A-Z a-z 0-9 _ . - and does not begin with . or -"
        raise UsageError(f"{tag[:160]!r} is not a tag", hint=hint)
    return tag


def tags_of(names: Iterable[str]) -> list[str]:
    """Return the tags at the ends of names of images, sorted, each once: of NAME:TAG, and names that are a tag."""
    return sorted({tag for name in names if re.fullmatch(TAG_PATTERN, tag := name.rpartition(":")[2])})


def split_host(registry: str) -> tuple[str, int | None]:
    """Split host[:port] into the host, an IPv6 literal without its brackets, and the port or None."""
    if registry.startswith("["):
        host, _, port = registry[1:].partition("]")
        return host, int(port[1:]) if port else None
    host, _, port = registry.partition(":")
    return host, int(port) if port else None


def _printable(text: str) -> None:
    if not text:
        raise UsageError("the name of the image is empty", hint="write one like docker.io/valkey/valkey or oci:DIR")
    if text == "-":
        raise UsageError("images are not read from or written to a pipe", where=text, hint="name a file")
    if _CONTROL.search(text):
        raise UsageError(f"{text!r} has a control character")
    scheme, separator, rest = text.partition("://")
    if separator and "/" not in scheme and scheme not in ("docker", *_LOCAL_TRANSPORTS):
        hint = f"write {rest}" if scheme in ("http", "https") else _TRANSPORTS
        raise UsageError(f"{scheme}:// names no transport", where=text, hint=hint)


def _local(text: str) -> LocalImage | None:
    """Return the layout or archive that `text` names, or None when it names no file.

    The path ends at the first colon, as for skopeo; so a path with a colon cannot be written.
    """
    transport, colon, rest = text.partition(":")
    if not colon or (rest.startswith("//") and transport not in _LOCAL_TRANSPORTS):
        return None
    if transport in _OTHER_TRANSPORTS:
        raise UsageError(f"{transport}: is not supported", hint=_TRANSPORTS)
    if transport not in _LOCAL_TRANSPORTS:
        return None
    path, _, ref = rest.partition(":")
    if not path:
        raise UsageError(f"{text!r} names no path", hint=f"write {transport}:PATH or {transport}:PATH:REF")
    if path == "-":
        raise UsageError("images are not read from or written to a pipe", where=text, hint="name a file")
    if transport == "docker-archive":
        return DockerArchive(path, docker_name(ref, text) if ref else None)
    if ref and not re.fullmatch(_REF_NAME, ref):
        raise UsageError(f"{ref!r} is not the name of an image in a layout", where=text)
    return (OciLayout if transport == "oci" else OciArchive)(path, ref or None)


def docker_name(ref: str, where: str = "") -> str:
    """Return NAME:TAG written out, or @N; short names are those of Docker Hub. Raises `UsageError`."""
    if re.fullmatch(_POSITION, ref):
        return ref
    name, tag, digest = _split_reference(ref)
    if digest is not None or not name:
        raise UsageError(f"{ref!r} is not the name of an image in an archive", where=where, hint="write NAME:TAG or @0")
    return f"{_registry_image(name, short_names=True)}:{check_tag(DEFAULT_TAG if tag is None else tag)}"


def _split_reference(text: str) -> tuple[str, str | None, str | None]:
    """Split NAME[:TAG][@DIGEST]. A colon before the last slash belongs to a port."""
    name, at, digest = text.partition("@")
    head, slash, last = name.rpartition("/")
    last, colon, tag = last.partition(":")
    return f"{head}{slash}{last}", tag if colon else None, digest if at else None


def _registry_image(name: str, *, short_names: bool) -> RegistryImage:
    host, slash, repository = name.partition("/")
    if not (slash and _is_host(host)):
        if not short_names:
            raise UsageError(f"{name!r} names no registry", hint=f"write {_hub_image(name, name)}")
        return _hub_image(name, name)
    registry = _registry(host, name)
    if registry == DOCKER_HUB or registry in _HUB_NAMES:
        return _hub_image(repository, name)
    return RegistryImage(registry, _repository(repository, name))


def _is_host(component: str) -> bool:
    """Tell a host from the first part of a repository, by the rule that docker and podman share."""
    return any(c in component for c in ".:[") or component.lower() == "localhost"


def _hub_image(repository: str, name: str) -> RegistryImage:
    official = repository if "/" in repository else f"library/{repository}"
    return RegistryImage(DOCKER_HUB, _repository(official, name))


def _repository(repository: str, name: str) -> str:
    if len(repository) > REPOSITORY_LIMIT:
        raise UsageError(f"the repository's name is longer than {REPOSITORY_LIMIT} characters", where=name[:80])
    if not re.fullmatch(_REPOSITORY, repository):
        lower = repository.lower()
        hint = f"write {lower}" if re.fullmatch(_REPOSITORY, lower) else "use a-z 0-9, inside words also . _ - and /"
        raise UsageError(f"{repository!r} is not a repository", where=name if name != repository else "", hint=hint)
    return repository


def _registry(text: str, name: str) -> str:
    """Return host[:port] in lower case, an IPv6 literal in its shortest form."""
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::([0-9]{1,5}))?", text)
    if match is None:
        hint = "write HOST or HOST:PORT, an IPv6 address in [ ]"
        raise UsageError(f"{text[:80]!r} is not a registry", where=name[:300], hint=hint)
    host, port = match.group(1), match.group(2)
    if port is not None and not 0 < int(port) < 65536:
        raise UsageError(f"{port} is not a port", where=name)
    suffix = f":{int(port)}" if port else ""
    if host.startswith("["):
        return f"[{_ipv6(host[1:-1], name)}]{suffix}"
    if len(host) > 253 or not re.fullmatch(_HOST_NAME, host):
        raise UsageError(f"{host[:80]!r} is not a host name", where=name[:300])
    return host.lower() + suffix


def _ipv6(text: str, name: str) -> str:
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError as error:
        raise UsageError(f"{text!r} is not an IPv6 address", where=name) from error
