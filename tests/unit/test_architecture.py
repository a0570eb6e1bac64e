"""The shape of the program, held: who may import what, which modules are pure, and that the map shows the tree."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "appbox"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if "templates" not in path.parts
}

ONLY = {
    "subprocess": {"appbox.host.process"},
    "ctypes": {"appbox.host.syscalls"},
    "httpx": {
        "appbox.oci.auth",
        "appbox.oci.endpoint",
        "appbox.oci.failures",
        "appbox.oci.push",
        "appbox.oci.registry",
        "appbox.oci.transport",
    },
    "cryptography": {"appbox.oci.signature"},
    "rich": {"appbox.progress"},
    "typer": {
        "appbox.commands.__init__",
        "appbox.commands.data",
        "appbox.commands.doctor",
        "appbox.commands.images",
        "appbox.commands.installed",
        "appbox.commands.manifests",
        "appbox.commands.past",
        "appbox.commands.root",
        "appbox.commands.running",
        "appbox.commands.transfer",
        "appbox.commands.versions",
    },
    "jinja2": {"appbox.configuration", "appbox.units.compiled", "appbox.units.render"},
    "pydantic": {
        "appbox.tables",
        "appbox.values",
        "appbox.manifest",
        "appbox.findings",
        "appbox.schema",
        "appbox.fields",
    },
}
"""Who may import what; everybody else goes through them."""

PURE = {
    "appbox",
    "appbox.actions",
    "appbox.addresses",
    "appbox.cni",
    "appbox.comparing",
    "appbox.configuration",
    "appbox.constraints",
    "appbox.container",
    "appbox.data_plan",
    "appbox.demands",
    "appbox.dependencies",
    "appbox.describing",
    "appbox.desired",
    "appbox.desired_values",
    "appbox.devices",
    "appbox.differences",
    "appbox.displacing",
    "appbox.distribution",
    "appbox.doctor.findings",
    "appbox.doctor.findings_host",
    "appbox.doctor.findings_tools",
    "appbox.doctor.findings_user",
    "appbox.doctor.remedies",
    "appbox.doctor.report",
    "appbox.doctor.seen",
    "appbox.doctor.trivial",
    "appbox.doctor.values",
    "appbox.doctor.wants",
    "appbox.document",
    "appbox.drafting",
    "appbox.errors",
    "appbox.export_index",
    "appbox.fields",
    "appbox.findings",
    "appbox.health",
    "appbox.health_line",
    "appbox.host.facts",
    "appbox.host.ranges",
    "appbox.hostnames",
    "appbox.idmaps",
    "appbox.isolation",
    "appbox.jobs",
    "appbox.json_text",
    "appbox.live",
    "appbox.lock_file",
    "appbox.locked",
    "appbox.manifest",
    "appbox.namesakes",
    "appbox.needs",
    "appbox.oci.capabilities",
    "appbox.oci.challenge",
    "appbox.oci.contents",
    "appbox.oci.deflate",
    "appbox.oci.digest",
    "appbox.oci.elf",
    "appbox.oci.file_capabilities",
    "appbox.oci.hidden",
    "appbox.oci.ids",
    "appbox.oci.image_config",
    "appbox.oci.inflate",
    "appbox.oci.json_document",
    "appbox.oci.layer",
    "appbox.oci.limits",
    "appbox.oci.listing",
    "appbox.oci.model",
    "appbox.oci.mtree",
    "appbox.oci.pax",
    "appbox.oci.platform",
    "appbox.oci.public_key",
    "appbox.oci.reference",
    "appbox.oci.rootfs",
    "appbox.oci.runtime_spec",
    "appbox.oci.runtimes",
    "appbox.oci.seccomp",
    "appbox.oci.signature",
    "appbox.oci.simple_signing",
    "appbox.oci.sparse",
    "appbox.oci.tags",
    "appbox.oci.tar",
    "appbox.oci.tar_fields",
    "appbox.oci.tar_header",
    "appbox.oci.users",
    "appbox.oci.walk",
    "appbox.oci.xattrs",
    "appbox.outcome",
    "appbox.overlays",
    "appbox.owned_xattrs",
    "appbox.owner",
    "appbox.pasta",
    "appbox.plan",
    "appbox.plan_data",
    "appbox.plan_file",
    "appbox.plan_schema",
    "appbox.plan_values",
    "appbox.policy",
    "appbox.policy_file",
    "appbox.ports",
    "appbox.preflight",
    "appbox.quantities",
    "appbox.reaper",
    "appbox.remembered",
    "appbox.report",
    "appbox.resources",
    "appbox.retention",
    "appbox.rlimits",
    "appbox.rules",
    "appbox.schedule",
    "appbox.schema",
    "appbox.secrets",
    "appbox.sharing",
    "appbox.since",
    "appbox.sizes",
    "appbox.store.installed",
    "appbox.store.paths",
    "appbox.subids",
    "appbox.suggestion",
    "appbox.supervision",
    "appbox.support",
    "appbox.tables",
    "appbox.tag_order",
    "appbox.timezone",
    "appbox.toml_source",
    "appbox.toml_text",
    "appbox.units.declared",
    "appbox.units.files",
    "appbox.units.limits",
    "appbox.units.model",
    "appbox.units.openrc",
    "appbox.units.places",
    "appbox.units.render",
    "appbox.units.systemd",
    "appbox.unprivileged",
    "appbox.values",
    "appbox.variables",
    "appbox.volumes",
    "appbox.writable",
}
"""Values in, values out. `units.render` reads the package's own templates and nothing else."""

EFFECTS = {"socket", "shutil", "tempfile", "fcntl", "signal", "select", "selectors", "threading", "time", "subprocess"}
"""Modules of the standard library that a pure module has no use for."""

PURE_OS = {"fsdecode", "fsencode", "path.abspath", "path", "strerror"}
"""What pure modules may use of `os`."""


@cache
def imports(path: Path) -> frozenset[str]:
    """Return the modules that a file imports, also inside functions; without those for type checkers only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


@pytest.mark.parametrize("library", sorted(ONLY))
def test_a_library_is_imported_only_where_it_belongs(library: str) -> None:
    users = {
        name
        for name, path in MODULES.items()
        if any(found == library or found.startswith(f"{library}.") for found in imports(path))
    }
    assert users, f"nobody imports {library} any more: take it off the list"
    assert users <= ONLY[library]


@pytest.mark.parametrize("name", sorted(PURE))
def test_a_pure_module_imports_no_effects(name: str) -> None:
    found = imports(MODULES[name] if name in MODULES else PACKAGE / "__init__.py")
    own = {one for one in found if one.startswith("appbox.") and one in MODULES}
    assert own <= PURE, f"{name} imports {sorted(own - PURE)}"
    assert not {one.partition(".")[0] for one in found} & EFFECTS


@pytest.mark.parametrize("name", sorted(PURE & set(MODULES)))
def test_a_pure_module_opens_nothing(name: str) -> None:
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    has_os = "os" in imports(MODULES[name])
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"open", "print", "input", "exec", "eval", "compile", "__import__"}, name
        if has_os and isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            assert node.attr in PURE_OS, f"{name} uses os.{node.attr}"


def test_every_module_says_what_it_is_in_its_first_line() -> None:
    for name, path in MODULES.items():
        document = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert document, name
        assert document.splitlines()[0].endswith((".", ":", ";", ",")) or len(document.splitlines()) > 1, name


def test_the_map_shows_the_tree() -> None:
    """Every module stands in appbox/README.md, and nothing else does."""
    text = (PACKAGE / "README.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"^\| `([a-z_/]+\.py)` \|", text, re.MULTILINE))
    there = {str(p.relative_to(PACKAGE)) for p in MODULES.values() if p.name not in {"__init__.py", "__main__.py"}}
    assert shown == there


def test_no_module_has_become_two() -> None:
    """Past 500 lines there is a second subject inside."""
    long = {name: lines for name, path in MODULES.items() if (lines := len(path.read_text().splitlines())) > 500}
    assert not long


def test_templates_only_lay_out() -> None:
    """No macro, no import, no filter, no arithmetic: Python decides what is in a unit."""
    templates = sorted((ROOT / "generators").rglob("*.j2"))
    assert {path.parent.name for path in templates} == {"openrc", "run", "systemd"}
    test = r"[a-z_.]+( == [\"'][a-z-]+[\"']| is (not )?none)?"
    allowed = re.compile(
        rf"(if|elif) (not )?{test}( (and|or) (not )?{test})*|else|endif|for [a-z_]+ in [a-z0-9_.]+|endfor"
        r'|include "[a-z]+/[a-z.-]+\.j2"'
    )
    for path in templates:
        text = path.read_text(encoding="utf-8")
        for statement in re.findall(r"\{%-?\s*(.*?)\s*-?%\}", text):
            assert allowed.fullmatch(statement), f"{path.name}: {statement}"
        for value in re.findall(r"\{\{\s*(.*?)\s*\}\}", text):
            assert re.fullmatch(r"[a-z_]+(\.[a-z_]+)*", value), f"{path.name}: {value}"


def test_generators_hold_data_only() -> None:
    found = {path.suffix for path in (ROOT / "generators").rglob("*") if path.is_file()}
    assert found <= {".j2", ".md"}


def test_nothing_goes_through_a_shell() -> None:
    for name, path in MODULES.items():
        text = path.read_text(encoding="utf-8")
        assert "shell=True" not in text, name
        assert "os.system" not in text, name
        assert "extractall" not in text, name


@pytest.mark.parametrize("module", ["appbox.control", "appbox.logs", "appbox.status", "appbox.cli"])
def test_what_people_wait_for_loads_nothing_slow(module: str) -> None:
    """Validating manifests takes longer to load than all that these do."""
    code = f"import sys, {module}; print(*sorted({{'httpx', 'jinja2', 'pydantic', 'rich'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "\n"
