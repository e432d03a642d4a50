"""The whole of it: an inventory, what the hosts said, and the secrets → what each host gets, or every problem."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from vagus_controller.config import Http
from vagus_inventory import secrets, settings
from vagus_inventory.fleet import Fleet, Host


def tunnels(fleet: Fleet) -> list[str]:
    """The nodes whose backup is ours."""
    return [node.name for node in fleet.nodes if node.host["backup_manage"]]


def certificate_hosts(fleet: Fleet) -> list[str] | None:
    """What the broker's certificate must be for; None when there is none to make."""
    wanted = [settings.broker_hosts(fleet, host) for host in fleet.brokers]
    return next((hosts for hosts in wanted if hosts is not None), None)


def host_plan(fleet: Fleet, host: Host, kept: Mapping[str, Any], given_ca: str) -> dict[str, Any]:
    """All that the roles need to know of one host. `kept`: the whole secrets; `given_ca`: the authority, if given."""
    plan: dict[str, Any] = {"fleet": fleet.name, "vars": dict(host.values), "parts": _parts(fleet, host)}
    plan["ca"] = given_ca or kept.get("ca", {}).get("certificate", "")
    node = fleet.node_on(host.name)
    if node is not None:
        plan["node"] = {
            "name": node.name,
            "addresses": [f"{address}/{address.max_prefixlen}" for address in node.addresses],
            "prefixes": [str(prefix) for prefix in node.prefixes],
            "toml": settings.toml(settings.agent(fleet, node)),
            "keys": settings.toml(secrets.node_keys(kept, node.name)),
            "password": kept["passwords"][node.name],
        }
        if host["backup_manage"]:
            plan["tunnel"] = settings.tunnel(fleet, node, kept)
    if host.name in fleet.controllers:
        told = settings.controller(fleet, host)
        listens = msgspec.convert({k: v for k, v in told["http"].items() if k in ("host", "port", "token_file")}, Http)
        plan["controller"] = {
            "name": fleet.controllers[host.name],
            "toml": settings.toml(told),
            "url": _url(listens),
            "token_file": listens.token_file,
            "fleet_key": kept["fleet_key"] + "\n",
            "password": kept["passwords"][secrets.CONTROLLER],
            "operator_password": kept["operator_password"],
        }
    if host in fleet.brokers:
        users = settings.users(fleet)
        plan["broker"] = {
            "passwords": "".join(secrets.password_line(user, kept["passwords"][user]) + "\n" for user in sorted(users)),
            "home_assistant": secrets.HOME_ASSISTANT in users,
            **{name: kept.get("broker", {}).get(name, "") for name in ("certificate", "key")},
        }
    return plan


def _parts(fleet: Fleet, host: Host) -> list[str]:
    """What of the release the host needs."""
    parts = []
    if fleet.node_on(host.name) is not None:
        parts += ["agent", *(["etcd"] if "etcd" in host["agent_settings"] else [])]
    if host.name in fleet.controllers:
        http = host["controller_settings"].get("http", {})
        parts += ["controller", *(["oidc"] if isinstance(http, Mapping) and "oidc" in http else [])]
    return parts


def _url(http: Http) -> str:
    """Where the controller's API is, from its own machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(http.host, http.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{http.port}"
