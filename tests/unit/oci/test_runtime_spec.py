"""`config.json`: what the specification asks for, what images need, and what must never be in it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appbox.errors import HostLacks, Refused
from appbox.oci import capabilities, runtime_spec, seccomp
from appbox.oci.runtime_spec import Container, IdMap, Mount, Rlimit
from appbox.oci.users import User


def spec(**values: Any) -> dict[str, Any]:
    return runtime_spec.spec(Container(**{"args": ("true",)} | values))


def mounts(**values: Any) -> dict[str, dict[str, Any]]:
    return {mount["destination"]: mount for mount in spec(**values)["mounts"]}


def namespaces(**values: Any) -> set[str]:
    return {namespace["type"] for namespace in spec(**values)["linux"]["namespaces"]}


def test_the_version_is_the_lowest_that_suffices() -> None:
    assert spec()["ociVersion"] == "1.0.2"


def test_the_process_is_as_told() -> None:
    process = spec(args=("a", "b"), env=("A=1",), cwd="/data", user=User(999, 1000, (50, 1000)))["process"]
    assert process["terminal"] is False
    assert process["args"] == ["a", "b"]
    assert process["env"] == ["A=1"]
    assert process["cwd"] == "/data"
    assert process["noNewPrivileges"] is True
    assert process["user"] == {"uid": 999, "gid": 1000, "umask": 0o022, "additionalGids": [1000, 50]}
    assert "rlimits" not in process


def test_root_has_its_capabilities_and_others_only_the_bounding_set() -> None:
    names = sorted(capabilities.DEFAULT_CAPABILITIES)
    none: list[str] = []
    assert spec()["process"]["capabilities"] == {
        "bounding": names,
        "effective": names,
        "permitted": names,
        "inheritable": none,
        "ambient": none,
    }
    held = spec(user=User(1, 0))["process"]["capabilities"]
    assert (held["bounding"], held["effective"], held["permitted"], held["ambient"]) == (names, none, none, none)


def test_capabilities_that_do_not_exist_are_refused() -> None:
    with pytest.raises(Refused, match="CAP_NO: no such capability"):
        spec(capabilities=frozenset({"CAP_CHOWN", "CAP_NO"}))


def test_there_are_41_capabilities_and_14_by_default() -> None:
    assert len(capabilities.ALL_CAPABILITIES) == 41
    assert len(capabilities.DEFAULT_CAPABILITIES) == 14
    assert capabilities.DEFAULT_CAPABILITIES < capabilities.ALL_CAPABILITIES


@pytest.mark.parametrize(
    ("name", "full"),
    [("chown", "CAP_CHOWN"), ("CAP_CHOWN", "CAP_CHOWN"), ("cap_bpf", "CAP_BPF"), ("ALL", None), ("", None)],
)
def test_capabilities_may_be_named_as_people_name_them(name: str, full: str | None) -> None:
    assert capabilities.canonical(name) == full


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "x" * 131_072])
@pytest.mark.parametrize("key", ["args", "env", "cwd"])
def test_what_no_process_can_be_given_is_refused(text: str, key: str) -> None:
    with pytest.raises(Refused, match=key):
        spec(**{key: text if key == "cwd" else ("ok", text)})


def test_nothing_to_run_is_refused() -> None:
    with pytest.raises(Refused, match="nothing to run"):
        spec(args=())


def test_a_string_may_be_as_long_as_the_kernel_takes_it() -> None:
    assert spec(args=("é" * 65_535,))["process"]["args"] == ["é" * 65_535]


def test_namespaces_follow_network_and_userns() -> None:
    base = {"cgroup", "ipc", "mount", "pid", "uts"}
    assert namespaces(network="host") == base
    assert namespaces(network="none") == base | {"network"}
    assert namespaces(network="none", userns=IdMap(70_000)) == base | {"network", "user"}


def test_ids_are_mapped_for_users_and_groups_alike() -> None:
    linux = spec(userns=IdMap(70_000, 1000))["linux"]
    assert linux["uidMappings"] == linux["gidMappings"] == [{"containerID": 0, "hostID": 70_000, "size": 1000}]
    assert "uidMappings" not in spec()["linux"]


@pytest.mark.parametrize(("base", "size"), [(0, 65_536), (-1, 1), (5, 0), (2**32 - 10, 100)])
def test_an_id_range_never_holds_root_nor_ends_beyond_32_bits(base: int, size: int) -> None:
    with pytest.raises(ValueError, match="no id range"):
        IdMap(base, size)


def test_the_hosts_sysfs_is_bound_only_where_it_cannot_be_mounted() -> None:
    bound = mounts(network="host", userns=IdMap(70_000))["/sys"]
    assert (bound["source"], "rbind" in bound["options"], "ro" in bound["options"]) == ("/sys", True, True)
    for values in ({"network": "host"}, {"network": "none"}, {"network": "none", "userns": IdMap(70_000)}):
        made = mounts(**values)["/sys"]
        assert (made["type"], "ro" in made["options"]) == ("sysfs", True)


def test_the_services_own_mounts_come_last_and_in_their_order() -> None:
    own = (Mount("/data", "/srv/d", "bind", ("rbind",)), Mount("/data/in", "none", "tmpfs"), Mount("/x", "/y"))
    assert spec(mounts=own)["mounts"][-3:] == [
        {"destination": "/data", "type": "bind", "source": "/srv/d", "options": ["rbind"]},
        {"destination": "/data/in", "type": "tmpfs", "source": "none"},
        {"destination": "/x", "source": "/y"},
    ]


def test_the_standard_mounts_are_there() -> None:
    assert set(mounts()) == {"/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/sys/fs/cgroup"}
    assert "ro" in mounts()["/sys/fs/cgroup"]["options"]


def test_what_tells_of_the_host_is_masked_and_what_changes_it_read_only() -> None:
    linux = spec()["linux"]
    assert {"/proc/kcore", "/proc/keys", "/sys/firmware"} <= set(linux["maskedPaths"])
    assert {"/proc/sys", "/proc/sysrq-trigger"} <= set(linux["readonlyPaths"])
    assert linux["resources"]["devices"][0] == {"allow": False, "access": "rwm"}


def test_what_is_not_asked_for_is_left_out() -> None:
    data = spec(seccomp="unconfined")
    assert "hostname" not in data
    assert "annotations" not in data
    assert "seccomp" not in data["linux"]
    assert "cgroupsPath" not in data["linux"]
    assert data["root"] == {"path": "rootfs", "readonly": False}


def test_limits_host_name_and_cgroup_are_passed_on() -> None:
    data = spec(hostname="web", cgroups_path="web", rlimits=(Rlimit("RLIMIT_NOFILE", 10, 20),), read_only=True)
    assert data["hostname"] == "web"
    assert data["linux"]["cgroupsPath"] == "web"
    assert data["process"]["rlimits"] == [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}]
    assert data["root"]["readonly"] is True


@given(st.lists(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=30), min_size=1))
def test_any_text_comes_back_exactly_from_plain_ascii(texts: list[str]) -> None:
    text = runtime_spec.dumps(spec(args=tuple(texts), seccomp="unconfined"))
    assert text.isascii()
    assert json.loads(text)["process"]["args"] == texts


def test_the_same_container_is_written_the_same_way() -> None:
    assert runtime_spec.dumps(spec()) == runtime_spec.dumps(spec())
    assert runtime_spec.dumps({"a": 1}) == '{\n  "a": 1\n}\n'


@pytest.mark.parametrize(
    "data", [spec(), {"a": [], "b": {}, "c": [{}, [[]]], "d": (1, None, True, False, -1.5, 'é\n"\x00\ud800')}, {}]
)
def test_the_text_is_what_pythons_own_encoder_makes(data: dict[str, Any]) -> None:
    assert runtime_spec.dumps(data) == json.dumps(data, indent=2) + "\n"


def allowed(profile: dict[str, Any]) -> set[str]:
    rules = (rule for rule in profile["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" and "args" not in rule)
    return {name for rule in rules for name in rule["names"]}


def test_the_filter_denies_what_it_does_not_name() -> None:
    profile = seccomp.profile("amd64", capabilities.DEFAULT_CAPABILITIES)
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    names = allowed(profile)
    assert {"read", "execve", "clone", "chroot", "futex"} - names == {"clone"}
    assert not names & {"mount", "bpf", "reboot", "kexec_load", "init_module", "unshare", "setns", "keyctl", "add_key"}
    assert not names & {"io_uring_setup", "userfaultfd", "open_by_handle_at", "swapon", "pivot_root"}


def test_a_thread_can_be_made_and_a_namespace_cannot() -> None:
    rules = seccomp.profile("amd64", ())["syscalls"]
    (clone,) = [rule for rule in rules if rule["names"] == ["clone"]]
    (clone3,) = [rule for rule in rules if rule["names"] == ["clone3"]]
    assert clone["args"] == [{"index": 0, "value": 0x7E020000, "op": "SCMP_CMP_MASKED_EQ"}]
    assert (clone3["action"], clone3["errnoRet"]) == ("SCMP_ACT_ERRNO", 38)


def test_a_capability_brings_its_calls() -> None:
    for capability, names in seccomp.BY_CAPABILITY.items():
        assert capability in capabilities.ALL_CAPABILITIES
        assert set(names) <= allowed(seccomp.profile("amd64", {capability}))
    assert "clone" in allowed(seccomp.profile("arm64", {"CAP_SYS_ADMIN"}))


def test_sockets_of_the_kernels_crypto_and_of_the_hypervisor_are_denied() -> None:
    rules = [rule for rule in seccomp.profile("amd64", ())["syscalls"] if rule["names"] == ["socket"]]
    equal = {rule["args"][0]["value"] for rule in rules if rule["args"][0]["op"] == "SCMP_CMP_EQ"}
    assert not equal & {38, 40}
    assert {16, 17} <= equal


def test_architectures() -> None:
    assert seccomp.profile("arm64", ())["architectures"] == ["SCMP_ARCH_AARCH64"]
    both = seccomp.profile("amd64", (), programs_32_bit=True)
    assert both["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    with pytest.raises(HostLacks, match="riscv64: no seccomp profile"):
        seccomp.profile("riscv64", ())
