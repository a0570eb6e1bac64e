"""Manifests, images and hosts as values, for tests of the modules that know nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from appbox import desired as desires
from appbox import manifest as manifests
from appbox.configuration import ConfigSource
from appbox.desired_values import Desired
from appbox.document import Document
from appbox.host.facts import EXAMPLE, Facts
from appbox.locked import HostSource, Locked
from appbox.oci.digest import Digest
from appbox.oci.model import Image, parse_config, parse_manifest
from appbox.oci.platform import Platform
from appbox.oci.rootfs import Node, RootfsFacts
from tests.ground.tiny import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, sha256

FACTS = replace(EXAMPLE, live=True)
BASE = 0x70000000
HEAD = 'name = "web"\nimage = "docker.io/library/web"\nversion = "1.0"\n'
PASSWD = b"root:x:0:0:root:/root:/bin/sh\nwww:x:33:33::/:/bin/false\n"
GROUP = b"root:x:0:\nwww:x:33:\nmore:x:50:www\n"


def image(content: str = "1", **config: Any) -> Image:
    """Return an image; `content` decides over its digest."""
    settings = {"Cmd": ["/bin/app"], "Env": ["PATH=/bin"], **config}
    document = {"os": "linux", "architecture": "amd64", "config": settings, "rootfs": {"diff_ids": [sha256(b"layer")]}}
    described = json.dumps(document).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": sha256(described), "size": len(described)},
            "layers": [{"mediaType": OCI_LAYER, "digest": sha256(b"gzip"), "size": 1_500_000}],
            "annotations": {"content": content},
        }
    ).encode()
    return Image(
        reference=f"docker.io/library/web@{sha256(manifest)}",
        digest=Digest.parse(sha256(manifest)),
        index_digest=None,
        platform=Platform("linux", "amd64"),
        manifest=parse_manifest(manifest),
        config=parse_config(described),
        manifest_bytes=manifest,
        config_bytes=described,
    )


def locked(
    tables: str = "",
    *,
    head: str = HEAD,
    of: Image | None = None,
    files: Mapping[str, bytes] | None = None,
    sources: Mapping[str, HostSource | None] | None = None,
    **config: Any,
) -> Locked:
    """Return a manifest with an image of that configuration; `files` are what [config] names, by path."""
    text = head + tables
    document = Document("web.toml", text)
    parsed = manifests.parse(text, file="web.toml")
    configs = {}
    for path, table in parsed.config.items():
        key = ("config", path, "template" if table.template else "file" if table.file else "text")
        data = (files or {}).get(path, (table.text or "").encode())
        configs[path] = ConfigSource(data, table.template is not None, table.template or "", document, key)
    return Locked(parsed, document, of or image(**config), configs, sources or {})


def rootfs(*nodes: Node, passwd: bytes | None = PASSWD, group: bytes | None = GROUP) -> RootfsFacts:
    """Return a root file system that has the nodes at their own paths."""
    return RootfsFacts(passwd, group, {node.path: node for node in nodes})


def build(
    tables: str = "", *, facts: Facts = FACTS, base: int = BASE, found: RootfsFacts | None = None, **more: Any
) -> Desired:
    """Return the service of a manifest with its root file system known."""
    return desires.build(locked(tables, **more), facts, base, found or rootfs())


def spec(desired: Desired) -> Any:
    """Return config.json as data."""
    return json.loads(text(desired, "config.json"))


def text(desired: Desired, path: str) -> str:
    """Return the text of a generation's file."""
    return next(file.data.decode() for file in desired.files if file.path == path)
