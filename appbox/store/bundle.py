"""Version directories: staged beside their place, filled, made durable and published by one rename."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from appbox.desired_values import File
from appbox.errors import AppboxError
from appbox.host import syscalls
from appbox.host.inside import remove_tree
from appbox.oci.digest import Digest
from appbox.store import files, paths, state

if TYPE_CHECKING:
    from appbox.oci.recorder import Recorder  # which knows tar, and who only sweeps needs none of it

_META_LIMIT: Final = 16 << 20

KEPT_GENERATIONS: Final = 5
"""Generations of one version that stay on disk, the current one included."""


def stage(containers: int, name: str, *, base: int, mapped: bool) -> None:
    """Make an empty version directory for service `name` aside, removing what an interrupted run left there.

    Its mode is 0710 and its group the service's own root, so that the mapped root reaches its rootfs and users of the
    host do not reach setuid files in it.
    """
    staging = paths.staging(name)
    remove_tree(containers, staging)
    os.mkdir(staging, 0o700, dir_fd=containers)
    with files.directory(staging, containers) as fd:
        os.fchown(fd, 0, base if mapped else 0)
        os.fchmod(fd, 0o710 if mapped else 0o700)
        for folder in (paths.ROOTFS, paths.GENERATIONS, paths.LIVE, paths.IMAGE):
            os.mkdir(folder, 0o700, dir_fd=fd)
        os.chown(paths.ROOTFS, base, base, dir_fd=fd)
        os.chmod(paths.ROOTFS, 0o755, dir_fd=fd)  # noqa: S103  # what an image without an entry for / gets
        for link in paths.GENERATION_LINKS:
            os.symlink(f"{paths.CURRENT}/{link}", link, dir_fd=fd)


def unstage(containers: int, name: str) -> None:
    """Remove what was made aside for a service and not published."""
    remove_tree(containers, paths.staging(name))


def clean(containers: int) -> list[str]:
    """Remove what interrupted runs left in the containers directory, and return the names, sorted.

    Only for whoever begins to write: what other services of the same run are made of is gone, too.
    """
    begun = (paths.STAGING, f"{paths.STAGING}.")
    found = sorted(
        n for n in os.listdir(containers) if n == begun[0] or n.startswith(begun[1]) or n.endswith(files.TEMPORARY)
    )
    for name in found:
        remove_tree(containers, name)
    if files.exists(paths.SNAPSHOTS, containers):
        from appbox.store import snapshots  # noqa: PLC0415  # with all that copies data

        snapshots.sweep(containers)
    return found


def discard(containers: int, directory: str) -> None:
    """Delete a version directory. It loses its name first: half a bundle must not be taken for one."""
    doomed = f".{directory.rpartition('/')[2]}{files.TEMPORARY}"
    remove_tree(containers, doomed)
    os.rename(directory, doomed, src_dir_fd=containers, dst_dir_fd=containers)
    os.fsync(containers)
    remove_tree(containers, doomed)
    os.fsync(containers)


def make_live(bundle: int, hosts: bytes) -> None:
    """Make the pattern of what the run script has in memory: upper like the rootfs itself, work, resolv.conf.

    A directory of an overlay's upper layer shows its own owner and mode, so they are copied here. What can be written
    to in a read-only root file system is there too, for an image that lacks it. `hosts` is for who starts the bundle
    without the script. Publishing the bundle syncs the file system.
    """
    with files.directory(paths.ROOTFS, bundle) as rootfs:
        top = os.fstat(rootfs)
    with files.directory(paths.LIVE, bundle) as live:
        os.fchmod(live, 0o711)
        for name, mode, owner in (
            ("upper", stat.S_IMODE(top.st_mode), (top.st_uid, top.st_gid)),
            ("work", 0o700, (0, 0)),
            ("notify", 0o755, (0, 0)),
            ("run", 0o755, (top.st_uid, top.st_gid)),
            ("tmp", 0o1777, (top.st_uid, top.st_gid)),
            ("var-tmp", 0o1777, (top.st_uid, top.st_gid)),
        ):
            os.mkdir(name, 0o700, dir_fd=live)
            os.chown(name, *owner, dir_fd=live)
            os.chmod(name, mode, dir_fd=live)
        files.create("resolv.conf", b"", mode=0o644, dir_fd=live, durable=False)
        files.create("hosts", hosts, mode=0o644, dir_fd=live, durable=False)


def neutralise(rootfs: int, base: int, recorder: Recorder) -> None:
    """Make plain directories of what the runtime mounts /dev, /proc and /sys on, whatever the image has there.

    `recorder`, which was told what the image has, is told that too. A symlink there has led old runtimes out of the
    root (CVE-2019-19921, CVE-2023-27561 and their like).
    """
    top = os.fstat(rootfs)
    for name in ("dev", "proc", "sys"):
        info = os.lstat(name, dir_fd=rootfs) if files.exists(name, rootfs) else None
        if info is not None and stat.S_ISDIR(info.st_mode):
            continue
        if info is not None:
            os.unlink(name, dir_fd=rootfs)
            recorder.removed(os.fsencode(name))
        os.mkdir(name, 0o755, dir_fd=rootfs)
        os.chown(name, base, base, dir_fd=rootfs)
        os.chmod(name, 0o755, dir_fd=rootfs)  # noqa: S103  # whatever the umask is, or the root's own setgid
        os.utime(name, ns=(0, 0), dir_fd=rootfs, follow_symlinks=False)
        recorder.directory(os.fsencode(name), 0o755, base, base, 0)
    os.utime(rootfs, ns=(top.st_atime_ns, top.st_mtime_ns))


def write_mtree(bundle: int, recorder: Recorder) -> Digest:
    """Write what the rootfs consists of into a staged bundle, and return the digest of that file."""
    fd = os.open(paths.MTREE, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=bundle)
    try:
        return recorder.write(fd).digest
    finally:
        os.close(fd)


def keep_image(bundle: int, manifest: bytes, config: bytes) -> None:
    """Write the image's manifest and configuration into a staged bundle: a later plan needs no registry for them."""
    with files.directory(paths.IMAGE, bundle) as fd:
        files.create("manifest.json", manifest, mode=0o600, dir_fd=fd, durable=False)
        files.create("config.json", config, mode=0o600, dir_fd=fd, durable=False)


def write_generation(
    bundle: int, number: int, contents: Iterable[File], extra: bytes, base: int = 0, *, durable: bool = True
) -> None:
    """Write generation `number` and make it current; `extra` is put before bundle.toml's own lines.

    Directories of configuration, which services may see, belong to the host's id `base`, the service's own root. In a
    staged bundle it need not be `durable`: publishing that syncs the file system.
    """
    with files.directory(paths.GENERATIONS, bundle) as generations:
        remove_tree(generations, str(number))
        os.mkdir(str(number), 0o700, dir_fd=generations)
        try:
            with files.directory(str(number), generations) as fd:
                _fill(fd, contents, extra, base, durable=durable)
        except BaseException:
            remove_tree(generations, str(number))
            raise
        if durable:
            os.fsync(generations)
    files.link(paths.CURRENT, f"{paths.GENERATIONS}/{number}", dir_fd=bundle, durable=durable)


def _fill(generation: int, contents: Iterable[File], extra: bytes, base: int, *, durable: bool) -> None:
    os.mkdir("config", 0o755, dir_fd=generation)
    for file in contents:
        data = extra + file.data if file.path == "bundle.toml" else file.data
        with _parent(generation, file.path, base if file.path.startswith("config/") else 0) as (parent, name):
            files.create(name, data, mode=file.mode, owner=file.owner, dir_fd=parent, durable=durable)
    if durable:
        _sync_directories(generation)


@contextlib.contextmanager
def _parent(fd: int, path: str, owner: int) -> Iterator[tuple[int, str]]:
    """Open the directory that holds `path` below `fd`, making what is missing for `owner`."""
    with contextlib.ExitStack() as stack:
        *folders, name = path.split("/")
        for folder in folders:
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder, 0o755, dir_fd=fd)
                os.chmod(folder, 0o755, dir_fd=fd)  # noqa: S103  # a mounted one must be open to the service's user
                if owner:
                    os.chown(folder, owner, owner, dir_fd=fd)
            fd = stack.enter_context(files.directory(folder, fd))
        yield fd, name


def _sync_directories(fd: int) -> None:
    for entry in os.listdir(fd):
        if os.path.isdir(f"/proc/self/fd/{fd}/{entry}"):
            with files.directory(entry, fd) as child:
                _sync_directories(child)
    os.fsync(fd)


def activate(bundle: int, generation: int, *, restarts: bool) -> None:
    """Make a generation that is there the current one, durably, with one rename.

    `restarts`: what runs has to be started again for it, so that it counts as written now.
    """
    if restarts:
        with files.directory(f"{paths.GENERATIONS}/{generation}", bundle) as fd:
            text = files.read("bundle.toml", _META_LIMIT, fd).decode()
            lines = [_as_new(line, generation) for line in text.splitlines(keepends=True)]
            files.replace("bundle.toml", "".join(lines).encode(), mode=0o644, dir_fd=fd)
    files.link(paths.CURRENT, f"{paths.GENERATIONS}/{generation}", dir_fd=bundle)


def _as_new(line: str, generation: int) -> str:
    key = line.partition(" = ")[0]
    return f"{key} = {generation}\n" if key in {"effective", "visible"} else line


def bring_back(containers: int, origin: str, directory: str, replaces: str, carry: str) -> None:
    """Give a replaced bundle its place again; what has it now is kept as `replaces`. Each step may be the last.

    The replaced one takes the other's name first, so that the note of where its data is (`carry`, "" for none) is true
    the moment it has its place. With `replaces` "" nothing has that place.
    """
    with files.directory(paths.REPLACED, containers) as replaced:
        name = origin.rpartition("/")[2]
        kept = replaces.rpartition("/")[2] or name
        if name != kept:
            _make_room(containers, replaced, kept)
            syscalls.renameat2(replaced, name, replaced, kept, syscalls.RENAME_NOREPLACE)
        with files.directory(kept, replaced) as fd:
            if carry:
                announce_carry(fd, carry)
            else:
                files.remove(paths.CARRY, dir_fd=fd)
        os.fsync(replaced)
        how = syscalls.RENAME_EXCHANGE if replaces else syscalls.RENAME_NOREPLACE
        syscalls.renameat2(replaced, kept, containers, directory, how)
        os.fsync(replaced)
    os.fsync(containers)


def forget_generations(bundle: int, needed: int = 0) -> None:
    """Delete all but the newest generations; the current one always stays, and the `needed` one."""
    current = state.current_generation(bundle)
    with files.directory(paths.GENERATIONS, bundle) as generations:
        numbers = sorted(int(name) for name in os.listdir(generations) if name.isascii() and name.isdigit())
        for number in numbers[:-KEPT_GENERATIONS]:
            if number not in {current, needed}:
                remove_tree(generations, str(number))


def publish(containers: int, name: str, directory: str, replaces: str) -> None:
    """Give the staged bundle of service `name` its place, durably, in one step.

    With `replaces` (a path below the containers), what has the name now goes there: both change places at once.
    """
    staging = paths.staging(name)
    with files.directory(staging, containers) as fd:
        syscalls.syncfs(fd)
    if not replaces:
        syscalls.renameat2(containers, staging, containers, directory, syscalls.RENAME_NOREPLACE)
        os.fsync(containers)
        return
    with contextlib.suppress(FileExistsError):
        os.mkdir(paths.REPLACED, 0o711, dir_fd=containers)
    with files.directory(paths.REPLACED, containers) as replaced:
        old = replaces.rpartition("/")[2]
        _make_room(containers, replaced, old)
        os.rename(staging, old, src_dir_fd=containers, dst_dir_fd=replaced)
        os.fsync(replaced)
        syscalls.renameat2(replaced, old, containers, directory, syscalls.RENAME_EXCHANGE)
        os.fsync(replaced)
    os.fsync(containers)


def _has_seen_data(replaced: int, name: str) -> bool:
    """Return whether a replaced bundle has data; a copy that no service has seen is none."""
    return files.exists(f"{name}/{paths.DATA}", replaced) and not files.exists(
        f"{name}/{paths.DATA}/{paths.COPIED}", replaced
    )


def _make_room(containers: int, replaced: int, name: str) -> None:
    """Give another name to what has the name of a bundle that is going to be replaced.

    It is an older one of the same image and can be gone back to, or has data. What a killed run had not yet published
    has another image, and goes.
    """
    if not files.exists(name, replaced):
        return
    with files.directory(name, replaced) as old:
        image = state.meta_of(old).get("image")
        digest = str(image.get("digest", "")) if isinstance(image, dict) else ""
        ours = bool(digest) and name.partition("@")[2].startswith(digest.partition(":")[2][:12])
        needed = ours or _has_seen_data(replaced, name) or state.has_writes(old)
    if not needed:
        discard(containers, f"{paths.REPLACED}/{name}")
        return
    number = 2
    while files.exists(f"{name}.{number}", replaced):
        number += 1
    os.rename(name, f"{name}.{number}", src_dir_fd=replaced, dst_dir_fd=replaced)


def switch(containers: int, name: str, directory: str) -> None:
    """Make a version the current one."""
    files.link(name, directory, dir_fd=containers)


def announce_carry(bundle: int, origin: str) -> None:
    """Note in a bundle without data that its data is still in `origin`, a directory below the containers.

    The note is a symlink, so that the run script can finish the move when nobody else did.
    """
    with contextlib.suppress(FileNotFoundError):
        _drop_empty_data(bundle)
    files.link(paths.CARRY, f"../{origin}/{paths.DATA}", dir_fd=bundle)


def announce_writes(bundle: int, origin: str) -> None:
    """Note in a staged bundle that the upper layer of its service is going to be in `origin`, below the containers."""
    files.link(paths.WRITES, f"../{origin}/{paths.UPPER}", dir_fd=bundle)


def keep_writes(containers: int, directory: str) -> None:
    """Finish moving an upper layer to a bundle of the same image; doing it again does nothing."""
    with files.directory(directory, containers) as bundle:
        origin = state.bundle_writes(bundle)
        if not origin:
            return
        if not files.exists(paths.UPPER, bundle):
            with files.directory(origin, containers) as source:
                os.rename(paths.UPPER, paths.UPPER, src_dir_fd=source, dst_dir_fd=bundle)
                os.fsync(source)
            os.fsync(bundle)
        files.remove(paths.WRITES, dir_fd=bundle)


def drop_copy(bundle: int) -> None:
    """Delete what killed runs have left of copies in a version that is not current; what a service has seen stays."""
    doomed = f".old-{paths.DATA}{files.TEMPORARY}"
    remove_tree(bundle, doomed)
    remove_tree(bundle, f".{paths.DATA}{files.TEMPORARY}")
    if files.exists(f"{paths.DATA}/{paths.COPIED}", bundle):
        # It loses its name first: the mark may be the first to go.
        os.rename(paths.DATA, doomed, src_dir_fd=bundle, dst_dir_fd=bundle)
        os.fsync(bundle)
        remove_tree(bundle, doomed)


def _drop_empty_data(bundle: int) -> None:
    try:
        os.rmdir(paths.DATA, dir_fd=bundle)
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        hint = "move one of the two data directories away"
        raise AppboxError("has data of its own", where=paths.DATA, hint=hint) from error


def carry(containers: int, directory: str) -> None:
    """Finish moving data to a version; doing it again does nothing.

    Raises AppboxError when the data is neither here nor where it was: to go on would start the service with none.
    """
    with files.directory(directory, containers) as bundle:
        origin = state.bundle_carry(bundle)
        if not origin:
            return
        if not files.exists(paths.DATA, bundle):
            with files.directory(origin, containers) as source:
                if not files.exists(paths.DATA, source):
                    raise AppboxError(
                        "the data that was to be moved is not there any more",
                        where=f"{paths.CONTAINERS}/{origin}/{paths.DATA}",
                        hint=f"put it back, or remove {directory}/{paths.CARRY} to begin without data",
                    )
                os.rename(paths.DATA, paths.DATA, src_dir_fd=source, dst_dir_fd=bundle)
                os.fsync(source)
            os.fsync(bundle)
        files.remove(paths.CARRY, dir_fd=bundle)
