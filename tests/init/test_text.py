"""Text of a manifest arrives byte for byte, or is refused; none of it becomes a word of a unit or a script."""

from __future__ import annotations

from typing import Any

import pytest
import tomli_w

from tests.init.host import CONTAINERS, Host, script_manifest

# Each would leave /pwned on the machine, or be changed on its way, if a shell, an init or a template read it.
TEXTS = [
    "$(touch /pwned)",
    "`touch /pwned`",
    "'; touch /pwned; '",
    '"; touch /pwned; "',
    "\\'; touch /pwned #",
    "x\nExecStartPre=/bin/touch /pwned\n",
    "x\rExecStartPre=/bin/touch /pwned\r",
    "\nstart_pre() { touch /pwned; }\n",
    "x\\\n; touch /pwned",
    "pwned % %% %n %i %h $$ $HOME ${HOME}",
    "pwned trailing backslash\\",
    " pwned \t around ",
    "pwned; & | < > * ? ~ [a] {a,b} !",
    "{{ 7 * 7 }}{% pwned %}{# #}",
    "pwned ünïcödé 🎉 \u202e",
    "pwned \x01\x1b[31m\x7f",
    "-pwned",
    "@pwned",
    "",
]

# Writes down how it was started, then stays until it is told to stop.
WITNESS = """
trap 'exit 0' TERM
cat /proc/$$/cmdline >/data/words
cat /proc/$$/environ >/data/environ
pwd >/data/pwd
while :; do sleep 1000 & wait $!; done
"""


def units(host: Host, name: str) -> str:
    """Return all that an init or a shell reads of a service."""
    return host.machine.read(host.unit(name)) + host.machine.read(f"{CONTAINERS}/{name}/run")


def test_arguments_environment_and_files_arrive_exactly(host: Host) -> None:
    environment = {f"TEXT_{number}": text for number, text in enumerate(TEXTS)}
    files = {f"/etc/texts/{number}": {"text": text} for number, text in enumerate(TEXTS)}
    manifest = script_manifest(WITNESS, *TEXTS, config=files, description="".join(TEXTS))
    manifest["process"]["env"] = environment
    host.apply(manifest)
    host.machine.wait_until(lambda: host.has_data("job", "pwd"), 10, "the service")
    assert host.data("job", "words").split("\0")[3:-1] == ["sh", *TEXTS]
    seen = dict(entry.partition("=")[::2] for entry in host.data("job", "environ").split("\0") if entry)
    assert {name: seen.get(name) for name in environment} == environment
    for number, text in enumerate(TEXTS):
        result = host.appbox("exec", "job", "cat", f"/etc/texts/{number}")
        assert result.out.encode() == text.encode()
    assert "pwned" not in units(host, "job")
    host.machine.reboot()
    assert not host.machine.exists("/pwned")


def with_text(key: str, text: str) -> dict[str, Any]:
    """Return a manifest with `text` at `key`."""
    manifest = script_manifest(WITNESS)
    if key == "workdir":
        manifest["process"]["workdir"] = text
    elif key == "user":
        manifest["process"]["user"] = text
    elif key == "stop_signal":
        manifest["process"]["stop_signal"] = text
    elif key == "hostname":
        manifest["network"] = {"mode": "none", "hostname": text}
    elif key == "volume path":
        manifest["volumes"]["more"] = {"path": text}
    elif key == "volume source":
        manifest["volumes"]["more"] = {"path": "/more", "source": text}
    elif key == "config path":
        manifest["config"] = {text: {"text": "x"}}
    elif key == "env name":
        manifest["process"]["env"] = {text: "x"}
    elif key == "version":
        manifest["version"] = text
    return manifest


KEYS = (
    "workdir",
    "user",
    "stop_signal",
    "hostname",
    "volume path",
    "volume source",
    "config path",
    "env name",
    "version",
)


@pytest.mark.parametrize("key", KEYS)
def test_text_in_other_keys_is_refused_or_stays_data(host: Host, key: str) -> None:
    prefix = "/" if key in ("workdir", "volume path", "volume source", "config path") else ""
    paths = [
        host.write_manifest({**with_text(key, prefix + text), "name": f"job-{number}-"})
        for number, text in enumerate(TEXTS)
    ]
    checked = host.machine.run(["appbox", "check", *paths], check=False)
    assert checked.code in (0, 3), checked
    assert "Traceback" not in checked.err
    for path in (path for path in paths if path not in checked.err):
        applied = host.machine.run(["appbox", "apply", path], check=False)
        # What a manifest may say can still be impossible in this image: an unknown user, a path through a file.
        assert applied.code in (0, 1, 3, 5, 6), applied
        assert "Traceback" not in applied.err
        name = path.rpartition("/")[2].removesuffix(".toml")
        if applied.code == 0:
            assert "pwned" not in units(host, name)
            host.control("stop", name, check=False)
    assert not host.machine.exists("/pwned")


@pytest.mark.parametrize("name", ["../../etc/x", "a b", "a\nb", "A", "-a", ".a", "a/b", "a;b", "", "a" * 64, "é"])
def test_names_that_could_mean_something_are_refused(host: Host, name: str) -> None:
    manifest = {**script_manifest(WITNESS), "name": name}
    before = host.files()
    host.machine.write("/root/services/x.toml", tomli_w.dumps(manifest))
    host.appbox("apply", "/root/services/x.toml", code=3)
    assert host.files() == before
