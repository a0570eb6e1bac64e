"""Hostile text at every key that takes text, all at once: a real init starts it byte for byte, or it is refused.

What `tests.ground.hostile` lists is seen here in a running container; `tests/unit/test_input.py` has the rest of it.
"""

from __future__ import annotations

import io
import json
import os
import re
import stat
import tarfile
import tomllib
from typing import Any

import pytest
import tomli_w

from appbox.fields import TARGET_LIMIT
from tests.ground import layers, runtime_schema
from tests.ground.hostile import CASES, LONG, MARK, TEXTS, found_at, manifest_with, taken
from tests.ground.tiny import Content
from tests.init.host import Host, redis_manifest, script_manifest

pytestmark = pytest.mark.schema

WORDS = [text for text in TEXTS if "\0" not in text] + [""]
"""What any text may be."""
PLACES = list(taken("volumes.*.path", 100))
"""What a path may be, in a few of them."""
BYTES = bytes(range(256)) * 256
AGE = "secret pwned $(touch pwned) `x` %n '\"\\ \U0001f389"
SEPARATOR = "\x1e"
BESIDE = """
import tomllib
from appbox import hooks
from appbox.store import paths
from appbox.store.root import Root
with open(f"{paths.CONTAINERS}/carry/bundle.toml", "rb") as file:
    upgrade = tomllib.load(file)["manifest"]["upgrade"]
with Root() as root:
    for key in ("before", "after"):
        hooks.run_inside(root, hooks.Hook("carry", f"upgrade.{key}", upgrade[key][0]))
"""
URL = "/pwned%25%n?a='\"&b=$(touch${IFS}pwned)`x`\\{}[]|;<>$HOME!*~"


def data_of(host: Host, name: str) -> str:
    """Return the directory of the volume of a service of this test."""
    return {"carry": f"{host.containers}/carry/data/data", "says": "/srv/says"}[name]


# Says how it was started, then stays; answers one request after the other.
WITNESS = """
trap 'exit 0' TERM
cat /proc/$$/cmdline >/data/words
cat /proc/$$/environ >/data/environ
readlink /proc/self/cwd | head -c 4095 >/data/cwd
cat /proc/sys/kernel/domainname >/data/domain
id -u >/data/user
[ ! -e /data/answers ] || while :; do
	printf 'HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n' | /bin/nc -l -p 8099 >>/data/request
done &
: >/data/up
while :; do sleep 1000 & wait $!; done
"""
TELL = 'printf "%s\\036" "$@" >/data/{0}.new && mv /data/{0}.new /data/{0}'
# An image may say more than a manifest: what a path of it is called, and who its users are.
WORK = "/work\n\r'\"\\ %n $(touch pwned) `touch pwned` \U0001f389"
USER = "`touch pwned`$(id)%n"
VOLUME = "/vol $(touch pwned) `x` %n '\"\\ \U0001f389"
TAG = "V" + "9.9_9-" * 21 + "9"
NAME = "n" + "a-_." * 15 + "xy"


def image(host: Host, folder: str) -> None:
    """Write an image whose configuration is as hostile as one may be."""
    busybox = host.machine.path("/bin/busybox").read_bytes()
    programs = ("sh", "cat", "readlink", "id", "nc", "sleep", "tar", "printf", "mv", "head", "ls", "true")
    layer = layers.archive(
        *(layers.directory(name) for name in (b"bin", b"etc", b"data")),
        layers.file(b"bin/busybox", busybox, mode=0o755),
        *(layers.symlink(b"bin/" + name.encode(), b"busybox") for name in programs),
        layers.file(b"etc/passwd", f"root:x:0:0::/:/bin/sh\n{USER}:x:7:8::/:/bin/sh\n".encode()),
        layers.file(b"etc/group", b"root:x:0:\n"),
    )
    content = Content()
    said = {
        "Entrypoint": ["/bin/sh", "-c", WITNESS, "sh", *WORDS],
        "Cmd": WORDS,
        "Env": ["PATH=/bin", *(f"TEXT_{n}={text}" for n, text in enumerate(WORDS)), *(f"{t}=1" for t in WORDS[:60:2])],
        "WorkingDir": WORK,
        "User": USER,
        "Volumes": {VOLUME: {}, "/data": {}},
        "ExposedPorts": {text: {} for text in WORDS},
        "Labels": {f"org.systemd.property.{text}": text for text in WORDS},
        "Healthcheck": {"Test": ["CMD", *WORDS]},
    }
    said["Env"] = [entry for entry in said["Env"] if not entry.startswith("=")]
    content.image("1", layers=(layer,), config=said)
    content.image(TAG, layers=(layer,), config={"Cmd": ["/bin/sh", "-c", WITNESS], "Env": ["PATH=/bin"]})
    host.machine.path(folder).parent.mkdir(parents=True, exist_ok=True)
    content.write_layout(str(host.machine.path(folder)))


def put(host: Host, path: str, data: bytes, mode: int = 0o600) -> None:
    """Write a file of the machine with its directories."""
    place = host.machine.path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    place.chmod(mode)


def carrying(host: Host, folder: str) -> dict[str, Any]:
    """Return a manifest with such text at every key that takes it; make what it names of the host."""
    template = f"{{% for t in texts %}}{{{{ t }}}}{SEPARATOR}{{% endfor %}}{{% raw %}}{LONG}{{% endraw %}}"
    services = host.services
    for index, place in enumerate(PLACES):
        put(host, f"/srv/{place}/inside", place.encode(), 0o644)
        put(host, f"{host.places.config}/secrets/{place}", BYTES + place.encode())
        put(host, f"{services}/files/{place}.bin", BYTES + place.encode())
        put(host, f"{services}/directory/{index}/{place}", place.encode(), 0o644)
        put(host, f"{services}/templates/{place}.j2", template.encode())
        put(host, f"/dev/{place}", b"")
        host.machine.path(f"/dev/{place}").unlink()
        os.mknod(host.machine.path(f"/dev/{place}"), stat.S_IFCHR | 0o666, os.makedev(10, 237))
    put(host, f"{host.services}/sub/$(touch pwned) `x` '\"\\ %n \U0001f389/f", b"named")
    config: dict[str, Any] = {f"/etc/c{text}": {"text": text} for text in WORDS if CASES["config.<name>"].takes(text)}
    config |= {f"/etc/text/{n}": {"text": text, "owner": "7:8"} for n, text in enumerate(WORDS)}
    config |= {f"/etc/file{place}": {"file": f"files/{place}.bin"} for place in PLACES}
    config |= {f"/etc/template{place}": {"template": f"templates/{place}.j2"} for place in PLACES}
    config |= {"/etc/directory": {"directory": "directory"}}
    config |= {"/etc/named": {"directory": "sub/$(touch pwned) `x` '\"\\ %n \U0001f389"}}
    secrets: dict[str, Any] = {
        f"s{n}": {"file": f"{host.places.config}/secrets/{place}", "path": f"/sec/{place}", "owner": "7:8"}
        for n, place in enumerate(PLACES)
    }
    longest = "x" * ((64 << 10) - len("printf\0%s\0\0"))
    secrets["words"] = {"command": ["printf", "%s\\036", *[w for w in WORDS if len(w) < 1000]]}
    secrets["age"] = {"age": AGE}
    secrets["long"] = {"command": ["printf", "%s", longest]}
    volumes: dict[str, Any] = {f"v{n}": {"path": f"/vol/{p}", "source": f"/srv/{p}"} for n, p in enumerate(PLACES)}
    volumes |= {f"m{n}": {"path": f"/mem/{p}", "tmpfs": True, "mode": "0701"} for n, p in enumerate(PLACES)}
    health = {"exec": ["/bin/sh", "-c", TELL.format("health"), "sh", *WORDS], "interval": 3600, "timeout": 60}
    return {
        "name": "carry",
        "image": f"oci:{folder}",
        "version": "1",
        "description": "".join(WORDS),
        "process": {
            "entrypoint": ["/bin/sh", "-c", WITNESS, "sh", *WORDS],
            "args": WORDS,
            "env": {f"TEXT_{n}": text for n, text in enumerate(WORDS)},
            "workdir": f"/work/{PLACES[0]}",
            "user": "0",
        },
        "volumes": {"data": {"path": "/data"}, **volumes},
        "network": {"mode": "host", "dns": ["fe80::1%eth0", "192.0.2.1"], "hosts": {"a.example": "192.0.2.7"}},
        "vars": {"texts": WORDS},
        "config": config,
        "secrets": secrets,
        "security": {"devices": [f"/dev/{place}:/dev/box/{place}:r" for place in PLACES]},
        "health": health,
        "service": {"reload": ["/bin/sh", "-c", TELL.format("reload"), "sh", *WORDS]},
        "upgrade": {
            "before": [["/bin/sh", "-c", TELL.format("before"), "sh", *WORDS]],
            "after": [["/bin/sh", "-c", TELL.format("after"), "sh", *WORDS]],
            "migrate": ["/bin/sh", "-c", TELL.format("migrate"), "sh", *WORDS],
            "data_format": "pwned $(touch pwned) `x` %n '\"\\ \U0001f389",
        },
    }


def seen(host: Host, name: str, *paths: str) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    """Return files as the container has them, by path."""
    host.appbox("exec", name, "/bin/tar", "-cf", "/data/seen.tar", *paths)
    data = host.machine.path(f"{host.containers}/{name}/data/data/seen.tar").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {
            f"/{member.name}": (member, found.read() if (found := tar.extractfile(member)) else b"") for member in tar
        }


def raw(host: Host, name: str, file: str) -> str:
    """Return what the witness has written."""
    return host.machine.path(f"{data_of(host, name)}/{file}").read_bytes().decode()


def check_process(host: Host, name: str, workdir: str) -> None:
    """See that words, environment and working directory are those that were said."""
    host.machine.wait_until(lambda: host.machine.exists(f"{data_of(host, name)}/up"), 20, name)
    assert raw(host, name, "words").split("\0")[3:-1] == ["sh", *WORDS, *WORDS]
    environment = raw(host, name, "environ").split("\0")
    assert {f"TEXT_{n}={text}" for n, text in enumerate(WORDS)} <= set(environment)
    assert raw(host, name, "cwd") == f"{workdir}\n"


def check_files(host: Host) -> None:
    """See that configuration, secrets, volumes and devices are there under their names, with every byte."""
    found = seen(host, "carry", "/etc", "/sec", "/run/secrets", "/vol", "/mem", "/dev/box")
    filled = "".join(f"{text}{SEPARATOR}" for text in [*WORDS, "from the overlay"]).encode() + LONG.encode()
    wanted = {f"/etc/c{text}": text.encode() for text in WORDS if CASES["config.<name>"].takes(text)}
    wanted |= {f"/etc/text/{n}": text.encode() for n, text in enumerate(WORDS)}
    for index, place in enumerate(PLACES):
        wanted |= {f"/etc/file{place}": BYTES + place.encode(), f"/etc/directory/{index}/{place}": place.encode()}
        wanted |= {f"/sec/{place}": BYTES + place.encode(), f"/vol/{place}/inside": place.encode()}
        wanted |= {f"/etc/template{place}": filled}
        assert found[f"/mem/{place}"][0].mode == 0o701
        device = found[f"/dev/box/{place}"][0]
        assert (device.ischr(), device.devmajor, device.devminor) == (True, 10, 237)
        assert (found[f"/sec/{place}"][0].uid, found[f"/sec/{place}"][0].mode) == (7, 0o400)
    wanted["/etc/named/f"] = b"named"
    wanted["/run/secrets/words"] = "".join(f"{w}{SEPARATOR}" for w in WORDS if len(w) < 1000).encode()
    wanted["/run/secrets/age"] = BYTES + PLACES[1].encode()
    wanted["/run/secrets/long"] = b"x" * ((64 << 10) - len("printf\0%s\0\0"))
    assert {path: found[path][1] for path in wanted} == wanted
    assert found["/etc/resolv.conf"][1] == b"nameserver fe80::1%eth0\nnameserver 192.0.2.1\n"
    assert b"192.0.2.7 a.example\n" in found["/etc/hosts"][1]


def check_nothing_ran(host: Host, *names: str) -> None:
    """See that no text became a word of a unit, a script or a command, and that every config.json is valid."""
    for name in names:
        words = host.machine.read(host.unit(name)) + host.machine.read(f"{host.containers}/{name}/run")
        assert MARK not in words
        spec = json.loads(host.machine.read(f"{host.containers}/{name}/config.json"))
        assert not runtime_schema.faults(spec)
        assert host.oci("exec", name, "/bin/ls", "-d", "/pwned", check=False).code != 0
    script = "find / -xdev -name pwned; find /opt /run /root /etc -name pwned"
    assert host.run(["sh", "-c", script], check=False).out == ""


def test_text_arrives_byte_for_byte_and_is_never_executed(host: Host) -> None:
    folder = f"{host.home}/images/" + PLACES[0]
    image(host, folder)
    carry = carrying(host, folder)
    here = host.run(["uname", "-n"]).out.strip()
    recipient = host.run(["age-keygen", "-o", f"{host.places.config}/age.key"]).err.split()[-1]
    words = ["age", "-r", recipient, "-o", f"{host.services}/{AGE}", f"{host.places.config}/secrets/{PLACES[1]}"]
    host.run(words)
    overlay = {
        "vars": {"texts": [*WORDS, "from the overlay"]},
        "services": {"carry": {"process": {"env": {f"OVER_{n}": text for n, text in enumerate(WORDS)}}}},
    }
    host.write(f"{host.services}/hosts/{here}.toml", tomli_w.dumps(overlay, multiline_strings=False))
    domain = "pwned $(id) `id` %n '\"\\ \U0001f389 -"
    says = {
        "name": "says",
        "image": f"oci:{folder}",
        "version": "1",
        "volumes": {"data": {"path": "/data", "source": "/srv/says"}},
        "network": {"mode": "none"},
        "security": {"userns": "host", "sysctl": {"kernel.domainname": domain}},
        "health": {"http": f"http://127.0.0.1:8099{URL}", "interval": 3600},
    }
    put(host, "/srv/says/answers", b"")
    os.chown(host.machine.path("/srv/says"), 7, 8)
    for key, case in CASES.items():
        everything = [text for manifest in (carry, says) for text in found_at(key, manifest)]
        # Who signed an image is another matter, with tests of its own.
        assert case.kind in {"word", "later"} or key == "policy.signed_by.[]" or MARK in "".join(everything), key
    for manifest in (carry, says):
        host.write(f"{host.services}/{manifest['name']}.toml", tomli_w.dumps(manifest, multiline_strings=False))
    told = host.appbox("apply", "-v", host.services)
    assert not [c for c in told.out + told.err if not c.isprintable() and c not in "\n\t"]
    check_process(host, "carry", f"/work/{PLACES[0]}")
    check_files(host)
    assert {f"OVER_{n}={text}" for n, text in enumerate(WORDS)} <= set(raw(host, "carry", "environ").split("\0"))
    host.appbox("reload", "carry")
    for name in ("health", "reload"):
        assert raw(host, "carry", name).split(SEPARATOR)[:-1] == WORDS
    kept = tomllib.loads(host.machine.read(f"{host.containers}/carry/bundle.toml"))
    assert kept["manifest"]["description"] == "".join(WORDS)
    assert kept["manifest"]["vars"]["texts"] == [*WORDS, "from the overlay"]
    check_process(host, "says", "/" + WORK.strip("/"))
    environment = raw(host, "says", "environ").split("\0")
    assert {f"{text}=1" for text in WORDS[:60:2] if "=" not in text} <= set(environment)
    assert (raw(host, "says", "domain"), raw(host, "says", "user")) == (f"{domain}\n", "7\n")
    assert raw(host, "says", "request").startswith(f"GET {URL} HTTP/1.1\r\nHost: 127.0.0.1:8099\r\n")
    host.run(["/usr/local/appbox/bin/python", "-c", BESIDE])
    for name in ("before", "after"):
        assert raw(host, "carry", name).split(SEPARATOR)[:-1] == WORDS
    check_nothing_ran(host, "carry", "says")
    host.write(f"{host.home}/drawn.toml", host.appbox("init", f"oci:{folder}:1").out)
    drawn = tomllib.loads(host.machine.read(f"{host.home}/drawn.toml"))
    assert set(drawn) <= {"name", "image", "version", "process", "volumes", "network", "health", "service"}
    assert drawn["health"]["exec"] == WORDS[:]
    host.appbox("check", "--image", f"{host.home}/drawn.toml")


def test_what_cannot_be_carried_is_refused_with_file_line_and_key(host: Host) -> None:
    wanted = {}
    for number, (key, case) in enumerate(CASES.items()):
        text = next((text for text in reversed(TEXTS) if case.takes(text) is False), "")
        if text:
            path = f"{host.home}/refused/{number}.toml"
            wanted[path] = key.partition(".")[0]
            data = manifest_with(key, text, **({} if key == "name" else {"name": f"job-{number}"}))
            host.write(path, tomli_w.dumps(data, multiline_strings=False))
    before = host.files()
    said = host.appbox("check", f"{host.home}/refused", code=3).err.splitlines()
    for path, table in wanted.items():
        assert any(re.match(rf"(appbox: )?{path}:[1-9][0-9]*: {table}\b", line) for line in said), (path, table)
    assert host.files() == before
    assert not host.machine.exists("/pwned")


def test_the_longest_names_paths_and_numbers_work(host: Host) -> None:
    image(host, f"{host.home}/image")
    long = "/" + "/".join(["p" * 255] * 13) + "/" + "q" * (TARGET_LIMIT - 13 * 256 - 1)
    assert len(long) == TARGET_LIMIT
    put(host, f"{host.places.config}/secrets{long[:3500]}", BYTES)
    manifest = script_manifest(WITNESS, name=NAME, image=f"oci:{host.home}/image", version=TAG)
    patience = 120 if host.by_root else 86400
    manifest["process"] = {"workdir": f"/w{long[2:]}", "stop_timeout": patience, "user": "65535:65535"}
    manifest["volumes"] = {"data": {"path": "/data", "owner": "65535"}, "D" + "." * 62: {"path": f"/v{long[2:]}"}}
    manifest["volumes"]["tmpfs"] = {"path": f"/t{long[2:]}", "tmpfs": True, "size": 2**63 - 1}
    manifest["config"] = {f"/c{long[2:]}": {"text": "configuration"}}
    manifest["secrets"] = {"S" * 63: {"file": f"{host.places.config}/secrets{long[:3500]}"}}
    manifest["network"] = {"mode": "none", "hostname": "h" * 63}
    manifest["service"] = {"restart_limit": "10000/86400s", "restart_delay": 86400, "enable": True}
    manifest["service"]["log"] = {"max_size": 2**53, "keep": 1000}
    manifest["health"] = {"exec": ["/bin/true"], "interval": 80, "timeout": 300, "retries": 1000, "start_period": 6000}
    host.give_all(host.home)
    host.apply(manifest)
    assert host.is_active(NAME)
    assert host.appbox("exec", NAME, "/bin/cat", f"/c{long[2:]}").out == "configuration"


def test_the_longest_name_says_that_it_is_ready(host: Host) -> None:
    host.machine.install("perl")
    manifest = redis_manifest(NAME, image=f"oci:{host.home}/long", version=TAG, security={"userns": "host"})
    manifest |= {"service": {"notify": True}}
    manifest["process"]["args"] += ["--supervised", "systemd"]
    host.appbox("image", "copy", "oci:/var/cache/appbox-dev/images/redis:debian", f"oci:{host.home}/long:{TAG}")
    host.apply(manifest)
    assert host.redis("ping") == "PONG"
