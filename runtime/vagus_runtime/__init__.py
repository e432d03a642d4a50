"""What both daemons need of the machine they run on: the settings file, key files, systemd, the log.

No knowledge of vagus' domain: nothing here imports the agent, the controller or the contract's messages.
"""
