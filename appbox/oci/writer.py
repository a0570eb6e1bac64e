"""A rootfs into which layers are written, one after the other. Effects, all of them below one directory descriptor.

What a layer made is remembered by the inode of its directory, so that the layer's own whiteouts spare it, in whatever
order they come and whatever name the directory was reached by. Inodes that are freed and used again within a layer
belong to things which that layer made, so this holds.

A file over a file of a lower layer takes its place on disk, inode and all, where no other name has it: ext4 looks past
recently freed inodes one by one, which makes every file after a few thousand replaced ones cost ten times as much.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from appbox.errors import Refused
from appbox.host.inside import remove_tree
from appbox.oci import create
from appbox.oci.create import Hasher
from appbox.oci.directories import IMPLIED_MODE, Directories, Directory, clear_xattrs
from appbox.oci.hidden import Hidden
from appbox.oci.ids import IdMap
from appbox.oci.layer import Entry, Whiteout, shown
from appbox.oci.tar import Kind, Span

if TYPE_CHECKING:
    from appbox.oci.notes import Notes
    from appbox.oci.recorder import Recorder


class LinkToHiddenError(Exception):
    """A hard link needs a file that was left out because an upper layer hides it."""


_UP: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Writer:
    """Writes entries below `root_fd`, an empty directory opened for reading. Holds descriptors until `close`.

    `placeholders`: make devices and fifos as empty files, and list them in `replaced`. `hidden`: what layers further up
    hide, which need not be written; `apply` and `end` then may raise `LinkToHiddenError`. `recorder` is told what is
    made and removed.
    """

    def __init__(
        self,
        root_fd: int,
        idmap: IdMap,
        *,
        placeholders: bool = False,
        hidden: Hidden | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self._idmap = idmap
        self._placeholders = placeholders
        self._notes = _notes(recorder, root_fd, idmap) if recorder else None
        self._directories = Directories(root_fd, idmap, self._notes)
        self._root = self._directories.root
        self._root_entry: Entry | None = None
        self.replaced: list[str] = []
        self._lowest = True
        self._made: dict[int, set[bytes]] = {}  # names made by this layer, by the inode of their directory
        self._touched: set[int] = set()  # directories which this layer describes or made something below
        self._linked: list[tuple[Entry, bytes]] = []  # hard links of this layer to files of lower ones, and which
        self._whited: set[bytes] = set()  # what this layer's whiteouts have removed
        self._hidden = hidden or None
        self._number = -1
        self._omitted: set[bytes] = set()  # paths of files that were left out
        self._linkable: set[bytes] = set()  # those of them that this layer would have there now

    def close(self) -> None:
        """Close the directories."""
        self._directories.close()

    def begin(self) -> None:
        """Begin the next layer. In the lowest one whiteouts find nothing, so nothing has to be remembered."""
        self._number += 1
        self._lowest = self._number == 0
        self._made = {}
        self._touched = {self._root.inode}
        self._linked = []
        self._whited = set()
        self._linkable.clear()

    def end(self) -> None:
        """End a layer: its whiteouts come first by meaning, so it cannot have linked to what they remove."""
        for entry, target in self._linked if self._whited else ():
            above = target
            while above and above not in self._whited:
                above = above.rpartition(b"/")[0]
            if above:
                raise Refused("a hard link leads to nothing", where=entry.shown, why=shown(entry.link))

    def finish(self) -> None:
        """Give the root its attributes, and all directories their times."""
        if self._root_entry is not None:
            create.attributes(self._root.fd, self._root_entry, self._idmap)
            self._directories.remember_time(self._root, self._noted(self._root, self._root_entry))
        else:
            os.fchmod(self._root.fd, IMPLIED_MODE)
        self._directories.set_times()

    def apply(self, change: Entry | Whiteout, data: Iterable[Span]) -> None:
        """Make or remove what `change` says. `data` is the content of a file."""
        self._directories.settle()
        if isinstance(change, Whiteout):
            self._remove(change)
        elif not change.name:
            self._root_entry = change
        else:
            parent = self._parent(change)
            if self._hidden is None or not self._omit(self._hidden, parent, change):
                self._make(parent, change, data)

    def _omit(self, hidden: Hidden, parent: Directory, entry: Entry) -> bool:
        """Return whether the entry is left out: a file, or one more name of one that was, which nobody will see."""
        if entry.kind is not Kind.FILE and not (entry.kind is Kind.HARDLINK and entry.link in self._linkable):
            self._linkable.discard(entry.path)
            return False
        # Behind a symlink the same path may mean another file to the layer that hides it.
        if parent.path != entry.parent or not hidden.hides(self._number, entry.path, entry.parent):
            return False
        if _exists(parent, entry.name):
            return False
        create.check(entry, self._idmap)
        self._omitted.add(entry.path)
        self._linkable.add(entry.path)
        return True

    # Making

    def _parent(self, entry: Entry) -> Directory:
        try:
            parent = self._directories.open(entry.parent, make=True)
        except NotADirectoryError as error:
            raise Refused("the directory of an entry is a file", where=entry.shown) from error
        if not self._omitted.isdisjoint(self._directories.made()):
            raise LinkToHiddenError
        if not self._lowest:
            self._touch(parent)
        return parent

    def _touch(self, directory: Directory) -> None:
        """Remember the directory and those above it as ones in which this layer has something."""
        inode, fd = directory.inode, directory.fd
        while inode not in self._touched:
            self._touched.add(inode)
            above = os.open("..", _UP, dir_fd=fd)
            if fd != directory.fd:
                os.close(fd)
            inode, fd = os.fstat(above).st_ino, above
        if fd != directory.fd:
            os.close(fd)

    def _make(self, parent: Directory, entry: Entry, data: Iterable[Span]) -> None:
        kind = entry.kind
        if kind is Kind.DIRECTORY:
            self._make_directory(parent, entry)
        elif kind is Kind.HARDLINK:
            self._link(parent, entry)
        else:
            self._put(parent, entry, data)
        if not self._lowest:
            self._made.setdefault(parent.inode, set()).add(entry.name)

    def _make_directory(self, parent: Directory, entry: Entry) -> None:
        fresh = self._mkdir(parent, entry.name)
        made = self._directories.enter(parent, entry.name, entry.path)
        if not fresh:
            clear_xattrs(made.fd)
        create.attributes(made.fd, entry, self._idmap)
        self._directories.remember_time(made, self._noted(made, entry))
        if not self._lowest:
            self._touched.add(made.inode)

    def _noted(self, directory: Directory, entry: Entry) -> int:
        """Take note of a directory's attributes, and return the time that it is to have."""
        return self._notes.directory(directory.fd, directory.path, entry) if self._notes else entry.mtime

    def _mkdir(self, parent: Directory, name: bytes) -> bool:
        """Make the directory, and return whether there was none."""
        try:
            os.mkdir(name, 0o700, dir_fd=parent.fd)
        except FileExistsError:
            if _is_directory(parent, name):
                return False
            self._clear(parent, name)
            os.mkdir(name, 0o700, dir_fd=parent.fd)
        return True

    def _put(self, parent: Directory, entry: Entry, data: Iterable[Span]) -> None:
        """Make a file, symlink or device, in the place of what has its name."""
        content = self._notes.hasher() if self._notes and entry.kind is Kind.FILE else None
        try:
            self._create(parent, entry, data, content)
        except FileExistsError:
            if entry.kind is not Kind.FILE or not create.over(parent.fd, entry, self._idmap, data, content):
                self._clear(parent, entry.name)
                self._create(parent, entry, data, content)
        if self._notes:
            path, empty = _below(parent, entry.name), self._placeholders
            self._notes.made(parent.fd, path, entry, content, empty=empty)

    def _create(self, parent: Directory, entry: Entry, data: Iterable[Span], content: Hasher | None) -> None:
        if entry.kind is Kind.FILE:
            create.regular(parent.fd, entry, self._idmap, data, content)
        elif entry.kind is Kind.SYMLINK:
            create.symlink(parent.fd, entry, self._idmap)
        elif self._placeholders:
            create.regular(parent.fd, entry, self._idmap, ())
            self.replaced.append(entry.shown)
        else:
            create.special(parent.fd, entry, self._idmap)

    def _link(self, parent: Directory, entry: Entry) -> None:
        """Make a hard link. The attributes in its header are those of the file that has them already."""
        above = self._link_target(entry)
        target = entry.link.rpartition(b"/")[2]
        if above.inode == parent.inode and target == entry.name:
            raise Refused("a hard link leads to itself", where=entry.shown)
        if self._clear(parent, entry.name):
            above = self._link_target(entry)  # it may have been in what was just removed
        os.link(target, entry.name, src_dir_fd=above.fd, dst_dir_fd=parent.fd, follow_symlinks=False)
        if self._notes:
            self._notes.linked(_below(parent, entry.name), _below(above, target))
        if not self._lowest and target not in self._made.get(above.inode, ()):
            self._linked.append((entry, _below(above, target)))

    def _link_target(self, entry: Entry) -> Directory:
        """Return the directory of a hard link's target; raise `Refused` when there is none, or it is a directory."""
        parent, _, name = entry.link.rpartition(b"/")
        try:
            above = self._directories.open(parent)
            is_directory = _is_directory(above, name)
        except (FileNotFoundError, NotADirectoryError) as error:
            if self._omitted:
                raise LinkToHiddenError from error
            raise Refused("a hard link leads to nothing", where=entry.shown, why=shown(entry.link)) from error
        if is_directory:
            raise Refused("a hard link leads to a directory", where=entry.shown, why=shown(entry.link))
        return above

    # Removing

    def _clear(self, parent: Directory, name: bytes) -> bool:
        """Remove what has the name, and return whether there was anything."""
        try:
            mode = os.stat(name, dir_fd=parent.fd, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return False
        remove_tree(parent.fd, name, self._directories.removed)
        if self._notes:
            self._notes.removed(_below(parent, name))
        if stat.S_ISDIR(mode) or stat.S_ISLNK(mode):
            self._directories.forget()
            self._linkable.clear()
        return True

    def _remove(self, whiteout: Whiteout) -> None:
        """Remove what lower layers have; what is not there is no error."""
        self._linkable.clear()
        if self._lowest:
            return
        try:
            parent = self._directories.open(whiteout.parent)
        except (FileNotFoundError, NotADirectoryError):
            return
        if whiteout.name:
            self._purge(self._remove_lower(parent, whiteout.name))
        else:
            self._purge([parent.path])

    def _purge(self, todo: list[bytes]) -> None:
        """Remove everything from these directories that this layer has not made itself."""
        while todo:
            self._directories.settle()
            directory = self._directories.open(todo.pop())
            for name in os.listdir(directory.fd):
                todo += self._remove_lower(directory, os.fsencode(name))

    def _remove_lower(self, parent: Directory, name: bytes) -> list[bytes]:
        """Remove `name` unless this layer made it; return the directory when something in it has to stay.

        A directory that stays without being described by the layer becomes what it would be without the lower ones.
        """
        try:
            status = os.stat(name, dir_fd=parent.fd, follow_symlinks=False)
        except FileNotFoundError:
            return []
        described = name in self._made.get(parent.inode, ())
        if not (stat.S_ISDIR(status.st_mode) and status.st_ino in self._touched):
            if not described:
                self._clear(parent, name)
                self._whited.add(_below(parent, name))
            return []
        path = _below(parent, name)
        if not described:
            self._directories.imply(self._directories.enter(parent, name, path))
        return [path]


def _notes(recorder: Recorder, root_fd: int, idmap: IdMap) -> Notes:
    from appbox.oci.notes import Notes  # noqa: PLC0415 - `image unpack` does without

    return Notes(recorder, root_fd, idmap)


def _below(directory: Directory, name: bytes) -> bytes:
    return b"/".join((directory.path, name)) if directory.path else name


def _exists(parent: Directory, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=parent.fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _is_directory(parent: Directory, name: bytes) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=parent.fd, follow_symlinks=False).st_mode)
