"""The commands: arguments and help texts. Each is a few lines; the work is done elsewhere and imported when needed."""

from __future__ import annotations

from appbox.commands import data, images, installed, manifests, past, running, transfer, versions
from appbox.commands.root import Misuse, app

__all__ = ["Misuse", "app", "data", "images", "installed", "manifests", "past", "running", "transfer", "versions"]
