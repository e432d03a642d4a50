"""Options of every module that asks the controller: module_utils/vagus_api.py has them for the modules themselves."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  url:
    description: Where the controller listens.
    type: str
    default: http://127.0.0.1:8118
  token_file:
    description: Its token, on its host.
    type: path
    default: /var/lib/vagus-controller/token
"""
