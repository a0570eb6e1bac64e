"""What has to change, as data: the actions, their order, their reasons; and that plans lead to where they say."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appbox import data_plan
from appbox import plan as plans
from appbox.actions import CarryData, InstallUnit, Publish, RenderConfig, Switch
from appbox.desired_values import Desired
from appbox.errors import AppboxError
from appbox.locked import HostSource
from appbox.store.installed import REMOVED, Installed
from tests.ground.pure import FACTS, HEAD, build, image
from tests.ground.simulated import Host

DATA = '[volumes.data]\npath = "/data"\n'
HOST = '[network]\nmode = "host"\n'
FIRST = ["unpack", "allocate-range", "make-volume", "render-config", "publish", "switch", "install-unit", "enable"]


def service(tables: str = DATA, version: str = "1.0", content: str = "1", **more: object) -> Desired:
    head = HEAD.replace("1.0", version)
    return build(tables, head=head, of=image(content), **more)  # type: ignore[arg-type]


def kinds(host: Host, desired: Desired) -> list[str]:
    return [action.kind for action in host.plan(desired).actions]


def installed(desired: Desired | None = None) -> Host:
    host = Host()
    desired = desired or service()
    host.carry_out(host.plan(desired))
    assert kinds(host, desired) == []
    return host


def test_a_first_apply() -> None:
    assert kinds(Host(), service()) == [*FIRST, "start"]
    assert kinds(Host(), service(f"{DATA}[service]\nenable = false\n")) == FIRST[:-1]


def test_every_action_has_a_reason_and_says_what_it_does() -> None:
    for action in Host().plan(service()).actions:
        assert action.reason
        assert action.sentence == action.sentence.strip()
        assert action.service == "web"


def test_nothing_is_started_where_nothing_runs() -> None:
    for live, start in ((False, True), (True, False)):
        found = plans.diff(service(), Host().observe("web-1.0"), live=live, start=start, new_range=True)
        assert [action.kind for action in found.actions] == FIRST


def test_without_an_init_system_there_is_no_unit() -> None:
    facts = replace(FACTS, init="none")
    assert kinds(Host(), service(facts=facts)) == FIRST[:-2]


@pytest.mark.parametrize(
    ("tables", "actions"),
    [
        (f'description = "other"\n{DATA}', ["render-config"]),
        (f"{DATA}{HOST}", ["render-config", "install-unit", "restart"]),
        (f'{DATA}[process]\nargs = ["x"]\n', ["render-config", "restart"]),
        (f"{DATA}[process]\nstop_timeout = 77\n", ["render-config", "install-unit", "restart"]),
        (f"{DATA}[service]\nenable = false\n", ["render-config", "enable"]),
        (f'{DATA}[volumes.more]\npath = "/more"\n', ["make-volume", "render-config", "restart"]),
        (f'{DATA}[volumes.t]\npath = "/t"\ntmpfs = true\n', ["render-config", "restart"]),
        ("", ["render-config", "restart"]),
    ],
)
def test_only_what_changed_is_done(tables: str, actions: list[str]) -> None:
    host = installed()
    assert kinds(host, service(tables)) == actions
    host.carry_out(host.plan(service(tables)))
    assert kinds(host, service(tables)) == []


def test_a_calm_file_restarts_nothing() -> None:
    def of(text: str, change: str, mode: str = "0444") -> Desired:
        table = f'[config."/c"]\ntext = "{text}"\non_change = "{change}"\nmode = "{mode}"\n'
        return service(DATA + table)

    host = installed(of("a", "none"))
    assert kinds(host, of("b", "none")) == ["render-config", "replace"]
    assert kinds(host, of("b", "none", "0400")) == ["render-config", "replace"]
    assert kinds(host, of("b", "restart")) == ["render-config", "restart"]
    (action, _) = host.plan(of("b", "restart")).actions
    assert isinstance(action, RenderConfig)
    assert action.changes == ("/c", "bundle.toml")
    assert "-a\n+b\n" in action.diff


def test_what_runs_with_older_configuration_is_restarted() -> None:
    host = installed()
    host.stale = True
    assert kinds(host, service()) == ["restart"]
    host.stale, host.running = False, "web-0.9"
    assert kinds(host, service()) == ["restart"]
    host.running = ""
    assert kinds(host, service()) == ["start"]


def test_another_version_takes_the_data_along() -> None:
    host = installed()
    plan = host.plan(service(version="2.0"))
    assert [action.kind for action in plan.actions] == [
        *("unpack", "render-config", "publish", "install-unit", "stop"),
        *("switch", "carry-data", "start"),
    ]
    assert next(a for a in plan.actions if isinstance(a, CarryData)).origin == "web-1.0"
    host.carry_out(plan)
    assert host.data == {"web-2.0": {"data"}}
    back = host.plan(service())
    assert [a.kind for a in back.actions] == [
        *("render-config", "install-unit", "stop", "switch", "carry-data", "start"),
    ]
    host.carry_out(back)
    assert host.data == {"web-1.0": {"data"}}
    # What the unit does for the version that runs changes when that has ended.
    other = host.plan(service("[process]\nstop_timeout = 77\n", version="2.0"))
    assert [a.kind for a in other.actions][-4:] == ["switch", "carry-data", "install-unit", "start"]


def test_a_moved_tag_is_built_aside_and_exchanged() -> None:
    host = installed()
    plan = host.plan(service(content="2"))
    assert [a.kind for a in plan.actions] == ["unpack", "render-config", "stop", "publish", "carry-data", "start"]
    (publish,) = (a for a in plan.actions if isinstance(a, Publish))
    assert publish.replaces == f".replaced/web-1.0@{service().digest[7:19]}"
    host.carry_out(plan)
    assert host.data == {"web-1.0": {"data"}}
    host.carry_out(host.plan(service()))
    assert host.data == {"web-1.0": {"data"}}


def test_a_new_volume_during_an_upgrade_is_made_where_the_data_is() -> None:
    host = installed()
    desired = service(f'{DATA}[volumes.more]\npath = "/more"\n', version="2.0")
    host.carry_out(host.plan(desired))
    assert host.data == {"web-2.0": {"data", "more"}}


def test_after_a_removal_the_data_is_found_again() -> None:
    for version in ("1.0", "2.0"):
        host = installed()
        host.remove()
        assert host.data == {"web-1.0": {"data"}}
        plan = host.plan(service(version=version))
        assert "make-volume" not in [a.kind for a in plan.actions]
        host.carry_out(plan)
        assert host.data == {f"web-{version}": {"data"}}
        assert kinds(host, service(version=version)) == []


def test_a_note_of_a_move_that_never_happened_moves_nothing() -> None:
    """2.0 was current for an instant, its data never came, and 3.0 took it: back to 2.0 it comes from 3.0."""
    host = installed()
    plan = host.plan(service(version="2.0"))
    host.carry_out(plan, [a for a in plan.actions if not isinstance(a, CarryData | InstallUnit)])
    assert host.versions["web-2.0"].carry == "web-1.0"
    host.carry_out(host.plan(service(version="3.0")))
    assert host.data == {"web-3.0": {"data"}}
    host.carry_out(host.plan(service(version="2.0")))
    assert host.data == {"web-2.0": {"data"}}


def test_a_version_that_is_missing_is_made_again() -> None:
    host = installed()
    del host.versions["web-1.0"], host.data["web-1.0"]
    found = host.plan(service())
    assert [a.kind for a in found.actions][:5] == ["unpack", "make-volume", "render-config", "publish", "stop"]
    (switch,) = (a for a in found.actions if isinstance(a, Switch))
    assert switch.sentence == "point /opt/containers/web to web-1.0"
    host.carry_out(found)
    assert kinds(host, service()) == []


def test_a_damaged_version_is_made_again_with_its_data() -> None:
    host = installed()
    host.versions["web-1.0"] = replace(host.versions["web-1.0"], problem="has no rootfs", meta={}, files={})
    found = host.plan(service())
    assert found.actions[0].reason == "web-1.0 has no rootfs"
    host.carry_out(found)
    assert host.data == {"web-1.0": {"data"}}
    assert kinds(host, service()) == []


USERNS = "security.userns of a service that has data cannot change"


def test_the_ids_of_data_never_change() -> None:
    hosted = service(f'{DATA}[security]\nuserns = "host"\n')
    with pytest.raises(AppboxError, match=USERNS) as caught:
        installed().plan(hosted)
    assert "belongs to the ids from 1879048192 on; save the data, then appbox remove --purge web" in str(caught.value)
    with pytest.raises(AppboxError, match="belongs to the ids from 0 on"):
        installed(hosted).plan(service())
    for version in ("1.0", "2.0"):
        host = installed()
        host.remove()
        with pytest.raises(AppboxError, match=USERNS):
            host.plan(service(f'{DATA}[security]\nuserns = "host"\n', version=version))


def test_a_lost_range_is_written_down_again() -> None:
    host = installed()
    host.base = None
    assert kinds(host, service()) == ["allocate-range"]


def test_an_edited_unit_is_repaired() -> None:
    host = installed()
    (path,) = host.units
    host.units[path] += "# mine\n"
    (action, restart) = host.plan(service()).actions
    assert isinstance(action, InstallUnit)
    assert "-# mine\n" in action.diff
    assert restart.kind == "restart"


def test_an_edited_generation_is_repaired() -> None:
    host = installed()
    version = host.versions["web-1.0"]
    for path in ("run", "config.json"):
        files = {**version.files, path: replace(version.files[path], data=b"x\xff")}
        host.versions["web-1.0"] = replace(version, files=files)
        (action, restart) = host.plan(service()).actions
        assert isinstance(action, RenderConfig)
        assert (action.changes, action.generation, restart.kind) == ((path,), 2, "restart")
        assert "(binary, 2 bytes)" in action.diff
    host.versions["web-1.0"] = replace(version, files={**version.files, "strange": version.files["run"]})
    assert kinds(host, service()) == ["render-config", "restart"]


def test_when_bundle_toml_was_written_is_no_change() -> None:
    host = installed()
    version = host.versions["web-1.0"]
    meta = version.files["bundle.toml"]
    dated = replace(meta, data=b"created = 2020-01-01T00:00:00Z\neffective = 1\n" + meta.data)
    host.versions["web-1.0"] = replace(version, files={**version.files, "bundle.toml": dated})
    assert kinds(host, service()) == []


def test_what_only_an_apply_knows_stands_in_no_diff() -> None:
    before, after = (service(f'{DATA}[vars]\ncreated = "{text}"\n') for text in "ab")
    host = installed(before)
    version = host.versions["web-1.0"]
    meta = version.files["bundle.toml"]
    dated = replace(meta, data=b'created = 2020-01-01T00:00:00Z\neffective = 1\nrootfs_mtree = "x"\n' + meta.data)
    host.versions["web-1.0"] = replace(version, files={**version.files, "bundle.toml": dated})
    assert kinds(host, before) == []
    (action,) = host.plan(after).actions
    assert isinstance(action, RenderConfig)
    changed = [line for line in action.diff.splitlines()[2:] if line.startswith(("-", "+"))]
    assert changed == ['-created = "a"', '+created = "b"']


SOURCE = '[volumes.h]\npath = "/h"\nsource = "/srv/h"\n'


@pytest.mark.parametrize(
    ("there", "used", "made"),
    [
        (None, False, True),
        (None, True, True),
        (HostSource(True, True, 0, 0), False, True),
        (HostSource(True, True, 0, 0), True, False),
        (HostSource(True, False, 0, 0), False, False),
    ],
)
def test_a_path_of_the_host_is_taken_once(there: HostSource | None, used: bool, made: bool) -> None:
    desired = service(SOURCE, sources={"/srv/h": there})
    meta = {"manifest": {"volumes": {"h": {"source": "/srv/h"}}}, "uid_base": desired.base} if used else {}
    current = Installed("web", "0.9", "web-0.9", 1, meta)
    found = plans.diff(desired, plans.Observed(current=current), live=False, start=False, new_range=False)
    assert ("make-volume" in [a.kind for a in found.actions]) is made


def test_what_somebody_made_of_bundle_toml_does_no_harm() -> None:
    for meta in ({"image": 3, "manifest": 4, "uid_base": "x"}, {"manifest": {"volumes": 3}}, {}):
        found = Installed("web", "1", "web-1", 1, meta)
        assert (found.digest, found.base, found.sources) == ("", 0, frozenset())


def test_the_commands_of_secrets_stand_in_no_diff() -> None:
    tables = "[secrets.a]\ncommand = {}\nmode = '0440'\n[process]\nargs = ['shown\\nas it is']\n"
    desired = service(tables.format("['pass', 'hunter2', ']']"))
    (action,) = (a for a in Host().plan(desired).actions if isinstance(a, RenderConfig))
    assert b"hunter2" in next(file.data for file in desired.files if file.path == "bundle.toml")
    assert "hunter2" not in action.diff
    assert "+mode = 288\n" in action.diff or "0440" in action.diff
    assert "shown" in action.diff
    host = installed(desired)
    (action,) = (a for a in host.plan(service(tables.format("['x']"))).actions if isinstance(a, RenderConfig))
    assert "hunter2" not in action.diff
    assert "bundle.toml" in action.diff


def test_a_long_diff_is_cut() -> None:
    found = plans.unified("", "".join(f"{n}\n" for n in range(1000)), "etc/x").splitlines()
    assert len(found) == 401
    assert found[:2] == ["--- /dev/null", "+++ b/etc/x"]
    assert found[-1] == "… 603 more lines"
    assert plans.unified("a\n", "a\n", "x") == ""


_EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["1.0", "2.0", "3.0"]),
        st.sampled_from(["1", "2"]),
        st.sampled_from([DATA, "", f'{DATA}[volumes.b]\npath = "/b"\n', '[process]\nargs = ["x"]\n', HOST]),
        st.sampled_from(["none", "none", "remove", "vanish", "stop"]),
        st.integers(0, 12),
        st.booleans(),
    ),
    min_size=1,
    max_size=5,
)


def _state(host: Host, event: str) -> None:
    if event == "remove":
        host.remove()
    elif event == "stop":
        host.running = ""
    elif event == "vanish" and host.link:
        host.versions.pop(host.link, None)
        host.data.pop(host.link, None)
        host.running = ""


@settings(max_examples=60, deadline=None)
@given(_EVENTS)
def test_a_plan_converges_from_whatever_was_before(events: list[tuple[str, str, str, str, int, bool]]) -> None:
    """Also from where an interrupted run ended; and volumes with data are in one place, the current version's."""
    host = Host()
    for version, content, tables, event, steps, interrupted in events:
        _state(host, event)
        desired = service(tables, version, content)
        before = {name for names in host.data.values() for name in names}
        if interrupted:
            plan = host.plan(desired)
            host.carry_out(plan, plan.actions[:steps])
            continue
        host.carry_out(host.plan(desired))
        assert kinds(host, desired) == []
        assert host.link == host.running == desired.directory
        assert {d for d, names in host.data.items() if names} <= {host.link}
        assert host.data.get(host.link, frozenset()) >= before | {v.name for v in desired.volumes}
        assert not host.versions[host.link].carry


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["1.0", "2.0"]), st.sampled_from(["1", "2"]), st.integers(0, 10))
def test_the_same_command_again_ends_where_it_would_have(version: str, content: str, steps: int) -> None:
    desired = service(f'{DATA}[volumes.b]\npath = "/b"\n', version, content)
    straight, broken = installed(), installed()
    straight.carry_out(straight.plan(desired))
    plan = broken.plan(desired)
    broken.carry_out(plan, plan.actions[:steps])
    broken.carry_out(broken.plan(desired))
    assert broken.versions[broken.link] == straight.versions[straight.link]
    assert (broken.link, broken.data[broken.link]) == (straight.link, straight.data[straight.link])
    assert [d for d, names in broken.data.items() if names] == [broken.link]


def test_replaced_names_say_which_image_it_was() -> None:
    found = Installed("web", "1", "web-1", 1, {"image": {"digest": "sha256:0123456789abcdef"}})
    place = ".replaced/web-1@0123456789ab"
    assert data_plan.replaced_path(found, plans.Observed(current=found)) == place
    assert data_plan.replaced_path(found, plans.Observed(current=replace(found, carry=place))) == f"{place}+"
    assert data_plan.replaced_path(Installed("web", "1", "web-1", 1, {}), plans.Observed()) == ".replaced/web-1@broken"
    assert data_plan.rebuild_reason("sha256:1", 0, replace(found, problem=REMOVED)) == f"web-1 {REMOVED}"


CALM = """
[config."/r"]
text = "{r}"
on_change = "reload"
[config."/n"]
text = "{n}"
on_change = "none"
[service]
reload = "SIGHUP"
"""


def test_files_are_replaced_while_the_service_runs() -> None:
    def of(r: str = "1", n: str = "1") -> Desired:
        return service(DATA + CALM.format(r=r, n=n))

    host = installed(of())
    assert kinds(host, of(n="2")) == ["render-config", "replace"]
    assert kinds(host, of(r="2")) == ["render-config", "replace", "reload"]
    (_, replacing, _) = host.plan(of("2", "2")).actions
    assert replacing.sentence == "replace /n, /r in the running container"
    other = service(DATA + CALM.format(r="2", n="2") + '[process]\nenv = { A = "1" }\n')
    assert kinds(host, other) == ["render-config", "restart"]
    host.carry_out(host.plan(of("2", "2")))
    assert kinds(host, of("2", "2")) == []
    host.running = ""
    assert kinds(host, of("3")) == ["render-config", "start"]


def test_what_a_running_service_was_not_shown_is_made_up_for() -> None:
    host = installed(service(DATA + CALM.format(r="1", n="1")))
    host.unseen = True
    assert kinds(host, service(DATA + CALM.format(r="1", n="1"))) == ["replace", "reload"]
    only = CALM.replace('on_change = "reload"', "").replace('reload = "SIGHUP"', "")
    host = installed(service(DATA + only.format(r="1", n="1")))
    host.unseen = True
    (replacing,) = host.plan(service(DATA + only.format(r="1", n="1"))).actions
    assert replacing.sentence == "replace /n in the running container"
    host = installed()
    host.unseen = True
    assert kinds(host, service()) == ["restart"]


def test_a_service_runs_on_while_its_lost_link_is_made_again() -> None:
    host = installed()
    host.link = ""
    assert kinds(host, service()) == ["switch"]
    # What changes beside that is done as ever.
    assert kinds(host, service('[process]\nargs = ["x"]\n'))[-1] == "restart"
    assert kinds(host, service(version="2.0"))[-5:] == ["install-unit", "stop", "switch", "carry-data", "start"]


@pytest.mark.parametrize("init", ["systemd", "openrc"])
def test_when_snapshots_are_taken_restarts_nothing(init: str) -> None:
    facts = replace(FACTS, init=init, cron="cron.d")  # type: ignore[arg-type]

    def of(time: str = "", args: str = "a") -> Desired:
        tables = f'[snapshots]\nschedule = "{time}"\n' if time else ""
        return service(f'{DATA}{tables}[process]\nargs = ["{args}"]\n', facts=facts)

    host = installed(of())
    for time in ("daily", "weekly", ""):
        plan = host.plan(of(time))
        timed = [action for action in plan.actions if action.kind == "schedule"]
        assert [action.sentence for action in timed] == (
            [f"take snapshots of it at their times {'from now on' if time else 'no longer'}"] * (init == "systemd")
        )
        assert not {"stop", "restart"} & {action.kind for action in plan.actions}
        host.carry_out(plan)
    assert kinds(host, of("daily", "x"))[-1] == "restart"
