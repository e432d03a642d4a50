"""STAND-IN for Tailscale on hosts that boot: tailscaled.service with wireguard-go behind it, and its LocalAPI."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

from lab.harness import tailscale_rules
from lab.harness.hosts import HERE, PORT, Host, PathName, tunnel_script

_DIR: Final = "usr/lib/vagus-tests"
_UNITS: Final = "usr/lib/systemd/system"

_TAILSCALED = """\
[Unit]
Description=Stand-in for tailscaled: wireguard-go
After=network-pre.target

[Service]
Environment=GOMAXPROCS=1 LOG_LEVEL=error
ExecStart=/usr/bin/wireguard-go -f tailscale0
ExecStartPost=/bin/sh -e /usr/lib/vagus-tests/tailscaled-up
ExecStopPost=/bin/sh /usr/lib/vagus-tests/tailscaled-down
Restart=on-failure

[Install]
WantedBy=multi-user.target
"""

_LOCALAPI = """\
[Unit]
Description=Stand-in for Tailscale's LocalAPI
PartOf=tailscaled.service

[Service]
RuntimeDirectory=tailscale
ExecStart=/usr/bin/python3 -I -S /usr/lib/vagus-tests/localapi_standin.py \
    /run/tailscale/tailscaled.sock /usr/lib/vagus-tests/localapi.json

[Install]
WantedBy=tailscaled.service
"""

LINKS: Mapping[str, str] = {
    f"etc/systemd/system/{wanted_by}.wants/{unit}": f"/{_UNITS}/{unit}"
    for wanted_by, unit in (
        ("multi-user.target", "tailscaled.service"),
        ("tailscaled.service", "tailscaled-localapi.service"),
    )
}


def files(host: Host, peers: Sequence[Host]) -> dict[str, str]:
    """What makes it, by name from the root, beside `LINKS`."""

    def endpoint(host: Host, peer: Host, path: PathName) -> str:
        return f"{peer.underlay}:{PORT[path]}"

    up = [
        tunnel_script(host, peers, "overlay", True, endpoint),
        tailscale_rules.rules_script("add", True),
        tailscale_rules.filter_script(drop=True),
    ]
    down = [tailscale_rules.rules_script("del", True), tailscale_rules.no_filter_script()]
    state = {
        "backend": "Running",
        "self": {"HostName": host.name, "TailscaleIPs": [host.overlay, host.overlay6]},
        "peers": [
            {
                "name": peer.name,
                "ips": [peer.overlay, peer.overlay6],
                "routes": [f"{peer.service}/32", f"{peer.service6}/128"],
                "key": peer.key["overlay"].public_hex,
                "path": "direct",
                "endpoint": f"{peer.underlay}:{PORT['overlay']}",
                "since": 0.0,
            }
            for peer in peers
        ],
    }
    return {
        f"{_DIR}/tailscaled-up": "\n".join(up) + "\n",
        f"{_DIR}/tailscaled-down": "\n".join(down) + "\n",
        f"{_DIR}/localapi_standin.py": (HERE / "localapi_standin.py").read_text(),
        f"{_DIR}/localapi.json": json.dumps(state),
        f"{_UNITS}/tailscaled.service": _TAILSCALED,
        f"{_UNITS}/tailscaled-localapi.service": _LOCALAPI,
    }
