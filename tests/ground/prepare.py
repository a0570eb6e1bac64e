"""Makes everything that tests keep in the cache, two at a time: `python -m tests.ground.prepare`."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

from tests.ground import images, recipes, roots, vm

# The slowest come first.
IMAGES = (
    "mariadb",
    "syncthing",
    "postgres",
    "prometheus",
    "caddy",
    "nginx",
    "redis",
    "valkey",
    "mosquitto",
    "nats",
    "debian",
    "busybox",
)


def prepare_machine(init: str) -> None:
    """Build a root, and the disk that a virtual machine has of it."""
    vm.disk(roots.ensure(init))


def main() -> int:
    """Build what is missing."""
    assert sorted(IMAGES) == sorted(recipes.RECIPES)
    with ThreadPoolExecutor(max_workers=2) as pool:
        machines = pool.map(prepare_machine, roots.INITS)
        kernel, users = pool.submit(vm.kernel), pool.submit(roots.ensure_users)
        made = pool.map(images.ensure, IMAGES)
        for _ in (*machines, kernel.result(), users.result(), *made):
            pass  # an error is raised here
    return 0


if __name__ == "__main__":
    sys.exit(main())
