"""A manifest compiled to files."""

from __future__ import annotations

import tomllib
from dataclasses import replace

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from appbox import desired as desires
from appbox.desired_values import UNKNOWN
from appbox.errors import ManifestError, Refused
from appbox.oci.rootfs import Node, RootfsFacts
from tests.ground.pure import BASE, FACTS, build, locked, rootfs, spec, text

DATA = '[volumes.data]\npath = "/data"\n'
HOST = '[network]\nmode = "host"\n'


def test_a_service_consists_of_these_files() -> None:
    found = build(f'{DATA}[config."/etc/web.conf"]\ntext = "x"\n')
    assert [(f.path, f.mode, f.owner) for f in found.files] == [
        ("bundle.toml", 0o644, (0, 0)),
        ("config.json", 0o600, (0, 0)),
        ("config/etc/web.conf", 0o444, (BASE, BASE)),
        ("etc/hostname", 0o644, (0, 0)),
        ("etc/hosts", 0o644, (0, 0)),
        ("run", 0o755, (0, 0)),
        ("service.json", 0o600, (0, 0)),
    ]
    assert found.directory == "web-1.0"
    assert (found.complete, found.mapped, found.base, found.size) == (True, True, BASE, 65536)


def test_the_same_input_gives_the_same_bytes() -> None:
    tables = f'{DATA}{HOST}[process]\nenv = {{ B = "1", A = "2" }}\n'
    assert build(tables) == build(tables)


def test_every_byte_of_free_text_travels_as_json() -> None:
    weird = "%n $x `id` 'q' \\\\ é"
    quoted = weird.replace("\\", "\\\\")
    found = build(f'description = "{quoted}"\n[process]\nargs = ["{quoted}"]\nenv = {{ A = "{quoted}" }}\n')
    assert weird in spec(found)["process"]["args"]
    assert f"A={weird}" in spec(found)["process"]["env"]
    assert tomllib.loads(text(found, "bundle.toml"))["manifest"]["description"] == weird
    for carrier in (*(unit.text for unit in found.units), text(found, "run")):
        assert "`id`" not in carrier
        assert "é" not in carrier


def test_before_the_unpacking_it_says_what_is_not_known() -> None:
    found = desires.build(locked(f'{DATA}[config."/c"]\ntext = "x"\n', User="www"), FACTS, BASE, None)
    assert not found.complete
    assert spec(found)["process"]["user"] == UNKNOWN
    assert f'user = "{UNKNOWN}"' in text(found, "bundle.toml")
    assert found.volumes[0].owner is None


def test_a_user_namespace_maps_the_whole_range() -> None:
    mapping = [{"containerID": 0, "hostID": BASE, "size": 65536}]
    assert spec(build())["linux"]["uidMappings"] == mapping
    host = build('[security]\nuserns = "host"\n')
    assert (host.mapped, host.base) == (False, 0)
    assert "uidMappings" not in spec(host)["linux"]
    assert 'userns = false\nuser = "0:0"' in text(host, "bundle.toml")


def test_configuration_belongs_to_whom_the_manifest_says() -> None:
    tables = '[config."/a"]\ntext = "x"\n[config."/b"]\ntext = "x"\nowner = "www"\nmode = "0640"\non_change = "none"\n'
    files = {f.path: f for f in build(tables, User="7:8").files}
    assert (files["config/a"].owner, files["config/a"].restarts) == ((BASE + 7, BASE + 8), True)
    assert files["config/b"].owner == (BASE + 33, BASE + 33)
    assert (files["config/b"].mode, files["config/b"].restarts) == (0o640, False)
    with pytest.raises(ManifestError, match=r'config\."/a"\.owner: no such user'):
        build('[config."/a"]\ntext = "x"\nowner = "nobody"\n')


def test_all_broken_templates_are_reported_at_once() -> None:
    tables = '[config."/a"]\ntemplate = "a.j2"\n[config."/b"]\ntemplate = "b.j2"\n'
    with pytest.raises(ManifestError) as caught:
        build(tables, files={"/a": b"{{ x }}", "/b": b"\n{{ y }}"})
    assert [(p.file, p.line) for p in caught.value.problems] == [("a.j2", 1), ("b.j2", 2)]


def test_ids_outside_of_the_range_are_refused() -> None:
    """A number of the manifest is refused when it is parsed; names come from the image."""
    passwd = b"big:x:70000:70000::/:\n"
    for table in (f'{DATA}owner = "big"\n', '[config."/a"]\ntext = "x"\nowner = "big"\n'):
        with pytest.raises((Refused, ManifestError), match=r"70000|a service has the ids below 65536"):
            build(table, found=rootfs(passwd=passwd))
        assert build(f'{table}[security]\nuserns = "host"\n', found=rootfs(passwd=passwd)).complete


def test_mounts_of_files_follow_the_image_s_links() -> None:
    nodes = {
        "/etc/resolv.conf": Node("/run/resolv.conf", "missing"),
        "/etc/web.conf": Node("/opt/web/conf", "file"),
    }
    found = build('[config."/etc/web.conf"]\ntext = "x"\n', found=RootfsFacts(None, None, nodes))
    mounts = {m["destination"]: m["source"] for m in spec(found)["mounts"]}
    assert mounts["/run/resolv.conf"] == "/opt/containers/web-1.0/.live/resolv.conf"
    assert mounts["/opt/web/conf"] == "/opt/containers/web-1.0/config/etc/web.conf"
    assert mounts["/etc/hosts"] == "/opt/containers/web-1.0/.current/etc/hosts"


def test_a_link_to_where_something_else_is_mounted_is_refused() -> None:
    nodes = {"/etc/web.conf": Node("/etc/hosts", "file")}
    with pytest.raises(ManifestError, match="a volume or another file is at /etc/hosts too"):
        build('[config."/etc/web.conf"]\ntext = "x"\n', found=RootfsFacts(None, None, nodes))
    nodes = {"/etc/hosts": Node("/proc/self/fd/3", "file")}
    with pytest.raises(Refused, match="the image makes /etc/hosts a link to /proc/self/fd/3"):
        build(found=RootfsFacts(None, None, nodes))


def test_the_unit_is_for_the_host_s_init_system() -> None:
    units = [build(facts=replace(FACTS, init=init)).units for init in ("systemd", "openrc", "none")]
    assert [unit.path for found in units for unit in found] == ["/etc/systemd/system/web.service", "/etc/init.d/web"]


def test_what_apply_asks_of_a_root_file_system() -> None:
    tables = f'{DATA}[config."/c"]\ntext = ""\n'
    found = desires.wanted_nodes(locked(tables, Volumes={"v/": {}}))
    assert set(found) >= {"/c", "/data", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/v"}
    assert list(found) == sorted(found)


def test_bundle_toml_tells_everything_again() -> None:
    found = build(f"{DATA}{HOST}")
    meta = tomllib.loads(text(found, "bundle.toml"))
    keys = ("schema", "name", "version", "uid_base", "userns")
    assert [meta[key] for key in keys] == [1, "web", "1.0", BASE, True]
    assert meta["image"]["digest"] == found.digest
    assert meta["manifest"]["volumes"] == {"data": {"path": "/data"}}
    assert meta["stop_signal"] == "SIGTERM"


_STRINGS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@settings(max_examples=40, deadline=None)
@given(st.lists(_STRINGS.filter(bool), min_size=1, max_size=3), st.dictionaries(st.from_regex(r"\A[A-Z]+\Z"), _STRINGS))
def test_any_words_make_a_valid_spec(args: list[str], env: dict[str, str]) -> None:
    words = {"process": {"args": args, "entrypoint": [], "env": env}}
    found = spec(build(tomli_w.dumps(words)))
    assert found["process"]["args"] == args
    assert [f"{k}={v}" for k, v in env.items() if k not in {"PATH", "HOSTNAME"}] == [
        entry for entry in found["process"]["env"] if entry.partition("=")[0] in set(env) - {"PATH", "HOSTNAME"}
    ]
