"""What a host's overlay says otherwise, and whose line a finding is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from appbox import checking, overlays, sources
from appbox.errors import ManifestError
from tests.ground.pure import HEAD

TABLES = """
[process]
env = { A = "1", B = "2" }
[vars]
size = "1g"
deep = { x = 1, list = [1, 2] }
[config."/c"]
text = "x"
mode = "0400"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "hosts").mkdir()
    (tmp_path / "web.toml").write_text(HEAD + TABLES)
    return tmp_path


def load(folder: Path, overlay: str, host: str = "h") -> Any:
    (folder / "hosts/h.toml").write_text(overlay)
    (one,) = sources.load([str(folder)], host)
    return one


def refused(folder: Path, overlay: str) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        load(folder, overlay)
    with pytest.raises(ManifestError) as checked:
        checking.check([str(folder)])
    assert str(checked.value) == str(caught.value)
    return str(caught.value).replace(f"{folder}/", "").splitlines()


def test_tables_are_merged_and_all_else_is_replaced(folder: Path) -> None:
    one = load(
        folder,
        '[vars]\nsize = "2g"\nnew = 1\ndeep = { list = [3] }\n'
        '[services.web]\ndescription = "d"\nprocess.env.B = "3"\nprocess.args = ["a"]\nvars.new = 2\n',
    )
    assert dict(one.manifest.process.env) == {"A": "1", "B": "3"}
    assert one.manifest.process.args == ("a",)
    assert one.manifest.vars == {"size": "2g", "new": 2, "deep": {"x": 1, "list": (3,)}}
    assert one.manifest.description == "d"
    assert one.document.overlay is not None


def test_one_of_several_keys_replaces_another(folder: Path) -> None:
    (folder / "f").write_bytes(b"of the file")
    one = load(folder, '[services.web.config."/c"]\nfile = "f"\n')
    assert (one.configs["/c"].data, one.manifest.config["/c"].mode) == (b"of the file", 0o400)
    one = load(folder, '[services.web.config."/c"]\nmode = "0444"\n')
    assert (one.configs["/c"].data, one.manifest.config["/c"].mode) == (b"x", 0o444)


@pytest.mark.parametrize(
    ("host", "joins"), [("h", True), ("H", True), ("h.example.org", True), ("x.h", False), ("", False)]
)
def test_a_host_is_known_by_its_name_in_any_case(folder: Path, host: str, *, joins: bool) -> None:
    assert (load(folder, "[vars]\nsize = 1\n", host).document.overlay is not None) == joins


def test_the_whole_name_counts_before_its_first_part(folder: Path) -> None:
    (folder / "hosts/h.example.org.toml").write_text('[vars]\nsize = "whole"\n')
    assert load(folder, '[vars]\nsize = "part"\n', "h.example.org").manifest.vars["size"] == "whole"
    (folder / "hosts/H.toml").write_text("")
    with pytest.raises(ManifestError, match=r"h\.toml: is for the same host as .*H\.toml; keep one of them"):
        load(folder, "", "h")


def test_what_does_not_concern_a_service_leaves_it_as_it_is(folder: Path) -> None:
    (folder / "b.toml").write_text(HEAD.replace('"web"', '"b"'))
    (folder / "hosts/h.toml").write_text('[services.b]\ndescription = "x"\n')
    loaded = sources.load([str(folder)], "h")
    assert [one.document.overlay is not None for one in loaded] == [True, False]
    # The other manifest of the directory is known although it is not asked for.
    assert sources.load([str(folder / "web.toml")], "h")[0].document.overlay is None


@pytest.mark.parametrize(
    ("overlay", "words"),
    [
        ("\nx = 1\n", "hosts/h.toml:2: x: unknown key; an overlay holds [vars] and [services.NAME]"),
        ("vars = 1\n", "hosts/h.toml:1: vars: expected a table, got a whole number; write [vars]"),
        ("services = []\n", "hosts/h.toml:1: services: expected a table, got a list; write [services]"),
        ("[services]\nweb = 1\n", "hosts/h.toml:2: services.web: expected a table, got a whole number"),
        (
            "[services.wib]\n",
            "hosts/h.toml:1: services.wib: no manifest here describes it; the manifests here describe web",
        ),
        ('[services.web]\nname = "x"\n', "hosts/h.toml:2: services.web.name: the name of a service is the same"),
        ("[services.web]\nx = 1\n", "hosts/h.toml:2: services.web.x: unknown key"),
        ("\n[services.web.process]\nwork = 1\n", "hosts/h.toml:3: services.web.process.work: unknown key"),
        ("[services.web.process]\nargs = [1]\n", "hosts/h.toml:2: services.web.process.args[0]: expected a string"),
        ("\n[vars]\n1x = 1\n", "hosts/h.toml:3: vars.1x: is not a variable name"),
        ("[services.web.vars]\n1x = 1\n", "hosts/h.toml:2: services.web.vars.1x: is not a variable name"),
        ('[services.web]\nconfig."/c/d".text = ""\n', 'hosts/h.toml:2: services.web.config."/c/d": "/c/d" lies below'),
        ("[services\n", "hosts/h.toml:1: not valid TOML"),
        ('[services."a b"]\n', 'hosts/h.toml:1: services."a b": "a b" is not a service name'),
        (
            '[services.web.config."/c"]\nfile = "none"\n',
            'hosts/h.toml:2: services.web.config."/c".file: none: cannot be',
        ),
    ],
)
def test_a_broken_overlay_is_named_with_its_line_and_key(folder: Path, overlay: str, words: str) -> None:
    (line,) = refused(folder, overlay)
    assert line.startswith(words)


def test_a_rule_that_both_break_names_the_key_that_stands_alone(folder: Path) -> None:
    (folder / "web.toml").write_text(HEAD + '[security]\nsysctl = { "net.core.somaxconn" = "1" }\n')
    (line,) = refused(folder, '[services.web.network]\nmode = "host"\n')
    assert line.startswith('web.toml:5: security.sysctl."net.core.somaxconn": belongs to the host')


def test_overlays_are_bounded_text(folder: Path) -> None:
    (folder / "hosts/h.toml").write_bytes(b"\xff")
    with pytest.raises(ManifestError, match=r"hosts/h\.toml:1: is not UTF-8"):
        sources.load([str(folder)], "h")
    (folder / "hosts/h.toml").write_bytes(b"#" * (1 << 20) + b"\n")
    with pytest.raises(ManifestError, match=r"hosts/h\.toml: is larger than 1048576 bytes"):
        sources.load([str(folder)], "h")


def test_check_looks_at_every_host_and_plan_only_at_its_own(folder: Path) -> None:
    (folder / "t.j2").write_text("{{ facts.hostname }} {{ only }}")
    (folder / "web.toml").write_text(HEAD + '[config."/c"]\ntemplate = "t.j2"\n')
    (folder / "hosts/a.toml").write_text("[vars]\nonly = 1\n")
    assert checking.check([str(folder)]) == [("web", "1.0", f"{folder}/web.toml")]
    (folder / "hosts/b.toml").write_text("[services.web]\nx = 1\n")
    with pytest.raises(ManifestError, match=r"hosts/b\.toml:2: services\.web\.x: unknown key"):
        checking.check([str(folder)])
    assert len(sources.load([str(folder)], "a")) == 1
    (folder / "hosts/b.toml").write_text("")
    with pytest.raises(ManifestError, match=r"t\.j2:1: config.*'only' is undefined \(on the host b\)"):
        checking.check([str(folder)])


def test_merging_changes_neither_of_both() -> None:
    overlay = overlays.parse("[vars]\na.b = 2\n[services.web.vars.a]\nc = 3\n", file="h.toml")
    data = {"name": "web", "vars": {"a": {"b": 1}}}
    assert overlays.merge(data, overlay)["vars"] == {"a": {"b": 2, "c": 3}}
    assert data == {"name": "web", "vars": {"a": {"b": 1}}}
