"""The doctor on hosts that lack this and that."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.ground.other_host import RANGE, UID, World
from tests.ground.sandbox import Sandbox


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_bare_host_and_each_of_its_cures(world: World) -> None:
    """What a user lacks is mended by stand-ins of the distribution's own programs, and looked at again."""
    world.home()
    world.hide("newuidmap", "newgidmap")
    world.file("/etc/os-release", 'ID=linux\nID_LIKE="alpine"\n')
    world.file("/etc/subuid", "max:100000:65536\n")
    world.file("/etc/subgid", "# none\n")
    apk = world.place / "apk"
    apk.write_text('#!/bin/sh\n[ "$*" = "add shadow-uidmap" ] && umount /usr/bin/newuidmap /usr/bin/newgidmap\n')
    apk.chmod(0o755)
    # The files of /etc are files of this test: nothing can be renamed over them, so they are in an overlay.
    world.setup += [
        "mkdir /run/u /run/w",
        "mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/u,workdir=/run/w /etc",
        *(f"cp {world.place}/etc-{name} /etc/{name}" for name in ("passwd", "subuid", "subgid")),
        f"mount -t tmpfs tmpfs /usr/local/bin && cp {apk} /usr/local/bin/apk",
    ]
    named = ("/etc/passwd", "/etc/subuid", "/etc/subgid")
    world.setup = [one for one in world.setup if not (one.startswith("mount --bind") and one.endswith(named))]
    words = ("doctor", "--user", "dora")
    bare = world.run(*words, code=8)
    for line in (
        "missing  sub-ids:           dora has no range in /etc/subuid: without one a container has one user only",
        "→ echo dora:165536:65536 >>/etc/subuid && echo dora:100000:65536 >>/etc/subgid",
        "missing  newuidmap:         newuidmap is not installed",
        "→ apk add shadow-uidmap",
        "for process.user, volumes.*.owner and most images: users in a container need numbers on the host",
    ):
        assert line in bare.out
    script = f"{sys.executable} -m appbox doctor --user dora --fix --yes -q && tail -n 9 /etc/subuid /etc/subgid"
    fixed = world.start(["sh", "-c", script])
    assert fixed.out.count("apk add shadow-uidmap") == 1
    assert "max:100000:65536\ndora:165536:65536\n" in fixed.out
    assert "# none\ndora:100000:65536\n" in fixed.out
    assert "missing" not in fixed.out


def test_a_cure_that_does_not_work_is_said(world: World) -> None:
    world.home()
    world.hide("newuidmap")
    world.setup.append("mount -t tmpfs tmpfs /usr/local/bin")
    world.setup.append("printf '#!/bin/sh\\necho E: no network >&2; exit 100\\n' >/usr/local/bin/apt-get")
    world.setup.append("chmod +x /usr/local/bin/apt-get; mount --bind /usr/local/bin/apt-get /usr/bin/apt-get")
    result = world.run("doctor", "--user", "dora", "--fix", "--yes", code=8)
    assert "appbox: apt-get" in result.err
    assert "failed: E: no network" in result.err
    assert "missing  newuidmap:         newuidmap is not installed" in world.run("doctor", "--user", "dora", code=8).out


def test_nothing_is_done_without_a_yes(world: World) -> None:
    """On a terminal each cure is asked for; what it would do stands above the question."""
    world.home()
    world.file("/etc/subuid", "")
    doctor = f"{sys.executable} -m appbox doctor --user dora --fix"
    script = f"echo n | script -qec '{doctor}' /dev/null; wc -c </etc/subuid"
    result = world.start(["sh", "-c", script])
    assert "→ echo dora:100000:65536 >>/etc/subuid" in result.out
    assert "Do this? [y/N]:" in result.out
    assert "after that" not in result.out
    assert result.out.endswith("0\n")


def test_a_prepared_user(world: World) -> None:
    world.home()
    world.setup.append(f"install -d -m 0700 -o {UID} -g {UID} /run/user/{UID}")
    found = world.findings("--user", "dora")
    assert not {"sub-ids", "newuidmap", "home", "runtime directory", "first start", "user namespaces"} & set(found)
    text = world.run_as_user("doctor", XDG_RUNTIME_DIR=f"/run/user/{UID}").out
    assert f"/run/user/{UID} is dora's alone, on tmpfs" in text
    assert "store:             /mnt/dora/.local/share/appbox/containers (tmpfs" in text
    assert "an overlay with userxattr was mounted in a user namespace" in text


def test_files_of_sub_ids_with_garbage_and_overlaps(world: World) -> None:
    world.home()
    world.file("/etc/subuid", f"rubbish\n{RANGE}max:565535:9\n\0:1\ndora:x:y\n")
    found = world.findings("--user", "dora", code=8)["sub-ids"]
    assert [one["what"] for one in found] == [
        "/etc/subuid:1: 'rubbish' is not of the form user:first id:count",
        "/etc/subuid:4: '\\x00:1' is not of the form user:first id:count",
        "/etc/subuid:5: the range of dora does not consist of two numbers",
        "/etc/subuid: line 2 (dora) and line 3 (max) share the ids 565535 to 565535: each may change the other's files",
    ]
    assert [one["advice"] for one in found][:1] == ["mend or delete line 1 of /etc/subuid"]
    assert not any(one["fixable"] for one in found)


def test_the_runtime_directory_of_somebody_else(world: World) -> None:
    world.home()
    world.setup.append(f"install -d -m 0700 /run/user/{UID}")
    (found,) = world.findings("--user", "dora", code=8)["runtime directory"]
    assert found["what"] == f"the runtime directory is /run/user/{UID}, which belongs to the user id 0"
    own = world.run_as_user("doctor", code=8, XDG_RUNTIME_DIR="/run/user")
    assert "XDG_RUNTIME_DIR is /run/user, which belongs to the user id 0" in own.out
    assert "→ unset XDG_RUNTIME_DIR" in own.out


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (",nosuid", 0, "/mnt/dora is mounted nosuid"),
        (",noexec", 8, "/mnt/dora is mounted noexec: no program of an image would run"),
        (",ro", 8, "nothing can be written to /mnt/dora/.local/share/appbox/containers: Read-only file system"),
        (",size=4k", 8, "nothing can be written to /mnt/dora/.local/share/appbox/containers: No space left on device"),
    ],
)
def test_homes_that_are_no_good(world: World, options: str, code: int, words: str) -> None:
    world.home()
    if options == ",size=4k":
        world.setup.append("mount -o remount,size=64k /mnt; head -c 1M /dev/zero >/mnt/full 2>/dev/null || true")
    else:
        world.setup.append(f"mount -o remount{options} /mnt")
    assert words in world.run("doctor", "--user", "dora", code=code).out


def test_a_user_without_a_password_entry(world: World) -> None:
    world.file("/etc/subuid", "70123:500000:65536\n")
    world.file("/etc/subgid", "70123:500000:65536\n")
    found = world.findings("--user", "70123", code=8)
    assert found["home"][0]["what"] == "the user id 70123 has no password entry, and so no name and no home"
    assert "useradd --uid 70123" in found["home"][0]["advice"]
    assert "sub-ids" not in found


def test_sub_ids_of_a_directory_service(world: World) -> None:
    world.home()
    world.file("/etc/nsswitch.conf", "passwd: files\nsubid: sss\n")
    world.file("/etc/subuid", "")
    found = world.findings("--user", "dora", code=8)["sub-ids"][0]
    assert found["what"] == "dora has no range in sss: without one a container has one user only"


def test_a_host_without_a_runtime(world: World) -> None:
    world.hide("runc", "crun")
    world.file("/etc/os-release", "ID=fedora\n")
    found = world.findings(code=8)
    assert found["runtime"][0]["commands"] == ["dnf install -y runc"]
    assert "first start" not in found


def test_openrc_and_its_settings(world: World) -> None:
    world.setup.append("mkdir /run/openrc; touch /run/openrc/softlevel")
    world.file("/etc/os-release", "ID=alpine\n")
    found = world.findings("--init", "openrc")
    mode = found["cgroups"][0]["commands"]
    assert mode[-1] == "rc-update add cgroups sysinit"


# Manifests.


def write(world: World, tables: str) -> str:
    path = world.place / "web.toml"
    path.write_text(f'name = "web"\nversion = "1"\n{tables}')
    return str(path)


@pytest.fixture
def registry() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/v2/" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_only_what_manifests_need(world: World, registry: str) -> None:
    """What they do not ask for is not said, what they ask for is said with its line."""
    world.hide("buildah", "pasta", "age", "slirp4netns")
    path = write(world, f'image = "{registry}/web"\n[network]\nmode = "host"\n[service]\nenable = false\n')
    result = world.run("doctor", path)
    assert not any(word in result.out for word in ("buildah", "pasta", "git:", "cni"))
    assert f"registry:          {registry} answers in" in result.out
    tables = f'image = "{registry}/web"\n[network]\nmode = "pasta"\n[security]\napparmor = "nosuch"\n'
    found = world.findings(write(world, tables), code=8)
    assert [(one["file"], one["line"], one["key"]) for one in found["pasta"][0]["keys"]] == [(path, 5, "network.mode")]
    assert found["pasta"][0]["commands"][-1] == "apt-get install -y passt"
    assert found["security.apparmor"][0]["needed"]
    assert "network.mode" not in found  # the doctor's own finding says it


def test_a_user_s_own_plan_would_be_refused_for_the_same_reasons(world: World) -> None:
    world.home()
    world.setup.append(f"install -d -m 0700 -o {UID} -g {UID} /run/user/{UID}")
    path = write(world, f'image = "oci:{world.place}"\n[security]\napparmor = "nosuch"\n')
    text = Path(path).read_text()
    world.setup.append(f"printf %s '{text}' >/mnt/dora/web.toml && chmod 0644 /mnt/dora/web.toml")
    found = world.run_as_user("doctor", "/mnt/dora/web.toml", code=8)
    assert "missing  security.apparmor:" in found.out
    assert "needed by /mnt/dora/web.toml:5: security.apparmor" in found.out


def test_a_registry_that_does_not_answer(world: World) -> None:
    path = write(world, 'image = "127.0.0.1:9/web"\n')
    (found,) = world.findings(path, code=8)["registry"]
    assert found["what"].startswith("127.0.0.1:9: the registry cannot be reached")
    assert found["keys"][0]["line"] == 3
    assert "registry" not in world.findings()
    named = world.findings("--registry", "127.0.0.1:9")["registry"][0]
    assert (named["state"], named["needed"]) == ("weak", False)


def test_ports_that_a_user_may_not_have(world: World) -> None:
    world.home()
    path = write(world, f'image = "oci:{world.place}"\n[network]\nmode = "pasta"\nports = ["81:80"]\n')
    found = world.findings("--user", "dora", path, code=8)["ports"][0]
    assert found["what"] == "services of users cannot have ports below 1024"
    assert found["commands"][0].startswith(
        "mkdir -p /etc/sysctl.d && printf '%s\\n' 'net.ipv4.ip_unprivileged_port_start = 81'"
    )


# The command line.


def test_a_manifest_that_is_refused(world: World) -> None:
    result = world.run("doctor", write(world, "nonsense = 1\n"), code=3)
    assert "web.toml:3: nonsense" in result.err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--root", "/tmp", "doctor"), 2, "--root: the doctor looks at the running host; leave --root out"),
        (("doctor", "--fix"), 2, "--fix: nobody can be asked without a terminal; --yes asks nothing"),
        (("doctor", "--yes"), 2, "--yes: there is nothing to say yes to; add --fix"),
        (("doctor", "--user", "nosuchuser"), 2, "nosuchuser: this host has no such user"),
        (("doctor", "--user", "root"), 2, "--user: root is no ordinary user"),
        (("doctor", "--registry", "a b"), 2, "--registry a b: is no name of a registry"),
        (("doctor", "/nowhere.toml"), 1, "/nowhere.toml: cannot be read"),
    ],
)
def test_wrong_command_lines(tmp_path: Path, words: tuple[str, ...], code: int, message: str) -> None:
    sandbox = Sandbox(tmp_path)
    result = sandbox.appbox(*words, code=code, root=False)
    assert message in result.err
    assert len(result.err.splitlines()) == 1
    assert sandbox.appbox("--json", *words, code=code, root=False).data()["error"]["exit"] == code


def test_only_root_mends_and_looks_at_others(world: World) -> None:
    world.home()
    result = world.run_as_user("doctor", "--fix", "--yes", code=8)
    assert f"--fix: only root mends a host; sudo appbox doctor --fix --user {UID}" in result.err


def test_what_a_killed_doctor_left_is_removed(world: World) -> None:
    world.setup += ["mount -t tmpfs -o mode=0755 tmpfs /opt", "mkdir -p /opt/.appbox-doctor-999999999/rootfs/dev"]
    script = f"{sys.executable} -m appbox doctor -q; ls -A /opt"
    assert ".appbox-doctor" not in world.start(["sh", "-c", script]).out
