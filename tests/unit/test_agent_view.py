"""What the agent of a node is set to do, as the controller tells it."""

from __future__ import annotations

import pytest

from unit.fleet_builders import config
from vagus_controller.core.fleet import Fleet
from vagus_controller.core.picture import agent_view
from vagus_protocol.messages import Observed, ObservedState, PathOffer, PeerOffer, Presence, Verification

BORN = Presence(
    v=1,
    node="a",
    session="s",
    online=True,
    boot_id="boot-1",
    version="0.4.0",
    paths=(PathOffer(name="overlay"), PathOffer(name="lte", metered=True, idle_interval_s=5.0)),
    peers=(PeerOffer(name="b", addresses=("10.70.0.2",), paths=("overlay", "lte"), prefixes=("192.168.4.0/24",)),),
    reflex="always",
    automatic=False,
    etcd_member=True,
)


def heard(*said: Presence | Observed) -> Fleet:
    fleet = Fleet(config())
    for message in said:
        if isinstance(message, Presence):
            fleet.on_presence(message, 1.0)
        else:
            fleet.on_observed(message, 2.0)
    return fleet


def test_it_tells_what_the_agent_was_born_with() -> None:
    told = agent_view(heard(BORN), "a")
    assert (told.boot_id, told.version, told.reflex) == ("boot-1", "0.4.0", "always")
    assert not told.automatic
    assert told.etcd_member
    assert [(path.name, path.metered, path.idle_interval_s) for path in told.paths] == [
        ("overlay", False, 0.2),
        ("lte", True, 5.0),
    ]
    (peer,) = told.peers
    assert (peer.name, peer.addresses, peer.prefixes, peer.paths) == (
        "b",
        ("10.70.0.2",),
        ("192.168.4.0/24",),
        ("overlay", "lte"),
    )
    assert told.steering is None


def test_it_tells_what_became_of_the_assignments() -> None:
    trial = Verification(path="lte", epoch=2, generation=5, state="failed", reason="no packet came back")
    said = Observed(
        v=1,
        node="a",
        session="s",
        epoch=2,
        generation=4,
        state=ObservedState.REFUSED,
        reason="an older generation",
        reflex={"b": "lte"},
        verifications={"b": trial},
    )
    told = agent_view(heard(BORN, said), "a").steering
    assert told is not None
    assert (told.state, told.reason, told.reflex, told.trials) == (
        "refused",
        "an older generation",
        {"b": "lte"},
        {"b": trial},
    )


def test_a_node_that_said_nothing_of_itself_is_told_as_such() -> None:
    fleet = Fleet(config(nodes=("a",)))
    told = agent_view(fleet, "a")
    assert (told.version, told.reflex, told.paths, told.peers, told.steering) == ("", "", (), (), None)
    with pytest.raises(KeyError):
        agent_view(fleet, "b")
