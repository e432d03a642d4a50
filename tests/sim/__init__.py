"""A whole fleet in virtual time: the agents' and controllers' own cores, and a broker, networks and kernels that fail.

See docs/architecture.md, "The simulation".
"""
