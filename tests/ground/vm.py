"""Virtual machines for tests: a root with a kernel of its own, which has every controller of cgroup v2.

The processor is emulated, so that no help of the real one is needed, and everything takes ten times as long as it does
in `machine`. `Emulator` is the machine whatever its disks are; `VirtualMachine` is a root of `roots`, whose disk is
made anew and thrown away. A kernel and its first file system are kept.
"""

from __future__ import annotations

import contextlib
import json
import lzma
import os
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.ground import cache, roots
from tests.ground.machine import ENVIRONMENT, CommandError, Result

FORMAT = 1  # counts up when the way kernels are prepared changes
PACKAGE = "linux-image-cloud-amd64"
# In the order in which they need each other; what is not in the kernel itself.
MODULES = (
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci",
    "drivers/block/virtio_blk",
    "drivers/char/virtio_console",
    "fs/overlayfs/overlay",
)
INITRAMFS = Path(__file__).with_name("vm-init.sh")
AGENT = Path(__file__).with_name("vm_agent.py")
# $1: layers, $2: where they are mounted for a while, $3: the file system made of them, $4: its size, $5: its features
FILL = 'mount -t overlay -o "lowerdir=$1" ground "$2" && mke2fs -q -F -t ext4 -O "$5" -d "$2" "$3" "$4"'
QEMU = "qemu-system-x86_64"
# What rc-status says with many more instructions: the runlevel that OpenRC is in, unless it is on its way there.
OPENRC_IS_UP = """\
until [ ! -e /run/openrc/rc.starting ] && [ "$(cat /run/openrc/softlevel)" = default ]; do sleep 1; done 2>/dev/null
"""
SLOWNESS = 4  # how much longer everything may take that has a time limit


def kernel() -> Path:
    """Return a directory with Debian's `vmlinuz` and an `initramfs` that mounts the disk, made when it is missing."""
    package = newest_kernel()
    prefix = "kernel-"
    path = cache.root() / "machines" / f"{prefix}{cache.key(FORMAT, package, MODULES, INITRAMFS.read_text())}"
    with cache.locked(path):
        if not path.exists():
            cache.say(f"fetching {package} into {path}")
            cache.forget_others(path, prefix)
            with cache.scratch("kernel") as scratch, cache.replacing(path) as fresh:
                unpack_kernel(package, scratch)
                shutil.copy(next(scratch.glob("boot/vmlinuz-*")), fresh / "vmlinuz")
                pack_initramfs(next(scratch.glob("lib/modules/*")), scratch / "first", fresh / "initramfs")
    return path


def newest_kernel() -> str:
    """Return the package that Debian's name for the newest kernel stands for."""
    for line in roots.run(["apt-cache", "depends", PACKAGE]).splitlines():
        if "Depends: linux-image-" in line:
            return line.split()[-1]
    msg = f"apt does not know {PACKAGE}; apt-get update fetches what it knows"
    raise RuntimeError(msg)


def unpack_kernel(package: str, directory: Path) -> None:
    """Unpack a Debian package of a kernel, without installing it on this machine."""
    words = ["apt-get", "download", "--quiet", "-o", "APT::Sandbox::User=root", package]
    done = subprocess.run(words, cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        msg = f"{package} cannot be fetched: {done.stderr}"
        raise RuntimeError(msg)
    roots.run(["dpkg-deb", "--extract", str(next(directory.glob("*.deb"))), str(directory)])


def pack_initramfs(modules: Path, directory: Path, target: Path) -> None:
    """Pack busybox, the first script and those of MODULES that are below `modules`, for a kernel to start with."""
    directory.mkdir()
    for name in ("bin", "dev", "proc", "sys", "new", "modules"):
        (directory / name).mkdir()
    shutil.copy("/bin/busybox", directory / "bin/busybox")
    shutil.copy(INITRAMFS, directory / "init")
    (directory / "init").chmod(0o755)
    built_in = (modules / "modules.builtin").read_text().split()
    for number, name in enumerate(MODULES):
        source, target_name = modules / f"kernel/{name}.ko", directory / f"modules/{number:02}.ko"
        if f"kernel/{name}.ko" in built_in:
            continue
        if source.exists():
            shutil.copy(source, target_name)
        else:  # newer kernels come with compressed modules, which busybox cannot load
            target_name.write_bytes(lzma.decompress(Path(f"{source}.xz").read_bytes()))
    names = "\n".join(str(path.relative_to(directory)) for path in sorted(directory.rglob("*")))
    with target.open("wb") as file:
        words = ["busybox", "cpio", "-o", "-H", "newc"]
        subprocess.run(words, cwd=directory, input=names.encode(), stdout=file, stderr=subprocess.PIPE, check=True)


def disk(root: roots.Root) -> Path:
    """Return a file system with a root and appbox's dependencies in it, made when it is missing."""
    prefix = f"disk-{root.init.name}-"
    path = cache.root() / "machines" / f"{prefix}{cache.key(FORMAT, root.system.name, root.environment.name, FILL)}"
    with cache.locked(path):
        if not path.exists():
            cache.say(f"making a disk with {root.init.name} in {path}")
            cache.forget_others(path, prefix)
            with cache.replacing(path) as fresh:
                make_disk((root.environment, root.system), fresh / "disk", "1G")
    return path / "disk"


def make_disk(layers: Sequence[Path], target: Path, size: str, *, journal: bool = False) -> None:
    """Make a file system of layers, uppermost first; without a `journal` it is made faster and breaks more easily."""
    with cache.scratch("disk") as scratch:
        lower = (*layers, scratch) if len(layers) == 1 else layers  # an overlay without an upper layer has two at least
        words = ["unshare", "--mount", "--propagation=private", "sh", "-c", FILL, "sh"]
        (scratch / "mounted").mkdir()
        features = "has_journal" if journal else "^has_journal"
        roots.run([*words, ":".join(map(str, lower)), str(scratch / "mounted"), str(target), size, features])


class Emulator:
    """A machine with a kernel of its own, from `with` to its end. Not booted until `boot`.

    `init` is "systemd" or "openrc"; `kernel` a directory with `vmlinuz` and `initramfs`; `options` more words for the
    kernel. The first program takes /dev/vda for the root, and needs in it `ground/agent.py` and `ground/init`.
    """

    def __init__(self, init: str, kernel: Path, options: str = "", processors: int = 2) -> None:
        self.init, self._kernel, self._options, self._processors = init, kernel, options, processors
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._kept = contextlib.ExitStack()
        self.directory = self._kept.enter_context(cache.scratch(f"vm-{self.init}"))
        (self.directory / "console").touch()

    def drives(self) -> Sequence[str]:
        """Return what QEMU calls drives: /dev/vda, /dev/vdb and so on."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.power_off()
        self._kept.close()

    # Power

    def boot(self, timeout: float = 400) -> None:
        """Start the machine; return when the init has started all that it starts at boot."""
        with socket.socket(socket.AF_UNIX) as listener:
            (self.directory / "channel").unlink(missing_ok=True)
            listener.bind(str(self.directory / "channel"))
            listener.listen(1)
            listener.settimeout(20)
            with (self.directory / "qemu").open("wb") as log:
                # When the tests are killed, the machine dies with them.
                words = ["setpriv", "--pdeathsig=KILL", *self._command()]
                self._process = subprocess.Popen(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, "TMPDIR": str(self.directory)},  # for what is written to the disk
                )
            try:
                self._socket = listener.accept()[0]
            except TimeoutError:
                msg = f"{QEMU} does not start: {(self.directory / 'qemu').read_text(errors='replace')}"
                raise AssertionError(msg) from None
        # The channel is there before anybody listens at its other end, and keeps what was said.
        self.run(["true"], timeout=timeout / SLOWNESS)
        self.wait_until(self._is_up, timeout, "the init to finish booting")

    def _command(self) -> list[str]:
        console, channel = self.directory / "console", self.directory / "channel"
        words = [QEMU, "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-m", "1024"]
        words += ["-smp", str(self._processors)]
        words += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
        words += ["-chardev", f"file,id=console,path={console},append=on", "-serial", "chardev:console"]
        words += ["-chardev", f"socket,id=channel,path={channel}", "-device", "virtio-serial"]
        words += ["-device", "virtserialport,chardev=channel,name=ground"]
        for drive in self.drives():
            words += ["-drive", f"{drive},format=raw,if=virtio"]
        words += ["-kernel", str(self._kernel / "vmlinuz"), "-initrd", str(self._kernel / "initramfs")]
        return [*words, "-append", f"console=ttyS0 quiet panic=-1 tsc=reliable mitigations=off {self._options}"]

    def _is_up(self) -> bool:
        """Wait inside, which leaves the processor to those who boot; say whether that was possible."""
        if self.init == "systemd":
            done = self.run(["systemctl", "is-system-running", "--wait"], check=False, timeout=100)
            return done.out.strip() in ("running", "degraded")
        return self.run(["sh", "-c", OPENRC_IS_UP], check=False, timeout=100).code == 0

    def power_off(self) -> None:
        """Cut the power: what the machine has not written to its disks is lost."""
        if self._process is not None:
            self._process.kill()
        self._end()

    def reboot(self, timeout: float = 400) -> None:
        """Restart the machine as its administrator does; the init has to end within `timeout` seconds."""
        assert self._process is not None
        self.run(["systemctl", "reboot"] if self.init == "systemd" else ["shutdown", "-r", "now"], check=False)
        try:
            self._process.wait(timeout)  # -no-reboot: QEMU ends where a real machine starts anew
        except subprocess.TimeoutExpired:
            msg = f"the machine does not go down; the console's end:\n{self.console()[-4000:]}"
            raise AssertionError(msg) from None
        self._end()
        self.boot()

    def _end(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            self._process.wait()
            self._process = None

    def console(self) -> str:
        """Return what the kernel and the init have written to the console."""
        return (self.directory / "console").read_text(encoding="utf-8", errors="replace")

    # Commands and files

    def run(self, words: Sequence[str], *, check: bool = True, timeout: float = 60) -> Result:
        """Run a command inside as root; CommandError when it fails and `check`. `timeout` is for a real machine."""
        answer = self._ask({"words": list(words), "env": ENVIRONMENT, "timeout": timeout * SLOWNESS})
        result = Result(tuple(words), answer["code"], answer["out"], answer["err"])
        if check and result.code:
            raise CommandError(result)
        return result

    def write(self, inside: str, text: str, mode: int = 0o644) -> None:
        """Write a file, with its directories."""
        self._ask({"write": inside, "text": text, "mode": stat.S_IMODE(mode)})

    def read(self, inside: str) -> str:
        """Return the text of a file."""
        return self.run(["cat", inside]).out

    def exists(self, inside: str) -> bool:
        """Tell whether there is anything of that name."""
        return self.run(["test", "-e", inside], check=False).code == 0

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._socket is not None
        self._socket.settimeout(question.get("timeout", 60) + 60)
        self._socket.sendall(json.dumps(question).encode() + b"\n")
        answer = bytearray()
        while not answer.endswith(b"\n"):
            try:
                block = self._socket.recv(1 << 16)
            except TimeoutError:
                block = b""
            if not block:
                msg = f"the machine does not answer {question}; the console's end:\n{self.console()[-4000:]}"
                raise AssertionError(msg)
            answer += block
        found: dict[str, Any] = json.loads(answer)
        return found

    def wait_until(self, condition: Callable[[], object], timeout: float = 60, what: str = "the condition") -> None:
        """Wait until `condition` holds; fail with the console's last lines when it does not in `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                msg = f"waited {timeout} s for {what} in vain; the console's end:\n{self.console()[-4000:]}"
                raise AssertionError(msg)
            time.sleep(0.5)


class VirtualMachine(Emulator):
    """A root of `roots` with a kernel of its own and a disk that is thrown away."""

    def __init__(self, root: roots.Root, layers: Sequence[Path] = (), *, images: Sequence[Path] = ()) -> None:
        """`layers` lie over the root, uppermost first; `images` are put where the cache has them."""
        super().__init__(root.init.name, kernel())
        self._disk = disk(root)
        self._fill(root.init, layers, images)

    def _fill(self, init: roots.Init, layers: Sequence[Path], images: Sequence[Path]) -> None:
        """Make a disk of what this machine has besides its root; the first program copies it over."""
        top = self.directory / "top"
        for image in images:
            shutil.copytree(image, top / "var/cache/appbox-dev/images" / image.name)
        (top / "ground").mkdir(parents=True)
        shutil.copy(AGENT, top / "ground/agent.py")
        (top / "ground/init").write_text("\n".join(init.command))
        make_disk((top, *layers), self.directory / "more", "256M")
        shutil.rmtree(top)

    def drives(self) -> Sequence[str]:
        """Return the root's disk, of which nothing is kept, and the disk that the first program copies over it."""
        return (f"file={self._disk},snapshot=on", f"file={self.directory / 'more'},read-only=on")
