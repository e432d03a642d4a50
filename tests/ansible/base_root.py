"""The Debian that hosts boot from: built by mmdebstrap once per machine, kept, and never changed.

It lies under ${XDG_CACHE_HOME:-~/.cache}/vagus-tests, by what it is made of. Packages in `LATER` are there to be
installed by whoever is tested (`apt-get install`, no network): their files and apt's lists are in apt's cache.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from lab.harness.namespaces import LabError
from lab.harness.services import need

# What a small installation of Debian or Raspberry Pi OS has, and wireguard-go in the place of the kernel's WireGuard.
BASE: Final = (
    *("systemd", "systemd-sysv", "dbus", "libpam-systemd", "openssh-server", "sudo", "ca-certificates"),
    *("python3", "python3-venv", "python3-apt", "iproute2", "procps", "nftables", "wireguard-go", "wireguard-tools"),
)
LATER: Final = ("mosquitto", "mosquitto-clients", "openssl", "acl", "rsync", "curl")
SUITES: Final = ("bookworm", "trixie")

# /dev/null: apt must not ask.
_LATER = (
    'chroot "$1" apt-get clean </dev/null && '
    f'chroot "$1" apt-get install --download-only --no-install-recommends -qq -y {" ".join(LATER)} </dev/null'
)
_OPTIONS: Final = (
    *("--mode=root", "--variant=minbase", f"--include={','.join(BASE)}", f"--customize-hook={_LATER}"),
    *("--skip=cleanup/apt/lists", "--skip=cleanup/apt/cache"),
)

# What it mounts into the root (/proc, /sys) goes with it, however it ends: who removes what is left of a root must not
# find this machine's in it.
_ALONE: Final = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


def own_suite() -> str:
    """This machine's Debian, so that its Python is the hosts' too; the oldest that is supported where it is another."""
    lines = Path("/etc/os-release").read_text().splitlines()
    name = next((line.partition("=")[2].strip('"') for line in lines if line.startswith("VERSION_CODENAME=")), "")
    return name if name in SUITES else SUITES[0]


def base_root(suite: str = "") -> Path:
    """The root directory of `suite` (default: this machine's), made if need be: a minute and the network, once."""
    suite = suite or own_suite()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vagus-tests"
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / f"{suite}-{hashlib.sha256(repr(_OPTIONS).encode()).hexdigest()[:12]}"
    # Of two runs at once, one builds and the other waits.
    with (cache / f"{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            _build(suite, target)
    return target


def _build(suite: str, target: Path) -> None:
    sys.stderr.write(f"building {target}, from which hosts boot: once on this machine, a minute\n")
    for left in target.parent.glob(f"{target.name}.new-*"):
        shutil.rmtree(left)
    fresh = Path(tempfile.mkdtemp(prefix=f"{target.name}.new-", dir=target.parent))
    fresh.chmod(0o755)
    make([*_ALONE, need("mmdebstrap", "mmdebstrap"), *_OPTIONS, suite, fresh], f"mmdebstrap of a {suite} root")
    fresh.rename(target)


def make(argv: Sequence[str | Path], what: str) -> None:
    """Runs a program of this machine to its end; a failure is a LabError with its own last words."""
    done = subprocess.run(argv, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise LabError(f"{what} failed:\n{done.stderr.strip()[-3000:]}")
