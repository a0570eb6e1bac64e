"""Configuration files, overlays of hosts and secrets, as a running service has them."""

from __future__ import annotations

import json

import tomli_w

from tests.init.host import Host, script_manifest

SECRETS = ("value-of-the-file-5b1d", "value-of-the-command-77aa", "value-of-age-c0de")
STAY = "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done"
RELOADED = f"trap 'echo told >>/data/told' HUP; {STAY}"
SCRIPT = f"""
cat /run/secrets/* /srv/c >/data/new; stat -c '%u:%g %a' /run/secrets/b >>/data/new; mv /data/new /data/secrets
{STAY}
"""


def inside(host: Host, *words: str) -> str:
    return host.appbox("exec", "job", *words).out


def first_process(host: Host) -> int:
    found = json.loads(host.appbox("--json", "status", "job").out)
    assert found["state"] == "running"
    return int(found["pid"])


def test_files_are_replaced_in_the_running_container_as_the_manifest_says(host: Host) -> None:
    def write(number: int, extra: str = "") -> str:
        host.write(f"{host.services}/conf.d/a.conf", f"a{number}\n", 0o644)
        host.write(f"{host.services}/conf.d/sub/tool", f"#!/bin/sh\necho tool{number}\n", 0o755)
        host.write(f"{host.services}/t.j2", f"{{{{ who }}}} {{{{ facts.hostname }}}} {number} {extra}\n", 0o644)
        return host.write_manifest(
            script_manifest(
                RELOADED,
                process={"entrypoint": ["sh", "-c", RELOADED], "user": "5:6"},
                vars={"who": "all"},
                config={
                    "/etc/app.conf": {"text": f"text{number}\n", "on_change": "none", "mode": "0440"},
                    "/etc/app.d": {"directory": "conf.d", "on_change": "reload"},
                    "/etc/app.d/t.conf": {"template": "t.j2", "on_change": "none"},
                },
                service={"reload": "SIGHUP"},
            )
        )

    name = host.run(["uname", "-n"]).out.strip()
    overlay = {"vars": {"who": "only"}, "services": {"job": {"process": {"env": {"HERE": name}}}}}
    host.write(f"{host.services}/hosts/{name.upper()}.toml", tomli_w.dumps(overlay))
    path = write(1)
    host.appbox("check", path)
    assert "hosts/" in host.appbox("apply", path).out
    seen = inside(host, "sh", "-c", "cat /etc/app.conf /etc/app.d/*.conf; stat -c '%u:%g %a' /etc/app.conf; echo $HERE")
    assert seen.split("\n")[:5] == ["text1", "a1", f"only {name} 1 ", "5:6 440", name]
    assert inside(host, "/etc/app.d/sub/tool") == "tool1\n"
    assert 'who = "only"' in host.machine.read(f"{host.containers}/job/bundle.toml")
    pid, mounts = first_process(host), inside(host, "cat", "/proc/1/mountinfo").count("\n")

    plan = host.appbox("plan", write(2)).out
    if host.ordinary:
        assert "only root can let a running container see new files" in plan
        assert "restart it" in plan
        host.appbox("apply", path)
        assert inside(host, "cat", "/etc/app.conf", "/etc/app.d/a.conf") == "text2\na2\n"
        assert "nothing to do" in host.appbox("apply", path).out.lower()
        return
    assert "replace /etc/app.conf, /etc/app.d in the running container" in plan
    assert "reload it" in plan
    assert "restart it" not in plan
    host.appbox("apply", path)
    assert inside(host, "sh", "-c", "cat /etc/app.conf /etc/app.d/a.conf; /etc/app.d/sub/tool") == "text2\na2\ntool2\n"
    host.machine.wait_until(lambda: host.has_data("job", "told"), 10, "the reload")
    assert "nothing to do" in host.appbox("apply", path).out.lower()

    # The next one is written, and neither shown nor told: as if the run had been killed there.
    host.appbox("apply", "--no-start", write(3))
    assert inside(host, "cat", "/etc/app.conf") == "text2\n"
    assert "it still has those of before" in host.appbox("plan", path, code=0).out
    host.appbox("apply", path)
    assert inside(host, "cat", "/etc/app.conf", "/etc/app.d/a.conf") == "text3\na3\n"
    host.machine.wait_until(lambda: host.data("job", "told").count("told") == 2, 10, "the second reload")

    # Only what is replaced without a word changes.
    host.write(f"{host.services}/t.j2", "quiet\n", 0o644)
    assert "reload it" not in host.appbox("apply", path).out
    assert inside(host, "cat", "/etc/app.d/t.conf") == "quiet\n"
    assert (pid, mounts) == (first_process(host), inside(host, "cat", "/proc/1/mountinfo").count("\n"))
    assert host.data("job", "told").count("told") == 2
    host.control("restart", "job")
    assert inside(host, "cat", "/etc/app.conf", "/etc/app.d/t.conf") == "text3\nquiet\n"
    assert "nothing to do" in host.appbox("apply", path).out.lower()


def test_secrets_are_in_the_container_and_nowhere_else(host: Host) -> None:
    host.run(["mkdir", "-p", "-m", "0755", f"{host.places.config}/secrets"])
    recipient = host.run(["age-keygen", "-o", f"{host.places.config}/age.key"]).err.split()[-1]
    host.write(f"{host.places.config}/secrets/a", SECRETS[0], 0o400)
    host.write(f"{host.places.config}/secrets/b", SECRETS[1], 0o400)
    host.write(f"{host.places.config}/secrets/c", SECRETS[2], 0o400)
    encrypt = f"age --armor -r {recipient} -o {host.services}/c.age {host.places.config}/secrets/c"
    host.run(["sh", "-c", f"mkdir -p {host.services} && {encrypt} && rm {host.places.config}/secrets/c"])
    manifest = script_manifest(
        SCRIPT,
        process={"entrypoint": ["sh", "-c", SCRIPT], "user": "5:6"},
        secrets={
            "a": {"file": f"{host.places.config}/secrets/a", "mode": "0444", "owner": "0:0"},
            "b": {"command": ["sh", "-c", f"cat {host.places.config}/secrets/b; echo heard >&2"]},
            "c": {"age": "c.age", "path": "/srv/c", "owner": "5"},
        },
    )
    path = host.write_manifest(manifest)
    said = host.appbox("plan", "-v", path).out + host.appbox("--json", "plan", path).out
    assert "secret b is what" in said
    said += host.apply(manifest).out
    host.machine.wait_until(lambda: host.has_data("job", "secrets"), 20, "the secrets")
    assert host.data("job", "secrets") == f"{''.join(SECRETS)}5:6 400\n"
    host.machine.path(f"{host.containers}/job/data/data/secrets").unlink()
    host.machine.wait_until(lambda: "heard" in host.appbox("logs", "job").out, 10, "what the command said to the log")

    said += host.appbox("logs", "job").out + host.appbox("status", "job").out
    said += host.run(["sh", "-c", "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | tr '\\0' ' '"], check=False).out
    assert not [value for value in SECRETS if value in said]
    for value in SECRETS:
        words = ["grep", "-raFl", "--exclude-dir=secrets", value, "/opt", "/etc", "/var", "/root", "/run"]
        assert host.run(words, check=False).out == ""

    # A new value is there after a restart; one that cannot be read keeps the service down.
    host.write(f"{host.places.config}/secrets/a", "new-value", 0o400)
    host.control("restart", "job")
    host.machine.wait_until(lambda: host.has_data("job", "secrets"), 20, "the secrets")
    assert host.data("job", "secrets").startswith("new-value")
    host.run(["rm", f"{host.places.config}/secrets/a"])
    error = host.appbox("plan", path, code=8).err
    assert f"{path}:" in error
    assert f"secrets.a.file: {host.places.config}/secrets/a is missing" in error
    host.control("stop", "job")
    host.control("start", "job", check=False)
    host.machine.wait_until(
        lambda: "the file of secret a is missing" in host.appbox("logs", "job").out, 20, "the words"
    )
    assert json.loads(host.appbox("--json", "status", "job").out)["state"] != "running"
