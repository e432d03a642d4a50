"""The ladder and its diff, as values and as properties over any table."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from vagus_agent.config import Config, Mqtt, Path, Peer
from vagus_agent.core.ladder import Route, Rule, diff, path_of, wanted, wanted_rules

UP = {"overlay": 3, "backup": 5, "lte": 7}

BERLIN = Peer(
    name="berlin",
    addresses=(ip_address("10.99.0.2"), ip_address("fd99::2")),
    prefixes=(ip_network("192.168.20.0/24"),),
    via={"backup": (ip_address("10.8.0.2"), ip_address("fd08::2"))},
)
OSLO = Peer(name="oslo", addresses=(ip_address("10.99.0.3"),), paths=("overlay", "lte"))


def config(*peers: Peer, addresses: tuple[str, ...] = ("10.99.0.1", "fd99::1")) -> Config:
    return Config(
        fleet="f",
        node="austin",
        addresses=tuple(map(ip_address, addresses)),
        paths=(
            Path(name="overlay", interface="tailscale0"),
            Path(name="backup", interface="wg0"),
            Path(name="lte", interface="wwan0"),
        ),
        mqtt=Mqtt(brokers=()),
        keys_file="/etc/vagus/keys.toml",
        peers=peers,
    )


def lines(routes: frozenset[Route]) -> list[str]:
    return [str(route) for route in sorted(routes, key=lambda r: (r.family, r.destination, r.metric))]


def test_a_peer_has_a_rung_for_every_path_in_order_and_then_unreachable() -> None:
    assert lines(wanted(config(BERLIN), UP, {}).routes) == [
        "10.99.0.2/32 dev tailscale0 metric 100",
        "10.99.0.2/32 via 10.8.0.2 dev wg0 metric 500",
        "10.99.0.2/32 dev wwan0 metric 600",
        "unreachable 10.99.0.2/32 metric 9999",
        "192.168.20.0/24 dev tailscale0 metric 100",
        "192.168.20.0/24 via 10.8.0.2 dev wg0 metric 500",
        "192.168.20.0/24 dev wwan0 metric 600",
        "unreachable 192.168.20.0/24 metric 9999",
        "fd99::2/128 dev tailscale0 metric 100",
        "fd99::2/128 via fd08::2 dev wg0 metric 500",
        "fd99::2/128 dev wwan0 metric 600",
        "unreachable fd99::2/128 metric 9999",
    ]


def test_every_way_through_leaves_from_the_own_service_address_of_its_family() -> None:
    sources = {(r.family, r.kind, r.source) for r in wanted(config(BERLIN), UP, {"berlin": "backup"}).routes}
    assert sources == {
        (4, "unicast", "10.99.0.1"),
        (6, "unicast", "fd99::1"),
        (4, "unreachable", None),
        (6, "unreachable", None),
    }


def test_an_override_adds_one_route_a_destination_and_takes_nothing_away() -> None:
    before = wanted(config(BERLIN, OSLO), UP, {}).routes
    after = wanted(config(BERLIN, OSLO), UP, {"berlin": "backup"}).routes
    assert before < after
    assert lines(after - before) == [
        "10.99.0.2/32 via 10.8.0.2 dev wg0 metric 10",
        "192.168.20.0/24 via 10.8.0.2 dev wg0 metric 10",
        "fd99::2/128 via fd08::2 dev wg0 metric 10",
    ]


def test_being_assigned_the_first_path_is_no_override() -> None:
    assert wanted(config(BERLIN), UP, {"berlin": "overlay"}) == wanted(config(BERLIN), UP, {})


def test_a_peer_takes_only_its_own_paths() -> None:
    assert lines(wanted(config(OSLO), UP, {"oslo": "lte"}).routes) == [
        "10.99.0.3/32 dev wwan0 metric 10",
        "10.99.0.3/32 dev tailscale0 metric 100",
        "10.99.0.3/32 dev wwan0 metric 500",
        "unreachable 10.99.0.3/32 metric 9999",
    ]


def test_a_missing_interface_leaves_its_rungs_out_and_says_so() -> None:
    found = wanted(config(OSLO), {"overlay": None, "lte": None}, {"oslo": "lte"})
    assert lines(found.routes) == ["unreachable 10.99.0.3/32 metric 9999"]
    assert found.missing == (
        "no rung overlay to oslo: interface tailscale0 is missing or down",
        "no rung lte to oslo: interface wwan0 is missing or down",
        "no override lte to oslo: interface wwan0 is missing or down",
    )


def test_a_family_without_an_own_service_address_is_left_alone_and_said() -> None:
    found = wanted(config(BERLIN, addresses=("10.99.0.1",)), UP, {})
    assert {route.family for route in found.routes} == {4}
    assert found.missing == ("fd99::2/128 of berlin is not steered: this node has no such service address",)
    assert {rule.family for rule in wanted_rules(config(addresses=("10.99.0.1",)), (4, 6))} == {4}


def test_what_the_configuration_does_not_offer_routes_nothing() -> None:
    found = wanted(config(OSLO), UP, {"oslo": "backup", "evil": "overlay"})
    assert found.routes == wanted(config(OSLO), UP, {}).routes
    assert found.missing == (
        "evil is not a peer of this node",
        "there is no path backup to oslo in the configuration",
    )


def test_the_rule_skips_marked_packets() -> None:
    assert wanted_rules(config(), (4,)) == {
        Rule(4, 5180, 5180, mark=0x80000, mask=0xFF0000, inverted=True, protocol=118)
    }
    assert [str(rule) for rule in wanted_rules(config(), (6,))] == [
        "IPv6 rule 5180: not from all fwmark 0x80000/0xff0000 lookup 5180"
    ]


def test_a_lookup_is_named_by_its_device_and_gateway() -> None:
    assert path_of(config(), BERLIN, 4, "tailscale0", None) == "overlay"
    assert path_of(config(), BERLIN, 4, "wg0", "10.8.0.2") == "backup"
    assert path_of(config(), BERLIN, 4, "wg0", None) == ""
    assert path_of(config(), OSLO, 4, "wg0", None) == ""
    assert path_of(config(), OSLO, 4, None, None) == ""


# --- properties: tables of few destinations and metrics, so that they collide ---------------------------------------

DESTINATIONS = ("10.99.0.2/32", "10.99.0.3/32", "fd99::2/128")

routes = st.builds(
    lambda destination, metric, device: Route(
        family=6 if ":" in destination else 4,
        destination=destination,
        metric=metric,
        kind="unicast" if device else "unreachable",
        device=device,
    ),
    st.sampled_from(DESTINATIONS),
    st.sampled_from((10, 50, 100, 500, 9999)),
    st.sampled_from(("tailscale0", "wg0", None)),
)
# What a kernel can hold: one route a key.
tables = st.lists(routes, unique_by=lambda route: route.key).map(frozenset)
ladders = st.builds(
    lambda interfaces, overrides: wanted(config(BERLIN, OSLO), interfaces, overrides).routes,
    st.fixed_dictionaries({path: st.sampled_from((None, 3)) for path in UP}),
    st.dictionaries(st.sampled_from(("berlin", "oslo")), st.sampled_from(tuple(UP))),
)


def steps(goal: frozenset[Route], table: frozenset[Route]) -> list[frozenset[Route]]:
    """The table before, after every single write, and at the end, as the kernel would do them."""
    add, remove = diff(goal, table)
    states = [table]
    for route in add:
        states.append(frozenset(other for other in states[-1] if other.key != route.key) | {route})
    for route in remove:
        assert route in states[-1]
        states.append(states[-1] - {route})
    return states


def usable(table: frozenset[Route], destination: str) -> bool:
    rungs = [route for route in table if route.destination == destination]
    return bool(rungs) and min(rungs, key=lambda route: route.metric).kind == "unicast"


@given(tables | ladders, tables | ladders)
def test_diff_then_apply_gives_what_is_wanted_and_twice_is_nothing(
    goal: frozenset[Route], table: frozenset[Route]
) -> None:
    assert steps(goal, table)[-1] == goal
    assert diff(goal, goal) == ([], [])


@given(tables | ladders, tables | ladders)
def test_who_has_a_way_before_and_after_has_one_after_every_write(
    goal: frozenset[Route], table: frozenset[Route]
) -> None:
    for destination in (*DESTINATIONS, "192.168.20.0/24"):
        if usable(table, destination) and usable(goal, destination):
            assert all(usable(state, destination) for state in steps(goal, table))


@given(ladders, ladders)
def test_from_ladder_to_ladder_nothing_ever_leaks_to_the_default_route(
    goal: frozenset[Route], table: frozenset[Route]
) -> None:
    destinations = {route.destination for route in table}
    for state in steps(goal, table):
        assert {route.destination for route in state} == destinations


@given(tables, tables)
def test_only_what_stands_and_is_not_wanted_is_removed(goal: frozenset[Route], table: frozenset[Route]) -> None:
    add, remove = diff(goal, table)
    assert set(remove) <= table - goal
    assert set(add) == goal - table
