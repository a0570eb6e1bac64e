"""Which volumes are suggested for what a service wrote, and that a manifest takes them."""

from __future__ import annotations

import tomllib
from typing import Any

from appbox import manifest
from appbox.host.upper import Change, Place, Write
from appbox.suggestion import Suggestion

HEAD = 'name = "web"\nimage = "docker.io/library/web"\nversion = "1"\n'


def write(path: str, home: str, *, change: Change = "added", kind: str = "file", **more: Any) -> Write:
    """Return a write below the image's directory `home`."""
    top = path.removeprefix(home).strip("/").partition("/")[0]
    inside = "/" in path.removeprefix(home).strip("/")
    place = {"directory": inside or kind == "directory", **more}
    size = place.pop("size", 10)
    return Write(path, change, kind, Place(home, top, **place), size)


def volumes(*writes: Write, **more: Any) -> dict[str, dict[str, Any]]:
    suggestion = Suggestion(**{"user": "0:0", **more})
    for one in writes:
        suggestion.add(one)
    text = suggestion.text("web", has_security=False)
    made = manifest.parse(HEAD + text, file="web.toml")
    assert made.security.rootfs == "read-only"
    data = suggestion.data()
    assert tomllib.loads(text) == {key: data[key] for key in ("security", "volumes") if data[key]}
    return {table["path"]: table for table in data["volumes"].values()}


def test_nothing_is_needed_for_what_can_be_written_anyway() -> None:
    assert volumes() == {}
    places = ("/run/app.pid", "/tmp/x/y", "/var/tmp/z")
    assert volumes(*(write(path, path.rpartition("/")[0]) for path in places)) == {}
    assert volumes(write("/run/app/pid", "/")) == {}  # the image lacks /run


def test_the_nearest_directory_of_the_image_becomes_a_volume() -> None:
    conf = write("/etc/nginx/conf.d/default.conf", "/etc/nginx/conf.d", change="changed")
    body = write("/var/lib/nginx/body", "/var/lib/nginx", kind="directory")
    gone = write("/opt/app/lock", "/opt/app", change="deleted")
    assert volumes(conf, body, gone) == {
        path: {"path": path} for path in ("/etc/nginx/conf.d", "/opt/app", "/var/lib/nginx")
    }


def test_what_is_made_where_everything_is_becomes_a_volume_of_its_own() -> None:
    assert volumes(write("/var/lib/app/state/x", "/var/lib", owner=(7, 8), mode=0o750)) == {
        "/var/lib/app": {"path": "/var/lib/app", "owner": "7:8"}
    }
    assert volumes(write("/var/lib/app/x", "/var/lib", owner=(0, 0)))["/var/lib/app"] == {"path": "/var/lib/app"}
    assert volumes(write("/var/lib/app/x", "/var/lib", owner=(70_000, 0)))["/var/lib/app"] == {"path": "/var/lib/app"}
    assert list(volumes(write("/srv/file", "/srv"))) == ["/srv"]


def test_caches_are_kept_in_memory_where_nothing_is_lost() -> None:
    cache = write("/var/cache/app/x", "/var/cache/app", bare=True, size=100 << 20)
    assert volumes(cache) == {"/var/cache/app": {"path": "/var/cache/app", "tmpfs": True, "size": "400M"}}
    assert volumes(write("/var/cache/app/x", "/var/cache/app")) == {"/var/cache/app": {"path": "/var/cache/app"}}
    own = write("/var/cache/app/x", "/var/cache", owner=(7, 7), mode=0o2750)
    assert volumes(own) == {
        "/var/cache/app": {"path": "/var/cache/app", "owner": "7:7", "tmpfs": True, "size": "64M", "mode": "0750"}
    }


def test_a_volume_in_another_one_is_left_out() -> None:
    inner, outer = write("/etc/app/x/y", "/etc/app/x"), write("/etc/app/z", "/etc/app")
    assert list(volumes(inner, outer)) == ["/etc/app"]
    cache, kept = write("/var/cache/x", "/var/cache", bare=True), write("/var/cache/app/x", "/var/cache/app")
    assert list(volumes(cache, kept)) == ["/var/cache", "/var/cache/app"]


def test_names_are_new_and_paths_are_exact() -> None:
    path = "/srv/it's \"\\ $(x) 🎉"
    found = volumes(write(f"{path}/x", path), write("/data/x", "/data"), taken=frozenset({"data"}))
    assert set(found) == {path, "/data"}
    suggestion = Suggestion(taken=frozenset({"data"}))
    suggestion.add(write("/data/x", "/data"))
    assert list(suggestion.volumes()) == ["data-2"]


def test_what_no_volume_can_help_is_said() -> None:
    suggestion = Suggestion()
    for path, home in (("/file", "/"), ("/bad\nname/x", "/bad\nname"), ("/\udcff/x", "/\udcff")):
        suggestion.add(write(path, home))
    text = suggestion.text("web", has_security=True)
    assert "volumes" not in tomllib.loads(text)
    assert "security" not in tomllib.loads(text)
    assert '# Set in the [security] that the manifest has: rootfs = "read-only"' in text
    assert [line for line in text.splitlines() if line.startswith("# /")]
    assert all(line.isprintable() for line in text.splitlines())
    assert [one["path"] for one in suggestion.data()["impossible"]] == ["/file", "/bad\nname/x", "/\udcff/x"]


def test_there_is_an_end_to_it() -> None:
    suggestion = Suggestion()
    for number in range(1000):
        suggestion.add(write(f"/var/lib/{number}/x", "/var/lib"))
        suggestion.add(write(f"/{number}", "/"))
    assert len(suggestion.volumes()) == 100
    assert "900 writes are in yet other places" in suggestion.text("web", has_security=False)
