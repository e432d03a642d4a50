"""A Debian userland of another processor, run here by qemu-user.

Needs root, mmdebstrap and qemu-user-static. Nothing of it stays but a cached tar: the programs run in namespaces of
their own that end with them, and what was registered with the kernel (binfmt_misc concerns the whole machine) is taken
back.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from install_release import Refused
from wheelhouse import run


class Processor(NamedTuple):
    """As qemu calls it, and the oldest core that the release is for: what a Pi cannot run does not run here either.

    (qemu's own choice is a core that has everything, of which it takes ten times as long over what Debian 13 uses.)
    """

    name: str
    core: str


# By Debian's name: those of a Pi 4, and of a Pi 2.
PROCESSORS: Final = {"arm64": Processor("aarch64", "cortex-a72"), "armhf": Processor("arm", "cortex-a7")}
# Debian's release with this Python.
SUITES: Final = {"3.11": "bookworm", "3.13": "trixie"}
_BINFMT: Final = Path("/proc/sys/fs/binfmt_misc")
# The release alone, without its updates: nothing here is a system that runs, and one index less can be amiss.
_MIRROR: Final = "http://deb.debian.org/debian"
# Debian 13 keeps the links of its root, such as /lib, in there.
_ALWAYS: Final = ("base-files",)


def check_machine() -> None:
    if os.geteuid() != 0:
        raise Refused("a userland of another processor needs root")
    missing = [name for name in ("mmdebstrap",) if shutil.which(name) is None]
    missing += ["qemu-user-static"] if not Path("/usr/bin/qemu-arm-static").exists() else []
    if missing:
        raise Refused(f"missing here: apt-get install --no-install-recommends {' '.join(missing)}")


def unpack(arch: str, suite: str, packages: Sequence[str], cache: Path, folder: Path) -> None:
    """A root with `packages` into `folder`. Packages are unpacked, not set up: no service, no cache of libraries."""
    names = sorted({*packages, *_ALWAYS})
    key = hashlib.sha256(" ".join(names).encode()).hexdigest()[:16]
    tar = cache / f"userland-{arch}-{suite}-{key}.tar"
    if not tar.exists():
        cache.mkdir(parents=True, exist_ok=True)
        partial = tar.with_name(f"{tar.name}.{os.getpid()}")
        try:
            run(
                [
                    *("mmdebstrap", "--quiet", "--variant=extract", f"--architectures={arch}", "--format=tar"),
                    *(f"--include={','.join(names)}", suite, partial, _MIRROR),
                ],
                f"making a userland of Debian {suite} for {arch}",
            )
            partial.replace(tar)
        finally:
            partial.unlink(missing_ok=True)
    run(["tar", "-xf", tar, "-C", folder], f"unpacking {tar.name}")
    for name in ("proc", "sys", "dev", "run", "tmp", "root"):
        (folder / name).mkdir(exist_ok=True)


@contextmanager
def emulated(arch: str) -> Iterator[None]:
    """The kernel starts programs of `arch` by qemu-user. One at a time; the system's own registration stays."""
    processor = PROCESSORS[arch].name
    name = f"vagus-{processor}"
    with Path(f"/usr/bin/qemu-{processor}-static").open("rb") as qemu:
        fcntl.flock(qemu, fcntl.LOCK_EX)
        mounted = not (_BINFMT / "register").exists()
        if mounted:
            run(["mount", "-t", "binfmt_misc", "binfmt_misc", _BINFMT], "mounting binfmt_misc")
        try:
            _forget(name)
            ours = not (_BINFMT / f"qemu-{processor}").exists()
            if ours:
                _register(name, processor)
            try:
                yield
            finally:
                if ours:
                    _forget(name)
        finally:
            if mounted:
                run(["umount", _BINFMT], "unmounting binfmt_misc")


def _register(name: str, processor: str) -> None:
    """F: the kernel opens qemu now, so that it is found from within a chroot."""
    lines = Path(f"/usr/lib/binfmt.d/qemu-{processor}.conf").read_text().splitlines()
    line = next(each for each in lines if each.startswith(":"))
    _, _, rest = line[1:].partition(":")
    try:
        (_BINFMT / "register").write_text(f":{name}:{rest}")
    except OSError as error:
        raise Refused(f"the kernel does not take qemu-{processor} into binfmt_misc: {error.strerror}") from None


def _forget(name: str) -> None:
    """What an earlier run that was killed has left, too."""
    if (_BINFMT / name).exists():
        (_BINFMT / name).write_text("-1")


def run_in(root: Path, arch: str, command: Sequence[object], what: str) -> str:
    """What `command` printed inside `root`, with /proc, /sys and /dev, in namespaces that end with it."""
    core = f"QEMU_CPU={PROCESSORS[arch].core}"
    script = (
        'mount -t proc proc "$0/proc" && mount --rbind /sys "$0/sys" && mount --rbind /dev "$0/dev" && '
        'exec chroot "$0" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 HOME=/root TMPDIR=/tmp "$@"'
    )
    inside = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, root, core]
    return run([*inside, *command], what)
