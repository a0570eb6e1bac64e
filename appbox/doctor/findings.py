"""What the doctor finds: everything that was seen, judged. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from appbox.doctor import findings_host, findings_tools, findings_user
from appbox.doctor.seen import Seen
from appbox.doctor.values import At, Finding, Remedy
from appbox.doctor.wants import Wants


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why `plan` would refuse a manifest on this host, by the key that it names."""

    at: At
    message: str
    hint: str = ""


_JUDGES: Final[tuple[Callable[[Seen, Wants], Iterator[Finding]], ...]] = (
    findings_host.kernel,
    findings_host.namespaces,
    findings_host.cgroups,
    findings_host.init,
    findings_user.entry,
    findings_user.ids,
    findings_user.helpers,
    findings_user.session,
    findings_user.delegation,
    findings_host.runtime,
    findings_host.store,
    findings_tools.bridge,
    findings_tools.pasta,
    findings_user.ports,
    findings_tools.programs,
    findings_host.clock,
    findings_tools.registries,
    findings_host.first_start,
)


def judge(seen: Seen, wants: Wants, refusals: Sequence[Refusal] = ()) -> tuple[Finding, ...]:
    """Return every finding, in the order in which a host is prepared.

    `refusals` are what a plan of the given manifests would say; what a finding explains better is not said twice.
    """
    found = [one for judge_ in _JUDGES for one in judge_(seen, wants)]
    explained = {at for one in found if one.state == "missing" for at in one.at}
    more = (
        Finding(one.at.key, "missing", one.message, "", True, Remedy(words=one.hint), (one.at,))
        for one in refusals
        if one.at not in explained
    )
    return (*found, *more)
