"""The kernel's connection tracking, by netlink. Everything here blocks: in a thread, beside the probes."""

from __future__ import annotations

import errno
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any, Final

from vagus_agent.config import Address
from vagus_agent.core.translations import Translation


class ConntrackError(Exception):
    """What could not be done, and why, in words."""


# linux/netfilter/nf_conntrack_common.h
_IPS_SRC_NAT: Final = 1 << 4
_FAMILIES: Final = ((socket.AF_INET, "CTA_IP_V4"), (socket.AF_INET6, "CTA_IP_V6"))
_REASONS: Final = {
    errno.EPERM: "not permitted: needs CAP_NET_ADMIN",
    # nfnetlink says EINVAL where it has no such subsystem.
    **dict.fromkeys(
        (errno.EINVAL, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT),
        "this kernel has no nf_conntrack_netlink",
    ),
}


def check() -> None:
    """Raises ConntrackError where nothing could be forgotten."""
    with _table(socket.AF_INET) as table:
        table.count()


def forget(whose: Callable[[Translation], str]) -> Counter[str]:
    """Forget the connections with a translated source that are somebody's; whose they were, and how many.

    Raises ConntrackError.
    """
    forgotten: Counter[str] = Counter()
    for family, prefix in _FAMILIES:
        with _table(family) as table:
            # A kernel older than 5.15 does not filter.
            found = [
                (owner, entry)
                for entry in table.dump(status=_IPS_SRC_NAT, status_mask=_IPS_SRC_NAT)
                if entry.get_attr("CTA_STATUS") & _IPS_SRC_NAT and (owner := whose(_translation(entry, prefix)))
            ]
            for owner, entry in found:
                forgotten[owner] += _delete(table, entry)
    return forgotten


def _translation(entry: Any, prefix: str) -> Translation:
    def end(direction: str, which: str) -> Address:
        addresses = entry.get_attr(f"CTA_TUPLE_{direction}").get_attr("CTA_TUPLE_IP")
        return ip_address(addresses.get_attr(f"{prefix}_{which}"))

    return Translation(source=end("ORIG", "SRC"), translated=end("REPLY", "DST"), target=end("REPLY", "SRC"))


def _delete(table: Any, entry: Any) -> int:
    """How many: one that is gone, or was replaced, meanwhile is none of ours any more."""
    from pyroute2.netlink.exceptions import NetlinkError

    zone = entry.get_attr("CTA_ZONE")
    where = {} if zone is None else {"zone": zone}
    try:
        table.entry("del", tuple_orig=entry.get_attr("CTA_TUPLE_ORIG"), id=entry.get_attr("CTA_ID"), **where)
    except NetlinkError as error:
        if error.code != errno.ENOENT:
            raise
        return 0
    return 1


@contextmanager
def _table(family: int) -> Iterator[Any]:
    from pyroute2 import NFCTSocket
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        with NFCTSocket(nfgen_family=family) as table:
            yield table
    except (NetlinkError, OSError) as error:
        code = error.code if isinstance(error, NetlinkError) else error.errno
        raise ConntrackError(_REASONS.get(code or 0, str(error))) from error
