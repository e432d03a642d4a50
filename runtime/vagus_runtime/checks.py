"""Checks of what both configurations have: names, hosts, ports, absolute paths, the `[mqtt]` table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address
from typing import Final, Protocol, TypeVar

from vagus_protocol.topics import NAME_RULE, is_name
from vagus_runtime.settings import Say, show, unreadable, within

T = TypeVar("T")

PORT: Final = (1, 65535)
MQTT_FILES: Final = ("password_file", "ca_file", "cert_file", "key_file")


class Broker(Protocol):
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def tls(self) -> bool: ...


class Mqtt(Protocol):
    @property
    def brokers(self) -> Sequence[Broker]: ...
    @property
    def username(self) -> str: ...
    @property
    def password_file(self) -> str: ...
    @property
    def ca_file(self) -> str: ...
    @property
    def cert_file(self) -> str: ...
    @property
    def key_file(self) -> str: ...


def check_name(name: str, key: str, say: Say) -> None:
    if not is_name(name):
        say(key, f"{show(name)} is not a name: {NAME_RULE}")


def check_absolute(path: str, key: str, say: Say) -> None:
    """A file named in the settings: absolute, since a service's working directory is nobody's expectation."""
    if path and not path.startswith("/"):
        say(key, f"must be an absolute path, not {show(path)}")


def check_readable(path: str, key: str, say: Say) -> None:
    if not path:
        return
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        say(key, f"{path}: {unreadable(error)}")


def check_host(host: str, key: str, say: Say) -> None:
    if not _is_host(host):
        say(key, f"{show(host)} must be an address or a host name, without scheme, user, port or [ ]")


def check_host_port(text: str, key: str, say: Say) -> None:
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    sound = colon and (":" in host) == bracketed and _is_host(host[1:-1] if bracketed else host)
    if not (sound and port.isascii() and port.isdigit() and len(port) <= 5 and PORT[0] <= int(port) <= PORT[1]):
        say(key, f'{show(text)} must be "host:port", an IPv6 address in [ ], without scheme')


def _is_host(text: str) -> bool:
    """An address, or what may be a name: what ends in a number is no name, but an IPv4 address (RFC 3696)."""
    try:
        ip_address(text)
    except ValueError:
        forbidden = any(c in "/@:[]%" or c.isspace() for c in text)
        return 0 < len(text) < 254 and text.isprintable() and not forbidden and not text.rpartition(".")[2].isdecimal()
    return True


def check_broker(broker: Broker, say: Say) -> None:
    check_host(broker.host, "host", say)
    within({"port": PORT})(broker, say)


def check_mqtt(mqtt: Mqtt, say: Say) -> None:
    if not mqtt.brokers:
        say("brokers", "must hold at least one table [[mqtt.brokers]]")
    for host, port in twice((broker.host, broker.port) for broker in mqtt.brokers):
        say("brokers", f"{host} port {port} is named twice")
    if not mqtt.username.isprintable():
        say("username", f"must be printable characters, not {show(mqtt.username)}")
    if mqtt.password_file and not mqtt.username:
        say("username", "is missing: password_file is set")
    check_certificate_pair(mqtt.cert_file, mqtt.key_file, say)
    if (mqtt.ca_file or mqtt.cert_file) and not any(broker.tls for broker in mqtt.brokers):
        say("brokers", "none has tls = true, and certificates are set: the password would travel in the clear")
    for key in MQTT_FILES:
        check_absolute(getattr(mqtt, key), key, say)


def check_certificate_pair(cert_file: str, key_file: str, say: Say) -> None:
    if bool(cert_file) != bool(key_file):
        say("key_file" if cert_file else "cert_file", "is missing: cert_file and key_file go together")


def twice(items: Iterable[T]) -> Iterator[T]:
    """What is there more than once."""
    return (item for item, count in Counter(items).items() if count > 1)
