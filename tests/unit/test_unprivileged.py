"""What an ordinary user's services cannot have is said in words, and nothing of it is said to root."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import pytest

from appbox import demands, needs, owner, volumes
from appbox import desired as desires
from appbox.addresses import Attachment, Network
from appbox.desired_values import Desired
from appbox.errors import ManifestError
from appbox.host.facts import EXAMPLE, Abilities, Cgroups, Networking
from appbox.locked import HostSource
from appbox.oci.users import User
from appbox.owner import Extent, Owner
from tests.ground.pure import locked, rootfs

MINE = (Extent(0, 1000, 1), Extent(1, 100_000, 65_536))
ALICE = Owner("alice", 1000, 1000, "/home/alice", "/d", "/c", "/k", "/r", MINE, MINE)
ABLE = Abilities(first_port=1024)
NETWORK = Network("appbox", IPv4Network("10.89.0.0/24"), IPv6Network("fd00:89::/64"))
VOLUME = '[volumes.v]\npath = "/v"\nsource = "/srv/v"\n'


@pytest.fixture
def alice() -> Iterator[None]:
    owner.use(ALICE)
    yield
    owner.use(None)


def lacks(tables: str, able: Abilities = ABLE, network: Network = NETWORK) -> list[tuple[str, str]]:
    asked = locked(tables)
    if asked.manifest.network.mode == "bridge":
        asked = replace(asked, attachment=Attachment(network, network.subnet[2]))
    found = demands.missing(asked, replace(EXAMPLE, live=True, abilities=able))
    return [(".".join(map(str, lack.key)), f"{lack.message}; {lack.hint}") for lack in found]


def build(tables: str, able: Abilities = ABLE, there: HostSource | None = None, **config: Any) -> Desired:
    wanted = locked(tables, sources={"/srv/v": there}, **config)
    return desires.build(wanted, replace(EXAMPLE, live=True, abilities=able), 0, rootfs())


REFUSED = [
    ('[network]\nmode = "pasta"\nports = ["80:80"]\n', ABLE, "network.ports.0", "ip_unprivileged_port_start=80 >"),
    (
        '[network]\nmode = "pasta"\nports = ["8080:80"]\n',
        replace(ABLE, slirp=True),
        "network.ports",
        "slirp4netns publishes no ports",
    ),
    (
        '[network]\nmode = "bridge"\nports = ["127.0.0.1:8080:80", "127.0.0.2:8080:81"]\n',
        ABLE,
        "network.ports.1",
        "pasta publishes a port of the host once, and ports[0] has 8080 already; take another port",
    ),
    (
        '[network]\nmode = "bridge"\n',
        replace(ABLE, networking=Networking(plugins=frozenset({"bridge"}), programs=frozenset({"flock"}))),
        "network.mode",
        "this host has no CNI plugin static",
    ),
    (
        '[network]\nmode = "bridge"\n',
        replace(ABLE, pasta="you may not open /dev/net/tun"),
        "network.mode",
        "let root do: chmod 0666 /dev/net/tun",
    ),
    ("[security]\nuserns = { base = 300000, size = 65536 }\n", ABLE, "security.userns", "alice has only those of"),
    ('[security]\napparmor = "web"\n', ABLE, "security.apparmor", "only root sees which"),
    (
        '[security]\nrootfs = "persistent"\n',
        replace(ABLE, no_overlay="the kernel lets you mount none over nfs4"),
        "security.rootfs",
        "mount none over nfs4",
    ),
    (
        '[resources]\nmemory = "64M"\n',
        replace(ABLE, cgroups=Cgroups(controllers=frozenset({"pids"}), given="some")),
        "resources.memory",
        "your systemd was not given the cgroup controller memory; let root do: appbox doctor --user alice --fix",
    ),
    (
        "[resources]\npids = 5\n",
        replace(ABLE, cgroups=Cgroups(given="nothing")),
        "resources.pids",
        "nobody has given you a cgroup of your own; let root's init system run it: appbox --user alice apply",
    ),
]


@pytest.mark.usefixtures("alice")
@pytest.mark.parametrize(("tables", "able", "key", "words"), REFUSED, ids=[one[2] for one in REFUSED])
def test_what_only_root_can_give_is_refused(tables: str, able: Abilities, key: str, words: str) -> None:
    (found, said), *_ = lacks(tables, able)
    assert found == key
    assert words in said


@pytest.mark.usefixtures("alice")
def test_a_bridge_asks_for_no_firewall_and_is_connected_with_no_other() -> None:
    has = Networking(plugins=frozenset({"bridge", "static"}), programs=frozenset({"flock"}))
    bridge = '[network]\nmode = "bridge"\nports = ["8080:80"]\n'
    assert lacks(bridge, replace(ABLE, networking=has)) == []
    for key, network in (
        ("isolate", replace(NETWORK, isolate=False)),
        ("masquerade", replace(NETWORK, masquerade=False)),
    ):
        ((where, said),) = lacks(bridge, ABLE, network)
        assert where == "network.mode"
        assert f"{key} = false of the network appbox is for root's" in said


@pytest.mark.usefixtures("alice")
def test_a_bridge_is_the_first_interface_and_pasta_the_second() -> None:
    bridge = '[network]\nmode = "bridge"\nports = ["127.0.0.1:8080:80", "53:53/udp"]\n'
    asked = replace(locked(bridge), attachment=Attachment(NETWORK, NETWORK.subnet[2]))
    facts = replace(EXAMPLE, live=True, abilities=ABLE)
    files = {file.path: file.data for file in desires.build(asked, facts, 0, rootfs()).files}
    assert sorted(path for path in files if path.startswith("cni/")) == ["cni/bridge.json", "cni/hosts.appbox"]
    plugin = json.loads(files["cni/bridge.json"])
    assert plugin["ipam"] == {
        "type": "static",
        "addresses": [{"address": "10.89.0.2/24"}, {"address": "fd00:89::2/64"}],
    }
    assert not {"isGateway", "hairpinMode"} & plugin.keys()
    script = files["run"].decode()
    assert "--ns-ifname eth1 " in script
    assert "--tcp-ports 127.0.0.1/8080:80 --udp-ports 53:53 " in script
    assert "iptables" not in script
    slirp = replace(facts, abilities=replace(ABLE, slirp=True))
    other = {file.path: file.data for file in desires.build(asked, slirp, 0, rootfs()).files}["run"].decode()
    assert '"$2" eth1 3>' in other


def test_root_is_told_nothing_of_it() -> None:
    assert (
        lacks('[network]\nmode = "pasta"\nports = ["80:80"]\n[security]\nuserns = { base = 300000, size = 65536 }\n')
        == []
    )


@pytest.mark.usefixtures("alice")
def test_openrc_gives_what_is_on_at_the_top() -> None:
    owner.use(replace(ALICE, by_root=True))
    able = replace(ABLE, cgroups=Cgroups(controllers=frozenset({"pids"}), given="some"))
    ((key, said),) = lacks('[resources]\nmemory = "64M"\npids = 5\n', able)
    assert key == "resources.memory"
    assert "OpenRC has not turned the cgroup controller memory on" in said


@pytest.mark.usefixtures("alice")
def test_limits_and_ports_that_were_given_are_taken() -> None:
    given = Cgroups(controllers=frozenset({"memory", "pids"}), given="some")
    assert lacks('[resources]\nmemory = "64M"\npids = 5\n', replace(ABLE, cgroups=given)) == []
    assert lacks('[network]\nmode = "pasta"\nports = ["80:80"]\n', replace(ABLE, first_port=80)) == []


@pytest.mark.usefixtures("alice")
def test_a_plan_says_what_is_otherwise_than_roots() -> None:
    host = '[network]\nmode = "host"\n'
    notes = build(
        f'{host}[security]\nuserns = "host"\n', replace(ABLE, no_overlay="why"), ExposedPorts={"80/tcp": {}}
    ).notes
    told = " | ".join(notes)
    assert 'security.userns = "host" changes nothing: root in the service is alice on the host' in told
    assert "each start copies all files of the image" in told
    assert "the image listens on port 80, and on the host's network an ordinary user may listen from 1024 on" in told
    assert "listens" not in " ".join(build(host, ABLE, ExposedPorts={"8080/tcp": {}}).notes)
    owner.use(replace(ALICE, uids=MINE[:1], gids=MINE[:1]))
    assert any("no users but root" in note for note in build(host).notes)


@pytest.mark.usefixtures("alice")
def test_whose_the_files_of_a_host_path_are() -> None:
    own = HostSource(directory=True, empty=False, uid=0, gid=0, whose="root of the service")
    roots = HostSource(directory=True, empty=False, uid=65534, gid=65534, own=False, whose="root of the host")
    with pytest.raises(ManifestError, match="belongs to root of the service, not to www") as caught:
        build(f'{VOLUME}owner = "www"\n', there=own)
    assert "unshare --map-root-user --map-auto chown -R 33:33 /srv/v" in str(caught.value.problems[0].hint)
    with pytest.raises(ManifestError, match="belongs to root of the host"):
        build(f'{VOLUME}owner = "www"\n', there=roots)
    build(f'{VOLUME}owner = "www"\n', there=replace(own, uid=33, gid=33))
    build(f'{VOLUME}owner = "www"\n', there=replace(own, empty=True))
    user = '[process]\nuser = "www"\n'
    assert any("chown -R 33:33 /srv/v" in note for note in build(user + VOLUME, there=own).notes)
    assert not any("/srv/v" in note for note in build(VOLUME, there=own).notes)
    assert any("keeps its owner, root of the host" in note for note in build(VOLUME, there=roots).notes)
    # An empty directory of somebody else's cannot be given to the service.
    (volume,) = volumes.build(
        locked(VOLUME, sources={"/srv/v": replace(roots, empty=True)}), "/b", User(0, 0), rootfs()
    )
    assert not volume.take


@pytest.mark.usefixtures("alice")
@pytest.mark.parametrize("table", ["service", "snapshots"])
def test_the_tables_of_cron_are_roots(table: str) -> None:
    facts = replace(EXAMPLE, init="openrc", live=True, abilities=ABLE)
    timed = locked(f'[{table}]\nschedule = "daily"\n')
    assert [lack.key for lack in demands.missing(timed, facts)] == [(table, "schedule")]
    assert not [*demands.missing(timed, replace(facts, init="systemd"))]
    owner.use(replace(ALICE, by_root=True))
    assert not [*demands.missing(timed, facts)]


@pytest.mark.usefixtures("alice")
def test_what_nothing_starts_at_boot_is_said() -> None:
    facts = replace(EXAMPLE, init="openrc", live=True, abilities=replace(ABLE, manager="brief"))
    (note,) = needs.notes(facts)
    assert "ln -s user /etc/init.d/user.alice; rc-update add user.alice" in note
    assert not [*needs.notes(replace(facts, abilities=ABLE))]
    (note,) = needs.notes(replace(facts, init="none"))
    assert note.endswith("appbox --user alice apply, by root")


@pytest.mark.usefixtures("alice")
def test_a_user_cannot_hold_up_a_shutdown_of_the_host() -> None:
    patient = "[process]\nstop_timeout = 121\n"
    assert not lacks(patient)  # the user's own manager has a limit of its own
    owner.use(replace(ALICE, by_root=True))
    ((key, words),) = lacks(patient)
    assert key == "process.stop_timeout"
    assert words == "a shutdown of the host would wait so long for a service of alice; take at most 120 seconds"
    assert not lacks("[process]\nstop_timeout = 120\n")
