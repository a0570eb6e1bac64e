"""The index of an export: what is written is read, and everything else is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from appbox import export_index
from appbox.errors import Refused
from appbox.export_index import Entry, Exported, ExportIndex, Secret

SHA = "ab" * 32
WEB = Exported(
    name="web",
    version="1.0",
    image="registry.example/web",
    reference="registry.example/web:1.0",
    digest=f"sha256:{SHA}",
    index=f"sha512:{SHA}{SHA}",
    platform="linux/amd64",
    data=("data",),
    format="9",
    elsewhere=("files: /srv",),
    secrets=(Secret("password", "file", "/etc/secret"),),
    requires=("db",),
)
INDEX = ExportIndex(
    (WEB,),
    (
        Entry("appbox.lock", 3, SHA),
        Entry("services/web.toml", 5, SHA),
        Entry("services/conf/a b.conf", 5, SHA, 0o755),
        Entry("rendered/web/config.json", 5, SHA, 0o600),
        Entry("oci-layout", 1, SHA),
        Entry("index.json", 1, SHA),
        Entry(f"signatures/sha256-{SHA}", 1, SHA),
        Entry(f"blobs/sha256/{SHA}", 1 << 40, SHA),
        Entry(f"blobs/sha512/{SHA}{SHA}", 9, SHA),
        Entry("data/web.tar", 1 << 40, SHA),
    ),
    "0.1",
)


def test_there_and_back() -> None:
    assert export_index.parse(INDEX.dumps()) == INDEX
    assert INDEX.entry("appbox.lock") == INDEX.members[0]
    assert INDEX.entry("none") is None


Change = Callable[[dict[str, Any]], object]


def _member(name: str, **changes: Any) -> Change:
    entry = {"name": name, "size": 1, "sha256": SHA, "mode": "0644", **changes}
    return lambda index: index["members"].append(entry)


def _service(**changes: Any) -> Change:
    return lambda index: index["services"][0].update(changes)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda i: i.update(kind="other"), "no export of appbox"),
        (lambda i: i.update(schema=2), "newer appbox"),
        (lambda i: i.update(schema=True), "schema"),
        (lambda i: i.pop("members"), "members"),
        (lambda i: i.update(services=[]), "no service"),
        (lambda i: i["services"].append(i["services"][0]), "twice"),
        (lambda i: i["members"].append(i["members"][0]), "twice"),
        (lambda i: i["members"].pop(0), "appbox.lock"),
        (lambda i: i["members"].pop(1), "services/web.toml"),
        (lambda i: i["members"].pop(), "data/web.tar"),
        (_member("../escape"), "name that no file can have"),
        (_member("/etc/passwd"), "name that no file can have"),
        (_member("services/../../etc/passwd"), "name that no file can have"),
        (_member("services//a"), "name that no file can have"),
        (_member("services/a\nb"), "name that no file can have"),
        (_member("services/./a"), "name that no file can have"),
        (_member("appbox.json"), "name that no file can have"),
        (_member("services/" + "a" * 256), "name that no file can have"),
        (_member("services/other.toml"), "belongs to no service"),
        (_member("services/hosts/here.toml"), "belongs to no service"),
        (_member("services/appbox.lock"), "belongs to no service"),
        (_member("services/.hidden"), "belongs to no service"),
        (_member("rendered/db/config.json"), "belongs to no service"),
        (_member("rendered/web"), "belongs to no service"),
        (_member("data/db.tar"), "belongs to no service"),
        (_member("data/web"), "belongs to no service"),
        (_member("blobs/sha256/abcd"), "64 lower-case hex"),
        (_member(f"blobs/sha256/{'cd' * 32}"), "not called by its digest"),
        (_member("services/large", size=5 << 20), "larger than"),
        (_member("services/large", size=-1), "out of range"),
        (_member("services/x", sha256="zz"), "hex"),
        (_member("services/x", mode="4755"), "permissions"),
        (_service(name="../web"), "no manifest can describe"),
        (_service(version=">=9"), "without a version"),
        (_service(version="../../x"), "no manifest can describe"),
        (_service(requires=["a/b"]), "no manifest can describe"),
        (_service(digest="latest"), "not a digest"),
    ],
)
def test_refusals(change: Change, words: str) -> None:
    data = json.loads(INDEX.dumps())
    change(data)
    with pytest.raises(Refused, match=words):
        export_index.parse(json.dumps(data).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"kind": "appbox-export"}', b"\xff", b'{"a": 1, "a": 1}'])
def test_what_is_no_index(data: bytes) -> None:
    with pytest.raises(Refused):
        export_index.parse(data)


def test_many_small_files_are_too_many_bytes() -> None:
    data = json.loads(INDEX.dumps())
    data["members"] += [{"name": f"services/{n}", "size": 4 << 20, "sha256": SHA, "mode": "0644"} for n in range(17)]
    with pytest.raises(Refused, match="manifests and files"):
        export_index.parse(json.dumps(data).encode())
