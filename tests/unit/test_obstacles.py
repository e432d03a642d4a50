"""What keeps a path from carrying traffic: the words, the remedy, and when it is asked."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from vagus_agent.config import Config, Mqtt, Path, Peer, Probe
from vagus_agent.core import obstacles
from vagus_agent.core.ladder import Rule
from vagus_agent.core.link import Link
from vagus_agent.core.obstacles import Device, Facts, Obstacle, Rounds, Tunnel, TunnelPeer, Way
from vagus_agent.net.facts import parse_dump, parse_uapi
from vagus_protocol.messages import LinkState

OVERLAY, BACKUP = Path(name="overlay", interface="tailscale0"), Path(name="backup", interface="wg0")
KEY, OTHER = "aKey+/aKey=", "bKey+/bKey="
# As iptables-save and nft print them.
IPTABLES_DROP = "-A ts-input ! -i tailscale0 -s 100.64.0.0/10 -j DROP"
NFT_DROP = 'iifname != "tailscale0" ip saddr 100.64.0.0/10 counter packets 3 bytes 252 drop'
NFT_DROP_2 = 'ip saddr 100.64.0.0/10 iifname != "tailscale0" counter drop'


def fleet(own: tuple[str, ...] = ("10.118.0.1", "fd76::1"), peer: tuple[str, ...] = ("10.118.0.2", "fd76::2")) -> Any:
    tokyo = Peer(
        name="tokyo",
        addresses=tuple(ip_address(one) for one in peer),
        via={"backup": (ip_address("10.60.0.2"),)},
    )
    config = Config(
        fleet="f",
        node="austin",
        addresses=tuple(ip_address(one) for one in own),
        paths=(OVERLAY, BACKUP),
        mqtt=Mqtt(brokers=()),
        keys_file="/nowhere",
        peers=(tokyo,),
    )
    return config, tokyo


def networks(*each: str) -> Any:
    return tuple(ip_network(one) for one in each)


def sound(config: Config, **changes: Any) -> Facts:
    """A host on which nothing is in the way."""
    facts = Facts(
        places={str(own): frozenset({"lo"}) for own in config.addresses},
        devices={"overlay": Device(True, 1280), "backup": Device(True, 1420)},
        ways={str(one): Way("overlay", "tailscale0", 5180) for one in config.peers[0].addresses},
        rungs={str(one): frozenset({"overlay", "backup"}) for one in config.peers[0].addresses},
        drops={(str(one), path.interface): "" for one in config.peers[0].addresses for path in (OVERLAY, BACKUP)},
        tunnels={
            "wg0": Tunnel(
                0x80000,
                (
                    TunnelPeer(KEY, "203.0.113.2", networks("10.60.0.2/32", "10.118.0.2/32", "fd76::2/128")),
                    TunnelPeer(OTHER, "203.0.113.3", networks("10.60.0.3/32")),
                ),
            )
        },
        exits={"203.0.113.2": "eth0"},
        firewall=(),
    )
    return replace(facts, **changes)


def found(facts: Facts, path: Path = BACKUP, **addresses: tuple[str, ...]) -> list[Obstacle]:
    config, tokyo = fleet(**addresses)
    return obstacles.of_link(config, tokyo, path, facts)


CONFIG, TOKYO = fleet()


def test_a_sound_host_has_none_and_what_could_not_be_read_is_none() -> None:
    for path in (OVERLAY, BACKUP):
        assert found(sound(CONFIG), path) == []
        assert found(Facts(), path) == []
    assert obstacles.told([]) == ""


@pytest.mark.parametrize(
    ("changes", "words", "remedy"),
    [
        ({"devices": {"backup": None}}, "interface wg0 is missing", "start its tunnel"),
        ({"devices": {"backup": Device(False)}}, "interface wg0 is down", "ip link set wg0 up"),
        ({"devices": {"backup": Device(True, 1200)}}, "MTU of wg0 is 1200, below the 1280", "ip link set wg0 mtu 1280"),
        ({"places": {"10.118.0.1": frozenset()}}, "10.118.0.1 is on no interface", "ip addr add 10.118.0.1/32 dev lo"),
        (
            {"places": {"fd76::1": frozenset({"tailscale0"})}},
            "fd76::1 is on tailscale0 only: its connections die with that interface",
            "ip addr add fd76::1/128 dev lo",
        ),
        (
            {"rungs": {"fd76::2": frozenset({"overlay"})}},
            "no route to fd76::2 by wg0 stands in table 5180",
            "the log of vagus-agent",
        ),
        (
            {"drops": {("10.118.0.2", "wg0"): "strict rp_filter drops 10.118.0.2 → 10.118.0.1"}},
            "strict rp_filter drops 10.118.0.2",
            "net.ipv4.conf.wg0.rp_filter=2",
        ),
        (
            {
                "ways": {"10.118.0.2": Way("", "eth0", 254)},
                "shadowing": {4: (Rule(4, 100, 254), Rule(4, 200, 77))},
            },
            "10.118.0.2 is caught before our rule and goes by dev eth0, table 254",
            "IPv4 rule 100: from all lookup 254; IPv4 rule 200",
        ),
    ],
)
def test_each_is_named_with_its_remedy(changes: dict[str, Any], words: str, remedy: str) -> None:
    [one] = found(sound(CONFIG, **changes))
    assert words in one.text
    assert remedy in one.remedy
    assert str(one) == f"{one.text}; {one.remedy}"


def test_an_address_that_no_path_can_take_away_is_in_nobodys_way() -> None:
    assert found(sound(CONFIG, places={"10.118.0.1": frozenset({"dummy0"})})) == []
    assert found(sound(CONFIG, places={"10.118.0.1": frozenset({"lo", "tailscale0"})})) == []
    on_the_overlay = sound(CONFIG, places={"10.118.0.1": frozenset({"tailscale0"})})
    assert found(on_the_overlay, OVERLAY) == []
    assert len(found(on_the_overlay, BACKUP)) == 1


def test_traffic_that_another_rule_sends_by_the_same_path_is_not_in_its_way() -> None:
    facts = sound(CONFIG, ways={"10.118.0.2": Way("overlay", "tailscale0", 52)})
    facts = replace(facts, shadowing={4: (Rule(4, 5000, 52),)})
    assert found(facts, OVERLAY) == []
    assert "caught before our rule" in found(facts, BACKUP)[0].text


def test_while_our_own_rule_is_away_nobody_else_is_blamed() -> None:
    assert found(sound(CONFIG, ways={"10.118.0.2": Way("", "eth0", 254)}, shadowing={4: ()})) == []


def test_what_the_kernel_refuses_for_another_reason_is_not_blamed_on_rp_filter() -> None:
    [one] = found(sound(CONFIG, drops={("10.118.0.2", "wg0"): "cannot accept 10.118.0.2: No route to host"}))
    assert one.text == "cannot accept 10.118.0.2: No route to host"
    assert "rp_filter" not in one.remedy


# --- Tailscale's firewall --------------------------------------------------------------------------------------------


INSIDE = {"own": ("100.64.0.1",), "peer": ("100.64.0.2",)}


@pytest.mark.parametrize("line", [IPTABLES_DROP, NFT_DROP, NFT_DROP_2])
def test_the_cgnat_drop_is_in_the_way_of_the_backup_of_a_100_address_only(line: str) -> None:
    facts = Facts(firewall=(line,))
    [one] = found(facts, BACKUP, **INSIDE)
    assert "Tailscale's firewall drops 100.64.0.2" in one.text
    assert "disable-linux-cgnat-drop-rule" in one.remedy
    assert found(facts, OVERLAY, **INSIDE) == []
    assert found(facts, BACKUP) == [], "addresses outside of 100.64.0.0/10 pass"


@pytest.mark.parametrize(
    ("line", "on_wg0"),
    [
        ("-A INPUT -i eth0 -s 100.64.0.0/10 -j DROP", False),
        ('iifname "eth0" ip saddr 100.64.0.0/10 drop', False),
        ('iifname "wg0" ip saddr 100.64.0.0/10 drop', True),
        ("ip saddr 100.64.0.0/10 drop", True),
    ],
)
def test_a_rule_counts_where_it_applies(line: str, on_wg0: bool) -> None:
    assert obstacles.drops_on(line, "wg0") is on_wg0


IPTABLES = f"""*filter
:INPUT ACCEPT [0:0]
:ts-input - [0:0]
-A INPUT -j ts-input
-A ts-input -s 100.64.0.1/32 -i lo -j ACCEPT
-A ts-input ! -i tailscale0 -s 100.115.92.0/23 -j RETURN
{IPTABLES_DROP}
-A ts-input -i tailscale0 -s 100.64.0.0/10 -j ACCEPT
COMMIT
"""
NFT = f"""table ip filter {{
\tchain ts-input {{
\t\tip saddr 100.115.92.0/23 iifname != "tailscale0" counter packets 0 bytes 0 return
\t\t{NFT_DROP_2}
\t}}
\tchain INPUT {{
\t\ttype filter hook input priority filter; policy accept;
\t\tcounter packets 1 bytes 84 jump ts-input
\t}}
}}
"""


@pytest.mark.parametrize(
    ("text", "jump", "drop"),
    [(IPTABLES, "-A INPUT -j ts-input", IPTABLES_DROP), (NFT, "jump ts-input", NFT_DROP_2)],
    ids=["iptables-save", "nft"],
)
def test_tailscales_chain_counts_while_something_jumps_to_it(text: str, jump: str, drop: str) -> None:
    kept = [line for line in text.splitlines() if obstacles.bears_on_cgnat(line)]
    assert [line.strip() for line in obstacles.standing_drops(kept)] == [drop]
    assert obstacles.standing_drops(text.splitlines()) == obstacles.standing_drops(kept), "what is not kept matters"
    nodivert = text.replace(jump, "")
    assert obstacles.standing_drops(nodivert.splitlines()) == ()
    assert obstacles.standing_drops(text.replace(drop, "").splitlines()) == (), "the node attribute takes the rule away"


@pytest.mark.parametrize("line", ["-A INPUT -s 100.64.0.0/10 -j DROP", "ip saddr 100.64.0.0/10 drop"])
def test_a_drop_of_ones_own_counts_as_well(line: str) -> None:
    assert obstacles.standing_drops(["chain mine {", line]) == (line,)


# --- WireGuard -------------------------------------------------------------------------------------------------------


def with_peers(*peers: TunnelPeer, mark: int = 0x80000) -> Facts:
    return sound(CONFIG, tunnels={"wg0": Tunnel(mark, peers)})


def test_a_missing_allowed_ip_is_named_with_the_command_that_adds_it() -> None:
    facts = with_peers(TunnelPeer(KEY, "", networks("10.60.0.2/32", "10.118.0.2/32")))
    [one] = found(facts)
    assert one.text == "fd76::2/128 of tokyo is in no WireGuard peer's AllowedIPs on wg0"
    assert f"wg set wg0 peer {KEY} allowed-ips 10.60.0.2/32,10.118.0.2/32,fd76::2/128" in one.remedy


def test_one_command_adds_all_that_are_missing() -> None:
    facts = with_peers(
        TunnelPeer(KEY, "", networks("10.60.0.2/32")), TunnelPeer(OTHER, "", networks("10.60.0.3/32", "fd76::2/128"))
    )
    [one] = found(facts)
    assert "10.118.0.2/32 of tokyo is in no WireGuard peer's AllowedIPs on wg0" in one.text
    assert f"give fd76::2/128 of tokyo to WireGuard peer {OTHER}" in one.text
    assert one.remedy.startswith(f"wg set wg0 peer {KEY} allowed-ips 10.60.0.2/32,10.118.0.2/32,fd76::2/128 (")
    [both] = found(with_peers(TunnelPeer(KEY, "", networks("10.60.0.2/32"))))
    assert "10.118.0.2/32 and fd76::2/128 of tokyo are in no WireGuard peer's AllowedIPs on wg0" in both.text


def test_an_allowed_ip_of_another_peer_is_named() -> None:
    facts = with_peers(
        TunnelPeer(KEY, "", networks("10.60.0.2/32", "fd76::/64", "10.118.0.0/16")),
        TunnelPeer(OTHER, "", networks("10.118.0.2/32")),
    )
    [one] = found(facts)
    assert one.text == f"AllowedIPs on wg0 give 10.118.0.2/32 of tokyo to WireGuard peer {OTHER}"
    assert KEY in one.remedy


def test_networks_cover_their_addresses_and_prefixes_count_too() -> None:
    whole = TunnelPeer(KEY, "", networks("0.0.0.0/0", "::/0"))
    assert found(with_peers(whole)) == []
    site = Peer(
        name="tokyo",
        addresses=TOKYO.addresses,
        prefixes=networks("192.168.7.0/24"),
        via={"backup": TOKYO.via["backup"]},
    )
    [one] = obstacles.allowed(CONFIG, site, BACKUP, sound(CONFIG))
    assert "192.168.7.0/24 of tokyo" in one.text


def test_a_family_that_this_node_does_not_steer_needs_no_allowed_ip() -> None:
    facts = with_peers(TunnelPeer(KEY, "", networks("10.60.0.2/32", "10.118.0.2/32")))
    assert "fd76::2/128" in found(facts)[0].text
    assert found(facts, own=("10.118.0.1",)) == []


def test_without_a_via_any_peer_that_has_the_address_will_do() -> None:
    plain = Peer(name="tokyo", addresses=TOKYO.addresses)
    assert list(obstacles.allowed(CONFIG, plain, BACKUP, sound(CONFIG))) == []
    lacking = with_peers(TunnelPeer(KEY, "", networks("10.118.0.2/32")))
    [one] = obstacles.allowed(CONFIG, plain, BACKUP, lacking)
    assert "fd76::2/128" in one.text
    assert "AllowedIPs of tokyo" in one.remedy


def test_a_backup_whose_endpoint_is_inside_the_overlay_is_named_unless_its_packets_are_marked() -> None:
    peers = sound(CONFIG).tunnels["wg0"].peers
    inside = {"203.0.113.2": "tailscale0", "203.0.113.3": "eth0"}
    [one] = found(sound(CONFIG, tunnels={"wg0": Tunnel(0, peers)}, exits=inside))
    assert one.text == "the way to its endpoint 203.0.113.2 leads into tailscale0"
    assert one.remedy == "wg set wg0 fwmark 0x80000"
    assert found(sound(CONFIG, tunnels={"wg0": Tunnel(0x80000, peers)}, exits=inside)) == []
    elsewhere = {"203.0.113.2": "eth0", "203.0.113.3": "tailscale0"}
    assert found(sound(CONFIG, tunnels={"wg0": Tunnel(0, peers)}, exits=elsewhere)) == [], "another peer's endpoint"


def test_both_ways_to_ask_wireguard_tell_the_same() -> None:
    raw = "00" * 31 + "01"
    key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE="
    uapi = f"""private_key={"f" * 64}
listen_port=51820
fwmark=524288
public_key={raw}
preshared_key={"0" * 64}
endpoint=[2001:db8::1]:51820
last_handshake_time_sec=1
allowed_ip=10.60.0.2/32
allowed_ip=fd76::2/128
public_key={"ff" * 32}
protocol_version=1
""".splitlines()
    dump = [
        f"secret\tpublic\t51820\t{0x80000:#x}",
        f"{key}\t(none)\t[2001:db8::1]:51820\t10.60.0.2/32,fd76::2/128\t1\t0\t0\toff",
        "//////////////////////////////////////////8=\t(none)\t(none)\t(none)\t0\t0\t0\toff",
    ]
    assert parse_uapi(uapi) == parse_dump(dump)
    tunnel = parse_uapi(uapi)
    assert tunnel.mark == 0x80000
    assert tunnel.peers[0] == TunnelPeer(key, "2001:db8::1", networks("10.60.0.2/32", "fd76::2/128"))
    assert tunnel.peers[1].allowed == ()
    assert parse_dump(["secret\tpublic\t51820\toff"]) == Tunnel(0, ())


# --- many, and when --------------------------------------------------------------------------------------------------


def test_more_than_one_are_told_in_one_text_that_fits_a_report() -> None:
    one = Obstacle("a", "the first", "mend it")
    assert obstacles.told([one, Obstacle("b", "the second", "mend it too")]) == (
        "the first; mend it. Also: the second; mend it too"
    )
    assert len(obstacles.told([one] * 100)) < 1000


def links(*states: LinkState) -> list[Link]:
    made = []
    for number, state in enumerate(states):
        link = Link(f"n{number}", "backup", 0.2, Probe(), 0.0, [])
        link.state = state
        made.append(link)
    return made


def asked(
    rounds: Rounds, each: list[Link], start: int, end: int, hindered: frozenset[tuple[str, str]] = frozenset()
) -> list[int]:
    """When `rounds` examines the one link, looked at every second."""
    return [now for now in range(start, end) if rounds.due(each, hindered, float(now))]


@pytest.mark.parametrize("state", [LinkState.UNKNOWN, LinkState.DOWN])
def test_an_unproven_link_is_examined_after_some_seconds_and_then_every_half_minute(state: LinkState) -> None:
    assert asked(Rounds(), links(state), 0, 100) == [3, 33, 63, 93]


def test_a_proven_link_is_examined_every_ten_minutes() -> None:
    assert asked(Rounds(), links(LinkState.UP), 0, 1300) == [0, 600, 1200]


def test_a_link_that_was_proven_since_is_asked_again_soon() -> None:
    rounds, each = Rounds(), links(LinkState.DOWN)
    assert asked(rounds, each, 0, 10) == [3]
    each[0].state = LinkState.UP
    assert asked(rounds, each, 10, 700) == [33, 633]


def test_a_link_that_dies_is_asked_soon_but_not_twice_in_half_a_minute() -> None:
    rounds, each = Rounds(), links(LinkState.UP)
    assert asked(rounds, each, 0, 10) == [0]
    each[0].state, each[0].since = LinkState.DOWN, 10.0
    assert asked(rounds, each, 10, 50) == [30]


def test_a_proven_link_with_an_obstacle_is_asked_again_soon() -> None:
    rounds, each = Rounds(), links(LinkState.UP)
    assert asked(rounds, each, 0, 70, frozenset({("n0", "backup")})) == [0, 30, 60]
    assert asked(rounds, each, 70, 700) == [660]


def test_many_are_examined_in_turn() -> None:
    rounds, each = Rounds(), links(*[LinkState.UP] * 120)
    sizes = [len(rounds.due(each, (), now)) for now in (0.0, 2.0, 4.0, 6.0)]
    assert sizes == [50, 50, 20, 0]
