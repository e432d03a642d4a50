"""What playbooks make of Tailscale's and the controller's answers."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from unit.inventory_samples import sound
from vagus_inventory import calm, hosts, reload, settings, tailscale

RUNNING = {"BackendState": "Running", "Self": {"AllowedIPs": ["100.64.0.1/32", "10.99.0.1/32"]}}
GOOD = {"AdvertiseRoutes": ["10.99.0.1/32"], "RouteAll": True, "NetfilterMode": 2}
OWN = ["10.99.0.1/32"]
NOTHING: dict[str, list[str]] = {"set": [], "missing": [], "person": []}


def test_nothing_is_said_of_a_tailscale_that_does_all() -> None:
    assert tailscale.judge(GOOD, RUNNING, OWN, []) == NOTHING


def test_what_others_advertise_stays_when_ours_is_added() -> None:
    told = tailscale.judge(GOOD | {"AdvertiseRoutes": ["192.168.1.0/24"]}, RUNNING, OWN, ["192.168.30.0/24"])
    assert told["set"] == ["--advertise-routes=192.168.1.0/24,10.99.0.1/32,192.168.30.0/24"]
    assert "approve 10.99.0.1/32, 192.168.30.0/24" in told["person"][0]


def test_routes_of_others_must_be_accepted() -> None:
    assert tailscale.judge(GOOD | {"RouteAll": False}, RUNNING, OWN, [])["set"] == ["--accept-routes=true"]


def test_what_is_not_approved_is_a_persons_to_do() -> None:
    told = tailscale.judge(GOOD, {"BackendState": "Running", "Self": {"AllowedIPs": ["100.64.0.1/32"]}}, OWN, [])
    assert told["set"] == []
    assert told["person"][0].startswith("approve 10.99.0.1/32: in the admin console under Machines")
    assert "headscale" in told["person"][0]


def test_a_service_address_of_tailscales_own_needs_no_route_but_its_firewall_lifted() -> None:
    told = tailscale.judge(GOOD, RUNNING, ["100.64.0.1/32", "fd7a:115c:a1e0::1/128"], [])
    assert told["set"] == ["--netfilter-mode=nodivert"]
    lifted = {"BackendState": "Running", "Self": {"CapMap": {"disable-linux-cgnat-drop-rule": None}}}
    assert tailscale.judge(GOOD, lifted, ["100.64.0.1/32"], []) == NOTHING
    assert tailscale.judge(GOOD | {"NetfilterMode": 1}, RUNNING, ["100.64.0.1/32"], []) == NOTHING


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ("NeedsLogin", "Tailscale is not logged in: tailscale up"),
        ("Stopped", "Tailscale is stopped: tailscale up"),
        ("", "Tailscale does not run: it says nothing; systemctl status tailscaled"),
    ],
)
def test_nothing_is_set_on_a_tailscale_that_does_not_run(state: str, told: str) -> None:
    assert tailscale.judge({}, {"BackendState": state}, OWN, []) == NOTHING | {"person": [told]}


def test_uninstall_withdraws_what_is_ours_alone() -> None:
    prefs = {"AdvertiseRoutes": ["192.168.1.0/24", "10.99.0.1/32"]}
    assert tailscale.without(prefs, OWN, []) == "--advertise-routes=192.168.1.0/24"
    assert tailscale.without({"AdvertiseRoutes": OWN}, OWN, []) == "--advertise-routes="
    assert tailscale.without({"AdvertiseRoutes": None}, OWN, []) == ""


# --- the controller --------------------------------------------------------------------------------------------------


def node(name: str, **changes: Any) -> dict[str, Any]:
    liveness = {"state": "fresh", "reason": "reports"}
    return {"name": name, "online": True, "liveness": liveness, "report": {}} | changes


def test_who_does_not_report_is_told() -> None:
    silent = node("berlin", liveness={"state": "silent", "reason": "for 12 s"})
    assert calm.silent([node("tokyo"), silent], ["tokyo", "austin", "berlin"]) == [
        "austin has not been heard of",
        "berlin is silent: for 12 s",
    ]


def pair(**changes: Any) -> dict[str, Any]:
    paths = [{"path": "overlay"}, {"path": "backup"}]
    own = {"name": "austin--tokyo", "status": "settled", "assigned": "overlay", "reason": "it works", "paths": paths}
    return own | changes


@pytest.mark.parametrize(
    ("fleet", "plans", "told"),
    [
        ({}, [], []),
        ({"pauses": [{"reason": "works"}]}, [], ["a pause is in force (works) and would be forgotten"]),
        (
            {},
            [{"state": "under way", "what": "all home"}, {"state": "done", "what": "x"}],
            ["a plan is under way: all home"],
        ),
        ({"pairs": [pair(assigned="backup")]}, [], ["austin--tokyo is settled on backup: it works"]),
        ({"pairs": [pair(status="moving")]}, [], ["austin--tokyo is moving on overlay: it works"]),
        ({"nodes": [node("tokyo", online=False)]}, [], ["tokyo is fresh: reports"]),
    ],
)
def test_keys_are_changed_in_a_calm_fleet_only(fleet: dict[str, Any], plans: list[Any], told: list[str]) -> None:
    whole = {"nodes": [node("tokyo")], "pauses": [], "pairs": [pair()]} | fleet
    assert calm.hindrances(whole, plans) == told


# --- the host --------------------------------------------------------------------------------------------------------


def test_an_interface_is_compared_with_the_inventory() -> None:
    shown = {
        "stdout": '[{"mtu": 1420, "addr_info": [{"local": "10.88.0.1", "prefixlen": 24, "scope": "global"}, '
        '{"local": "fe80::1", "prefixlen": 64, "scope": "link"}]}]'
    }
    assert hosts.has_addresses(shown, ["10.88.0.1/24"], 1420)
    assert not hosts.has_addresses(shown, ["10.88.0.2/24"], 1420)
    assert not hosts.has_addresses(shown, ["10.88.0.1/24"], 1280)


def _agent(**changes: Any) -> str:
    fleet = sound({"tokyo": changes})
    tokyo = next(node for node in fleet.nodes if node.name == "tokyo")
    return settings.toml(settings.agent(fleet, tokyo))


def _controller(**changes: Any) -> str:
    fleet = sound({"vps": changes})
    return settings.toml(settings.controller(fleet, fleet.hosts["vps"]))


def _slurped(text: str) -> dict[str, str]:
    return {"content": base64.b64encode(text.encode()).decode()}


def test_an_agent_is_restarted_only_for_what_a_reload_cannot_do() -> None:
    before = _slurped(_agent())
    assert not reload.needs_restart(before, _agent(vagus_agent_settings={"probe": {"burst": 6}}), "agent")
    assert not reload.needs_restart(before, _agent(vagus_site="Osaka"), "agent")
    assert reload.needs_restart(before, _agent(vagus_agent_settings={"probe": {"port": 5181}}), "agent")
    assert reload.needs_restart({"msg": "file not found"}, _agent(), "agent")
    assert reload.needs_restart(_slurped("nonsense"), _agent(), "agent")


def test_a_controller_is_restarted_only_for_what_a_reload_cannot_do() -> None:
    before = _slurped(_controller())
    live = {"failover": {"mode": "auto"}, "liveness": {"late_intervals": 3.0}}
    assert not reload.needs_restart(before, _controller(vagus_controller_settings=live), "controller")
    assert reload.needs_restart(before, _controller(vagus_controller_settings={"http": {"port": 8119}}), "controller")
    assert reload.needs_restart(before, _controller(vagus_controller_name="brain"), "controller")
