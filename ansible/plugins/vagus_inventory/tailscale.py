"""What Tailscale must do for a node (its service addresses carried, those of others accepted), and does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from typing import Any, Final

# tailscale's preftype.NetfilterMode.
_NETFILTER_ON: Final = 2
_LIFTED: Final = "disable-linux-cgnat-drop-rule"
_OWN: Final = (ip_network("100.64.0.0/10"), ip_network("fd7a:115c:a1e0::/48"))


def judge(
    prefs: Mapping[str, Any], status: Mapping[str, Any], addresses: Sequence[str], prefixes: Sequence[str]
) -> dict[str, list[str]]:
    """`prefs`: of `tailscale debug prefs`; `status`: of `tailscale status --json`. `set`: arguments of `tailscale set`
    that put right what this machine can; `missing`: the same in words; `person`: what only a person can do."""
    state = status.get("BackendState", "")
    if state != "Running":
        words = {"NeedsLogin": "is not logged in: tailscale up", "Stopped": "is stopped: tailscale up"}
        what = words.get(state, f"does not run: it says {state or 'nothing'}; systemctl status tailscaled")
        return {"set": [], "missing": [], "person": [f"Tailscale {what}"]}
    own = [address for address in addresses if _is_tailscales(address)]
    wanted = [ip_network(text) for text in (*addresses, *prefixes) if text not in own]
    advertised = [ip_network(text) for text in prefs.get("AdvertiseRoutes") or ()]
    arguments, missing, person = [], [], []
    if lacking := [network for network in wanted if network not in advertised]:
        routes = ",".join(str(network) for network in (*advertised, *lacking))
        arguments.append(f"--advertise-routes={routes}")
        missing.append(f"it does not advertise {_listed(lacking)}")
    if not prefs.get("RouteAll"):
        arguments.append("--accept-routes=true")
        missing.append("it does not accept the routes that other nodes advertise")
    # Since 1.98 a node attribute lifts the drop more gently; whether it is set shows in the node's capabilities.
    lifted = _LIFTED in ((status.get("Self") or {}).get("CapMap") or {})
    dropping = not lifted and prefs.get("NetfilterMode", _NETFILTER_ON) == _NETFILTER_ON
    if dropping and any(":" not in address for address in own):
        arguments.append("--netfilter-mode=nodivert")
        missing.append(
            f"its firewall drops 100.64.0.0/10 on the backup; gentler than --netfilter-mode is the node attribute "
            f"{_LIFTED} in the tailnet policy (Tailscale 1.98)"
        )
    approved = {ip_network(text) for text in (status.get("Self") or {}).get("AllowedIPs") or ()}
    if waiting := [network for network in wanted if network in advertised and network not in approved]:
        person.append(
            f"approve {_listed(waiting)}: in the admin console under Machines, this machine, Edit route settings; with "
            f"headscale, `headscale nodes approve-routes --identifier ID --routes {','.join(map(str, waiting))}`; or "
            "once for all by autoApprovers in the policy"
        )
    elif lacking:
        person.append(
            f"once it is advertised, approve {_listed(lacking)} in the admin console, in headscale, or by "
            "autoApprovers in the policy"
        )
    return {"set": arguments, "missing": missing, "person": person}


def without(prefs: Mapping[str, Any], addresses: Sequence[str], prefixes: Sequence[str]) -> str:
    """The argument of `tailscale set` that no longer advertises what is the fleet's; "" when it does not."""
    gone = {ip_network(text) for text in (*addresses, *prefixes)}
    advertised = [ip_network(text) for text in prefs.get("AdvertiseRoutes") or ()]
    if not gone & set(advertised):
        return ""
    return f"--advertise-routes={','.join(str(network) for network in advertised if network not in gone)}"


def _is_tailscales(address: str) -> bool:
    network = ip_network(address)
    return any(network.version == own.version and network.subnet_of(own) for own in _OWN)  # type: ignore[arg-type]


def _listed(networks: Sequence[Any]) -> str:
    return ", ".join(map(str, networks))
