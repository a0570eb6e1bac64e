"""Secrets on the real runc: read at each start by a shell alone, exact to the byte, and left nowhere else."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from appbox import secrets
from appbox.oci import runtime_spec
from appbox.oci.users import User
from appbox.store import paths
from appbox.units import model, render

pytestmark = [pytest.mark.root, pytest.mark.runc]

BASE = 1_879_048_192
BUSYBOX = "/bin/busybox"
VALUE = b"s3cr\0et-7f1d\n\n"
SHOW = "for f in /run/secrets/*; do stat -c '%n %u:%g %a' $f; done; cat /run/secrets/*"
TOOLS = (
    "cat",
    "chmod",
    "chown",
    "cp",
    "env",
    "head",
    "mkdir",
    "mount",
    "rm",
    "sleep",
    "stat",
    "timeout",
    "wc",
    "xargs",
)
NUMBER = iter(range(10**6))


@dataclass
class Secretive:
    """A service of busybox with secrets: each a kind and what the generation has of it."""

    bundles: Path
    name: str
    tools: str
    found: list[tuple[str, bytes]] = field(default_factory=list)
    owner: tuple[int, int] = (7, 8)

    @property
    def bundle(self) -> Path:
        return self.bundles / f"{self.name}-1.0"

    @property
    def listed(self) -> Path:
        return self.bundle / ".current/secrets"

    def make(self, script: str = SHOW) -> None:
        rootfs, live = self.bundle / "rootfs", self.bundle / ".live"
        for directory in ("bin", "dev", "etc", "proc", "sys", "run"):
            (rootfs / directory).mkdir(parents=True)
        shutil.copy(BUSYBOX, rootfs / "bin/busybox")
        for applet in ("sh", "cat", "stat", "env", "ls", "mount", "grep", "id"):
            (rootfs / "bin" / applet).symlink_to("busybox")
        (live / "work").mkdir(parents=True)
        (live / "upper").mkdir()
        (live / "resolv.conf").touch()
        for path in (rootfs, *rootfs.rglob("*"), live / "upper"):
            os.lchown(path, BASE, BASE)
        os.chown(self.bundle, 0, BASE)
        self.bundle.chmod(0o710)
        (self.bundles / self.name).symlink_to(self.bundle.name)
        self.listed.mkdir(parents=True)
        lines = ""
        for number, (kind, data) in enumerate(self.found, 1):
            (self.listed / f"{number}.{kind}").write_bytes(data)
            lines += f"{number} {kind} {BASE + self.owner[0]}:{BASE + self.owner[1]} 0400 s{number}\n"
        (self.listed / "list").write_text(lines)
        mounts = tuple(
            runtime_spec.Mount(f"/run/secrets/s{n}", f"{self.bundle}/.live/secrets/{n}", "", ("bind", "ro", "nosuid"))
            for n in range(1, len(self.found) + 1)
        )
        contained = runtime_spec.Container(
            args=("sh", "-c", script),
            env=("PATH=/bin",),
            user=User(*self.owner),
            userns=runtime_spec.IdMap(BASE),
            mounts=mounts,
            cgroups_path=self.name,
        )
        (self.bundle / "config.json").write_text(runtime_spec.dumps(runtime_spec.spec(contained)))
        text = render.run_script(
            model.RunScript(self.name, "1.0", BASE, secrets=len(self.found), bundles=str(self.bundles))
        )
        (self.bundle / "run").write_text(text)
        (self.bundle / "run").chmod(0o755)

    def run(self, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
        # The script executes itself once more by its first line, and has a PATH of its own: busybox takes
        # the place of sh, and that of the tools.
        words = ["unshare", "-m", "--propagation", "private", "sh", "-c"]
        swap = 'shift && exec "$@"'
        if self.tools:
            swap = f"mount --bind {self.tools} /usr/local/sbin && mount --bind {self.tools}/sh /bin/sh && {swap}"
        script = str(self.bundles / self.name / "run")
        return subprocess.run(
            [*words, swap, "sh", "x", script],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=90,
            env={**os.environ, **(env or {})},
        )


@pytest.fixture(params=["dash", "busybox"])
def service(request: pytest.FixtureRequest) -> Iterator[Secretive]:
    name = f"s{os.getpid()}-{next(NUMBER)}"
    bundles = Path("/var/tmp", f"appbox-secrets-{name}")
    bundles.mkdir()
    tools = bundles / "tools"
    if request.param == "busybox":
        tools.mkdir()
        shutil.copy(BUSYBOX, tools / "sh")
        for applet in TOOLS:
            (tools / applet).symlink_to("sh")
    yield Secretive(bundles, name, str(tools) if tools.exists() else "")
    subprocess.run(["runc", "delete", "--force", name], capture_output=True, check=False)
    shutil.rmtree(f"/run/appbox/{name}", ignore_errors=True)
    shutil.rmtree(bundles)


def command(*words: str) -> tuple[str, bytes]:
    return "command", b"".join(word.encode() + b"\0" for word in words)


def kept(path: Path, data: bytes, mode: int = 0o400) -> tuple[str, bytes]:
    path.write_bytes(data)
    path.chmod(mode)
    return "file", f"{path}\n".encode()


def python(text: str, *words: str) -> tuple[str, bytes]:
    return command("python3", "-c", text, *words)


def test_every_byte_arrives_and_belongs_to_the_user(service: Secretive) -> None:
    odd = service.bundles / "a b\\n'$(x)`\"é%;*"
    service.found = [
        kept(odd, VALUE),
        python("import sys; sys.stdout.buffer.write(sys.argv[1].encode() + bytes(range(256)))", "\n'\\\"$x `é\r"),
        kept(service.bundles / "empty", b""),
        kept(service.bundles / "large", b"x" * secrets.LIMIT),
    ]
    service.make()
    done = service.run()
    assert done.stderr == b""
    head = b"".join(b"/run/secrets/s%d 7:8 400\n" % n for n in (1, 2, 3, 4))
    exact = VALUE + "\n'\\\"$x `é\r".encode() + bytes(range(256)) + b"x" * secrets.LIMIT
    assert done.stdout == head + exact


def test_commands_get_their_words_and_no_environment(service: Secretive) -> None:
    words = ("", " ", "-n", "a\nb", "\\", "*", "$HOME", "x" * 60_000)
    text = (
        "import os, sys; print(sorted(os.environ.items())); sys.stdout.write('|'.join(sys.argv[1:]) + sys.stdin.read())"
    )
    service.found = [python(text, *words)]
    service.make("cat /run/secrets/s1")
    done = service.run({"TOKEN": "of the shell", "LC_ALL": "C.UTF-8"})
    first, _, rest = done.stdout.partition(b"\n")
    assert done.stderr == b""
    assert b"TOKEN" not in first
    assert [name for name in ("HOME", "PATH") if f"'{name}'".encode() in first] == ["HOME", "PATH"]
    assert rest == "|".join(words).encode()


def test_secrets_lie_in_memory_alone(service: Secretive) -> None:
    service.found = [kept(service.bundles / "x", b"value")]
    service.make("grep ' /run/secrets/s1 ' /proc/mounts; echo y >/run/secrets/s1")
    done = service.run()
    kind, options = done.stdout.split()[2:4]
    assert kind in {b"tmpfs", b"ramfs"}
    assert kind == b"ramfs" or b"noswap" in options or os.uname().release < "6.4"
    assert b"ro" in options.split(b",")
    assert list((service.bundle / ".live").iterdir()) == [
        path for path in (service.bundle / ".live").iterdir() if path.name in {"upper", "work", "resolv.conf"}
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("sh", "-c", "echo hidden-value; echo why >&2; exit 3"), "why"),
        (("sh", "-c", "kill -9 $$"), ""),
        (("no-such-program",), "no-such-program"),
        (("sh", "-c", "head -c 2000000 /dev/zero"), "secret s1 is larger than 1048576 bytes"),
    ],
)
def test_a_failing_command_keeps_the_service_down(service: Secretive, words: Sequence[str], said: str) -> None:
    service.found = [command(*words)]
    service.make()
    done = service.run()
    assert done.returncode != 0
    assert done.stdout == b""
    assert said.encode() in done.stderr
    assert b"hidden-value" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"appbox: {service.name}: ".encode())
    assert b"secret s1" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("mode", "owner", "size", "said"),
    [
        (0o640, 0, 1, ""),
        (0o402, 0, 1, "may be written by others"),
        (0o420, 0, 1, "may be written by others"),
        (0o4060, 0, 1, "may be written by others"),
        (0o400, 1, 1, "does not belong to root"),
        (0o400, 0, secrets.LIMIT + 1, "is larger than 1048576 bytes"),
    ],
)
def test_files_that_others_could_have_written_are_refused(
    service: Secretive, mode: int, owner: int, size: int, said: str
) -> None:
    path = service.bundles / "x"
    service.found = [kept(path, b"x" * size)]
    os.chown(path, owner, 0)
    path.chmod(mode)
    service.make("cat /run/secrets/s1")
    done = service.run()
    assert (done.returncode == 0, done.stdout) == ((True, b"x") if not said else (False, b""))
    assert said.encode() in done.stderr


def test_a_file_that_is_missing_is_named_in_words(service: Secretive) -> None:
    service.found = [("file", b"/nonexistent/secret\n")]
    service.make()
    assert service.run().stderr.decode() == f"appbox: {service.name}: the file of secret s1 is missing\n"
    os.mkfifo(service.bundles / "pipe")
    (service.listed / "1.file").write_text(f"{service.bundles}/pipe\n")
    assert service.run().stderr.decode() == f"appbox: {service.name}: the file of secret s1 is missing\n"


@pytest.fixture
def key() -> Iterator[str]:
    """Make the host's identity file for age, and return whom to encrypt for."""
    path = Path(paths.AGE_KEY)
    before = path.read_bytes() if path.exists() else None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    made = subprocess.run(["age-keygen", "-o", path], capture_output=True, text=True, check=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    yield made.stderr.split()[-1]
    path.unlink()
    if before is not None:
        path.write_bytes(before)
        path.chmod(0o600)


@pytest.mark.parametrize("armor", [(), ("--armor",)])
def test_age_decrypts_with_the_key_of_the_host(service: Secretive, key: str, armor: Sequence[str]) -> None:
    text = subprocess.run(["age", *armor, "-r", key], input=VALUE, capture_output=True, check=True).stdout
    service.found = [("age", text)]
    service.make("cat /run/secrets/s1")
    done = service.run()
    assert (done.stdout, done.stderr) == (VALUE, b"")
    (service.listed / "1.age").write_bytes(text[:-20] + b"x" * 20)
    broken = service.run()
    assert broken.returncode != 0
    assert broken.stdout == b""
    assert broken.stderr.splitlines()[-1].endswith(b"secret s1 cannot be decrypted with /etc/appbox/age.key")


def test_a_start_without_the_key_says_so(service: Secretive) -> None:
    if Path(paths.AGE_KEY).exists():
        pytest.fail(f"{paths.AGE_KEY} is there; these tests make their own")
    service.found = [("age", b"age-encryption.org/v1\n")]
    service.make()
    assert b"is encrypted, and /etc/appbox/age.key is missing" in service.run().stderr
