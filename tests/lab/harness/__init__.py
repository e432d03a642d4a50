"""The lab: hosts as namespaces, with real tunnels, broker and etcd, and faults by name. For tests, demo, bench."""

from lab.harness.faults import FAULTS, fault_help
from lab.harness.hosts import Host, HostSpec
from lab.harness.lab import Lab, sweep
from lab.harness.measure import EtcdWatch, TcpStream, UdpStream
from lab.harness.namespaces import LabError, Process

__all__ = ["FAULTS", "EtcdWatch", "Host", "HostSpec", "Lab", "LabError", "Process", "TcpStream", "UdpStream"]
__all__ += ["fault_help", "sweep"]
