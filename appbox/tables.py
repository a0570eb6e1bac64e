"""The tables of a manifest as frozen models: keys, types and defaults. What goes together is in `rules`.

The descriptions are what editors show and `appbox schema` prints. Annotations are no texts here, as they are elsewhere:
pydantic would have to evaluate each of them, which takes a sixth of the time in which the tables are made.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from appbox import values as v
from appbox.fields import FrozenMap
from appbox.quantities import RestartLimit


class Table(BaseModel):
    """A table of a manifest: closed, strict and frozen."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)


def _key(description: str) -> object:
    return Field(description=description)


class Process(Table):
    """What runs. Everything left out is what the image says."""

    entrypoint: Annotated[v.Arguments | None, _key("The program and its first arguments; [] for none.")] = None
    args: Annotated[v.Arguments | None, _key("The arguments after the entrypoint; the image's CMD by default.")] = None
    env: Annotated[v.Environment, _key("Environment variables, over those of the image.")] = FrozenMap()
    workdir: Annotated[v.WorkingDirectory | None, _key("The working directory in the container.")] = None
    user: Annotated[v.User, _key('Who it runs as: "image", NAME, UID, or either with :GROUP.')] = "image"
    groups: Annotated[v.Groups, _key("Supplementary groups, by name in the image or by number.")] = ()
    timezone: Annotated[
        v.Timezone | None, _key('The local time, as in "Europe/Berlin", or "host" for the host\'s.')
    ] = None
    stop_signal: Annotated[v.StopSignal | None, _key("The signal that stops it; the image's, or SIGTERM.")] = None
    stop_timeout: Annotated[v.Seconds, _key("Seconds between the stop signal and SIGKILL.")] = 10
    init: Annotated[bool, _key("Run a small init as process 1, which reaps zombies.")] = False


class Volume(Table):
    """A directory that outlives the container, or a tmpfs. Without source or tmpfs: data/NAME in the bundle."""

    path: Annotated[v.Target, _key("Where it is mounted in the container.")]
    source: Annotated[v.Source | None, _key("A path of the host, instead of a directory in the bundle.")] = None
    tmpfs: Annotated[bool, _key("Keep it in memory and lose it at stop.")] = False
    size: Annotated[v.Size | None, _key('The most that a tmpfs may hold, as in "64M".')] = None
    mode: Annotated[v.DirectoryMode | None, _key('The permissions of a tmpfs, as in "1777".')] = None
    owner: Annotated[v.User, _key('Who owns it: "image" (as the image has it), NAME, UID, or with :GROUP.')] = "image"
    seed: Annotated[
        Literal["if-empty", "never"], _key("Whether an empty volume first gets what the image has at its path.")
    ] = "if-empty"
    read_only: Annotated[bool, _key("Whether the service may only read it.")] = False


class Network(Table):
    """What the service sees of the network."""

    mode: Annotated[
        v.NetworkMode,
        _key("host: the host's own; none: only loopback; bridge or bridge:NAME; pasta; service:NAME to share."),
    ] = "none"
    ports: Annotated[v.Ports, _key('Published ports, as in "127.0.0.1:6379:6379/tcp"; for bridge and pasta.')] = ()
    hostname: Annotated[v.Hostname | None, _key("The host name in the container; the service's name by default.")] = (
        None
    )
    dns: Annotated[v.Addresses, _key("Name servers, instead of the host's.")] = ()
    hosts: Annotated[Mapping[v.Hostname, v.Address], v.FROZEN, _key("More lines for /etc/hosts: name to address.")] = (
        FrozenMap()
    )


class Config(Table):
    """A file that is made at apply and mounted read-only; exactly one of text, file, template and directory."""

    text: Annotated[v.Text | None, _key("The content itself.")] = None
    file: Annotated[v.LocalFile | None, _key("A file whose content is taken as it is; relative to the manifest.")] = (
        None
    )
    template: Annotated[
        v.LocalFile | None, _key("A Jinja2 template, filled with [vars]; relative to the manifest.")
    ] = None
    directory: Annotated[
        v.LocalDirectory | None, _key("A directory whose files are all taken as they are; relative to the manifest.")
    ] = None
    mode: Annotated[v.FileMode, _key('Its permissions, as in "0444".')] = 0o444
    owner: Annotated[
        v.User, _key('Who owns it: "image" (whoever the service starts as), NAME, UID or with :GROUP.')
    ] = "image"
    on_change: Annotated[
        Literal["restart", "reload", "none"], _key("What the running service does when the content changes.")
    ] = "restart"


class Secret(Table):
    """A secret that is read at start into a tmpfs; exactly one of file, command and age."""

    file: Annotated[v.Source | None, _key("A file of the host that holds it.")] = None
    command: Annotated[v.Command | None, _key("A command of the host that prints it.")] = None
    age: Annotated[v.LocalFile | None, _key("A file encrypted with age; relative to the manifest.")] = None
    path: Annotated[v.Target | None, _key("Where the service finds it; /run/secrets/NAME by default.")] = None
    mode: Annotated[v.FileMode, _key('Its permissions, as in "0400".')] = 0o400
    owner: Annotated[v.User, _key('Who owns it: "image", NAME, UID, or either with :GROUP.')] = "image"


class Resources(Table):
    """Limits of the service's cgroup, and rlimits of its processes by name."""

    memory: Annotated[v.Size | None, _key('The most memory, as in "512M".')] = None
    memory_swap: Annotated[v.SizeOrZero | None, _key('The most swap beside it; "0" for none.')] = None
    cpus: Annotated[v.Cpus | None, _key("How many processors' worth of time.")] = None
    cpu_weight: Annotated[v.Weight | None, _key("Its share when processors are scarce; 100 is usual.")] = None
    pids: Annotated[v.Pids | None, _key("The most processes and threads.")] = None
    io_weight: Annotated[v.Weight | None, _key("Its share when disks are busy; 100 is usual.")] = None
    # `as` is a keyword of Python.
    as_: Annotated[v.ByteLimit | None, Field(alias="as", description="Address space of a process.")] = None
    core: Annotated[v.ByteLimit | None, _key("Size of a core dump.")] = None
    cpu: Annotated[v.CountLimit | None, _key("Seconds of processor time of a process.")] = None
    data: Annotated[v.ByteLimit | None, _key("Size of a process's data segment.")] = None
    fsize: Annotated[v.ByteLimit | None, _key("Size of a file that it writes.")] = None
    locks: Annotated[v.CountLimit | None, _key("Number of file locks.")] = None
    memlock: Annotated[v.ByteLimit | None, _key("Memory locked into RAM.")] = None
    msgqueue: Annotated[v.ByteLimit | None, _key("Bytes in POSIX message queues.")] = None
    nice: Annotated[v.CountLimit | None, _key("How far a process may raise its priority.")] = None
    nofile: Annotated[v.CountLimit | None, _key("Number of open files.")] = None
    nproc: Annotated[v.CountLimit | None, _key("Number of processes of the user.")] = None
    rss: Annotated[v.ByteLimit | None, _key("Resident memory; without effect on Linux.")] = None
    rtprio: Annotated[v.CountLimit | None, _key("Real-time priority.")] = None
    rttime: Annotated[v.CountLimit | None, _key("Microseconds of real-time processor time.")] = None
    sigpending: Annotated[v.CountLimit | None, _key("Number of queued signals.")] = None
    stack: Annotated[v.ByteLimit | None, _key("Size of a stack.")] = None


class Capabilities(Table):
    """Changes to the runtime's usual set."""

    add: Annotated[v.Capabilities, _key('Capabilities beside the usual ones, or "ALL".')] = ()
    drop: Annotated[v.Capabilities, _key('Usual capabilities to do without, or "ALL".')] = ()


class Security(Table):
    """How the service is kept apart from the host."""

    userns: Annotated[v.Userns, _key("auto: ids of its own; host: the host's; or a range of base and size.")] = "auto"
    rootfs: Annotated[
        Literal["overlay", "persistent", "read-only"],
        _key("overlay: writes are discarded at stop; persistent: kept with the version; read-only: refused."),
    ] = "overlay"
    capabilities: Annotated[Capabilities, _key("Capabilities to add and to drop.")] = Capabilities()
    no_new_privileges: Annotated[bool, _key("Whether setuid programs gain nothing.")] = True
    seccomp: Annotated[Literal["default", "unconfined"], _key("The filter of system calls.")] = "default"
    apparmor: Annotated[v.Profile, _key("An AppArmor profile of the host.")] = ""
    devices: Annotated[v.Devices, _key('Devices, as in "/dev/fuse" or "/dev/a:/dev/b:rw".')] = ()
    sysctl: Annotated[
        Mapping[v.SysctlName, v.SysctlValue], v.FROZEN, _key("Kernel parameters of the container's namespaces.")
    ] = FrozenMap()


class Health(Table):
    """How to see that the service is well; exactly one of exec, tcp and http."""

    exec: Annotated[v.Command | None, _key("A command in the container that ends with 0.")] = None
    tcp: Annotated[v.PortNumber | None, _key("A port that takes connections.")] = None
    http: Annotated[v.Url | None, _key("A URL that answers with 200 to 399.")] = None
    interval: Annotated[v.SomeSeconds, _key("Seconds between two checks.")] = 30
    timeout: Annotated[v.SomeSeconds, _key("Seconds that one check may take.")] = 5
    retries: Annotated[v.Count, _key("How many failures in a row make it unhealthy.")] = 3
    start_period: Annotated[v.Seconds, _key("Seconds after the start in which failures do not count.")] = 20
    on_unhealthy: Annotated[Literal["restart", "stop", "none"], _key("What is done then.")] = "restart"
    restart_limit: Annotated[
        v.Restarts, _key('How often it is restarted for that in how long: "5/600s". Beyond that it is left as it is.')
    ] = RestartLimit(5, 600)


class Log(Table):
    """Log files under OpenRC; systemd has its journal."""

    max_size: Annotated[v.LogSize, _key('When a new file is begun, as in "10M".')] = 10 * 2**20
    keep: Annotated[v.Count, _key("How many files are kept.")] = 3


class Service(Table):
    """How the init system treats it."""

    requires: Annotated[v.Names, _key("Services that it cannot run without.")] = ()
    after: Annotated[v.Names, _key("Services that start before it.")] = ()
    wants: Annotated[v.Names, _key("Services that are started with it.")] = ()
    restart: Annotated[Literal["no", "on-failure", "always"], _key("When it is started again after it ended.")] = (
        "on-failure"
    )
    restart_delay: Annotated[v.Seconds, _key("Seconds before it is started again.")] = 1
    restart_limit: Annotated[v.Restarts, _key('How often in how long: "5/60s".')] = RestartLimit(5, 60)
    notify: Annotated[bool, _key("Whether it reports by itself that it is ready (sd_notify).")] = False
    enable: Annotated[bool, _key("Whether it starts at boot.")] = True
    schedule: Annotated[v.Schedule, _key("A calendar expression makes it a timed job.")] = ""
    reload: Annotated[v.Reload | None, _key("A command in the container, or a signal, that makes it reload.")] = None
    log: Annotated[Log, _key("Log files under OpenRC.")] = Log()


class Upgrade(Table):
    """What happens to data and old versions when the version changes."""

    data: Annotated[
        Literal["auto", "snapshot", "copy", "move", "share"],
        _key("How the data gets to the new version; auto: snapshot where the file system can, else move."),
    ] = "auto"
    keep: Annotated[v.Count, _key("How many versions are kept.")] = 2
    before: Annotated[v.Hooks, _key("Commands run in the old container before the upgrade.")] = ()
    after: Annotated[v.Hooks, _key("Commands run in the new container after it.")] = ()
    migrate: Annotated[v.Command | None, _key("The command that takes data from one data_format to the next.")] = None
    hook_timeout: Annotated[v.SomeSeconds, _key("Seconds that each of these commands may take.")] = 600
    data_format: Annotated[v.DataFormat, _key("A name for the format of the data; changing it needs migrate.")] = ""


class Snapshots(Table):
    """Snapshots of its data by the clock. Where it cannot be cloned, the service is stopped while it is copied."""

    schedule: Annotated[v.Schedule, _key('A calendar expression, as in "daily"; "" for none.')] = ""
    keep: Annotated[v.Count, _key("How many of these are kept; older ones are deleted. Those by hand stay.")] = 7


class Policy(Table):
    """Which images may run. A policy of the host, /etc/appbox/policy.toml, can demand more."""

    registries: Annotated[v.RegistryPrefixes, _key("Registries, or parts of them, that the image may be from.")] = ()
    signed_by: Annotated[
        v.LocalFiles, _key("Public keys of which one must have signed it; relative to the manifest.")
    ] = ()
    signed_as: Annotated[
        v.RegistryPrefix | None, _key("The name that the signature is for, where the image was copied from elsewhere.")
    ] = None
    require_digest: Annotated[
        bool, _key("Whether the manifest, or the lock beside it, has to pin the image's digest.")
    ] = False


class Packages(Table):
    """An image made of a distribution's packages."""

    suite: Annotated[v.Line, _key("The release to take them from, such as trixie.")]
    install: Annotated[v.PackageNames, _key("The packages.")]


class Build(Table):
    """How to make the image; exactly one of packages and containerfile."""

    packages: Annotated[Packages | None, _key("Packages of Debian or Alpine.")] = None
    containerfile: Annotated[v.LocalFile | None, _key("A Containerfile; relative to the manifest.")] = None


class Manifest(Table):
    """One service of appbox."""

    name: Annotated[v.Name, _key("The service's name; also its unit, container id and directory.")]
    image: Annotated[
        v.Image, _key("Where the image is: HOST/REPOSITORY, oci:DIR, oci-archive:FILE or docker-archive:FILE.")
    ] = ""
    version: Annotated[
        v.Version, _key('The image\'s tag, or a constraint that appbox lock resolves: "~9.0", ">=9,<10", "*".')
    ]
    digest: Annotated[v.Digest | None, _key("The digest that the image must have.")] = None
    description: Annotated[v.Text, _key("For people; shown by status.")] = ""
    process: Annotated[Process, _key("What runs.")] = Process()
    volumes: Annotated[Mapping[v.Label, Volume], v.FROZEN, _key("Directories by name.")] = FrozenMap()
    network: Annotated[Network, _key("What it sees of the network.")] = Network()
    vars: Annotated[v.Variables, _key("Variables of templates.")] = FrozenMap()
    config: Annotated[Mapping[v.Target, Config], v.FROZEN, _key("Files by their path in the container.")] = FrozenMap()
    secrets: Annotated[Mapping[v.Label, Secret], v.FROZEN, _key("Secrets by name.")] = FrozenMap()
    resources: Annotated[Resources, _key("Limits.")] = Resources()
    security: Annotated[Security, _key("How it is kept apart from the host.")] = Security()
    health: Annotated[Health | None, _key("How to see that it is well.")] = None
    service: Annotated[Service, _key("Restarts, dependencies, and whether it starts at boot.")] = Service()
    upgrade: Annotated[Upgrade, _key("What happens when the version changes.")] = Upgrade()
    snapshots: Annotated[Snapshots, _key("Snapshots of its data at certain times.")] = Snapshots()
    policy: Annotated[Policy, _key("What an image must have to be run.")] = Policy()
    build: Annotated[Build | None, _key("How to make the image instead of pulling it.")] = None
