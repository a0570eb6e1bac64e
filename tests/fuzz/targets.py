"""What is fuzzed: for each parser the law that it must keep for any bytes at all. No engine here.

The law is the same everywhere: a value or one of appbox's own errors, in little time and little memory. Where more can
be said of the value (it parses back to itself, it does not depend on how the bytes came in pieces), that is law too.
A check returns a word about what happened, by which an engine without coverage knows new behaviour when it sees it.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from appbox.errors import AppboxError, Refused
from appbox.oci import image_config, layer, model, mtree, pax, simple_signing, sparse, xattrs
from appbox.oci.cache import Cache
from appbox.oci.challenge import parse_challenges
from appbox.oci.ids import IdMap
from appbox.oci.inflate import inflate
from appbox.oci.reference import parse_image, parse_transport
from appbox.oci.source import open_source
from appbox.oci.tar import Archive, Member
from tests.fuzz import repair

LARGEST: Final = 1 << 30
"""The largest member that the checks allow; its bytes would have to be in the input, so none gets near it."""
_IDS: Final = IdMap(100_000, 65536)


_QUOTED: Final = re.compile(r"'.*'|\".*\"|[0-9]+|\S+://\S*|\S+:(?= )")


class Broken(AssertionError):
    """A law does not hold."""


@dataclass(frozen=True, slots=True)
class Target:
    """One parser. `check` is its law; `words` are pieces of its language; `repair` mends what mutation breaks."""

    name: str
    check: Callable[[bytes], str]
    words: tuple[bytes, ...] = ()
    repair: Callable[[bytes], bytes] = bytes
    longest: int = 1 << 14
    """Bytes of an input."""


def members(data: bytes, size: int) -> list[tuple[Member, bytes]]:
    """Return what is in a tar archive that comes in blocks of `size` bytes."""
    blocks: Iterator[bytes] = (data[at : at + size] for at in range(0, len(data), size))
    archive = Archive(blocks, LARGEST)
    return [(member, b"".join(block[a:b] for block, a, b in archive.data())) for member in archive]


def _or_error(read: Callable[[], object]) -> object:
    """Return the value, or the outline of the error."""
    try:
        return read()
    except AppboxError as error:
        _told(error)
        return outline(error)


def outline(error: AppboxError) -> str:
    """Return the class of an error and its words without what they quote from the input."""
    return f"{type(error).__name__}: {_QUOTED.sub('', error.what)[:60]}"


def _told(error: AppboxError) -> None:
    """An error is one printable line, whatever it quotes."""
    if not str(error).replace("\t", " ").isprintable() or len(str(error)) > 8192:
        raise Broken(f"an error is not one line: {str(error)!r}")


def check_tar(data: bytes) -> str:
    """The parser and the rules of layers; the same in blocks of any size; each member as long as it says."""
    found = _or_error(lambda: members(data, 512))
    if found != _or_error(lambda: members(data, 700)):
        raise Broken("the size of the blocks changes what is read")
    if not isinstance(found, list):
        return str(found)
    return " ".join(sorted({_check_member(member, content) for member, content in found}))


def _check_member(member: Member, content: bytes) -> str:
    if len(content) != member.size or b"\0" in member.name + member.link:
        raise Broken(f"a member is not what it says: {member}")
    if member.sparse is not None and sum(length for _, length in member.sparse.segments) != member.size:
        raise Broken(f"the map of a sparse file does not fit: {member}")
    meant = _or_error(lambda: layer.interpret(member, _IDS))
    if isinstance(meant, layer.Entry):
        if b".." in meant.path.split(b"/") or meant.path.startswith(b"/") or b"\0" in meant.path:
            raise Broken(f"a name leaves the root: {meant.path!r}")
        for key, value in meant.xattrs.kept:
            if key == xattrs.CAPABILITY:
                _or_error(lambda value=value: xattrs.capability(value, 100_000, 65536))  # type: ignore[misc]
        return f"{meant.kind.value}{'+' if member.records else ''}{'*' if member.sparse else ''}"
    return meant if isinstance(meant, str) else "whiteout"


def check_pax(data: bytes) -> str:
    """Records come back when they are written again; the readers of their values keep the law."""
    found = _or_error(lambda: pax.records(data))
    if not isinstance(found, list):
        return str(found)
    if pax.records(b"".join(repair.record(key, value) for key, value in found)) != found:
        raise Broken("records do not parse back to themselves")
    outcomes = {str(type(_or_error(lambda: xattrs.choose(found))).__name__)}
    for key, value in found:
        number = _or_error(lambda value=value: pax.integer("n", value))  # type: ignore[misc]
        time = _or_error(lambda value=value: pax.nanoseconds("t", value))  # type: ignore[misc]
        outcomes.add(f"{key[:11]!r}{type(number).__name__}{type(time).__name__}")
    outcomes.add(str(_or_error(lambda: sparse.build(sparse.from_records(found) or [], 1 << 30, 512)))[:20])
    return " ".join(sorted(outcomes)[:8])


def check_reference(data: bytes) -> str:
    """A reference that is taken parses back to itself."""
    text = data.decode("utf-8", "surrogateescape")
    outcomes = []
    for parse in (parse_image, parse_transport):
        found = _or_error(lambda parse=parse: parse(text))  # type: ignore[misc]
        if not isinstance(found, str) and parse(str(found)) != found:
            raise Broken(f"{text!r} does not parse back to itself")
        outcomes.append(found if isinstance(found, str) else type(getattr(found, "image", found)).__name__)
    return " ".join(outcomes)


def check_challenge(data: bytes) -> str:
    """There is no error at all: what cannot be read is left out. Names are lower case, values come from the text."""
    text = data.decode("latin-1")
    found = parse_challenges(text.split("\n"))
    for challenge in found:
        if challenge.scheme != challenge.scheme.lower() or any(name != name.lower() for name in challenge.parameters):
            raise Broken(f"a name is not in lower case: {challenge}")
        if any(value not in text and "\\" not in text for value in challenge.parameters.values()):
            raise Broken(f"a value is not in the header: {challenge}")
    if parse_challenges(repair.challenge(one.scheme, one.parameters) for one in found) != found:
        raise Broken("challenges do not parse back to themselves")
    return " ".join(f"{one.scheme[:8]}{len(one.parameters)}" for one in found[:4])


def check_config(data: bytes) -> str:
    """An image's configuration."""
    found = _or_error(lambda: image_config.parse_config(data))
    return found if isinstance(found, str) else f"layers {min(len(found.diff_ids), 3)}"  # type: ignore[attr-defined]


def check_manifest(data: bytes) -> str:
    """An index or a manifest, by each name that its sender may give it: never one under the name of the other."""
    outcomes = []
    for said in ("", model.OCI_INDEX, model.OCI_MANIFEST, model.DOCKER_INDEX, model.DOCKER_MANIFEST):
        found = _or_error(lambda said=said: model.parse_document(data, said))  # type: ignore[misc]
        if said and isinstance(found, model.Index) != (said in model.INDEX_TYPES) and not isinstance(found, str):
            raise Broken(f"read as {type(found).__name__}, called {said}")
        if isinstance(found, model.Index):
            _or_error(lambda found=found: model.select(found, model.Platform.parse("linux/amd64")))  # type: ignore[misc]
        outcomes.append(found if isinstance(found, str) else type(found).__name__)
    keys = {str(key).lower() for key in _keys(data)}
    if "manifests" in keys and "layers" in keys and any(not one.startswith("Refused") for one in outcomes):
        raise Broken("read in one way, though it can be read in two")
    return " ".join(sorted(set(outcomes)))


def _keys(data: bytes) -> list[object]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return []
    return list(value) if isinstance(value, dict) else []


def check_archive(transport: str, data: bytes) -> str:
    """An image in an archive, through the door that commands use: what is handed out has the digests that name it."""
    with open(os.memfd_create("archive"), "w+b") as file, tempfile.TemporaryDirectory(prefix="appbox-fuzz.") as cache:
        file.write(data)
        file.flush()
        return str(_or_error(lambda: _read_archive(f"{transport}:/proc/self/fd/{file.fileno()}", cache)))


def _read_archive(text: str, cache: str) -> str:
    with open_source(parse_transport(text), Cache(cache)) as source:
        image = source.resolve(None, None, model.Platform.parse("linux/amd64"))
        if not image.digest.matches(image.manifest_bytes):
            raise Broken("a manifest does not have its digest")
        source.fetch(image)
        for descriptor in image.manifest.layers:
            with source.layer(image, descriptor) as stream:
                if not descriptor.digest.matches(stream.read(descriptor.size + 1)):
                    raise Broken("a layer does not have its digest")
    return f"layers {min(len(image.manifest.layers), 3)}"


def check_inflate(data: bytes) -> str:
    """gzip and zstd; at most a few MiB are taken of what comes out."""
    outcomes = []
    for kind in ("gzip", "zstd"):
        total = 0
        try:
            for block in inflate(kind, (data[at : at + 100] for at in range(0, len(data), 100))):
                total += len(block)
                if total > 4 << 20:
                    break
        except Refused as error:
            _told(error)
            outcomes.append(outline(error))
        outcomes.append(f"{kind}{total.bit_length()}")
    return " ".join(outcomes)


def check_mtree(data: bytes) -> str:
    """A manifest of a rootfs that is taken is, byte for byte, the one that would be written of what it lists."""
    found = _or_error(lambda: list(mtree.parse(data.splitlines(keepends=True))))
    if not isinstance(found, list):
        return str(found)
    again = mtree.HEADER + b"".join(map(mtree.line, found))
    if again != data:
        raise Broken(f"read is {data[-300:]!r}, written would be {again[-300:]!r}")
    return " ".join(sorted({node.kind.value for node in found}))


def check_signature(data: bytes) -> str:
    """What cosign signs, and the manifest that lists its signatures."""
    claim = _or_error(lambda: simple_signing.parse_claim(data))
    listed = _or_error(lambda: simple_signing.parse_signatures(data, model.OCI_MANIFEST))
    return f"{claim if isinstance(claim, str) else 'claim'} {listed if isinstance(listed, str) else 'signatures'}"


_PAX_WORDS: Final = (
    b"path", b"linkpath", b"size", b"mtime", b"uid", b"gid", b"GNU.sparse.major", b"GNU.sparse.minor",
    b"GNU.sparse.map", b"GNU.sparse.size", b"GNU.sparse.realsize", b"GNU.sparse.offset", b"GNU.sparse.numbytes",
    b"GNU.sparse.name", b"SCHILY.xattr.user.a", b"SCHILY.xattr.security.capability", b"-1.5", b"9" * 19, b"0,512,",
    b"hdrcharset",
)  # fmt: skip
_JSON_WORDS: Final = (
    b'"schemaVersion":2', b'"mediaType":"', b'"manifests":[]', b'"layers":[]', b'"config":{}', b'"digest":"sha256:',
    b'"size":', b"1e999", b"-1", b"null", b"true", b"NaN", b'"\\ud800"', b'"\\u0000"', b"[[[[", b'"platform":{}',
    b"9223372036854775808", b'"urls":[]', b'"annotations":{}', b'"rootfs":{}', b'"diff_ids":[]', b'"history":[]',
    model.OCI_INDEX.encode(), model.OCI_MANIFEST.encode(), model.DOCKER_INDEX.encode(), model.DOCKER_MANIFEST.encode(),
)  # fmt: skip

_FILES: Final = (
    *_PAX_WORDS[:3],
    b"index.json",
    b"oci-layout",
    b"manifest.json",
    b"repositories",
    b"../",
    b"blobs/sha256/",
)

TARGETS: Final[Mapping[str, Target]] = {
    target.name: target
    for target in (
        Target("tar", check_tar, (*_PAX_WORDS, b"ustar\x0000", b"ustar  \0", b".wh.", b"../", bytes(512)),
               repair.tar, 1 << 15),
        Target("pax", check_pax, _PAX_WORDS, repair.pax, 4096),
        Target("reference", check_reference,
               (b"docker://", b"oci:", b"oci-archive:", b"docker-archive:", b"@sha256:", b"[::1]", b":5000"),
               longest=600),
        Target("challenge", check_challenge,
               (b"Bearer ", b"Basic ", b"Negotiate ", b'realm="', b"scope=", b'\\"', b", ", b"dG9r=="), longest=4096),
        Target("config", check_config, _JSON_WORDS, longest=8192),
        Target("manifest", check_manifest, _JSON_WORDS, longest=8192),
        Target("oci-archive", partial(check_archive, "oci-archive"), _FILES, repair.tar, 1 << 14),
        Target("docker-archive", partial(check_archive, "docker-archive"), _FILES, repair.tar, 1 << 14),
        Target("mtree", check_mtree,
               (b" type=", b"file", b"dir", b"char", b"\\057", b"\\141", b" nlink=1", b" xattr.user.a=", b"./", b"\n",
                b" device=native,1,3", b" link=", b" size=0 sha256digest="), longest=4096),
        Target("signature", check_signature,
               (*_JSON_WORDS[:8], b'"critical":{}', b'"image":{}', b'"docker-manifest-digest":""', b'"optional":null'),
               longest=8192),
        Target("inflate", check_inflate, (b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18"), longest=4096),
    )
}  # fmt: skip
"""Every target by its name."""
