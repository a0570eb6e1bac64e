"""Configuration as the container sees it: mounts, modes, and what changes ask for."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from appbox import desired, live
from appbox.configuration import ConfigSource
from appbox.errors import ManifestError, Refused
from appbox.host.facts import Abilities
from appbox.oci.rootfs import Node
from tests.ground.pure import BASE, FACTS, image, locked, rootfs

TABLES = """
[config."/etc/d"]
directory = "d"
mode = "0440"
owner = "www"
on_change = "{directory}"
[config."/etc/d/own"]
text = "x"
on_change = "none"
[config."/etc/file"]
text = "y"
on_change = "none"
[service]
reload = "SIGHUP"
"""


def build(
    names: dict[str, bool], tables: str = TABLES.format(directory="reload"), *nodes: Node, able: bool = True
) -> desired.Desired:
    """Return a service with a directory of files; each name says whether it is a program."""
    plain = locked(tables, of=image(User="7:8"))
    key = ("config", "/etc/d", "directory")
    inside = {
        f"/etc/d/{name}": ConfigSource(b"data", False, f"d/{name}", plain.document, key, program)
        for name, program in names.items()
    }
    configs = {**inside, **{path: source for path, source in plain.configs.items() if path != "/etc/d"}}
    facts = replace(FACTS, abilities=Abilities(live_mounts=able))
    return desired.build(replace(plain, configs=configs), facts, BASE, rootfs(*nodes))


def mounts(wanted: desired.Desired) -> dict[str, Any]:
    spec = json.loads(next(file.data for file in wanted.files if file.path == "config.json"))
    return {mount["destination"]: mount for mount in spec["mounts"]}


def test_a_directory_is_one_mount_with_all_that_lies_in_it() -> None:
    wanted = build({"a": False, "sub/b": False})
    found = mounts(wanted)
    assert found["/etc/d"]["source"] == "/opt/containers/web-1.0/config/etc/d"
    assert found["/etc/d"]["options"] == ["bind", "ro", "nosuid", "nodev", "noexec"]
    assert "/etc/d/own" not in found
    files = {f.path: (f.mode, f.owner, f.on_change) for f in wanted.files if f.path.startswith("config/")}
    assert files == {
        "config/etc/d/a": (0o440, (BASE + 33, BASE + 33), "reload"),
        "config/etc/d/sub/b": (0o440, (BASE + 33, BASE + 33), "reload"),
        "config/etc/d/own": (0o444, (BASE + 7, BASE + 8), "none"),
        "config/etc/file": (0o444, (BASE + 7, BASE + 8), "none"),
    }


def test_programs_may_be_executed() -> None:
    wanted = build({"tool": True})
    assert next(f.mode for f in wanted.files if f.path == "config/etc/d/tool") == 0o550
    assert mounts(wanted)["/etc/d"]["options"] == ["bind", "ro", "nosuid", "nodev"]
    assert mounts(wanted)["/etc/file"]["options"][-1] == "noexec"


def test_a_link_of_the_image_is_followed_and_other_things_are_refused() -> None:
    node = Node("/srv/d", "directory")
    plain = build({"a": False})
    wanted = desired.build(
        replace(
            locked(TABLES.format(directory="none")),
            configs={path.removeprefix("config"): source for path, source in _sources(plain).items()},
        ),
        FACTS,
        BASE,
        replace(rootfs(), nodes={"/etc/d": node}),
    )
    assert [(mount.table, mount.target) for mount in wanted.live] == [("/etc/d", "/srv/d"), ("/etc/file", "/etc/file")]
    with pytest.raises(Refused, match="a file at /etc/d, where the service needs a directory"):
        build({"a": False}, TABLES.format(directory="none"), Node("/etc/d", "file"))
    with pytest.raises(Refused, match="a directory at /etc/file, where the service needs a file"):
        build({"a": False}, TABLES.format(directory="none"), Node("/etc/file", "directory"))


def _sources(wanted: desired.Desired) -> dict[str, ConfigSource]:
    document = locked().document
    kinds = {"/etc/d": "directory", "/etc/d/own": "text", "/etc/file": "text"}
    return {
        f.path: ConfigSource(f.data, False, "", document, ("config", _table(f.path.removeprefix("config"), kinds), "x"))
        for f in wanted.files
        if f.path.startswith("config/")
    }


def _table(path: str, tables: dict[str, str]) -> str:
    return path if path in tables else "/etc/d"


@pytest.mark.parametrize(
    ("path", "asks"),
    [
        ("config/etc/d/a", "reload"),
        ("config/etc/d/own", "none"),
        ("config/etc/file", "none"),
        ("config/etc/d/gone", "reload"),
        ("config/etc/file/gone", "restart"),
        ("config/etc/dd", "restart"),
        ("config.json", "restart"),
        ("secrets/list", "restart"),
    ],
)
def test_what_a_change_asks_for(path: str, asks: str) -> None:
    wanted = build({"a": False})
    assert live.change_of(path, {file.path: file for file in wanted.files}, wanted.live) == asks


def test_a_kernel_that_cannot_replace_files_restarts() -> None:
    wanted = build({"a": False}, able=False)
    assert {f.on_change for f in wanted.files if f.path.startswith("config/")} == {"restart"}
    assert any("changes of /etc/d, /etc/d/own, /etc/file restart the service" in note for note in wanted.notes)
    assert not any("restart the service" in note for note in build({"a": False}).notes)


def test_a_volume_at_the_same_place_is_refused() -> None:
    tables = TABLES.format(directory="none") + '[volumes.v]\npath = "/etc/v"\n'
    node = Node("/etc/v", "directory")
    with pytest.raises(ManifestError, match="a volume or another file is at /etc/v too"):
        desired.build(
            locked(tables),
            FACTS,
            BASE,
            replace(rootfs(), nodes={"/etc/file": Node("/etc/v", "missing"), "/etc/v": node}),
        )
