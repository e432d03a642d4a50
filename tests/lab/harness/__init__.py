"""The lab: hosts as namespaces, with real tunnels, broker and etcd, and faults by name. For tests, demo, bench."""

from lab.harness.lab import Host, HostSpec, Lab
from lab.harness.namespaces import LabError, Process

__all__ = ["Host", "HostSpec", "Lab", "LabError", "Process"]
