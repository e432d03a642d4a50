"""One suite for the fake kernel and the real one (in a network namespace of its own): the port, and Steering on it."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from ipaddress import ip_address, ip_network
from typing import Any, Protocol

import pytest

from contract.kernel_fake import FakeKernel
from contract.netns import Netns
from vagus_agent.config import Config, Mqtt, Path, Peer
from vagus_agent.config import Steering as Settings
from vagus_agent.core.ladder import Route, Rule, Stray, our_rule, wanted
from vagus_agent.net.netlink import Kernel, Netlink, SteeringError
from vagus_agent.net.steering import Outcome, Steering, clear

SETTINGS = Settings(recheck_s=30.0)
LOG = logging.getLogger("test")
STATIC = 4  # RTPROT_STATIC: what `ip route add` by a person is not, and a foreign daemon is


class Host(Protocol):
    kernel: Kernel

    async def open(self) -> None: ...

    def add_link(self, name: str, addresses: tuple[str, ...] = ()) -> None: ...

    def remove_link(self, name: str) -> None: ...

    def set_link(self, name: str, up: bool) -> None: ...

    def add_address(self, address: str) -> None: ...

    def remove_address(self, address: str) -> None: ...

    def set_strict(self, device: str) -> None: ...

    def put_route(self, route: Route, protocol: int, table: int = 5180) -> None: ...

    def has_route(self, route: Route, table: int) -> bool: ...

    def flush_table(self) -> None: ...

    def put_rule(self, rule: Rule) -> None: ...

    def delete_rules_at(self, priority: int) -> None: ...

    def destroy(self) -> None: ...


class FakeHost(FakeKernel):
    def __init__(self) -> None:
        super().__init__(SETTINGS)
        self.kernel: Kernel = self

    def destroy(self) -> None: ...


class RealHost:
    def __init__(self) -> None:
        self._netns = Netns()
        self.kernel = Netlink(SETTINGS)

    async def open(self) -> None:
        with self._netns.inside():
            await self.kernel.open()

    def add_link(self, name: str, addresses: tuple[str, ...] = ()) -> None:
        self._netns.ip(f"link add {name} type veth peer name {name}-far")
        for address in addresses:
            length = "64 nodad" if ":" in address else "24"
            self._netns.ip(f"addr add {address}/{length} dev {name}")
        self._netns.ip(f"link set {name}-far up", f"link set {name} up")

    def remove_link(self, name: str) -> None:
        self._netns.ip(f"link del {name}")

    def set_link(self, name: str, up: bool) -> None:
        self._netns.ip(f"link set {name} {'up' if up else 'down'}")

    def add_address(self, address: str) -> None:
        self._netns.ip(f"addr add {address}/{'128 nodad' if ':' in address else '32'} dev lo")

    def remove_address(self, address: str) -> None:
        self._netns.ip(f"addr del {address}/{'128' if ':' in address else '32'} dev lo")

    def set_strict(self, device: str) -> None:
        self._netns.sysctl(f"net.ipv4.conf.{device}.rp_filter", 1)

    def put_route(self, route: Route, protocol: int, table: int = 5180) -> None:
        what = f"{route.destination} dev {route.device}" if route.device else f"unreachable {route.destination}"
        via = f" via {route.gateway} onlink" if route.gateway else ""
        self._netns.ip(
            f"-{route.family} route replace {what}{via} metric {route.metric} table {table} proto {protocol}"
        )

    def has_route(self, route: Route, table: int) -> bool:
        shown = self._netns.ip(f"-{route.family} route show table {table}")
        return f"{route.destination.removesuffix('/32')} dev {route.device} " in shown

    def flush_table(self) -> None:
        for family in (4, 6):
            self._netns.ip(f"-{family} route flush table 5180")

    def put_rule(self, rule: Rule) -> None:
        self._netns.ip(f"-{rule.family} rule add pref {rule.priority} lookup {rule.table} protocol {rule.protocol}")

    def delete_rules_at(self, priority: int) -> None:
        for family in (4, 6):
            self._netns.ip(f"-{family} rule del pref {priority}")

    def destroy(self) -> None:
        self._netns.close()


@pytest.fixture(params=[FakeHost, RealHost], ids=["fake", "real"])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    host: Host = request.param()
    host.add_address("10.99.0.1")
    host.add_address("fd99::1")
    host.add_link("overlay0")
    host.add_link("backup0", ("10.8.0.1", "fd08::1"))
    yield host
    host.destroy()


def run(host: Host, work: Callable[[], Awaitable[None]]) -> None:
    async def inner() -> None:
        await host.open()
        try:
            async with asyncio.timeout(20):
                await work()
        finally:
            await host.kernel.close()

    asyncio.run(inner())


async def until(condition: Callable[[], Any], what: str) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 (the condition is anything)
            await asyncio.sleep(0.01)
    assert condition(), what


DIRECT = Route(4, "10.99.0.2/32", 100, device="overlay0", source="10.99.0.1")
VIA = Route(4, "10.99.0.2/32", 500, device="backup0", gateway="10.8.0.2", source="10.99.0.1")
NONE = Route(4, "10.99.0.2/32", 9999, "unreachable")
DIRECT6 = Route(6, "fd99::2/128", 100, device="overlay0", source="fd99::1")
VIA6 = Route(6, "fd99::2/128", 500, device="backup0", gateway="fd08::2", source="fd99::1")
NONE6 = Route(6, "fd99::2/128", 9999, "unreachable")
PREFIX = Route(4, "192.168.20.0/24", 100, device="overlay0", source="10.99.0.1")
LADDER = (DIRECT, VIA, NONE, DIRECT6, VIA6, NONE6, PREFIX)


# --- the port --------------------------------------------------------------------------------------------------------


def test_a_route_reads_back_as_it_was_set_and_goes_when_removed(host: Host) -> None:
    async def work() -> None:
        kernel = host.kernel
        assert (await kernel.routes()).ours == frozenset()
        for route in LADDER:
            await kernel.replace(route)
            await kernel.replace(route)
        assert (await kernel.routes()).ours == frozenset(LADDER)
        for route in LADDER:
            await kernel.remove(route)
            await kernel.remove(route)
        assert (await kernel.routes()).ours == frozenset()

    run(host, work)


def test_the_key_is_destination_and_metric(host: Host) -> None:
    async def work() -> None:
        for direct, via in ((DIRECT, VIA), (DIRECT6, VIA6)):
            moved = Route(via.family, via.destination, direct.metric, "unicast", via.device, via.gateway, via.source)
            await host.kernel.replace(direct)
            await host.kernel.replace(moved)
            await host.kernel.replace(via)
            assert (await host.kernel.routes()).ours == {moved, via}
            await host.kernel.remove(direct)  # not there any more: another stands in its place
            assert (await host.kernel.routes()).ours == {moved, via}
            await host.kernel.remove(moved)
            await host.kernel.remove(via)

    run(host, work)


def test_another_protocols_route_is_told_apart_and_survives_our_remove(host: Host) -> None:
    async def work() -> None:
        theirs = Route(4, "10.99.0.2/32", 100, device="overlay0")
        host.put_route(theirs, protocol=STATIC)
        table = await host.kernel.routes()
        assert (table.ours, table.foreign) == (frozenset(), {theirs})
        await host.kernel.remove(theirs)
        assert (await host.kernel.routes()).foreign == {theirs}

    run(host, work)


@pytest.mark.parametrize(
    ("route", "words"),
    [
        (Route(4, "10.99.0.2/32", 100, device="nowhere0"), "no interface nowhere0"),
        (Route(4, "10.99.0.2/32", 100, device="down0"), "not up"),
        (Route(6, "fd99::2/128", 100, device="down0"), "not up"),
        (Route(4, "10.99.0.2/32", 100, device="overlay0", source="10.99.0.9"), "service address on lo"),
    ],
)
def test_what_the_kernel_cannot_hold_is_refused_in_words(host: Host, route: Route, words: str) -> None:
    host.add_link("down0")
    host.set_link("down0", False)

    async def work() -> None:
        with pytest.raises(SteeringError, match=words):
            await host.kernel.replace(route)

    run(host, work)


def test_link_down_takes_the_routes_along_and_only_the_link_tells(host: Host) -> None:
    async def work() -> None:
        for route in LADDER:
            await host.kernel.replace(route)
        up = await host.kernel.interface("overlay0")
        assert up is not None
        assert up.up
        host.set_link("overlay0", False)
        assert (await host.kernel.routes()).ours == {VIA, NONE, VIA6, NONE6}
        down = await host.kernel.interface("overlay0")
        assert down is not None
        assert (down.index, down.up) == (up.index, False)
        host.remove_link("overlay0")
        assert await host.kernel.interface("overlay0") is None

    run(host, work)


def test_rules_read_back_and_are_idempotent(host: Host) -> None:
    async def work() -> None:
        kernel = host.kernel
        before = await kernel.rules()
        ours = {our_rule(SETTINGS, 4), our_rule(SETTINGS, 6)}
        for rule in (*ours, *ours):
            await kernel.add_rule(rule)
        assert await kernel.rules() == before | ours
        for rule in (*ours, *ours):
            await kernel.remove_rule(rule)
        assert await kernel.rules() == before

    run(host, work)


def test_lookup_answers_with_the_lowest_rung_that_stands(host: Host) -> None:
    async def work() -> None:
        kernel = host.kernel
        assert (await kernel.lookup("10.99.0.2", "10.99.0.1")).error
        for family in (4, 6):
            await kernel.add_rule(our_rule(SETTINGS, family))
        for route in LADDER:
            await kernel.replace(route)
        for peer, own, direct, via in (
            ("10.99.0.2", "10.99.0.1", DIRECT, VIA),
            ("fd99::2", "fd99::1", DIRECT6, VIA6),
        ):
            found = await kernel.lookup(peer, own)
            assert (found.device, found.gateway, found.table) == ("overlay0", None, 5180)
            await kernel.remove(direct)
            found = await kernel.lookup(peer, own)
            assert (found.device, found.gateway, found.table) == ("backup0", via.gateway, 5180)
            await kernel.remove(via)
            found = await kernel.lookup(peer, own)
            assert found.device is None
            assert found.error
        assert (await kernel.lookup("10.99.0.2", "10.99.0.77")).error

    run(host, work)


def test_strict_reverse_path_filtering_is_foretold(host: Host) -> None:
    async def work() -> None:
        kernel = host.kernel
        await kernel.add_rule(our_rule(SETTINGS, 4))
        await kernel.replace(DIRECT)
        assert await kernel.drops_from("10.99.0.2", "10.99.0.1", "backup0") == ""
        host.set_strict("backup0")
        assert "strict rp_filter" in await kernel.drops_from("10.99.0.2", "10.99.0.1", "backup0")
        assert await kernel.drops_from("10.99.0.2", "10.99.0.1", "overlay0") == ""
        assert "missing" in await kernel.drops_from("10.99.0.2", "10.99.0.1", "nowhere0")

    run(host, work)


def test_events_tell_what_others_do_and_not_what_we_do(host: Host) -> None:
    async def work() -> None:
        heard: list[str] = []

        async def listen() -> None:
            async for event in host.kernel.events():
                heard.append(event)

        listener = asyncio.create_task(listen())
        try:
            await asyncio.sleep(0.2)
            heard.clear()  # the links that the fixture made
            for rule in (our_rule(SETTINGS, 4), our_rule(SETTINGS, 6)):
                await host.kernel.add_rule(rule)
            for route in LADDER:
                await host.kernel.replace(route)
                await host.kernel.remove(route)
                await host.kernel.replace(route)
            await host.kernel.remove_rule(our_rule(SETTINGS, 6))
            await host.kernel.add_rule(our_rule(SETTINGS, 6))
            await asyncio.sleep(0.2)
            assert heard == []
            host.delete_rules_at(5180)
            await until(lambda: "a rule was removed" in heard, "a removed rule is told")
            host.flush_table()
            await until(lambda: "a route was changed" in heard, "a flushed table is told")
            await asyncio.sleep(0.1)
            heard.clear()
            host.put_route(Route(4, "10.99.0.2/32", 100, device="backup0"), protocol=SETTINGS.protocol)
            await until(lambda: "a route was changed" in heard, "a route in our name is told")
            host.set_link("overlay0", False)
            await until(lambda: "an interface changed" in heard, "a link that goes down is told")
        finally:
            listener.cancel()

    run(host, work)


def test_the_library_keeps_no_answer_that_nobody_reads() -> None:
    """An agent asks some 40,000 times a day: pyroute2 keeps the acknowledgements of requests that are done for ever."""
    host = RealHost()

    async def work() -> None:
        host.add_address("10.99.0.1")
        host.add_link("overlay0")
        for _ in range(3):
            await host.kernel.add_rule(our_rule(SETTINGS, 4))
            await host.kernel.replace(DIRECT)
            await host.kernel.routes()
            await host.kernel.rules()
            await host.kernel.lookup("10.99.0.2", "10.99.0.1")
            await host.kernel.drops_from("10.99.0.2", "10.99.0.1", "overlay0")
            await host.kernel.remove(DIRECT)
            await host.kernel.remove(DIRECT)
            await host.kernel.lookup("10.99.0.2", "10.99.0.1")
            await host.kernel.remove_rule(our_rule(SETTINGS, 4))
        await asyncio.sleep(0.05)
        assert host.kernel._requests.msg_queue.root.qsize() == 0

    try:
        run(host, work)
    finally:
        host.destroy()


def test_without_the_right_to_change_routes_the_error_names_it() -> None:
    command = [
        "setpriv",
        "--bounding-set",
        "-net_admin",
        "--inh-caps",
        "-net_admin",
        sys.executable,
        "-c",
        _UNPRIVILEGED,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    assert "cannot set route" in done.stdout
    assert "not permitted: needs CAP_NET_ADMIN" in done.stdout


_UNPRIVILEGED = """
import asyncio
from vagus_agent.config import Steering
from vagus_agent.core.ladder import Route
from vagus_agent.net.netlink import Netlink, SteeringError

async def main():
    kernel = Netlink(Steering())
    try:
        await kernel.replace(Route(4, "192.0.2.1/32", 9999, "unreachable"))
    except SteeringError as error:
        print(error)
    await kernel.close()

asyncio.run(main())
"""


# --- Steering --------------------------------------------------------------------------------------------------------

BERLIN = Peer(
    name="berlin",
    addresses=(ip_address("10.99.0.2"), ip_address("fd99::2")),
    prefixes=(ip_network("192.168.20.0/24"),),
    via={"backup": (ip_address("10.8.0.2"), ip_address("fd08::2"))},
)
OSLO = Peer(name="oslo", addresses=(ip_address("10.99.0.3"),), via={"backup": (ip_address("10.8.0.3"),)})
CONFIG = Config(
    fleet="f",
    node="austin",
    addresses=(ip_address("10.99.0.1"), ip_address("fd99::1")),
    paths=(Path(name="overlay", interface="overlay0"), Path(name="backup", interface="backup0")),
    mqtt=Mqtt(brokers=()),
    keys_file="/etc/vagus/keys.toml",
    peers=(BERLIN, OSLO),
    steering=SETTINGS,
)
UP = {"overlay": 1, "backup": 2}
OURS = {our_rule(SETTINGS, 4), our_rule(SETTINGS, 6)}


async def assert_in_place(host: Host, overrides: dict[str, str]) -> None:
    assert (await host.kernel.routes()).ours == wanted(CONFIG, UP, overrides).routes
    assert await host.kernel.rules() >= OURS


def test_reconcile_builds_the_ladder_once(host: Host) -> None:
    async def work() -> None:
        steering = Steering(host.kernel, CONFIG, LOG)
        first = await steering.reconcile({}, "start")
        assert first == Outcome(True, {"berlin": "overlay", "oslo": "overlay"})
        await assert_in_place(host, {})
        assert await steering.reconcile({}, "again") == Outcome(False, {"berlin": "overlay", "oslo": "overlay"})

    run(host, work)


def test_override_moves_one_peer_there_and_back(host: Host) -> None:
    async def work() -> None:
        steering = Steering(host.kernel, CONFIG, LOG)
        await steering.reconcile({}, "start")
        for _ in range(2):
            there = await steering.override("berlin", "backup", "overlay down")
            assert there == Outcome(True, {"berlin": "backup", "oslo": "overlay"})
            await assert_in_place(host, {"berlin": "backup"})
            assert not (await steering.override("berlin", "backup")).changed
            back = await steering.override("berlin", "overlay", "healed")
            assert back == Outcome(True, {"berlin": "overlay", "oslo": "overlay"})
            await assert_in_place(host, {})
        assert not (await steering.reconcile({}, "nothing left to do")).changed

    run(host, work)


def test_override_before_the_first_look_builds_everything(host: Host) -> None:
    async def work() -> None:
        outcome = await Steering(host.kernel, CONFIG, LOG).override("berlin", "backup")
        assert outcome == Outcome(True, {"berlin": "backup", "oslo": "overlay"})
        await assert_in_place(host, {"berlin": "backup"})

    run(host, work)


def test_an_override_over_an_interface_that_is_gone_fails_in_words_and_nothing_is_lost(host: Host) -> None:
    async def work() -> None:
        steering = Steering(host.kernel, CONFIG, LOG)
        await steering.reconcile({}, "start")
        host.remove_link("backup0")
        outcome = await steering.override("berlin", "backup")
        assert outcome.paths == {"berlin": "overlay", "oslo": "overlay"}
        assert "berlin is assigned to backup, which cannot stand; it goes by overlay" in outcome.failed
        assert "no override backup to berlin: interface backup0 is missing or down" in outcome.missing

    run(host, work)


def test_going_home_sets_the_first_rung_again_before_the_override_goes(host: Host) -> None:
    async def work() -> None:
        steering = Steering(host.kernel, CONFIG, LOG)
        await steering.reconcile({"berlin": "backup"}, "start")
        host.set_link("overlay0", False)  # its rungs go, unannounced …
        host.set_link("overlay0", True)  # … and do not come back by themselves
        outcome = await steering.override("berlin", "overlay")
        assert outcome.paths["berlin"] == "overlay"

    run(host, work)


def test_a_restart_adopts_what_stands_and_sweeps_what_is_stale(host: Host) -> None:
    async def work() -> None:
        await Steering(host.kernel, CONFIG, LOG).reconcile({"berlin": "backup"}, "first life")
        ghost = Route(4, "10.99.0.9/32", 100, device="overlay0")
        host.put_route(ghost, protocol=SETTINGS.protocol)
        theirs = Route(4, "10.99.0.9/32", 50, device="overlay0")
        host.put_route(theirs, protocol=STATIC)
        host.put_rule(Rule(4, 900, 901, protocol=SETTINGS.protocol))
        outcome = await Steering(host.kernel, CONFIG, LOG).reconcile({"berlin": "backup"}, "second life")
        assert outcome.changed
        assert outcome.paths == {"berlin": "backup", "oslo": "overlay"}
        assert outcome.drift == (
            f"left by an earlier run: {ghost}",
            "left by an earlier run: IPv4 rule 900: from all lookup 901",
        )
        await assert_in_place(host, {"berlin": "backup"})
        assert (await host.kernel.routes()).foreign == {theirs}
        assert {rule for rule in await host.kernel.rules() if rule.protocol == SETTINGS.protocol} == OURS

    run(host, work)


def test_what_an_earlier_configuration_left_in_another_table_is_swept_and_told(host: Host) -> None:
    strays = (
        Stray(77, Route(4, "10.99.0.2/32", 10, device="overlay0")),
        Stray(77, Route(4, "10.99.0.2/32", 9999, "unreachable")),
        Stray(78, Route(6, "fd99::2/128", 100, device="overlay0")),
    )

    async def work() -> None:
        theirs = Route(4, "10.99.0.9/32", 50, device="overlay0")
        host.put_route(theirs, protocol=STATIC, table=77)
        for stray in strays:
            host.put_route(stray.route, protocol=SETTINGS.protocol, table=stray.table)
        assert await host.kernel.strays() == set(strays)
        outcome = await Steering(host.kernel, CONFIG, LOG).reconcile({}, "start")
        assert (outcome.changed, outcome.failed) == (True, "")
        assert set(outcome.drift) == {f"left by an earlier run: {stray}" for stray in strays}
        assert await host.kernel.strays() == frozenset()
        await assert_in_place(host, {})
        again = await Steering(host.kernel, CONFIG, LOG).reconcile({}, "again")
        assert again == Outcome(False, outcome.paths)

        for stray in strays:
            host.put_route(stray.route, protocol=SETTINGS.protocol, table=stray.table)
        removed = await clear(host.kernel, CONFIG, overrides_only=False)
        assert {str(stray) for stray in strays} <= set(removed)
        assert await host.kernel.strays() == frozenset()
        assert host.has_route(theirs, table=77), "another protocol's stays"

    run(host, work)


@pytest.mark.parametrize(
    "stale",
    [
        Route(4, "10.99.0.2/32", 10, device="nobody0"),
        Route(4, "10.99.0.2/32", 10, device="backup0", gateway="10.8.0.77"),
        Route(4, "10.99.0.2/32", 300, device="backup0"),
        Route(6, "fd99::2/128", 10, device="nobody0"),
    ],
    ids=["path", "gateway", "metric", "path6"],
)
def test_an_override_that_no_configuration_offers_and_a_stale_metric_are_swept_and_told(
    host: Host, stale: Route
) -> None:
    host.add_link("nobody0")

    async def work() -> None:
        await Steering(host.kernel, CONFIG, LOG).reconcile({}, "first life")
        host.put_route(stale, protocol=SETTINGS.protocol)
        steering = Steering(host.kernel, CONFIG, LOG)
        assert await steering.standing_overrides() == {}
        outcome = await steering.reconcile({}, "second life")
        assert outcome.drift == (f"left by an earlier run: {stale}",)
        await assert_in_place(host, {})

        told: list[Outcome] = []
        watch = asyncio.create_task(steering.watch(told.append))
        try:
            await asyncio.sleep(0.2)
            assert told == []
            host.put_route(stale, protocol=SETTINGS.protocol)
            await until(lambda: told, "it is drift while we run, too")
            assert told[-1].drift == (f"a route of ours that we did not set: {stale}",)
            assert told[-1].paths == {"berlin": "overlay", "oslo": "overlay"}
            await assert_in_place(host, {})
        finally:
            watch.cancel()

    run(host, work)


def test_a_new_agent_learns_from_the_kernel_which_overrides_stand(host: Host) -> None:
    async def work() -> None:
        assert await Steering(host.kernel, CONFIG, LOG).standing_overrides() is None
        await Steering(host.kernel, CONFIG, LOG).reconcile({"berlin": "backup"}, "first life")
        standing = await Steering(host.kernel, CONFIG, LOG).standing_overrides()
        assert standing == {"berlin": "backup"}
        assert not (await Steering(host.kernel, CONFIG, LOG).reconcile(standing, "second life")).changed

    run(host, work)


def test_another_protocols_route_in_our_place_is_loud_and_untouched(host: Host) -> None:
    async def work() -> None:
        theirs = Route(4, "10.99.0.2/32", 10, device="backup0")
        host.put_route(theirs, protocol=STATIC)
        outcome = await Steering(host.kernel, CONFIG, LOG).reconcile({"berlin": "backup"}, "start")
        assert "another protocol's route stands where ours belongs in table 5180" in outcome.failed
        assert outcome.paths == {"berlin": "", "oslo": "overlay"}
        assert (await host.kernel.routes()).foreign == {theirs}

    run(host, work)


def test_a_rule_that_catches_our_traffic_first_is_named(host: Host) -> None:
    async def work() -> None:
        host.put_route(Route(4, "10.99.0.0/24", 1, device="backup0"), protocol=STATIC, table=77)
        thief = Rule(4, 100, 77, protocol=STATIC)
        host.put_rule(thief)
        outcome = await Steering(host.kernel, CONFIG, LOG).reconcile({}, "start")
        assert outcome.paths["oslo"] == ""
        assert "oslo (10.99.0.3) should go by overlay, but the kernel says: dev backup0 by table 77" in outcome.failed
        assert f"perhaps because of {thief} (protocol 4, static)" in outcome.failed

    run(host, work)


@pytest.mark.parametrize("destination", ["10.99.0.2/32", "192.168.20.0/25"], ids=["better metric", "more specific"])
def test_another_protocols_route_that_is_better_than_ours_is_named_and_untouched(host: Host, destination: str) -> None:
    theirs = Route(4, destination, 5, device="backup0")
    which = "10.99.0.2" if destination.endswith("/32") else "192.168.20.0/24"

    async def work() -> None:
        steering = Steering(host.kernel, CONFIG, LOG)
        await steering.reconcile({}, "start")
        host.put_route(theirs, protocol=STATIC)
        outcome = await steering.reconcile({}, "look")
        assert outcome.failed == (
            f"berlin ({which}) should go by overlay, but the kernel says: dev backup0 by table 5180; "
            f"perhaps because of another protocol's route in our table: {theirs}"
        )
        assert (await host.kernel.routes()).foreign == {theirs}

    run(host, work)


def test_a_rule_that_catches_only_a_prefix_is_told_and_keeps_no_service_address_from_moving(host: Host) -> None:
    async def work() -> None:
        host.put_route(Route(4, "192.168.20.0/24", 1, device="backup0"), protocol=STATIC, table=77)
        steering = Steering(host.kernel, CONFIG, LOG)
        assert not (await steering.reconcile({}, "start")).failed
        host.put_rule(Rule(4, 100, 77, protocol=STATIC))
        outcome = await steering.reconcile({}, "look")
        words = (
            "berlin (192.168.20.0/24) should go by {}, but the kernel says: dev backup0 by table 77; perhaps because"
        )
        assert outcome.failed.startswith(f"{words.format('overlay')} of IPv4 rule 100")
        assert outcome.paths == {"berlin": "overlay", "oslo": "overlay"}
        outcome = await steering.override("berlin", "backup")
        assert outcome.failed.startswith(words.format("backup"))
        assert outcome.paths == {"berlin": "backup", "oslo": "overlay"}

    run(host, work)


def test_a_route_of_ours_that_comes_into_another_table_is_told_and_swept_at_once(host: Host) -> None:
    """As somebody's restore of all tables does; another protocol's route there is none of ours."""
    ours, theirs = Route(4, "10.99.0.9/32", 7, device="backup0"), Route(4, "10.99.0.8/32", 7, device="backup0")

    async def work() -> None:
        steering = Steering(host.kernel, CONFIG, LOG)
        told: list[Outcome] = []
        await steering.reconcile({}, "start")
        watch = asyncio.create_task(steering.watch(told.append))
        try:
            await asyncio.sleep(0.2)
            host.put_route(theirs, protocol=STATIC, table=300)
            for table in (300, 200):
                told.clear()
                host.put_route(ours, protocol=SETTINGS.protocol, table=table)
                await until(lambda: told, "it is told")
                assert told[-1].drift == (f"a route of ours that we did not set: {ours} table {table}",)
                assert not told[-1].failed
                assert not host.has_route(ours, table)
            assert host.has_route(theirs, 300)
        finally:
            watch.cancel()

    run(host, work)


def test_a_rule_that_comes_to_catch_our_traffic_is_told_at_once_and_until_it_goes(host: Host) -> None:
    async def work() -> None:
        host.put_route(Route(4, "10.99.0.0/24", 1, device="backup0"), protocol=STATIC, table=77)
        steering = Steering(host.kernel, CONFIG, LOG)
        told: list[Outcome] = []
        assert not (await steering.reconcile({}, "start")).failed
        watch = asyncio.create_task(steering.watch(told.append))
        try:
            await asyncio.sleep(0.2)
            assert told == []
            for family in (4, 6):
                host.put_rule(Rule(family, 100, 77, protocol=STATIC))
            await until(lambda: told, "a rule before ours is news")
            assert "perhaps because of IPv4 rule 100: from all lookup 77 (protocol 4, static)" in told[-1].failed
            assert Rule(4, 100, 77, protocol=STATIC) in await host.kernel.rules(), "it is not ours to remove"
            host.delete_rules_at(100)
            await until(lambda: not told[-1].failed, "its end is news too")
            assert told[-1].paths == {"berlin": "overlay", "oslo": "overlay"}
        finally:
            watch.cancel()

    run(host, work)


def test_one_broken_family_does_not_hold_up_the_other(host: Host) -> None:
    config = Config(
        fleet="f",
        node="austin",
        addresses=(ip_address("10.99.0.1"), ip_address("fd99::77")),  # this one is not on lo
        paths=CONFIG.paths,
        mqtt=CONFIG.mqtt,
        keys_file=CONFIG.keys_file,
        peers=CONFIG.peers,
        steering=SETTINGS,
    )

    async def work() -> None:
        steering = Steering(host.kernel, config, LOG)
        assert "service address on lo" in (await steering.reconcile({}, "start")).failed
        for path in ("backup", "overlay"):
            outcome = await steering.override("berlin", path)
            assert outcome.failed
            lookup = await host.kernel.lookup("10.99.0.2", "10.99.0.1")
            assert lookup.device == f"{path}0"

    run(host, work)


def test_watch_repairs_what_others_break_and_tells_once(host: Host) -> None:
    async def work() -> None:
        steering = Steering(host.kernel, CONFIG, LOG)
        told: list[Outcome] = []
        indexes: list[dict[str, int | None]] = []
        await steering.reconcile({"berlin": "backup"}, "start")
        watch = asyncio.create_task(steering.watch(told.append, lambda seen: indexes.append(dict(seen))))
        try:
            await until(lambda: indexes, "interfaces are told at the start")
            await asyncio.sleep(0.2)
            assert told == []

            host.delete_rules_at(5180)
            await until(lambda: told, "a removed rule is drift")
            assert "rule 5180" in " ".join(told[-1].drift)
            await asyncio.sleep(0.2)
            await assert_in_place(host, {"berlin": "backup"})

            told.clear()
            host.flush_table()
            await until(lambda: told, "a flushed table is drift")
            assert "routes to 10.99.0.2/32 were gone or changed: metric 10, 100, 500, 9999" in told[-1].drift
            await asyncio.sleep(0.2)
            await assert_in_place(host, {"berlin": "backup"})

            told.clear()
            before = indexes[-1]
            host.remove_link("overlay0")
            await until(lambda: told, "a path that changed is told")
            assert told[-1].paths == {"berlin": "backup", "oslo": "backup"}
            assert told[-1].drift == ()
            assert indexes[-1] == {**before, "overlay": None}

            told.clear()
            host.add_link("overlay0")
            await until(lambda: told and told[-1].paths["oslo"] == "overlay", "the first rung comes back at once")
            assert told[-1].drift == ()
            assert indexes[-1]["overlay"] not in (None, before["overlay"])
            await assert_in_place(host, {"berlin": "backup"})
        finally:
            watch.cancel()

    run(host, work)


@pytest.mark.parametrize("address", ["10.99.0.1", "fd99::1"])
def test_a_service_address_that_goes_is_told_and_its_return_repairs_all_at_once(host: Host, address: str) -> None:
    async def work() -> None:
        steering = Steering(host.kernel, CONFIG, LOG)
        told: list[Outcome] = []
        await steering.reconcile({"berlin": "backup"}, "start")
        watch = asyncio.create_task(steering.watch(told.append))
        try:
            await asyncio.sleep(0.2)
            assert told == []
            host.remove_address(address)
            await until(lambda: told and told[-1].failed, "its end is told")
            host.add_address(address)
            await until(lambda: not told[-1].failed, "its return is news: nobody waits for the next look")
            await assert_in_place(host, {"berlin": "backup"})
        finally:
            watch.cancel()

    run(host, work)


def test_clear_takes_the_overrides_or_everything_of_ours_only(host: Host) -> None:
    async def work() -> None:
        theirs = Route(4, "10.99.0.9/32", 50, device="overlay0")
        host.put_route(theirs, protocol=STATIC)
        before = await host.kernel.rules()
        steering = Steering(host.kernel, CONFIG, LOG)
        await steering.reconcile({"oslo": "backup"}, "start")
        assert await steering.clear(overrides_only=True) == ["10.99.0.3/32 via 10.8.0.3 dev backup0 metric 10"]
        await assert_in_place(host, {})
        removed = await steering.clear(overrides_only=False)
        assert len(removed) == len(OURS) + len(wanted(CONFIG, UP, {}).routes)
        table = await host.kernel.routes()
        assert (table.ours, table.foreign) == (frozenset(), {theirs})
        assert await host.kernel.rules() == before
        assert await steering.clear(overrides_only=False) == []

    run(host, work)


def test_switched_off_it_sweeps_its_own_and_only_watches(host: Host) -> None:
    async def work() -> None:
        await Steering(host.kernel, CONFIG, LOG).reconcile({}, "on")
        off = Config(
            fleet="f",
            node="austin",
            addresses=CONFIG.addresses,
            paths=CONFIG.paths,
            mqtt=CONFIG.mqtt,
            keys_file=CONFIG.keys_file,
            peers=CONFIG.peers,
            steering=Settings(enabled=False),
        )
        steering = Steering(host.kernel, off, LOG)
        assert (await steering.reconcile({}, "off")).changed
        assert (await host.kernel.routes()).ours == frozenset()
        assert not {rule for rule in await host.kernel.rules() if rule.protocol == SETTINGS.protocol}
        outcome = await steering.override("berlin", "backup")
        assert not outcome.changed
        assert (await host.kernel.routes()).ours == frozenset()

    run(host, work)
