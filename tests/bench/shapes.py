"""The images that are measured, as data: what their layers hold, and nothing of how that is stored."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

MEGABYTE = 1 << 20
GIGABYTE = 1 << 30


@dataclass(frozen=True, slots=True)
class Directory:
    path: str


@dataclass(frozen=True, slots=True)
class File:
    """A file of data made from `seed`. With `extents` (offset, length), only these are data, the rest is zeros;
    `sparse` stores it in a form that leaves the zeros out."""

    path: str
    size: int
    seed: int
    extents: tuple[tuple[int, int], ...] = ()
    sparse: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link, or a hard one."""

    path: str
    target: str
    hard: bool = False


@dataclass(frozen=True, slots=True)
class Whiteout:
    """What is at `path` in lower layers goes; all that is in the directory `path`, when it is `opaque`."""

    path: str
    opaque: bool = False


Item = Directory | File | Link | Whiteout
Layer = Iterable[Item]


@dataclass(frozen=True, slots=True)
class Shape:
    """An image: its layers, lowest first, and how they are packed ("gzip" or "zstd")."""

    what: str
    layers: Callable[[], Iterator[Layer]]
    codec: str = "gzip"


def package(number: int, version: int, files: int, mean: int) -> Iterator[Item]:
    """Yield what a package of a distribution puts on a disk: programs, libraries, links and documentation.

    A version differs from another in its data, not in its names. `mean` is the mean size of a file in bytes.
    """
    shape = random.Random(number)  # noqa: S311 - a test's data
    name = f"package-{number:04}"
    directories = [f"usr/lib/{name}", f"usr/share/doc/{name}", f"usr/share/{name}"]
    for directory in directories:
        yield Directory(directory)
    for count in range(files):
        size = int(shape.expovariate(1 / mean) ** 2 / (2 * mean)) + 200
        yield File(f"{directories[count % 3]}/file-{count:03}", size, number * 1_000_003 + count * 101 + version)
    yield Link(f"usr/lib/{name}/lib{name}.so.1", "file-000")
    yield Link(f"usr/share/doc/{name}/copyright", "../../package/licence")


def base(packages: int, files: int, mean: int) -> Iterator[Item]:
    """Yield the lowest layer of an image: the usual directories, and packages of version 0."""
    for directory in ("usr", "usr/lib", "usr/share", "usr/share/doc", "usr/share/package", "etc", "opt", "var", "tmp"):
        yield Directory(directory)
    yield File("usr/share/package/licence", 18_000, 1)
    for number in range(packages):
        yield from package(number, 0, files, mean)


def upgrade(packages: Sequence[int], version: int, files: int, mean: int) -> Iterator[Item]:
    """Yield what a layer holds in which packages were upgraded: all their files once more, and the list of packages."""
    for number in packages:
        yield from package(number, version, files, mean)
    yield File("etc/packages", 120_000, version)


def removal(packages: Sequence[int], opaque: Sequence[int]) -> Iterator[Item]:
    """Yield whiteouts of packages, and directories that begin anew with other content."""
    for number in packages:
        for place in ("usr/lib", "usr/share/doc", "usr/share"):
            yield Whiteout(f"{place}/package-{number:04}")
    for number in opaque:
        directory = f"usr/share/package-{number:04}"
        yield Directory(directory)
        yield Whiteout(directory, opaque=True)
        yield File(f"{directory}/new", 40_000, number + 7)


def one() -> Iterator[Layer]:
    """One layer of 90 MB: 5,700 entries, 167 MB."""
    yield base(228, 20, 36_000)


def six() -> Iterator[Layer]:
    """A base of 60 MB, then three upgrades of a third of it each, a removal, and a program of its own."""
    packages, files, mean = 150, 20, 36_000
    third = packages // 3
    yield base(packages, files, mean)
    yield upgrade(range(third), 1, files, mean)
    yield upgrade(range(third // 2, third // 2 + third), 2, files, mean)
    yield removal(range(third, third + 25), range(100, 125))
    yield upgrade(range(third), 3, files, mean)
    yield package(9000, 1, 40, 200_000)


def many(count: int, size: int) -> Iterator[Item]:
    """Yield files of `size` bytes on average, 100 to a directory."""
    yield Directory("srv")
    for number in range(count):
        if number % 1000 == 0:
            yield Directory(f"srv/{number // 1000:04}")
        if number % 100 == 0:
            yield Directory(f"srv/{number // 1000:04}/{number // 100 % 10}")
        length = number * 7919 % (2 * size) if size else 0
        yield File(f"srv/{number // 1000:04}/{number // 100 % 10}/{number:07}", length, number)


def huge() -> Iterator[Item]:
    """Yield two files of 2 GB with 64 MB of data each: one with its zeros written out, one without them."""
    extents = tuple((number * 500 * MEGABYTE, 16 * MEGABYTE) for number in range(4))
    plain = File("var/plain", 2 * GIGABYTE, 1, extents)
    yield Directory("var")
    yield plain
    yield replace(plain, path="var/sparse", seed=2, sparse=True)


def hundred() -> Iterator[Layer]:
    """A base, and 99 layers that replace, add and remove a little each."""
    yield base(60, 10, 20_000)
    for number in range(1, 100):
        yield upgrade([number % 60, 100 + number], number, 10, 20_000)


def sharing(version: int) -> Iterator[Layer]:
    """Two versions of an image: the same base and libraries, another program."""
    yield base(100, 20, 36_000)
    yield upgrade(range(300, 330), 0, 20, 36_000)
    yield package(9001, version, 40, 100_000)


SHAPES: Mapping[str, Shape] = {
    "one": Shape("one gzip layer of 90 MB, 167 MB unpacked, 5,700 entries", one),
    "six": Shape("six gzip layers, the upper ones replacing and removing much of the lower ones", six),
    "zstd": Shape("the one layer, packed with zstd", one, "zstd"),
    "many": Shape("100,000 small files", lambda: iter([many(100_000, 1500)])),
    "huge": Shape("two files of 2 GB, mostly zeros, one of them stored as sparse", lambda: iter([huge()])),
    "hundred": Shape("100 layers", hundred),
    "million": Shape("one million entries", lambda: iter([many(989_110, 0)])),
    "shared-1": Shape("an image", lambda: sharing(1)),
    "shared-2": Shape("its next version, of which two layers of three are the same", lambda: sharing(2)),
}
