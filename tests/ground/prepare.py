"""Makes everything that tests keep in the cache, two at a time: `python -m tests.ground.prepare`."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

from tests.ground import images, recipes, roots


def main() -> int:
    """Build what is missing; the slowest come first."""
    order = ("mariadb", "postgres", "nginx", "redis", "valkey", "debian", "busybox")
    assert sorted(order) == sorted(recipes.RECIPES)
    with ThreadPoolExecutor(max_workers=2) as pool:
        systems = pool.map(roots.ensure, roots.INITS)
        made = pool.map(images.ensure, order)
        for _ in (*systems, *made):
            pass  # an error is raised here
    return 0


if __name__ == "__main__":
    sys.exit(main())
