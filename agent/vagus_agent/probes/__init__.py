"""What the agent reads of its own node: the machine, etcd, Tailscale, services. Each probe answers with messages."""
