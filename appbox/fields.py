"""The words that a manifest's values are made of: names, texts, paths, users, modes. Nothing here knows a table.

Each function takes what TOML gave and returns the value that the rest of appbox works with, or raises `BadValueError`
with words for the user. Numbers, sizes and signals are in `quantities`.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import NoReturn, TypeVar
from urllib.parse import urlsplit

from appbox import constraints
from appbox.constraints import ConstraintError, is_constraint
from appbox.errors import UsageError
from appbox.oci.reference import RegistryImage, parse_image

K = TypeVar("K")
V = TypeVar("V")

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,62}$"
# OCI distribution specification 1.1, "Pulling manifests": the grammar of a tag.
VERSION_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$"
DIGEST_PATTERN = r"^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$"
LABEL_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,62}$"
ENV_PATTERN = r"^[A-Za-z_][A-Za-z0-9_.-]*$"
HOSTNAME_PATTERN = r"^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$"
# useradd(8) on Debian and busybox both keep to this; the colon separates the group.
USER_PATTERN = r"^(image|[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,63})?)$"
GROUP_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$"
# Names of the tz database (its theory.html): no dots, so that none leads out of the directory of zones.
TIMEZONE_PATTERN = r"^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$"
TARGET_PATTERN = r"^(/[^/\u0000-\u001f\u007f]+)+$"

# `systemctl start a.service` would mean the unit `a`, so a service must not be called that.
_UNITS = "service socket device mount automount swap target path timer slice scope"
UNIT_SUFFIXES = tuple(f".{kind}" for kind in _UNITS.split())
# MAX_ARG_STRLEN of Linux (binfmts.h, 32 pages), the closing NUL included: execve(2) fails with E2BIG.
ARGUMENT_LIMIT = 131072
PATH_LIMIT = 4095
# A path in a container is one below the version's directory to the host, whose name is up to 200 bytes long.
TARGET_LIMIT = PATH_LIMIT - 512
COMPONENT_LIMIT = 255
# HOST_NAME_MAX of Linux; sethostname(2) refuses more.
HOSTNAME_LIMIT = 64
LONGEST_FORMAT = 64
"""Characters of the name of a format."""
# runc takes no more as a user or group (libcontainer/user).
ID_LIMIT = 2**31 - 1
_KERNEL_TREES = ("/proc", "/sys", "/dev")
_INTERFACE = r"[A-Za-z0-9_.-]{1,15}"


class BadValueError(ValueError):
    """A value that cannot be taken. `at` leads from the value to the part of it that is meant."""

    def __init__(self, message: str, hint: str = "", at: tuple[str | int, ...] = ()) -> None:
        self.message, self.hint, self.at = message, hint, at
        super().__init__(message)


class FrozenMap(dict[K, V]):
    """A dict that does not change, so that a manifest can be compared, hashed and shared.

    It stays a dict because JSON, TOML and Jinja2 treat nothing else as a table.
    """

    __slots__ = ()

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        msg = "a manifest does not change"
        raise TypeError(msg)

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __copy__(self) -> FrozenMap[K, V]:
        return self

    def __deepcopy__(self, _memo: object) -> FrozenMap[K, V]:
        return self

    def __reduce__(self) -> tuple[type[FrozenMap[K, V]], tuple[dict[K, V]]]:
        return FrozenMap, (dict(self),)


def kind(value: object) -> str:
    """Return what a TOML value is, in words: "a string", "a whole number"…"""
    # bool before int: Python counts True as a number, TOML does not.
    for python, words in (
        (bool, "true or false"),
        (str, "a string"),
        (int, "a whole number"),
        (float, "a decimal number"),
        (list | tuple, "a list"),
        (Mapping, "a table"),
    ):
        if isinstance(value, python):
            return words
    return "a date or time"


def quoted(value: object, limit: int = 60) -> str:
    """Return `value` as TOML would write it, on one line and cut to about `limit` characters."""
    shown = json.dumps(value, ensure_ascii=False, default=str)
    return shown if len(shown) <= limit else f"{shown[: limit - 1]}…"


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the hint that names the known word most like `word`; empty when none is like it."""
    lowered = {k.lower(): k for k in known}
    close = get_close_matches(word.lower(), sorted(lowered), n=1, cutoff=0.6)
    return f"did you mean {quoted(lowered[close[0]])}?" if close else ""


def text(value: object, expected: str = "a string", pattern: str = r"(?s).*") -> str:
    """Any text. NUL is refused: neither execve(2) nor a path nor an environment can carry it.

    `pattern` only decides whether a number might be meant as text.
    """
    if not isinstance(value, str):
        raise BadValueError(f"expected {expected}, got {kind(value)}", _as_text(value, pattern))
    if "\0" in value:
        raise BadValueError("holds a NUL character, which no program can be given", "take it out")
    return value


def _as_text(value: object, pattern: str) -> str:
    """Return the hint for a number that is meant as text; empty when `pattern` does not take it."""
    # Beyond that Python may refuse to print it, and nobody meant it.
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) >= 1e15:
        return ""
    if not re.fullmatch(pattern, str(value)):
        return ""
    # A decimal is not written back: 1.10 has become 1.1.
    return f"write {quoted(str(value))}" if isinstance(value, int) else "put it in quotes"


def argument(value: object) -> str:
    """One argument of a command, carried byte for byte."""
    found = text(value)
    _fits_execve(found)
    return found


def _fits_execve(whole: str) -> None:
    size = len(whole.encode()) + 1
    if size > ARGUMENT_LIMIT:
        raise BadValueError(
            f"is {size} bytes long with its end mark; Linux takes at most {ARGUMENT_LIMIT} in one string",
            "put it into a file with [config]",
        )


def line(value: object, expected: str) -> str:
    """A text of one line that is not empty: no control characters, so that it can be shown and looked up."""
    found = text(value, expected, "")
    if not found:
        raise BadValueError(f"expected {expected}, got an empty string")
    if any(_is_control(c) for c in found):
        raise BadValueError(f"holds a control character: {quoted(found)}", "take it out")
    return found


def data_format(value: object) -> str:
    """A name for a format of data: a short line, which is kept beside the data; empty for none."""
    if value == "":
        return ""
    found = line(value, "a name")
    if len(found) > LONGEST_FORMAT:
        raise BadValueError(f"has {len(found)} characters", f"a name has {LONGEST_FORMAT} at most")
    return found


def _is_control(char: str) -> bool:
    # U+2028 and U+2029 end a line for some readers, too.
    return char < " " or "\x7f" <= char <= "\x9f" or char in "\u2028\u2029"


def matching(value: object, pattern: str, expected: str, hint: str = "") -> str:
    """A text that `pattern` matches as a whole; `expected` describes it to the user."""
    found = text(value, expected, pattern)
    # fullmatch, because `$` alone would let a newline at the end pass.
    if not re.fullmatch(pattern, found):
        raise BadValueError(f"{quoted(found)} is not {expected}", hint)
    return found


def name(value: object) -> str:
    """The name of a service; also its unit, its container id and its directory."""
    lowered = value.strip().lower().replace(" ", "-") if isinstance(value, str) else ""
    found = matching(
        value,
        NAME_PATTERN,
        "a service name (a-z, 0-9 and . _ - after the first, at most 63 characters)",
        f"write {quoted(lowered)}" if re.fullmatch(NAME_PATTERN, lowered) else "",
    )
    if found.endswith(".sh"):
        raise BadValueError(f"{quoted(found)} ends in .sh, and OpenRC ignores such services", "take another name")
    if found.endswith(UNIT_SUFFIXES):
        raise BadValueError(f"{quoted(found)} ends like a systemd unit", f"write {quoted(found.rpartition('.')[0])}")
    if found.endswith("."):
        raise BadValueError(f"{quoted(found)} ends with a dot", f"write {quoted(found.rstrip('.'))}")
    return found


def label(value: object) -> str:
    """The name of a volume or a secret, which becomes a directory or file of that name."""
    return matching(value, LABEL_PATTERN, "a name (letters, digits and . _ - after the first, at most 63 characters)")


def version(value: object) -> str:
    """The version: an image's tag, or a constraint (which `is_constraint` tells apart)."""
    found = text(value)
    if not is_constraint(found):
        return tag(found)
    try:
        constraints.parse(found)
    except ConstraintError as error:
        raise BadValueError(error.message, error.hint) from None
    return found


def tag(value: object) -> str:
    """A tag of a registry."""
    return matching(value, VERSION_PATTERN, "a tag (letters, digits and . _ - after the first, at most 128 characters)")


def digest(value: object) -> str:
    """A digest of the OCI image specification, `sha256:` or `sha512:` and lower-case hex."""
    return matching(value, DIGEST_PATTERN, 'a digest ("sha256:" and 64 digits 0-9a-f)')


def environment_name(value: object) -> str:
    """The name of an environment variable."""
    return matching(
        value, ENV_PATTERN, "a variable name (letters, digits and _ . - after the first, which is no digit)"
    )


def environment(value: Mapping[str, str]) -> FrozenMap[str, str]:
    """Check that each NAME=VALUE fits into one string of execve(2)."""
    for key, found in value.items():
        try:
            _fits_execve(f"{key}={found}")
        except BadValueError as error:
            raise BadValueError(error.message, error.hint, at=(key,)) from None
    return FrozenMap(value)


def hostname(value: object) -> str:
    """A host name of RFC 1123: labels of letters, digits and hyphens; Linux takes 64 bytes."""
    found = matching(value, HOSTNAME_PATTERN, "a host name (letters, digits and - in labels joined by dots)")
    if len(found) > HOSTNAME_LIMIT or any(len(part) > 63 for part in found.split(".")):
        raise BadValueError(f"{quoted(found)} is too long for a host name", f"keep to {HOSTNAME_LIMIT} characters")
    return found


def address(value: object) -> str:
    """An IPv4 or IPv6 address, in its shortest form."""
    found = line(value, "an IP address")
    try:
        parsed = ipaddress.ip_address(found)
    except ValueError:
        raise BadValueError(f"{quoted(found)} is not an IP address") from None
    # RFC 4007: what stands behind % is an interface, in which ipaddress takes any text.
    if "%" in found and not re.fullmatch(_INTERFACE, found.partition("%")[2]):
        raise BadValueError(f"{quoted(found)} is not an IP address of an interface", "write it as in fe80::1%eth0")
    return str(parsed)


def path(value: object, expected: str = "an absolute path", limit: int = PATH_LIMIT) -> str:
    """An absolute path in its one normal form: no `//`, `.`, `..`, no slash at the end, no control characters."""
    found = line(value, expected)
    if not found.startswith("/"):
        raise BadValueError(f"{quoted(found)} is not {expected}", f"write {quoted('/' + found.removeprefix('./'))}")
    parts = [part for part in found.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise BadValueError(f"{quoted(found)} goes up with .. in it", "write the path that is meant")
    normal = "/" + "/".join(parts)
    if found != normal:
        raise BadValueError(f"{quoted(found)} is not in its normal form", f"write {quoted(normal)}")
    if len(found.encode()) > limit or any(len(part.encode()) > COMPONENT_LIMIT for part in parts):
        raise BadValueError(f"is too long for a path ({limit} bytes, {COMPONENT_LIMIT} in each part)")
    return found


def working_directory(value: object) -> str:
    """A path in the container that is no descriptor of the runtime's, as those below /proc are (CVE-2024-21626)."""
    found = path(value, limit=TARGET_LIMIT)
    if is_below(found, "/proc"):
        raise BadValueError(f"{quoted(found)} lies in /proc, which may lead out of the container", "take another path")
    return found


def target(value: object) -> str:
    """A path in the container over which something is mounted."""
    found = path(value, "an absolute path in the container", TARGET_LIMIT)
    if found == "/":
        raise BadValueError("the root of the container cannot be mounted over", "name a directory below it")
    for tree in _KERNEL_TREES:
        if is_below(found, tree):
            raise BadValueError(f"{quoted(found)} lies in {tree}, which belongs to the runtime", "take another path")
    return found


def is_below(inner: str, outer: str) -> bool:
    """Return whether the normal path `inner` is `outer` or lies below it."""
    return inner == outer or inner.startswith(f"{outer.rstrip('/')}/")


def source(value: object) -> str:
    """A directory or file of the host that is mounted into the container."""
    found = path(value, "an absolute path of the host")
    if found == "/":
        raise BadValueError("the whole host cannot be a volume", "name the directory that the service needs")
    return found


def local_file(value: object) -> str:
    """A file beside the manifest, or an absolute path."""
    found = line(value, "the path of a file")
    if found.endswith("/") or found in (".", ".."):
        raise BadValueError(f"{quoted(found)} is a directory", "name a file")
    if len(found.encode()) > PATH_LIMIT or any(len(part.encode()) > COMPONENT_LIMIT for part in found.split("/")):
        raise BadValueError(f"is too long for a path ({PATH_LIMIT} bytes, {COMPONENT_LIMIT} in each part)")
    return found


def local_directory(value: object) -> str:
    """A directory beside the manifest, or an absolute path."""
    found = line(value, "the path of a directory")
    if found.rstrip("/") in ("", ".", ".."):
        raise BadValueError(f"{quoted(found)} is no directory of files for a container", "name one beside the manifest")
    return local_file(found.rstrip("/"))


def registry_prefix(value: object) -> str:
    """A registry or a part of one, in the form in which images are named: docker.io, ghcr.io/acme, [::1]:5000/x."""
    found = line(value, 'a registry or a part of one (as in "docker.io/valkey")')
    try:
        # Any name below it is one of an image exactly when it is a prefix.
        image = parse_image(f"{found}/x/x")
    except UsageError as error:
        hint = error.hint if "/x" not in error.hint else 'begin with the host of a registry, as in "docker.io/valkey"'
        raise BadValueError(f"{quoted(found)} is no registry and no part of one", hint) from None
    if not isinstance(image, RegistryImage) or "://" in found:
        raise BadValueError(f"{quoted(found)} is no registry and no part of one", 'write it as in "docker.io/valkey"')
    return str(image).removesuffix("/x/x")


def user(value: object) -> str:
    """Who runs or owns: "image" (what the image says), NAME, UID, or either with :GROUP."""
    found = matching(value, USER_PATTERN, "a user", 'write "image", a name, a number, or USER:GROUP')
    if any(part.isdigit() and int(part) > ID_LIMIT for part in found.split(":")):
        raise BadValueError(f"{quoted(found)} is out of range for a user", f"ids end at {ID_LIMIT}")
    return found


def group(value: object) -> str:
    """A supplementary group by name or number."""
    found = str(value) if type(value) is int and value >= 0 else matching(value, GROUP_PATTERN, "a group")
    if found.isdigit() and int(found) > ID_LIMIT:
        raise BadValueError(f"{quoted(found, 20)} is out of range for a group", f"ids end at {ID_LIMIT}")
    return found


def timezone(value: object) -> str:
    """A time zone by its name in the tz database, or "host" for the host's."""
    found = matching(value, TIMEZONE_PATTERN, "a time zone", 'write it as in "Europe/Berlin", or "host"')
    if len(found) > COMPONENT_LIMIT:
        raise BadValueError(f"{quoted(found)} is too long for a time zone")
    return found


def mode(value: object, limit: int) -> int:
    """Permissions as an octal string, at most `limit`."""
    if type(value) is int:
        raise BadValueError("expected permissions as a string, got a whole number", 'write them as in "0644"')
    found = int(matching(value, "[0-7]{3,5}", 'permissions (octal digits, as in "0644")'), 8)
    if found > limit:
        raise BadValueError(f"{quoted(value)} sets bits that have no meaning here", f'at most "{limit:04o}"')
    return found


def url(value: object) -> str:
    """An http or https URL of a health check."""
    found = matching(value, r"https?://[!-~]+", 'a URL (as in "http://127.0.0.1:8080/healthz")')
    try:
        parts = urlsplit(found)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.username is not None or "#" in found:
        raise BadValueError(f"{quoted(found)} is not a URL that can be asked", "write http://HOST:PORT/PATH")
    return found
