"""The commands: arguments and help texts. Each is a few lines; the work is done elsewhere and imported when needed."""

from __future__ import annotations

from appbox.commands import images, installed, manifests, running
from appbox.commands.root import Misuse, app

__all__ = ["Misuse", "app", "images", "installed", "manifests", "running"]
