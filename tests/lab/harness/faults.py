"""Faults by name, with words for arguments: what the demo's command line and `Lab.fault` understand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from lab.harness.namespaces import LabError

if TYPE_CHECKING:
    from lab.harness.lab import Lab


@dataclasses.dataclass(frozen=True)
class Fault:
    """`usage`: its arguments, [optional]. HOST HOST: that pair; one HOST: all its pairs; none: everywhere."""

    usage: str
    help: str
    do: Callable[..., object]


def _degrade(lab: Lab, *args: str) -> None:
    hosts = [arg for arg in args if arg in lab.hosts]
    numbers = [float(arg) for arg in args if arg not in lab.hosts]
    delay_ms, jitter_ms, loss_percent = (*numbers, *(150.0, 30.0, 0.0)[len(numbers) :])
    a, b = (*hosts, None, None)[:2]
    lab.degrade(a, b, delay_s=delay_ms / 1000, jitter_s=jitter_ms / 1000, loss=loss_percent / 100)


FAULTS: Mapping[str, Fault] = {
    "overlay-cut": Fault(
        "[HOST [HOST]]", "the overlay's packets vanish silently", lambda lab, *h: lab.cut("overlay", *h)
    ),
    "overlay-mend": Fault("[HOST [HOST]]", "ends cuts, losses and the relay", lambda lab, *h: lab.mend("overlay", *h)),
    "overlay-loss": Fault(
        "PERCENT [HOST [HOST]]",
        "the overlay loses a share, both ways",
        lambda lab, p, *h: lab.loss("overlay", float(p) / 100, *h),
    ),
    "overlay-one-way": Fault(
        "HOST HOST", "nothing passes from the first to the second", lambda lab, *h: lab.cut("overlay", *h, one_way=True)
    ),
    "overlay-narrow": Fault(
        "BYTES [HOST [HOST]]",
        "the overlay swallows packets of more bytes, silently",
        lambda lab, size, *h: lab.narrow("overlay", int(size), *h),
    ),
    "overlay-gone": Fault(
        "HOST", "the overlay's daemon and interface vanish", lambda lab, host: lab.overlay_gone(host)
    ),
    "overlay-back": Fault("HOST", "and come back", lambda lab, host: lab.overlay_back(host)),
    "degrade": Fault("[HOST [HOST]] [DELAY_MS [JITTER_MS [LOSS_PERCENT]]]", "overlay by a relay (DERP)", _degrade),
    "backup-cut": Fault("[HOST [HOST]]", "the backup's packets vanish silently", lambda lab, *h: lab.cut("backup", *h)),
    "backup-mend": Fault("[HOST [HOST]]", "and pass again", lambda lab, *h: lab.mend("backup", *h)),
    "backup-loss": Fault(
        "PERCENT [HOST [HOST]]",
        "the backup loses a share, both ways",
        lambda lab, p, *h: lab.loss("backup", float(p) / 100, *h),
    ),
    "host-freeze": Fault("HOST", "every process of the host stops (SIGSTOP)", lambda lab, host: lab[host].freeze()),
    "host-thaw": Fault("HOST", "and goes on", lambda lab, host: lab[host].thaw()),
    "host-kill": Fault("HOST", "power cut", lambda lab, host: lab.kill_host(host)),
    "host-boot": Fault("HOST", "power back: tunnels and agent", lambda lab, host: lab.boot_host(host)),
    "agent-kill": Fault("HOST", "SIGKILL to the agent", lambda lab, host: lab.process(host, "agent").kill()),
    "agent-start": Fault("HOST", "the agent again", lambda lab, host: lab.start_agents(host)),
    "broker-kill": Fault("", "SIGKILL to mosquitto", lambda lab: lab.kill_broker()),
    "broker-start": Fault("", "mosquitto again, with what it saved", lambda lab: lab.start_broker()),
    "controller-kill": Fault("", "SIGKILL to the controller", lambda lab: lab.kill_controller()),
    "controller-start": Fault("", "the controller again", lambda lab: lab.start_controller()),
    "controller-cut": Fault("", "the controller's broker traffic vanishes", lambda lab: lab.cut_controller()),
    "controller-mend": Fault("", "and passes again", lambda lab: lab.cut_controller(False)),
    "etcd-kill": Fault("HOST", "SIGKILL to the member", lambda lab, host: lab.process(host, "etcd").kill()),
    "etcd-start": Fault("HOST", "the member again, with its data", lambda lab, host: lab.restart_etcd(host)),
    "etcd-freeze": Fault("HOST", "SIGSTOP to the member", lambda lab, host: lab.process(host, "etcd").freeze()),
    "etcd-thaw": Fault("HOST", "and goes on", lambda lab, host: lab.process(host, "etcd").thaw()),
    "hog": Fault(
        "HOST [TASKS [SECONDS]]",
        "busy processes, 25 for 60 s unless said otherwise",
        lambda lab, host, tasks="25", seconds="60": lab[host].hog(int(tasks), float(seconds)),
    ),
}


def do_fault(lab: Lab, name: str, *args: str) -> object:
    """Does fault `name`; a wrong name, host or number is a LabError that tells what would be right."""
    fault = FAULTS.get(name)
    if fault is None:
        raise LabError(f"no fault {name!r}; there are:\n{fault_help()}")
    try:
        return fault.do(lab, *args)
    except (TypeError, ValueError) as error:
        raise LabError(f"usage: {name} {fault.usage} ({error})") from None


def fault_help() -> str:
    return "\n".join(f"  {f'{name} {fault.usage}':66} {fault.help}" for name, fault in FAULTS.items())
