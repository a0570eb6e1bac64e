"""One action of every kind, for tests of whatever has to know all of them."""

from __future__ import annotations

from appbox import actions
from appbox.actions import Action, RenderConfig

EVERY: tuple[Action, ...] = (
    actions.AllocateRange("web", "r", 65536, 65536),
    actions.AllocateAddress("web", "r", "appbox", "10.89.0.0/24", ("10.89.0.2", "fd00:89::2")),
    actions.TellPeers("web", "r", "appbox"),
    actions.Unpack("web", "r", "web-1", "docker.io/x@sha256:0", "sha256:0", 1, 1_500_000),
    actions.Publish("web", "r", "web-1", ".replaced/web-1@0"),
    actions.MakeVolume("web", "r", "data", "/opt/containers/web-1/data/data", "/data", "0:0", True),
    RenderConfig("web", "r", "web-1", 2, ("config.json", "run"), False, "-a\n+b\x1b[2J\n"),
    actions.InstallUnit("web", "r", "/etc/init.d/web", True, "+new\n"),
    actions.RemoveUnit("web", "r", "/etc/cron.d/appbox-web"),
    actions.Enable("web", "r", False),
    actions.Stop("web", "r"),
    actions.Switch("web", "r", "web-0", "web-1"),
    actions.CarryData("web", "r", "web-0", "web-1"),
    actions.Start("web", "r"),
    actions.Restart("web", "r"),
    actions.KeepWrites("web", "r", ".replaced/web-1@0", "web-1"),
    actions.Schedule("web", "r", True),
    actions.Replace("web", "r", ("/etc/web.conf",)),
    actions.Reload("web", "r"),
    actions.Activate("web", "r", "web-1", 2),
    actions.BringBack("web", "r", "web-1", ".replaced/web-1@0", ".replaced/web-1@1"),
    actions.PutAside("web", "r", "web-1"),
    actions.CopyData("web", "r", "web-0", "web-1", "clone"),
    actions.RunHook("web", "r", "before", ("sh", "-c", "echo a")),
    actions.Migrate("web", "r", "web-1", ("migrate",), "1", "2"),
    actions.NoteFormat("web", "r", "web-1", "2"),
    actions.RetireVersion("web", "r", "web-0"),
    actions.NoteSource("web", "r", "web-1", "/etc/services/web.toml"),
    actions.KeepImage("web", "r", "web-1"),
    actions.RemoveService("web", "r", "web-1"),
)
