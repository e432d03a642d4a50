"""vagusctl: the operator's command, a client of the REST API like any other."""

from vagus_controller.ctl.main import main

__all__ = ["main"]
