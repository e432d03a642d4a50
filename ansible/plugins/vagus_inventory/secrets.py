"""The fleet's secrets: what there must be, what is missing, and what follows from them.

The file holds, by name: `fleet_key` (64 hex digits), `passwords` (broker's user → password), `operator_password`,
`wireguard` (node → private key), `ca` and `broker` (key and certificate in PEM), and while keys are being changed
`next`: the `fleet_key` and `passwords` that come into force when every host has them.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from vagus_inventory import certificates
from vagus_protocol import signing
from vagus_protocol.codec import Rejected

Random = Callable[[int], bytes]
Secrets = dict[str, Any]

CONTROLLER: Final = "controller"
HOME_ASSISTANT: Final = "homeassistant"
_KNOWN: Final = ("fleet_key", "passwords", "operator_password", "wireguard", "ca", "broker", "next")
# mosquitto's own, of its `$7$` lines: PBKDF2 with SHA-512. Its passwords here are 144 random bits: no guess is near.
_ROUNDS: Final = 101


def mistakes(secrets: Mapping[str, Any]) -> list[str]:
    """What cannot be used of a secrets file, without showing any of it."""
    found = [f"{key}: there is no such secret; known are {', '.join(_KNOWN)}" for key in secrets if key not in _KNOWN]
    for where, table in (("", secrets), ("next.", secrets.get("next", {}))):
        if not isinstance(table, Mapping):
            found.append(f"{where.rstrip('.')}: must be a table")
            continue
        if "fleet_key" in table and isinstance(key := signing.parse_key(str(table["fleet_key"])), Rejected):
            found.append(f"{where}fleet_key: {key.reason}")
        passwords = table.get("passwords", {})
        if not isinstance(passwords, Mapping):
            found.append(f"{where}passwords: must be a table of user: password")
        else:
            found += [f"{where}passwords.{user}: is empty" for user, password in passwords.items() if not password]
    tunnels = secrets.get("wireguard", {})
    if not isinstance(tunnels, Mapping):
        found.append("wireguard: must be a table of node: key")
        tunnels = {}
    for node, key in tunnels.items():
        try:
            public_key(str(key))
        except ValueError:
            found.append(f"wireguard.{node}: is not a WireGuard key; take the line out, and a new one is made")
    for name in ("ca", "broker"):
        pair = secrets.get(name)
        if name in secrets and not (isinstance(pair, Mapping) and {"key", "certificate"} <= set(pair)):
            found.append(f"{name}: must hold key and certificate")
    return found


def completed(
    secrets: Mapping[str, Any],
    *,
    users: Iterable[str],
    tunnels: Iterable[str],
    hosts: Sequence[str] | None,
    random: Random,
) -> tuple[Secrets, list[str]]:
    """`secrets` with all that is missing, and what was added or renewed, in words. `hosts`: the names and addresses
    that the broker's certificate must carry; None: it is given. Nothing else that is there is ever changed."""
    whole = copy.deepcopy(dict(secrets))
    made = _add_keys(whole, users, random)
    if "operator_password" not in whole:
        whole["operator_password"] = _password(random)
        made.append("operator's password for the page")
    keys = whole.setdefault("wireguard", {})
    for node in tunnels:
        if node not in keys:
            keys[node] = base64.b64encode(random(32)).decode()
            made.append(f"WireGuard key of {node}")
    if hosts is not None:
        if "ca" not in whole:
            whole["ca"] = certificates.authority()
            made.append("the broker's authority")
            whole.pop("broker", None)
        if "broker" not in whole or certificates.hosts_of(whole["broker"]["certificate"]) != certificates.sorted_hosts(
            hosts
        ):
            whole["broker"] = certificates.server(whole["ca"], hosts)
            made.append(f"certificate of the broker for {', '.join(certificates.sorted_hosts(hosts))}")
    return whole, made


def staged(secrets: Mapping[str, Any], users: Iterable[str], random: Random) -> tuple[Secrets, list[str]]:
    """`secrets` with new keys to come under `next`. Those of a change that was interrupted are kept: it goes on."""
    whole = copy.deepcopy(dict(secrets))
    made = _add_keys(whole.setdefault("next", {}), users, random)
    return whole, [f"next {what}" for what in made]


def with_next(secrets: Mapping[str, Any], what: Sequence[str]) -> Secrets:
    """The secrets as they are once `what` ("passwords", "fleet_key") of `next` is in force."""
    whole = copy.deepcopy(dict(secrets))
    coming = whole.get("next", {})
    for name in what:
        value = coming.pop(name, None)
        whole[name] = whole.get(name, {}) | value if isinstance(value, dict) else value or whole[name]
    if not coming:
        whole.pop("next", None)
    return whole


def node_keys(secrets: Mapping[str, Any], node: str) -> dict[str, str]:
    """What `vagus-controller node-keys` prints for `node`."""
    fleet = bytes.fromhex(secrets["fleet_key"])
    return {"node": signing.node_key(fleet, node).hex(), "probe": signing.probe_key(fleet).hex()}


def public_key(private: str) -> str:
    key = X25519PrivateKey.from_private_bytes(base64.b64decode(private, validate=True))
    return base64.b64encode(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


def password_line(user: str, password: str) -> str:
    """mosquitto's line for a user. The salt follows from the password, so that the same secrets make the same file."""
    salt = hmac.digest(password.encode(), b"vagus/1/salt\0" + user.encode(), hashlib.sha256)[:12]
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ROUNDS)
    return f"{user}:$7${_ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def _add_keys(table: Secrets, users: Iterable[str], random: Random) -> list[str]:
    """Fleet key and passwords where there are none yet; what was added, in words."""
    made = []
    if "fleet_key" not in table:
        table["fleet_key"] = random(signing.KEY_BYTES).hex()
        made.append("fleet key")
    passwords = table.setdefault("passwords", {})
    for user in users:
        if user not in passwords:
            passwords[user] = _password(random)
            made.append(f"password of {user}")
    return made


def _password(random: Random) -> str:
    return base64.urlsafe_b64encode(random(18)).decode()
