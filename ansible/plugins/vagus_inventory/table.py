"""docs/ansible.md's table of all variables, from the roles' own argument_specs: `python3 -m vagus_inventory.table`."""

from __future__ import annotations

import json
import sys
from typing import Any

from vagus_inventory.variables import Variable, declared

BEGIN = "<!-- variables: made by python3 -m vagus_inventory.table -->"
END = "<!-- end of variables -->"


def table(variables: list[Variable]) -> str:
    lines = [BEGIN, "| variable | of | default | meaning |", "| --- | --- | --- | --- |"]
    for variable in variables:
        default = "required" if variable.required else f"`{_shown(variable)}`"
        kind = " or ".join(map(str, variable.choices)) or variable.kind
        lines.append(f"| `{variable.name}` ({kind}) | {variable.role} | {default} | {variable.description} |")
    return "\n".join([*lines, END])


def _shown(variable: Variable) -> str:
    value: Any = variable.default
    return str(value) if isinstance(value, str) and value else json.dumps(value)


if __name__ == "__main__":
    sys.stdout.write(table(list(declared().values())) + "\n")
