"""Whether an image may be used: reads policies and keys, looks for signatures and has them verified. Keeps nothing.

In three steps, so that what is refused was never fetched: the name is judged before anything is asked, the signature
when manifest and configuration are known, and only then documents go into the cache and layers come down. A demand that
cannot be looked at is an error, never a pass.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from appbox import policy
from appbox.errors import AppboxError, Refused
from appbox.host import owners, trusted
from appbox.host.facts import IdRange
from appbox.oci.cache import Cache
from appbox.oci.digest import Digest
from appbox.oci.public_key import SIZE_LIMIT, BadKeyError, PublicKey, parse
from appbox.oci.reference import ImageName, RegistryImage
from appbox.policy import Demand, PolicyFile, Signer
from appbox.store import files, paths
from appbox.store.root import Root

_NOBODY: Final = IdRange(0, 1)


@dataclass(frozen=True, slots=True)
class Demands:
    """What has to be true of one image. `name` is what policies call it."""

    name: str
    every: tuple[Demand, ...]

    def recorded(self, signers: Sequence[Signer], digests: Sequence[Digest]) -> tuple[Signer, ...] | None:
        """Return who signed an image by what was found out before; None when that does not satisfy every demand."""
        return policy.recorded(self.every, signers, digests, self.name)

    def verify(
        self, source: object, reference: str, digests: Sequence[Digest | None], cache: Cache
    ) -> tuple[Signer, ...]:
        """Return who signed an image, one for each demand for a signature.

        `digests` are those of which one must be signed: the index that the image was chosen from, and its manifest.
        Raises `Refused` when nobody did whom the demands name, `Unavailable` when that cannot be looked at, and
        `HostLacks` without cryptography.
        """
        from appbox.oci import evidence  # noqa: PLC0415
        from appbox.signers import Search  # noqa: PLC0415  # most images are known, or nobody wants a signature

        search = Search(self.name, reference, source, cache, [digest for digest in digests if digest is not None])
        found = [search.signer(demand) for demand in self.every if demand.signed_by]
        if not search.from_file:
            for signer, one in found:
                evidence.save(cache, Digest.parse(signer.digest), one)
        return tuple(dict.fromkeys(signer for signer, _ in found))


@dataclass(frozen=True, slots=True)
class Policies:
    """The policy files of one run."""

    files: tuple[PolicyFile, ...] = ()

    def demands(self, image: ImageName, *, pinned: bool, base_dir: str = ".", more: Sequence[Demand] = ()) -> Demands:
        """Return what the policies demand of an image, after looking at its name.

        `more` are demands of a manifest. Raises `Refused` for an image that cannot be used whoever signed it.
        """
        name = _name(image, base_dir)
        every = (*(one.demand(name) for one in self.files), *more)
        policy.admit(every, name, pinned=pinned)
        return Demands(name, every)


def load(root: Root, file: str | None = None) -> Policies:
    """Read the host's policy, if it has one, and the policy `file`, if one is named.

    Raises ManifestError for what is wrong inside, Refused for a host's policy that others than root can change, and
    AppboxError for one that cannot be read: a policy is never passed over.
    """
    found = [one for one in (_host_policy(root), _named_policy(file) if file is not None else None) if one is not None]
    return Policies(tuple(found))


def read_key(data: Callable[[], bytes], name: str) -> PublicKey:
    """Return the key that `data` reads; `BadKeyError` also when it cannot be read."""
    try:
        return parse(data(), name)
    except AppboxError as error:
        raise BadKeyError(f"{error.what}{f' ({error.why})' if error.why else ''}", error.hint) from error
    except OSError as error:
        raise BadKeyError(f"cannot be read ({error.strerror or error})", "name the file of a public key") from error


def _host_policy(root: Root) -> PolicyFile | None:
    try:
        if not root.exists(paths.POLICY):
            _refuse_lost(root)
            return None
    except OSError as error:
        raise _unreadable(paths.POLICY, error.strerror or str(error)) from error

    from appbox import policy_file  # noqa: PLC0415  # most hosts have none

    def key(name: str) -> PublicKey:
        path = os.path.join(os.path.dirname(paths.POLICY), name)
        return replace(read_key(lambda: _read_host(root, path, SIZE_LIMIT), name), name=path)

    return policy_file.parse(_read_host(root, paths.POLICY, policy_file.SIZE_LIMIT), paths.POLICY, key)


def _refuse_lost(root: Root) -> None:
    """Raise unless the policy's directory is missing or is really one: a dead link may lead to a disk with a policy."""
    folder = os.path.dirname(paths.POLICY)
    if not root.exists(folder):
        return
    try:
        with root.directory(folder):
            pass
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _unreadable(folder, error.strerror or str(error)) from error


def _read_host(root: Root, path: str, limit: int) -> bytes:
    """Return a file that only root can have changed, when root is who asks: others cannot do the host's work anyway."""
    if os.geteuid() != 0:
        try:
            data = root.read(path, limit)
        except OSError as error:
            raise _unreadable(path, error.strerror or str(error)) from error
        if data is None:
            raise _unreadable(path, "there is no such file")
        return data
    try:
        with trusted.walk(root.fd, path, _NOBODY) as place:
            if place.found is None:
                raise _unreadable(path, "there is no such file")
            fd = os.open(
                place.name,
                os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY,
                dir_fd=place.parent,
            )
    except Refused as error:
        raise _unsafe(error.where or path, error.why or error.what) from error
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    info = os.fstat(fd)
    whose = owners.of(info, fd)
    if not whose.trusted or owners.others_may_write(info, whose):
        os.close(fd)
        raise _unsafe(path, f"it belongs to the user id {whose.outside} and has the mode {info.st_mode & 0o7777:04o}")
    return files.read_descriptor(fd, limit, where=path)


def _unsafe(path: str, why: str) -> Refused:
    hint = f"chown root:root {path}, and chmod go-w"
    return Refused("others than root could change the host's policy", where=path, why=why, hint=hint)


def _unreadable(path: str, why: str) -> AppboxError:
    hint = "a policy is never passed over: make it readable, or remove it"
    return AppboxError("cannot be read", where=path, why=why, hint=hint)


def _named_policy(file: str) -> PolicyFile:
    from appbox import policy_file  # noqa: PLC0415

    def key(name: str) -> PublicKey:
        return read_key(lambda: _read(os.path.join(os.path.dirname(file), name), SIZE_LIMIT), name)

    return policy_file.parse(_read(file, policy_file.SIZE_LIMIT), file, key)


def _read(path: str, limit: int) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise AppboxError("cannot be read", where=path, why=error.strerror or str(error)) from error
    return files.read_descriptor(fd, limit, where=path)


def _name(image: ImageName, base_dir: str) -> str:
    """Return what policies call an image: registry/repository, or the transport and the real path of a file."""
    if isinstance(image, RegistryImage):
        return str(image)
    return str(type(image)(os.path.realpath(os.path.join(base_dir, image.path))))
