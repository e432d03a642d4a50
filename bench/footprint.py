"""What an agent with four peers over two paths costs its node when nothing happens: memory, CPU, bytes.

Five hosts, TLS on, a report every 2 s; three run an etcd member that their agent probes. Agents are installed as on a
node: vagus, or vagus[etcd], alone in an environment. Beside them, as the yardstick, prometheus-node-exporter, scraped
every 2 s over loopback. Memory and CPU are the kernel's figures of the processes; bytes are counted by nftables in one
host: packets with their IP headers, and the same inside the tunnels' own packets.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "bench")]

import table
from until import until

from lab.harness import HostSpec, Lab
from lab.harness.hosts import INTERFACE, PORT, Host, PathName
from lab.harness.services import FLEET, MQTT_PORT, MQTT_TLS_PORT
from vagus_agent.config import Probe
from vagus_protocol import topics

VPS, MEMBERS, PLAIN = "vps", ("pi-a", "pi-b", "pi-c"), "pi-d"
HOSTS = (
    HostSpec(VPS, "cloud", frozenset({"broker", "controller"})),
    *(HostSpec(name, name, frozenset({"etcd"})) for name in MEMBERS),
    HostSpec(PLAIN, PLAIN),
)
SCRAPE_S = 2.0
EXPORTER_PORT = 9100
DAY_S = 86400.0
# What WireGuard adds to a packet over IPv4: IP 20, UDP 8, its own 32. Its padding to 16 bytes comes on top.
WIREGUARD_BYTES = 60
MB = 2**20
_SETTLE_S = 60.0
_WARM_UP_S = 20.0


def install(directory: Path, what: str) -> Path:
    """A virtual environment with `what` (a path, with extras) and what it needs, byte-compiled; its vagus-agent."""
    _say(f"installing {what}")
    subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True)
    pip = [str(directory / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, what], check=True)
    return directory / "bin" / "vagus-agent"


def start_agents(lab: Lab, directory: Path) -> None:
    plain = install(directory / "plain", f"{ROOT}")
    with_etcd = install(directory / "etcd", f"{ROOT}[etcd]")
    for host in lab.hosts.values():
        agent = with_etcd if "etcd" in host.roles else plain
        host.spawn([str(agent), "run", "--config", str(lab.write_agent(host))], name="agent")


@dataclass(frozen=True)
class Usage:
    """A process at a moment. Bytes; CPU seconds and context switches of all its threads since its start."""

    at: float
    rss: int
    pss: int
    anonymous: int
    threads: int
    cpu_s: float
    switches: int


def usage(pid: int) -> Usage:
    status = _fields(Path(f"/proc/{pid}/status").read_text())
    memory = _fields(Path(f"/proc/{pid}/smaps_rollup").read_text())
    cpu_ns = switches = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        # Nanoseconds on a CPU, user and system; /proc/PID/stat counts in ticks of 10 ms.
        cpu_ns += int((thread / "schedstat").read_text().split()[0])
        words = _fields((thread / "status").read_text())
        switches += int(words["voluntary_ctxt_switches"]) + int(words["nonvoluntary_ctxt_switches"])
    return Usage(
        at=time.monotonic(),
        rss=_kilobytes(status["VmRSS"]),
        pss=_kilobytes(memory["Pss"]),
        anonymous=_kilobytes(status["RssAnon"]),
        threads=int(status["Threads"]),
        cpu_s=cpu_ns / 1e9,
        switches=switches,
    )


def _fields(text: str) -> dict[str, str]:
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def _kilobytes(value: str) -> int:
    return int(value.removesuffix(" kB")) * 1024


# Key → (packets, bytes)
Counts = Mapping[tuple[str, ...], tuple[int, int]]


class Counters:
    """Packets and bytes in one host since the start, by nftables. Keys: ("mqtt", …), ("probe", peer, path, …),
    ("tunnel", peer, path, …); the last part is "in" or "out"."""

    def __init__(self, host: Host, peers: Sequence[Host]) -> None:
        self._host = host
        self._keys: dict[str, tuple[str, ...]] = {}
        port = Probe().port
        rules: dict[str, list[str]] = {"in": [], "out": []}
        for way, far, far_port, device in (
            ("in", "ip saddr", "sport", "iifname"),
            ("out", "ip daddr", "dport", "oifname"),
        ):
            rules[way].append(f"tcp {far_port} {MQTT_TLS_PORT} counter name {self._counter('mqtt', way)}")
            for peer in peers:
                for path, interface in INTERFACE.items():
                    probe = f'{device} "{interface}" {far} {peer.service} udp dport {port}'
                    # The byte behind the four of the magic: 1 is a probe, 2 its echo.
                    rules[way] += [
                        f"{probe} counter name {self._counter('probe', peer.name, path, way)}",
                        f"{probe} @th,96,8 1 counter name {self._counter('idle', peer.name, path, way)}",
                        f"{far} {peer.underlay} udp dport {PORT[path]} "
                        f"counter name {self._counter('tunnel', peer.name, path, way)}",
                    ]
        chains = [
            f"chain {way} {{ type filter hook {hook} priority 300; policy accept;\n" + "\n".join(rules[way]) + "\n}"
            for way, hook in (("in", "input"), ("out", "output"))
        ]
        counters = [f"counter {name} {{ }}" for name in self._keys]
        script = "table inet footprint {\n" + "\n".join([*counters, *chains]) + "\n}\n"
        host.run(["nft", "-f", "-"], input=script)

    def _counter(self, *key: str) -> str:
        name = f"c{len(self._keys)}"
        self._keys[name] = key
        return name

    def read(self) -> Counts:
        answer = self._host.run(["nft", "-j", "list", "counters", "table", "inet", "footprint"]).stdout
        found = (one["counter"] for one in json.loads(answer)["nftables"] if "counter" in one)
        return {self._keys[one["name"]]: (one["packets"], one["bytes"]) for one in found}


class Rates:
    """What was counted between two readings, per second."""

    def __init__(self, before: Counts, after: Counts, seconds: float) -> None:
        self._rates = {
            key: tuple((new - old) / seconds for old, new in zip(before[key], after[key], strict=True)) for key in after
        }

    def packets(self, *key: str) -> float:
        return self._sum(key, 0)

    def bytes(self, *key: str) -> float:
        return self._sum(key, 1)

    def _sum(self, key: tuple[str, ...], part: int) -> float:
        """Over all keys that begin with `key`."""
        return sum(rate[part] for each, rate in self._rates.items() if each[: len(key)] == key)


def processes(samples: Mapping[str, Sequence[tuple[Usage, Usage]]]) -> dict[str, dict[str, dict[str, float]]]:
    """Row → figure → spread, of (before, after) of one process over one window each."""
    figures = {}
    for name, windows in samples.items():
        figures[name] = {
            "rss_mb": table.spread([after.rss / MB for _, after in windows]),
            "pss_mb": table.spread([after.pss / MB for _, after in windows]),
            "anonymous_mb": table.spread([after.anonymous / MB for _, after in windows]),
            "cpu_percent": table.spread([100 * (b.cpu_s - a.cpu_s) / (b.at - a.at) for a, b in windows]),
            "threads": table.spread([after.threads for _, after in windows]),
            "switches_per_s": table.spread([(b.switches - a.switches) / (b.at - a.at) for a, b in windows]),
        }
    return figures


def measure(lab: Lab, seconds: float, count: int) -> dict[str, object]:
    exporter = lab[PLAIN].spawn(
        ["prometheus-node-exporter", f"--web.listen-address=127.0.0.1:{EXPORTER_PORT}"], name="node-exporter"
    )
    until(lambda: lab[PLAIN].listens(EXPORTER_PORT), "prometheus-node-exporter listens", _SETTLE_S)
    metrics = lab.publish(lab[PLAIN], EXPORTER_PORT) + "/metrics"
    rows = {
        "agent": [lab.process(name, "agent").pid for name in (PLAIN, VPS)],
        "agent, with etcd": [lab.process(name, "agent").pid for name in MEMBERS],
        "prometheus-node-exporter": [exporter.pid],
    }
    counters = Counters(lab[PLAIN], lab.others(lab[PLAIN]))
    _say(f"warming up for {_WARM_UP_S:.0f} s")
    _scrape_for(_WARM_UP_S, metrics)
    samples: dict[str, list[tuple[Usage, Usage]]] = {name: [] for name in rows}
    loads = []
    began, counted = time.monotonic(), counters.read()
    for number in range(count):
        before = {pid: usage(pid) for pids in rows.values() for pid in pids}
        _scrape_for(seconds / count, metrics)
        for name, pids in rows.items():
            samples[name] += [(before[pid], usage(pid)) for pid in pids]
        loads.append(os.getloadavg()[0])
        _say(f"sample {number + 1}/{count}, load {loads[-1]:.2f}")
    rates = Rates(counted, counters.read(), time.monotonic() - began)
    return {
        "seconds": seconds,
        "load": table.spread(loads),
        "processes": processes(samples),
        "bytes": _bytes(lab, rates),
    }


def _bytes(lab: Lab, rates: Rates) -> dict[str, float]:
    # The links to the etcd members carry nothing but probes; those to the broker's host, MQTT too.
    links: list[tuple[str, PathName]] = [(name, path) for name in MEMBERS for path in INTERFACE]
    sent = table.spread([rates.packets("idle", *link, "out") for link in links])
    return {
        "report_payload": float(len(_report(lab))),
        "mqtt_per_day": rates.bytes("mqtt") * DAY_S,
        "mqtt_in_tunnel_per_day": (rates.bytes("mqtt") + WIREGUARD_BYTES * rates.packets("mqtt")) * DAY_S,
        "link_probes_per_s": sent["median"],
        "link_probes_per_s_min": sent["min"],
        "link_probes_per_s_max": sent["max"],
        "link_per_day": sum(rates.bytes("probe", *link) for link in links) / len(links) * DAY_S,
        "link_in_tunnel_per_day": sum(rates.bytes("tunnel", *link) for link in links) / len(links) * DAY_S,
    }


def _report(lab: Lab) -> bytes:
    """A report as it is published."""
    broker = lab.the("broker")
    who = ["-u", "controller", "-P", lab.passwords["controller"]]
    argv = ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(MQTT_PORT), *who, "-W", "10", "-C", "1"]
    return broker.run([*argv, "-t", topics.node(FLEET, PLAIN, "report")]).stdout.strip().encode()


def _scrape_for(seconds: float, url: str) -> None:
    end = time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        with urllib.request.urlopen(url, timeout=5) as answer:
            answer.read()
        time.sleep(max(0.0, min(now + SCRAPE_S, end) - time.monotonic()))


def _settled(lab: Lab) -> bool:
    pairs = lab.api("/api/v1/fleet")["pairs"]
    return bool(pairs) and all(
        pair["status"] == "settled" and all(path["proven"] for path in pair["paths"]) for pair in pairs
    )


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


ALLOWED = {"agent": (36.0, 1.5), "agent, with etcd": (54.0, 1.5)}


def show(figures: Mapping[str, Any]) -> None:
    rows = []
    for name, row in figures["processes"].items():
        rss, cpu = ALLOWED.get(name, (None, None))
        rows.append(
            [
                name,
                _spread(row["rss_mb"], 1),
                f"{rss:.0f}" if rss else "",
                _spread(row["pss_mb"], 1),
                _spread(row["anonymous_mb"], 1),
                _spread(row["cpu_percent"], 2),
                f"{cpu:.1f}" if cpu else "",
                f"{row['threads']['median']:.0f}",
                f"{row['switches_per_s']['median']:.0f}",
            ]
        )
    load = figures["load"]
    table.show(
        f"footprint in a steady state, medians (range); {figures['seconds']:.0f} s, load average {_spread(load, 1)}",
        ["", "RSS MB", "allowed", "PSS MB", "anonymous MB", "CPU %", "allowed", "threads", "switches/s"],
        rows,
    )
    bytes_ = figures["bytes"]
    table.show(
        "bytes, both directions",
        ["", "MB a day, IP packets", "MB a day, in a tunnel", ""],
        [
            [
                "reports (MQTT, TLS)",
                f"{bytes_['mqtt_per_day'] / 1e6:.1f}",
                f"{bytes_['mqtt_in_tunnel_per_day'] / 1e6:.1f}",
                f"one report: {bytes_['report_payload']:.0f} bytes of JSON",
            ],
            [
                "probes of one link",
                f"{bytes_['link_per_day'] / 1e6:.1f}",
                f"{bytes_['link_in_tunnel_per_day'] / 1e6:.1f}",
                f"{bytes_['link_probes_per_s']:.2f} ({bytes_['link_probes_per_s_min']:.2f}–"
                f"{bytes_['link_probes_per_s_max']:.2f}) probes a second from this end, bursts included",
            ],
        ],
    )


def _spread(stats: Mapping[str, float], digits: int) -> str:
    return f"{stats['median']:.{digits}f} ({stats['min']:.{digits}f}–{stats['max']:.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to measure (default 60)")
    parser.add_argument("--samples", type=int, default=6, help="windows of that time (default 6)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vagus-footprint-") as directory, Lab(HOSTS, tls=True) as lab:
        lab.start_broker()
        start_agents(lab, Path(directory))
        lab.wait_routed()
        lab.start_etcd()
        lab.start_controller()
        try:
            until(lambda: _settled(lab), "a lab that has settled", _SETTLE_S)
        except TimeoutError as error:
            raise SystemExit(str(error)) from None
        figures = measure(lab, options.seconds, options.samples)
    show(figures)
    table.write(options.json, figures)


if __name__ == "__main__":
    main()
