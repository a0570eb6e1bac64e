"""One service while its plan is carried out: what every handler of an action is given."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from appbox.actions import Action
from appbox.desired_values import Desired
from appbox.host.facts import Facts
from appbox.locked import Locked
from appbox.oci.cache import Cache
from appbox.oci.rootfs import RootfsFacts
from appbox.oci.source import Progress, Source
from appbox.plan_values import Observed, ServicePlan
from appbox.store import files, paths
from appbox.store.given import Given
from appbox.store.root import Root


@dataclass(slots=True)
class Work:
    """One service while its plan is carried out. `desired` is completed once the rootfs is there.

    `check` is called now and then while an image is unpacked, and may raise to end that; `share` is how many images are
    unpacked at once.
    """

    root: Root
    facts: Facts
    cache: Cache
    locked: Locked | None
    plan: ServicePlan
    open_image: Callable[[], Source] | None
    told: Callable[[Action], None]
    progress: Progress | None = None
    check: Callable[[], None] | None = None
    share: int = 1
    said: Callable[[str], object] | None = None  # told what is going on besides the actions of the plan
    copying: Callable[[int, int], object] | None = None  # told the bytes of data that are copied, and all
    desired: Desired = field(init=False)
    interrupted: bool = False  # a run that was killed may have done some of the plan
    staged: bool = False
    mtree: str = ""  # the digest of the rootfs.mtree that was written
    rootfs: RootfsFacts | None = None  # what was found in the rootfs that was unpacked
    given: Given = field(init=False)  # which the services of a run have in common

    def __post_init__(self) -> None:
        self.desired = self.plan.desired
        self.given = Given(self.root)

    @property
    def observed(self) -> Observed:
        """What was on the host when the plan was made."""
        return self.plan.observed

    @contextlib.contextmanager
    def containers(self) -> Iterator[int]:
        """Open the directory of all versions."""
        with self.root.directory(paths.CONTAINERS) as containers:
            yield containers

    @contextlib.contextmanager
    def bundle(self) -> Iterator[int]:
        """Open the version directory that is worked on: the staged one until it is published."""
        name = paths.staging(self.desired.name) if self.staged else self.desired.directory
        with self.containers() as containers, files.directory(name, containers) as fd:
            yield fd
