"""A host on this machine: one process tree in its own network, mount, PID and UTS namespaces.

The host's PID 1 is a shell that waits for end of file on a pipe whose other end only we hold. So a host cannot outlive
its maker: however that one ends, SIGKILL included, the pipe closes, PID 1 exits, and the kernel kills every process of
the host (frozen ones too) and takes its interfaces, rules, routes and mounts away with it. Nothing has a name that
could collide with another lab's or be left behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

_CLONE_NEWPID = 0x20000000
_libc = ctypes.CDLL(None, use_errno=True)
_spawning = threading.Lock()
_GONE_S = 60.0

# A host's own /proc, /sys, /run, boot id and machine id, which is kept in its directory: two machines with one id are
# clones. `/proc/self` is read before the new /proc hides the outer PID. Ports picked at random are never the tunnels'
# (41641, 51820): a wireguard-go opens one at random before it is told its own, which may be its neighbour's.
_INIT = """
set -e
read -r pid _ < /proc/self/stat
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/wireguard /run/tailscale /run/lock
cat /proc/sys/kernel/random/uuid > /run/boot_id
mount --bind /run/boot_id /proc/sys/kernel/random/boot_id
[ -e "$2/machine-id" ] || tr -d - < /proc/sys/kernel/random/uuid > "$2/machine-id"
[ ! -e /etc/machine-id ] || mount --bind "$2/machine-id" /etc/machine-id
hostname "$1"
ip link set lo up
echo "32768 40959" > /proc/sys/net/ipv4/ip_local_port_range
echo "$pid"
read -r _ || true
"""


class LabError(Exception):
    """Something in the lab could not be built or done; the text says what and, where known, the remedy."""


def _setns(fd: int, kind: int) -> None:
    if _libc.setns(fd, kind) != 0:
        errno = ctypes.get_errno()
        raise LabError(f"setns: {os.strerror(errno)}; the lab needs root with CAP_SYS_ADMIN")


class Process:
    """A process of a host, logging to a file. Signals go to its process group."""

    def __init__(self, name: str, argv: Sequence[str], popen: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.argv = tuple(argv)
        self.log = log
        self._popen = popen

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def alive(self) -> bool:
        return self._popen.poll() is None

    @property
    def returncode(self) -> int | None:
        return self._popen.poll()

    def signal(self, number: int) -> None:
        """Sends signal `number`; nothing when the process is gone."""
        if self.alive:
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                self._popen.send_signal(number)

    def freeze(self) -> None:
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, and waits until it is gone."""
        self.signal(signal.SIGKILL)
        self._popen.wait(10)

    def stop(self, timeout_s: float = 5.0) -> int:
        """SIGTERM, then SIGKILL after `timeout_s`. Returns the exit status."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            return self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._popen.wait()

    def wait(self, timeout_s: float) -> int:
        return self._popen.wait(timeout_s)

    def tail(self, lines: int = 30) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Namespace:
    """A host's namespaces, and how to run things in them.

    `pid` is PID 1 of the host as seen from outside; `nsenter -t PID -a` is a shell in the host. `init`: what PID 1
    does, with the host's name and then its directory as arguments.
    """

    init = _INIT

    def __init__(self, name: str, directory: Path, cgroup: Path | None = None) -> None:
        self.name = name
        self.directory = directory
        self.processes: dict[str, Process] = {}
        self.frozen = False
        self._cgroup = cgroup
        self._children: list[subprocess.Popen[str]] = []
        self._init: subprocess.Popen[str] | None = None
        self.pid = 0
        self._pid_fd = -1
        directory.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Starts PID 1; `ready` waits for it. Two steps, so that many hosts start side by side."""
        if self._cgroup is not None:
            self._cgroup.mkdir(parents=True, exist_ok=True)
        self._init = subprocess.Popen(
            [
                "unshare",
                "--net",
                "--mount",
                "--uts",
                "--pid",
                "--fork",
                "--kill-child",
                "sh",
                "-c",
                self.init,
                "sh",
                self.name,
                str(self.directory),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def ready(self) -> None:
        """Waits until PID 1 has its mounts and loopback."""
        assert self._init is not None
        assert self._init.stdout is not None
        assert self._init.stderr is not None
        line = self._init.stdout.readline().strip()
        if not line.isdigit():
            self._init.wait(5)
            raise LabError(f"{self.name}: no namespaces: {self._init.stderr.read().strip()} (the lab needs root)")
        self.pid = int(line)
        self._pid_fd = os.open(f"/proc/{self.pid}/ns/pid", os.O_RDONLY)

    @property
    def alive(self) -> bool:
        return self._init is not None and self._pid_fd >= 0 and self._init.poll() is None

    # --- running things ----------------------------------------------------------------------------------------------

    def popen(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        stdin: int | IO[bytes] | IO[str] | None = subprocess.DEVNULL,
        stdout: int | IO[bytes] | IO[str] | None = None,
        stderr: int | IO[bytes] | IO[str] | None = None,
        text: bool = True,
        pass_fds: Sequence[int] = (),
    ) -> subprocess.Popen[str]:
        """`subprocess.Popen` in the host, in a session of its own; `env` is added to ours."""
        if not self.alive:
            raise LabError(f"{self.name} is not running")
        command = ["nsenter", f"--net=/proc/{self.pid}/ns/net", f"--uts=/proc/{self.pid}/ns/uts"]
        command += [f"--mount=/proc/{self.pid}/ns/mnt", "--", *argv]
        if self._cgroup is not None:
            command = ["sh", "-c", 'echo 0 > "$0" && exec "$@"', str(self._cgroup / "cgroup.procs"), *command]
        # Only children enter a PID namespace, so this thread points its children there while it forks: the child's PID
        # is then the process's own, with no nsenter in between to swallow signals.
        with _spawning:
            own = os.open("/proc/thread-self/ns/pid", os.O_RDONLY)
            try:
                _setns(self._pid_fd, _CLONE_NEWPID)
                try:
                    child: subprocess.Popen[str] = subprocess.Popen(
                        command,
                        env={**os.environ, **(env or {})},
                        stdin=stdin,
                        stdout=stdout,
                        stderr=stderr,
                        text=text,
                        pass_fds=pass_fds,
                        start_new_session=True,
                    )
                finally:
                    _setns(own, _CLONE_NEWPID)
            finally:
                os.close(own)
        self._children = [one for one in self._children if one.poll() is None]
        self._children.append(child)
        return child

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        input: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout_s: float = 30.0,
    ) -> subprocess.CompletedProcess[str]:
        """Runs `argv` in the host to its end. With `check`, a failure is a LabError with the command's own words."""
        child = self.popen(
            argv,
            env=env,
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            out, err = child.communicate(input, timeout_s)
        except subprocess.TimeoutExpired:
            child.kill()
            out, err = child.communicate()
            raise LabError(f"{self.name}: {' '.join(argv)}: not done after {timeout_s} s: {err.strip()}") from None
        if check and child.returncode != 0:
            raise LabError(f"{self.name}: {' '.join(argv)}: exit {child.returncode}: {(err or out).strip()[:2000]}")
        return subprocess.CompletedProcess(list(argv), child.returncode, out, err)

    def spawn(self, argv: Sequence[str], *, name: str, env: Mapping[str, str] | None = None) -> Process:
        """Starts a daemon under `name`, logging to `<name>.log` in the host's directory."""
        old = self.processes.get(name)
        if old is not None and old.alive:
            raise LabError(f"{self.name}: {name} is running already")
        log = self.directory / f"{name}.log"
        with log.open("ab") as out:
            child = self.popen(argv, env=env, stdout=out, stderr=subprocess.STDOUT, text=False)
        process = Process(name, argv, child, log)  # type: ignore[arg-type]
        self.processes[name] = process
        return process

    def python(self, script: str | Path, *args: object, name: str, env: Mapping[str, str] | None = None) -> Process:
        """Starts a Python script that needs only the standard library (isolated mode: it starts in 20 ms)."""
        return self.spawn([sys.executable, "-I", "-S", str(script), *map(str, args)], name=name, env=env)

    # --- life and death ----------------------------------------------------------------------------------------------

    def pids(self) -> list[int]:
        """PIDs, seen from outside, of all processes of the host but its PID 1."""
        want = os.fstat(self._pid_fd)
        found = []
        for entry in os.listdir("/proc"):
            if not entry.isdigit() or int(entry) == self.pid:
                continue
            try:
                got = os.stat(f"/proc/{entry}/ns/pid")
            except OSError:
                continue  # it ended while we looked
            if (got.st_dev, got.st_ino) == (want.st_dev, want.st_ino):
                found.append(int(entry))
        return found

    def freeze(self) -> None:
        """SIGSTOP to every process of the host; again, until no new one shows up."""
        self.frozen = True
        seen: set[int] = set()
        while fresh := set(self.pids()) - seen:
            self._signal_all(fresh, signal.SIGSTOP)
            seen |= fresh

    def thaw(self) -> None:
        self.frozen = False
        self._signal_all(set(self.pids()), signal.SIGCONT)

    @staticmethod
    def _signal_all(pids: set[int], number: int) -> None:
        for pid in pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def close(self) -> None:
        """Power off: every process, interface, route and mount of the host is gone on return. Idempotent."""
        init, self._init = self._init, None
        if init is None:
            return
        if self.pid and init.poll() is None:
            self._signal_all({self.pid}, signal.SIGKILL)
        elif init.poll() is None:
            init.kill()
        # The kernel lets PID 1 go only once our children among its processes are reaped.
        # On a busy machine a tunnel's device may take many seconds to go.
        deadline = time.monotonic() + _GONE_S
        while left := [one.pid for one in (*self._children, init) if one.poll() is None]:
            if time.monotonic() > deadline:
                raise LabError(f"{self.name}: {left} not gone {_GONE_S:.0f} s after SIGKILL")
            time.sleep(0.002)
        for child in (*self._children, init):
            for pipe in (child.stdin, child.stdout, child.stderr):
                if pipe is not None and not pipe.closed:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
        self._children.clear()
        self.processes.clear()
        self.frozen = False
        self.pid = 0
        if self._pid_fd >= 0:
            os.close(self._pid_fd)
            self._pid_fd = -1
        if self._cgroup is not None:
            remove_cgroup(self._cgroup)


def remove_cgroup(cgroup: Path) -> None:
    """Removes an emptied cgroup; the kernel needs a moment after its last process."""
    for _ in range(100):
        try:
            cgroup.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.01)
        else:
            return


def start_time(pid: int) -> str:
    """A process's start in ticks since boot: with the PID, its identity. "" when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except OSError:
        return ""


def cpu_cgroups() -> Path | None:
    """Where to make one CPU cgroup a host, so that a hog on one starves only that one; None where we may not."""
    for root, control in (("/sys/fs/cgroup/cpu", ""), ("/sys/fs/cgroup", "cgroup.subtree_control")):
        path = Path(root)
        if not (path / "cgroup.procs").exists() or not os.access(path, os.W_OK):
            continue
        if control and "cpu" not in (path / control).read_text().split():
            continue
        return path
    return None
