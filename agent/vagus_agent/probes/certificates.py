"""What a TLS server's certificate says: until when it is valid, and whether it names our service address.

Nobody's word is needed for that: the certificate is fetched unverified, and then read by a second handshake that trusts
just this one, since Python tells a certificate's fields only of one that is trusted.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final

from vagus_protocol.messages import Certificate

# OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which Python has no name for: one that has expired shall be read too.
_NO_CHECK_TIME: Final = 0x200000


def read(
    host: str, port: int, wanted: Sequence[str], own: tuple[str, str] | None, timeout_s: float
) -> Certificate | None:
    """The certificate of host:port; None when there is none to be had. `wanted`: it must name one of these addresses,
    or `host` when that is a name; empty: none. `own`: our certificate and key, for a server that asks for one."""
    try:
        with _connect(host, port, None, own, timeout_s) as first:
            der = first.getpeercert(binary_form=True)
        if not der:
            return None
        with _connect(host, port, der, own, timeout_s) as second:
            fields = second.getpeercert()
    except (OSError, ValueError):
        return None
    if not fields:
        return None
    expires: Any = fields.get("notAfter")
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return Certificate(
        where=where,
        expires_s=ssl.cert_time_to_seconds(expires) - time.time() if isinstance(expires, str) else None,
        missing=missing(fields.get("subjectAltName", ()), host, wanted),
    )


def missing(names: Iterable[Any], host: str, wanted: Sequence[str]) -> str:
    """The first of `wanted` when the certificate's alternative `names`, as Python gives them, have none of these, nor
    `host`; "" when they do."""
    addresses: set[IPv4Address | IPv6Address] = set()
    for kind, name in names:
        if kind == "DNS" and name.lower() == host.lower():
            return ""
        if kind == "IP Address":
            with suppress(ValueError):
                addresses.add(ip_address(name.strip()))
    return "" if not wanted or any(ip_address(each) in addresses for each in wanted) else wanted[0]


def _connect(
    host: str, port: int, trusted: bytes | None, own: tuple[str, str] | None, timeout_s: float
) -> ssl.SSLSocket:
    """`trusted`: the one certificate that is; None: any."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if trusted is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags = ssl.VerifyFlags(ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME)
        context.load_verify_locations(cadata=trusted)
    if own is not None:
        context.load_cert_chain(*own)
    with socket.create_connection((host, port), timeout_s) as plain:
        # It takes the plain one's place.
        return context.wrap_socket(plain, server_hostname=host)
