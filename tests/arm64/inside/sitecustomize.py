"""What Python does inside the emulator and nowhere else.

Netlink passes the emulator unread. qemu-user takes messages to the kernel apart, knows those about links, addresses and
routes, and refuses rules. Both processors are little-endian and 64 bits wide, so the kernel understands what is not
taken apart. qemu watches the file descriptor that socket() returned; of a copy made by fcntl() it does not know.

Programs run on the same core as who started them, also with an environment of their own, as install-release has it for
pip: on the core that is qemu's own choice, Debian 13 takes ten times as long.
"""

import fcntl
import os
import socket
import subprocess

_socket = socket.socket.__init__
_popen = subprocess.Popen.__init__


def _copied(self, family=-1, type=-1, proto=-1, fileno=None):
    _socket(self, family, type, proto, fileno)
    if fileno is None and family == socket.AF_NETLINK:
        copy = fcntl.fcntl(self.fileno(), fcntl.F_DUPFD_CLOEXEC, 0)
        os.close(self.detach())
        _socket(self, family, type, proto, copy)


def _on_the_same_core(self, *args, env=None, **more):
    core = {name: value for name, value in os.environ.items() if name == "QEMU_CPU"}
    _popen(self, *args, env=None if env is None else {**env, **core}, **more)


socket.socket.__init__ = _copied
subprocess.Popen.__init__ = _on_the_same_core
