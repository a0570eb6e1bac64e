"""The file system that appbox works on: `/`, or the directory given with `--root`.

Paths are resolved by the kernel inside the root (openat2(2), RESOLVE_IN_ROOT): a symlink in a root that is being
provisioned leads to the same place that it will lead to once that root is booted, never out of it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from appbox.errors import AppboxError, HostLacks, UsageError
from appbox.host import syscalls
from appbox.store import files


class Root:
    """An open root directory. `live` tells whether it is the running system's own."""

    def __init__(self, path: str = "/") -> None:
        if not path:
            raise UsageError("the root has no name", where="--root", hint="name a directory")
        self.path = "/" + os.path.abspath(path).lstrip("/")  # POSIX lets `//` be something else than `/`
        self.live = self.path == "/"
        try:
            self.fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise AppboxError(
                "the root cannot be opened", where=path, why=error.strerror or "", hint="make the directory first"
            ) from error

    def close(self) -> None:
        """Close the directory."""
        os.close(self.fd)

    def __enter__(self) -> Root:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self, path: str, flags: int) -> int:
        """Open a path inside the root and return the descriptor; OSError as open(2)."""
        try:
            return syscalls.openat2(self.fd, os.fsencode(path), flags | os.O_CLOEXEC, resolve=syscalls.RESOLVE_IN_ROOT)
        except OSError as error:
            if error.errno == 38:  # ENOSYS
                raise HostLacks("the kernel has no openat2", hint="Linux 5.6 or later is needed") from error
            raise OSError(error.errno, os.strerror(error.errno or 0), path) from error

    @contextlib.contextmanager
    def directory(self, path: str) -> Iterator[int]:
        """Open a directory inside the root; FileNotFoundError when there is none."""
        fd = self.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield fd
        finally:
            os.close(fd)

    def make(self, path: str, mode: int = 0o755) -> None:
        """Make a directory and its missing parents, each durable, owned by whoever runs appbox.

        Only the last one gets `mode`; missing parents get 0755. An existing directory stays as it is.
        """
        parts = [p for p in path.split("/") if p]
        for depth in range(1, len(parts) + 1):
            here = "/" + "/".join(parts[:depth])
            if self.is_directory(here):
                continue
            with self.directory("/" + "/".join(parts[: depth - 1])) as parent:
                try:
                    os.mkdir(parts[depth - 1], 0o700, dir_fd=parent)
                except FileExistsError:
                    continue  # another appbox was first
                except OSError as error:
                    raise OSError(error.errno, os.strerror(error.errno or 0), self.path.rstrip("/") + here) from error
                os.chmod(parts[depth - 1], mode if depth == len(parts) else 0o755, dir_fd=parent)
                os.fsync(parent)

    def is_directory(self, path: str) -> bool:
        """Return whether the path leads to a directory."""
        try:
            os.close(self.open(path, os.O_PATH | os.O_DIRECTORY))
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def exists(self, path: str) -> bool:
        """Return whether there is anything of that name; a dangling symlink counts."""
        try:
            os.close(self.open(path, os.O_PATH | os.O_NOFOLLOW))
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def read(self, path: str, limit: int) -> bytes | None:
        """Return the bytes of a regular file, or None when there is none; AppboxError when it is larger."""
        try:
            fd = self.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return files.read_descriptor(fd, limit, where=path)

    def host_path(self, path: str) -> str:
        """Return the path of an existing directory as this process reaches it, symlinks resolved inside the root."""
        with self.directory(path) as fd:
            return os.readlink(f"/proc/self/fd/{fd}")
