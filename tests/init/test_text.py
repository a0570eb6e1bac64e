"""Text of a manifest arrives byte for byte, or is refused; none of it becomes a word of a unit or a script."""

from __future__ import annotations

import tomli_w

from tests.init.host import Host, script_manifest

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
    return host.machine.read(host.unit(name)) + host.machine.read(f"{host.containers}/{name}/run")


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
    host.reboot()
    assert not host.machine.exists("/pwned")


NAMES = ["../../etc/x", "a b", "a\nb", "A", "-a", ".a", "a/b", "a;b", "", "a" * 64, "é"]


def test_names_that_could_mean_something_are_refused(host: Host) -> None:
    before = host.files(without=("services",))
    for name in NAMES:
        host.write(f"{host.services}/x.toml", tomli_w.dumps({**script_manifest(WITNESS), "name": name}))
        host.appbox("apply", f"{host.services}/x.toml", code=3)
        assert host.files(without=("services",)) == before
