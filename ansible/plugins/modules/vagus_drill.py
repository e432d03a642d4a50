#!/usr/bin/python
"""Rehearses failover and failback over the controller's REST API, and tells what came of it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: vagus_drill
short_description: Drill a pair, a site or the fleet of vagus
description:
  - Runs on the controller's host, begins a drill by its REST API, and waits until it is over.
  - It fails when the drill is refused, stopped, or a pair did not go out and back.
options:
  scope:
    description: What is drilled.
    type: str
    choices: [pair, site, fleet]
    required: true
  target:
    description: The pair, as a--b, or the site.
    type: str
    default: ""
  reason:
    description: Kept in the ledger.
    type: str
    default: ""
  timeout_s:
    description: How long the drill may take. It goes on when this is over; only nobody waits for it.
    type: float
    default: 1800
extends_documentation_fragment: vagus_api
author: the vagus engineers
"""

RETURN = r"""
told: {description: A line for each pair, returned: always, type: list}
drill: {description: The drill as the API has it, returned: always, type: dict}
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.vagus_api import OPTIONS, Api, ApiError
from ansible.module_utils.vagus_drill import failure, told

_EVERY_S = 1.0


def carry_out(module: AnsibleModule, api: Api) -> dict[str, Any]:
    asked = module.params
    body = {"scope": asked["scope"], "target": asked["target"], "reason": asked["reason"]}
    drill = api.ask("POST", "/drills", body)
    deadline = time.monotonic() + asked["timeout_s"]
    while drill["state"] == "under way":
        if time.monotonic() > deadline:
            module.fail_json(
                msg=f"drill {drill['id']} is not over after {asked['timeout_s']:.0f} s: see `vagusctl drills`",
                told=told(drill),
            )
        time.sleep(_EVERY_S)
        drill = next((each for each in api.ask("GET", "/drills") if each["id"] == drill["id"]), None)
        if drill is None:
            module.fail_json(
                msg="the controller does not know the drill any more: it began anew, see `vagusctl drills`"
            )
    return drill


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "scope": {"type": "str", "choices": ["pair", "site", "fleet"], "required": True},
            "target": {"type": "str", "default": ""},
            "reason": {"type": "str", "default": ""},
            "timeout_s": {"type": "float", "default": 1800},
            **OPTIONS,
        },
    )
    try:
        drill = carry_out(module, Api(module.params["url"], module.params["token_file"], "drill.yml"))
    except ApiError as error:
        module.fail_json(msg=str(error))
    why = failure(drill)
    if why:
        module.fail_json(msg=why, told=told(drill), drill=drill)
    # Traffic went out and came back: nothing is another than before.
    module.exit_json(changed=False, told=told(drill), drill=drill)


if __name__ == "__main__":
    main()
