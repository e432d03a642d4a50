"""What keeps the agent small. What it weighs in the end, bench/footprint measures."""

from __future__ import annotations

import subprocess
import sys

# As `vagus-agent run` imports them, without its daemon.
IMPORTS = "import vagus_agent.__main__, vagus_agent.daemon, pyroute2, sys"


def python(program: str) -> str:
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_what_no_part_of_the_agent_uses_is_not_loaded() -> None:
    loaded = set(python(f"{IMPORTS}; print(*sys.modules)").split())
    assert {"pyroute2", "paho.mqtt.client", "urllib.request"} <= loaded, "imported in name"
    unwanted = {"http.client", "email", "email.parser", "importlib.metadata", "tempfile", "pickle", "zipfile"}
    assert not loaded & unwanted


def test_a_postponed_module_loads_at_its_first_use() -> None:
    program = (
        f"{IMPORTS}; from urllib.request import Request; print(Request('http://a/b').selector, 'email' in sys.modules)"
    )
    assert python(program) == "/b True"


def test_all_threads_share_one_heap() -> None:
    program = "from vagus_runtime import memory; print(memory.one_heap())"
    assert python(program) == "True"


def test_what_exists_after_the_start_is_not_looked_at_again() -> None:
    program = f"{IMPORTS}, gc; from vagus_runtime import memory; memory.settle(); print(len(gc.get_objects()) < 1000)"
    assert python(program) == "True"
