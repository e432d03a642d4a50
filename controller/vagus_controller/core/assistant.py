"""What Home Assistant is told: its MQTT discovery, and states. Everything that should be retained, topic by topic.

Discovery (Home Assistant's documentation, "MQTT discovery"): PREFIX/COMPONENT/vagus_FLEET/OBJECT/config. States are one
JSON object of the fleet, of each node and of each pair, beside the fleet's other topics. All are unavailable unless the
controller that wrote them is there and leads: its presence, which is its last will too, says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from vagus_controller.views import FleetView, NodeView, PairView, Severity
from vagus_protocol import topics

# A home has no more; beyond it, pairs are left out.
MAX_PAIRS: Final = 500
_LEADS: Final = "{{ 'online' if value_json.online and value_json.leader else 'offline' }}"
_SEVERITIES: Final = [each.value for each in Severity]
_QUORUM: Final = ["none", "healthy", "at-risk", "churning", "lost", "unknown"]


def filters(fleet: str, prefix: str) -> tuple[tuple[str, int], ...]:
    """The topics that are ours alone, as (filter, QoS)."""
    return ((f"{prefix}/+/{_own(fleet)}/+/config", 1), (topics.assistant(fleet, "#"), 1))


def owns(fleet: str, prefix: str, topic: str) -> bool:
    if topic.startswith(topics.assistant(fleet, "")):
        return True
    parts = topic.removeprefix(f"{prefix}/").split("/")
    return topic.startswith(f"{prefix}/") and len(parts) == 4 and parts[1] == _own(fleet) and parts[3] == "config"


def retained(view: FleetView, prefix: str) -> dict[str, bytes]:
    """Topic → payload of everything that Home Assistant should find."""
    return {topic: msgspec.json.encode(payload) for topic, payload in _messages(view, prefix)}


def _messages(view: FleetView, prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    own, state = _own(view.fleet), topics.assistant(view.fleet, "fleet")

    def config(component: str, thing: str, device: dict[str, Any], state: str, **more: Any) -> tuple[str, Any]:
        topic = f"{prefix}/{component}/{own}/{thing}/config"
        return topic, {
            "unique_id": f"{own}_{thing}",
            "state_topic": state,
            "availability_topic": topics.controller(view.fleet, view.controller),
            "availability_template": _LEADS,
            "device": device,
            "origin": {"name": "vagus", "sw_version": view.version},
            **more,
        }

    device = {"identifiers": [own], "name": f"vagus {view.fleet}", "manufacturer": "vagus", "sw_version": view.version}
    yield state, _fleet_state(view)
    yield config(
        *("sensor", "health", device, state),
        name="Health",
        device_class="enum",
        options=_SEVERITIES,
        value_template="{{ value_json.severity }}",
        json_attributes_topic=state,
        json_attributes_template="{{ {'summary': value_json.summary} | tojson }}",
    )
    yield config(
        *("binary_sensor", "problem", device, state),
        name="Problem",
        device_class="problem",
        value_template="{{ 'ON' if value_json.severity in ('warning', 'critical') else 'OFF' }}",
    )
    yield config(
        *("sensor", "quorum", device, state),
        name="etcd quorum",
        device_class="enum",
        options=_QUORUM,
        value_template="{{ value_json.quorum }}",
        json_attributes_topic=state,
        json_attributes_template="{{ {'reason': value_json.quorum_reason, 'margin': value_json.margin} | tojson }}",
    )
    for node in view.nodes:
        thing, state = f"node_{_id(node.name)}", topics.assistant(view.fleet, f"nodes/{node.name}")
        its = {"identifiers": [f"{own}_{thing}"], "name": node.name, "manufacturer": "vagus", "via_device": own}
        yield state, _node_state(node)
        yield config(
            *("binary_sensor", f"{thing}_online", its, state),
            name="Online",
            device_class="connectivity",
            value_template="{{ 'ON' if value_json.online else 'OFF' }}",
        )
        yield config(
            *("sensor", f"{thing}_load", its, state),
            name="Load per core",
            state_class="measurement",
            suggested_display_precision=1,
            value_template="{{ value_json.load }}",
        )
    for pair in view.pairs if len(view.pairs) <= MAX_PAIRS else ():
        state = topics.assistant(view.fleet, f"pairs/{pair.name}")
        yield state, _pair_state(pair)
        yield config(
            *("sensor", f"pair_{_id(pair.name)}", device, state),
            name=f"{pair.nodes[0]} – {pair.nodes[1]}",
            value_template="{{ value_json.path }}",
            json_attributes_topic=state,
            json_attributes_template="{{ {'status': value_json.status, 'reason': value_json.reason} | tojson }}",
        )


def _fleet_state(view: FleetView) -> dict[str, Any]:
    return {
        "severity": view.severity,
        "summary": view.summary,
        "quorum": view.quorum.verdict.state,
        "quorum_reason": view.quorum.verdict.reason,
        "margin": view.quorum.margin,
    }


def _node_state(node: NodeView) -> dict[str, Any]:
    """A load that has not changed by a tenth is no news. null: unknown."""
    system = node.report.system if node.report is not None and node.online else None
    return {"online": node.online, "load": round(system.load1 / system.cores, 1) if system is not None else None}


def _pair_state(pair: PairView) -> dict[str, Any]:
    """`path`: what the kernels of both ends do; until they agree, what is wanted."""
    path = pair.observed[0] if pair.observed[0] == pair.observed[1] and pair.observed[0] else pair.assigned
    return {"path": path, "status": pair.status, "reason": pair.reason}


def _own(fleet: str) -> str:
    return f"vagus_{_id(fleet)}"


def _id(name: str) -> str:
    """Home Assistant takes letters, digits, _ and - in a topic; two names never become one."""
    return name.replace("_", "__").replace(".", "_d")
