"""The contract between agents and controllers: messages, topics, codec, signing and the probe packet.

No I/O and no clock: everything here is a function of its arguments.
"""
