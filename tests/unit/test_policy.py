"""Policies: what a file may say, which images it is about, and what a name must be to satisfy it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appbox import admission, policy, policy_file, sources
from appbox.checking import check
from appbox.errors import AppboxError, ManifestError, Refused
from appbox.oci import public_key
from appbox.oci.digest import Digest
from appbox.oci.public_key import BadKeyError, PublicKey
from appbox.oci.reference import parse_image
from appbox.policy import Demand, PolicyFile, Signer
from appbox.store.root import Root
from tests.ground import cosign

KEY = public_key.parse(cosign.key().pem, "a.pub")
OTHER = public_key.parse(cosign.key().pem, "b.pub")


def read_key(name: str) -> PublicKey:
    if name in ("a.pub", "b.pub"):
        return KEY if name == "a.pub" else OTHER
    raise BadKeyError("cannot be read", "name a key")


def parse(text: str) -> PolicyFile:
    return policy_file.parse(text.encode(), "policy.toml", read_key)


def demand(text: str, name: str = "docker.io/valkey/valkey") -> Demand:
    return parse(text).demand(name)


# What a file may say


def test_an_empty_file_demands_nothing() -> None:
    assert demand("") == Demand("policy.toml")


def test_the_longest_prefix_counts_and_the_file_stands_behind_it() -> None:
    text = """
        require_digest = true
        signed_by = ["a.pub"]
        [[image]]
        prefix = "docker.io"
        signed_by = ["b.pub"]
        [[image]]
        prefix = "docker.io/valkey"
        require_digest = false
        [[image]]
        prefix = "docker.io/valkey/valkey/inner"
        unsigned = true
    """
    assert demand(text) == Demand("policy.toml", signed_by=(KEY,), require_digest=False)
    assert demand(text, "docker.io/valkeyx/a") == Demand("policy.toml", signed_by=(OTHER,), require_digest=True)
    assert demand(text, "ghcr.io/a") == Demand("policy.toml", signed_by=(KEY,), require_digest=True)
    assert demand(text, "docker.io/valkey/valkey/inner").signed_by == ()


def test_names_that_keys_may_sign_for_go_with_their_keys() -> None:
    text = """
        signed_by = ["a.pub"]
        signed_as = "quay.io/ours"
        [[image]]
        prefix = "docker.io"
        signed_by = ["b.pub"]
    """
    assert demand(text).signed_as == ""
    assert demand(text, "ghcr.io/a").signed_as == "quay.io/ours"


@pytest.mark.parametrize(
    ("text", "line", "key", "words"),
    [
        ("registrys = []", 1, "registrys", 'did you mean "registries"?'),
        ("x = 1", 1, "x", "known here: default"),
        ('default = "deny"', 1, "default", 'is not one of "allow", "refuse"'),
        ("default = true", 1, "default", "is not one of"),
        ('registries = "docker.io"', 1, "registries", 'write ["docker.io"]'),
        ("\nregistries = []", 2, "registries", "is empty"),
        ('registries = [\n"docker.io",\n"valkey"]', 3, "registries[1]", "no registry"),
        ('registries = ["oci:relative"]', 1, "registries[0]", "no registry"),
        ("signed_by = []", 1, "signed_by", "is empty"),
        ('signed_by = ["missing.pub"]', 1, "signed_by[0]", "cannot be read; name a key"),
        ("signed_by = [3]", 1, "signed_by[0]", "path of a public key"),
        ('signed_by = [""]', 1, "signed_by[0]", "path of a public key"),
        ('signed_as = "docker.io"', 1, "signed_as", "without signed_by"),
        ("require_digest = 1", 1, "require_digest", "expected true or false, got a whole number"),
        ("image = 3", 1, "image", "write [[image]]"),
        ('[image]\nprefix = "docker.io"', 1, "image", "write [[image]]"),
        ("[[image]]", 1, "image[0].prefix", "is missing"),
        ('[[image]]\nprefix = "x"', 2, "image[0].prefix", "no registry"),
        ('[[image]]\nprefix = "a.b"\n[[image]]\nprefix = "A.B"', 4, "image[1].prefix", "has a table already"),
        (
            '[[image]]\nprefix = "a.b"\nunsigned = true\nsigned_by = ["a.pub"]',
            3,
            "image[0].unsigned",
            "beside signed_by",
        ),
        ('[[image]]\nprefix = "a.b"\nregistries = ["a.b"]', 3, "image[0].registries", "unknown key"),
        ('[[image]]\nprefix = "a.b"\nunsigned = "yes"', 3, "image[0].unsigned", "expected true or false"),
        ("a = 1\na = 2", 2, "a", "key given twice"),
        ("a =", 1, "", "not valid TOML"),
    ],
)
def test_what_is_wrong_is_said_with_line_and_key(text: str, line: int, key: str, words: str) -> None:
    with pytest.raises(ManifestError) as error:
        parse(text)
    (problem,) = error.value.problems
    assert (problem.file, problem.line, problem.key) == ("policy.toml", line, key)
    assert words in f"{problem.message}; {problem.hint}"


def test_all_problems_are_said_at_once() -> None:
    with pytest.raises(ManifestError) as error:
        parse('x = 1\nsigned_by = ["c.pub", "d.pub"]\n[[image]]\n')
    assert len(error.value.problems) == 4


def test_a_file_that_is_no_text() -> None:
    with pytest.raises(ManifestError, match="UTF-8"):
        policy_file.parse(b'x = "\xff"', "policy.toml", read_key)


# Which images it is about


@pytest.mark.parametrize(
    ("prefix", "name", "covered"),
    [
        ("docker.io/valkey", "docker.io/valkey/valkey", True),
        ("docker.io/valkey", "docker.io/valkey", True),
        ("docker.io/valkey", "docker.io/valkeyx", False),
        ("docker.io/valkey", "docker.io/valkeyx/valkey", False),
        ("docker.io", "docker.io.evil.com/a", False),
        ("a.b:5000", "a.b/x", False),
        ("a.b", "a.b:5000/x", False),
        ("oci:", "oci:/srv/x", True),
        ("oci:", "oci-archive:/srv/x", False),
        ("oci:/srv", "oci:/srv/x", True),
        ("oci:/srv", "oci:/srvx", False),
        ("oci:/", "oci:/x", True),
    ],
)
def test_prefixes_are_of_whole_components(prefix: str, name: str, covered: bool) -> None:
    assert policy.covers(prefix, name) is covered


@given(st.from_regex(r"[a-z]{1,3}(/[a-z]{1,3}){0,3}", fullmatch=True), st.from_regex(r"[a-z]{1,3}", fullmatch=True))
def test_a_prefix_covers_what_is_below_it_only(prefix: str, more: str) -> None:
    assert policy.covers(prefix, f"{prefix}/{more}")
    assert not policy.covers(prefix, f"{prefix}{more}")


@pytest.mark.parametrize("text", ["docker.io/valkey/valkey", "index.docker.io/valkey/valkey"])
def test_names_are_compared_in_their_normal_form(text: str) -> None:
    demands = admission.Policies((parse('registries = ["registry-1.docker.io/valkey"]'),))
    assert demands.demands(parse_image(text), pinned=False).name == "docker.io/valkey/valkey"


@pytest.mark.parametrize(
    ("text", "name", "pinned", "words"),
    [
        ('registries = ["ghcr.io"]', "docker.io/a/b", True, "is not from an allowed registry"),
        ('default = "refuse"', "docker.io/a/b", True, "may not be used"),
        ('default = "refuse"\n[[image]]\nprefix = "docker.io/c"', "docker.io/a/b", True, "may not be used"),
        ('default = "refuse"\nregistries = ["ghcr.io"]', "docker.io/a/b", True, "is not from an allowed registry"),
        (
            'registries = ["ghcr.io"]\n[[image]]\nprefix = "docker.io/a"',
            "docker.io/a/b",
            True,
            "is not from an allowed",
        ),
        ("require_digest = true", "docker.io/a/b", False, "not pinned to a digest"),
        ('registries = ["docker.io"]', "oci:/srv/x", True, "is not from an allowed registry"),
    ],
)
def test_names_that_are_refused(text: str, name: str, pinned: bool, words: str) -> None:
    with pytest.raises(Refused, match=words) as error:
        policy.admit((demand(text, name),), name, pinned=pinned)
    assert "policy.toml" in str(error.value)
    assert error.value.hint


@pytest.mark.parametrize(
    "text",
    [
        'default = "refuse"\nregistries = ["docker.io"]',
        'default = "refuse"\n[[image]]\nprefix = "docker.io/a"',
        'default = "refuse"\nregistries = ["ghcr.io"]\n[[image]]\nprefix = "docker.io/a"',
        'registries = ["ghcr.io", "docker.io/a"]\nrequire_digest = true',
        'default = "allow"',
    ],
)
def test_names_that_are_not(text: str) -> None:
    policy.admit((demand(text, "docker.io/a/b"),), "docker.io/a/b", pinned=True)


def test_the_host_cannot_be_asked_for_less() -> None:
    policies = admission.Policies((parse('signed_by = ["a.pub"]\nrequire_digest = true'),))
    own = Demand("web.toml", signed_by=(OTHER,))
    with pytest.raises(Refused):
        policies.demands(parse_image("docker.io/a/b"), pinned=False, more=(own,))
    both = policies.demands(parse_image("docker.io/a/b"), pinned=True, more=(own,))
    assert [one.signed_by for one in both.every] == [(KEY,), (OTHER,)]


# What was found out before

DIGEST = Digest.parse("sha256:" + "ab" * 32)
NAME = "docker.io/valkey/valkey"


def signer(key: PublicKey = KEY, digest: object = DIGEST, name: str = "") -> Signer:
    return Signer("old name", key.fingerprint, str(digest), name)


def recorded(*demands: Demand, signers: tuple[Signer, ...]) -> tuple[Signer, ...] | None:
    return policy.recorded(demands, signers, (DIGEST,), NAME)


def test_a_record_counts_for_the_same_key_digest_and_name() -> None:
    wanted = Demand("p", signed_by=(OTHER, KEY))
    assert recorded(wanted, signers=(signer(),)) == (Signer("a.pub", KEY.fingerprint, str(DIGEST)),)
    assert recorded(wanted, signers=(signer(name=NAME),))
    assert recorded(Demand("p"), signers=()) == ()
    assert recorded(wanted, signers=()) is None
    assert recorded(wanted, signers=(signer(digest="sha256:" + "cd" * 32),)) is None
    assert recorded(wanted, signers=(signer(name="docker.io/redis/redis"),)) is None
    assert recorded(Demand("p", signed_by=(OTHER,)), signers=(signer(),)) is None
    assert recorded(wanted, Demand("q", signed_by=(OTHER,)), signers=(signer(),)) is None
    copied = Demand("p", signed_by=(KEY,), signed_as="quay.io")
    assert recorded(copied, signers=(signer(name=NAME),)) is None
    assert recorded(copied, signers=(signer(name="quay.io/a"),))


@pytest.mark.parametrize("value", [None, 3, "x", [3], [{}], {}])
def test_a_damaged_record_counts_for_nothing(value: object) -> None:
    assert recorded(Demand("p", signed_by=(KEY,)), signers=policy.signers_of({"signed_by": value})) is None
    assert policy.signers_of({"signed_by": [signer().as_dict()]}) == (signer(),)


# Files


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc/appbox/keys").mkdir(parents=True)
    return tmp_path


def load(root: Path, text: str | None = None, file: str | None = None) -> admission.Policies:
    if text is not None:
        (root / "etc/appbox/policy.toml").write_text(text)
    with Root(str(root)) as opened:
        return admission.load(opened, file)


def test_a_host_without_a_policy(root: Path) -> None:
    assert load(root) == admission.Policies()


def test_keys_are_beside_the_policy_or_below_the_root(root: Path) -> None:
    cosign.key().write(root / "etc/appbox/keys/a.pub")
    (one,) = load(root, 'signed_by = ["keys/a.pub", "/etc/appbox/keys/a.pub"]').files
    assert {key.name for key in one.signed_by} == {"/etc/appbox/keys/a.pub"}
    assert one.origin == "/etc/appbox/policy.toml"


def test_a_policy_of_the_command_line_comes_beside_it(root: Path) -> None:
    cosign.key().write(root / "mine/a.pub")
    (root / "mine/policy.toml").write_text('signed_by = ["a.pub"]\n')
    host, own = load(root, "require_digest = true", str(root / "mine/policy.toml")).files
    assert (host.require_digest, own.signed_by[0].name) == (True, "a.pub")


@pytest.mark.parametrize("file", ["", "missing.toml", "/dev/null/x", "/"])
def test_a_named_policy_that_cannot_be_read_is_an_error(root: Path, file: str) -> None:
    with pytest.raises(AppboxError):
        load(root, file=file)


@pytest.mark.parametrize("kind", ["dangling", "directory", "fifo", "large", "loop"])
def test_a_policy_that_cannot_be_read_is_never_passed_over(root: Path, kind: str) -> None:
    path = root / "etc/appbox/policy.toml"
    match kind:
        case "dangling":
            path.symlink_to("nowhere.toml")
        case "loop":
            path.symlink_to("policy.toml")
        case "directory":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "large":
            path.write_bytes(b"#" * ((1 << 20) + 1))
    with pytest.raises(AppboxError) as error:
        load(root)
    assert "/etc/appbox/policy.toml" in str(error.value)


@pytest.mark.parametrize("kind", ["dangling", "file", "loop"])
def test_a_directory_that_may_have_held_a_policy_is_not_passed_over(root: Path, kind: str) -> None:
    """Behind a link to a disk that is not mounted there may be one."""
    folder = root / "etc/appbox"
    shutil.rmtree(folder)
    if kind == "file":
        folder.write_text("")
    else:
        folder.symlink_to("nowhere" if kind == "dangling" else "appbox")
    with pytest.raises(AppboxError, match=r"/etc/appbox.*never passed over"):
        load(root)


def test_a_host_without_the_directory_has_no_policy(root: Path) -> None:
    shutil.rmtree(root / "etc/appbox")
    assert load(root) == admission.Policies()


def test_a_key_that_is_missing_names_its_line(root: Path) -> None:
    with pytest.raises(ManifestError) as error:
        load(root, '\nsigned_by = ["keys/a.pub"]')
    assert "/etc/appbox/policy.toml:2: signed_by[0]" in str(error.value)
    assert "no such file" in str(error.value)


# Keys of a manifest


def manifest(folder: Path, table: str) -> str:
    path = folder / "web.toml"
    path.write_text(f'name = "web"\nimage = "docker.io/library/nginx"\nversion = "1"\n[policy]\n{table}\n')
    return str(path)


def test_a_manifest_has_its_keys_with_it(tmp_path: Path) -> None:
    made = cosign.key().write(tmp_path / "keys/a.pub")
    (loaded,) = sources.load([manifest(tmp_path, 'signed_by = ["keys/a.pub"]')])
    assert loaded.keys == (public_key.parse(made.read_bytes(), ""),)
    assert loaded.keys[0].name == "keys/a.pub"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        (b"hello", "is not a public key in PEM"),
        (cosign.key().private_pem, "is a private key"),
        (b"x" * ((64 << 10) + 1), "is larger than"),
        (cosign.key("rsa1024").pem, "1024 bits"),
    ],
)
def test_check_finds_a_key_that_is_none(tmp_path: Path, content: bytes | None, words: str) -> None:
    good = cosign.key().write(tmp_path / "good.pub")
    if content is not None:
        (tmp_path / "bad.pub").write_bytes(content)
    with pytest.raises(ManifestError) as error:
        check([manifest(tmp_path, f'signed_by = [\n"{good.name}",\n"bad.pub"]')])
    (problem,) = error.value.problems
    assert (problem.line, problem.key) == (7, "policy.signed_by[1]")
    assert words in problem.message
    assert "bad.pub" in problem.message
