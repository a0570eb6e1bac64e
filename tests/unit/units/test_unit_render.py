"""Rendering: scripts that every POSIX shell reads, and a last guard against free text."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appbox.units import openrc, render, systemd
from appbox.units.limits import Limits
from appbox.units.model import Bridge, Check, LogFiles, Pasta, Rootless, RunScript, Scratch, StopSignal, Unit, When

HEALTH: tuple[tuple[Any, Any, Any], ...] = (
    ("exec", "restart", ""),
    ("tcp", "stop", "relay"),
    ("http", "none", ""),
    ("https", "restart", "direct"),
)
TEMPLATES = Path(render.__file__).parent / "templates"
SCRIPTS = {
    "limits": render.run_script(RunScript("web", "1.0", limits=Limits(6 << 20, 0, 1000, 1, 1, 1))),
    "userns": render.run_script(RunScript("web", "1.0", base=1_879_048_192)),
    "host": render.run_script(RunScript("web", "1.0", resolver="", stop_signal=StopSignal("SIGQUIT", 3))),
    "secrets": render.run_script(RunScript("web", "1.0", secrets=2)),
    "persistent": render.run_script(RunScript("web", "1.0", persistent=True)),
    "bridge": render.run_script(
        RunScript("web", "1.0", bridge=Bridge("db", "ab-db"), hosts="bridge", resolver="outside")
    ),
    **{
        f"bridge-of-a-user-{ids}": render.run_script(
            RunScript(
                "web",
                "1.0",
                bridge=Bridge("db", "ab-db"),
                hosts="bridge",
                resolver="outside",
                pasta=Pasta(("8080:80",)),
                rootless=Rootless("0 7 1", "0 7 1", alone=ids == "alone"),
            )
        )
        for ids in ("many", "alone")
    },
    "timezone": render.run_script(RunScript("web", "1.0", timezone=True)),
    "read-only": render.run_script(RunScript("web", "1.0", scratch=(Scratch("tmp", "/tmp"),))),
    **{
        f"health-{kind}-{action}-{notify}": render.run_script(
            RunScript("web", "1.0", check=Check(kind, action=action, port=80), notify=notify, host_network=notify == "")
        )
        for kind, action, notify in HEALTH
    },
    "job": render.run_script(RunScript("web", "1.0", job=True, reload="command", log=LogFiles(1, 1))),
    "crun": render.run_script(
        RunScript(
            "web",
            "1.0",
            runtime="crun",
            check=Check("exec"),
            shares="db",
            limits=Limits(6 << 20, 0, 1000, 1, 1, 1),
            reload="command",
        )
    ),
    "crun-of-a-user": render.run_script(
        RunScript(
            "web", "1.0", runtime="crun", rootless=Rootless("0 7 1", "0 7 1"), check=Check("exec"), reload="SIGHUP"
        )
    ),
    "reload": render.run_script(RunScript("web", "1.0", reload="SIGRTMIN+3")),
    "init-reload": openrc.render(Unit("web", "1.0", reload=True, wants=("db", "net")))[0].text,
    "init-health": openrc.render(Unit("web", "1.0", check=Check("exec")))[0].text,
    "init": openrc.render(Unit("web", "1.0", restart="no", requires=("db",)))[0].text,
}
CHECKERS = {
    "sh": ["sh", "-n"],
    "dash": ["dash", "-n"],
    "busybox": ["busybox", "sh", "-n"],
    "shellcheck": ["shellcheck", "-s", "sh"],
}


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("checker", CHECKERS)
def test_shells_read_every_script(name: str, checker: str, tmp_path: Path) -> None:
    words = CHECKERS[checker]
    if shutil.which(words[0]) is None:
        pytest.skip(f"needs {words[0]}; ./dev test installs it")
    if name.startswith("init") and checker == "shellcheck":
        words = [*words, "-e", "SC2034"]  # openrc-run reads the variables
    script = tmp_path / "script"
    script.write_text(SCRIPTS[name])
    done = subprocess.run([*words, str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_job_has_a_timer_or_a_line_for_cron() -> None:
    job = Unit("a.b", "1", restart="no", schedule=When("*-*-* 01:00:00"), cron=When("0 1 * * *"))
    service, timer = systemd.render(job)
    assert "WantedBy" not in service.text
    assert timer.path == "/etc/systemd/system/a.b.timer"
    assert "OnCalendar=*-*-* 01:00:00\n" in timer.text
    assert systemd.link(job) is not None
    assert openrc.link(job) is None
    init, table = openrc.render(job)
    assert init.path == "/etc/init.d/a.b"
    # Debian's cron passes over names with a dot.
    assert table.path == "/etc/cron.d/appbox-aDOTb"
    assert table.text.splitlines()[1:] == ["0 1 * * * root /opt/containers/a.b/run due"]
    busybox = openrc.render(replace(job, crontab=True))[1]
    assert busybox.path == "/etc/crontabs/root:a.b"
    assert busybox.text.splitlines()[1:] == ["0 1 * * * /opt/containers/a.b/run due"]
    assert len(openrc.render(replace(job, enable=False))) == 1


@pytest.mark.parametrize("text", ["", "$(x)", "a\nb", "a%b", "a;b", " a", "a  b", "a b c d e f"])
def test_times_carry_nothing_else(text: str) -> None:
    with pytest.raises(ValueError, match="not a time"):
        When(text)


@pytest.mark.parametrize("value", ["a.b-c_d", "/opt/containers/web", 5, "SIGRTMIN+3", "# Made; by", "lowerdir=/a,b"])
def test_harmless_values_pass(value: object) -> None:
    assert render.harmless(value) == value


@pytest.mark.parametrize("character", list("\n\r\0\t'\"\\$`%&|<>(){}[]*?!~^@é\u2028"))
def test_a_character_that_means_something_does_not(character: str) -> None:
    with pytest.raises(ValueError, match="free text"):
        render.harmless(f"a{character}b")


@given(st.text())
def test_what_passes_is_one_line_of_plain_words(text: str) -> None:
    try:
        render.harmless(text)
    except ValueError:
        return
    assert text.isascii()
    assert not set(text) & set("\n\r\0'\"\\$`%&|<>(){}*?!~")


def test_templates_hold_no_logic_beyond_ifs_and_loops() -> None:
    for template in TEMPLATES.rglob("*.j2"):
        statements = [part.split("%}")[0].split()[0] for part in template.read_text().split("{%")[1:]]
        assert set(statements) <= {"if", "elif", "else", "endif", "for", "endfor", "include"}, template


def test_the_lines_of_a_unit_are_those_of_its_template() -> None:
    text = systemd.render(Unit("web", "1.0"))[0].text
    assert "\n\n\n" not in text
    assert text.endswith("WantedBy=multi-user.target\n")


def test_a_script_of_another_version_differs_only_where_the_version_stands() -> None:
    first, second = (render.run_script(RunScript("web", version)) for version in ("1.0", "2.0"))
    assert first.replace("web-1.0", "web-2.0") == second


def test_a_users_own_openrc_needs_no_root() -> None:
    unit = Unit("web", "1.0", rootless=True, check=Check("exec"), reload=True, notify=True)
    text = openrc.render(unit)[0].text
    assert "\t(umask 022; mkdir -p /var/log/appbox) || return 1\n" in text
    assert not re.search(r"\b(su|checkpath|chown|as_user|command_user|cgroup)\b", text)
    script = render.run_script(
        RunScript("web", "1.0", rootless=Rootless("0 7 1", "0 7 1"), check=Check("exec"), states="/run/user/7")
    )
    assert "rc-service --user --ifstarted" in script
    assert '"/run/user/7/openrc/starting/$name"' in script
    assert '"/run/user/7/openrc/stopping/$name"' in script
    assert "/sys/fs/cgroup/openrc." not in script
    by_root = Rootless("0 7 1", "0 7 1", by_root=True)
    of_root = render.run_script(RunScript("web", "1.0", rootless=by_root, check=Check("exec"), states="/run/user/7"))
    assert '"/run/openrc/starting/$name"' in of_root
    assert "/sys/fs/cgroup/openrc." in of_root
