"""What Tailscale puts beside its interface, and what stays of it when tailscaled ends.

| it …                | tailscale0 | its addresses, table 52 | ip rules | chain ts-input |
| ------------------- | ---------- | ----------------------- | -------- | -------------- |
| is stopped cleanly  | goes       | go                      | go       | goes           |
| is killed           | goes       | go with it              | stay     | stays          |
| logs out, goes down | stays      | go                      | stay     | goes           |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from lab.harness.hosts import Host

End = Literal["stopped", "killed", "logged out"]

# Its mark goes to the main table, its peers are in table 52.
RULES = (
    (5210, "fwmark 0x80000/0xff0000 lookup main"),
    (5230, "fwmark 0x80000/0xff0000 lookup default"),
    (5250, "fwmark 0x80000/0xff0000 unreachable"),
    (5270, "lookup 52"),
)
# A source in 100.64/10 that did not come in by tailscale0 is dropped, replies included.
_DROP = 'ip saddr 100.64.0.0/10 iifname != "tailscale0" counter drop'
_TABLE = """
table ip filter {{
  chain ts-input {{
    iifname "lo" accept
    ip saddr 100.115.92.0/23 iifname != "tailscale0" counter return
    {drop}
    iifname "tailscale0" counter accept
  }}
  chain INPUT {{
    type filter hook input priority filter; policy accept;
    jump ts-input
  }}
}}
"""
_CLEAR = "table ip filter\ndelete table ip filter\n"


def rules_script(verb: Literal["add", "del"], ipv6: bool) -> str:
    """Shell for its ip rules; adding those that stand, or deleting those that are gone, changes nothing."""
    lines = []
    for ip in ("ip", "ip -6")[: 2 if ipv6 else 1]:
        for pref, what in RULES:
            lines.append(f"{ip} rule del pref {pref} 2>/dev/null || true")
            if verb == "add":
                lines.append(f"{ip} rule add pref {pref} {what}")
    return "\n".join(lines)


def filter_script(*, drop: bool) -> str:
    """Shell for the chain ts-input; without the drop it is as node attribute disable-linux-cgnat-drop-rule makes it."""
    return f"nft -f - <<'END'\n{_CLEAR}{_TABLE.format(drop=_DROP if drop else '')}\nEND"


def no_filter_script() -> str:
    return f"nft -f - <<'END'\n{_CLEAR}\nEND"


def log_out_script(ipv6: bool) -> str:
    """Shell for what goes by a logout: the interface stays, with nobody behind it."""
    lines = ["wg show tailscale0 peers | while read -r key; do wg set tailscale0 peer $key remove; done"]
    for ip in ("ip -4", "ip -6")[: 2 if ipv6 else 1]:
        lines += [f"{ip} addr flush dev tailscale0", f"{ip} route flush table 52"]
    return "\n".join(lines)


def what_stands(host: Host) -> tuple[bool, bool, bool]:
    """Whether the host has tailscale0, Tailscale's ip rules, its chain."""
    device = host.run(["ip", "link", "show", "tailscale0"], check=False).returncode == 0
    rules = "lookup 52" in host.run(["ip", "rule"]).stdout
    chain = host.run(["nft", "list", "chain", "ip", "filter", "ts-input"], check=False).returncode == 0
    return device, rules, chain
