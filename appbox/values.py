"""The types of a manifest's values for pydantic: the functions of `fields` and `quantities`, with their JSON schema.

A value class is written back as the text that it was parsed from, so that a manifest survives being stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, TypeVar, cast

from pydantic import AfterValidator, GetCoreSchemaHandler, Strict, WithJsonSchema
from pydantic_core import CoreSchema, core_schema

from appbox import constraints, devices, fields, quantities, schedule
from appbox.errors import AppboxError
from appbox.fields import BadValueError, FrozenMap, kind, quoted
from appbox.oci.capabilities import ALL_CAPABILITIES, canonical
from appbox.oci.reference import parse_image
from appbox.quantities import IdRange, Port, RestartLimit, Signal
from appbox.variables import VARIABLE_PATTERN, variables

V = TypeVar("V")


class Parsed:
    """pydantic's PlainValidator, but that it looks neither at the signature of `parse` nor at how its type is written.

    With more than a hundred keys that takes a fifth of the time in which the tables are made.
    """

    __slots__ = ("parse",)

    def __init__(self, parse: Callable[[object], Any]) -> None:
        self.parse = parse

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return how pydantic's core gets a value: it calls `parse`."""
        return core_schema.no_info_plain_validator_function(self.parse)


class Written:
    """pydantic's PlainSerializer, as `Parsed` is its PlainValidator; None is written as it is."""

    __slots__ = ("write",)

    def __init__(self, write: Callable[[Any], object]) -> None:
        self.write = write

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return how pydantic's core writes a value: it calls `write`."""
        schema: Any = handler(source)
        schema["serialization"] = core_schema.plain_serializer_function_ser_schema(self.write, when_used="unless-none")
        return cast("CoreSchema", schema)


def _string(pattern: str = "", **more: Any) -> WithJsonSchema:
    return WithJsonSchema({"type": "string"} | ({"pattern": pattern} if pattern else {}) | more)


def _integer(low: int, high: int) -> WithJsonSchema:
    return WithJsonSchema({"type": "integer", "minimum": low, "maximum": high})


def _whole(low: int, high: int) -> tuple[Parsed, WithJsonSchema]:
    return Parsed(partial(quantities.whole, low=low, high=high)), _integer(low, high)


def _either(*schemas: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": list(schemas)})


_TEXT = WithJsonSchema({"type": "string"})
_SIZE = {"type": "string", "pattern": quantities.SIZE_PATTERN}
_OCTAL = Written(lambda mode: f"{mode:04o}")
_AS_TEXT = Written(str)

Name = Annotated[str, Parsed(fields.name), _string(fields.NAME_PATTERN)]
Label = Annotated[str, Parsed(fields.label), _string(fields.LABEL_PATTERN)]
Version = Annotated[
    str,
    Parsed(fields.version),
    _either({"type": "string", "pattern": fields.VERSION_PATTERN}, {"type": "string", "pattern": constraints.PATTERN}),
]
Digest = Annotated[str, Parsed(fields.digest), _string(fields.DIGEST_PATTERN)]
Text = Annotated[str, Parsed(fields.text), _TEXT]
Argument = Annotated[str, Parsed(fields.argument), _TEXT]
Line = Annotated[str, Parsed(partial(fields.line, expected="a string")), _string(minLength=1)]
DataFormat = Annotated[str, Parsed(fields.data_format), _string(maxLength=fields.LONGEST_FORMAT)]
EnvName = Annotated[str, Parsed(fields.environment_name), _string(fields.ENV_PATTERN)]
Hostname = Annotated[str, Parsed(fields.hostname), _string(fields.HOSTNAME_PATTERN, maxLength=64)]
Address = Annotated[str, Parsed(fields.address), _TEXT]
WorkingDirectory = Annotated[str, Parsed(fields.working_directory), _string("^/")]
Target = Annotated[str, Parsed(fields.target), _string(fields.TARGET_PATTERN)]
Source = Annotated[str, Parsed(fields.source), _string(fields.TARGET_PATTERN)]
LocalFile = Annotated[str, Parsed(fields.local_file), _string(minLength=1)]
LocalDirectory = Annotated[str, Parsed(fields.local_directory), _string(minLength=1)]
User = Annotated[str, Parsed(fields.user), _string(fields.USER_PATTERN)]
Url = Annotated[str, Parsed(fields.url), _string("^https?://")]
FileMode = Annotated[int, Parsed(partial(fields.mode, limit=0o777)), _OCTAL, _string("^0?[0-7]{3}$")]
DirectoryMode = Annotated[int, Parsed(partial(fields.mode, limit=0o1777)), _OCTAL, _string("^[01]?[0-7]{3}$")]
Seconds = Annotated[int, Parsed(quantities.seconds), _integer(0, quantities.DAY)]
SomeSeconds = Annotated[int, Parsed(partial(quantities.seconds, low=1)), _integer(1, quantities.DAY)]
Count = Annotated[int, *_whole(1, 1000)]
Weight = Annotated[int, *_whole(1, 10000)]
Pids = Annotated[int, *_whole(1, 4194304)]
PortNumber = Annotated[int, Parsed(quantities.port_number), _integer(1, 65535)]
Size = Annotated[int, Parsed(quantities.size), _either({"type": "integer", "minimum": 1}, _SIZE)]
SizeOrZero = Annotated[int, Parsed(partial(quantities.size, low=0)), _either({"type": "integer", "minimum": 0}, _SIZE)]
Cpus = Annotated[
    float,
    Parsed(partial(quantities.number, low=0, high=4096, expected="a number of processors")),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": 4096}),
]
LogSize = Annotated[
    int,
    Parsed(partial(quantities.size, high=quantities.LOG_LIMIT)),
    _either({"type": "integer", "minimum": 1, "maximum": quantities.LOG_LIMIT}, _SIZE),
]
PublishedPort = Annotated[Port, Parsed(quantities.port), _AS_TEXT, _string(quantities.PORT_PATTERN)]
StopSignal = Annotated[Signal, Parsed(quantities.signal), _AS_TEXT, _either({"type": "string"}, {"type": "integer"})]
Restarts = Annotated[
    RestartLimit, Parsed(quantities.restart_limit), _AS_TEXT, _string(quantities.RESTART_LIMIT_PATTERN)
]
Schedule = Annotated[
    str,
    Parsed(schedule.expression),
    _string(r"^[A-Za-z0-9*,./:~ -]*$"),
]


def _image(value: object) -> str:
    """The reference of an image, without a tag or a digest; see `oci.reference`."""
    found = fields.line(value, "the reference of an image")
    try:
        parse_image(found)
    except AppboxError as error:
        raise BadValueError(": ".join(part for part in (error.what, error.why) if part), error.hint) from None
    return found


def _network_mode(value: object) -> str:
    modes = ("host", "none", "bridge", "pasta")
    found = fields.text(value)
    if found.startswith("service:"):
        return f"service:{fields.name(found.removeprefix('service:'))}"
    if found.startswith("bridge:"):
        return f"bridge:{fields.name(found.removeprefix('bridge:'))}"
    if found not in modes:
        raise BadValueError(
            f"{quoted(found)} is not one of host, none, bridge, bridge:NAME, pasta, service:NAME",
            fields.nearest(found, modes),
        )
    return found


def _userns(value: object) -> str | IdRange:
    if value in ("auto", "host"):
        return str(value)
    if isinstance(value, str):
        hint = fields.nearest(value, ("auto", "host"))
        raise BadValueError(f'{quoted(value)} is not one of "auto", "host" and a table of base and size', hint)
    return quantities.id_range(value)


def _rlimit(value: object, *, bytes_: bool) -> int | str:
    if value == "unlimited":
        return "unlimited"
    if bytes_:
        return quantities.size(value, low=0)
    return quantities.whole(value, 0, quantities.SIZE_LIMIT, 'a whole number or "unlimited"')


def _reload(value: object) -> Signal | tuple[str, ...]:
    if isinstance(value, str):
        return quantities.signal(value)
    return _command(value)


def _command(value: object) -> tuple[str, ...]:
    """A command as a list of its words; no shell splits it."""
    if not isinstance(value, list | tuple):
        hint = f"write [{quoted(value)}]" if isinstance(value, str) else ""
        raise BadValueError(f"expected a list of strings, got {kind(value)}", hint)
    if not value:
        raise BadValueError("expected a command, got an empty list")
    words = tuple(_element(fields.argument, word, i) for i, word in enumerate(value))
    if not words[0]:
        raise BadValueError("the program's name is empty", at=(0,))
    return words


def _element(parse: Callable[[object], V], value: object, index: int) -> V:
    try:
        return parse(value)
    except BadValueError as error:
        raise BadValueError(error.message, error.hint, at=(index, *error.at)) from None


def _capability(value: object) -> str:
    found = fields.text(value, "the name of a capability", "")
    full = "ALL" if found.upper() == "ALL" else canonical(found)
    if full is None:
        close = fields.nearest(f"CAP_{found.upper().removeprefix('CAP_')}", ALL_CAPABILITIES)
        raise BadValueError(f"{quoted(found)} is not a capability", close)
    return full


def _capabilities(value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(set(value)))


def _sysctl_value(value: object) -> str:
    return str(quantities.whole(value, -(2**63), 2**63)) if type(value) is int else fields.line(value, "a string")


# What runc lets a container set (libcontainer/configs/validate): the rest is the host's.
_SYSCTLS = (
    r"(net\..+|fs\.mqueue\..+|kernel\.(msgmax|msgmnb|msgmni|sem|shmall|shmmax|shmmni|shm_rmid_forced|domainname))"
)


def _sysctl_name(value: object) -> str:
    found = fields.matching(value, r"[a-z0-9_]+([./][A-Za-z0-9_-]+)+", "the name of a kernel parameter")
    dotted = found.replace("/", ".")
    return fields.matching(dotted, _SYSCTLS, "a parameter that a container has of its own (net.*, fs.mqueue.*, IPC)")


_CAPABILITY_SCHEMA = WithJsonSchema(
    {"type": "string", "pattern": "^([Cc][Aa][Pp]_)?[A-Za-z_]+$", "examples": sorted(ALL_CAPABILITIES)}
)
_COMMAND_SCHEMA: dict[str, Any] = {"type": "array", "items": {"type": "string"}, "minItems": 1}
_UNLIMITED = {"const": "unlimited"}

Image = Annotated[str, Parsed(_image), _string(minLength=1)]
Command = Annotated[
    tuple[str, ...],
    Parsed(_command),
    Written(list),
    WithJsonSchema(_COMMAND_SCHEMA),
]
Reload = Annotated[
    Signal | tuple[str, ...],
    Parsed(_reload),
    Written(lambda v: str(v) if isinstance(v, Signal) else v),
    _either({"type": "string"}, _COMMAND_SCHEMA),
]
NetworkMode = Annotated[str, Parsed(_network_mode), _string("^(host|none|bridge|pasta|(bridge|service):.+)$")]
Userns = Annotated[
    str | IdRange,
    Parsed(_userns),
    Written(lambda v: v if isinstance(v, str) else {"base": v.base, "size": v.size}),
    _either(
        {"enum": ["auto", "host"]},
        {
            "type": "object",
            "properties": {"base": {"type": "integer", "minimum": 1}, "size": {"type": "integer", "minimum": 1}},
            "required": ["base", "size"],
            "additionalProperties": False,
        },
    ),
]
CountLimit = Annotated[
    int | str, Parsed(partial(_rlimit, bytes_=False)), _either({"type": "integer", "minimum": 0}, _UNLIMITED)
]
ByteLimit = Annotated[
    int | str,
    Parsed(partial(_rlimit, bytes_=True)),
    _either({"type": "integer", "minimum": 0}, _SIZE, _UNLIMITED),
]
Capability = Annotated[str, Parsed(_capability), _CAPABILITY_SCHEMA]
Device = Annotated[str, Parsed(devices.valid), _string("^/dev/")]
Profile = Annotated[
    str,
    Parsed(partial(fields.matching, pattern=r"[A-Za-z0-9_./-]*", expected="the name of a profile")),
    _string(r"^[A-Za-z0-9_./-]*$"),
]
Package = Annotated[
    str,
    Parsed(partial(fields.matching, pattern=r"[A-Za-z0-9][A-Za-z0-9+._:~=-]*", expected="the name of a package")),
    _string(r"^[A-Za-z0-9][A-Za-z0-9+._:~=-]*$"),
]
RegistryPrefix = Annotated[
    str,
    Parsed(fields.registry_prefix),
    _string(r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?(/[a-z0-9._-]+)*$"),
]
SysctlName = Annotated[str, Parsed(_sysctl_name), _TEXT]
Group = Annotated[
    str,
    Parsed(fields.group),
    _either({"type": "string", "pattern": fields.GROUP_PATTERN}, {"type": "integer", "minimum": 0}),
]
Timezone = Annotated[str, Parsed(fields.timezone), _string(fields.TIMEZONE_PATTERN, maxLength=255)]
SysctlValue = Annotated[str, Parsed(_sysctl_value), _either({"type": "string"}, {"type": "integer"})]

# TOML has lists where a manifest has tuples; what stands in them stays strict.
Arguments = Annotated[tuple[Argument, ...], Strict(False)]
Addresses = Annotated[tuple[Address, ...], Strict(False)]
Ports = Annotated[tuple[PublishedPort, ...], Strict(False)]
Names = Annotated[tuple[Name, ...], Strict(False)]
Hooks = Annotated[tuple[Command, ...], Strict(False)]
Devices = Annotated[tuple[Device, ...], Strict(False)]
Groups = Annotated[tuple[Group, ...], Strict(False)]
LocalFiles = Annotated[tuple[LocalFile, ...], Strict(False)]
PackageNames = Annotated[tuple[Package, ...], Strict(False)]
RegistryPrefixes = Annotated[tuple[RegistryPrefix, ...], Strict(False)]
Capabilities = Annotated[tuple[Capability, ...], Strict(False), AfterValidator(_capabilities)]
Environment = Annotated[Mapping[EnvName, Argument], AfterValidator(fields.environment)]
Variables = Annotated[
    Mapping[str, Any],
    Parsed(variables),
    WithJsonSchema({"type": "object", "propertyNames": {"pattern": VARIABLE_PATTERN}}),
]
FROZEN = AfterValidator(FrozenMap)
