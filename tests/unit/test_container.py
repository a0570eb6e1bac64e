"""What runs in the container: the image's configuration with the manifest over it."""

from __future__ import annotations

from typing import Any

import pytest

from appbox import container
from appbox.errors import ManifestError, Refused
from appbox.oci.capabilities import ALL_CAPABILITIES, DEFAULT_CAPABILITIES
from appbox.oci.users import User
from tests.ground.pure import HEAD, locked, rootfs


@pytest.mark.parametrize(
    ("tables", "image", "words"),
    [
        ("", {"Entrypoint": ["e"], "Cmd": ["c"]}, "e c"),
        ("", {"Entrypoint": None, "Cmd": ["c"]}, "c"),
        ('[process]\nargs = ["a"]', {"Entrypoint": ["e"], "Cmd": ["c"]}, "e a"),
        ("[process]\nargs = []", {"Entrypoint": ["e"], "Cmd": ["c"]}, "e"),
        ('[process]\nentrypoint = ["m"]', {"Entrypoint": ["e"], "Cmd": ["c"]}, "m"),
        ('[process]\nentrypoint = ["m"]\nargs = ["a"]', {"Entrypoint": ["e"], "Cmd": ["c"]}, "m a"),
        ('[process]\nentrypoint = []\nargs = ["a"]', {"Entrypoint": ["e"], "Cmd": ["c"]}, "a"),
    ],
)
def test_the_argument_vector(tables: str, image: dict[str, Any], words: str) -> None:
    assert container.args(locked(tables, **image)) == tuple(words.split())


def test_nothing_to_run_names_the_manifest() -> None:
    with pytest.raises(ManifestError, match="process: the image names nothing to run; set entrypoint or args"):
        container.args(locked(Cmd=[]))


def test_each_variable_stands_once_and_the_manifest_wins() -> None:
    found = container.env(locked('[process]\nenv = { A = "3", B = "x=y" }', Env=["A=1", "A=2", "C="]), "host")
    assert found == (f"PATH={container._PATH}", "HOSTNAME=host", "A=3", "C=", "B=x=y")
    assert container.env(locked(Env=["PATH=/p"]), "h")[0] == "PATH=/p"


def test_strings_of_an_image_that_no_program_can_be_started_with_are_refused() -> None:
    long = "é" * 65535
    assert container.args(locked(Cmd=[long + "x"])) == (long + "x",)
    assert container.env(locked(Env=[f"A={long[:-1]}x"]), "h")[-1] == f"A={long[:-1]}x"
    with pytest.raises(Refused, match="an argument that is too long"):
        container.args(locked(Cmd=["a", long + "é"]))
    with pytest.raises(Refused, match="a variable that is too long"):
        container.env(locked(Env=[f"A={long}"]), "h")
    assert container.env(locked('[process]\nenv = { A = "" }', Env=[f"A={long}"]), "h")[-1] == "A="
    with pytest.raises(Refused, match="working directory"):
        container.workdir(locked(WorkingDir="/" + "x" * 256))


@pytest.mark.parametrize("entry", ["A", "=x", ""])
def test_an_environment_that_is_none_is_refused(entry: str) -> None:
    with pytest.raises(Refused, match="no NAME=VALUE"):
        container.env(locked(Env=[entry]), "h")


@pytest.mark.parametrize(
    ("image", "tables", "found"),
    [
        ("", "", "/"),
        ("/data/", "", "/data"),
        ("data//x/.", "", "/data/x"),
        ("/data", '[process]\nworkdir = "/other"', "/other"),
        ("/proc/self/fd/7", '[process]\nworkdir = "/other"', "/other"),
    ],
)
def test_the_working_directory(image: str, tables: str, found: str) -> None:
    assert container.workdir(locked(tables, WorkingDir=image)) == found


@pytest.mark.parametrize("image", ["/proc/self/fd/7", "proc", "/a/../b", "//./proc/1/cwd"])
def test_a_working_directory_that_leads_out_is_refused(image: str) -> None:
    """CVE-2024-21626."""
    with pytest.raises(Refused, match=r"is not one of the container; set process\.workdir"):
        container.workdir(locked(WorkingDir=image))


@pytest.mark.parametrize(
    ("image", "tables", "found"),
    [
        ("", "", "SIGTERM"),
        ("SIGQUIT", "", "SIGQUIT"),
        ("3", "", "SIGQUIT"),
        ("RTMIN+3", "", "SIGRTMIN+3"),
        ("SIGQUIT", '[process]\nstop_signal = "SIGINT"', "SIGINT"),
        ("nonsense", '[process]\nstop_signal = "SIGINT"', "SIGINT"),
    ],
)
def test_the_stop_signal(image: str, tables: str, found: str) -> None:
    assert container.stop_signal(locked(tables, StopSignal=image)).name == found


@pytest.mark.parametrize("image", ["nonsense", "0", "65", "99999999999999999999999", "²", "SIGTERM\n"])
def test_a_stop_signal_that_is_none_is_refused(image: str) -> None:
    with pytest.raises(Refused, match=r"of the image is no signal; set process\.stop_signal"):
        container.stop_signal(locked(StopSignal=image))


def test_whom_it_runs_as() -> None:
    found = rootfs()
    assert container.user(locked(User="www"), None, 65536) is None
    assert container.user(locked(User="www"), found, 65536) == User(33, 33, (50,))
    assert container.user(locked(), found, 65536) == User(0, 0, ())
    assert container.user(locked('[process]\nuser = "7:8"', User="www"), found, 65536) == User(7, 8)


def test_an_unknown_user_is_the_fault_of_who_names_it() -> None:
    with pytest.raises(ManifestError, match=r"web\.toml:5: process\.user: no such user"):
        container.user(locked('[process]\nuser = "nobody"'), rootfs(), 65536)
    with pytest.raises(Refused, match="no such user"):
        container.user(locked(User="nobody"), rootfs(), 65536)
    with pytest.raises(Refused, match="has the id 70000: a service has the ids below 65536"):
        container.user(locked(User="70000"), rootfs(), 65536)


@pytest.mark.parametrize(
    ("name", "found"),
    [("web", "web"), ("my_web", "my-web"), ("a._", "a"), ("w" * 63, "w" * 63)],
)
def test_the_host_name_is_made_of_the_service_s(name: str, found: str) -> None:
    head = HEAD.replace('name = "web"', f'name = "{name}"')
    assert container.hostname(locked(head=head)) == found
    assert container.hostname(locked('[network]\nhostname = "other"', head=head)) == "other"


def test_capabilities_are_added_and_dropped() -> None:
    def of(table: str) -> frozenset[str]:
        return container.capabilities(locked(f"[security]\ncapabilities = {{ {table} }}"))

    assert container.capabilities(locked()) == DEFAULT_CAPABILITIES
    assert of('add = ["CAP_SYS_TIME"]') == DEFAULT_CAPABILITIES | {"CAP_SYS_TIME"}
    assert of('drop = ["CAP_CHOWN"]') == DEFAULT_CAPABILITIES - {"CAP_CHOWN"}
    assert of('drop = ["ALL"]') == frozenset()
    assert of('drop = ["ALL"], add = ["CAP_CHOWN"]') == {"CAP_CHOWN"}
    assert of('add = ["ALL"]') == ALL_CAPABILITIES
    assert of('add = ["ALL"], drop = ["CAP_CHOWN"]') == ALL_CAPABILITIES - {"CAP_CHOWN"}


def notes(tables: str, *, mapped: bool = True, **more: object) -> str:
    return "\n".join(container.notes(locked(tables, **more), mapped=mapped))  # type: ignore[arg-type]


def test_the_operator_is_told_what_will_not_do() -> None:
    host = '[network]\nmode = "host"\n'
    assert "no [network] table" in notes("")
    assert notes('[network]\nmode = "none"\n') == ""
    ports: dict[str, Any] = {"80/tcp": {}, "8080/tcp": {}, "53": {}, "443-444/tcp": {}, "nonsense/x": {}}
    assert "port 443-444/tcp, 53, 80/tcp" in notes(host, ExposedPorts=ports)
    assert notes(host, mapped=False, ExposedPorts=ports) == ""
    assert notes('[network]\nmode = "none"\n', ExposedPorts=ports) == ""
