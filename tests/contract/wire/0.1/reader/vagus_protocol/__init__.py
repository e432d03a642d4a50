"""The contract between agents and controllers: messages, topics, codec, signing and the probe packet.

No I/O and no clock: everything here is a function of its arguments.
"""

# The distribution's version: its build reads it here, and so do we; importlib.metadata costs a megabyte.
__version__ = "0.1.0"
