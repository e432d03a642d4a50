"""The machine's probe, on this machine and on copies of /proc and /sys of others."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from vagus_agent.config import Report
from vagus_agent.probes.system import PID_SLICES, RESCAN_S, SystemProbe, boot_id
from vagus_protocol.messages import Pressure, System, Throttling

PI_STAT = """\
cpu  1000 200 300 8000 400 10 20 70 0 0
cpu0 250 50 75 2000 100 2 5 20 0 0
cpu1 250 50 75 2000 100 2 5 20 0 0
cpu2 250 50 75 2000 100 3 5 20 0 0
cpu3 250 50 75 2000 100 3 5 10 0 0
intr 123456 1 2 3
ctxt 99
btime 1700000000
processes 4242
procs_running 26
procs_blocked 3
softirq 5 1 2
"""
SNMP = """\
Ip: Forwarding DefaultTTL
Ip: 1 64
Tcp: RtoAlgorithm ActiveOpens InSegs OutSegs RetransSegs InErrs
Tcp: 1 37 10827 5927 {retransmits} 0
"""
NET_DEV = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed
    lo:  3193  29  7  7  0  0  0  0  3193  29  7  7  0  0  0  0
  eth0: 46982930  10880  1  2  0  0  0  0  641949  5987  3  4  0  0  0  0
 wlan0:  0  0  0  5  0  0  0  0  0  0  0  0  0  0  0  0
"""
MEMINFO = """\
MemTotal:        3884360 kB
MemFree:          111000 kB
MemAvailable:    1942180 kB
Buffers:           10000 kB
Cached:           900000 kB
Active:           900000 kB
Inactive:         900000 kB
Shmem:              1000 kB
Slab:              30000 kB
SReclaimable:      20000 kB
SwapTotal:        102400 kB
SwapFree:          51200 kB
"""


class Host:
    """A copy of another machine's /proc and /sys."""

    def __init__(self, root: Path) -> None:
        self.proc, self.sys = root / "proc", root / "sys"
        self.put("proc/stat", PI_STAT)
        self.put("proc/loadavg", "25.10 18.05 9.50 26/310 4242\n")
        self.put("proc/uptime", "86400.50 12345.00\n")
        self.put("proc/meminfo", MEMINFO)
        self.put("proc/vmstat", "pswpin 0\npswpout 0\n")
        self.put("proc/net/dev", NET_DEV)
        self.put("proc/net/snmp", SNMP.format(retransmits=12))
        self.disk(reads=100, written_sectors=1000, wait_ms=500, busy_ms=200)
        self.put("sys/block/mmcblk0/device/type", "SD\n")

    def put(self, path: str, text: str) -> None:
        file = self.proc.parent / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def disk(self, *, reads: int, written_sectors: int, wait_ms: int, busy_ms: int) -> None:
        line = f"{reads} 0 2000 {wait_ms} 0 0 {written_sectors} 0 0 {busy_ms} 0"
        self.put("proc/diskstats", f" 179 0 mmcblk0 {line}\n 179 1 mmcblk0p1 {line}\n   7 0 loop0 {line}\n")

    def process(self, pid: int, comm: str, *, started: int, ticks: int, pages: int = 100, state: str = "S") -> None:
        self.put(f"proc/{pid}/comm", f"{comm}\n")
        fields = [state, *["0"] * 10, str(ticks), "0", *["0"] * 6, str(started), "0", str(pages), *["0"] * 10]
        self.put(f"proc/{pid}/stat", f"{pid} ({comm}) {' '.join(fields)}\n")

    def kill(self, pid: int) -> None:
        for file in (self.proc / str(pid)).iterdir():
            file.unlink()
        (self.proc / str(pid)).rmdir()

    def probe(self, *processes: str) -> SystemProbe:
        return SystemProbe(Report(processes=processes, mounts=("/",)), str(self.proc), str(self.sys))


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host(tmp_path)
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(host.proc))
    return host


def test_this_machine() -> None:
    probe = SystemProbe(Report(processes=(Path(f"/proc/{os.getpid()}/comm").read_text().strip(),)))
    first = probe.read(10.0)
    # Some of this process's time passes between the reads.
    sum(range(3_000_000))
    second = probe.read(10.5)
    assert first.cpu_user is None
    assert first.disk_io == ()
    assert first.processes == ()
    assert second.cores == os.cpu_count()
    assert second.uptime_s > 0
    shares = (second.cpu_user, second.cpu_system, second.cpu_iowait, second.cpu_steal, second.cpu_idle)
    assert sum(share or 0.0 for share in shares) == pytest.approx(1.0)
    assert second.memory_bytes == psutil.virtual_memory().total
    assert second.disks[0].mount == "/"
    assert second.processes[0].rss_bytes > 1 << 20
    assert len(boot_id()) == 36


def test_a_pi_at_load_25(host: Host) -> None:
    probe = host.probe()
    first = probe.read(100.0)
    assert (first.cores, first.load1, first.load5, first.load15) == (4, 25.10, 18.05, 9.50)
    assert (first.runnable, first.blocked, first.uptime_s) == (25, 3, 86400.5)
    assert (first.memory_bytes, first.memory_available_bytes) == (3884360 * 1024, 1942180 * 1024)
    assert (first.swap_bytes, first.swap_used_bytes) == (102400 * 1024, 51200 * 1024)
    assert (first.net_errors, first.net_drops, first.tcp_retransmits, first.tcp_segments) == (4, 11, 12, 5927)
    assert (first.cpu_user, first.cpu_idle, first.disk_io) == (None, None, ())

    host.put("proc/stat", PI_STAT.replace("1000 200 300 8000 400 10 20 70", "1060 200 310 8010 410 12 28 80", 1))
    host.disk(reads=110, written_sectors=3000, wait_ms=900, busy_ms=1700)
    second = probe.read(102.0)
    assert second.cpu_user == pytest.approx(0.545, abs=0.001)
    assert second.cpu_system == pytest.approx(0.182, abs=0.001)
    assert second.cpu_iowait == second.cpu_steal == second.cpu_idle == pytest.approx(0.091, abs=0.001)
    (disk,) = second.disk_io
    assert (disk.device, disk.busy, disk.write_bps, disk.read_bps) == ("mmcblk0", 0.75, 512_000.0, 0.0)
    assert disk.await_s == pytest.approx(0.04)


def counts(running: int, blocked: int) -> str:
    return PI_STAT.replace("procs_running 26", f"procs_running {running}").replace(
        "procs_blocked 3", f"procs_blocked {blocked}"
    )


def test_tasks_are_counted_between_reports_too(host: Host) -> None:
    probe = host.probe()
    assert probe.read(100.0).active_mean == 28.0
    for number, (running, blocked) in enumerate(((1, 0), (3, 2), (1, 0))):
        host.put("proc/stat", counts(running, blocked))
        probe.sample(100.5 + number / 2)
    host.put("proc/stat", counts(9, 4))
    second = probe.read(102.0)
    # The agent itself is no task of the machine's: 0, 4, 0 and 12.
    assert (second.active_mean, second.runnable, second.blocked) == (4.0, 8, 4)
    assert probe.read(104.0).active_mean == 12.0


def test_they_are_counted_when_the_agent_is_awake_anyway_four_times_a_report(host: Host) -> None:
    probe = host.probe()
    probe.read(100.0)
    for report in range(3):
        began = 100.0 + 2 * report
        probe.expect(began + 2, 2.0)
        for wake in range(1, 20):
            host.put("proc/stat", counts(1 + wake**2, 0))
            probe.awake(began + wake / 10)
        host.put("proc/stat", counts(401, 0))
        # At half a second, one, one and a half, and at the report itself.
        assert probe.read(began + 2).active_mean == (5**2 + 10**2 + 15**2 + 20**2) / 4


def test_who_sleeps_until_the_report_counts_them_then(host: Host) -> None:
    probe = host.probe()
    probe.read(100.0)
    probe.expect(102.0, 2.0)
    host.put("proc/stat", counts(4, 0))
    assert probe.read(102.0).active_mean == 3.0


@pytest.mark.parametrize(
    "stat", ["", "procs_running", "procs_running x\nprocs_blocked y\n", "procs_running 5\nsoftirq 1 2\n"]
)
def test_a_count_that_cannot_be_read_is_none(host: Host, stat: str) -> None:
    probe = host.probe()
    probe.read(100.0)
    host.put("proc/stat", stat)
    probe.sample(101.0)
    host.put("proc/stat", counts(3, 0))
    assert probe.read(102.0).active_mean == 2.0


def test_at_load_the_busiest_are_named_whoever_they_are(host: Host) -> None:
    hertz = os.sysconf("SC_CLK_TCK")
    probe = host.probe()
    hogs = {500: "python (x)", 501: "python (x)", 502: "sh"}
    for turn in range(12):
        for pid, name in hogs.items():
            host.process(pid, name, started=7, ticks=turn * hertz if name != "sh" else 0)
        probe.sample(100.0 + turn)
    system = probe.read(112.0)
    (busiest,) = system.busiest
    assert (busiest.name, busiest.count, busiest.cpu) == ("python (x)", 2, pytest.approx(2.0, rel=0.1))
    host.put("proc/stat", counts(2, 0))
    assert probe.read(114.0).busiest == ()


def test_while_it_is_calm_nobody_is_looked_at(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.put("proc/stat", counts(8, 0))
    host.process(500, "sh", started=7, ticks=0)
    probe = host.probe()
    monkeypatch.setattr(probe, "_look", lambda pid: pytest.fail(f"{pid} was looked at"))
    for turn in range(9):
        probe.sample(100.0 + turn)


def test_what_the_machine_lacks_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
    probe = SystemProbe(Report(mounts=("/no/such/mount",)), str(tmp_path), str(tmp_path))
    probe.read(0.0)
    system = probe.read(2.0)
    load = (system.load1, system.load5, system.load15)
    assert system == System(cores=os.cpu_count() or 1, load1=load[0], load5=load[1], load15=load[2], uptime_s=0.0)
    assert boot_id(str(tmp_path)) == ""


def test_a_machine_without_swap_and_network_has_none_of_them_not_zero(host: Host) -> None:
    host.put("proc/meminfo", MEMINFO.replace("102400 kB", "0 kB").replace("51200 kB", "0 kB"))
    host.put("proc/net/dev", "".join(line for line in NET_DEV.splitlines(keepends=True) if "0:" not in line))
    system = host.probe().read(0.0)
    assert (system.swap_bytes, system.swap_used_bytes) == (None, None)
    assert (system.net_errors, system.net_drops) == (None, None)
    assert system.memory_bytes is not None


def test_a_counter_that_ran_backwards_is_absent(host: Host) -> None:
    probe = host.probe()
    probe.read(0.0)
    host.put("proc/stat", PI_STAT.replace("1000 200 300 8000 400", "1050 200 300 8050 390", 1))
    host.disk(reads=5, written_sectors=0, wait_ms=1, busy_ms=1)
    system = probe.read(2.0)
    assert (system.cpu_user, system.cpu_idle, system.cpu_iowait) == (0.5, 0.5, None)
    assert system.disk_io == ()
    host.disk(reads=5, written_sectors=0, wait_ms=1, busy_ms=1)
    (disk,) = probe.read(4.0).disk_io
    assert (disk.busy, disk.await_s) == (0.0, None)


def test_no_time_between_two_reads_gives_no_rates(host: Host) -> None:
    host.process(7, "etcd", started=50, ticks=100)
    probe = host.probe("etcd")
    probe.read(1.0)
    host.disk(reads=500, written_sectors=3000, wait_ms=900, busy_ms=1700)
    system = probe.read(1.0)
    assert (system.disk_io, system.processes, system.cpu_user) == ((), (), None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "some avg10=12.50 avg60=0.19 avg300=0.18 total=6709370\nfull avg10=3.00 avg60=0.00 avg300=0.00 total=0\n",
            Pressure(some=0.125, full=0.03),
        ),
        ("some avg10=50.00 avg60=0.19 avg300=0.18 total=6709370\n", Pressure(some=0.5)),
        ("", None),
        ("garbage\n", None),
    ],
)
def test_pressure(host: Host, text: str, expected: Pressure | None) -> None:
    host.put("proc/pressure/cpu", text)
    system = host.probe().read(0.0)
    assert system.psi_cpu == expected
    assert system.psi_io is None


def test_temperature_is_the_hottest_cpu_sensor(host: Host) -> None:
    host.put("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n")
    host.put("sys/class/thermal/thermal_zone0/temp", "61328\n")
    host.put("sys/class/thermal/thermal_zone1/type", "iwlwifi_1\n")
    host.put("sys/class/thermal/thermal_zone1/temp", "90000\n")
    host.put("sys/class/hwmon/hwmon0/name", "coretemp\n")
    host.put("sys/class/hwmon/hwmon0/temp1_input", "64500\n")
    host.put("sys/class/hwmon/hwmon1/name", "nvme\n")
    host.put("sys/class/hwmon/hwmon1/temp1_input", "80000\n")
    assert host.probe().read(0.0).temperature_c == 64.5


def test_sensors_that_appear_later_are_found(host: Host) -> None:
    probe = host.probe()
    assert probe.read(0.0).temperature_c is None
    host.put("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n")
    host.put("sys/class/thermal/thermal_zone0/temp", "50000\n")
    assert probe.read(RESCAN_S).temperature_c == 50.0


@pytest.mark.parametrize(
    ("flags", "alarm", "expected"),
    [
        ("0\n", None, Throttling()),
        (
            "50005\n",
            None,
            Throttling(undervoltage=True, throttled=True, undervoltage_since_boot=True, throttled_since_boot=True),
        ),
        ("0x2\n", None, Throttling(frequency_capped=True)),
        ("8\n", "0\n", Throttling(soft_temp_limit=True)),
        ("0\n", "1\n", Throttling(undervoltage=True, undervoltage_since_boot=True)),
        (None, "1\n", Throttling(undervoltage=True, undervoltage_since_boot=True)),
        (None, "0\n", Throttling()),
        ("nonsense\n", None, None),
        (None, None, None),
    ],
)
def test_raspberry_pi_throttling(host: Host, flags: str | None, alarm: str | None, expected: Throttling | None) -> None:
    if flags is not None:
        host.put("sys/devices/platform/soc/soc:firmware/get_throttled", flags)
    if alarm is not None:
        host.put("sys/class/hwmon/hwmon1/name", "rpi_volt\n")
        host.put("sys/class/hwmon/hwmon1/in0_lcrit_alarm", alarm)
    assert host.probe().read(0.0).throttling == expected


def test_named_processes_are_summed_by_name(host: Host) -> None:
    hertz, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    host.process(10, "tailscaled", started=5, ticks=0, pages=10)
    host.process(11, "k3s-server", started=6, ticks=0)
    host.process(12, "k3s-agent", started=6, ticks=0)
    host.process(13, "etcdctl", started=6, ticks=0)
    host.process(14, "a (b) c", started=7, ticks=0)
    probe = host.probe("tailscaled", "k3s", "etcd", "a (b) c")
    assert probe.read(0.0).processes == ()
    host.process(10, "tailscaled", started=5, ticks=hertz, pages=20)
    host.process(11, "k3s-server", started=6, ticks=2 * hertz)
    host.process(12, "k3s-agent", started=6, ticks=hertz)
    processes = {process.name: process for process in probe.read(2.0).processes}
    assert list(processes) == ["tailscaled", "k3s", "a (b) c"]
    assert (processes["tailscaled"].cpu, processes["tailscaled"].rss_bytes) == (0.5, 20 * page)
    assert (processes["k3s"].count, processes["k3s"].cpu) == (2, 1.5)


def test_a_process_that_vanishes_and_a_reused_pid(host: Host) -> None:
    host.process(10, "etcd", started=5, ticks=100)
    probe = host.probe("etcd")
    probe.read(0.0)
    assert probe.read(2.0).processes[0].count == 1
    host.kill(10)
    assert probe.read(4.0).processes == ()

    host.process(10, "etcd", started=900, ticks=1)
    times = [6.0 + 2 * turn for turn in range(PID_SLICES + 2)]
    assert [bool(probe.read(now).processes) for now in times][-1], "found again within one turn of all slices"
    host.process(10, "bash", started=2000, ticks=50_000)
    assert [probe.read(40.0 + 2 * turn).processes for turn in range(PID_SLICES + 2)] == [()] * (PID_SLICES + 2)


def test_a_zombie_does_not_count(host: Host) -> None:
    host.process(10, "etcd", started=5, ticks=100, state="Z")
    probe = host.probe("etcd")
    probe.read(0.0)
    assert probe.read(2.0).processes == ()


def test_importing_the_probe_imports_nothing_heavy() -> None:
    code = (
        "import sys;"
        "from vagus_agent.probes import etcd, services, system, tailscale;"
        "sys.exit(', '.join({'grpc', 'etcd3', 'google.protobuf', 'pyroute2', 'http.client'} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
