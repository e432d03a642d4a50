#!/usr/bin/python
"""Asks a controller, on its own host, whether a rollout may go on."""

from __future__ import annotations

DOCUMENTATION = r"""
module: vagus_rollout
short_description: Ask a vagus controller whether a rollout may go on
description:
  - Runs on the controller's host and asks its REST API.
  - C(begin) fails while the fleet is not fit for an upgrade. What it returns as RV(before) C(wait) compares with.
  - C(wait) looks until the nodes are healthy on their versions and nothing in the fleet is worse than before. It does
    not fail when they are not, so that the play can go back; it says so in RV(healthy) and RV(why).
options:
  state:
    description: What is asked.
    type: str
    choices: [begin, wait]
    required: true
  nodes:
    description: The nodes that are to be upgraded, by the names that the controller has for them.
    type: list
    elements: str
    default: []
  canary:
    description: With C(begin), which of them is to be the first.
    type: str
    default: ""
  last:
    description: With C(begin), which of them are to be the last.
    type: list
    elements: str
    default: []
  version:
    description: With C(begin), the version that they are to run.
    type: str
    default: ""
  versions:
    description: With C(wait), node to version.
    type: dict
    default: {}
  controller:
    description: With C(wait), the version that the controller itself must run; left out, any.
    type: str
    default: ""
  before:
    description: With C(wait), what C(begin) returned; left out, only the nodes themselves are judged.
    type: dict
    default: {}
  force:
    description: The reason to begin although the fleet is not fit.
    type: str
    default: ""
  note:
    description: Whether that reason is noted on every open incident.
    type: bool
    default: false
  steady_s:
    description: For how long all must have been well.
    type: float
    default: 30
  timeout_s:
    description: By when it must have become so.
    type: float
    default: 180
extends_documentation_fragment: vagus_api
author: the vagus engineers
"""

RETURN = r"""
before: {description: How the fleet is, returned: state=begin, type: dict}
outdated: {description: "Nodes that run another version, in their order", returned: state=begin, type: list}
controller_version: {description: What the controller runs, returned: state=begin, type: str}
forced: {description: What would have refused it, returned: state=begin, type: list}
healthy: {description: Whether all became well, returned: state=wait, type: bool}
why: {description: What was not well, returned: state=wait, type: list}
waited_s: {description: How long it took, returned: state=wait, type: float}
"""

import time
from typing import Any

from ansible.module_utils import vagus_rollout as rollout
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.vagus_api import OPTIONS, Api, ApiError

# The controller is asked so often; nodes report every 2 s.
_EVERY_S = 2.0


def begin(module: AnsibleModule, api: Api) -> dict[str, Any]:
    asked = module.params
    reason, mistake = rollout.reason_to_force(asked["force"])
    if mistake:
        module.fail_json(msg=mistake)
    picture = api.picture()
    doubt = rollout.doubt(picture)
    if doubt:
        module.fail_json(msg=f"no rollout now: {doubt}. Wait until it is connected and sure; no force helps")
    found = rollout.hindrances(picture, asked["nodes"])
    if found and not reason:
        module.fail_json(
            msg=f"no rollout now: {'; '.join(found)}. Mend or end that first, or say why it shall go on all the same: "
            "-e 'vagus_rollout_force=\"REASON\"'",
            hindrances=found,
        )
    if found and asked["note"] and not module.check_mode:
        for incident in picture["fleet"]["incidents"]:
            text = f"a rollout of {asked['version']} goes on although this is open: {reason}"
            api.ask("POST", f"/incidents/{incident['id']}/note", {"text": text[:1000]})
    outdated = rollout.outdated(picture, asked["nodes"], asked["version"])
    return {
        "before": rollout.portrait(picture),
        "outdated": rollout.order(outdated, asked["canary"], asked["last"]),
        "controller_version": picture["fleet"]["version"],
        "forced": found,
    }


def wait(module: AnsibleModule, api: Api) -> dict[str, Any]:
    asked = module.params
    began = time.monotonic()
    before = asked["before"] or rollout.NOTHING
    watch = rollout.Watch(before, asked["versions"], asked["controller"], asked["steady_s"], asked["timeout_s"], began)
    while True:
        picture, error = None, ""
        try:
            picture = api.picture()
        except ApiError as failed:
            error = str(failed)
        state = watch.see(picture, error, time.monotonic())
        if state != "wait":
            waited_s = round(time.monotonic() - began, 1)
            return {"healthy": state == "healthy", "why": watch.why(), "waited_s": waited_s}
        time.sleep(_EVERY_S)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["begin", "wait"], "required": True},
            "nodes": {"type": "list", "elements": "str", "default": []},
            "canary": {"type": "str", "default": ""},
            "last": {"type": "list", "elements": "str", "default": []},
            "version": {"type": "str", "default": ""},
            "versions": {"type": "dict", "default": {}},
            "controller": {"type": "str", "default": ""},
            "before": {"type": "dict", "default": {}},
            "force": {"type": "str", "default": ""},
            "note": {"type": "bool", "default": False},
            "steady_s": {"type": "float", "default": 30},
            "timeout_s": {"type": "float", "default": 180},
            **OPTIONS,
        },
        supports_check_mode=True,
    )
    try:
        api = Api(module.params["url"], module.params["token_file"], "rollout.yml")
        answer = {"begin": begin, "wait": wait}[module.params["state"]](module, api)
    except ApiError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **answer)


if __name__ == "__main__":
    main()
