"""The machine's load, memory, disks, temperature and named processes, by psutil and a few reads of /proc and /sys.

It runs in the agent's event loop every report, so it must be cheap: counters are read once and compared with the last
read, and searches (which pids, which sensors) are spread over many reads. What the machine lacks is absent, never 0;
so is every rate at the first read and after its counter went backwards. psutil's own reads follow `psutil.PROCFS_PATH`.
"""

from __future__ import annotations

import glob
import hashlib
import os
from typing import Final, NamedTuple

import psutil

from vagus_agent import config
from vagus_agent.probes.busiest import Busiest, Look
from vagus_protocol.messages import Disk, DiskIo, Pressure, Process, System, Throttling

# A read looks at the names of one pid in so many: a new process is found within this many reads (16 s at the default
# interval), and no read pays for all of them.
PID_SLICES: Final = 8
# Devices and sensors are searched for once in so many seconds.
RESCAN_S: Final = 60.0
# Tasks per core, running or blocked, at which it is looked who takes the CPU.
_BUSY_PER_CORE: Final = 2
# Counts of tasks in one report's interval: more say better what the machine had to do.
_SAMPLES: Final = 4
# The kernel keeps 15 bytes of a process name (TASK_COMM_LEN less the zero).
COMM_LENGTH: Final = 15
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
# Thermal zones and hwmon chips that stand for the CPU; others (disks, batteries, Wi-Fi) say nothing about load.
_CPU_SENSORS: Final = ("cpu", "soc", "x86_pkg", "coretemp", "k10temp", "zenpower")


def boot_id(proc: str = "/proc") -> str:
    """The kernel's id of this boot; "" when it cannot be read."""
    return (_read(f"{proc}/sys/kernel/random/boot_id") or "").strip()


def machine(path: str = "/etc/machine-id") -> str:
    """A hash of the machine's id, since that itself is not for networks (machine-id(5)); "" when it has none."""
    found = (_read(path) or "").strip()
    return hashlib.blake2b(found.encode(), key=b"vagus", digest_size=8).hexdigest() if found else ""


class _Cpu(NamedTuple):
    """/proc/stat's first line in ticks: iowait is known to run backwards now and then (proc(5))."""

    user: int
    system: int
    iowait: int
    steal: int
    idle: int


class _Ticks(NamedTuple):
    """One process: `started` tells a reused pid from the old one."""

    started: int
    cpu: int
    rss_bytes: int


class _Device(NamedTuple):
    ops: int
    read_bytes: int
    written_bytes: int
    wait_ms: int
    busy_ms: int


class SystemProbe:
    """Call `read` once per report; rates are over the time since the last call. `sample` between, a few times: one
    moment's count of tasks says little, their mean over the interval what the machine had to do. `expect` and `awake`
    do that without a wake-up of their own, which costs ten times what a count does."""

    def __init__(self, report: config.Report, proc: str = "/proc", sys: str = "/sys") -> None:
        self._report = report
        self._proc = proc
        self._sys = sys
        self._names = {name[:COMM_LENGTH]: name for name in report.processes}
        self._read_at: float | None = None
        self._scanned_at: float | None = None
        self._turn = 0
        self._cores = os.cpu_count() or 1
        self._cpu: _Cpu | None = None
        self._pids: dict[int, str] = {}
        self._ticks: dict[int, _Ticks] = {}
        self._devices: dict[str, _Device] = {}
        self._disks: frozenset[str] = frozenset()
        self._temperatures: tuple[str, ...] = ()
        self._throttled: str = ""
        self._undervoltage: str = ""
        # tasks that ran or were blocked, since the last report
        self._active = 0
        self._samples = 0
        # when to count them until the next report, the soonest last
        self._moments: list[float] = []
        self._busiest = Busiest(proc, self._look)

    def expect(self, due: float, interval: float) -> None:
        """The next `read` will be at `due`, and counts too: the others are spread over the `interval` before it."""
        self._moments = [due - left * interval / _SAMPLES for left in range(1, _SAMPLES)]

    def awake(self, now: float) -> None:
        """Call whenever the agent is awake anyway: a `sample`, when it is time for one."""
        if self._moments and now >= self._moments[-1]:
            self._moments.pop()
            self.sample(now)

    def sample(self, now: float) -> None:
        """Count the tasks of this moment. Never raises."""
        stat = _read(f"{self._proc}/stat", 1 << 16) or ""
        tail = stat[stat.rfind("procs_running") :].split(maxsplit=4) if "procs_running" in stat else []
        if len(tail) >= 4 and tail[2] == "procs_blocked":
            self._count(_integer(tail[1]), _integer(tail[3]), max(1, self._cores), now)

    def _count(self, running: int | None, blocked: int | None, cores: int, now: float) -> None:
        if running is None:
            return
        # The agent itself runs while it reads.
        active = max(0, running - 1) + (blocked or 0)
        self._active += active
        self._samples += 1
        self._busiest.step(now, active >= _BUSY_PER_CORE * cores)

    def reconfigure(self, report: config.Report) -> None:
        """Other processes and mounts from now on."""
        self._report = report
        self._names = {name[:COMM_LENGTH]: name for name in report.processes}
        # All processes are looked at again, by the next read.
        self._pids, self._turn = {}, 0

    def read(self, now: float) -> System:
        """The machine at `now` (monotonic seconds). Never raises: what cannot be read is absent."""
        if self._scanned_at is None or now - self._scanned_at >= RESCAN_S:
            self._find_devices()
            self._scanned_at = now
        elapsed = now - self._read_at if self._read_at is not None else 0.0
        self._read_at = now

        load1, load5, load15 = self._load()
        # Its line of interrupts is long where there are many; what is wanted stands behind it.
        stat = _Stat.parse(_read(f"{self._proc}/stat", 1 << 16) or "")
        cpu = _shares(self._cpu, stat.cpu)
        self._cpu = stat.cpu
        self._cores = stat.cores or os.cpu_count() or 1
        self._count(stat.running, stat.blocked, self._cores, now)
        active = self._active / self._samples if self._samples else None
        self._active = self._samples = 0
        segments = _tcp(_read(f"{self._proc}/net/snmp"))
        net = self._net()
        memory = self._memory()
        return System(
            cores=self._cores,
            load1=load1,
            load5=load5,
            load15=load15,
            uptime_s=self._uptime(),
            # The agent itself runs while it reads.
            runnable=None if stat.running is None else max(0, stat.running - 1),
            blocked=stat.blocked,
            active_mean=active,
            cpu_user=cpu[0],
            cpu_system=cpu[1],
            cpu_iowait=cpu[2],
            cpu_steal=cpu[3],
            cpu_idle=cpu[4],
            psi_cpu=_pressure(_read(f"{self._proc}/pressure/cpu")),
            psi_io=_pressure(_read(f"{self._proc}/pressure/io")),
            psi_memory=_pressure(_read(f"{self._proc}/pressure/memory")),
            memory_bytes=memory.total,
            memory_available_bytes=memory.available,
            swap_bytes=memory.swap_total,
            swap_used_bytes=memory.swap_used,
            disks=self._usage(),
            disk_io=self._disk_io(elapsed),
            net_errors=net[0] if net else None,
            net_drops=net[1] if net else None,
            tcp_retransmits=segments.get("RetransSegs"),
            tcp_segments=segments.get("OutSegs"),
            temperature_c=self._temperature(),
            throttling=self._throttling(),
            processes=self._processes(elapsed),
            busiest=self._busiest.found,
        )

    def _load(self) -> tuple[float, float, float]:
        try:
            one, five, fifteen = (_read(f"{self._proc}/loadavg") or "").split()[:3]
            return float(one), float(five), float(fifteen)
        except ValueError:
            return os.getloadavg()

    def _uptime(self) -> float:
        try:
            return float((_read(f"{self._proc}/uptime") or "").split()[0])
        except (IndexError, ValueError):
            return 0.0

    def _memory(self) -> _Memory:
        try:
            memory, swap = psutil.virtual_memory(), psutil.swap_memory()
        except (OSError, ValueError, KeyError):
            return _Memory(None, None, None, None)
        # A machine without swap has none, not one of 0 bytes.
        return _Memory(memory.total, memory.available, swap.total or None, swap.used if swap.total else None)

    def _usage(self) -> tuple[Disk, ...]:
        disks = []
        for mount in self._report.mounts:
            try:
                usage = psutil.disk_usage(mount)
            except OSError:
                continue
            disks.append(Disk(mount=mount, used=min(1.0, usage.percent / 100), free_bytes=usage.free))
        return tuple(disks)

    def _disk_io(self, elapsed: float) -> tuple[DiskIo, ...]:
        last = self._devices
        self._devices = {}
        try:
            counters = psutil.disk_io_counters(perdisk=True, nowrap=False) or {}
        except (OSError, ValueError, NotImplementedError):
            return ()
        rates = []
        for name in sorted(self._disks.intersection(counters)):
            io = counters[name]
            device = self._devices[name] = _Device(
                io.read_count + io.write_count,
                io.read_bytes,
                io.write_bytes,
                io.read_time + io.write_time,
                io.busy_time,
            )
            before = last.get(name)
            if before is None or elapsed <= 0 or any(new < old for new, old in zip(device, before, strict=True)):
                continue
            ops = device.ops - before.ops
            rates.append(
                DiskIo(
                    device=name,
                    busy=min(1.0, (device.busy_ms - before.busy_ms) / 1000 / elapsed),
                    read_bps=(device.read_bytes - before.read_bytes) / elapsed,
                    write_bps=(device.written_bytes - before.written_bytes) / elapsed,
                    await_s=(device.wait_ms - before.wait_ms) / 1000 / ops if ops else None,
                )
            )
        return tuple(rates)

    def _net(self) -> tuple[int, int] | None:
        """(errors, drops) since boot, both directions, of all interfaces but lo."""
        try:
            counters = psutil.net_io_counters(pernic=True, nowrap=False)
        except (OSError, ValueError):
            return None
        nics = [nic for name, nic in counters.items() if name != "lo"]
        if not nics:
            return None
        return sum(n.errin + n.errout for n in nics), sum(n.dropin + n.dropout for n in nics)

    def _temperature(self) -> float | None:
        """The hottest CPU sensor. Sensors count in thousandths of a degree."""
        values = [value / 1000 for path in self._temperatures if (value := _integer(_read(path))) is not None]
        return max(values, default=None)

    def _throttling(self) -> Throttling | None:
        """The firmware's flags where it shows them, else the voltage monitor's alarm alone, else absent."""
        flags = _integer(_read(self._throttled), 16) if self._throttled else None
        alarm = _integer(_read(self._undervoltage)) if self._undervoltage else None
        if flags is None and alarm is None:
            return None
        # Bits of the firmware's GET_THROTTLED: 0-3 now, 16-19 the same since boot.
        flags = flags or 0
        return Throttling(
            undervoltage=bool(flags & 1 << 0 or alarm),
            frequency_capped=bool(flags & 1 << 1),
            throttled=bool(flags & 1 << 2),
            soft_temp_limit=bool(flags & 1 << 3),
            undervoltage_since_boot=bool(flags & 1 << 16 or alarm),
            throttled_since_boot=bool(flags & 1 << 18),
        )

    def _processes(self, elapsed: float) -> tuple[Process, ...]:
        """Per configured name. A process counts from the second read that sees it: before, its CPU share is unknown."""
        self._find_pids()
        last = self._ticks
        self._ticks = {}
        found: dict[str, Process] = {}
        for pid, name in list(self._pids.items()):
            ticks = _parse_ticks(_read(f"{self._proc}/{pid}/stat") or "")
            before = last.get(pid)
            if ticks is None or (before is not None and before.started != ticks.started):
                # Gone, or another process under its number: the next search will tell.
                del self._pids[pid]
                continue
            self._ticks[pid] = ticks
            if before is None or elapsed <= 0 or ticks.cpu < before.cpu:
                continue
            group = found.get(name)
            found[name] = Process(
                name=name,
                count=1 + (group.count if group else 0),
                cpu=(ticks.cpu - before.cpu) / _TICKS / elapsed + (group.cpu if group else 0.0),
                rss_bytes=ticks.rss_bytes + (group.rss_bytes if group else 0),
            )
        return tuple(found[name] for name in self._report.processes if name in found)

    def _look(self, pid: str) -> Look | None:
        stat = _read(f"{self._proc}/{pid}/stat") or ""
        ticks = _parse_ticks(stat)
        if ticks is None:
            return None
        name = stat[stat.find("(") + 1 : stat.rfind(")")]
        return Look(name, ticks.started, ticks.cpu / _TICKS, ticks.rss_bytes)

    def _find_pids(self) -> None:
        if not self._names:
            return
        try:
            entries = os.listdir(self._proc)
        except OSError:
            return
        first = self._turn == 0
        share = self._turn % PID_SLICES
        self._turn += 1
        for entry in entries:
            if not entry.isdecimal():
                continue
            pid = int(entry)
            if (first or pid % PID_SLICES == share) and pid not in self._pids:
                comm = (_read(f"{self._proc}/{entry}/comm") or "").rstrip("\n")
                # k3s calls itself k3s-server or k3s-agent.
                name = self._names.get(comm) or self._names.get(comm.removesuffix("-server").removesuffix("-agent"))
                if name is not None:
                    self._pids[pid] = name

    def _find_devices(self) -> None:
        """Physical disks (loop, zram, dm, md have no `device`), CPU sensors, and the Raspberry Pi's firmware."""
        self._disks = frozenset(path.split("/")[-2] for path in glob.glob(f"{self._sys}/block/*/device"))
        zones = [
            f"{zone}/temp"
            for zone in glob.glob(f"{self._sys}/class/thermal/thermal_zone*")
            if (_read(f"{zone}/type") or "").startswith(_CPU_SENSORS)
        ]
        self._undervoltage = ""
        for chip in glob.glob(f"{self._sys}/class/hwmon/hwmon*"):
            name = (_read(f"{chip}/name") or "").strip()
            if name.startswith(_CPU_SENSORS):
                zones += glob.glob(f"{chip}/temp*_input")
            elif name == "rpi_volt":
                self._undervoltage = f"{chip}/in0_lcrit_alarm"
        self._temperatures = tuple(zones)
        # soc/soc:firmware; on a Pi 5 the soc carries its address in its name.
        self._throttled = next(iter(glob.glob(f"{self._sys}/devices/platform/soc*/*firmware/get_throttled")), "")


class _Memory(NamedTuple):
    total: int | None
    available: int | None
    swap_total: int | None
    swap_used: int | None


class _Stat(NamedTuple):
    cpu: _Cpu | None
    cores: int
    running: int | None
    blocked: int | None

    @classmethod
    def parse(cls, text: str) -> _Stat:
        """/proc/stat; a part that is not there is None (cores: 0)."""
        cpu, cores, running, blocked = None, 0, None, None
        for line in text.splitlines():
            if line.startswith("cpu "):
                try:
                    ticks = [int(field) for field in line.split()[1:9]]
                    user, nice, system, idle, iowait, irq, softirq, steal = ticks
                except ValueError:
                    continue
                cpu = _Cpu(user + nice, system + irq + softirq, iowait, steal, idle)
            elif line.startswith("cpu"):
                cores += 1
            elif line.startswith("procs_running"):
                running = _integer(line[13:])
            elif line.startswith("procs_blocked"):
                blocked = _integer(line[13:])
        return cls(cpu, cores, running, blocked)


def _shares(before: _Cpu | None, after: _Cpu | None) -> tuple[float | None, ...]:
    """Share of each state of the time between, in the order of `_Cpu`; one that ran backwards is absent."""
    if before is None or after is None:
        return (None,) * len(_Cpu._fields)
    deltas = [new - old for new, old in zip(after, before, strict=True)]
    total = sum(delta for delta in deltas if delta > 0)
    return tuple(delta / total if total > 0 and delta >= 0 else None for delta in deltas)


def _pressure(text: str | None) -> Pressure | None:
    """/proc/pressure/*: `some avg10=1.53 …`, in percent. `full` is absent for cpu before kernel 5.13."""
    shares: dict[str, float] = {}
    for line in (text or "").splitlines():
        fields = line.split()
        try:
            shares[fields[0]] = min(1.0, max(0.0, float(fields[1].removeprefix("avg10=")) / 100))
        except (IndexError, ValueError):
            continue
    return Pressure(some=shares["some"], full=shares.get("full")) if "some" in shares else None


def _tcp(text: str | None) -> dict[str, int]:
    """TCP's counters since boot: /proc/net/snmp has a line of names and a line of values."""
    rows = [line.split()[1:] for line in (text or "").splitlines() if line.startswith("Tcp:")]
    if len(rows) != 2:
        return {}
    return {name: count for name, value in zip(*rows, strict=False) if (count := _integer(value)) is not None}


def _parse_ticks(stat: str) -> _Ticks | None:
    """/proc/PID/stat; the name in parentheses may hold anything, so count from the last one. A zombie is gone."""
    fields = stat.rpartition(")")[2].split()
    if len(fields) < 22 or fields[0] in "ZX":
        return None
    # proc(5) counts from 1 with pid and comm first: utime 14, stime 15, starttime 22, rss 24.
    return _Ticks(int(fields[19]), int(fields[11]) + int(fields[12]), int(fields[21]) * _PAGE)


def _integer(text: str | None, base: int = 10) -> int | None:
    try:
        return int(text or "", base)
    except ValueError:
        return None


def _read(path: str, size: int = 4096) -> str | None:
    """A file of /proc or /sys, at most `size` bytes, in one read; None when there is none or the kernel refuses."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(fd, size).decode("utf-8", "replace")
    except OSError:
        return None
    finally:
        os.close(fd)
