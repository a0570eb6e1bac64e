"""Asks registries whether they answer: one question each, at once, and none for longer than a few seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Final

from appbox.doctor.seen import Registry
from appbox.errors import AppboxError
from appbox.oci.reference import RegistryImage
from appbox.oci.settings import Settings, Timing

PATIENCE: Final = 10.0
"""Seconds for all registries together: a resolver alone may take longer, and cannot be told to stop."""
_TIMING: Final = Timing(connect=4.0, read=6.0, tries=1)


def ask(images: Mapping[str, Sequence[tuple[RegistryImage, str]]]) -> tuple[Registry, ...]:
    """Return how registries answer; `images` maps their names to images with a tag, of which the first is asked for."""
    answers: dict[str, Registry] = {}

    def work(name: str) -> None:
        answers[name] = _one(name, images[name])

    threads = [threading.Thread(target=work, args=(name,), daemon=True) for name in sorted(images)]
    until = time.monotonic() + PATIENCE
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    silent = {name: _silent(name, images[name]) for name in images if name not in answers}
    return tuple({**answers, **silent}[name] for name in sorted(images))


def _one(name: str, images: Sequence[tuple[RegistryImage, str]]) -> Registry:
    from appbox.oci import registry  # noqa: PLC0415 - it loads httpx

    wanted = tuple(f"{image}:{tag}" for image, tag in images)
    image, tag = images[0]
    begun = time.monotonic()
    try:
        client = registry.Registry(image, Settings(timing=_TIMING, tell=lambda _: None))
        try:
            client.head(tag)
        finally:
            client.close()
    except AppboxError as error:
        problem = ": ".join(part for part in (error.where, error.what, error.why) if part)
        return Registry(name, wanted, problem, error.hint or _HINT, time.monotonic() - begun)
    return Registry(name, wanted, seconds=time.monotonic() - begun)


def _silent(name: str, images: Sequence[tuple[RegistryImage, str]]) -> Registry:
    wanted = tuple(f"{image}:{tag}" for image, tag in images)
    return Registry(name, wanted, f"{name} has not answered within {PATIENCE:g} s", _HINT, PATIENCE)


_HINT: Final = "see whether its name is resolved (getent hosts NAME), and whether a proxy is needed (HTTPS_PROXY)"
